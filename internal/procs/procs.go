// Package procs has the Go scheduler use as many processors as there is work for.
//
// Goroutines that hand each other work wake a thread on another processor each time one is free: the shorter wait is worth that
// on a machine with nothing else to do, but a wake-up costs more than the hand-over, in a virtual machine above all. A relay
// that is well below one processor's worth of work spends a fifth less on one than on two, and is no slower
// (docs/adr/0020-processors-by-load.md).
package procs

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// Times and shares of the rule.
const (
	tick     = 100 * time.Millisecond // between two looks
	rest     = time.Second            // the same of a process that does little
	little   = 0.05                   // processors
	full     = 0.8                    // of those in use, from which there are twice as many
	empty    = 0.6                    // of those that would be left, below which
	patience = 20                     // looks in a row take one away
)

var all = runtime.GOMAXPROCS(0)

// All is how many processors the process may use.
func All() int { return all }

var governed struct {
	sync.Mutex
	users int
	stop  chan struct{}
}

// Govern begins to follow the load, until stop is called; with several calls, until all of theirs are. It does nothing on a
// machine with one processor, where GOMAXPROCS is set in the environment, and where the system does not tell what was used.
func Govern() (stop func()) {
	g := &governed
	_, known := Used()
	if all == 1 || os.Getenv("GOMAXPROCS") != "" || !known {
		return func() {}
	}
	g.Lock()
	defer g.Unlock()
	if g.users++; g.users == 1 {
		g.stop = make(chan struct{})
		go govern(g.stop)
	}
	return sync.OnceFunc(func() {
		g.Lock()
		defer g.Unlock()
		if g.users--; g.users == 0 {
			close(g.stop)
		}
	})
}

func govern(stop <-chan struct{}) {
	defer runtime.GOMAXPROCS(all)
	r := rule{n: all, all: all}
	used, _ := Used()
	at := time.Now()
	for wait := tick; ; {
		select {
		case <-stop:
			return
		case <-time.After(wait):
		}
		now, _ := Used()
		then := time.Now()
		load := float64(now-used) / float64(max(then.Sub(at), 1))
		used, at = now, then
		if n := r.next(load); n != runtime.GOMAXPROCS(0) {
			runtime.GOMAXPROCS(n)
		}
		wait = tick
		if load < little {
			wait = rest
		}
	}
}

// rule says how many processors are in use.
type rule struct {
	n, all int
	low    int // looks in a row at which fewer would have done
}

// next is told how many processors' time was used since the last look.
func (r *rule) next(load float64) int {
	switch {
	case load > full*float64(r.n):
		r.n, r.low = min(2*r.n, r.all), 0
	case r.n > 1 && load < empty*float64(r.n-1):
		if r.low++; r.low >= patience || load < little {
			r.n, r.low = r.n-1, 0
		}
	default:
		r.low = 0
	}
	return r.n
}
