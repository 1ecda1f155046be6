package flow

import (
	"time"

	"cepa/env"
)

// inflow is the window of one stream as its receiver sees it, in bytes. What was allowed is still to come (granted),
// held at this end, or consumed and not returned yet (unsaid).
//
// The window grows as in QUIC: it doubles when it was used up within about two round trips, which says that it, and
// neither the network nor the application, bounds the rate: bytes count as used when the application has taken them.
// It falls by half when it is many times what the rate needs, and when memory runs low. The round trip is the shortest
// time from a WINDOW to the first byte that it allowed, over all streams of the circuit.
type inflow struct {
	size    int // the most that may be unused
	granted int
	unsaid  int

	used   int      // of the present round, which ends when a whole window was consumed
	began  env.Mono // when the round began
	sent   env.Mono // when the WINDOW went whose effect is awaited; 0: none is
	before int      // bytes that may come before the first that it allowed

	rule *otherStream // in place of this one; nil but in simulations
}

// Times of the rule, in round trips for a whole window.
const (
	fastWindow = 2  // used up within: too small
	slowWindow = 16 // not used up within: larger than need be
	// leastRound is the shortest round trip that counts: nearer ends have larger windows than they need, since fuller
	// batches on the way cost less, and these windows bound only what the ends hold.
	leastRound = 10 * time.Millisecond
)

// worthSaying is how much must have been consumed for a WINDOW: a quarter of the window, twice what the peer takes for
// an attack.
func worthSaying(window int) int { return max(window/4, 1) }

// worth is the same for a stream.
func (v *inflow) worth() int {
	if v.rule != nil {
		return v.rule.Worth()
	}
	return worthSaying(v.size)
}

// arrived counts n bytes.
func (s *Stream) arrived(n int) {
	v := &s.win
	if v.began == 0 {
		v.began = s.m.cfg.Env.Clock.Now()
	}
	v.granted -= n
	if v.rule != nil {
		v.rule.Arrived(s.m.cfg.Env.Clock.Now(), n)
		return
	}
	if v.sent == 0 {
		return
	}
	if v.before -= n; v.before >= 0 {
		return
	}
	took := max(s.m.cfg.Env.Clock.Now().Sub(v.sent), leastRound)
	if s.m.rtt == 0 || took < s.m.rtt {
		s.m.rtt = took
	}
	v.sent = 0
}

// nextWindow returns what the next WINDOW adds, and takes it as said.
func (s *Stream) nextWindow() int {
	v, m := &s.win, s.m
	now := m.cfg.Env.Clock.Now()
	size := v.size
	if v.rule != nil {
		size = v.rule.Next(now, v.granted)
	} else if v.used += v.unsaid; v.used >= v.size { // of less than a whole window, bursts would tell
		switch took := now.Sub(v.began); {
		case m.rtt == 0:
		case took < fastWindow*m.rtt:
			size *= 2
		case took > slowWindow*m.rtt:
			size /= 2
		}
		v.used, v.began = 0, now
	}
	if b := m.budget; b.used > b.limit/2 {
		size = min(size, v.size/2)
	}
	add := v.unsaid + s.resize(size)
	if v.sent == 0 {
		v.sent, v.before = now, v.granted
	}
	v.granted += add
	v.unsaid = 0
	return add
}

// resize changes the window towards a size, and returns by how much. What windows have beyond their first size comes
// from what the circuit's window has to spare, and from a quarter of the memory budget. A window shrinks by not being
// returned: by half of what was consumed at most, since less than that is not worth a WINDOW.
func (s *Stream) resize(size int) int {
	v, m := &s.win, s.m
	first := int(m.cfg.Granted.Stream)
	delta := max(min(size, maxUnused), first) - v.size
	if delta > 0 {
		b := m.budget
		delta = max(min(delta, m.spare-m.grown, b.limit/4-b.grown, b.free()/8), 0)
	} else {
		delta = max(delta, -v.unsaid/2)
	}
	s.grow(delta)
	return delta
}

func (s *Stream) grow(n int) {
	s.win.size += n
	s.m.grown += n
	s.m.budget.grown += n
}
