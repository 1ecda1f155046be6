// Package parallel lets a simulation use more than one processor, without its result depending on that: a Pool makes
// the computations that nodes hand to env.Pool, such as public-key handshakes, while the world goes on with events
// before their end.
//
// Nothing here knows of time or order. A world starts a computation when a node offloads it and finishes it in the event
// in which its virtual time has passed, whoever has made it by then; so the run is the same with a Pool and without,
// and whatever the number of workers. Computations must be pure, as env.Pool asks of them: the daemon makes them in
// goroutines of their own too.
//
// Nothing of a Pool is called by two goroutines at once: it belongs to one world. A Memo may be used by all that a world
// computes at the same time.
package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Pool is a number of goroutines that compute. They are there while there is work and shortly after, so nobody needs to
// end them.
type Pool struct {
	most    int
	waiting atomic.Int64 // jobs in the queue
	rest    atomic.Int64 // nobody looks for work until then, ns since begun

	mu      sync.Mutex
	queue   []*job // from head on; those before have been taken
	head    int
	workers int // that run
}

// watch is for how long a worker without work looks for some before it ends. To wake a processor that sleeps takes about
// as long as a handshake, in a virtual machine above all, and by then the world has made it itself: with workers that
// ended at once, it made three of four.
const watch = 5 * time.Millisecond

// rest is for how long no worker looks for work after others had some for the processor. The collector of garbage does,
// foremost: it makes all it can where nobody runs, and a quarter of that elsewhere, and while it is at work the world is
// slower.
const rest = 50 * time.Millisecond

var begun = time.Now()

// job is one computation. Who gets to take it makes it: a worker, or who wants the result before one has begun.
type job struct {
	work  func()
	taken atomic.Bool
	made  atomic.Bool
	fault any // what work panicked with
}

// New makes a pool of at most so many workers; 0 is one less than the processors that Go may use, because the world
// itself needs one, and less is none. A pool without workers makes everything when it is wanted.
func New(workers int) *Pool {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0) - 1
	}
	return &Pool{most: workers}
}

// Start has work made soon. The function that it returns waits until it is, or makes it if nobody has begun; it panics
// with what work has panicked with. It is called once, or never if nobody wants the result.
func (p *Pool) Start(work func()) (finish func()) {
	if p.most <= 0 {
		return work
	}
	j := &job{work: work}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, j)
	p.waiting.Add(1)
	if p.workers < min(p.most, len(p.queue)-p.head) {
		p.workers++
		go p.worker()
	}
	return j.finish
}

func (p *Pool) worker() {
	for j := p.next(); j != nil; j = p.next() {
		if j.taken.CompareAndSwap(false, true) {
			j.make()
		}
	}
}

// next is the first job in the queue, now or soon; when there is none for long it is nil, and the worker that asked is
// one no more.
func (p *Pool) next() *job {
	if p.rest.Load() < int64(time.Since(begun)) {
		if _, crowded := spin(func() bool { return p.waiting.Load() > 0 }, watch); crowded {
			p.rest.Store(int64(time.Since(begun) + rest))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
		p.workers--
		return nil
	}
	j := p.queue[p.head]
	p.queue[p.head] = nil
	p.head++
	p.waiting.Add(-1)
	if p.head > 64 && p.head > len(p.queue)/2 {
		n := copy(p.queue, p.queue[p.head:])
		clear(p.queue[n:])
		p.queue, p.head = p.queue[:n], 0
	}
	return j
}

func (j *job) make() {
	defer j.made.Store(true)
	defer func() { j.fault = recover() }()
	j.work()
	j.work = nil
}

// finish does not sleep while another makes the job: that takes less long than being woken.
func (j *job) finish() {
	if j.taken.CompareAndSwap(false, true) {
		j.make()
	}
	for made := false; !made; {
		made, _ = spin(j.made.Load, watch)
	}
	if j.fault != nil {
		panic(j.fault)
	}
}

// spin waits until cond holds, which it reports, for about most. It lets go of the processor now and then, but does
// not sleep. It gives up early when others had work for the processor.
func spin(cond func() bool, most time.Duration) (holds, crowded bool) {
	const each, short = 50 * time.Microsecond, 20 * time.Microsecond
	for end := time.Now().Add(most); ; {
		for turn := time.Now(); ; {
			for range 64 { // reading the clock takes more of the processor than this
				if cond() {
					return true, false
				}
			}
			if time.Since(turn) > each {
				break
			}
		}
		before := time.Now()
		if before.After(end) {
			return false, false
		}
		if runtime.Gosched(); time.Since(before) > short {
			return false, true
		}
	}
}
