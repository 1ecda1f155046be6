package flow

import (
	"fmt"
	"time"

	"cepa/cell"
	"cepa/env"
)

// uplink is the way out that all links of a node share, when its rate is known. Then cells of circuits go out a little
// slower than it takes them, so that they wait here, where the circuits of all links take turns, and not below, where
// every connection has its own queue.
//
// Links with something to send and room for it are on these lists, each by its circuits in Link.sparse and Link.active:
//
//	sparse   links take turns, of one cell
//	active   links take turns, each of one cell of every circuit: see round
type uplink struct {
	burst   time.Duration // of the rate may go at once
	cell    time.Duration // that a cell takes, headers included; 0: not known, and every link sends what it takes
	through env.Mono      // when all that went out is; a cell may go when that is past
	round   int           // a circuit has a turn in every round: in its own next one, Leg.round
	sparse  list[Link]
	active  list[Link]
	timer   env.Timer
	armed   bool
	held    []*Link // with a batch that share has begun
}

const (
	uplinkPercent = 97                    // of the rate is what goes out
	uplinkBurst   = 4 * time.Millisecond  // of it may go at once, if nothing else is said,
	uplinkDebt    = 20 * time.Millisecond // or have gone before its time, as cells of the links themselves do
	uplinkWake    = time.Millisecond      // of it is worth an event
	// wireCell is a cell with its share of headers: 52 bytes for 1,448 of TCP and IP, 22 for 8 cells of TLS.
	wireCell = 2128
)

// newUplink is one of so many bytes a second; 0 is not known. It counts in whole nanoseconds, so that a simulation is
// the same on every machine.
func newUplink(rate int64, burst time.Duration) uplink {
	if rate <= 0 {
		return uplink{}
	}
	return uplink{cell: cellTime(rate), burst: max(burst, uplinkBurst)}
}

func cellTime(rate int64) time.Duration {
	return max(1, wireCell*100/uplinkPercent*time.Second/time.Duration(rate))
}

// SetUplink changes the rate that Config.Uplink gave, in bytes a second, and its burst. It reports false, and changes
// nothing, if one of the two rates is not known: queues are kept in another way then.
func (ls *Links) SetUplink(rate int64, burst time.Duration) bool {
	u := &ls.uplink
	if u.known() != (rate > 0) {
		return false
	}
	if !u.known() {
		return true
	}
	ls.enter()
	now := ls.clock.Now()
	u.cell, u.burst = cellTime(rate), max(burst, uplinkBurst)
	u.through = min(max(u.through, now.Add(-u.burst)), now.Add(uplinkDebt)) // debts of the old rate are forgiven
	ls.leave()
	return true
}

// known reports whether the rate is, so that cells of circuits are sent by share alone.
func (u *uplink) known() bool { return u.cell > 0 }

// spend is for a cell that goes out.
func (u *uplink) spend(now env.Mono) {
	if u.known() {
		u.through = min(max(u.through, now.Add(-u.burst)).Add(u.cell), now.Add(uplinkDebt+u.cell))
	}
}

// takes reports whether a cell may go now.
func (u *uplink) takes(now env.Mono) bool { return u.through <= now }

// free reports whether a cell may go at once, before anything else is sent.
func (u *uplink) free(now env.Mono) bool {
	return !u.known() || u.sparse.empty() && u.active.empty() && u.takes(now)
}

// enlist gives a link with circuits that have something to send its place among the others.
func (u *uplink) enlist(l *Link) {
	if !l.up || !u.known() || l.room() <= 0 {
		return
	}
	if !l.sparse.empty() && l.inSparse.on == nil {
		u.sparse.push(&l.inSparse)
	}
	if !l.active.empty() && l.inActive.on == nil {
		u.active.push(&l.inActive)
	}
}

// next is the link whose turn it is, and whether it is that of a sparse circuit.
func (u *uplink) next() (l *Link, sparse bool) {
	if n := u.sparse.first; n != nil {
		return n.of, true
	}
	n := u.active.first
	if n == nil {
		return nil, false
	}
	if first := n.of.active.first; first != nil {
		u.round = max(u.round, first.of.round) // all others have had theirs
	}
	return n.of, false
}

// share sends cells of circuits, as many as the uplink takes now.
func (ls *Links) share() {
	u := &ls.uplink
	if u.sparse.empty() && u.active.empty() {
		return
	}
	now := ls.clock.Now()
	for u.takes(now) {
		l, sparse := u.next()
		if l == nil {
			break
		}
		l.turn(now, sparse)
	}
	ls.releaseBatches()
	if !u.sparse.empty() || !u.active.empty() {
		ls.shareLater(now)
	}
}

// shareLater has share go on when the uplink takes more.
func (ls *Links) shareLater(now env.Mono) {
	u := &ls.uplink
	if u.armed || ls.closed {
		return
	}
	u.armed = true
	d := max(u.through.Sub(now)+max(uplinkWake-u.cell, 0), 0)
	if u.timer == nil {
		u.timer = ls.clock.AfterFunc(d, ls.onUplink)
	} else {
		u.timer.Reset(d)
	}
}

func (ls *Links) onUplink() {
	ls.uplink.armed = false
	ls.enter()
	ls.leave() // which settles
}

// turn sends what a link may in one turn, and gives it its next place. Either a cell goes out, or the link, or one of
// its circuits, leaves its list.
func (l *Link) turn(now env.Mono, sparse bool) {
	u := &l.links.uplink
	for l.up && u.takes(now) && l.room() > 0 {
		list := &l.active
		if sparse {
			list = &l.sparse
		}
		if list.empty() || !sparse && list.first.of.round > u.round {
			break
		}
		if !l.holdBatch() {
			break
		}
		if !l.writeRelay(l.batch[l.batched : l.batched+cell.Size]) {
			break
		}
		l.batched += cell.Size
		u.spend(now)
		if l.batched == len(l.batch) {
			l.send()
		}
		if sparse {
			break
		}
	}
	switch {
	case !l.up:
		return // shut has removed it
	case l.room() <= 0:
		l.inSparse.remove()
		l.inActive.remove()
		return // OnDrained brings it back
	case l.sparse.empty():
		l.inSparse.remove()
	case sparse:
		l.inSparse.remove()
		u.sparse.push(&l.inSparse)
	}
	switch {
	case l.active.empty():
		l.inActive.remove()
	case l.inActive.on == nil || l.active.first.of.round > u.round:
		l.inActive.remove()
		u.active.push(&l.inActive)
	}
}

// holdBatch makes sure that the link has a batch to be written to; share gives them all back.
func (l *Link) holdBatch() bool {
	if l.batch != nil {
		return true
	}
	if !l.begin() {
		return false
	}
	u := &l.links.uplink
	u.held = append(u.held, l)
	return true
}

// releaseBatches sends what share has written.
func (ls *Links) releaseBatches() {
	u := &ls.uplink
	for i, l := range u.held {
		if l.batch != nil { // else it was full, and has gone
			l.send()
		}
		u.held[i] = nil
	}
	u.held = u.held[:0]
}

// checkTurns verifies that nobody waits for a turn that does not come.
func (ls *Links) checkTurns() error {
	u := &ls.uplink
	for _, l := range ls.links {
		switch {
		case l.dirty || l.room() <= 0 || !u.known():
		case !l.sparse.empty() && l.inSparse.on == nil, !l.active.empty() && l.inActive.on == nil:
			return fmt.Errorf("circuits of a link have something to send, it has room, and it has no turn")
		}
		if (l.inSparse.on != nil || l.inActive.on != nil) && !u.armed && !ls.armed {
			return fmt.Errorf("a link has a turn that does not come")
		}
	}
	return nil
}
