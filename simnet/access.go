package simnet

import (
	"time"

	"cepa/env"
)

// access is one direction of a host's link to the network.
type access struct {
	rate int64    // bytes a second; 0 is without limit
	free env.Mono // when all that was sent is through
	line ring[*end]
	ev   event
}

// setRate changes the rate of the link for what waits too. It returns how many times less the waiting is now.
func (a *access) setRate(w *World, rate int64) (faster ratio) {
	old := a.rate
	if old == rate {
		return ratio{1, 1}
	}
	a.rate = rate
	switch faster = (ratio{rate, old}); {
	case old == 0:
		return ratio{1, 1} // nothing waited
	case rate == 0:
		faster = ratio{1, 0}
	}
	a.free = faster.sooner(w.now, a.free)
	if a.ev.pending() {
		w.queue.schedule(&a.ev, max(a.free, w.now))
	}
	return faster
}

// ratio is a quotient of two rates; that of one to no limit has b = 0.
type ratio struct{ a, b int64 }

// sooner is when something that was to happen at a moment happens, if what is waited for is so much faster from now on.
func (r ratio) sooner(now, at env.Mono) env.Mono {
	switch wait := at.Sub(now); {
	case wait <= 0 || r.a == r.b:
		return at
	case r.b == 0:
		return now
	default:
		return now.Add(time.Duration(mulDiv(int64(wait), r.b, r.a)))
	}
}

// takes is how long n bytes are on the link.
func (a *access) takes(n int64) time.Duration {
	if a.rate == 0 {
		return 0
	}
	return time.Duration(mulDiv(n, int64(time.Second), a.rate))
}

// pass sends n bytes through, of which the first came span before the last, after all before them, and returns
// when they are through.
func (a *access) pass(at env.Mono, span time.Duration, n int64) env.Mono {
	if a.rate == 0 {
		return at
	}
	a.free = max(a.free, at.Add(-span)).Add(a.takes(n))
	return a.free
}

// wait puts a connection into the line of those that want to send.
func (a *access) wait(w *World, e *end) {
	e.inLine = true
	a.line.push(e)
	if !a.ev.pending() {
		w.queue.schedule(&a.ev, max(a.free, w.now))
	}
}

// turn lets the first in line send one segment.
func (a *access) turn(w *World) {
	for a.line.n > 0 && a.free <= w.now {
		e := *a.line.at(0)
		n := e.mayLeave()
		if n > 0 {
			e.leave(n)
			n = e.mayLeave()
		}
		switch {
		case n == 0:
			a.line.pop()
			e.inLine = false
			e.markEnd()
		case !e.host.spec.FIFO:
			a.line.push(a.line.pop())
		}
	}
	if a.line.n > 0 {
		w.queue.schedule(&a.ev, max(a.free, w.now))
	}
}
