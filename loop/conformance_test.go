package loop

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"cepa/env"
	"cepa/env/envtest"
)

// The daemon's world keeps the laws, on real sockets and files.
func TestLoopConforms(t *testing.T) {
	t.Parallel()
	envtest.Conformance(t, newWorld)
}

// start makes a loop and runs it until the test ends.
func start(t testing.TB, opts Options) *Loop {
	t.Helper()
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	go l.Run()
	t.Cleanup(func() { stop(t, l) })
	return l
}

// stop ends a loop and checks that nothing of it is left.
func stop(t testing.TB, l *Loop) {
	t.Helper()
	l.Stop()
	select {
	case <-l.Done():
	case <-time.After(10 * time.Second):
		t.Fatalf("the loop has not ended: %+v", l.Stats())
	}
	if s := l.Stats(); s.Conns+s.Dials+s.Lookups > 0 {
		t.Errorf("left behind by the loop: %+v", s)
	}
}

func do(t testing.TB, l *Loop, f func()) {
	t.Helper()
	if err := l.Do(context.Background(), f); err != nil {
		t.Errorf("Do: %v", err)
	}
}

// wait asks again and again, as the world goes on by itself.
func wait(limit time.Duration, cond func() bool) bool {
	for end := time.Now().Add(limit); !cond(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// listen accepts connections for l until the test ends.
func listen(t testing.TB, l *Loop, accept func(env.Conn) env.ConnEvents) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.Adopt(c, accept)
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// refusing is an address where nothing listens.
func refusing(t testing.TB) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// table is a resolver that needs no network.
type table map[string][]netip.Addr

func (r table) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if addrs, ok := r[host]; ok {
		return addrs, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (r table) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return []string{"name-of." + addr + "."}, nil
}

func newWorld(t *testing.T) *envtest.World {
	dir := t.TempDir()
	host := netip.MustParseAddr("192.0.2.7")
	opts := Options{StateDir: dir, Resolver: table{"host.example": {netip.MustParseAddr("::ffff:192.0.2.7")}}}
	l, far := start(t, opts), start(t, Options{})
	return &envtest.World{
		Env:  l.Env(),
		Do:   func(f func()) { do(t, l, f) },
		Wait: wait,
		Listen: func(accept func(env.Conn) env.ConnEvents) netip.AddrPort {
			return listen(t, far, accept)
		},
		DoFar:    func(f func()) { do(t, far, f) },
		Refusing: refusing(t),
		Silent:   silent(t),
		Host:     "host.example",
		Addr:     host,
		NoHost:   "no.example",
		Reopen: func() env.Store {
			stop(t, l)
			return start(t, opts).Env().Store
		},
	}
}
