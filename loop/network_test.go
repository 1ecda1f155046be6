package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"cepa/env"
)

// stuck is a resolver that answers when its context ends.
type stuck struct{ asked atomic.Int32 }

func (r *stuck) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	r.asked.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func (r *stuck) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	r.asked.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestLookupsAreBoundedInNumberAndTime(t *testing.T) {
	t.Parallel()
	r := &stuck{}
	l := start(t, Options{Resolver: r})
	var late, busy, others atomic.Int32
	count := func(err error) {
		var e *net.DNSError
		switch {
		case errors.Is(err, ErrBusy):
			busy.Add(1)
		case errors.As(err, &e) && e.IsTimeout:
			late.Add(1)
		default:
			others.Add(1)
			t.Errorf("a look-up ended with %v", err)
		}
	}
	do(t, l, func() {
		for i := range maxLookups + 10 {
			if i%2 == 0 {
				l.Env().Network.LookupHost("host.example", 100*time.Millisecond, func(_ []netip.Addr, err error) { count(err) })
			} else {
				l.Env().Network.LookupAddr(netip.IPv6Loopback(), 100*time.Millisecond, func(_ []string, err error) { count(err) })
			}
		}
	})
	if !wait(10*time.Second, func() bool { return late.Load()+busy.Load()+others.Load() == maxLookups+10 }) {
		t.Error("not all look-ups have ended")
	}
	if late.Load() != maxLookups || busy.Load() != 10 || r.asked.Load() != maxLookups {
		t.Errorf("%d were made, of which %d timed out, and %d refused; want %d, the same, and 10",
			r.asked.Load(), late.Load(), busy.Load(), maxLookups)
	}
}

func TestStopGivesUpDialsAndLookups(t *testing.T) {
	t.Parallel()
	r := &stuck{}
	l := start(t, Options{Resolver: r})
	addr := silent(t)
	do(t, l, func() {
		n := l.Env().Network
		n.LookupHost("host.example", time.Hour, func([]netip.Addr, error) { t.Error("heard after Stop") })
		if addr.IsValid() {
			n.DialConn(addr, time.Hour, func(env.Conn, error) env.ConnEvents { t.Error("heard after Stop"); return nil })
		}
	})
	if !wait(10*time.Second, func() bool { return r.asked.Load() == 1 }) {
		t.Fatal("nobody was asked")
	}
	began := time.Now()
	stop(t, l)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the loop ended after %v", took)
	}
}

// The machine's resolver knows the hosts file and addresses that are written as names.
func TestSystemResolver(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	for name, want := range map[string]netip.Addr{
		"127.0.0.1": netip.MustParseAddr("127.0.0.1"),
		"::1":       netip.IPv6Loopback(),
	} {
		got := make(chan []netip.Addr, 1)
		do(t, l, func() {
			l.Env().Network.LookupHost(name, 10*time.Second, func(addrs []netip.Addr, err error) {
				if err != nil {
					t.Errorf("LookupHost(%q): %v", name, err)
				}
				got <- addrs
			})
		})
		if addrs := <-got; len(addrs) != 1 || addrs[0] != want {
			t.Errorf("LookupHost(%q) = %v", name, addrs)
		}
	}
}

func TestLocalAddressOfExitConnections(t *testing.T) {
	t.Parallel()
	local := netip.MustParseAddr("127.0.0.1")
	l := start(t, Options{LocalAddr4: local})
	from := make(chan netip.Addr, 1)
	addr := serve(t, func(c *net.TCPConn) {
		from <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		_ = c.Close()
	})
	mapped := netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), addr.Port()) // ::ffff:127.0.0.1
	dial(t, l, mapped, &events{}, func(c env.Conn) { c.Close(nil) })
	if got := <-from; got != local {
		t.Errorf("the connection came from %v, want %v", got, local)
	}
}
