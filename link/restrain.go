package link

import (
	"time"

	"cepa/cell"
	"cepa/env"
	"cepa/limit"
)

// restraint keeps the writer of a link from giving TCP so much that it waits in queues on the path: see limit.Flight.
// What waits does so in the node then, where circuits take turns. It belongs to the writer.
type restraint struct {
	// sample says how many bytes TCP has, sent or not, and what it knows of the path; nil where it says nothing.
	sample  func() (have int, s limit.Sample, ok bool)
	flight  limit.Flight
	most    int // bytes that TCP may have; 0: no limit
	sampled time.Time
	timer   *time.Timer
}

const (
	sampleEvery = 5 * time.Millisecond // while there is no limit; the system call costs about 0.5 µs
	holdLeast   = time.Millisecond     // between two looks whether there is room
	holdMost    = 5 * time.Millisecond
	holdLimit   = time.Second // in all: TCP itself has to notice when nothing comes through any more
)

// allow returns how many of step bytes to write next, whole cells and at least one. It waits while TCP has enough, but
// not when the link ends.
func (l *link) allow(step int) int {
	r := &l.restraint
	began := time.Now()
	if r.sample == nil || r.most == 0 && began.Sub(r.sampled) < sampleEvery {
		return step
	}
	for now := began; ; now = time.Now() {
		have, s, ok := r.sample()
		if !ok {
			r.sample = nil
			return step
		}
		r.sampled = now
		r.most = r.flight.Judge(env.Mono(now.Sub(l.t.started)), s)
		room := r.most - have
		switch {
		case r.most == 0:
			return step
		case room >= max(cell.Size, min(step, maxPlain, r.most/4)):
			return min(step, room/cell.Size*cell.Size)
		case now.Sub(began) >= holdLimit || !l.pause(min(max(s.Trip/8, holdLeast), holdMost)):
			return step
		}
	}
}

// pause returns after d, or false when the link ends.
func (l *link) pause(d time.Duration) bool {
	r := &l.restraint
	if r.timer == nil {
		r.timer = time.NewTimer(d)
	} else {
		r.timer.Reset(d)
	}
	select {
	case <-r.timer.C:
		return true
	case <-l.ended:
		r.timer.Stop()
		return false
	}
}
