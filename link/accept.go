package link

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"cepa/cert"
	"cepa/ipaddr"
)

// attempt is an accepted connection whose handshake is not done.
type attempt struct {
	tcp     tcpConn
	prefix  netip.Prefix  // invalid if exempt
	place   *list.Element // in halfOpen; nil when evicted or done
	evicted bool
}

// maxPrefixes is how many networks have a bucket of handshakes of their own, about 6 MiB of them. Networks that come
// when all are in use, which takes as many connections within the 10 s in which an empty bucket fills, share one.
const maxPrefixes = 1 << 16

var errEvicted = fmt.Errorf("%w: newer connections took the place of this unfinished one", ErrLimit)

// Serve accepts links from ln, which it closes at the end, until Close, and then returns nil. It survives errors of
// Accept such as a lack of file descriptors; it returns only those that mean that ln is closed.
func (t *Transport) Serve(ln net.Listener) error {
	if t.secrets.Load().server == nil {
		ln.Close()
		return errors.New("accepting links: a client accepts none")
	}
	t.mu.Lock()
	ok := t.beginLocked()
	if ok {
		t.listeners[ln] = struct{}{}
	}
	t.mu.Unlock()
	if !ok {
		ln.Close()
		return nil
	}
	defer t.goroutines.Done()
	defer func() {
		ln.Close()
		t.mu.Lock()
		delete(t.listeners, ln)
		t.mu.Unlock()
	}()
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		switch {
		case t.ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF):
			return fmt.Errorf("accepting links: %w", err)
		case err != nil:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			t.complain("accepting links fails", "error", err)
			select {
			case <-t.ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		t.stats.accepted.Add(1)
		t.admit(conn)
	}
}

// admit starts the handshake of an accepted connection, or closes it when there are too many.
func (t *Transport) admit(conn net.Conn) {
	tcp, ok := conn.(tcpConn)
	remote, err := addrPort(conn.RemoteAddr())
	if !ok || err != nil {
		t.refuse(conn, errors.New("no TCP connection"))
		return
	}
	a := &attempt{tcp: tcp, prefix: t.prefixOf(remote.Addr())}
	counted := a.prefix.IsValid() && (t.cfg.Exempt == nil || !t.cfg.Exempt(remote.Addr()))
	tcp.SetDeadline(time.Now().Add(t.cfg.HandshakeTimeout))
	t.mu.Lock()
	err = t.mayLink(false)
	if err == nil && t.prefixes[a.prefix] >= t.cfg.MaxHalfOpenPrefix {
		err = fmt.Errorf("%w: %d unfinished handshakes from one network prefix", ErrLimit, t.prefixes[a.prefix])
	}
	if err == nil && counted && !t.handshakes.Take(a.prefix.String(), 1, t.cfg.mono()) {
		t.stats.tooFast.Add(1)
		err = fmt.Errorf("%w: one network prefix began more than %g handshakes a second", ErrLimit, t.cfg.HandshakeRate)
	}
	if err == nil && !t.beginLocked() {
		err = ErrClosed
	}
	var oldest *attempt
	if err == nil {
		if t.halfOpen.Len() >= t.cfg.MaxHalfOpen {
			oldest = t.halfOpen.Front().Value.(*attempt)
			oldest.evicted = true
			t.removeLocked(oldest)
		}
		a.place = t.halfOpen.PushBack(a)
		if a.prefix.IsValid() {
			t.prefixes[a.prefix]++
		}
	}
	t.mu.Unlock()
	if oldest != nil {
		t.stats.evicted.Add(1)
		oldest.tcp.Close()
		t.complain("too many unfinished handshakes: closing the oldest", "limit", t.cfg.MaxHalfOpen)
	}
	if err != nil {
		t.refuse(conn, err)
		return
	}
	go t.welcome(a, remote)
}

// alertInternalError is a TLS alert record in plaintext. A dialler of ours says that we may be full when it sees it.
var alertInternalError = []byte{21, 3, 3, 0, 2, 2, 80}

func (t *Transport) refuse(conn net.Conn, err error) {
	t.stats.refused.Add(1)
	t.complain("refusing a connection", "error", err)
	conn.SetDeadline(time.Now().Add(time.Second)) // the send buffer is empty: this does not wait
	conn.Write(alertInternalError)
	conn.Close()
}

// welcome does the handshake with an accepted connection.
func (t *Transport) welcome(a *attempt, remote netip.AddrPort) {
	defer t.goroutines.Done()
	stop := t.closeOnEnd(a.tcp)
	l, err := t.handshake(a.tcp, cert.Identity{})
	stop()
	t.mu.Lock()
	t.removeLocked(a)
	evicted := a.evicted
	t.mu.Unlock()
	if evicted {
		err = errEvicted
	}
	if err == nil {
		err = t.raise(l, nil)
	}
	if err != nil {
		a.tcp.Close()
		t.stats.inboundFailed.Add(1)
		t.cfg.Log.Debug("inbound link failed", "error", &Error{"handshake with", remote.String(), err})
	}
}

// removeLocked takes a out of the half-open, if it is still there.
func (t *Transport) removeLocked(a *attempt) {
	if a.place == nil {
		return
	}
	t.halfOpen.Remove(a.place)
	a.place = nil
	if !a.prefix.IsValid() {
		return
	}
	if t.prefixes[a.prefix]--; t.prefixes[a.prefix] == 0 {
		delete(t.prefixes, a.prefix)
	}
}

// prefixOf is the network that shares one allowance of half-open connections and handshakes. It is invalid for loopback
// in a network within one machine.
func (t *Transport) prefixOf(a netip.Addr) netip.Prefix {
	if t.cfg.FreeLoopback && a.IsLoopback() {
		return netip.Prefix{}
	}
	return ipaddr.Site(a)
}
