//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cepa/control"
)

// door opens streams through one port, as one of several programs could.
type door struct {
	port string
	from string // address that it is dialled from
	user string
	four bool // SOCKS4
}

// open opens a stream that stays until the test ends.
func (d door) open(t *testing.T, target string) {
	t.Helper()
	dialer := net.Dialer{Timeout: 30 * time.Second}
	if d.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(d.from)}
	}
	c, err := dialer.Dial("tcp", d.port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if !d.four {
		err = greet(c, d.user, target)
	} else {
		err = greet4(c, target)
	}
	if err != nil {
		t.Fatalf("%+v to %s: %v", d, target, err)
	}
}

// greet4 asks for a stream by SOCKS4.
func greet4(c net.Conn, target string) error {
	a, err := net.ResolveTCPAddr("tcp4", target) // an address: nothing is asked
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint16([]byte{4, 1}, uint16(a.Port))
	if _, err := c.Write(append(append(b, a.IP.To4()...), 0)); err != nil {
		return err
	}
	var answer [8]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil || answer[1] != 90 {
		return fmt.Errorf("%v: %x", err, answer)
	}
	return nil
}

// listenEverywhere accepts connections at all IPv4 addresses of the machine, and keeps them.
func listenEverywhere(t *testing.T) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// Each word behind a port's address keeps apart what it names, and nothing else does: seen on the circuits of a real
// client. No two ports share a circuit.
func TestPortsKeepApartWhatTheySay(t *testing.T) {
	notShort(t)
	o := shared(t)
	dir := filepath.Join(t.TempDir(), "client")
	words := []string{"", "destination", "destination-port", "protocol", "no-auth", "no-client"}
	ports := make([]string, len(words))
	args := []string{"client", "--network", filepath.Join(o.dir, "network.toml"), "--dir", dir}
	for i, w := range words {
		var err error
		if ports[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
		flag := "--port"
		if i == 0 {
			flag = "--socks"
		}
		args = append(args, flag, strings.TrimSpace(ports[i]+" "+w))
	}
	p, err := launch(command(t, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	if out, code := finish(t, time.Minute, command(t, "status", "--wait", "50s", dir)); code != 0 || !strings.Contains(out, ": ready") {
		t.Fatalf("%s\n%s", out, p.tail())
	}
	node := control.NewClient(dir)
	defer node.Close()
	circuitOf := func(d door, target string) uint64 {
		t.Helper()
		d.open(t, target)
		list, err := node.Streams(t.Context())
		if err != nil || len(list) == 0 {
			t.Fatalf("%v, %v", list, err)
		}
		return list[len(list)-1].Circuit
	}
	one, two := listenEverywhere(t), listenEverywhere(t)
	first := map[uint64]string{}
	for i, port := range ports {
		same := circuitOf(door{port: port}, "127.0.0.1:"+one)
		if w, taken := first[same]; taken {
			t.Errorf("the ports %q and %q share a circuit", w, words[i])
		}
		first[same] = words[i]
		for _, x := range []struct {
			what   string
			door   door
			target string
			apart  bool
		}{
			{"nothing", door{port: port}, "127.0.0.1:" + one, false},
			{"the user", door{port: port, user: "somebody"}, "127.0.0.1:" + one, words[i] != "no-auth"},
			{"the machine", door{port: port, from: "127.0.0.2"}, "127.0.0.1:" + one, words[i] != "no-client"},
			{"the destination", door{port: port}, "127.0.0.2:" + one, words[i] == "destination"},
			{"the destination's port", door{port: port}, "127.0.0.1:" + two, words[i] == "destination-port"},
			{"the protocol", door{port: port, four: true}, "127.0.0.1:" + one, words[i] == "protocol"},
		} {
			if c := circuitOf(x.door, x.target); (c != same) != x.apart {
				t.Errorf("port %q: %s is another: circuits %d and %d, apart should be %v", words[i], x.what, same, c, x.apart)
			}
		}
	}
}

// After a new identity nothing that comes in by any door uses a circuit of before: SOCKS5, SOCKS4a, HTTP CONNECT, a Unix
// socket, look-ups over SOCKS and over the DNS.
func TestNewIdentityIsForEveryDoor(t *testing.T) {
	notShort(t)
	o := shared(t)
	m := newManyPorts(t, o)
	state := filepath.Join(m.dir, "state")
	node := control.NewClient(state)
	defer node.Close()
	_, dnsPort, _ := net.SplitHostPort(m.dns)
	everything := func() {
		t.Helper()
		const page = "Hello from behind three relays"
		for _, proxy := range []string{"socks5h://" + m.first, "socks4a://" + m.first, "http://" + m.first, "socks5h://" + m.second, "socks5h://localhost" + m.socket} {
			m.run(t, page, "curl", "-sS", "-q", "--noproxy", "", "--max-time", "60", "-p", "-x", proxy, "http://hello.demo/")
		}
		m.run(t, "127.255.", "tor-resolve", "hello.demo", m.first)
		m.run(t, "127.255.", "dig", "@127.0.0.1", "-p", dnsPort, "+time=20", "+tries=1", "+short", "hello.demo")
	}
	everything() // circuits of all keys are there
	var mu sync.Mutex
	used := map[uint64]uint64{} // stream to circuit
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun := make(chan struct{})
	first := sync.OnceFunc(func() { close(begun) })
	go func() {
		_ = node.Events(ctx, func(e control.Event) error {
			switch d := e.Data.(type) {
			case control.Status:
				first()
			case control.Stream:
				if d.Circuit != 0 {
					mu.Lock()
					used[d.ID] = d.Circuit
					mu.Unlock()
				}
			}
			return nil
		}, control.EventStatus, control.EventStream)
	}()
	<-begun
	circuits, err := node.Circuits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := uint64(0)
	for _, c := range circuits { // those that are being built too
		old = max(old, c.ID)
	}
	if out, code := finish(t, 20*time.Second, command(t, "newnym", state)); code != 0 || !strings.Contains(out, "New identity") {
		t.Fatalf("%d: %s", code, out)
	}
	everything()
	within(t, 10*time.Second, "seven requests are seen", func() bool { mu.Lock(); defer mu.Unlock(); return len(used) >= 7 })
	mu.Lock()
	defer mu.Unlock()
	for stream, circuit := range used {
		if circuit <= old {
			t.Errorf("stream %d uses circuit %d; the old ones go up to %d", stream, circuit, old)
		}
	}
}

// A port that other machines reach is refused unless it is allowed, and then warned of: in the log, and in the status
// with what to do.
func TestPortForOthersNeedsToBeAllowed(t *testing.T) {
	o := shared(t)
	own := ownAddress(t)
	free, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free)
	at := net.JoinHostPort(own, port)
	dir := filepath.Join(t.TempDir(), "client")
	args := []string{"client", "--network", filepath.Join(o.dir, "network.toml"), "--dir", dir, "--socks", at}
	if out, code := finish(t, 20*time.Second, command(t, args...)); code != 1 || !strings.Contains(out, "--allow-remote") {
		t.Errorf("not allowed: status %d: %s", code, out)
	}
	p, err := launch(command(t, append(args, "--allow-remote")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	out, code := finish(t, time.Minute, command(t, "status", "--wait", "50s", dir))
	if code != 0 || !strings.Contains(out, "WARNING  the port "+at) || !strings.Contains(out, "-> remove allow_remote") {
		t.Errorf("status %d: %s", code, out)
	}
	if !strings.Contains(p.output(), "level=WARN") {
		t.Errorf("no warning in the log:\n%s", p.output())
	}
	if out, code := finish(t, time.Minute, exec.Command(need(t, "curl"), "-sS", "-q", "--max-time", "50", "--socks5-hostname", at, "http://hello.demo/")); code != 0 {
		t.Errorf("curl: status %d: %s", code, out)
	}
}

// Commands ask a node by its folder, by the path of its socket, and by its port with the token, and say what is wrong
// with a way that leads nowhere.
func TestWaysToANode(t *testing.T) {
	o := shared(t)
	dir := o.node(t, "client").Dir
	for _, args := range [][]string{{dir}, {"--control", "unix:" + filepath.Join(dir, "control.sock")}} {
		for _, name := range []string{"status", "circuits", "log"} {
			if out, code := finish(t, 20*time.Second, command(t, append([]string{name}, args...)...)); code != 0 {
				t.Errorf("%s %q: status %d: %s", name, args, code, out)
			}
		}
	}
	folder := t.TempDir()
	for _, x := range []struct {
		want string
		code int
		args []string
	}{
		{"there is not even such a folder", 1, []string{folder + "/none"}},
		{"start it, or give the DIR", 1, []string{folder}},
		{"it holds the folders of", 1, []string{o.dir}},
		{"such as " + filepath.Join(o.dir, "client"), 1, []string{o.dir}},
		{"not both", 2, []string{dir, "--control", "unix:/x"}},
		{"neither unix:PATH nor HOST:PORT", 2, []string{"--control", "x"}},
		{"wants its token", 2, []string{"--control", "127.0.0.1:1"}},
		{"look where it listens", 1, []string{"--control", "unix:" + folder + "/x"}},
	} {
		out, code := finish(t, 20*time.Second, command(t, append([]string{"status"}, x.args...)...))
		if code != x.code || !strings.Contains(out, x.want) {
			t.Errorf("%q: status %d, want %d and %q: %s", x.args, code, x.code, x.want, out)
		}
	}
	if os.Getuid() == 0 {
		if out, code := asNobody(t, "status", dir); code != 1 || !strings.Contains(out, "run this as that user") {
			t.Errorf("as somebody else: status %d: %s", code, out)
		}
	}
}
