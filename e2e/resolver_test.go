//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespaceOf calls f on a thread that is in the network namespace of a process: sockets
// that f makes belong there for good. The thread goes back and lives on, since the processes
// that it started would end with it.
func inNamespaceOf(pid int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic("a thread cannot leave a network namespace: " + err.Error())
		}
	}()
	return f()
}

// The client runs on a machine of its own, joined with that of the relays by a cable on which
// every packet is seen: there is no look-up of a name, and no connection but to relays.
func TestClientAsksNoResolverAndMeetsOnlyRelays(t *testing.T) {
	ip, nsenter := need(t, "ip"), need(t, "nsenter")
	if !ownNetwork(t) {
		return
	}
	command := func(words string) {
		t.Helper()
		f := strings.Fields(words)
		if out, code := finish(t, 20*time.Second, exec.Command(f[0], f[1:]...)); code != 0 {
			lacking(t, "%s: %s", words, out)
		}
	}
	command(ip + " link add near type veth peer name far")
	command(ip + " link set near up")
	var relays []netip.AddrPort
	for i := range 5 {
		a := fmt.Sprintf("10.%d.0.1", i+1)
		command(ip + " addr add " + a + "/8 dev near")
		relays = append(relays, netip.MustParseAddrPort(a+":9001"))
	}
	// The exits' resolver cannot be reached, and they learn that at once.
	servers, _ := os.ReadFile("/etc/resolv.conf")
	for _, m := range regexp.MustCompile(`(?m)^nameserver ([0-9.]+)$`).FindAllSubmatch(servers, -1) {
		command(fmt.Sprintf("%s route replace unreachable %s/32", ip, m[1]))
	}
	f := foundNetwork(t, filepath.Join(t.TempDir(), "n"), relays[0].String(), "--param", "interval_ms=5000")
	for i, a := range relays[1:] {
		f.relay(t, fmt.Sprintf("r%d", i), a.String(), "--exit-policy", "all")
	}
	f.know(t, 5, 20*time.Second)

	// The client waits for its end of the cable.
	const socks = "127.0.0.1:9850"
	cmd := exec.Command("sh", "-c", `read go; exec "$@"`, "sh", cepa, "client", "--network", f.file, "--dir", filepath.Join(f.dir, "client"), "--socks", socks)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	client, err := launch(cmd)
	if err != nil {
		lacking(t, "no second namespace can be made: %v", err)
	}
	defer client.end()
	inside := fmt.Sprintf("%s --net=/proc/%d/ns/net %s ", nsenter, client.pid(), ip)
	command(fmt.Sprintf("%s link set far netns %d", ip, client.pid()))
	command(inside + "link set lo up")
	command(inside + "link set far addrgenmode none")
	command(inside + "link set far up")
	command(inside + "addr add 10.99.0.1/8 dev far")
	command(inside + "route add default via 10.1.0.1") // a look-up would find a way

	var s *sniffer
	if err := inNamespaceOf(client.pid(), func() error { s = sniff(t, 0); return nil }); err != nil {
		lacking(t, "the namespace of the client cannot be entered: %v", err)
	}
	// The control: this is what the capture would show.
	err = inNamespaceOf(client.pid(), func() error {
		c, err := net.Dial("udp", "10.1.0.1:53")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("control"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(stdin, "go"); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the client is ready", func() bool { return strings.Contains(client.output(), "100 %") })

	g := listenFor(t, func(bool) (pids []int) {
		for _, r := range f.relays {
			pids = append(pids, r.pid())
		}
		return pids
	})
	g.serveConns(func(c *net.TCPConn) { _, _ = c.Write([]byte("content")) })
	request := func(target string) error {
		return inNamespaceOf(client.pid(), func() error {
			c, err := dialSOCKS(socks, "", target, 20*time.Second)
			if err != nil {
				return err
			}
			defer c.Close() // not before the origin has seen whose connection it is
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, err = io.ReadFull(c, make([]byte, len("content")))
			return err
		})
	}
	if err := request(fmt.Sprintf("localhost:%d", g.addr.Port())); err != nil {
		t.Errorf("a name that the exit's machine knows: %v", err)
	}
	if err := request(g.addr.String()); err != nil {
		t.Errorf("an address: %v", err)
	}
	for i := range 2 {
		err := request(fmt.Sprintf("name-%d.invalid:80", i))
		if _, refused := err.(replyError); !refused {
			t.Errorf("a name that nobody knows: %v", err)
		}
	}
	client.end()
	known := make(map[netip.AddrPort]bool)
	for _, a := range relays {
		known[a] = true
	}
	port := netip.MustParseAddrPort(socks)
	controls, links, applications := 0, 0, 0
	for _, b := range s.end(t) {
		if b[0]>>4 == 6 && (b[6] == 58 || b[6] == 0) || b[0]>>4 == 4 && b[9] == syscall.IPPROTO_ICMP && bytes.HasSuffix(b, []byte("control")) {
			continue // the kernels look for neighbours, and refuse the control
		}
		p, ok := parsePacket(b)
		switch {
		case ok && p.protocol == syscall.IPPROTO_UDP && string(p.data) == "control":
			controls++
		case ok && p.protocol == syscall.IPPROTO_TCP && (known[p.to] || known[p.from]):
			links++
		case ok && p.protocol == syscall.IPPROTO_TCP && (p.to == port || p.from == port):
			applications++
		default:
			t.Errorf("a packet that is none to or from a relay: %v %v to %v: %.64x", p.protocol, p.from, p.to, b)
		}
	}
	t.Logf("%d packets of links, %d of applications, nothing else", links, applications)
	if controls == 0 || links == 0 || applications == 0 {
		t.Errorf("the capture missed what there was: %d, %d, %d packets", controls, links, applications)
	}
	if n := g.connections(); n != 2 {
		t.Errorf("the origin served %d connections of exits, want 2", n)
	}
}

// The same for the demo's client, whose machine is that of all others: its sockets are looked
// at again and again while it is used.
func TestClientHasOnlySocketsToRelays(t *testing.T) {
	o := shared(t)
	client := o.node(t, "client")
	relays := make(map[netip.AddrPort]bool)
	for _, n := range o.servers() {
		relays[netip.MustParseAddrPort(n.Address)] = true
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 40 {
			_ = hello(t, o.socks, fmt.Sprint("sockets ", i), 20*time.Second)
			if c, err := dialSOCKS(o.socks, "", fmt.Sprintf("name-%d.invalid:80", i), 20*time.Second); err == nil {
				c.Close()
				t.Error("a name that nobody has was connected to")
			}
		}
	}()
	looks, links := 0, 0
	for running := true; running; looks++ {
		select {
		case <-done:
			running = false
		default:
		}
		mine := make(map[string]bool)
		names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", client.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", client.Pid, n.Name())); err == nil {
				if inode, ok := strings.CutPrefix(to, "socket:["); ok {
					mine[strings.TrimSuffix(inode, "]")] = true
				}
			}
		}
		for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", client.Pid, table))
			if err != nil {
				continue // without IPv6
			}
			for line := range strings.Lines(string(text)) {
				f := strings.Fields(line)
				if len(f) < 10 || !mine[f[9]] {
					continue
				}
				socksPort := netip.MustParseAddrPort(o.socks)
				switch {
				case table == "tcp" && f[1] == kernelAddr(socksPort): // an application
				case table == "tcp" && isAddr(f[2], relays):
					links++
				default:
					t.Errorf("the client has a %s socket from %s to %s", table, f[1], f[2])
				}
			}
		}
	}
	t.Logf("looked %d times and saw %d sockets to relays", looks, links)
	if links == 0 {
		t.Error("no link to a relay was seen: it is no proof")
	}
}

// isAddr says whether an address in the kernel's writing is one of these.
func isAddr(kernel string, addrs map[netip.AddrPort]bool) bool {
	for a := range addrs {
		if kernelAddr(a) == kernel {
			return true
		}
	}
	return false
}

// The first thread of the tests may be in another network namespace, for a while, when an origin looks whose a connection
// is; that it then looked there had it close connections of exits unserved.
func TestOwnersAreFoundWhileTheFirstThreadIsAway(t *testing.T) {
	away, back, done := make(chan error), make(chan struct{}), make(chan struct{})
	elsewhere := make(chan struct{}) // closed when the first thread was found
	var all sync.WaitGroup
	for range 200 { // they keep their threads, so that one of them has the first
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if unix.Gettid() != unix.Getpid() {
				select {
				case <-elsewhere:
				case <-time.After(2 * time.Second):
				}
				return
			}
			close(elsewhere)
			defer close(done)
			home, err := os.Open("/proc/thread-self/ns/net")
			if err == nil {
				defer home.Close()
				err = unix.Unshare(unix.CLONE_NEWNET)
			}
			away <- err
			if err != nil {
				return
			}
			<-back
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				panic("a thread cannot leave a network namespace: " + err.Error())
			}
		})
	}
	select {
	case err := <-away:
		if err != nil {
			lacking(t, "no second namespace can be made: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Skip("the first thread is busy")
	}
	defer func() { close(back); <-done; all.Wait() }()
	g := listenFor(t, func(bool) []int { return []int{os.Getpid()} })
	g.serveConns(func(c *net.TCPConn) { _, _ = c.Write([]byte("content")) })
	c, err := net.Dial("tcp", g.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "content" {
		t.Errorf("the origin served %q (%v)", got, err)
	}
}
