package baseline

import (
	"time"

	"cepa/env"
)

// The values that Tor's proposal 324 lists for circuits to exits, in cells of Tor's.
const (
	vegasStart   = 124  // window at first, and at least
	vegasWorth   = 31   // acknowledged at a time, and by how much the window grows or shrinks once a window
	vegasCap     = 500  // from there slow start becomes linear (RFC 3742)
	vegasMost    = 5000 // of slow start
	vegasAlpha   = 124  // less in queues: grow
	vegasBeta    = 248  // more: shrink
	vegasGamma   = 186  // ends slow start
	vegasDelta   = 372  // more: shrink to that at once
	vegasFull    = 75   // percent of the window that must be under way for it to grow
	averagePart  = 50   // percent of the acknowledgements of a window that the average of round trips is over,
	averageMost  = 10   // but at most so many,
	averageLeast = 2    // and at least these; in slow start these
)

// vegas is TOR_VEGAS. All of it is in integers, so that it is the same on every machine.
type vegas struct {
	trips   trips
	got     int           // bytes in all
	average time.Duration // of round trips, those of late above all; 0 before the first
	cells   int           // the window
	slow    bool          // slow start
	wait    int           // acknowledgements until it changes again
	acked   int           // bytes, by Tor's acknowledgements
	seen    []allowance   // what had come at WINDOWs, in the last round trip

	alpha, beta, gamma, delta int
}

func newVegas(divide int) *vegas {
	return &vegas{
		cells: vegasStart, slow: true,
		alpha: vegasAlpha / divide, beta: vegasBeta / divide, gamma: vegasGamma / divide, delta: vegasDelta / divide,
	}
}

// Worth implements flow.StreamRule. A WINDOW takes four times what Tor's acknowledgement does: so it stands for up to four of
// them, but for no more than a quarter of the window.
func (v *vegas) Worth() int { return max(min(v.cells/4, 4*vegasWorth), vegasWorth) * torCell }

// acks is how many WINDOWs go for a window.
func (v *vegas) acks() int { return max((v.cells+vegasWorth/2)/vegasWorth, 1) }

// Arrived implements flow.StreamRule.
func (v *vegas) Arrived(now env.Mono, n int) {
	v.got += n
	trip := v.trips.arrived(now, v.got)
	if trip == 0 {
		return
	}
	over := averageLeast
	if !v.slow {
		over = max(min(v.acks()*averagePart/100, averageMost), averageLeast)
	}
	if v.average == 0 {
		v.average = trip
	}
	v.average = (2*trip + time.Duration(over-1)*v.average) / time.Duration(over+1)
	if !v.slow && v.cells == vegasStart { // it cannot be what fills the queue
		v.trips.least = v.average
	}
}

// Next implements flow.StreamRule. What one WINDOW returns may be several of Tor's acknowledgements, which are taken
// one by one.
func (v *vegas) Next(now env.Mono, unused int) int {
	v.trips.begin(now, v.got+unused)
	full := v.full(now)
	for ; v.got-v.acked >= vegasWorth*torCell; v.acked += vegasWorth * torCell {
		if v.wait > 0 {
			v.wait--
		}
		if v.average > 0 {
			v.onAck(full)
		}
	}
	return v.cells * torCell
}

// onAck changes the window.
func (v *vegas) onAck(full bool) {
	path := int(time.Duration(v.cells) * v.trips.least / max(v.average, v.trips.least)) // what it holds
	queue := v.cells - path
	switch {
	case v.slow && queue >= v.gamma:
		v.cells, v.slow, v.wait = path+v.gamma, false, v.acks()
	case v.slow && full:
		more := vegasWorth
		if v.cells > vegasCap {
			more = max((vegasWorth*vegasCap+v.cells)/(2*v.cells), 1)
		}
		v.cells += more
		v.slow = more*v.acks() > vegasWorth && v.cells < vegasMost
		v.cells = min(v.cells, vegasMost)
	case v.slow || v.wait > 0:
	case queue > v.delta:
		v.cells, v.wait = path+v.delta-vegasWorth, v.acks()
	case queue > v.beta:
		v.cells, v.wait = v.cells-vegasWorth, v.acks()
	case full && queue < v.alpha:
		v.cells, v.wait = v.cells+vegasWorth, v.acks()
	default:
		v.wait = v.acks()
	}
	v.cells = max(v.cells, vegasStart)
}

// full reports whether most of a window has come within the last round trip, at a WINDOW, which it notes.
func (v *vegas) full(now env.Mono) bool {
	for len(v.seen) > 1 && now.Sub(v.seen[1].at) >= v.average {
		v.seen = v.seen[1:]
	}
	before := v.got
	if len(v.seen) > 0 {
		before = v.seen[0].before
	}
	early := len(v.seen) == 0 || now.Sub(v.seen[0].at) < v.average // less than a round trip has passed
	v.seen = append(v.seen, allowance{now, v.got})
	return early || 100*(v.got-before) >= vegasFull*v.cells*torCell
}
