package flow

import (
	"slices"
	"testing"
	"time"

	"cepa/cell"
)

// source is a Conn whose far end sends without end, or takes what comes at some rate.
type source struct {
	w      *world
	s      *Stream
	sends  bool
	rate   float64 // bytes a second that it takes; 0: all
	paused bool
	armed  bool
	got    int
	queue  int
}

var zeros [16 << 10]byte

func (c *source) Write(p []byte) {
	c.got += len(p)
	if c.rate > 0 {
		c.queue += len(p)
		c.drain()
	}
}
func (c *source) drain() {
	if c.armed || c.queue == 0 {
		return
	}
	c.armed = true
	n := min(c.queue, 4096)
	c.w.at(time.Duration(float64(n)/c.rate*1e9), func() {
		c.armed = false
		c.queue -= n
		c.drain()
		c.s.OnDrained()
	})
}
func (c *source) Queued() int { return c.queue }
func (c *source) Pause(paused bool) {
	c.paused = paused
	c.pull()
}
func (c *source) pull() {
	if !c.sends || c.paused || c.armed {
		return
	}
	c.armed = true
	c.w.at(0, func() {
		c.armed = false
		if !c.paused {
			c.s.OnData(zeros[:])
			c.pull()
		}
	})
}
func (c *source) CloseWrite() {}
func (c *source) Close(error) {}

// wide is downloads over three hops with round trips of 30, 60 and 90 ms; the middle relay sends 100 Mbit/s.
type wide struct {
	*path
	narrow *pipeEnd // the middle relay's way to the guard
	sinks  []*source
}

const (
	pathRound = 180 * time.Millisecond
	mbit100   = 100e6 / 8
)

func newWide(t testing.TB, circuits int) *wide { return newWideKnowing(t, circuits, 0) }

// newWideKnowing is newWide with relays that take uplink for the rate of their ways out.
func newWideKnowing(t testing.TB, circuits int, uplink int64) *wide {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds, longer with the race detector")
	}
	w := newWorld(1)
	x := &wide{path: newPath(w, 3, linkOptions{}, nodeOptions{budget: 256 << 20, limits: DefaultLimits(), uplink: uplink})}
	for i, round := range []time.Duration{30 * time.Millisecond, 60 * time.Millisecond, 90 * time.Millisecond} {
		e := x.links[i].env.(*pipeEnd)
		e.delay, e.other.delay = round/2, round/2
		e.rate, e.other.rate = 1e9/8, 1e9/8
	}
	x.narrow = x.links[1].env.(*pipeEnd).other
	x.narrow.rate = mbit100
	x.open = func(s *Stream, _ cell.Message) {
		s.Handle(new(streamLog))
		s.Connected(connected())
		s.Attach(&source{w: w, s: s, sends: true, paused: true})
	}
	for range circuits {
		c := x.circuit(t)
		if !w.runUntil(10*time.Second, func() bool { return c.created }) {
			t.Fatal("the circuit was not built")
		}
		s, err := c.mux.Open(cell.MessageBegin, begin(t), new(streamLog))
		if err != nil {
			t.Fatal(err)
		}
		sink := &source{w: w, s: s, paused: true}
		x.sinks = append(x.sinks, sink)
		s.Attach(sink)
	}
	return x
}

// run lets d pass and returns what each circuit delivered, in Mbit/s of cells, and how long a cell waited at the middle
// relay, at the median and at most, of samples a millisecond apart.
func (x *wide) run(d time.Duration) (rates []float64, p50, most time.Duration) {
	before := make([]int, len(x.sinks))
	for i, s := range x.sinks {
		before[i] = s.got
	}
	var waits []time.Duration
	for range d / time.Millisecond {
		x.w.run(time.Millisecond)
		queued := len(x.narrow.queue)
		for n := x.links[1].env.(*pipeEnd).other.ev.(*Link).legs.first; n != nil; n = n.next {
			queued += n.of.queue.n * cell.Size
		}
		waits = append(waits, time.Duration(float64(queued)/x.narrow.rate*1e9))
	}
	slices.Sort(waits)
	for i, s := range x.sinks {
		rates = append(rates, float64(s.got-before[i])*cell.Size/cell.MaxData*8/d.Seconds()/1e6)
	}
	return rates, waits[len(waits)/2], waits[len(waits)-1]
}

func total(rates []float64) (sum float64) {
	for _, r := range rates {
		sum += r
	}
	return sum
}

// One download fills the narrow link within ten round trips, and leaves little standing there.
func TestOneCircuitFillsANarrowRelay(t *testing.T) {
	t.Parallel()
	x := newWide(t, 1)
	took := time.Duration(0)
	for {
		rates, _, _ := x.run(50 * time.Millisecond)
		took += 50 * time.Millisecond
		if total(rates) >= 90 {
			break
		}
		if took > 10*pathRound {
			t.Fatalf("%.0f Mbit/s after %v", total(rates), took)
		}
	}
	x.run(2 * time.Second)
	rates, p50, most := x.run(5 * time.Second)
	t.Logf("90 Mbit/s after %v; then %.1f Mbit/s, a cell waits %v at the median, %v at most", took, total(rates), p50, most)
	if total(rates) < 90 || p50 > 15*time.Millisecond {
		t.Errorf("%.1f Mbit/s, a cell waits %v at the median", total(rates), p50)
	}
	x.w.check(t)
}

func TestTenCircuitsShareANarrowRelay(t *testing.T) {
	t.Parallel()
	x := newWide(t, 10)
	x.run(5 * time.Second)
	rates, p50, most := x.run(10 * time.Second)
	squares := 0.0
	for _, r := range rates {
		squares += r * r
	}
	jain := total(rates) * total(rates) / (float64(len(rates)) * squares)
	t.Logf("%.1f Mbit/s, Jain's index %.3f, a cell waits %v at the median, %v at most", total(rates), jain, p50, most)
	if total(rates) < 90 || jain < 0.95 || p50 > 40*time.Millisecond {
		t.Errorf("%.1f Mbit/s as %.1f, Jain's index %.3f, a cell waits %v", total(rates), rates, jain, p50)
	}
	x.w.check(t)
}

// Of a relay that knows its rate nothing waits below the scheduler, and the circuits share what is left.
func TestNarrowRelayThatKnowsItsRate(t *testing.T) {
	t.Parallel()
	x := newWideKnowing(t, 10, mbit100)
	x.run(5 * time.Second)
	below := 0
	x.w.at(5*time.Second, func() { below = len(x.narrow.queue) })
	rates, p50, most := x.run(10 * time.Second)
	t.Logf("%.1f Mbit/s, a cell waits %v at the median, %v at most; %d bytes below", total(rates), p50, most, below)
	want := uplinkPercent * 1.0 * cell.Size / wireCell
	if got := total(rates); got < want*0.96 || got > want || p50 > 40*time.Millisecond || below > 32*cell.Size {
		t.Errorf("%.1f Mbit/s, a cell waits %v, %d bytes below", got, p50, below)
	}
	if least, top := slices.Min(rates), slices.Max(rates); least < 0.98*top {
		t.Errorf("from %.2f to %.2f Mbit/s", least, top)
	}
	x.w.check(t)
}

// The queue that a tenth of the rate leaves behind is gone in two seconds, and ten times the rate is used in one.
func TestNarrowRelayThatChanges(t *testing.T) {
	t.Parallel()
	x := newWide(t, 1)
	x.run(5 * time.Second)
	x.narrow.rate = mbit100 / 10
	x.run(2 * time.Second)
	rates, p50, most := x.run(time.Second)
	t.Logf("at 10 Mbit/s: %.1f, a cell waits %v at the median, %v at most", total(rates), p50, most)
	if total(rates) < 9 || p50 > 100*time.Millisecond {
		t.Errorf("at 10 Mbit/s: %.1f, a cell waits %v", total(rates), p50)
	}
	x.run(5 * time.Second)
	x.narrow.rate = mbit100
	x.run(time.Second)
	rates, p50, _ = x.run(2 * time.Second)
	t.Logf("at 100 Mbit/s again: %.1f, a cell waits %v", total(rates), p50)
	if total(rates) < 90 {
		t.Errorf("at 100 Mbit/s again: %.1f", total(rates))
	}
	x.w.check(t)
}

// An application that reads slowly keeps a small window, and one that reads fast gets what its path needs.
func TestWindowsOfStreamsFollowTheApplication(t *testing.T) {
	t.Parallel()
	x := newWide(t, 2)
	x.sinks[0].rate = 125e3 // 1 Mbit/s
	first := int(x.grantC.Stream)
	x.run(10 * time.Second)
	slow, fast := x.sinks[0].s, x.sinks[1].s
	if slow.win.size != first {
		t.Errorf("the slow application has a window of %d bytes", slow.win.size)
	}
	if need := int(mbit100 * pathRound.Seconds()); fast.win.size < need || fast.win.size > 8*need {
		t.Errorf("the fast application has a window of %d bytes, its path holds %d", fast.win.size, need)
	}
	if r := fast.m.rtt; r < pathRound || r > pathRound*3/2 {
		t.Errorf("a round trip was taken for %v", r)
	}
	if grown := fast.win.size - first; fast.m.grown != grown || fast.m.budget.grown != grown {
		t.Errorf("%d bytes of growth, the circuit counts %d, the budget %d", grown, fast.m.grown, fast.m.budget.grown)
	}
	// What the application does not read any more costs no more than its window; when memory runs low it shrinks.
	b := fast.m.budget
	b.add(b.limit * 6 / 10)
	before := fast.win.size
	x.run(5 * time.Second)
	if fast.win.size > before/4 {
		t.Errorf("a window of %d bytes, %d before memory ran low", fast.win.size, before)
	}
	b.sub(b.limit * 6 / 10)
	for _, s := range x.sinks {
		s.s.End(cell.ReasonOther)
	}
	if b.grown != 0 {
		t.Errorf("%d bytes of growth are left", b.grown)
	}
}

// Grown windows never leave a circuit's other streams without: all that its streams may hold fits its window.
func TestGrownWindowsLeaveRoomForAllStreams(t *testing.T) {
	t.Parallel()
	x := newWide(t, 1)
	m := x.sinks[0].s.m
	x.w.run(0)
	for range 7 { // eight downloads that are all read
		s, err := m.Open(cell.MessageBegin, begin(t), new(streamLog))
		if err != nil {
			t.Fatal(err)
		}
		sink := &source{w: x.w, s: s, paused: true}
		x.sinks = append(x.sinks, sink)
		s.Attach(sink)
	}
	x.narrow.rate = 0
	for range 100 {
		x.w.run(100 * time.Millisecond)
		most := 0
		for n := m.all.first; n != nil; n = n.next {
			most += n.of.win.size
		}
		most += (m.cfg.MaxStreams - m.Streams()) * int(m.cfg.Granted.Stream)
		if most > int(m.cfg.Granted.Circuit) || m.grown > m.spare {
			t.Fatalf("streams may hold %d bytes of the circuit's %d", most, m.cfg.Granted.Circuit)
		}
	}
	if m.grown == 0 {
		t.Error("no window has grown")
	}
	x.w.check(t)
}
