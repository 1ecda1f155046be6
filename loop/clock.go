package loop

import (
	"container/heap"
	"time"

	"cepa/env"
)

// clock implements env.Clock. Timers are entries of one heap that only the loop touches: there
// is no goroutine and no runtime timer for each.
type clock struct{ l *Loop }

// Now is read once an event, before it begins; see Loop.batch.
func (c clock) Now() env.Mono {
	if c.l.now == 0 { // before Run
		c.l.read()
	}
	return c.l.now
}

// Wall is read at the first call in an event.
func (c clock) Wall() time.Time {
	if c.l.wall.IsZero() {
		c.l.wall = time.Now().Round(0)
	}
	return c.l.wall
}

func (c clock) AfterFunc(d time.Duration, f func()) env.Timer {
	t := &timer{l: c.l, f: f, index: -1}
	t.Reset(d)
	return t
}

type timer struct {
	l     *Loop
	f     func()
	at    env.Mono
	seq   uint64
	index int // in the heap; -1: not running
}

func (t *timer) Stop() bool {
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.l.timers, t.index)
	return true
}

func (t *timer) Reset(d time.Duration) {
	l := t.l
	now := clock{l}.Now()
	t.at = now + max(env.Mono(d), 0)
	if t.at < now {
		t.at = 1<<63 - 1
	}
	l.seq++
	t.seq = l.seq
	if t.index >= 0 {
		heap.Fix(&l.timers, t.index)
	} else {
		heap.Push(&l.timers, t)
	}
}

// due reports whether a timer is due.
func (l *Loop) due() bool {
	return len(l.timers) > 0 && l.timers[0].at <= env.Mono(time.Since(l.start))
}

// nextTimer takes the first timer that is due and was set no later than number last, so that
// timers which set themselves to zero cannot hold the loop.
func (l *Loop) nextTimer(last uint64) func() {
	if len(l.timers) == 0 || l.timers[0].at > l.now || l.timers[0].seq > last {
		return nil
	}
	return heap.Pop(&l.timers).(*timer).f
}

// timerHeap orders timers by instant and then by the order in which they were set.
type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].seq < h[j].seq
}
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
