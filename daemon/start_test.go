package daemon

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cepa/directory"
	"cepa/ipaddr"
)

// freePort is an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// found makes a network whose authority's keys are in dir/authority.
func found(t *testing.T, dir, address string, test bool) (path string) {
	t.Helper()
	path = filepath.Join(dir, "network.toml")
	err := Found(path, Founding{
		Name: "test", Test: test, Parameters: directory.Parameters{directory.IntervalMillis: 2000, directory.MinRelays: 1},
		Relays: []FoundingRelay{{Dir: filepath.Join(dir, "authority"), Address: address, Authority: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func stop(n interface{ Stop(context.Context) }) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	n.Stop(ctx)
}

// settled waits until no more goroutines run than before.
func settled(t *testing.T, before int) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b := make([]byte, 1<<20)
	t.Errorf("%d goroutines instead of %d:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
}

// TestFound: the file verifies, the keys stay, and nothing is ever replaced.
func TestFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := found(t, dir, "127.0.0.1:9001", true)
	n, err := LoadNetwork(path)
	if err != nil || n.Quorum != 1 || len(n.Authorities) != 1 || len(n.Bootstrap) != 1 || !n.Test || n.ID.IsZero() {
		t.Fatalf("%+v, %v", n, err)
	}
	for _, f := range []Founding{
		{Name: "again", Test: true, Relays: []FoundingRelay{{Dir: filepath.Join(dir, "a"), Address: "127.0.0.1:1", Authority: true}}},
	} {
		if err := Found(path, f); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("%v", err)
		}
	}
	for name, relays := range map[string][]FoundingRelay{
		"no authority":      {{Dir: filepath.Join(dir, "b"), Address: "127.0.0.1:1"}},
		"nobody":            nil,
		"no address":        {{Dir: filepath.Join(dir, "b"), Authority: true}},
		"a name":            {{Dir: filepath.Join(dir, "b"), Address: "localhost:1", Authority: true}},
		"a port of 0":       {{Dir: filepath.Join(dir, "b"), Address: "127.0.0.1:0", Authority: true}},
		"the same relay":    {{Dir: filepath.Join(dir, "b"), Address: "127.0.0.1:1", Authority: true}, {Dir: filepath.Join(dir, "b"), Address: "127.0.0.1:2"}},
		"folder is no such": {{Dir: path, Address: "127.0.0.1:1", Authority: true}},
	} {
		other := filepath.Join(t.TempDir(), "network.toml")
		if err := Found(other, Founding{Name: "x", Test: true, Relays: relays}); err == nil {
			t.Errorf("%s: a network was founded", name)
		} else if _, err := os.Stat(other); err == nil {
			t.Errorf("%s: a file was written", name)
		}
	}
	// The same identity founds another network: it keeps its name.
	second := filepath.Join(dir, "second.toml")
	err = Found(second, Founding{Name: "second", Test: true, Relays: []FoundingRelay{{Dir: filepath.Join(dir, "authority"), Address: "127.0.0.1:9001", Authority: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := LoadNetwork(second); err != nil || m.ID == n.ID || m.Authorities[0].Identity != n.Authorities[0].Identity {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestLoadNetwork(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "text": "hello", "huge": strings.Repeat("#\n", directory.MaxNetworkFile)} {
		if _, err := LoadNetwork(write(t, "network.toml", text)); err == nil || !strings.Contains(err.Error(), "network.toml") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadNetwork(filepath.Join(t.TempDir(), "missing")); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Error(err)
	}
}

// TestFailedStartLeavesNothing: neither goroutines nor ports nor locks nor sockets, so that the
// next start works. It counts goroutines and is therefore not parallel.
func TestFailedStartLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	address := freePort(t)
	test := found(t, dir, address, true)
	public := found(t, t.TempDir(), "93.184.216.34:9001", false)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before := runtime.NumGoroutine()
	relayDir := filepath.Join(dir, "authority")
	good := RelayConfig{Network: test, Dir: relayDir, Listen: address}
	for _, c := range []struct {
		name   string
		change func(*RelayConfig)
		want   string
	}{
		{"port in use", func(c *RelayConfig) { c.Listen = taken.Addr().String() }, "opening the relay port"},
		{"unspecified address", func(c *RelayConfig) { c.Listen = "0.0.0.0:0" }, "--address"},
		{"unspecified address that is announced", func(c *RelayConfig) { c.Address = "0.0.0.0:9001" }, "--address"},
		{"no port announced", func(c *RelayConfig) { c.Address = "127.0.0.1:0" }, "--address"},
		{"a name announced", func(c *RelayConfig) { c.Address = "localhost:9001" }, "--address"},
		{"multicast announced", func(c *RelayConfig) { c.Address = "224.0.0.1:9001" }, "--address"},
		{"private address on a public network", func(c *RelayConfig) { c.Network = public }, "not a public address"},
		{"bad policy", func(c *RelayConfig) { c.ExitPolicy = "accept everything" }, "exit_policy"},
		{"bad network file", func(c *RelayConfig) { c.Network = filepath.Join(dir, "missing") }, "missing"},
		{"key log outside a test network", func(c *RelayConfig) {
			c.Network, c.Address, c.TLSKeyLog = public, "93.184.216.34:9001", filepath.Join(dir, "keys.log")
		}, "test networks only"},
		{"services outside a test network", func(c *RelayConfig) {
			c.Network, c.Address, c.Serve = public, "93.184.216.34:9001", []Service{{"a", 80, "127.0.0.1:1"}}
		}, "test networks only"},
		{"bad service", func(c *RelayConfig) { c.Serve = []Service{{"a", 80, "nowhere"}} }, "serve"},
		{"key log that cannot be written", func(c *RelayConfig) { c.TLSKeyLog = filepath.Join(dir, "missing", "keys.log") }, "key log"},
		{"folder that is a file", func(c *RelayConfig) { c.Dir = test }, ""},
		{"nickname too long", func(c *RelayConfig) { c.Nickname = strings.Repeat("x", 200) }, ""},
	} {
		config := good
		c.change(&config)
		r, err := StartRelay(config, Options{})
		if err == nil {
			stop(r)
			if c.name != "nickname too long" { // said of the descriptor, not of the start
				t.Errorf("%s: it started", c.name)
			}
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		settled(t, before)
	}
	if _, err := os.Stat(filepath.Join(dir, "keys.log")); err == nil {
		t.Error("a key log of a public network was made")
	}
	r, err := StartRelay(good, Options{})
	if err != nil {
		t.Fatalf("after the failures: %v", err)
	}
	if r.Address() != netip.MustParseAddrPort(address) {
		t.Errorf("listening on %v", r.Address())
	}
	second := good
	second.Listen = "127.0.0.1:0"
	if _, err := StartRelay(second, Options{}); err == nil || !strings.Contains(err.Error(), "another cepa") {
		t.Errorf("a second relay on the same folder: %v", err)
	}
	identity := r.Identity()
	stop(r)
	stop(r) // twice is harmless
	settled(t, before)
	if r, err = StartRelay(good, Options{}); err != nil {
		t.Fatalf("started again: %v", err)
	}
	if r.Identity() != identity {
		t.Error("a restart made another relay")
	}
	stop(r)
	settled(t, before)

	client := ClientConfig{Network: test, Dir: filepath.Join(dir, "client"), Socks: taken.Addr().String()}
	if _, err := StartClient(client, Options{}); err == nil || !strings.Contains(err.Error(), "opening the SOCKS port") {
		t.Errorf("a client on a port in use: %v", err)
	}
	settled(t, before)
	client.Socks, client.TLSKeyLog, client.Network = freePort(t), filepath.Join(dir, "keys.log"), public
	if _, err := StartClient(client, Options{}); err == nil || !strings.Contains(err.Error(), "test networks only") {
		t.Errorf("a client's key log on a public network: %v", err)
	}
	settled(t, before)
	client.TLSKeyLog = ""
	c, err := StartClient(client, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", client.Socks); err == nil {
		conn.Close()
		t.Error("the port is open before a circuit has carried data")
	}
	stop(c)
	settled(t, before)
}

// TestStopWhileStarting: a relay and a client that are stopped at once end at once.
func TestClientEndsWhileItWaitsForUsers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := found(t, dir, freePort(t), true)
	wait := make(chan struct{}) // nobody ever says that users may come
	c, err := StartClient(ClientConfig{Network: n, Dir: filepath.Join(dir, "client"), Socks: freePort(t)}, Options{Go: wait})
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	stop(c)
	select {
	case <-c.Done():
	default:
		t.Error("not done after Stop")
	}
	if took := time.Since(from); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestDialFrom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		listen string
		test   bool
		want   netip.Addr
	}{
		{"127.3.0.1:9", true, netip.MustParseAddr("127.3.0.1")},
		{"127.3.0.1:9", false, netip.Addr{}},
		{"0.0.0.0:9", true, netip.Addr{}},
		{"192.168.0.1:9", true, netip.Addr{}},
	} {
		if got := dialFrom(netip.MustParseAddrPort(c.listen), c.test); got != c.want {
			t.Errorf("%s, test %v: %v", c.listen, c.test, got)
		}
	}
	if ipaddr.IsPublic(serviceBase) {
		t.Error("services stand at public addresses")
	}
}
