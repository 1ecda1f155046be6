package netlink

import (
	"slices"
	"testing"
	"time"
)

// outcome is a packet that arrived.
type outcome struct {
	to   int
	mark byte
	at   time.Duration
}

// play sends packets of a size at times between two hosts, and returns what arrives.
func play(seed uint64, hosts []Host, path Path, size int, times ...time.Duration) (*model, []outcome) {
	m := newModel(seed, hosts, func(int, int) Path { return path })
	var got []outcome
	m.deliver = func(to int, data []byte, at time.Duration) { got = append(got, outcome{to, data[0], at}) }
	for i, at := range times {
		m.run(at)
		p := m.take(1500)
		p.data = p.data[:size]
		p.data[0] = byte(i)
		m.send(0, 1, p, at)
	}
	m.run(1 << 62)
	return m, got
}

func every(d time.Duration, n int) (times []time.Duration) {
	for i := range n {
		times = append(times, time.Duration(i)*d)
	}
	return times
}

const ms = time.Millisecond

// TestRatesAndDelayAddUp: a packet waits for those before it at each gate, and travels between them.
func TestRatesAndDelayAddUp(t *testing.T) {
	t.Parallel()
	hosts := []Host{{Up: Direction{Rate: 1_000_000}}, {Down: Direction{Rate: 500_000}}}
	_, got := play(1, hosts, Path{Delay: 30 * ms}, 1000, 0, 0, 0)
	want := []time.Duration{1*ms + 30*ms + 2*ms, 35 * ms, 37 * ms}
	for i, o := range got {
		if o.at != want[i] || o.mark != byte(i) || o.to != 1 {
			t.Errorf("packet %d: %+v, want it at %v", i, o, want[i])
		}
	}
	if len(got) != 3 {
		t.Errorf("%d packets arrived", len(got))
	}
}

// TestQueuesDropWhatDoesNotFit: in each direction, by bytes.
func TestQueuesDropWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	gate := Direction{Rate: 1_000_000, Queue: 5000}
	for _, hosts := range [][]Host{{{Up: gate}, {}}, {{}, {Down: gate}}} {
		m, got := play(1, hosts, Path{}, 1000, make([]time.Duration, 20)...)
		if len(got) != 5 {
			t.Errorf("%d packets of 20 got through a queue for 5", len(got))
		}
		if full := m.count[0].FullUp + m.count[1].FullDown; full != 15 {
			t.Errorf("%d were dropped", full)
		}
	}
}

// TestLossIsThatOfTheSettings: within four standard deviations, the same for the same seed only.
func TestLossIsThatOfTheSettings(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) []outcome {
		_, got := play(seed, []Host{{}, {}}, Path{Loss: 20_000}, 100, every(ms, 50_000)...)
		return got
	}
	a, b, c := run(1), run(1), run(2)
	if lost := 50_000 - len(a); lost < 1000-4*31 || lost > 1000+4*31 {
		t.Errorf("%d of 50000 packets were lost, and 2 %% should be", lost)
	}
	if !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Error("what is lost does not depend on the seed, and the seed alone")
	}
}

// TestJitter: between nothing and its most, mostly little; packets keep their order unless they may not.
func TestJitter(t *testing.T) {
	t.Parallel()
	for _, reorder := range []bool{false, true} {
		times := every(ms, 20_000)
		_, got := play(7, []Host{{}, {}}, Path{Delay: 10 * ms, Jitter: 9 * ms, Reorder: reorder}, 100, times...)
		sorted := true
		for i := 1; i < len(got); i++ {
			sorted = sorted && got[i].mark == byte(i)
		}
		if sorted == reorder {
			t.Errorf("packets keep their order: %v, though they may overtake: %v", sorted, reorder)
		}
		if !reorder {
			continue
		}
		sum := time.Duration(0)
		for _, o := range got {
			sum += o.at
		}
		for _, at := range times {
			sum -= at
		}
		// The mean of a square of a number between 0 and 1 is a third.
		if mean := sum / time.Duration(len(got)); mean < 12900*time.Microsecond || mean > 13100*time.Microsecond {
			t.Errorf("packets took %v on average, and should 13 ms", mean)
		}
	}
}
