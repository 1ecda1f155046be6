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

	"cepa/socks"
)

// A port setting says where, what is isolated, and what is wrong with it.
func TestPortSettings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		at    string
		rules socks.Config
	}{
		{"127.0.0.1:9850", "127.0.0.1:9850", socks.Config{}},
		{"[::ffff:127.0.0.1]:9850", "127.0.0.1:9850", socks.Config{}},
		{" 127.0.0.1:1  destination destination-port protocol ", "127.0.0.1:1",
			socks.Config{IsolateDestination: true, IsolatePort: true, IsolateProtocol: true}},
		{"[::1]:1 no-auth no-client", "[::1]:1", socks.Config{ShareCredentials: true, ShareClients: true}},
		{"unix:/run/cepa.sock extended-errors auth", "unix:/run/cepa.sock", socks.Config{ExtendedErrors: true}},
	} {
		p, err := parsePort(test.text, false)
		if err != nil || p.String() != test.at || p.rules != test.rules {
			t.Errorf("%q: %+v, %v", test.text, p, err)
		}
	}
	for text, want := range map[string]string{
		"": "empty", "9850": "not an IP address and port", "localhost:1": "not an IP address and port", "[fe80::1%lo]:1": "zone",
		"0.0.0.0:1": "--allow-remote", "192.0.2.1:1 destination": "--allow-remote", "unix:": "1 to 88", "unix:/" + strings.Repeat("a", 88): "1 to 88",
		"127.0.0.1:1 destinatoin": `did you mean "destination"`, "127.0.0.1:1 everything-else": "there are auth, no-auth",
		"127.0.0.1:1 auth auth": "twice", "127.0.0.1:1 auth no-auth": "opposite",
	} {
		if p, err := parsePort(text, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
	if p, err := parsePort("0.0.0.0:1", true); err != nil || p.tcp.Addr().IsLoopback() {
		t.Errorf("allowed: %+v, %v", p, err)
	}
}

// All ports together: none is there twice, and those that others can reach are warned of.
func TestPortsTogether(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		ports []string
		dns   string
		want  string
	}{
		{nil, "", ""},
		{[]string{"127.0.0.1:9851", "unix:/a", "127.0.0.1:0", "127.0.0.1:0"}, "127.0.0.1:9853", ""},
		{[]string{"127.0.0.1:9850 destination"}, "", "already"},
		{[]string{"unix:/a", "unix:/a"}, "", "already"},
		{nil, "127.0.0.1:9850", "already"},
		{nil, "127.0.0.1", "--dns"},
		{nil, "0.0.0.0:53", "--dns"},
		{[]string{"x"}, "", "--port"},
		{make([]string, maxPorts), "", "at most"},
	} {
		c := ClientConfig{Network: "n", Dir: "d", Ports: test.ports, DNS: test.dns}
		l, err := c.check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q %q: %v", test.ports, test.dns, err)
		}
		if err == nil && len(l.remote()) != 0 {
			t.Errorf("%q are taken for remote", l.remote())
		}
	}
	c := ClientConfig{Network: "n", Dir: "d", Socks: "0.0.0.0:9850", DNS: "192.0.2.1:53", AllowRemote: true}
	l, err := c.check()
	if err != nil || len(l.remote()) != 2 {
		t.Errorf("%q, %v", l.remote(), err)
	}
	if lines := (&Client{ports: l}).portWarnings(); len(lines) != 2 || !strings.Contains(lines[0].Text, "allow_remote") {
		t.Errorf("warned by %q", lines)
	}
}

// The path of a socket in a file of settings is relative to the file, as all paths are.
func TestSocketPathsAreRelativeToTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "client.toml")
	text := "network = 'n'\ndir = 'd'\nsocks = 'unix:s protocol'\nports = ['127.0.0.1:1', 'unix:t']\ndns = '127.0.0.1:53'\nallow_remote = true\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadClientConfig(path)
	if err != nil || c.Socks != "unix:"+filepath.Join(dir, "s")+" protocol" || c.Ports[0] != "127.0.0.1:1" || c.Ports[1] != "unix:"+filepath.Join(dir, "t") ||
		c.DNS != "127.0.0.1:53" || !c.AllowRemote {
		t.Errorf("%+v, %v", c, err)
	}
}

// A Unix socket is its user's alone, takes the place of one that nobody answers on, and of nothing else.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("access lists say who may use a socket there")
	}
	dir, err := os.MkdirTemp("", "s") // the folder of the test may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := localPort{unix: filepath.Join(dir, "s")}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.unix})
	if err != nil {
		t.Fatal(err)
	}
	if err := (localPorts{ports: []localPort{p}}).free(); err == nil || !strings.Contains(err.Error(), "another program answers") {
		t.Errorf("a socket in use is free: %v", err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	ln, err := p.listen()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(p.unix)
	if err != nil || info.Mode().Perm() != 0o600 || ln.Addr().String() != p.unix {
		t.Errorf("%v, %v", info, err)
	}
	if c, err := net.Dial("unix", p.unix); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%v are left", entries)
	}
	ln.Close()
	if _, err := os.Lstat(p.unix); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := os.WriteFile(p.unix, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.listen(); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file was replaced: %v", err)
	}
	if err := freeSocket(filepath.Join(dir, "none", "s")); err == nil {
		t.Error("a folder that is not there is free")
	}
}

// A client that has stopped takes no new identity, resolves nothing, and says so.
func TestStoppedClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := StartClient(ClientConfig{
		Network: found(t, dir, freePort(t), true), Dir: filepath.Join(dir, "client"), Socks: "127.0.0.1:0", DNS: "127.0.0.1:0",
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewIdentity(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c.Stop(ctx)
	if _, err := c.NewIdentity(ctx); err == nil {
		t.Error("a stopped client takes a new identity")
	}
	if _, _, err := c.Resolve(ctx, socks.Request{IP: netip.MustParseAddr("192.0.2.1")}); err == nil {
		t.Error("a stopped client resolves")
	}
}
