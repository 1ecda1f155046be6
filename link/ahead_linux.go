package link

import (
	"time"

	"cepa/env"
)

// ahead sets how much the kernel takes of a link ahead of TCP by how fast it takes it: 128 KiB are nothing on a link of
// 1 Gbit/s, and a second on one of 1 Mbit/s, in which nothing overtakes. It belongs to the goroutine that writes.
type ahead struct {
	waited bool      // the kernel had no room
	full   bool      // and had none when since was
	since  time.Time // bytes are counted
	last   time.Time // of the last write
	bytes  int       // since then
	rate   float64   // bytes a second; 0: not known
	limit  int       // that is set; 0 is env.MostAhead
}

const (
	aheadTime = 50 * time.Millisecond // after which the rate is worth looking at
	aheadIdle = time.Millisecond      // without a write the rate says nothing
)

// wrote is told that the kernel took n bytes, when it was asked to, and when it did: which is the same unless it had no
// room at first. It returns the new limit, or 0 while the old one is as good.
func (a *ahead) wrote(began, now time.Time, n int) int {
	full := a.waited
	a.waited = false
	if idle := began.Sub(a.last) > aheadIdle; idle || !a.full {
		a.full = full
		a.since, a.last, a.bytes = now, now, 0
		return 0
	}
	a.last = now
	a.bytes += n
	d := now.Sub(a.since)
	if !full || d < aheadTime {
		return 0
	}
	rate := float64(a.bytes) / d.Seconds()
	if a.rate == 0 {
		a.rate = rate
	}
	a.rate += (rate - a.rate) / 2
	a.since, a.bytes = now, 0
	was := a.limit
	if was == 0 {
		was = env.MostAhead
	}
	want := env.Ahead(a.rate)
	if want > was*3/4 && want < was*5/4 && want != env.MostAhead || want == was {
		return 0
	}
	a.limit = want
	return want
}
