package relay

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"cepa/cell"
	"cepa/env"
	"cepa/flow"
	"cepa/ipaddr"
)

// OnOpen takes the message that opens a stream at this end of the circuit.
func (c *circuit) OnOpen(s *flow.Stream, m cell.Message) {
	if c.extend != nil { // it would be left over at a hop that only passes cells on
		c.violate(errStreamExtend)
		return
	}
	switch m.Command {
	case cell.MessageBegin:
		c.onBegin(s, m.Data)
	case cell.MessageResolve:
		c.onResolve(s, m.Data)
	case cell.MessageBeginDir:
		c.onBeginDir(s)
	default:
		s.End(cell.ReasonProtocol)
	}
}

// Whoever chose the previous hop may know a newer consensus than this relay does: it waits
// this long for its own.
const (
	listedTries = 20
	listedPause = 100 * time.Millisecond
)

// whenListed goes on when the exit may serve circuits from the previous hop, and refuses the
// stream when it may not: a client, or a node that no consensus lists, would make the exit a
// one-hop proxy.
func (x *exit) whenListed(tries int, serve func()) {
	r := x.c.relay
	if x.over {
		return
	}
	peer := x.c.prev.Link().Peer()
	switch {
	case peer.Client() || r.cfg.Policy == nil:
		x.end(cell.ReasonPolicy)
	case r.cfg.Directory.InConsensus(peer.Identity):
		serve()
	case tries == 0:
		x.end(cell.ReasonPolicy)
	default:
		r.env.Clock.AfterFunc(listedPause, func() { x.whenListed(tries-1, serve) })
	}
}

// exit is one BEGIN or RESOLVE on its way to an answer, and then the exit's end of the stream.
type exit struct {
	c         *circuit
	s         *flow.Stream
	port      uint16
	addresses []netip.AddrPort // still to be tried
	deadline  env.Mono
	failure   cell.Reason    // of the last address tried
	attempt   *attempt       // the last to connect
	open      bool           // counted in ExitStreams
	held      bool           // counted in exitCounts,
	to        netip.AddrPort // for this destination
	over      bool
}

func (x *exit) OnConnected([]byte) {}
func (x *exit) OnResolved([]byte)  {}

// OnEnd hears that the stream is over, from either side or because the circuit went.
func (x *exit) OnEnd(cell.Reason) { x.finish() }

func (x *exit) finish() {
	if x.over {
		return
	}
	x.over = true
	if at := x.attempt; at != nil && !at.gone { // the connection that nobody wants any more
		at.cancel()
	}
	x.release()
	x.c.exits--
	if x.open {
		x.c.relay.stats.ExitStreams--
	}
}

// countExit counts a stream that the exit refused.
func (s *Stats) countExit(reason cell.Reason) {
	s.ExitFailed++
	switch reason {
	case cell.ReasonPolicy:
		s.ExitPolicy++
	case cell.ReasonNoSuchHost, cell.ReasonResolveFailed:
		s.ExitResolve++
	case cell.ReasonRefused:
		s.ExitRefused++
	case cell.ReasonHostUnreachable, cell.ReasonNetUnreachable:
		s.ExitUnreachable++
	case cell.ReasonTimeout:
		s.ExitTimeout++
	case cell.ReasonResource, cell.ReasonRateLimited:
		s.ExitResource++
	default:
		s.ExitOther++
	}
}

// end refuses the stream.
func (x *exit) end(reason cell.Reason) {
	if x.over {
		return
	}
	x.c.relay.stats.countExit(reason)
	x.finish()
	x.s.End(reason)
}

func (c *circuit) newExit(s *flow.Stream) *exit {
	x := &exit{c: c, s: s, failure: cell.ReasonNetUnreachable}
	x.deadline = c.relay.env.Clock.Now().Add(c.relay.cfg.Limits.StreamTimeout)
	c.exits++
	s.Handle(x)
	return x
}

// attempt is one look-up or connection attempt of an exit, from outside until done.
type attempt struct {
	x      *exit
	from   string // the previous hop as limits count it
	cancel func() // nil for a look-up
	gone   bool   // given up: counted no more
}

// outside counts one look-up or connection attempt until done is called. One that is given up or
// whose stream has ended goes on for a moment, so neither one circuit nor one neighbour may have
// too many. When there is no room, the oldest attempt of whoever has most must go; when that is x's own circuit
// or its neighbour, x is refused.
func (x *exit) outside() (at *attempt, ok bool) {
	r, c := x.c.relay, x.c
	at = &attempt{x: x}
	at.from, _ = r.neighbour(c.prev.Link().Peer())
	if c.dials >= r.cfg.Limits.CircuitDials || !r.roomFor(at) {
		x.end(cell.ReasonResource)
		return nil, false
	}
	r.dials++
	c.dials++
	r.dialsFrom[at.from]++
	return at, true
}

// roomFor reports whether one more attempt has room, and gives up another for it if it must.
func (r *Relay) roomFor(at *attempt) bool {
	limit := r.cfg.Limits.Dials
	switch {
	case r.dialsFrom[at.from] >= max(limit/4, 1):
		return r.giveUp(at.x.c.dials+1, at.from)
	case r.dials >= limit:
		most, from := r.dialsFrom[at.from]+1, ""
		for _, o := range r.attempts {
			if n := r.dialsFrom[o.from]; n > most {
				most, from = n, o.from
			}
		}
		return from != "" && r.giveUp(0, from)
	}
	return true
}

// giveUp ends the oldest connection attempt of the circuit that has the most, of those that come from a neighbour and
// have more than least.
func (r *Relay) giveUp(least int, from string) bool {
	var worst *attempt
	for _, o := range r.attempts {
		if n := o.x.c.dials; o.from == from && n > least {
			worst, least = o, n
		}
	}
	if worst == nil {
		return false
	}
	r.stats.DialsGivenUp++
	worst.cancel()
	worst.done()
	worst.x.end(cell.ReasonResource)
	return true
}

// done ends the count of an attempt. Calling it again is harmless.
func (at *attempt) done() {
	if at.gone {
		return
	}
	at.gone = true
	r := at.x.c.relay
	r.dials--
	at.x.c.dials--
	if r.dialsFrom[at.from]--; r.dialsFrom[at.from] == 0 {
		delete(r.dialsFrom, at.from)
	}
	if i := slices.Index(r.attempts, at); i >= 0 {
		r.attempts = slices.Delete(r.attempts, i, i+1)
	}
}

func (c *circuit) onBegin(s *flow.Stream, data []byte) {
	x := c.newExit(s)
	b, err := cell.DecodeBegin(data)
	if err != nil {
		x.end(cell.ReasonProtocol)
		return
	}
	x.whenListed(listedTries, func() { x.begin(b) })
}

func (x *exit) begin(b cell.Begin) {
	r := x.c.relay
	x.port = b.Port
	if !x.mayBegin() {
		x.limited()
		return
	}
	if b.Address.IsIP() {
		x.connect([]netip.Addr{b.Address.IP}, cell.AllowIPv4|cell.AllowIPv6) // flags are for names
		return
	}
	at, ok := x.outside()
	if !ok {
		return
	}
	r.env.Network.LookupHost(b.Address.Host, r.cfg.Limits.ResolveTimeout, func(found []netip.Addr, err error) {
		at.done()
		switch {
		case x.over:
		case err != nil:
			x.end(lookupReason(err))
		case len(found) == 0:
			x.end(cell.ReasonNoSuchHost)
		default:
			x.connect(found, b.Flags)
		}
	})
}

// connect tries the addresses that flags, policy and reachability leave over, in order. When
// nothing is left over, it says why.
func (x *exit) connect(found []netip.Addr, flags cell.Flags) {
	for _, a := range x.c.relay.usable(found, flags) {
		ap := netip.AddrPortFrom(a, x.port)
		if x.c.relay.mayReach(ap) {
			x.addresses = append(x.addresses, ap)
		} else {
			x.failure = cell.ReasonPolicy
		}
	}
	if len(x.addresses) > maxAddresses {
		x.addresses = x.addresses[:maxAddresses]
	}
	x.tryNext()
}

// maxAddresses is how many addresses of one name an exit tries.
const maxAddresses = 16

// usable filters and orders addresses by what the client allows and this exit can reach.
func (r *Relay) usable(found []netip.Addr, flags cell.Flags) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range found {
		a = a.Unmap().WithZone("")
		switch {
		case slices.Contains(v4, a) || slices.Contains(v6, a):
		case a.Is4() && flags&cell.AllowIPv4 != 0:
			v4 = append(v4, a)
		case a.Is6() && flags&cell.AllowIPv6 != 0 && r.cfg.IPv6:
			v6 = append(v6, a)
		}
	}
	if flags&cell.PreferIPv6 != 0 {
		return append(v6, v4...)
	}
	return append(v4, v6...)
}

// mayReach is asked after a name was resolved, so that a name cannot point inward.
func (r *Relay) mayReach(a netip.AddrPort) bool {
	if slices.Contains(r.cfg.Addresses, a) || r.cfg.Directory.IsRelayAddress(a) {
		return false
	}
	if !r.cfg.Test {
		if !ipaddr.IsPublic(a.Addr()) {
			return false
		}
		for _, own := range r.cfg.Addresses {
			if own.Addr() == a.Addr() {
				return false
			}
		}
	}
	return r.cfg.Policy.Allows(a)
}

func (x *exit) tryNext() {
	r := x.c.relay
	left := x.deadline.Sub(r.env.Clock.Now())
	switch {
	case x.over:
		return
	case len(x.addresses) == 0:
		x.end(x.failure)
		return
	case left <= 0:
		x.end(cell.ReasonTimeout)
		return
	}
	to := x.addresses[0]
	x.addresses = x.addresses[1:]
	timeout := min(r.cfg.Limits.ConnectTimeout, left/time.Duration(len(x.addresses)+1)+time.Second)
	if !x.hold(to) {
		x.limited()
		return
	}
	at, ok := x.outside()
	if !ok {
		return
	}
	x.attempt = at
	r.attempts = append(r.attempts, at)
	at.cancel = r.env.Network.DialConn(to, timeout, func(conn env.Conn, err error) env.ConnEvents {
		at.done()
		if x.over {
			return nil // closes conn
		}
		if err != nil {
			x.failure = connectReason(err)
			x.release()
			x.tryNext()
			return nil
		}
		data, err := cell.Connected{IP: to.Addr()}.AppendTo(nil)
		if err != nil {
			x.end(cell.ReasonInternal)
			return nil
		}
		r.stats.ExitConnects++
		r.stats.ExitStreams++
		x.open = true
		x.s.Connected(data)
		counted := &countedConn{Conn: conn, events: x.s, stats: &r.stats}
		x.s.Attach(counted)
		return counted
	})
}

// countedConn counts the bytes of an exit connection.
type countedConn struct {
	env.Conn
	events env.ConnEvents
	stats  *Stats
}

func (k *countedConn) Write(p []byte) {
	k.stats.ExitBytesOut += uint64(len(p))
	k.Conn.Write(p)
}

func (k *countedConn) OnData(p []byte) {
	k.stats.ExitBytesIn += uint64(len(p))
	k.events.OnData(p)
}

func (k *countedConn) OnEOF()           { k.events.OnEOF() }
func (k *countedConn) OnDrained()       { k.events.OnDrained() }
func (k *countedConn) OnDown(err error) { k.events.OnDown(err) }

func (c *circuit) onResolve(s *flow.Stream, data []byte) {
	x := c.newExit(s)
	q, err := cell.DecodeResolve(data)
	if err != nil {
		x.end(cell.ReasonProtocol)
		return
	}
	x.whenListed(listedTries, func() { x.resolve(q) })
}

func (x *exit) resolve(q cell.Resolve) {
	r := x.c.relay
	r.stats.Resolves++
	at, ok := x.outside()
	if !ok {
		return
	}
	answer := func(answers []cell.Address, err error) {
		at.done()
		if !x.over {
			x.resolved(answers, err)
		}
	}
	if q.Address.IsIP() {
		if !r.cfg.Test && !ipaddr.IsPublic(q.Address.IP) {
			answer(nil, &net.DNSError{Err: "not a public address", IsNotFound: true})
			return
		}
		r.env.Network.LookupAddr(q.Address.IP, r.cfg.Limits.ResolveTimeout, func(names []string, err error) {
			answer(hostAnswers(names), err)
		})
		return
	}
	r.env.Network.LookupHost(q.Address.Host, r.cfg.Limits.ResolveTimeout, func(found []netip.Addr, err error) {
		answer(r.addressAnswers(found, q.Flags), err)
	})
}

// maxAnswers is how many answers a RESOLVED carries.
const maxAnswers = 7

// hostAnswers keeps the names that can stand in a message; DNS may hold others.
func hostAnswers(names []string) (answers []cell.Address) {
	for _, n := range names {
		if a, err := cell.ParseAddress(strings.TrimSuffix(n, ".")); err == nil && !a.IsIP() && len(answers) < maxAnswers {
			answers = append(answers, a)
		}
	}
	return answers
}

// addressAnswers leaves out, unless in a test network, addresses that no client may be told
// to connect to.
func (r *Relay) addressAnswers(found []netip.Addr, flags cell.Flags) (answers []cell.Address) {
	for _, a := range r.usable(found, flags) {
		if (r.cfg.Test || ipaddr.IsPublic(a)) && len(answers) < maxAnswers {
			answers = append(answers, cell.IPAddress(a))
		}
	}
	return answers
}

// resolvedTTL is what RESOLVED says, in seconds: the system's resolver does not tell, and a
// fixed figure tells nobody what the exit has cached.
const resolvedTTL = 60

func (x *exit) resolved(answers []cell.Address, err error) {
	m := cell.Resolved{TTL: resolvedTTL, Answers: answers}
	switch {
	case err != nil:
		m = cell.Resolved{Reason: lookupReason(err)}
	case len(answers) == 0:
		m = cell.Resolved{Reason: cell.ReasonNoSuchHost}
	}
	data, err := m.AppendTo(nil)
	if err != nil {
		x.end(cell.ReasonInternal)
		return
	}
	x.finish()
	x.s.Resolved(data)
}

// lookupReason tells "no such host" from "ask again later".
func lookupReason(err error) cell.Reason {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return cell.ReasonNoSuchHost
	}
	return cell.ReasonResolveFailed
}

// connectReason translates the error of a connect.
func connectReason(err error) cell.Reason {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return cell.ReasonRefused
	case errors.Is(err, syscall.EHOSTUNREACH):
		return cell.ReasonHostUnreachable
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return cell.ReasonNetUnreachable
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNABORTED):
		return cell.ReasonReset
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
		errors.Is(err, syscall.EADDRNOTAVAIL): // no port left to connect from
		return cell.ReasonResource
	case errors.As(err, &timeout) && timeout.Timeout():
		return cell.ReasonTimeout
	}
	return cell.ReasonHostUnreachable
}
