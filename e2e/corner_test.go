//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// corner is a network namespace joined by a cable to that of the test, with routes over it for all there is: whatever a
// program in it sends is seen on the cable or on its loopback device, and what belongs there is known.
type corner struct {
	pid   int            // of a process that holds the namespace
	socks netip.AddrPort // the overlay's SOCKS port, as seen from inside
	outer netip.Addr     // the cable's other end
	inner netip.Addr
}

// Addresses of a cable.
const (
	cableOuter, cableInner   = "10.99.0.1", "10.99.0.2"
	cableOuter6, cableInner6 = "fd99::1", "fd99::2"
)

// newCorner makes one in a test that has a network of its own. SOCKS connections from inside go on to the overlay's port.
func newCorner(t *testing.T, o *overlay) *corner {
	t.Helper()
	c := newFarMachine(t)
	ln, err := net.Listen("tcp", cableOuter+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	c.socks = ln.Addr().(*net.TCPAddr).AddrPort()
	go forward(ln, o.socks)
	return c
}

// newFarMachine makes one from whose inside nothing is forwarded.
func newFarMachine(t *testing.T) *corner {
	t.Helper()
	ip := need(t, "ip")
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNET}
	p, err := launch(holder)
	if err != nil {
		lacking(t, "no second namespace can be made: %v", err)
	}
	t.Cleanup(p.end)
	c := &corner{pid: p.pid(), outer: netip.MustParseAddr(cableOuter), inner: netip.MustParseAddr(cableInner)}
	command := func(words string) {
		t.Helper()
		f := strings.Fields(words)
		if out, code := finish(t, 20*time.Second, exec.Command(f[0], f[1:]...)); code != 0 {
			lacking(t, "%s: %s", words, out)
		}
	}
	inside := fmt.Sprintf("%s --net=/proc/%d/ns/net %s ", need(t, "nsenter"), c.pid, ip)
	command(ip + " link add near type veth peer name far")
	command(fmt.Sprintf("%s link set far netns %d", ip, c.pid))
	command(ip + " addr add " + cableOuter + "/24 dev near")
	command(ip + " addr add " + cableOuter6 + "/64 dev near nodad")
	command(ip + " link set near up")
	for _, words := range []string{
		"link set lo up", "addr add " + cableInner + "/24 dev far", "addr add " + cableInner6 + "/64 dev far nodad", "link set far up",
		"route add default via " + cableOuter, "-6 route add default via " + cableOuter6,
	} {
		command(inside + words)
	}
	return c
}

// forward hands connections on.
func forward(ln net.Listener, to string) {
	for {
		a, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer a.Close()
			b, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer b.Close()
			go func() { _, _ = io.Copy(b, a); _ = b.(*net.TCPConn).CloseWrite() }()
			_, _ = io.Copy(a, b)
			_ = a.(*net.TCPConn).CloseWrite()
		}()
	}
}

// command is one that runs inside.
func (c *corner) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return exec.Command(need(t, "nsenter"), append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", c.pid), "--"}, args...)...)
}

// sniff captures on all devices inside.
func (c *corner) sniff(t *testing.T) (s *sniffer) {
	t.Helper()
	if err := inNamespaceOf(c.pid, func() error { s = sniff(t, 0); return nil }); err != nil {
		t.Fatal(err)
	}
	return s
}

// strangers are the packets of a capture that are none of SOCKS connections, described. What the kernel sends of its own
// to find neighbours is left out.
func (c *corner) strangers(packets [][]byte) (list []string) {
	for _, b := range packets {
		if p, ok := parsePacket(b); ok && p.protocol == unix.IPPROTO_TCP {
			if p.from == c.socks && p.to.Addr() == c.inner || p.to == c.socks && p.from.Addr() == c.inner {
				continue
			}
			list = append(list, fmt.Sprintf("TCP from %s to %s", p.from, p.to))
			continue
		} else if ok {
			list = append(list, fmt.Sprintf("UDP from %s to %s: %.40q", p.from, p.to, p.data))
			continue
		}
		if kernelsOwn(b) {
			continue
		}
		list = append(list, fmt.Sprintf("%.60x", b))
	}
	return list
}

// kernelsOwn says whether b is of neighbour or multicast listener discovery: ICMPv6 with the types of RFC 4861 and RFC 3810.
func kernelsOwn(b []byte) bool {
	if len(b) < 48 || b[0]>>4 != 6 {
		return false
	}
	next, at := b[6], 40
	if next == 0 { // hop-by-hop options
		next, at = b[40], 48
	}
	return next == unix.IPPROTO_ICMPV6 && len(b) > at && (b[at] >= 133 && b[at] <= 136 || b[at] == 143)
}

// execArgs is the command line of `cepa exec` with the corner's port.
func (c *corner) execArgs(program ...string) []string {
	return append([]string{cepa, "exec", "--socks", c.socks.String(), "--"}, program...)
}

// passFile makes a socket that is connected to the cable's other end, to be passed on as a descriptor.
func (c *corner) passFile(t *testing.T) (f *os.File) {
	t.Helper()
	err := inNamespaceOf(c.pid, func() error {
		s, err := net.Dial("udp", net.JoinHostPort(cableOuter, "7"))
		if err != nil {
			return err
		}
		defer s.Close()
		f, err = s.(*net.UDPConn).File()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
