package node

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"cepa/directory"
	"cepa/env"
	"cepa/env/envtest"
)

// jumping is a clock whose civil time somebody sets.
type jumping struct {
	env.Clock
	by *time.Duration
}

func (j jumping) Wall() time.Time { return j.Clock.Wall().Add(*j.by) }

// clockLimit is how soon a client works again after its clock was set right.
const clockLimit = 10 * time.Second

// newClockWorld is a network with intervals of an hour, and a client whose clock is wrong by what is returned.
func newClockWorld(t *testing.T, seed uint64, wrong time.Duration) (*world, *time.Duration) {
	t.Helper()
	w := newWorldWith(t, seed, 5, nil, directory.Parameters{directory.IntervalMillis: 3_600_000, directory.KeepaliveMillis: 5000, directory.MinRelays: 3})
	w.serve("93.184.216.34:80", "answer")
	w.f.Hosts["host.example"] = []netip.Addr{netip.MustParseAddr("93.184.216.34")}
	w.f.Run(time.Minute)
	by := new(time.Duration)
	*by = wrong
	host := w.f.Client("client")
	host.Env.Clock = jumping{host.Env.Clock, by}
	w.join()
	return w, by
}

// TestClientAfterItsClockJumped: a client whose clock jumps, and is set right later, works within ten seconds of that; a
// request that waited meanwhile does too; and as long as the clock is wrong by no more than the consensus allows, it works.
func TestClientAfterItsClockJumped(t *testing.T) {
	t.Parallel()
	w, by := newClockWorld(t, 70, 0)
	if !w.f.RunUntil(30*time.Second, func() bool { return w.ready > 0 }) {
		t.Fatalf("not ready: %v", w.steps)
	}
	try := func(when string, limit time.Duration) error {
		w.isolation = when
		start := w.f.Now()
		got, err := w.download("host.example", 80, limit)
		t.Logf("%s: %q, %v after %v", when, got, err, w.f.Now().Sub(start))
		if err == nil && got != "answer" {
			err = fmt.Errorf("%q", got)
		}
		return err
	}
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -400 * 24 * time.Hour} {
		*by = jump
		err := try(fmt.Sprintf("%v wrong", jump), clockLimit)
		if jump.Abs() <= time.Hour && err != nil {
			t.Errorf("a clock that is wrong by %v: %v", jump, err)
		}
		w.f.Run(10 * time.Minute)
		waiting := &envtest.ConnProbe{}
		w.isolation = fmt.Sprintf("waits through %v", jump)
		w.open("host.example", 80, waiting)
		w.f.Run(20 * time.Second)
		*by = 0
		set := w.f.Now()
		if !w.f.RunUntil(clockLimit, func() bool { return string(waiting.State().Received) == "answer" }) {
			t.Errorf("%v after a jump by %v was undone, a request that waited has no answer: %v", clockLimit, jump, waiting.State().Reason)
		}
		t.Logf("back from %v: the waiting one after %v", jump, w.f.Now().Sub(set))
		if err := try(fmt.Sprintf("back from %v", jump), clockLimit); err != nil {
			t.Errorf("back from %v: %v", jump, err)
		}
	}
}

// TestClientThatStartedWithAWrongClock: it is ready ten seconds after its clock was set right.
func TestClientThatStartedWithAWrongClock(t *testing.T) {
	t.Parallel()
	for i, wrong := range []time.Duration{3 * 24 * time.Hour, -3 * 365 * 24 * time.Hour} {
		w, by := newClockWorld(t, 80+uint64(i), wrong)
		w.f.Run(19*time.Minute + time.Duration(i)*3*time.Minute)
		if w.ready > 0 {
			t.Fatalf("ready with a clock that is wrong by %v", wrong)
		}
		t.Log(w.steps[len(w.steps)-1])
		*by = 0
		set := w.f.Now()
		if !w.f.RunUntil(clockLimit, func() bool { return w.ready > 0 }) {
			t.Errorf("%v: %v after the clock was set it is not ready: %v", wrong, clockLimit, w.steps[len(w.steps)-3:])
		}
		t.Logf("%v: ready %v after the clock was set", wrong, w.f.Now().Sub(set))
	}
}
