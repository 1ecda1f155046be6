package circuit

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env/envtest"
)

func newTimes(f *envtest.Fake) *buildTimes {
	return newBuildTimes(f.Client("client").Env, cert.NetworkID{7}, DefaultLimits())
}

// TestBuildTimesAreLearned: four of five circuits of any network are on time, within the bounds, and a restart forgets nothing.
func TestBuildTimesAreLearned(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		median time.Duration
		late   time.Duration // 0: four fifths are on time
	}{{50 * time.Millisecond, time.Second}, {2 * time.Second, 0}, {8 * time.Second, 0}, {90 * time.Second, time.Minute}} {
		f := envtest.NewFake(1)
		b := newTimes(f)
		if b.late != 11*time.Second || b.giveUp != b.late || b.stall() != DefaultLimits().Stall || b.firstHop() != DefaultLimits().BuildTime {
			t.Errorf("before anything is known: late %v, given up %v, stall %v, first hop %v", b.late, b.giveUp, b.stall(), b.firstHop())
		}
		rng := rand.New(newRand(1))
		draw := func() time.Duration {
			return time.Duration(float64(c.median) * math.Exp(rng.NormFloat64()/2))
		}
		for range timesKept {
			b.whole(draw(), false)
		}
		onTime := 0
		for range 10_000 {
			if draw() <= b.late {
				onTime++
			}
		}
		if c.late != 0 && b.late != c.late || c.late == 0 && (onTime < 7500 || onTime > 8500) {
			t.Errorf("%v: late after %v, %d of 10000 on time", c.median, b.late, onTime)
		}
		if b.giveUp < b.late || b.giveUp < 11*time.Second || b.giveUp > time.Minute || b.stall() < DefaultLimits().Stall || b.stall() > 15*time.Second ||
			b.firstHop() < DefaultLimits().BuildTime || b.firstHop() > b.giveUp {
			t.Errorf("%v: given up after %v, first hop %v, stall %v", c.median, b.giveUp, b.firstHop(), b.stall())
		}
		f.Run(time.Second)
		f.Client("client").Stop()
		if again := newTimes(f); (again.late-b.late).Abs() > timesUnit || (again.giveUp-b.giveUp).Abs() > 2*timesUnit {
			t.Errorf("%v: after a restart late after %v, not %v", c.median, again.late, b.late)
		}
	}
}

// TestBuildTimesOfAnotherNetwork: when nearly all circuits are late, or several in a row move and are not whole in time, what was known
// is dropped and the patience doubles, up to a minute; a silent relay says nothing.
func TestBuildTimesOfAnotherNetwork(t *testing.T) {
	t.Parallel()
	b := newTimes(envtest.NewFake(2))
	for range 100 {
		b.whole(100*time.Millisecond, false)
	}
	for range 1000 {
		b.abandoned(11*time.Second, 10*time.Second) // nothing moved after the first second
	}
	if !b.known() || b.late != time.Second {
		t.Fatalf("silent relays made circuits late after %v", b.late)
	}
	for i := range recentLate + 1 {
		if !b.known() {
			t.Fatalf("forgotten after %d late circuits", i)
		}
		b.whole(9*time.Second, true)
	}
	if b.known() || b.late != 11*time.Second {
		t.Errorf("nearly all were late: known %v, late %v", b.known(), b.late)
	}
	for _, want := range []time.Duration{22, 44, 60, 60} {
		for range slowInARow {
			b.abandoned(b.giveUp, time.Second)
		}
		if b.giveUp != want*time.Second || b.late != b.giveUp || b.firstHop() <= DefaultLimits().BuildTime {
			t.Errorf("given up after %v, first hop %v, want %v s", b.giveUp, b.firstHop(), int(want))
		}
	}
	for range timesLeast {
		b.whole(100*time.Millisecond, false)
	}
	if b.late != time.Second || b.giveUp != 11*time.Second {
		t.Errorf("fast again: late %v, given up %v", b.late, b.giveUp)
	}
}

// TestASlowNetworkIsLearned: in a network in which a circuit takes longer than anybody waits at first, streams are served after
// a few attempts, and then without circuits for nothing; when it becomes fast again, that is learned too.
func TestASlowNetworkIsLearned(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{300 * time.Millisecond, 700 * time.Millisecond, time.Second} {
		w := newWorld(t, 3, 10, 4)
		w.f.Delay = delay
		w.echo(server)
		x := w.newClient(nil)
		var err error
		tries := 0
		for began := w.f.Now(); w.f.Now().Sub(began) < 10*time.Minute; tries++ {
			if err = x.carry(2*time.Minute, []byte("slow")); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("%v: %v; %+v", delay, err, x.c.Stats())
		}
		t.Logf("%v a way: served at attempt %d, after %v", delay, tries+1, time.Duration(w.f.Now()))
		for !x.c.times.known() && w.f.Now() < 1<<42 {
			w.f.Do(x.c.NewIdentity)
			w.f.Run(time.Minute)
		}
		before := x.c.Stats()
		served := 0
		for range 20 {
			w.f.Do(x.c.NewIdentity)
			w.f.Run(time.Minute)
			if x.carry(time.Minute, []byte("learned")) == nil {
				served++
			}
		}
		after := x.c.Stats()
		built, failed := after.Built-before.Built, after.Failed-before.Failed
		t.Logf("%v a way: late after %v; then %d of 20 served, %d circuits built, %d failed", delay, x.c.times.late, served, built, failed)
		if served != 20 || failed*10 > built {
			t.Errorf("%v a way: %d of 20 served, %d circuits built, %d failed", delay, served, built, failed)
		}
		w.f.Delay = 5 * time.Millisecond
		for range 100 {
			w.f.Do(x.c.NewIdentity)
			w.f.Run(10 * time.Second)
		}
		if x.c.times.late > 2*time.Second {
			t.Errorf("fast again, but late after %v only", x.c.times.late)
		}
		if g := x.c.guards.primary[0]; g.state != guardUp || g.failures > 0 {
			t.Errorf("%v a way: the first guard is in state %d with %d failures", delay, g.state, g.failures)
		}
		x.quiet(t)
	}
}

// TestASlowNetworkNeedsLearning: with patience that does not grow, the same network serves nobody.
func TestASlowNetworkNeedsLearning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 10, 4)
	w.f.Delay = time.Second
	w.echo(server)
	x := w.newClient(func(c *Config) { c.Limits.GiveUpMost = c.Limits.wholeTime() })
	for range 3 {
		if err := x.carry(2*time.Minute, []byte("slow")); err == nil {
			t.Fatal("served: the other test shows nothing")
		}
	}
}

func FuzzDecodeTimes(f *testing.F) {
	network := cert.NetworkID{7}
	for _, times := range [][]time.Duration{nil, {time.Second}, slices.Repeat([]time.Duration{time.Hour}, timesKept)} {
		data, err := encodeTimes(times, network)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		times, err := decodeTimes(data, network)
		if err != nil {
			if !errors.Is(err, errTimes) {
				t.Error(err)
			}
			return
		}
		again, err := encodeTimes(times, network)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x became %x, %v", data, again, err)
		}
	})
}
