package flow

import (
	"slices"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// hidden is downloads through a line of 100 Mbit/s behind the middle relay, whose queue no relay sees, and a light circuit
// on which something is asked again and again.
type hidden struct {
	*wide
	light  *circuit
	lookup []byte
	log    *streamLog
	opened env.Mono
	rounds []time.Duration // how long those took
}

func newHidden(t testing.TB, circuits int) *hidden {
	t.Helper()
	x := &hidden{wide: newWide(t, circuits)}
	x.narrow.rate, x.narrow.line = 1e9/8, mbit100
	x.light = x.circuit(t)
	if !x.w.runUntil(10*time.Second, func() bool { return x.light.created }) {
		t.Fatal("the circuit was not built")
	}
	answer, err := cell.Resolved{Reason: cell.ReasonNoSuchHost}.AppendTo(nil)
	must(t, err)
	x.lookup, err = cell.Resolve{Address: cell.Address{Host: "a"}}.AppendTo(nil)
	must(t, err)
	bulk, index := x.open, len(x.exits)-1
	x.open = func(s *Stream, m cell.Message) {
		if s.m != x.exits[index].mux {
			bulk(s, m)
			return
		}
		s.Resolved(answer)
	}
	return x
}

// run lets d pass, with requests on the light circuit or without, and returns the rate of the downloads in Mbit/s, what
// waits for the line in time, and how long a request took, at the median.
func (x *hidden) run(t testing.TB, d time.Duration, requests bool) (rate float64, queue, round time.Duration) {
	t.Helper()
	before := 0
	for _, s := range x.sinks {
		before += s.got
	}
	var queues []time.Duration
	x.rounds = nil
	for end := x.w.now.Add(d); x.w.now < end; {
		x.w.run(10 * time.Millisecond)
		queues = append(queues, max(x.narrow.free.Sub(x.w.now), 0))
		if x.log != nil && x.log.resolved != nil {
			x.rounds = append(x.rounds, x.w.now.Sub(x.opened))
			x.log = nil
		}
		if requests && x.log == nil {
			x.log, x.opened = new(streamLog), x.w.now
			if _, err := x.light.mux.Open(cell.MessageResolve, x.lookup, x.log); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := -before
	for _, s := range x.sinks {
		got += s.got
	}
	slices.Sort(queues)
	slices.Sort(x.rounds)
	if len(x.rounds) > 0 {
		round = x.rounds[len(x.rounds)/2]
	}
	return float64(got) * cell.Size / cell.MaxData * 8 / d.Seconds() / 1e6, queues[len(queues)/2], round
}

// TestHiddenQueueIsShortForLightCircuits: where the bottleneck is a line whose queue no relay sees, downloads fill that
// queue as long as they are alone. When a light circuit passes too, they shrink their windows until the queue is
// short, and go on at nearly the same rate.
func TestHiddenQueueIsShortForLightCircuits(t *testing.T) {
	t.Parallel()
	for _, circuits := range []int{1, 4} {
		x := newHidden(t, circuits)
		x.run(t, 3*time.Second, false)
		alone, long, _ := x.run(t, 3*time.Second, false)
		_, _, first := x.run(t, 100*time.Millisecond, true)
		x.run(t, 4*time.Second, true)
		beside, short, round := x.run(t, 3*time.Second, true)
		t.Logf("%d downloads alone: %.1f Mbit/s, %v wait for the line; beside requests: %.1f Mbit/s, %v; a request takes %v (%v)", circuits, alone, long, beside, short, round, first)
		if alone < 85 || beside < 85 {
			t.Errorf("%d downloads: %.1f Mbit/s alone, %.1f beside requests, of 100", circuits, alone, beside)
		}
		if short > 40*time.Millisecond || circuits == 1 && short > long/4 || round > pathRound+60*time.Millisecond {
			t.Errorf("%d downloads: %v wait for the line and a request takes %v; %v wait where nobody minds", circuits, short, round, long)
		}
	}
}

// TestTripsAfterAChangeOfPath: a path that becomes longer is no queue. Windows are small until that is plain, and then as
// large as the path needs.
func TestTripsAfterAChangeOfPath(t *testing.T) {
	t.Parallel()
	x := newHidden(t, 1)
	x.run(t, 3*time.Second, true)
	x.narrow.delay += 100 * time.Millisecond
	x.run(t, 9*time.Second, true)
	rate, queue, _ := x.run(t, 3*time.Second, true)
	if rate < 75 {
		t.Errorf("%.1f Mbit/s of 100, %v wait for the line", rate, queue)
	}
}

// A circuit that begins counts as light at once, so that its first request does not wait behind what heavy ones have under way;
// but only for as long as the beginning of a download cannot be told from it.
func TestFirstCellsCountAsLight(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	heavy, _ := b.open(t, 1)
	g, _ := b.open(t, 2)
	b.w.run(2 * time.Second)
	ls := heavy.link.links
	lightFor := func() time.Duration {
		if ls.lightAt == 0 {
			return 0
		}
		return max(lightKept-b.w.Now().Sub(ls.lightAt), 0)
	}
	send := func(g *Leg, n int, every time.Duration) {
		for range n {
			g.carried(b.w.Now(), false)
			b.w.run(every)
		}
	}
	rate := func() { send(heavy, 200, time.Millisecond/2) }

	rate()
	if lightFor() != 0 {
		t.Fatal("a heavy circuit alone counts as light")
	}
	send(g, 2, time.Millisecond)
	if d := lightFor(); d <= 90*time.Millisecond || d > freshKept {
		t.Errorf("two cells after a pause count for %v", d)
	}
	rate() // 100 ms
	if d := lightFor(); d != 0 {
		t.Errorf("they still count after 100 ms, for %v", d)
	}
	send(g, 1, 0)
	if d := lightFor(); d != lightKept {
		t.Errorf("a cell of one that has been light for 100 ms counts for %v", d)
	}

	// One that was heavy and slows down is not light at once.
	b.w.run(lightKept)
	rate()
	send(g, 100, time.Millisecond/2)
	b.w.run(200 * time.Millisecond)
	rate()
	send(g, 2, time.Millisecond)
	if d := lightFor(); d != 0 {
		t.Errorf("the first cells of one that was heavy count for %v", d)
	}
}
