package loop

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cepa/env"
)

func TestPostKeepsOrderOfEachPoster(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	const posters, posts = 8, 5000
	var next [posters]int
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range posts {
				if !l.Post(func() {
					if next[p] != i {
						t.Errorf("poster %d: event %d ran in place of %d", p, i, next[p])
					}
					next[p]++
				}) {
					t.Error("Post was refused by a running loop")
				}
			}
		})
	}
	wg.Wait()
	do(t, l, func() {
		for p, n := range next {
			if n != posts {
				t.Errorf("poster %d: %d events of %d ran", p, n, posts)
			}
		}
	})
}

// A wake-up that is lost would leave an event waiting for the next one.
func TestNoPostIsSleptThrough(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	for i := range 5000 {
		if i%3 == 0 {
			do(t, l, func() { l.Env().Clock.AfterFunc(time.Duration(i%7)*50*time.Microsecond, func() {}) })
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := l.Do(ctx, func() {}); err != nil {
			t.Fatalf("event %d did not run: %v", i, err)
		}
		cancel()
	}
}

func TestStopRunsWhatWasPostedAndTakesNoMore(t *testing.T) {
	t.Parallel()
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ran atomic.Int32
	block := make(chan struct{})
	l.Post(func() { <-block })
	for range 1000 {
		l.Post(func() { ran.Add(1) })
	}
	go l.Run()
	l.Post(func() { // stopping from inside an event does not block
		l.Stop()
		if l.Post(func() { t.Error("an event ran that was posted after Stop") }) {
			t.Error("Post says true after Stop")
		}
	})
	close(block)
	<-l.Done()
	if ran.Load() != 1000 {
		t.Errorf("%d of 1000 events ran that were posted before Stop", ran.Load())
	}
	if err := l.Do(context.Background(), func() {}); !errors.Is(err, ErrStopped) {
		t.Errorf("Do after Stop: %v, want ErrStopped", err)
	}
	l.Stop()
}

func TestStopWithoutRun(t *testing.T) {
	t.Parallel()
	l, err := New(Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	posted := make(chan error)
	go func() { posted <- l.Do(context.Background(), func() { t.Error("an event ran without Run") }) }()
	for l.Stats().Queued == 0 {
		time.Sleep(100 * time.Microsecond)
	}
	l.Stop()
	<-l.Done()
	if err := <-posted; !errors.Is(err, ErrStopped) {
		t.Errorf("Do: %v, want ErrStopped", err)
	}
	l.Run() // returns
}

// After a Do that has given up the function does not run: what it refers to may be gone.
func TestDoThatGivesUpDoesNotRunLater(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	block := make(chan struct{})
	l.Post(func() { <-block })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Do(ctx, func() { t.Error("the function runs after all") }); !errors.Is(err, context.Canceled) {
		t.Errorf("Do: %v, want context.Canceled", err)
	}
	close(block)
	do(t, l, func() {})
}

func TestHooksRunAfterEachBatchInOrder(t *testing.T) {
	t.Parallel()
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var events, seen int
	var order []byte
	l.AfterBatch(func() { order = append(order, 'a') })
	l.AfterBatch(func() {
		order = append(order, 'b')
		if events-seen > maxBatch {
			t.Errorf("%d events ran between two calls of a hook, want at most %d", events-seen, maxBatch)
		}
		seen = events
	})
	for range 10 * maxBatch {
		l.Post(func() { events++ })
	}
	go l.Run()
	do(t, l, func() {})
	l.Stop()
	<-l.Done()
	if seen != events || events != 10*maxBatch {
		t.Errorf("hooks saw %d of %d events", seen, events)
	}
	for i, c := range order {
		if c != "ab"[i%2] {
			t.Fatalf("hooks ran in the order %s", order)
		}
	}
	if s := l.Stats(); s.Batches < 10 || s.LargestBatch > maxBatch || s.Events < 10*maxBatch {
		t.Errorf("counters: %+v", s)
	}
}

// Timers are kept in the loop: ten thousand cost no goroutine, and those stopped are gone.
func TestTimersCostNoGoroutine(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	var fired int
	do(t, l, func() {
		var all []env.Timer
		for range 10_000 {
			all = append(all, l.Env().Clock.AfterFunc(time.Hour, func() { fired++ }))
		}
		for i, timer := range all {
			if i%2 == 0 {
				timer.Stop()
			} else {
				timer.Reset(0)
			}
		}
	})
	if !wait(10*time.Second, func() bool { return l.Stats().Timers == 0 }) {
		t.Errorf("%d timers are left", l.Stats().Timers)
	}
	do(t, l, func() {
		if fired != 5000 {
			t.Errorf("%d timers fired, want 5000", fired)
		}
	})
}

func TestStatsTellOfLongEvents(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	do(t, l, func() { time.Sleep(20 * time.Millisecond) })
	do(t, l, func() {})
	if s := l.Stats(); s.LongestEvent < 20*time.Millisecond || s.Events < 2 || s.Goroutines < 2 {
		t.Errorf("counters: %+v", s)
	}
}

func TestPoolRunsSizeJobsAtATimeAndStopWaits(t *testing.T) {
	t.Parallel()
	l, err := New(Options{PoolSize: 3})
	if err != nil {
		t.Fatal(err)
	}
	go l.Run()
	var running, most, ended atomic.Int32
	release := make(chan struct{})
	do(t, l, func() {
		for range 20 {
			l.Env().Pool.Offload(func() {
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-release
				running.Add(-1)
				ended.Add(1)
			}, func() { t.Error("done runs although the loop was stopped before") })
		}
	})
	if !wait(10*time.Second, func() bool { return running.Load() == 3 }) {
		t.Fatalf("%d jobs run at a time, want 3", running.Load())
	}
	l.Stop()
	select {
	case <-l.Done():
		t.Error("the loop ended while jobs were running")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	<-l.Done()
	if most.Load() != 3 || ended.Load() != 3 {
		t.Errorf("at most %d jobs ran at a time and %d ended, want 3 and 3", most.Load(), ended.Load())
	}
}

func BenchmarkPost(b *testing.B) {
	l := start(b, Options{})
	f := func() {}
	b.ReportAllocs()
	for b.Loop() {
		l.Post(f)
	}
}

// One event there and back: what a hand-over to an idle loop costs.
func BenchmarkDo(b *testing.B) {
	l := start(b, Options{})
	f := func() {}
	for b.Loop() {
		_ = l.Do(context.Background(), f)
	}
}

func BenchmarkTimer(b *testing.B) {
	l := start(b, Options{})
	do(b, l, func() {
		c := l.Env().Clock
		for range 10_000 {
			c.AfterFunc(time.Hour, func() {})
		}
		timer := c.AfterFunc(time.Hour, func() {})
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			timer.Reset(time.Minute + time.Duration(i%1000)*time.Second)
		}
	})
}
