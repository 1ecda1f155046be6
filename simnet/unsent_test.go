package simnet

import (
	"testing"
	"time"

	"cepa/env"
)

// What a kernel takes ahead of TCP by rate is 10 ms on a slow link, 2 ms on a fast one, and no more than without; idle times
// do not count.
func TestUnsentByRate(t *testing.T) {
	t.Parallel()
	const most = env.MostAhead
	for _, c := range []struct{ rate, least, most int }{
		{10_000, 4 << 10, 4 << 10}, {1_000_000, 9_500, 10_500}, {12_500_000, 24_000, 26_000}, {1_000_000_000, most, most},
	} {
		var s speed
		if s.unsent() != most {
			t.Error("less at once")
		}
		now := env.Mono(time.Second)
		for range 10 { // bursts of 200 ms, and a second without anything
			for range 200 {
				s.took(now, c.rate/1000, 4096)
				now = now.Add(time.Millisecond)
			}
			s.took(now, c.rate/1000, 0)
			now = now.Add(time.Second)
		}
		if n := s.unsent(); n < c.least || n > c.most {
			t.Errorf("%d bytes a second: %d", c.rate, n)
		}
	}
}
