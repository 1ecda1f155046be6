package flow

import (
	"time"

	"cepa/cell"
	"cepa/env"
)

// Times of the rule by which windows change.
const (
	idleRound = 500 * time.Millisecond // after a pause as long as this, what was seen before it says nothing
	slowRound = 250 * time.Millisecond // a round with a standing queue ends after this at the latest
	flushTime = 50 * time.Millisecond  // after the last cell, credit that is not worth a CREDIT yet is returned all the same
	queueTime = 5 * time.Millisecond   // of its own rate: as much of a queue never drains on purpose
	minQueue  = 4                      // cells, the same
	minWindow = 8                      // cells, if nothing but the queue asks for less
)

// window is how many cells of one circuit may be on their way to this node or in its queue: the hop credit of one
// leg. It follows one rule (docs/protocol.md, "Hop credits"), once in each round, which is as many cells as the window:
//
//   - it grows when the neighbour ran out of credit with more to send (the dry flag), and the queue here ran empty, both
//     under the window as it is: then nothing but the window held the circuit back;
//   - it gives up the part of the queue that has not drained in the whole round: that is surplus;
//   - it shrinks when the budget is half used.
//
// A window shrinks by not being returned; nothing is taken back.
type window struct {
	size    int
	end     int      // cells received when the round ends
	from    int      // cells received when it began
	began   env.Mono // and when that was
	low     int      // the shortest queue in it
	dryFrom int      // cells granted when size last changed: the dry flags of earlier ones are of the past
	perTick int      // cells that came in the time of a creditTick, in the round before
	steps   int      // growths in a row, since size was as large as it had to be
	grown   bool     // it has been large enough once: no doubling any more
	empty   bool     // the queue was, in this round and after the last change of size could be seen
	dry     bool     // the neighbour ran out of credit in this round
	trips   *trips   // nil until the circuit is heavy, and after RETURN
}

// openWindow gives a leg its first window.
func (g *Leg) openWindow() int {
	ls := g.link.links
	w := max(min(ls.cfg.Limits.InitialWindow, ls.windowCap()), ls.cfg.Limits.Reserve)
	g.in.window = window{size: w, end: w}
	g.promise(w)
	return w
}

// promise counts a change of the window of a leg.
func (g *Leg) promise(n int) {
	g.link.windows += n
	g.link.links.windows += n
}

// windowCap is what the budget leaves for one window: an eighth of what is free, so that no window has to be taken back
// when the budget runs low.
func (ls *Links) windowCap() int { return ls.budget.free() / (8 * cell.Size) }

// window is how many cells the leg may have granted and not freed now.
func (g *Leg) window() int {
	ls := g.link.links
	return max(min(g.in.window.size, ls.windowCap()), ls.cfg.Limits.Reserve)
}

// waiting is how many cells of the leg are in the queue of the next.
func (v *grant) waiting() int { return v.received - v.freed }

// arrived is told of a cell before it is counted.
func (g *Leg) arrived(dry bool) {
	if g.rule != nil {
		g.obey()
		return
	}
	v := &g.in
	now, q := g.link.lastIn, v.waiting()
	if q == 0 && now.Sub(g.lastIn) > idleRound {
		g.newRound(now)
		v.window.steps = 0
	}
	v.received++
	g.carried(now, dry)
	trip := v.window.trips.onCell(g.link, v.received, dry, now)
	v.window.dry = v.window.dry || dry && v.received > v.window.dryFrom
	v.window.low = min(v.window.low, q)
	v.window.empty = v.window.empty || q == 0 && v.received > v.window.dryFrom
	g.lastIn = now
	if trip {
		g.onTrip(now)
	}
	if g.shrunk() {
		g.mayRest()
	}
	if g.inDue.on != nil {
		g.hasten()
	}
	// A grant that was used up is the better end: what comes next was granted under what this round has shown.
	if v.received >= v.window.end || dry && v.window.dry && v.received >= v.window.end-v.window.size/4 || q > minQueue && now.Sub(v.window.began) > slowRound {
		g.endRound(now)
		g.newRound(now)
	}
}

func (g *Leg) newRound(now env.Mono) {
	v := &g.in
	v.window.began, v.window.from, v.window.end = now, v.received, v.received+v.window.size
	v.window.low, v.window.dry = v.waiting(), false
	v.window.empty = v.window.low == 0 && v.received > v.window.dryFrom
	if t := v.window.trips; t != nil {
		t.round = 0
	}
}

// endRound changes the window by what the round has shown.
func (g *Leg) endRound(now env.Mono) {
	b := g.link.links.budget
	w := &g.in.window
	free := max(b.limit-b.used, 0) / (4 * cell.Size)
	// What may stand in the queue: the cells of queueTime at the rate of this round.
	w.perTick = cellsIn(creditTick, g.in.received-w.from, now.Sub(w.began))
	standing := max(minQueue, cellsIn(queueTime, g.in.received-w.from, now.Sub(w.began)))
	switch {
	case b.used > b.limit/2 && w.size > max(minWindow, free):
		g.setWindow(max(free, w.size/2))
		w.steps = 0
	case w.low > standing:
		w.grown = true
		w.steps = 0
		g.setWindow(w.size - min(w.low-standing, w.size/2))
	case g.heed(now):
	case w.dry && w.empty && !w.grown:
		g.setWindow(2 * w.size)
	case w.dry && w.empty:
		g.setWindow(w.size + max(2, w.size>>max(0, 2-w.steps))) // a quarter, a half, then twice
		w.steps++
	default:
		w.steps = 0
		w.grown = w.grown || w.low > 0
	}
}

// cellsIn is how many cells come in a time at the rate of n in took. What has taken no time that the clock shows was as
// fast as can be.
func cellsIn(d time.Duration, n int, took time.Duration) int {
	return min(n*int(d/time.Microsecond)/max(int(took/time.Microsecond), 1), maxCredit)
}

// shrunk reports whether the window is smaller than a first one: so it stays only while there is a reason.
func (g *Leg) shrunk() bool { return g.in.window.size < g.link.links.cfg.Limits.InitialWindow }

// setWindow changes the size of the window within its bounds: of the node, of the budget, and of all windows together,
// which may promise four times the budget, those of one link a quarter of that.
func (g *Leg) setWindow(size int) {
	ls := g.link.links
	w := &g.in.window
	size = min(size, max(ls.cfg.Limits.MaxWindow, ls.cfg.Limits.InitialWindow))
	if size > w.size {
		free := max(ls.budget.limit-ls.budget.used, 0) / (4 * cell.Size)
		all := ls.budget.limit / cell.Size
		promised := max(min(4*all-ls.windows, all-g.link.windows), 0)
		size = min(size, max(w.size, free), w.size+promised)
	}
	size = max(size, min(minWindow, ls.cfg.Limits.InitialWindow))
	if size == w.size {
		return
	}
	g.promise(size - w.size)
	w.size, w.dryFrom = size, g.in.granted
	g.offer()
}

// onFlush returns the credit of circuits that have come to rest, so that the next burst finds the whole window.
func (l *Link) onFlush() {
	l.links.enter()
	defer l.links.leave()
	l.flushing = false
	now := l.links.clock.Now()
	for n := l.partial.first; n != nil; {
		g := n.of
		n = n.next
		if now.Sub(g.lastIn) < flushTime || g.in.waiting() > 0 {
			continue
		}
		ls := l.links
		if ls.budget.used < ls.budget.limit/2 && g.shrunk() {
			g.setWindow(ls.cfg.Limits.InitialWindow)
		}
		if !g.shrunk() { // else it waits for memory
			g.inPartial.remove()
		}
		if w := g.window(); g.inDue.on == nil && g.in.due(w)*flushShare >= w {
			l.due.push(&g.inDue)
			l.creditNow = true
			l.mark()
		}
	}
	l.flushLater()
}

// flushShare is the part of a window, one in so many, from which credit is returned after a pause.
const flushShare = 8

// mayRest has the leg looked at when it has come to rest.
func (g *Leg) mayRest() {
	if g.inPartial.on == nil {
		g.link.partial.push(&g.inPartial)
		g.link.flushLater()
	}
}

func (l *Link) flushLater() {
	if l.partial.empty() || l.flushing || !l.up {
		return
	}
	l.flushing = true
	if l.flusher == nil {
		l.flusher = l.links.clock.AfterFunc(flushTime, l.onFlush)
	} else {
		l.flusher.Reset(flushTime)
	}
}
