// Package loop is the daemon's world: it implements package env for one node with
// goroutines, sockets, files and real time.
//
// A Loop runs the events of an actor one after the other, in the goroutine that called Run.
// Around it are a reader and a writer goroutine for each connection, goroutines for dials and
// look-ups (bounded), a few workers for pure computations, and one that saves files; each hands
// what it has to the loop with Post. Nothing here knows what a cell or a circuit is, and no
// protocol decision is made: links are package link's, which stands on a Loop, listens and fills
// in env.Env.Dialer.
//
// Concurrency: Post, Do, Adopt, Stop, Done and Stats may be called from any goroutine. What
// Env returns belongs to the actor: it is used inside events, or before Run is called. AfterBatch
// is called before Run.
//
// A panic in a handler is a bug of ours and is not caught: the process ends with its stack.
package loop

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"cepa/env"
	"cepa/internal/procs"
)

// ErrStopped says that the loop was stopped before it could do what was asked.
var ErrStopped = errors.New("the loop has stopped")

// maxBatch bounds the events of one batch, so that timers and AfterBatch hooks are never kept
// waiting behind a long queue.
const maxBatch = 256

// Resolver is what the loop needs of a *net.Resolver.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// Options says what a Loop is made of. The zero value is of use: a loop that logs nothing and
// keeps its blobs in memory.
type Options struct {
	Log      *slog.Logger
	StateDir string   // where Store keeps its files, made if missing; "" keeps blobs in memory
	Resolver Resolver // default net.DefaultResolver
	// LocalAddr4 and LocalAddr6 are the addresses that exit connections come from; the system
	// chooses where they are invalid.
	LocalAddr4, LocalAddr6 netip.Addr
	PoolSize               int // workers of Pool, default: one for each processor
}

// Loop is one actor's event loop and environment.
type Loop struct {
	log     *slog.Logger
	start   time.Time
	hooks   []func()
	env     env.Env
	pool    *pool
	store   store
	network *network

	// Posting.
	mu      sync.Mutex
	queue   []func()
	idle    bool // Run sleeps: wake it
	stopped bool // no more events are taken
	running bool
	wake    chan struct{}
	quit    context.Context // cancelled by Stop
	cancel  context.CancelFunc
	done    chan struct{}

	// Owned by the goroutine of Run.
	now    env.Mono // frozen while an event runs
	wall   time.Time
	timers timerHeap
	seq    uint64
	dirty  []*conn // written to in this batch

	connMu sync.Mutex
	conns  map[*conn]struct{}
	wait   sync.WaitGroup // goroutines of connections, dials and look-ups

	stats counters
}

type counters struct {
	events, batches           atomic.Uint64
	largestBatch, longestNano atomic.Int64
	timers                    atomic.Int64
}

// Stats are counters of a Loop since it was made, and what it holds now.
type Stats struct {
	Events, Batches uint64
	LargestBatch    int
	LongestEvent    time.Duration
	Queued          int // events waiting
	Timers          int // at the end of the last batch
	Conns           int // connections whose goroutines and descriptor are not yet gone
	Dials, Lookups  int // under way
	Offloaded       int // computations waiting or running
	Goroutines      int // of the whole process
}

// New makes a loop. It fails if the state directory cannot be made or another process uses it.
func New(opts Options) (*Loop, error) {
	l := &Loop{
		log:   opts.Log,
		start: time.Now(),
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
		conns: map[*conn]struct{}{},
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if opts.Resolver == nil {
		opts.Resolver = net.DefaultResolver
	}
	if opts.PoolSize <= 0 {
		opts.PoolSize = procs.All()
	}
	if opts.StateDir == "" {
		l.store = newMemoryStore(l)
	} else {
		s, err := openDirStore(l, opts.StateDir)
		if err != nil {
			return nil, err
		}
		l.store = s
	}
	l.quit, l.cancel = context.WithCancel(context.Background())
	l.pool = newPool(l, opts.PoolSize)
	l.network = &network{l: l, resolver: opts.Resolver, local4: opts.LocalAddr4, local6: opts.LocalAddr6}
	l.env = env.Env{
		Clock:   clock{l},
		Rand:    &random{},
		Log:     l.log,
		Network: l.network,
		Pool:    l.pool,
		Store:   l.store,
	}
	return l, nil
}

// Env is the actor's environment. Its Dialer is nil: package link supplies it.
func (l *Loop) Env() env.Env { return l.env }

// AfterBatch makes Run call f after each batch of events, after the hooks registered before. f
// is the place to hand what a batch produced to writers, once. It may call what an event may.
func (l *Loop) AfterBatch(f func()) { l.hooks = append(l.hooks, f) }

// Post appends f to the events of the loop and returns at once. It reports false when the loop
// has been stopped: f is then never called.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.queue = append(l.queue, f)
	wake := l.idle
	l.idle = false
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{} // has room: only one Post finds the loop idle
	}
	return true
}

// Do runs f as an event and returns when it has run. It must not be called from an event. When
// ctx ends first, f is not called any more and the error is that of ctx; when the loop has been
// stopped, it is ErrStopped.
func (l *Loop) Do(ctx context.Context, f func()) error {
	var claimed atomic.Bool // by the event or by the caller who gave up
	ran := make(chan struct{})
	if !l.Post(func() {
		if claimed.CompareAndSwap(false, true) {
			f()
			close(ran)
		}
	}) {
		return ErrStopped
	}
	err := ErrStopped
	select {
	case <-ran:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-l.done:
	}
	if claimed.CompareAndSwap(false, true) {
		return err
	}
	<-ran
	return nil
}

// Run runs events until Stop is called, and then ends what the loop has started: it returns
// when that is over. It is called once.
func (l *Loop) Run() {
	l.mu.Lock()
	if l.running {
		l.mu.Unlock()
		panic("loop: Run is called twice")
	}
	l.running = true
	stopped := l.stopped
	l.mu.Unlock()
	if stopped {
		<-l.done
		return
	}
	sleep := time.NewTimer(time.Hour)
	defer sleep.Stop()
	var spare []func()
	for {
		events, idle, stopped := l.take(spare)
		if stopped {
			l.runBatches(events)
			break
		}
		if idle {
			sleep.Reset(l.untilNext())
			select {
			case <-l.wake:
			case <-sleep.C:
				l.awake()
			}
			spare = events
			continue
		}
		l.runBatches(events)
		spare = events
	}
	l.end()
}

// take gives the events posted until now, leaving spare for those to come. When there are none
// and no timer is due, the loop is idle: the next Post or Stop sends to wake, once.
func (l *Loop) take(spare []func()) (events []func(), idle, stopped bool) {
	due := l.due()
	l.mu.Lock()
	defer l.mu.Unlock()
	events = l.queue
	clear(spare)
	l.queue = spare[:0]
	l.idle = len(events) == 0 && !due && !l.stopped
	return events, l.idle, l.stopped
}

// awake ends a sleep that no Post has ended.
func (l *Loop) awake() {
	l.mu.Lock()
	posted := !l.idle
	l.idle = false
	l.mu.Unlock()
	if posted {
		<-l.wake
	}
}

// runBatches runs events, and the timers that are due, in batches of bounded length.
func (l *Loop) runBatches(events []func()) {
	for {
		n := min(len(events), maxBatch)
		l.batch(events[:n])
		events = events[n:]
		if len(events) == 0 {
			return
		}
	}
}

// batch runs timers, then events, then the hooks. The clock is read between any two events: an
// event sees it where the one before it ended.
func (l *Loop) batch(events []func()) {
	l.read()
	ran := len(events)
	last := l.seq
	for {
		f := l.nextTimer(last)
		if f == nil {
			break
		}
		l.event(f)
		ran++
	}
	for _, f := range events {
		l.event(f)
	}
	for _, f := range l.hooks {
		f()
	}
	for i, c := range l.dirty {
		c.flush()
		l.dirty[i] = nil
	}
	l.dirty = l.dirty[:0]
	l.stats.events.Add(uint64(ran))
	l.stats.batches.Add(1)
	l.stats.timers.Store(int64(len(l.timers)))
	if int64(ran) > l.stats.largestBatch.Load() {
		l.stats.largestBatch.Store(int64(ran))
	}
}

func (l *Loop) event(f func()) {
	began := l.now
	f()
	l.read()
	if took := int64(l.now - began); took > l.stats.longestNano.Load() {
		l.stats.longestNano.Store(took)
	}
}

// read moves the frozen clock.
func (l *Loop) read() {
	l.now = env.Mono(time.Since(l.start))
	l.wall = time.Time{}
}

// Stop asks the loop to end: events posted before still run, then connections are reset (those
// that were closed already get a second to write what they have), dials and look-ups are given
// up, computations under way are waited for, and saves are made. It does not wait: see Done.
func (l *Loop) Stop() {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return
	}
	l.stopped = true
	wake, running := l.idle, l.running
	l.idle = false
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	if !running {
		go l.end()
	}
}

// Done is closed when everything that the loop had started has ended.
func (l *Loop) Done() <-chan struct{} { return l.done }

// end stops what the loop has started, once nothing more can be posted.
func (l *Loop) end() {
	l.cancel()
	l.connMu.Lock()
	for c := range l.conns {
		c.abandon()
	}
	l.connMu.Unlock()
	l.pool.stop()
	l.wait.Wait()
	l.store.close()
	close(l.done)
}

// Stats may be called from any goroutine.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	queued := len(l.queue)
	l.mu.Unlock()
	l.connMu.Lock()
	conns := len(l.conns)
	l.connMu.Unlock()
	return Stats{
		Events:       l.stats.events.Load(),
		Batches:      l.stats.batches.Load(),
		LargestBatch: int(l.stats.largestBatch.Load()),
		LongestEvent: time.Duration(l.stats.longestNano.Load()),
		Queued:       queued,
		Timers:       int(l.stats.timers.Load()),
		Conns:        conns,
		Dials:        int(l.network.dials.Load()),
		Lookups:      int(l.network.lookups.Load()),
		Offloaded:    int(l.pool.outstanding.Load()),
		Goroutines:   runtime.NumGoroutine(),
	}
}

// untilNext is how long the loop may sleep.
func (l *Loop) untilNext() time.Duration {
	if len(l.timers) == 0 {
		return math.MaxInt64
	}
	return l.timers[0].at.Sub(env.Mono(time.Since(l.start)))
}
