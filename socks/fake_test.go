package socks

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"errors"

	socks5 "github.com/armon/go-socks5"

	"cepa/cell"
)

// patience bounds every wait of a test: long for a loaded machine, short for a person. Nothing waits for it to pass.
const patience = 20 * time.Second

// lookups counts what reached a resolver anywhere in this process.
var lookups struct {
	mu sync.Mutex
	n  int
}

// TestMain runs every test of the package with a resolver that counts: no test, whatever names it asks for, may cause a
// look-up. The library's own resolver is called first, to show that the trap would catch it.
func TestMain(m *testing.M) {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		lookups.mu.Lock()
		defer lookups.mu.Unlock()
		lookups.n++
		return nil, errors.New("a look-up")
	}}
	control := "trap." + "example."
	socks5.DNSResolver{}.Resolve(context.Background(), control)
	if lookups.n == 0 {
		fmt.Fprintln(os.Stderr, "the trap for look-ups catches nothing")
		os.Exit(1)
	}
	lookups.n = 0
	code := m.Run()
	if lookups.n != 0 {
		fmt.Fprintf(os.Stderr, "%d look-ups happened\n", lookups.n)
		code = 1
	}
	os.Exit(code)
}

// dialFunc is a Dialer.
type dialFunc func(context.Context, Request) (net.Conn, error)

func (f dialFunc) Dial(ctx context.Context, r Request) (net.Conn, error) { return f(ctx, r) }

// resolveFunc is a Resolver.
type resolveFunc func(context.Context, Request) ([]cell.Address, error)

func (f resolveFunc) Resolve(ctx context.Context, r Request) ([]cell.Address, time.Duration, error) {
	answers, err := f(ctx, r)
	return answers, time.Minute, err
}

// fails is a Dialer that always fails with err.
func fails(err error) dialFunc {
	return func(context.Context, Request) (net.Conn, error) { return nil, err }
}

// overlay is a Dialer whose streams are TCP connections: it hands their far ends, and the requests, to the test.
type overlay struct {
	t        *testing.T
	requests chan Request
	far      chan *net.TCPConn
}

func newOverlay(t *testing.T) *overlay {
	return &overlay{t, make(chan Request, 2000), make(chan *net.TCPConn, 2000)}
}

func (o *overlay) Dial(_ context.Context, r Request) (net.Conn, error) {
	near, far, err := tcpPair()
	if err != nil {
		return nil, err
	}
	o.requests <- r
	o.far <- far
	return near, nil
}

// next is the far end of the stream that was opened first, and what was asked for.
func (o *overlay) next() (*net.TCPConn, Request) {
	o.t.Helper()
	r := receive(o.t, o.requests)
	far := receive(o.t, o.far)
	o.t.Cleanup(func() { far.Close() })
	far.SetDeadline(time.Now().Add(patience))
	return far, r
}

func tcpPair() (near, far *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	a, err := l.Accept()
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c.(*net.TCPConn), a.(*net.TCPConn), nil
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

// eventually waits until f is true; for states that nothing announces.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// start serves c on loopback until the test ends.
func start(t *testing.T, c Config) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, c, l), l.Addr().String()
}

func startOn(t *testing.T, c Config, l net.Listener) *Server {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			stacks := make([]byte, 1<<20)
			t.Errorf("%v\n%s", err, stacks[:runtime.Stack(stacks, true)])
		}
		if err := receive(t, served); err != nil {
			t.Errorf("Serve returned %v after Close", err)
		}
	})
	return s
}

// client is an application's connection.
type client struct {
	*net.TCPConn
	t *testing.T
}

func dial(t *testing.T, address string) client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return client{c.(*net.TCPConn), t}
}

func (c client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads exactly want.
func (c client) expect(want []byte) {
	c.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		c.t.Fatalf("read % x, %v; want % x", got[:n], err, want)
	}
}

// expectEOF reads a clean end.
func (c client) expectEOF() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		c.t.Fatalf("read %d bytes, %v; want end of file", n, err)
	}
}

// expectReset reads a reset.
func (c client) expectReset() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("read %d bytes, %v; want a reset", n, err)
	}
}

// connect asks for host and port without credentials and reads success.
func (c client) connect(host string, port uint16) {
	c.t.Helper()
	c.send(greetNone)
	c.expect([]byte{5, 0})
	c.send(connectName(host, port))
	c.expect(reply(0))
}

var greetNone = []byte{5, 1, 0}

func reply(code byte) []byte { return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0} }

func connectName(host string, port uint16) []byte {
	b := append([]byte{5, 1, 0, 3, byte(len(host))}, host...)
	return binary.BigEndian.AppendUint16(b, port)
}

func connectIP(ip string, port uint16) []byte {
	a := netip.MustParseAddr(ip)
	typ := byte(1)
	if a.Is6() {
		typ = 4
	}
	b := append([]byte{5, 1, 0, typ}, a.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, port)
}

func password(user, pass string) []byte {
	b := append([]byte{1, byte(len(user))}, user...)
	return append(append(b, byte(len(pass))), pass...)
}
