package simnet

import (
	"time"

	"cepa/env"
)

// unsent is how much the kernel takes ahead of what TCP may send.
func (e *end) unsent() int {
	switch {
	case !e.link:
		return max(unsentConns, 2*e.window-e.under)
	case e.w.cfg.Unsent == 0:
		return e.speed.unsent()
	}
	return e.w.cfg.Unsent
}

// speed is how fast the kernel takes bytes while more wait for it, as a program sees that writes to it.
type speed struct {
	since env.Mono // more has waited since, or since the rate was looked at
	empty env.Mono // nothing has waited since; 0: something does
	bytes int      // that it has taken since
	rate  float64  // bytes a second; 0: not known
}

const (
	speedTime = 50 * time.Millisecond // after which the rate is worth looking at
	speedIdle = time.Millisecond      // without anything that waits the rate says nothing
)

// took is told that the kernel took n bytes, and that so many wait.
func (s *speed) took(now env.Mono, n, left int) {
	if s.empty != 0 && now.Sub(s.empty) > speedIdle {
		s.since, s.bytes, n = now, 0, 0
	}
	s.bytes += n
	s.empty = 0
	if left == 0 {
		s.empty = now
	}
	d := now.Sub(s.since)
	if d < speedTime {
		return
	}
	rate := float64(s.bytes) / d.Seconds()
	if s.rate == 0 {
		s.rate = rate
	}
	s.rate += (rate - s.rate) / 2
	s.since, s.bytes = now, 0
}

// unsent is how much is to be taken ahead of TCP, at most.
func (s *speed) unsent() int {
	if s.rate == 0 {
		return env.MostAhead
	}
	return env.Ahead(s.rate)
}
