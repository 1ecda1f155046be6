package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"cepa/env"
)

// ErrBusy says that as many dials or look-ups as the loop allows are under way.
var ErrBusy = errors.New("too many under way")

const (
	maxDials   = 1024
	maxLookups = 256
	maxTimeout = time.Minute
)

// network implements env.Network with the machine's sockets and resolver. Each dial and each
// look-up under way is a goroutine.
type network struct {
	l              *Loop
	resolver       Resolver
	local4, local6 netip.Addr
	dials, lookups atomic.Int64
}

// DialConn opens a TCP connection. A timeout that is not positive or above a minute is taken
// for a minute.
func (n *network) DialConn(to netip.AddrPort, timeout time.Duration, up func(env.Conn, error) env.ConnEvents) (cancel func()) {
	fail := func(err error) { n.l.Post(func() { up(nil, err) }) }
	if !to.IsValid() {
		fail(&net.OpError{Op: "dial", Net: "tcp", Err: &net.AddrError{Err: "not an address", Addr: to.String()}})
		return func() {}
	}
	return n.begin(&n.dials, maxDials, timeout, fail, func(ctx context.Context) {
		c, err := n.dial(ctx, to)
		if err != nil {
			fail(portable(err))
			return
		}
		n.l.Adopt(c, func(c env.Conn) env.ConnEvents { return up(c, nil) })
	})
}

func (n *network) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	var d net.Dialer
	local := n.local4
	if to.Addr().Is6() {
		local = n.local6
	}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// LookupHost asks the machine's resolver for IPv4 and IPv6 addresses.
func (n *network) LookupHost(name string, timeout time.Duration, done func([]netip.Addr, error)) {
	reply := func(addrs []netip.Addr, err error) { n.l.Post(func() { done(addrs, err) }) }
	n.begin(&n.lookups, maxLookups, timeout, func(err error) { reply(nil, err) }, func(ctx context.Context) {
		addrs, err := n.resolver.LookupNetIP(ctx, "ip", name)
		if err != nil {
			reply(nil, dnsError(name, err))
			return
		}
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		reply(addrs, nil)
	})
}

// LookupAddr asks the machine's resolver for the names of an address.
func (n *network) LookupAddr(addr netip.Addr, timeout time.Duration, done func([]string, error)) {
	reply := func(names []string, err error) { n.l.Post(func() { done(names, err) }) }
	n.begin(&n.lookups, maxLookups, timeout, func(err error) { reply(nil, err) }, func(ctx context.Context) {
		names, err := n.resolver.LookupAddr(ctx, addr.String())
		if err != nil {
			reply(nil, dnsError(addr.String(), err))
			return
		}
		reply(names, nil)
	})
}

// begin runs f with a deadline in a goroutine that count counts, or calls fail if limit are
// under way. cancel ends the context of f early.
func (n *network) begin(count *atomic.Int64, limit int64, timeout time.Duration, fail func(error), f func(context.Context)) (cancel func()) {
	if count.Load() >= limit { // only the loop adds
		fail(fmt.Errorf("%w: %d", ErrBusy, limit))
		return func() {}
	}
	if timeout <= 0 || timeout > maxTimeout {
		timeout = maxTimeout
	}
	count.Add(1)
	n.l.wait.Add(1)
	ctx, cancel := context.WithTimeout(n.l.quit, timeout)
	go func() {
		defer n.l.wait.Done()
		defer count.Add(-1)
		defer cancel()
		f(ctx)
	}()
	return cancel
}

// dnsError makes sure that a failed look-up is a *net.DNSError.
func dnsError(name string, err error) error {
	var e *net.DNSError
	if errors.As(err, &e) {
		return err
	}
	return &net.DNSError{Err: err.Error(), UnwrapErr: err, Name: name,
		IsTimeout: errors.Is(err, context.DeadlineExceeded), IsTemporary: true}
}
