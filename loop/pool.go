package loop

import (
	"sync"
	"sync/atomic"
)

// pool implements env.Pool with a fixed number of workers, started when there is work for them.
type pool struct {
	l           *Loop
	size        int
	outstanding atomic.Int64

	mu      sync.Mutex
	more    sync.Cond // jobs or stopped
	jobs    []job
	idle    int
	workers int
	stopped bool
	wait    sync.WaitGroup
}

type job struct{ work, done func() }

func newPool(l *Loop, size int) *pool {
	p := &pool{l: l, size: size}
	p.more.L = &p.mu
	return p
}

// Offload runs work in a worker and posts done, in the order in which jobs end.
func (p *pool) Offload(work, done func()) {
	p.outstanding.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, job{work, done})
	if p.idle < len(p.jobs) && p.workers < p.size && !p.stopped {
		p.workers++
		p.wait.Add(1)
		go p.worker()
	}
	p.more.Signal()
}

func (p *pool) worker() {
	defer p.wait.Done()
	for {
		j, ok := p.next()
		if !ok {
			return
		}
		j.work()
		p.outstanding.Add(-1)
		p.l.Post(j.done)
	}
}

func (p *pool) next() (job, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.jobs) == 0 && !p.stopped {
		p.idle++
		p.more.Wait()
		p.idle--
	}
	if p.stopped {
		return job{}, false
	}
	j := p.jobs[0]
	p.jobs[0] = job{}
	p.jobs = p.jobs[1:]
	return j, true
}

// stop forgets the jobs that have not begun and waits for those that have.
func (p *pool) stop() {
	p.mu.Lock()
	p.stopped = true
	p.jobs = nil
	p.more.Broadcast()
	p.mu.Unlock()
	p.wait.Wait()
}
