package parallel

import (
	"crypto/sha256"
	"sync/atomic"
	"testing"
)

// TestResultsDoNotDependOnWorkers: each computation is made once, whoever makes it, and is done when it is finished.
func TestResultsDoNotDependOnWorkers(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{-1, 0, 1, 3} {
		p := New(workers)
		const jobs = 500
		var sums [jobs][32]byte
		var made [jobs]atomic.Int32
		finish := make([]func(), jobs)
		for i := range jobs {
			finish[i] = p.Start(func() {
				made[i].Add(1)
				sums[i] = sha256.Sum256([]byte{byte(i), byte(i >> 8)})
			})
			if i%3 == 0 { // some at once, most late
				finish[i]()
			}
		}
		for i := range jobs {
			if i%3 != 0 {
				finish[i]()
			}
			if made[i].Load() != 1 || sums[i] != sha256.Sum256([]byte{byte(i), byte(i >> 8)}) {
				t.Fatalf("%d workers: computation %d was made %d times", workers, i, made[i].Load())
			}
		}
	}
}

// TestPanicsReachWhoFinishes: a panic in a computation ends the world and not a goroutine that nobody looks at.
func TestPanicsReachWhoFinishes(t *testing.T) {
	t.Parallel()
	p := New(1)
	for range 100 {
		finish := p.Start(func() { panic("broken") })
		func() {
			defer func() {
				if x := recover(); x != "broken" {
					t.Errorf("finish panicked with %v", x)
				}
			}()
			finish()
			t.Error("finish returned")
		}()
	}
}

// TestWorkersEndWithoutWork: a pool that is forgotten leaves no goroutine behind.
func TestWorkersEndWithoutWork(t *testing.T) {
	t.Parallel()
	p := New(2)
	var finish []func()
	for range 50 {
		finish = append(finish, p.Start(func() {}))
	}
	for _, f := range finish {
		f()
	}
	for { // they have no more to do
		p.mu.Lock()
		n := p.workers
		p.mu.Unlock()
		if n == 0 {
			return
		}
	}
}
