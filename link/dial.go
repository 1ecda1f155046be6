package link

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

// maxAddresses of a target are tried; the rest is left out.
const maxAddresses = 8

// DialLink implements env.LinkDialer. The addresses are tried in order: the next when one fails, or when none has
// answered for a while (2.5 s); the first that proves the identity wins. done's error is an *Error, or several joined.
func (t *Transport) DialLink(to env.Target, done func(env.Link, error)) {
	t.stats.dialled.Add(1)
	var err error
	t.mu.Lock()
	switch {
	case to.Identity.IsZero() || len(to.Addresses) == 0:
		err = errors.New("no identity or no address to dial")
	case to.Identity == t.secrets.Load().identity:
		err = ErrSelf
	case t.dials >= t.cfg.MaxDials:
		err = fmt.Errorf("%w: %d links are being dialled already", ErrLimit, t.dials)
	default:
		err = t.mayLink(true)
	}
	if err == nil && !t.beginLocked() {
		err = ErrClosed
	}
	if err == nil {
		t.dials++
	}
	t.mu.Unlock()
	if err != nil {
		t.dialFailed(to, err, done)
		return
	}
	to.Addresses = append([]netip.AddrPort(nil), to.Addresses[:min(len(to.Addresses), maxAddresses)]...)
	go func() {
		defer t.goroutines.Done()
		l, err := t.dial(to)
		t.mu.Lock()
		t.dials--
		t.mu.Unlock()
		if err == nil {
			if err = t.raise(l, done); err == nil {
				return
			}
			l.tcp.Close()
		}
		t.dialFailed(to, err, done)
	}()
}

func (t *Transport) dialFailed(to env.Target, err error, done func(env.Link, error)) {
	t.stats.dialFailed.Add(1)
	var typed *Error
	if !errors.As(err, &typed) {
		err = &Error{"dialling", to.Identity.Short(), err}
	}
	t.cfg.Log.Debug("dialling failed", "relay", to.Identity.Short(), "error", err)
	t.cfg.Loop.Post(func() { done(nil, err) })
}

type dialResult struct {
	link *link
	err  error
}

// dial runs the attempts. It returns when all of them have ended; links that came second are closed unheard of.
func (t *Transport) dial(to env.Target) (*link, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	results := make(chan dialResult)
	stagger := time.NewTimer(0)
	defer stagger.Stop()
	var (
		won     *link
		failed  []error
		next    int
		running int
	)
	for {
		more := next < len(to.Addresses) && won == nil && ctx.Err() == nil
		if running == 0 && !more {
			break
		}
		var tick <-chan time.Time
		if more {
			tick = stagger.C
		}
		select {
		case <-tick:
			address := to.Addresses[next]
			next++
			running++
			go func() {
				l, err := t.dialOne(ctx, to, address)
				results <- dialResult{l, err}
			}()
			stagger.Reset(t.cfg.Stagger)
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				failed = append(failed, r.err)
				stagger.Reset(0)
			case won == nil:
				won = r.link
				cancel()
			default:
				r.link.tcp.Close()
			}
		}
	}
	if won != nil {
		return won, nil
	}
	if t.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if len(failed) == 0 {
		return nil, ErrTimeout
	}
	return nil, errors.Join(tellingOf(failed)...)
}

// tellingOf leaves out that there was no way to an address, such as one of IPv6, if another one was reachable: then
// the machine is not offline.
func tellingOf(failed []error) []error {
	telling := slices.DeleteFunc(slices.Clone(failed), func(err error) bool { return errors.Is(err, env.ErrOffline) })
	if len(telling) == 0 {
		return failed
	}
	return telling
}

func (t *Transport) dialOne(ctx context.Context, to env.Target, address netip.AddrPort) (*link, error) {
	var d net.Dialer
	if local := t.cfg.LocalAddr; local.IsValid() && local.Unmap().Is4() == address.Addr().Unmap().Is4() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return nil, &Error{"dialling", address.String(), explainDial(err)}
	}
	tcp := conn.(*net.TCPConn)
	deadline, _ := ctx.Deadline()
	tcp.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	l, err := t.handshake(tcp, to.Identity)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		tcp.Close()
		if errors.Is(err, net.ErrClosed) && ctx.Err() == context.DeadlineExceeded {
			err = fmt.Errorf("%w in the handshake", ErrTimeout)
		}
		return nil, &Error{"handshake with", address.String(), err}
	}
	return l, nil
}

// explainDial leaves out what the net package says about addresses, which Error says already.
func explainDial(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: the machine does not answer", ErrTimeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens there: %w", syscall.ECONNREFUSED)
	case isOffline(err):
		return offline{fmt.Errorf("no way to the network: %w", cause(err))}
	}
	return cause(err)
}

// cause is err without what the net package says of addresses.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// isOffline says whether this machine had no way to the address. A router on the way can say so too.
func isOffline(err error) bool {
	return slices.ContainsFunc(unreachable, func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// closeOnEnd closes tcp when the Transport is closed, until the returned function is called.
func (t *Transport) closeOnEnd(tcp tcpConn) (stop func() bool) {
	return context.AfterFunc(t.ctx, func() { tcp.Close() })
}
