package envtest

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"cepa/env"
)

func testFrozen(s *suite) {
	c := s.w.Env.Clock
	check := func() {
		now, wall := c.Now(), c.Wall()
		time.Sleep(2 * time.Millisecond) // real time passes; the node's must not
		if got := c.Now(); got != now {
			s.Errorf("Now moved by %v during an event", got.Sub(now))
		}
		if got := c.Wall(); !got.Equal(wall) {
			s.Errorf("Wall moved by %v during an event", got.Sub(wall))
		}
		if wall.IsZero() {
			s.Error("Wall is the zero time")
		}
	}
	var fired atomic.Bool
	s.do(func() {
		check()
		c.AfterFunc(0, func() { s.event(func() { check(); fired.Store(true) }) })
	})
	s.await("a timer", fired.Load)
}

func testMonotonic(s *suite) {
	c := s.w.Env.Clock
	var last env.Mono
	s.do(func() { last = c.Now() })
	for i := range 50 {
		if i%5 == 0 {
			s.settle(time.Millisecond)
		}
		s.do(func() {
			now := c.Now()
			if now < last {
				s.Errorf("Now went back by %v", last.Sub(now))
			}
			if i%5 == 0 && now.Sub(last) < time.Millisecond {
				s.Errorf("Now moved by %v while a timer of a millisecond ran", now.Sub(last))
			}
			last = now
		})
	}
}

func testTimerOrder(s *suite) {
	c := s.w.Env.Clock
	var got []int
	var fired atomic.Int32
	s.do(func() {
		for i, ms := range []int{30, 10, 20, 10, 0, 30, -5, 0, 20} {
			c.AfterFunc(time.Duration(ms)*time.Millisecond, func() {
				s.event(func() { got = append(got, i); fired.Add(1) })
			})
		}
	})
	s.await("nine timers", func() bool { return fired.Load() == 9 })
	s.do(func() {
		if want := []int{4, 6, 7, 1, 3, 2, 8, 0, 5}; !slices.Equal(got, want) {
			s.Errorf("timers ran in the order %v, want %v", got, want)
		}
	})
}

func testTimerTime(s *suite) {
	c := s.w.Env.Clock
	var fired atomic.Int32
	s.do(func() {
		for _, d := range []time.Duration{-time.Hour, 0, time.Nanosecond, time.Millisecond, 25 * time.Millisecond} {
			start := c.Now()
			c.AfterFunc(d, func() { // s.event sees it when this runs inside AfterFunc
				s.event(func() {
					if passed := c.Now().Sub(start); passed < d {
						s.Errorf("a timer of %v fired after %v", d, passed)
					}
					fired.Add(1)
				})
			})
		}
		if n := fired.Load(); n != 0 {
			s.Errorf("%d timers fired inside AfterFunc", n)
		}
	})
	s.await("five timers", func() bool { return fired.Load() == 5 })
}

func testTimerStop(s *suite) {
	c := s.w.Env.Clock
	never := func() { s.Error("a stopped timer fired") }
	s.do(func() {
		a := c.AfterFunc(time.Millisecond, never)
		if !a.Stop() {
			s.Error("Stop of a running timer says false")
		}
		if a.Stop() {
			s.Error("Stop of a stopped timer says true")
		}
		// The time of both has come when the first runs.
		var late env.Timer
		c.AfterFunc(5*time.Millisecond, func() {
			s.event(func() {
				if !late.Stop() {
					s.Error("Stop of a timer that is due and has not run says false")
				}
			})
		})
		late = c.AfterFunc(5*time.Millisecond, never)
		c.AfterFunc(-time.Hour, never).Stop()
	})
	s.settle(20 * time.Millisecond)
	var fired env.Timer
	s.do(func() { fired = c.AfterFunc(0, func() { s.event(func() {}) }) })
	s.settle(5 * time.Millisecond)
	s.do(func() {
		if fired.Stop() {
			s.Error("Stop of a fired timer says true")
		}
	})
}

func testTimerReset(s *suite) {
	c := s.w.Env.Clock
	var order []string
	var timer env.Timer
	add := func(name string) func() {
		return func() { s.event(func() { order = append(order, name) }) }
	}
	s.do(func() {
		timer = c.AfterFunc(time.Hour, add("reset"))
		c.AfterFunc(10*time.Millisecond, add("first"))
		timer.Reset(10 * time.Millisecond) // running: later than "first", as it was scheduled later
		c.AfterFunc(10*time.Millisecond, add("last"))
	})
	s.settle(30 * time.Millisecond)
	s.do(func() { timer.Reset(time.Millisecond) }) // fired
	s.settle(10 * time.Millisecond)
	s.do(func() {
		timer.Reset(time.Millisecond)
		timer.Stop()
	})
	s.settle(10 * time.Millisecond)
	s.do(func() { timer.Reset(-time.Hour) }) // stopped
	s.settle(10 * time.Millisecond)
	s.do(func() {
		got, want := strings.Join(order, " "), "first reset last reset reset"
		if got != want {
			s.Errorf("timers ran as %q, want %q", got, want)
		}
	})
	// A timer that sets itself again from its own call.
	var ticks atomic.Int32
	s.do(func() {
		timer = c.AfterFunc(time.Millisecond, func() {
			s.event(func() {
				if ticks.Add(1) < 5 {
					timer.Reset(time.Millisecond)
				}
			})
		})
	})
	s.await("a timer to fire that resets itself", func() bool { return ticks.Load() >= 5 })
	s.settle(10 * time.Millisecond)
	if n := ticks.Load(); n != 5 {
		s.Errorf("a timer that was reset four times fired %d times", n)
	}
}

func testTimerStarve(s *suite) {
	c := s.w.Env.Clock
	var rounds atomic.Int32
	var again func()
	again = func() {
		s.event(func() {
			if rounds.Add(1) < 1000 {
				c.AfterFunc(0, again)
			}
		})
	}
	s.do(func() { c.AfterFunc(0, again) })
	s.do(func() {}) // comes to run among them
	s.await("a thousand timers of zero", func() bool { return rounds.Load() == 1000 })
}

func testRand(s *suite) {
	r := s.w.Env.Rand
	s.do(func() {
		seen := map[string]bool{}
		for _, n := range []int{0, 1, 31, 32, 1000, 5000, 100000} {
			b := make([]byte, n)
			if got, err := r.Read(b); got != n || err != nil {
				s.Errorf("Read of %d bytes: %d, %v", n, got, err)
			}
			if n < 1000 {
				continue
			}
			for i := 0; i+16 <= n; i += 16 {
				block := string(b[i : i+16])
				if seen[block] {
					s.Error("16 random bytes came twice")
				}
				seen[block] = true
			}
		}
		numbers := map[uint64]bool{}
		for range 1000 {
			numbers[r.Uint64()] = true
		}
		if len(numbers) != 1000 {
			s.Errorf("a thousand random numbers are only %d different ones", len(numbers))
		}
	})
}

func testPool(s *suite) {
	const jobs = 100
	results := make([]int, jobs)
	var done atomic.Int32
	s.do(func() {
		for i := range jobs {
			var result int
			s.w.Env.Pool.Offload(func() { result = i * i }, func() {
				s.event(func() {
					results[i] = result
					done.Add(1)
				})
			})
		}
		if n := done.Load(); n != 0 {
			s.Errorf("%d jobs were done inside Offload", n)
		}
	})
	s.await("a hundred jobs", func() bool { return done.Load() == jobs })
	s.do(func() {
		for i, r := range results {
			if r != i*i {
				s.Errorf("done of job %d ran before its work, or twice", i)
			}
		}
	})
}

// save saves and waits.
func (s *suite) save(name string, data []byte) (err error) {
	s.Helper()
	var done atomic.Bool
	s.do(func() {
		s.w.Env.Store.Save(name, data, func(e error) { s.event(func() { err = e; done.Store(true) }) })
		if done.Load() {
			s.Error("done was called inside Save")
		}
	})
	s.await("a save", done.Load)
	return err
}

func (s *suite) wantBlob(store env.Store, name string, want []byte) {
	s.Helper()
	s.do(func() {
		got, err := store.Load(name)
		if err != nil || !bytes.Equal(got, want) {
			s.Errorf("Load(%q) gives %d bytes, %v; want the %d saved", name, len(got), err, len(want))
		}
		clear(got) // the caller's own
	})
}

func testStore(s *suite) {
	store := s.w.Env.Store
	s.do(func() {
		if _, err := store.Load("nothing"); !errors.Is(err, fs.ErrNotExist) {
			s.Errorf("Load of what was never saved: %v, want fs.ErrNotExist", err)
		}
	})
	blobs := map[string][]byte{
		"a": {}, "0": []byte("zero"), "identity.key": pattern(1, 32), strings.Repeat("x-9.", 15) + "last": pattern(2, 300_000),
	}
	for name, data := range blobs {
		if err := s.save(name, data); err != nil {
			s.Errorf("Save(%q): %v", name, err)
		}
	}
	for range 2 {
		for name, data := range blobs {
			s.wantBlob(store, name, data)
		}
	}
	for _, name := range []string{"", "A", "a/b", "..", ".", "a\x00", "ä", "a b", `a\b`, "a_b", strings.Repeat("x", 65)} {
		if err := s.save(name, []byte("x")); err == nil {
			s.Errorf("Save(%q) succeeded", name)
		}
		s.do(func() {
			if _, err := store.Load(name); err == nil {
				s.Errorf("Load(%q) succeeded", name)
			}
		})
	}
}

func testStoreOrder(s *suite) {
	store := s.w.Env.Store
	var dones atomic.Int32
	s.do(func() {
		for i := range 20 {
			data := []byte{byte(i)}
			store.Save("name", data, func(err error) {
				s.event(func() {
					if n := dones.Add(1); err != nil || int(n) != i+1 {
						s.Errorf("done of save %d came as number %d: %v", i, n, err)
					}
				})
			})
			data[0] = 0xff
			store.Save("other", []byte{byte(i)}, nil)
		}
	})
	s.await("20 saves", func() bool { return dones.Load() == 20 })
	if err := s.save("last", nil); err != nil {
		s.Error(err)
	}
	s.wantBlob(store, "name", []byte{19})
	s.wantBlob(store, "other", []byte{19})
	s.wantBlob(store, "last", nil)
}

func testStoreReopen(s *suite) {
	data := pattern(3, 5000)
	if err := errors.Join(s.save("kept", []byte("old")), s.save("kept", data)); err != nil {
		s.Fatal(err)
	}
	store := s.w.Reopen()
	if got, err := store.Load("kept"); err != nil || !bytes.Equal(got, data) {
		s.Errorf("after a restart Load gives %d bytes, %v; want the %d saved", len(got), err, len(data))
	}
}
