//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manyPorts is a client of its own of the shared network, with all kinds of ports.
type manyPorts struct {
	*process
	dir, first, second, socket, dns string
}

func newManyPorts(t *testing.T, o *overlay) *manyPorts {
	t.Helper()
	dir, err := os.MkdirTemp("", "cepa-ports-") // the folder of the test is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manyPorts{dir: dir, socket: filepath.Join(dir, "s")}
	for _, p := range []*string{&m.first, &m.second, &m.dns} {
		if *p, err = freePort(); err != nil {
			t.Fatal(err)
		}
	}
	m.process, err = launch(exec.Command(cepa, "client", "--network", filepath.Join(o.dir, "network.toml"), "--dir", filepath.Join(dir, "state"),
		"--socks", m.first, "--port", m.second+" destination extended-errors", "--port", "unix:"+m.socket, "--dns", m.dns))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.end()
		if t.Failed() {
			t.Logf("the client said:\n%s", m.tail())
		}
	})
	within(t, time.Minute, "the port is open", func() bool {
		c, err := net.Dial("tcp", m.first)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return m
}

// run runs a program and wants a text in what it says.
func (m *manyPorts) run(t *testing.T, want, program string, arguments ...string) {
	t.Helper()
	out, code := finish(t, 90*time.Second, exec.Command(need(t, program), arguments...))
	if !strings.Contains(out, want) {
		t.Errorf("%s %q: status %d, no %q in:\n%s", program, arguments, code, want, out)
	}
}

// One port serves curl in all of its ways, programs that know Tor's port, dig, and a browser by its own proxy.pac.
func TestLocalPortServesRealPrograms(t *testing.T) {
	notShort(t)
	o := shared(t)
	m := newManyPorts(t, o)
	const page = "Hello from behind three relays"
	curl := func(want string, arguments ...string) {
		t.Helper()
		m.run(t, want, "curl", append([]string{"-sS", "-q", "--noproxy", "", "--max-time", "60"}, arguments...)...)
	}
	for _, proxy := range [][]string{
		{"--socks5-hostname", m.first}, {"--socks4a", m.first}, {"--socks5-hostname", m.second}, {"--proxytunnel", "-x", "http://" + m.first},
		{"--proxytunnel", "-x", "http://me:pw@" + m.first}, {"-x", "socks5h://me:pw@" + m.first}, {"-x", "socks4a://me@" + m.first},
		{"-x", "socks5h://localhost" + m.socket},
	} {
		curl(page, append(proxy, "http://hello.demo/")...)
	}
	curl("socks5h://", "-x", "http://"+m.first, "http://hello.demo/")
	curl("502", "-x", "http://"+m.first, "-p", "-w", "%{http_connect}", "http://no-such-host.invalid/")
	curl("(4)", "--socks5-hostname", m.first, "http://no-such-host.invalid/")
	curl("403", "-x", "http://"+m.first, "-p", "-w", "%{http_connect}", "http://x.onion/")
	curl("(2)", "--socks5-hostname", m.first, "http://x.onion/")
	curl("(246)", "--socks5-hostname", m.second, "http://x.onion/")
	curl("This is the local port of cepa", "http://"+m.first+"/")
	curl("421", "-w", "%{http_code}", "-H", "Host: rebound.example", "http://"+m.first+"/")
	if out := m.output(); strings.Contains(out, "no-such-host") || !strings.Contains(out, "no such host: the destination") {
		t.Errorf("the log does not say why without saying where:\n%s", out)
	}

	m.run(t, "127.255.", "tor-resolve", "hello.demo", m.first)
	m.run(t, "localhost", "tor-resolve", "-x", "127.0.0.1", m.first)
	m.run(t, "127.255.", "tor-resolve", "-4", "hello.demo", m.first)
	m.run(t, "host is unreachable", "tor-resolve", "no-such-host.invalid", m.first)

	_, port, err := net.SplitHostPort(m.dns)
	if err != nil {
		t.Fatal(err)
	}
	dig := func(want string, arguments ...string) {
		t.Helper()
		m.run(t, want, "dig", append([]string{"@127.0.0.1", "-p", port, "+time=20", "+tries=1"}, arguments...)...)
	}
	dig("127.255.", "+short", "hello.demo")
	dig("127.255.", "+short", "+tcp", "hello.demo")
	dig("ANSWER: 0", "hello.demo", "AAAA")
	dig("localhost.", "+short", "-x", "127.0.0.1")
	dig("NXDOMAIN", "no-such-host.invalid")
	dig("NXDOMAIN", "x.onion")

	m.run(t, page, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--user-data-dir="+t.TempDir(), "--proxy-pac-url=http://"+m.first+"/proxy.pac", "--dump-dom", "http://hello.demo/")
}

// torsocks takes the port for Tor's. It refuses loopback addresses, so the destination is another one of this machine.
func TestTorsocksTakesThePortForTors(t *testing.T) {
	notShort(t)
	torsocks := need(t, "torsocks")
	own := ownAddress(t)
	o := shared(t)
	ln, err := net.Listen("tcp", net.JoinHostPort(own, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	from := make(chan string, 4)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			from <- c.RemoteAddr().String()
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nonions")
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(o.socks)
	for _, more := range [][]string{nil, {"-i"}} { // -i: isolation by user and password
		before := o.exitCounters(t)
		arguments := append([]string{"-P", port}, more...)
		out, code := finish(t, time.Minute, exec.Command(torsocks, append(arguments, need(t, "curl"), "-sS", "-q", "http://"+ln.Addr().String()+"/")...))
		if code != 0 || !strings.Contains(out, "onions") {
			t.Fatalf("%q: status %d: %s", more, code, out)
		}
		<-from
		o.wentThroughExits(t, before, 1, 0, 0)
	}
}

// ownAddress is an IPv4 address of this machine that is not loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	lacking(t, "the machine has no IPv4 address but loopback")
	return ""
}

// Names that are addresses in disguise reach what they mean, so that what is refused is refused however it is written.
func TestDisguisedAddresses(t *testing.T) {
	o := shared(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, host := range []string{"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "::ffff:127.0.0.1", "::ffff:7f00:1"} {
		c, err := dialSOCKS(o.socks, "", net.JoinHostPort(host, port), time.Minute)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		c.Close()
	}
}
