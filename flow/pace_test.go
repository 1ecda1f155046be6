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

// On a fast link a circuit sends several cells in one go, and all have had their turn after 5 ms; on a slow one, and where
// the rate is not known, cells take turns one by one. A circuit that was idle waits for nobody's turn to end.
func TestTurnsOfCircuits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		rate     float64 // bytes a second
		circuits int
		want     int // cells of a turn
	}{
		{"not known", 0, 3, 1},
		{"1 Mbit/s", 1e6 / 8, 2, 1},
		{"100 Mbit/s", 1e8 / 8, 2, 15},
		{"100 Mbit/s", 1e8 / 8, 10, 3},
		{"100 Mbit/s", 1e8 / 8, 40, 1},
		{"10 Gbit/s", 1e10 / 8, 4, 16},
	} {
		limits := DefaultLimits()
		limits.LinkQueue = 64 << 10
		b := newBench(t, benchOptions{limits: limits})
		for i := range c.circuits + 1 {
			b.in(createCell(b.theirs(i+1), 60000))
		}
		b.w.run(time.Second) // they are no new circuits any more
		b.tap.slow = true
		for i := range c.circuits {
			b.legs[i].quantum, b.legs[i].lastSent = 0, b.w.Now()
			b.hear[i].send = 10000
			b.legs[i].Wake()
		}
		b.w.run(0)
		b.tap.take(t)
		var order []int
		for round := 0; len(order) < 8*c.want*c.circuits+100; round++ {
			if round == 3 {
				b.hear[c.circuits].send = 1
				b.legs[c.circuits].Wake()
			}
			b.l.pace = pace{rate: c.rate}
			b.tap.queued = 0
			b.l.OnDrained()
			cells, _ := b.tap.take(t)
			for _, x := range cells {
				order = append(order, int(x.Circuit&^cell.InitiatorBit)-1)
			}
		}
		last, length, sum, turns := -1, 0, make([]int, c.circuits+1), 0
		for _, k := range order {
			sum[k]++
			switch {
			case k == c.circuits: // in between
				continue
			case k == last:
				length++
				continue
			case turns > 1 && length != c.want:
				t.Errorf("%s, %d circuits: %d cells in one go, want %d", c.name, c.circuits, length, c.want)
			}
			last, length = k, 1
			turns++
		}
		if sum[c.circuits] != 1 {
			t.Errorf("%s, %d circuits: the cell of the circuit that was idle went out %d times", c.name, c.circuits, sum[c.circuits])
		}
		for _, n := range sum[:c.circuits] {
			if d := n - sum[0]; d < -2*c.want || d > 2*c.want {
				t.Errorf("%s, %d circuits: uneven, %v", c.name, c.circuits, sum)
			}
		}
	}
}
