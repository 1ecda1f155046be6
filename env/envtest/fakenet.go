package envtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"cepa/env"
)

// Limits of dialling and resolving, as the contract has them.
const (
	linkTimeout  = 10 * time.Second
	maxAddresses = 8
)

// Listen puts a server into the clear net: accept hears of every connection made to addr, and
// returns who hears its events. A second call replaces the first; a nil accept ends it.
func (f *Fake) Listen(addr netip.AddrPort, accept func(env.Conn) env.ConnEvents) {
	if accept == nil {
		delete(f.servers, addr)
		return
	}
	f.servers[addr] = accept
}

// Silence makes an address of the clear net one that never answers.
func (f *Fake) Silence(addr netip.AddrPort) { f.silent[addr] = true }

// Pipe connects n with an application: near is told of the node's end, far of the other, in
// this order, and both return who hears its events.
func (f *Fake) Pipe(n *Node, near, far func(env.Conn) env.ConnEvents) {
	a, b := f.join(n, nil, connWindow)
	f.schedule(n, 0, func() { f.schedule(nil, 0, func() { b.connUp(far) }); a.connUp(near) })
}

func (e *end) connUp(up func(env.Conn) env.ConnEvents) {
	reset := e.closed // before it was up
	c := &fakeConn{e}
	events := up(c)
	switch {
	case events == nil:
		c.Close(nil)
	case reset:
		e.out.f.schedule(e.node, 0, func() { events.OnDown(syscall.ECONNRESET) })
	default:
		e.events = events
	}
}

// Connect dials b from a, runs the world until the link is up, and returns a's end and b's. It
// panics if that fails.
func (f *Fake) Connect(a, b *Node) (atA, atB env.Link) {
	var err error
	f.Do(func() {
		fakeDialer{a}.dial(b.Target(), func(l, far env.Link, e error) { atA, atB, err = l, far, e })
	})
	f.RunUntil(linkTimeout, func() bool { return atA != nil || err != nil })
	if atA == nil {
		panic(fmt.Sprintf("envtest: connecting %s with %s: %v", a.Name, b.Name, err))
	}
	return atA, atB
}

type fakeDialer struct{ n *Node }

func (d fakeDialer) DialLink(to env.Target, done func(env.Link, error)) {
	d.dial(to, func(l, _ env.Link, err error) { done(l, err) })
}

// dial is DialLink with the far end for Connect.
func (d fakeDialer) dial(to env.Target, done func(near, far env.Link, err error)) {
	l := &linkDial{f: d.n.f, n: d.n, to: to, done: done}
	l.timeout = l.f.schedule(l.n, linkTimeout, func() {
		l.finish(nil, nil, dialError("tcp", nil, context.DeadlineExceeded))
	})
	l.f.schedule(l.n, 0, func() { l.try(0, errors.New("dialling a link: no address")) })
}

// linkDial is one DialLink under way.
type linkDial struct {
	f       *Fake
	n       *Node
	to      env.Target
	done    func(near, far env.Link, err error)
	timeout *event
	over    bool
}

func (d *linkDial) finish(near, far env.Link, err error) {
	if !d.over {
		d.over = true
		d.timeout.stopped = true
		d.done(near, far, err)
	}
}

// try goes for address i, or gives up with err if there is none.
func (d *linkDial) try(i int, err error) {
	if i == min(len(d.to.Addresses), maxAddresses) {
		d.finish(nil, nil, err)
		return
	}
	addr := d.to.Addresses[i]
	next := func(delay time.Duration, err error) {
		d.f.schedule(d.n, delay, func() { d.try(i+1, err) })
	}
	j := slices.IndexFunc(d.f.nodes, func(n *Node) bool { return n.Address == addr && !n.Identity.IsZero() })
	switch {
	case d.n.vanished || d.f.silent[addr] || (j >= 0 && d.f.nodes[j].vanished):
		return // until the timeout
	case j < 0 || d.f.nodes[j].handler == nil || d.f.nodes[j].stopped:
		next(2*d.f.Delay, dialError("tcp", net.TCPAddrFromAddrPort(addr), os.NewSyscallError("connect", syscall.ECONNREFUSED)))
	case d.f.nodes[j].Identity != d.to.Identity:
		next(4*d.f.Delay, fmt.Errorf("dialling %s: %w", addr, env.ErrIdentity))
	default:
		far := d.f.nodes[j]
		d.f.schedule(far, 3*d.f.Delay, func() { d.accepted(far) })
	}
}

// accepted runs at far when the handshake has ended there.
func (d *linkDial) accepted(far *Node) {
	if d.over || d.n.stopped || d.n.vanished || far.vanished {
		return
	}
	x, y := d.f.join(d.n, far, 0)
	near, distant := newLink(x, far, d.n, true), newLink(y, d.n, far, false)
	d.f.schedule(d.n, d.f.Delay, func() {
		switch {
		case d.over:
			near.Close(nil)
		case near.up(d.n.handler):
			d.finish(near, distant, nil)
		default:
			d.finish(nil, nil, errors.New("dialling a link: it was closed as soon as it was up"))
		}
	})
	distant.up(far.handler)
}

func newLink(e *end, peer, self *Node, dialled bool) *fakeLink {
	l := &fakeLink{e: e, peer: env.Peer{
		Identity: peer.Identity, Address: peer.Address, Dialled: dialled, Observed: self.Address.Addr(), Version: 1,
	}}
	if !l.peer.Client() {
		l.peer.OnionKey = peer.OnionKey
		l.peer.Time = peer.Env.Clock.Wall()
		l.peer.Skew = l.peer.Time.Sub(self.Env.Clock.Wall())
	}
	return l
}

// up tells h of the link, and reports whether it is wanted.
func (l *fakeLink) up(h env.LinkHandler) bool {
	if l.e.closed {
		return false
	}
	var events env.LinkEvents
	if h != nil {
		events = h.LinkUp(l)
	}
	if events == nil {
		l.Close(nil)
		return false
	}
	l.e.events = linkEvents{events}
	l.e.paused = false
	l.e.wake()
	return true
}

type fakeNetwork struct{ n *Node }

func (w fakeNetwork) DialConn(to netip.AddrPort, timeout time.Duration, up func(env.Conn, error) env.ConnEvents) (cancel func()) {
	n, f := w.n, w.n.f
	told := false
	answer := func(c env.Conn, err error) env.ConnEvents {
		if told {
			return nil
		}
		told = true
		return up(c, err)
	}
	fail := func(d time.Duration, err error) {
		f.schedule(n, d, func() { answer(nil, dialError("tcp", net.TCPAddrFromAddrPort(to), err)) })
	}
	accept := f.servers[to]
	switch {
	case n.vanished || f.silent[to] || 2*f.Delay > timeout:
		fail(timeout, context.DeadlineExceeded)
	case accept == nil:
		fail(2*f.Delay, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	default:
		a, b := f.join(n, nil, connWindow)
		f.schedule(nil, f.Delay, func() {
			f.schedule(n, f.Delay, func() { a.connUp(func(c env.Conn) env.ConnEvents { return answer(c, nil) }) })
			b.connUp(accept)
		})
	}
	return func() { fail(0, context.Canceled) }
}

func (w fakeNetwork) LookupHost(name string, timeout time.Duration, done func([]netip.Addr, error)) {
	addrs, ok := w.n.f.Hosts[name]
	w.n.f.schedule(w.n, min(2*w.n.f.Delay, timeout), func() {
		if !ok {
			done(nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true})
			return
		}
		done(slices.Clone(addrs), nil)
	})
}

func (w fakeNetwork) LookupAddr(addr netip.Addr, timeout time.Duration, done func([]string, error)) {
	names, ok := w.n.f.Names[addr]
	w.n.f.schedule(w.n, min(2*w.n.f.Delay, timeout), func() {
		if !ok {
			done(nil, &net.DNSError{Err: "no such host", Name: addr.String(), IsNotFound: true})
			return
		}
		done(slices.Clone(names), nil)
	})
}

func dialError(network string, addr net.Addr, err error) error {
	return &net.OpError{Op: "dial", Net: network, Addr: addr, Err: err}
}
