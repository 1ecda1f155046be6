//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// origin is a server behind the exits that finds out whose each connection is: a connection
// that does not belong to an exit's process is closed unserved and fails the test.
type origin struct {
	net.Listener
	addr    netip.AddrPort
	exits   func(refresh bool) []int // pids
	accept  chan net.Conn
	closing chan struct{}

	mu        sync.Mutex
	served    int
	strangers []string
}

// listenOrigin opens an origin for the overlay's exits. Its Accept gives connections of
// exits only.
func listenOrigin(t testing.TB, o *overlay) *origin {
	t.Helper()
	return listenFor(t, func(refresh bool) (pids []int) {
		for _, n := range o.exits() {
			pids = append(pids, n.Pid)
			if !refresh {
				continue
			}
			if s, err := status(n.Dir); err == nil { // a node that was brought back has another pid
				pids = append(pids, s.Pid)
			}
		}
		return pids
	})
}

func listenFor(t testing.TB, exits func(refresh bool) []int) *origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &origin{
		Listener: ln, addr: ln.Addr().(*net.TCPAddr).AddrPort(), exits: exits,
		accept: make(chan net.Conn), closing: make(chan struct{}),
	}
	go g.loop()
	t.Cleanup(func() {
		g.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, s := range g.strangers {
			t.Errorf("the origin was reached by %s, which is no exit", s)
		}
	})
	return g
}

func (g *origin) loop() {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			close(g.closing)
			return
		}
		go g.admit(c)
	}
}

func (g *origin) admit(c net.Conn) {
	switch owner := g.owner(c); owner {
	case "exit":
		g.mu.Lock()
		g.served++
		g.mu.Unlock()
		select {
		case g.accept <- c:
			return
		case <-g.closing:
		}
	case "gone": // nothing was served, and the counters of the tests look at what was
	default:
		g.mu.Lock()
		g.strangers = append(g.strangers, owner)
		g.mu.Unlock()
	}
	c.Close()
}

// Accept gives the next connection that an exit has made.
func (g *origin) Accept() (net.Conn, error) {
	select {
	case c := <-g.accept:
		return c, nil
	case <-g.closing:
		return nil, net.ErrClosed
	}
}

// connections is how many connections of exits were served.
func (g *origin) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.served
}

// owner is "exit", "gone" when the other end has closed meanwhile, or who it is.
func (g *origin) owner(c net.Conn) string {
	peer := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	owner := "gone"
	for i := range 4 { // the tables may change while they are read
		inode, found := socketInode(peer, g.addr)
		if !found || inode == "0" {
			owner = "gone"
			continue
		}
		for _, pid := range g.exits(i > 0) {
			if holds(pid, inode) {
				return "exit"
			}
		}
		owner = fmt.Sprintf("the process with the socket %s", peer)
		time.Sleep(5 * time.Millisecond)
	}
	return owner
}

// socketInode finds the socket with these two ends in the table of the kernel.
func socketInode(local, remote netip.AddrPort) (string, bool) {
	want := kernelAddr(local) + " " + kernelAddr(remote)
	// Not /proc/self: that is the first thread, which may be in another network namespace for a test (inNamespaceOf).
	table, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		return "", false
	}
	i := strings.Index(string(table), want)
	if i < 0 {
		return "", false
	}
	line, _, _ := strings.Cut(string(table[i:]), "\n")
	if f := strings.Fields(line); len(f) > 8 {
		return f[8], true
	}
	return "", false
}

// kernelAddr writes an IPv4 address and port as /proc/net/tcp does.
func kernelAddr(a netip.AddrPort) string {
	b := a.Addr().As4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", b[3], b[2], b[1], b[0], a.Port())
}

// holds says whether a process has the socket open.
func holds(pid int, inode string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	names, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, n := range names {
		if to, err := os.Readlink(dir + "/" + n.Name()); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// serveConns gives every connection to handle, in a goroutine of its own.
func (g *origin) serveConns(handle func(*net.TCPConn)) {
	go func() {
		for {
			c, err := g.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
}

// serveHTTP serves h until the test ends.
func (g *origin) serveHTTP(t testing.TB, h http.Handler) {
	t.Helper()
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(g) }()
	t.Cleanup(func() { _ = s.Close() })
}
