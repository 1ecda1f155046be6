package simnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"cepa/env"
)

// Limits of dialling, as the daemon has them.
const (
	linkTimeout  = 10 * time.Second
	stagger      = 2500 * time.Millisecond
	maxAddresses = 8
)

// dialer implements env.LinkDialer for the process on a host.
type dialer struct{ h *Host }

// DialLink tries the addresses in order: the next when one fails, or when none has answered for a
// while.
func (d dialer) DialLink(to env.Target, done func(env.Link, error)) {
	w, h := d.h.w, d.h
	w.trace.add(w, h, KindDial, uint64(to.Identity[0]), 0)
	t := &dialling{w: w, h: h, life: h.life, to: to, done: done}
	t.to.Addresses = slices.Clone(to.Addresses[:min(len(to.Addresses), maxAddresses)])
	if to.Identity.IsZero() || len(to.Addresses) == 0 {
		t.fail(0, errors.New("dialling a link: no identity or no address"))
		return
	}
	t.timeout = w.after(h, linkTimeout, KindTimer, func() {
		t.finish(nil, fmt.Errorf("dialling a link: %w", context.DeadlineExceeded))
	})
	t.again = w.after(h, 0, KindNone, t.next)
}

// dialling is one DialLink.
type dialling struct {
	w        *World
	h        *Host
	life     uint32 // of the process that dials
	to       env.Target
	done     func(env.Link, error)
	timeout  *event
	again    *event // the next address is tried
	tried    int
	running  int
	failures []error
	over     bool
}

func (t *dialling) finish(l env.Link, err error) {
	if t.over {
		return
	}
	t.over = true
	for _, e := range []*event{t.timeout, t.again} {
		if e != nil {
			t.w.queue.stop(e)
		}
	}
	t.done(l, err)
}

// fail has one attempt fail, a while from now.
func (t *dialling) fail(d time.Duration, err error) {
	t.w.after(t.h, d, KindNone, func() {
		t.running--
		t.failures = append(t.failures, err)
		switch {
		case t.over:
		case t.tried < len(t.to.Addresses):
			t.next()
		case t.running <= 0:
			t.finish(nil, errors.Join(t.failures...))
		}
	})
}

// next tries the next address.
func (t *dialling) next() {
	if t.over || t.tried == len(t.to.Addresses) {
		return
	}
	addr := t.to.Addresses[t.tried]
	t.tried++
	t.running++
	t.w.queue.schedule(t.again, t.w.now.Add(stagger))
	far := t.w.byAddr[addr.Addr().Unmap()]
	if far == nil || !t.w.reach(t.h, far) {
		return // nobody answers
	}
	out, back := t.w.oneWay(t.h, far), t.w.oneWay(far, t.h)
	trip := out + back
	switch {
	case !far.alive || far.handler == nil || far.identity.IsZero() || far.port != addr.Port():
		t.fail(trip, dialError(addr, syscall.ECONNREFUSED))
	case far.identity != t.to.Identity:
		t.fail(3*trip, fmt.Errorf("handshake with %s: %w", addr, env.ErrIdentity))
	case !far.valid(clock{t.h}.Wall()):
		skew := clock{far}.Wall().Sub(clock{t.h}.Wall())
		t.fail(3*trip, fmt.Errorf("handshake with %s: %w", addr, &env.ClockError{Skew: skew}))
	case !t.h.valid(clock{far}.Wall()):
		t.fail(3*trip, fmt.Errorf("handshake with %s: %w", addr, errEnded))
	default:
		// TCP, TLS, and the dialler's HELLO: five ways. Its own takes the last one back.
		life, price := far.life, t.h.cpu.Link+far.cpu.Link
		t.w.after(far, 2*trip+out+price, KindNone, func() { t.accepted(far, back) })
		t.w.after(t.h, 3*trip+price+time.Millisecond, KindNone, func() {
			if far.life != life && !t.over { // it died meanwhile
				t.fail(0, dialError(addr, syscall.ECONNRESET))
			}
		})
	}
}

// accepted is the event in which the far end has authenticated the dialler.
func (t *dialling) accepted(far *Host, back time.Duration) {
	if t.h.life != t.life || t.over || !t.w.reach(t.h, far) {
		return
	}
	x, y := t.w.connect(t.h, far, true)
	near, distant := newLink(x, true), newLink(y, false)
	upAt := t.w.now.Add(back)
	y.last = upAt // nothing of it arrives before the dialler knows
	t.w.after(t.h, back, KindNone, func() {
		switch {
		case t.over:
			near.Close(nil)
		case near.up():
			t.finish(near, nil)
		default:
			t.finish(nil, fmt.Errorf("dialling a link: %w", errRefused))
		}
	})
	distant.up()
}

// oneWay is a draw of the time from one host to another.
func (w *World) oneWay(from, to *Host) time.Duration {
	return w.delay(from, to, w.latency.oneWay[from.region][to.region])
}

// network implements env.Network for the process on a host. What can be dialled are the world's
// hosts; an address that is none of them does not answer.
type network struct{ h *Host }

const maxTimeout = time.Minute

func boundTimeout(d time.Duration) time.Duration {
	if d <= 0 || d > maxTimeout {
		return maxTimeout
	}
	return d
}

func (n network) DialConn(to netip.AddrPort, timeout time.Duration, up func(env.Conn, error) env.ConnEvents) (cancel func()) {
	w, h := n.h.w, n.h
	timeout = boundTimeout(timeout)
	w.trace.add(w, h, KindDial, uint64(to.Port()), 0)
	told := false
	answer := func(c env.Conn, err error) env.ConnEvents {
		if told {
			return nil
		}
		told = true
		return up(c, err)
	}
	fail := func(d time.Duration, err error) {
		w.after(h, d, KindNone, func() { answer(nil, dialError(to, err)) })
	}
	cancel = func() { fail(0, context.Canceled) }
	if !to.IsValid() {
		fail(0, &net.AddrError{Err: "not an address", Addr: to.String()})
		return cancel
	}
	far := w.byAddr[to.Addr().Unmap()]
	if far == nil || !w.reach(h, far) {
		fail(timeout, syscall.ETIMEDOUT)
		return cancel
	}
	out, back := w.oneWay(h, far), w.oneWay(far, h)
	switch accept := far.listeners[to.Port()]; {
	case out+back > timeout:
		fail(timeout, syscall.ETIMEDOUT)
	case !far.alive || accept == nil:
		fail(out+back, syscall.ECONNREFUSED)
	default:
		x, y := w.connect(h, far, false)
		near, distant := newConn(x), newConn(y)
		y.last = w.now.Add(out + back + out + back) // it speaks after the third packet of TCP's handshake
		w.after(h, out+back, KindNone, func() {
			reset := near.over // before it was up
			near.up(func(c env.Conn) env.ConnEvents { return answer(c, nil) })
			if reset && near.events != nil {
				w.after(h, 0, KindNone, func() { near.broken(syscall.ECONNRESET) })
			}
		})
		w.after(far, out, KindNone, func() {
			if !y.over {
				distant.up(accept)
			}
		})
	}
	return cancel
}

func (n network) LookupHost(name string, timeout time.Duration, done func([]netip.Addr, error)) {
	w, h := n.h.w, n.h
	w.trace.data(w, h, KindLookup, 0, []byte(name))
	timeout = boundTimeout(timeout)
	w.after(h, min(h.spec.Resolver, timeout), KindNone, func() {
		switch addrs := w.names[name]; {
		case h.spec.Resolver > timeout || h.silent:
			done(nil, &net.DNSError{Err: "timeout", Name: name, IsTimeout: true, IsTemporary: true})
		case len(addrs) == 0:
			done(nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true})
		default:
			done(slices.Clone(addrs), nil)
		}
	})
}

func (n network) LookupAddr(addr netip.Addr, timeout time.Duration, done func([]string, error)) {
	w, h := n.h.w, n.h
	timeout = boundTimeout(timeout)
	w.after(h, min(h.spec.Resolver, timeout), KindNone, func() {
		names := w.reverse[addr]
		if len(names) == 0 {
			done(nil, &net.DNSError{Err: "no such host", Name: addr.String(), IsNotFound: true})
			return
		}
		done(slices.Clone(names), nil)
	})
}

func dialError(to netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
}
