package baseline

import (
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
	"cepa/flow"
)

// pipe is a path of a rate in bytes a second and a round trip, through which a stream with a window is sent: bytes wait for
// their turn, then arrive, are consumed at once, and WINDOWs go back as package flow sends them.
type pipe struct {
	rate  int
	trip  time.Duration
	rule  flow.StreamRule
	queue time.Duration // that the last byte waited
}

// run returns the window at the end, in cells of Tor's, and how many bytes came.
func (p *pipe) run(first int, d time.Duration) (window, got int) {
	type grant struct {
		at env.Mono
		n  int
	}
	now, free := env.Mono(1), env.Mono(1) // free is when the bottleneck is
	window = first
	grants := []grant{{now, window}}
	unsaid, unused := 0, window
	for now < env.Mono(d) {
		// The next cell's worth of what was granted passes the bottleneck.
		n := min(cell.MaxData, grants[0].n)
		enter := max(grants[0].at, free)
		p.queue = enter.Sub(grants[0].at)
		free = enter.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
		if grants[0].n -= n; grants[0].n == 0 {
			grants = grants[1:]
		}
		now = free.Add(p.trip / 2)
		got, unsaid, unused = got+n, unsaid+n, unused-n
		p.rule.Arrived(now, n)
		if unsaid >= p.rule.Worth() {
			size := p.rule.Next(now, unused)
			add := max(unsaid+size-window, unsaid-unsaid/2)
			window += add - unsaid
			unsaid, unused = 0, unused+add
			grants = append(grants, grant{now.Add(p.trip / 2), add})
		}
		if len(grants) == 0 {
			break
		}
	}
	return window / torCell, got
}

// Vegas finds the window that its path holds, and keeps a queue between its thresholds; what the next WINDOW is to return is
// with the receiver.
func TestVegasFindsThePath(t *testing.T) {
	t.Parallel()
	const rate, trip = 5_000_000, 100 * time.Millisecond
	holds := rate / 10 / torCell
	for _, c := range []struct {
		name        string
		least, most int // cells in the queue
	}{{"vegas", vegasAlpha - 2*vegasWorth, vegasDelta}, {"vegas/4", 0, vegasDelta / 4}} {
		r := Rules(c.name)
		p := &pipe{rate: rate, trip: trip, rule: r.Stream()}
		window, got := p.run(int(r.Client.Stream), time.Minute)
		if queue := window - holds; queue < c.least || queue > c.most+4*vegasWorth {
			t.Errorf("%s: a window of %d cells on a path that holds %d", c.name, window, holds)
		}
		if got < rate*60*9/10 {
			t.Errorf("%s: %d bytes in a minute", c.name, got)
		}
	}
}

// The fixed window is what it is: a thousand cells a round trip.
func TestFixedIsAThousandCells(t *testing.T) {
	t.Parallel()
	r := Rules("fixed")
	p := &pipe{rate: 1 << 30, trip: 100 * time.Millisecond, rule: r.Stream()}
	window, got := p.run(int(r.Client.Stream), 10*time.Second)
	if want := 100 * fixedCells * torCell; window != fixedCells || got < want*9/10 || got > want {
		t.Errorf("a window of %d cells, %d bytes", window, got)
	}
}

// No WINDOW is smaller than what package flow takes for an attack: an eighth of the first window, half of which may be kept
// to shrink.
func TestWindowsAreWorthSaying(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		r := Rules(name)
		if r == nil || r.Stream == nil {
			continue
		}
		least := r.Stream().Worth()
		if name != "fixed" && name != "fixed/2" { // these never shrink
			least -= least / 2
		}
		if first := int(r.Client.Stream); least < first/8 {
			t.Errorf("%s: a WINDOW of %d bytes, the first window is %d", name, least, first)
		}
	}
}

// Doubling doubles when a window was used up within two round trips, and only then.
func TestDoublingDoubles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		every time.Duration // a cell
		want  int
	}{{time.Millisecond, 128}, {10 * time.Millisecond, 32}} {
		d, now, window, n := new(doubling), env.Mono(1), 32, 0
		for range 32 + 64 + 2 {
			n++
			now = now.Add(c.every)
			window = d.Arrived(now, n, window)
			if n%16 == 0 {
				d.Granted(now.Add(-50*time.Millisecond), n) // the next cell is the first of it
			}
		}
		if window != c.want {
			t.Errorf("a cell every %v: a window of %d cells, want %d", c.every, window, c.want)
		}
	}
}

// Every name has rules but cepa's own, and no other has.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		if r := Rules(name); (r == nil) != (name == Credits) || !Known(name) {
			t.Errorf("%s: %v", name, r)
		}
	}
	if Rules("none") != nil || Known("none") || Unbounded(Credits) || Unbounded("doubling") || !Unbounded("fixed") {
		t.Error("a name that is none")
	}
}
