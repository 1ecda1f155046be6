package circuit

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"cepa/env"
)

type fetched struct {
	dones  int
	answer []byte
	err    error
	at     env.Mono
}

func (x *testClient) fetch(r *testRelay, request []byte, max int) *fetched {
	f := &fetched{}
	x.w.f.Do(func() {
		inside := true
		x.dir.Fetch(r.node.Target(), request, max, func(answer []byte, err error) {
			if inside {
				x.w.t.Error("done was called inside Fetch")
			}
			f.dones++
			f.answer, f.err, f.at = answer, err, x.w.f.Now()
		})
		inside = false
	})
	return f
}

func (w *world) until(t *testing.T, limit time.Duration, list ...*fetched) {
	t.Helper()
	if !w.f.RunUntil(limit, func() bool {
		for _, f := range list {
			if f.dones == 0 {
				return false
			}
		}
		return true
	}) {
		t.Fatal("a request has no outcome")
	}
}

// TestFetchesShareACircuit: requests come back whole and apart, over one circuit that is kept
// for 10 seconds.
func TestFetchesShareACircuit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 3, 1)
	x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
	r := w.relays[0]
	r.answer = func(request []byte) []byte { return bytes.Repeat(request, 200_000) }
	var list []*fetched
	for i := range 20 { // more than are served side by side
		list = append(list, x.fetch(r, []byte{byte(i)}, 200_000))
	}
	w.until(t, time.Minute, list...)
	for i, f := range list {
		if f.err != nil || !bytes.Equal(f.answer, bytes.Repeat([]byte{byte(i)}, 200_000)) {
			t.Errorf("request %d: %d bytes, %v", i, len(f.answer), f.err)
		}
	}
	w.f.Run(9 * time.Second)
	late := x.fetch(r, []byte{7}, 200_000)
	w.until(t, time.Minute, late)
	if n := r.relay.Stats().Handshakes; n != 1 || late.err != nil {
		t.Errorf("%d circuits for 21 requests, %v", n, late.err)
	}
	if x.dir.Circuits() != 1 {
		t.Errorf("%d circuits are kept", x.dir.Circuits())
	}
	w.f.Run(11 * time.Second)
	if x.dir.Circuits() != 0 || x.dir.Fetches() != 0 || r.relay.Stats().Circuits != 0 {
		t.Errorf("%d circuits and %d requests are left", x.dir.Circuits(), x.dir.Fetches())
	}
	if err := x.links.Check(); err != nil {
		t.Error(err)
	}
}

// TestFetchBounds: what is too long, too slow or too much ends with its own error, once.
func TestFetchBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 6, 1)
	x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
	long, exact, gone, vanished, empty, mute := w.relays[0], w.relays[1], w.relays[2], w.relays[3], w.relays[4], w.relays[5]
	long.answer = func([]byte) []byte { return make([]byte, 5001) }
	exact.answer = func([]byte) []byte { return make([]byte, 5000) }
	empty.answer = func([]byte) []byte { return nil }
	gone.node.Stop()
	vanished.node.Vanish(true)
	start := w.f.Now()
	ask := []byte("?")
	for name, c := range map[string]struct { // order: each has its own relay and outcome
		f    *fetched
		want error
		size int
		most time.Duration
	}{
		"too long":    {f: x.fetch(long, ask, 5000), want: ErrAnswerTooLong, most: time.Second},
		"just fits":   {f: x.fetch(exact, ask, 5000), size: 5000, most: time.Second},
		"empty":       {f: x.fetch(empty, ask, 5000), most: time.Second},
		"gone":        {f: x.fetch(gone, ask, 5000), want: errAny, most: time.Second},
		"vanished":    {f: x.fetch(vanished, ask, 5000), want: ErrFetchTimeout, most: 10 * time.Second},
		"no request":  {f: x.fetch(exact, nil, 5000), want: ErrRequestSize, most: time.Second},
		"big request": {f: x.fetch(exact, make([]byte, maxDirectoryRequest+1), 5000), want: ErrRequestSize, most: time.Second},
		"wrong relay": {f: x.fetch(&testRelay{w: w, node: w.f.Client("nobody")}, ask, 5000), want: errAny, most: time.Second},
	} {
		w.until(t, time.Minute, c.f)
		if c.want == errAny && c.f.err != nil {
			c.want = c.f.err
		}
		if !errors.Is(c.f.err, c.want) || len(c.f.answer) != c.size || c.f.dones != 1 {
			t.Errorf("%s: %d outcomes, %d bytes, %v", name, c.f.dones, len(c.f.answer), c.f.err)
		}
		if took := c.f.at.Sub(start); took > c.most+time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	// A relay that goes silent in the middle of an answer.
	mute.answer = func([]byte) []byte { return make([]byte, 4<<20) }
	w.f.Rate = 1 << 20
	f := x.fetch(mute, ask, 5<<20)
	w.f.Run(time.Second)
	mute.node.Vanish(true)
	w.until(t, 12*time.Second, f)
	if f.err == nil || f.dones != 1 {
		t.Errorf("silence in the middle: %d outcomes, %v", f.dones, f.err)
	}
	// More requests than there may be.
	var list []*fetched
	for range x.dir.limits.Fetches + 5 {
		list = append(list, x.fetch(vanished, ask, 10))
	}
	w.until(t, 2*time.Minute, list...)
	refused := 0
	for _, f := range list {
		if errors.Is(f.err, ErrTooManyFetches) {
			refused++
		}
		if f.dones != 1 || f.err == nil {
			t.Errorf("%d outcomes, %v", f.dones, f.err)
		}
	}
	if refused != 5 {
		t.Errorf("%d requests were too many, want 5", refused)
	}
	w.f.Run(2 * time.Minute)
	if x.dir.Fetches() != 0 || x.dir.Circuits() != 0 {
		t.Errorf("%d requests, %d circuits left", x.dir.Fetches(), x.dir.Circuits())
	}
}

var errAny = errors.New("any error")

// TestAKeptCircuitThatDiedIsReplaced: a relay may restart between two requests.
func TestAKeptCircuitThatDiedIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 3, 1)
	x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
	r := w.relays[0]
	first := x.fetch(r, []byte("a"), 100)
	w.until(t, time.Minute, first)
	r.node.Stop()
	r.start()
	second := x.fetch(r, []byte("b"), 100)
	w.until(t, time.Minute, second)
	if first.err != nil || second.err != nil {
		t.Errorf("%v, then %v", first.err, second.err)
	}
}

// TestFetchCircuitsAreBounded: the circuit idle for longest makes room; when all are in use,
// requests wait.
func TestFetchCircuitsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 40, 1)
	x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
	most := 0
	var list []*fetched
	for _, r := range w.relays {
		list = append(list, x.fetch(r, []byte("?"), 100))
	}
	w.f.RunUntil(time.Minute, func() bool {
		most = max(most, x.dir.Circuits())
		for _, f := range list {
			if f.dones == 0 {
				return false
			}
		}
		return true
	})
	for i, f := range list {
		if f.err != nil || f.dones != 1 {
			t.Errorf("request %d: %d outcomes, %v", i, f.dones, f.err)
		}
	}
	if most != x.dir.limits.Circuits {
		t.Errorf("%d circuits at once, want %d", most, x.dir.limits.Circuits)
	}
}

func TestCloseEndsFetches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, 3, 1)
	for _, when := range []time.Duration{0, 15 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond, 70 * time.Millisecond, time.Second} {
		x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
		f := x.fetch(w.relays[0], []byte("?"), 100)
		w.f.Run(when)
		before := f.dones
		w.f.Do(x.dir.Close)
		after := x.fetch(w.relays[0], []byte("?"), 100)
		w.f.Run(time.Minute)
		if f.dones != 1 || before == 0 && !errors.Is(f.err, ErrFetchClosed) {
			t.Errorf("closed after %v: %d outcomes, %v", when, f.dones, f.err)
		}
		if after.dones != 1 || !errors.Is(after.err, ErrFetchClosed) {
			t.Errorf("after that: %d outcomes, %v", after.dones, after.err)
		}
		w.f.Do(x.c.Close)
	}
}
