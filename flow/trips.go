package flow

import (
	"time"

	"cepa/env"
)

// Bounds of the rule for light circuits (docs/protocol.md, "Hop credits").
const (
	tripSlack  = 500 * time.Microsecond // a trip may take so much longer than the shortest of its link,
	tripShare  = 16                     // or one such part of that; it is long when for
	tripPeriod = 5 * time.Millisecond   // and
	tripCount  = 3                      // trips all have taken longer
	tripFew    = 2 * time.Millisecond   // (one, where the shortest takes no more: paths are not as uneven as that)
	tripVain   = 2 * time.Second        // after so long a window that is half as large, and no help, has shown the path

	tripFirst       = 4  // the first step leaves one such part of a window at least,
	tripStep        = 4  // and the next ones take at most one such part
	carefulStep     = 2  // cells, by which a window grows in a round once it was shrunk
	surplusTrips    = 3  // a window that nobody uses up is at most what comes in so many trips
	leastTripWindow = 16 // cells, below which windows do not shrink for that
	trippingFrom    = 16 // cells in rateTime, from which trips are measured
)

// trips measures how long credit takes there and back: from a CREDIT to the first cell that was sent under it, when the
// neighbour was waiting for it. What a trip takes longer than the shortest of the link is time in a queue that this node
// does not see: in a kernel, in a provider's line, or before a process that waits for a processor. A window that is larger
// than the shortest trip needs fills such queues and makes nothing faster.
//
// So long as light circuits use the node too, which such queues hurt, windows shrink until trips are short, and grow again
// little by little. Heavy circuits alone keep their windows: large ones cost less of the processor.
type trips struct {
	mark    int           // granted before the CREDIT that is watched; 0 if none is
	sent    env.Mono      // when that CREDIT was
	began   env.Mono      // when the first of count was seen
	round   time.Duration // the shortest trip of the window's round; 0 if none was seen
	least   time.Duration // the shortest of count
	count   int           // trips since the window was last judged by them
	waiting bool          // the neighbour sent the last cell before the mark dry
	careful bool          // the window was too large, and grows little by little

	// Since trips are long without a break:
	since  env.Mono      // when that began; 0 if they are not
	size   int           // the window then
	first  time.Duration // the shortest trip then
	lately time.Duration // and since
}

// onCredit is told before a CREDIT raises what was granted.
func (t *trips) onCredit(granted int, now env.Mono) {
	if t != nil && t.mark == 0 {
		t.mark, t.waiting, t.sent = granted, false, now
	}
}

// onCell is told of a cell, the received'th of the leg. It reports whether a trip is over.
func (t *trips) onCell(l *Link, received int, dry bool, now env.Mono) bool {
	switch {
	case t == nil || t.mark == 0 || received < t.mark:
	case received == t.mark && dry:
		t.waiting = true
	case received == t.mark: // it had more credit before it had used up this
		t.mark = 0
	default:
		t.mark = 0
		if t.waiting {
			t.onTrip(l, max(now.Sub(t.sent), 1), now)
			return true
		}
	}
	return false
}

func (t *trips) onTrip(l *Link, took time.Duration, now env.Mono) {
	if t.count == 0 {
		t.began = now
	}
	t.count++
	for _, least := range [...]*time.Duration{&l.trip, &t.round, &t.least} {
		if *least == 0 || took < *least {
			*least = took
		}
	}
}

// longTrip is how long a trip may take on a link.
func (l *Link) longTrip() time.Duration {
	return l.trip + max(tripSlack, l.trip/tripShare)
}

// long reports whether trips have taken too long for a while, once in each.
func (t *trips) long(l *Link, now env.Mono) bool {
	enough := tripCount
	if l.trip <= tripFew {
		enough = 1
	}
	if t.count < enough || now.Sub(t.began) < tripPeriod {
		return false
	}
	if t.least > l.longTrip() {
		return true
	}
	t.count, t.least, t.since = 0, 0, 0
	return false
}

// onTrip is told of each trip, and shrinks the window if trips are long and light circuits use the node too. That does not
// wait for the end of the round: with a window that is far too large, rounds are long.
func (g *Leg) onTrip(now env.Mono) {
	if g.shared(now) && g.in.window.trips.long(g.link, now) {
		g.shorten(now)
		g.in.window.grown, g.in.window.steps = true, 0
		g.newRound(now)
	}
}

// heed changes the window by its trips in a round while light circuits use the node too. It reports whether it did: else what
// the queue here says decides.
func (g *Leg) heed(now env.Mono) bool {
	w := &g.in.window
	t := w.trips
	if !g.shared(now) {
		if t != nil {
			t.careful = false
			t.count, t.least, t.since = 0, 0, 0 // what is judged is of late
		}
		return false
	}
	most := max(surplusTrips*cellsIn(g.link.longTrip(), g.in.received-w.from, now.Sub(w.began)), leastTripWindow)
	switch {
	case t.round > (g.link.trip+g.link.longTrip())/2: // no more for now
	case !w.dry && t.round == 0 && w.size > most && g.link.trip > 0: // nobody waits for credit, so there are no trips
		g.setWindow(most)
		w.grown, w.steps = false, 0 // it was not too large, and may soon be too small
		return true
	case t.careful && t.round == 0: // nor while nothing is known
	case t.careful && w.dry && w.empty:
		g.setWindow(w.size + carefulStep)
	default:
		return false
	}
	w.grown, w.steps = true, 0
	return true
}

// shorten shrinks the window of a leg whose trips are long to what would make them short. If that has made no difference for
// a while, the path has become longer, or the queue is of others: then the shortest of late is the shortest.
func (g *Leg) shorten(now env.Mono) {
	w, l := &g.in.window, g.link
	t := w.trips
	least, most := t.least, w.size/tripStep
	if !t.careful {
		most = w.size - w.size/tripFirst
	}
	t.count, t.least, t.careful = 0, 0, true
	if t.since == 0 {
		t.since, t.size, t.first, t.lately = now, w.size, least, least
	}
	t.lately = min(t.lately, least)
	if now.Sub(t.since) >= tripVain && w.size <= max(t.size/2, 2*leastTripWindow) {
		t.since = 0
		if t.first-t.lately < (t.first-l.trip)/4 {
			l.trip, t.careful = t.lately, false
			return
		}
	}
	g.setWindow(max(leastTripWindow, w.size-most, int(int64(w.size)*int64(l.longTrip())/int64(least))))
}

// A circuit is light that has carried cells for lightSince at no more than a part, one in lightShare, of the highest rate of a
// circuit that the node has seen lately, and was not held back by lack of credit.
const (
	lightShare = 8
	lightSince = 100 * time.Millisecond
	lightKept  = time.Second            // after a cell of a light circuit there may be more
	freshKept  = 100 * time.Millisecond // the same of a cell before lightSince: it may be the beginning of much
	lightHeld  = 300 * time.Millisecond // a circuit that ran out of credit is slow, and not light, for so long
	rateTime   = 100 * time.Millisecond // over which a rate is taken
	rateUnit   = 256                    // parts of a cell in which it is counted
)

// load is what a leg carries, both ways.
type load struct {
	last  env.Mono // cell
	since env.Mono // it has been light, with no pause of lightKept; 0 if it is not
	held  env.Mono // when it last ran out of credit with more to send; 0 if never
	rate  int32    // parts of cells in rateTime: older ones weigh less
	fresh bool     // it has been light since its first cell, or the first after such a pause
}

// carried is told of each cell of the leg, and whether it was the last that there was credit for with more to send.
func (g *Leg) carried(now env.Mono, dry bool) {
	x, ls := &g.load, g.link.links
	pause := now.Sub(x.last)
	x.last = now
	x.rate = int32(int64(x.rate)*int64(max(rateTime-pause, 0))/int64(rateTime)) + rateUnit
	if x.rate > ls.most || now.Sub(ls.mostAt) >= 3*rateTime {
		ls.most, ls.mostAt = x.rate, now
	}
	if x.rate > trippingFrom*rateUnit && g.in.window.trips == nil {
		g.in.window.trips = new(trips)
	}
	if dry {
		x.held = now
	}
	switch {
	case x.rate > ls.most/lightShare, x.held != 0 && now.Sub(x.held) < lightHeld:
		x.since, x.fresh = 0, false
	case x.since == 0 || pause > lightKept:
		x.since, x.fresh = now, pause > lightKept
	case now.Sub(x.since) >= lightSince:
		ls.lightAt = now
	case x.fresh:
		ls.lightAt = max(ls.lightAt, now.Add(freshKept-lightKept))
	}
}

// shared reports whether the leg is not light and light circuits use this node as well.
func (g *Leg) shared(now env.Mono) bool {
	ls := g.link.links
	return g.in.window.trips != nil && g.load.since == 0 && ls.lightAt != 0 && now.Sub(ls.lightAt) < lightKept
}
