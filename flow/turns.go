package flow

import (
	"time"

	"cepa/cell"
	"cepa/env"
)

// Bounds of what a stream sends in one turn.
const (
	turnTime  = time.Millisecond      // of the circuit's rate
	turnMost  = 16 * cell.MaxData     // bytes
	turnRate  = 10 * time.Millisecond // over which that rate is taken, at least
	turnFirst = 8 * cell.MaxData      // bytes that a stream sends before others after being idle for sparseIdle
)

// turns shares a circuit among its streams: those that have said nothing for a while go first, all others have turns, of as many
// bytes as the circuit sends in turnTime and at least one message each. Turns make no stream wait noticeably, and on a
// fast circuit the far end gets the bytes of a stream in a few large pieces instead of many small ones: to hand those to
// 32 applications took more of the processor than the circuit itself.
type turns struct {
	first list[Stream] // those that go first
	rest  list[Stream]
	left  int      // bytes of the turn of the first of rest
	size  int      // bytes of a turn
	sent  int      // bytes
	since env.Mono // from when on
}

func (t *turns) empty() bool { return t.first.empty() && t.rest.empty() }

// next is the stream whose turn it is.
func (t *turns) next() *Stream {
	if n := t.first.first; n != nil {
		return n.of
	}
	return t.rest.first.of
}

// count notes that n bytes were sent.
func (t *turns) count(n int, now env.Mono) {
	t.sent += n
	if took := now.Sub(t.since); took >= turnRate {
		t.size = min(int(int64(t.sent)*int64(turnTime)/int64(took)), turnMost)
		t.sent, t.since = 0, now
	}
}

// ready reports whether the stream can use a turn.
func (s *Stream) ready() bool { return s.out.len() > 0 && s.window > 0 && !s.ending && s.opened() }

// schedule gives the stream turns for DATA if it can use them.
func (s *Stream) schedule() {
	if s.inReady.on != nil || !s.ready() {
		return
	}
	t := &s.m.turns
	if s.m.cfg.Env.Clock.Now().Sub(s.lastOut) > sparseIdle {
		s.sparse = turnFirst
	}
	if s.sparse > 0 {
		t.first.push(&s.inReady)
	} else {
		t.rest.push(&s.inReady)
	}
}

// packData adds DATA of the stream whose turn it is, as much as fits.
func (m *Mux) packData(p *cell.Packer) bool {
	t := &m.turns
	if t.empty() || m.window == 0 || len(m.queue) > 0 {
		return false
	}
	s := t.next()
	place := p.Reserve(cell.MessageData, s.id, min(s.out.len(), s.window, m.window))
	if place == nil {
		return false
	}
	s.out.read(m.budget, place)
	p.Commit(len(place))
	n := len(place)
	m.window -= n
	s.window -= n
	if m.budget.defect == DefectWindow {
		s.window -= n
	}
	m.stats.StreamBytesOut += uint64(n)
	s.bytesOut += uint64(n)
	s.lastOut = m.cfg.Env.Clock.Now()
	t.count(n, s.lastOut)
	s.moved()
	switch {
	case s.inReady.on == &t.first:
		if s.sparse -= n; s.sparse > 0 && s.ready() {
			return true
		}
	case s.inReady.on == &t.rest:
		if t.left -= n; t.left > 0 && s.ready() {
			return true
		}
		t.left = t.size
	}
	s.inReady.remove()
	s.schedule()
	return true
}
