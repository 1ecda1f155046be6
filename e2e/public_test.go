//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// abroad is a network that is no test network: its nodes have public addresses, in a network namespace where these lead
// to them, and its client sits on a machine of its own at the far end of a cable.
type abroad struct {
	*corner
	file, dir string
	nodes     []*process
	relays    map[netip.AddrPort]bool // authorities among them
	client    *process
	state     string
	port, dns netip.AddrPort // of the client, in its namespace
	site      netip.AddrPort // of a web site outside
}

// newAbroad starts one, in a test that has a network of its own, and waits until the client is ready.
func newAbroad(t *testing.T, params ...string) *abroad {
	t.Helper()
	a := &abroad{corner: newFarMachine(t), dir: t.TempDir(), relays: map[netip.AddrPort]bool{}}
	a.file, a.state = filepath.Join(a.dir, "net", "network.toml"), filepath.Join(a.dir, "client")
	a.port, a.dns, a.site = netip.MustParseAddrPort("127.0.0.1:9850"), netip.MustParseAddrPort("127.0.0.1:9853"), netip.MustParseAddrPort("12.1.0.1:80")
	ip := need(t, "ip")
	at := func(i int) string { return fmt.Sprintf("11.%d.0.1", i) }
	for _, addr := range []string{at(1), at(2), at(3), at(4), at(5), at(6), at(7), a.site.Addr().String()} {
		if out, code := finish(t, 20*time.Second, exec.Command(ip, "addr", "add", addr+"/32", "dev", "lo")); code != 0 {
			lacking(t, "an address of the loopback device: %s", out)
		}
	}
	args := []string{"network", "new", "--dir", filepath.Join(a.dir, "net"), "--authority", at(1) + ":9001"}
	for _, p := range params {
		args = append(args, "--param", p)
	}
	if out, code := finish(t, 20*time.Second, command(t, args...)); code != 0 {
		t.Fatal(out)
	}
	start := func(args ...string) *process {
		t.Helper()
		p, err := launch(command(t, args...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			p.end()
			if t.Failed() {
				t.Logf("%q said:\n%s", args, p.tail())
			}
		})
		return p
	}
	for i := 1; i <= 7; i++ {
		role, dir, more := "relay", filepath.Join(a.dir, fmt.Sprint("relay-", i)), []string{"--exit-policy", "all"}
		if i == 1 {
			role, dir, more = "authority", filepath.Join(a.dir, "net", "authority"), nil
		}
		a.nodes = append(a.nodes, start(append([]string{role, "--network", a.file, "--dir", dir, "--listen", at(i) + ":9001"}, more...)...))
		a.relays[netip.MustParseAddrPort(at(i)+":9001")] = true
	}
	ln, err := net.Listen("tcp", a.site.String())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "onions") })}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Close() })
	cmd := a.command(t, cepa, "client", "--network", a.file, "--dir", a.state, "--socks", a.port.String(), "--dns", a.dns.String())
	if a.client, err = launch(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.client.end()
		if t.Failed() {
			t.Logf("the client said:\n%s", a.client.tail())
		}
	})
	within(t, 60*time.Second, "the client is ready", func() bool { s, err := status(a.state); return err == nil && s.Percent == 100 })
	return a
}

// dial opens a connection from the client's machine.
func (a *abroad) dial(t testing.TB, to netip.AddrPort) net.Conn {
	t.Helper()
	var c net.Conn
	if err := inNamespaceOf(a.pid, func() (err error) { c, err = net.DialTimeout("tcp", to.String(), 5*time.Second); return err }); err != nil {
		t.Fatal(err)
	}
	return c
}

// connect asks the port for a stream over SOCKS5, in a circuit of its own for each user.
func (a *abroad) connect(t testing.TB, user, target string, limit time.Duration) (net.Conn, error) {
	t.Helper()
	c := a.dial(t, a.port)
	_ = c.SetDeadline(time.Now().Add(limit))
	if err := greet(c, user, target); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// tunnel asks the port for a stream over HTTP, and returns the status.
func (a *abroad) tunnel(t testing.TB, user, target string, limit time.Duration) (int, error) {
	t.Helper()
	c := a.dial(t, a.port)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n", target, target, user)
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"})
	if err != nil {
		return 0, err
	}
	r.Body.Close()
	return r.StatusCode, nil
}

// page fetches the site's page over a new circuit.
func (a *abroad) page(t testing.TB, user string, limit time.Duration) error {
	t.Helper()
	c, err := a.connect(t, user, a.site.String(), limit)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		r.Body.Close()
	}
	return err
}

// beyond are the packets on the cable that are none between the client and relays, described.
func (a *abroad) beyond(packets [][]byte) (list []string) {
	for _, b := range packets {
		p, ok := parsePacket(b)
		switch {
		case !ok && kernelsOwn(b):
		case ok && p.from.Addr().IsLoopback() && p.to.Addr().IsLoopback(): // within the machine: the ports
		case ok && p.protocol == unix.IPPROTO_TCP && (a.relays[p.from] || a.relays[p.to]):
		default:
			list = append(list, fmt.Sprintf("%d from %s to %s, %.40x", p.protocol, p.from, p.to, b))
		}
	}
	return list
}

// TestPrivateDestinationsAreRefused: outside of test networks requests to private and local addresses, however they are
// written, and to local names are refused by the client at once; nothing of them gets to an exit.
func TestPrivateDestinationsAreRefused(t *testing.T) {
	notShort(t)
	if !ownNetwork(t) {
		return
	}
	a := newAbroad(t, "interval_ms=5000")
	if err := a.page(t, "first", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	before := a.exited(t)
	s := a.sniff(t)
	targets := []string{
		"10.0.0.1", "10.99.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
		"100.64.0.1", "100.127.255.254", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1",
		"::", "::1", "fc00::1", "fd99::1", "fe80::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "2002:7f00:1::1", "2001:0:1::1", "2001:db8::1",
	}
	names := []string{
		"localhost", "LOCALHOST", "localhost.", "x.localhost", "localhost.localdomain", "printer.local", "router.internal", "nas.home.arpa",
		"2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "10.1", "0xa.1", "3232235521", "192.168.1", "0",
		"127.0.0.1.", "2130706433.", "[::1]", "::1", "::ffff:127.0.0.1", "fe80::1%eth0", "64:ff9b::7f00:1",
	}
	for i, target := range append(targets, names...) {
		start := time.Now()
		var c net.Conn
		var err error
		if i < len(targets) {
			c, err = a.connect(t, "", net.JoinHostPort(target, "80"), 10*time.Second)
		} else {
			c, err = a.connectName(t, target)
		}
		if took := time.Since(start); (err != replyError(2) && err != replyError(1)) || took > time.Second {
			t.Errorf("%s: %v after %v", target, err, took)
		}
		if err == replyError(1) && i < len(targets) {
			t.Errorf("%s: not refused as a private address", target)
		}
		if c != nil {
			c.Close()
		}
		host := target
		if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
			host = "[" + host + "]"
		}
		if code, err := a.tunnel(t, "", host+":80", 10*time.Second); err != nil || code != http.StatusForbidden && code != http.StatusBadRequest {
			t.Errorf("CONNECT %s: %d, %v", target, code, err)
		}
	}
	for _, name := range []string{"localhost", "printer.local", "1.0.0.10.in-addr.arpa PTR"} {
		out, _ := finish(t, 20*time.Second, a.command(t, append([]string{need(t, "dig"), "+time=5", "+tries=1", "@127.0.0.1", "-p", "9853"}, strings.Fields(name)...)...))
		if !strings.Contains(out, "NXDOMAIN") {
			t.Errorf("dig %s: %s", name, out)
		}
	}
	for _, l := range a.beyond(s.end(t)) {
		t.Errorf("outside was seen: %s", l)
	}
	if before != a.exited(t) {
		t.Errorf("exits were asked for %d streams and look-ups", a.exited(t)-before)
	}
	if err := a.page(t, "last", 20*time.Second); err != nil {
		t.Errorf("it does not work any more: %v", err)
	}
	if a.exited(t) == before {
		t.Error("the relays do not count streams: that none was asked for proves nothing")
	}
}

// exited is how many streams and look-ups the relays have been asked for.
func (a *abroad) exited(t testing.TB) (n int64) {
	t.Helper()
	for i := 2; i <= 7; i++ {
		m, err := tryCounters(filepath.Join(a.dir, fmt.Sprint("relay-", i)))
		if err != nil {
			t.Fatal(err)
		}
		n += m["relay_exit_connects"] + m["relay_exit_failed"] + m["relay_resolves"]
	}
	return n
}

// connectName asks for a text as a name, whatever it looks like.
func (a *abroad) connectName(t testing.TB, name string) (net.Conn, error) {
	t.Helper()
	c := a.dial(t, a.port)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(name))}, name...)
	_, _ = c.Write(append(request, 0, 80))
	var answer [12]byte
	_, err := io.ReadFull(c, answer[:])
	if err == nil && answer[3] != 0 {
		err = replyError(answer[3])
	}
	c.Close()
	return nil, err
}

// TestFailsClosed: when all relays are dead, and when the consensus has ended as well, requests get the right errors, at
// the latest after the wait that docs/using.md states, and nothing goes anywhere but to relays; then it works again.
func TestFailsClosed(t *testing.T) {
	long(t)
	t.Parallel() // it waits
	if !ownNetwork(t) {
		return
	}
	a := newAbroad(t, "interval_ms=2000")
	if err := a.page(t, "first", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	s := a.sniff(t)
	for _, n := range a.nodes {
		n.signal(syscall.SIGSTOP)
	}
	try := func(when string, most time.Duration) {
		t.Helper()
		type result struct {
			what string
			took time.Duration
		}
		results := make(chan result, 3)
		start := time.Now()
		go func() {
			_, err := a.connect(t, when, a.site.String(), 90*time.Second)
			results <- result{fmt.Sprint("SOCKS5: ", err), time.Since(start)}
		}()
		go func() {
			code, err := a.tunnel(t, "eDp5", a.site.String(), 90*time.Second)
			results <- result{fmt.Sprint("HTTP: ", code, " ", err), time.Since(start)}
		}()
		go func() {
			out, _ := finish(t, 40*time.Second, a.command(t, "dig", "+time=30", "+tries=1", "@127.0.0.1", "-p", "9853", "name.example"))
			code := "no answer"
			if strings.Contains(out, "SERVFAIL") {
				code = "SERVFAIL"
			}
			results <- result{"DNS: " + code, time.Since(start)}
		}()
		for range 3 {
			r := <-results
			t.Logf("%s: %s after %v", when, r.what, r.took.Round(10*time.Millisecond))
			switch r.what {
			case "SOCKS5: SOCKS reply 1", "SOCKS5: SOCKS reply 6", "HTTP: 503 <nil>", "HTTP: 504 <nil>", "DNS: SERVFAIL":
			default:
				t.Errorf("%s: %s", when, r.what)
			}
			if limit := min(most, 21*time.Second); strings.HasPrefix(r.what, "DNS") && r.took > limit || r.took > most {
				t.Errorf("%s: %s after %v", when, r.what, r.took)
			}
		}
	}
	try("dead relays", 60*time.Second)
	within(t, 90*time.Second, "the consensus ends", func() bool {
		st, err := status(a.state)
		return err == nil && st.Consensus != nil && time.Now().After(st.Consensus.ValidUntil)
	})
	try("no consensus", 60*time.Second)
	for _, l := range a.beyond(s.end(t)) {
		t.Errorf("outside was seen: %s", l)
	}
	for _, n := range a.nodes {
		n.signal(syscall.SIGCONT)
	}
	start := time.Now()
	within(t, 60*time.Second, "it works again", func() bool { return a.page(t, fmt.Sprint(time.Now()), 10*time.Second) == nil })
	t.Logf("it worked again %v after the relays", time.Since(start).Round(10*time.Millisecond))
}
