package flow

import (
	"time"

	"cepa/cell"
)

// pace is how fast a link takes cells. What waits below the scheduler can no longer be overtaken, so it is little: a few
// cells on a slow link, and as much on a fast one as it sends until this node gets round to giving it more.
type pace struct {
	left  int           // bytes that waited below when last looked at
	bytes int           // that were taken, and
	took  time.Duration // the time in which something waited
	rate  float64       // bytes a second; 0: not known yet
}

const (
	paceBytes = 64 << 10             // after so many bytes,
	paceTime  = 5 * time.Millisecond // or in this time, the rate is worth looking at
	leastPace = 8 * cell.Size
	slowQueue = 10 * time.Millisecond // what may wait, of the link's rate: on a slow link,
	fastQueue = 2 * time.Millisecond  // and on a fast one
	turnsTime = 5 * time.Millisecond  // in which each circuit of a link has had a turn, of
	mostTurn  = 16                    // cells at most
)

// drained is told that so many bytes are left below, a while after something was taken last or began to wait.
func (p *pace) drained(left int, took time.Duration) {
	gone := max(p.left-left, 0)
	p.left = left
	if gone == 0 {
		return // nothing waited
	}
	p.bytes += gone
	p.took += took
	if p.bytes < paceBytes && p.took < paceTime {
		return
	}
	rate := float64(p.bytes) / max(p.took, 10*time.Microsecond).Seconds()
	if p.rate == 0 {
		p.rate = rate
	}
	p.rate += (rate - p.rate) / 2
	p.bytes, p.took = 0, 0
}

// queue is how many bytes may wait below, at most.
func (p *pace) queue(most int) int {
	if p.rate == 0 {
		return min(most, 4*leastPace)
	}
	n := min(p.rate*slowQueue.Seconds(), max(leastPace, p.rate*fastQueue.Seconds()), float64(most))
	return max(int(n), cell.Size)
}

// turn is how many cells of a circuit go out before those of the next when n share the link: one, unless the link is so fast
// that all turns together are over soon.
func (p *pace) turn(n int) int {
	return min(max(int(p.rate*turnsTime.Seconds())/(n*cell.Size), 1), mostTurn)
}
