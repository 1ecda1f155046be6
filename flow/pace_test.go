package flow

import (
	"testing"
	"time"

	"cepa/cell"
)

// What waits below the scheduler follows the rate of the link.
func TestWhatWaitsBelowFollowsTheRate(t *testing.T) {
	t.Parallel()
	const most = 256 << 10
	for _, c := range []struct {
		name        string
		rate        float64 // bytes a second
		least, most int     // cells that may wait
	}{
		{"1 Mbit/s", 1e6 / 8, 1, 1},
		{"10 Mbit/s", 1e7 / 8, 5, 7},
		{"100 Mbit/s", 1e8 / 8, 8, 13},
		{"1 Gbit/s", 1e9 / 8, 110, 128},
		{"10 Gbit/s", 1e10 / 8, 128, 128},
	} {
		var p pace
		if n := p.queue(most); n > 64<<10 {
			t.Errorf("%d bytes before the rate is known", n)
		}
		for range 100 {
			n := p.queue(most)
			p.left = n
			p.drained(0, time.Duration(float64(n)/c.rate*1e9))
		}
		if n := p.queue(most) / cell.Size; n < c.least || n > c.most {
			t.Errorf("%s: %d cells may wait", c.name, n)
		}
		// A pause in which nothing was to be sent does not make a link slow.
		p.left = 0
		p.drained(0, time.Second)
		if n := p.queue(most) / cell.Size; n < c.least || n > c.most {
			t.Errorf("%s: %d cells may wait after a pause", c.name, n)
		}
	}
}
