package simnet

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"cepa/cert"
	"cepa/circuit"
	"cepa/env"
	"cepa/flow"
	"cepa/node"
	"cepa/onion"
	"cepa/onion/standin"
	"cepa/simnet/baseline"
	"cepa/simnet/parallel"
)

// Epoch is the civil time at which a world begins unless its Config says otherwise.
var Epoch = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// Config is what a world begins with. The zero value is a world without distances whose seed is 0.
type Config struct {
	// Seed decides the whole run.
	Seed uint64
	// Streams has seeds for single streams of randomness, by their names, in place of Seed.
	Streams map[string]uint64
	// Epoch is the civil time at the beginning; zero is the package's Epoch.
	Epoch time.Time
	// Latency has the distances; nil is none at all.
	Latency *Latency
	// Log gives the log of a host; nil discards everything.
	Log func(host string) *slog.Logger
	// Last is how many of the last events a violation shows; 0 is 64.
	Last int
	// Defect is a bug that tests of checkers seed in every node; zero otherwise.
	Defect node.Defect
	// Crypto is the cryptography of circuits: Full, which is the default, or Fast. New panics for another.
	Crypto string
	// Flow is the rule for windows, one of FlowNames; empty is the first, cepa's own. New panics for another.
	Flow string
	// Unsent is how many bytes of a link the kernel of a node takes ahead of what TCP may send. 0 is what the daemon sets: 10 ms
	// of the link's rate, or 2 ms where that is 16 KiB or more, between 4 and 128 KiB.
	Unsent int
	// Workers are the goroutines beside the caller's that make what nodes offload; 0 is one for each processor but one,
	// and less is none. A run does not depend on them.
	Workers int
	// Forgetful has each node verify and read by itself what others have read before it. It takes longer and more memory;
	// a run does not depend on it.
	Forgetful bool
}

// Cryptography of circuits.
const (
	// Full is the protocol's own.
	Full = "full"
	// Fast puts package standin in its place: the same sizes, and no secrecy. Everything happens at the same times (see
	// World.TimingHash), with other bytes in cells.
	Fast = "fast"
)

// memoBytes is about how much is remembered of documents that were read.
const memoBytes = 256 << 20

// World is a network of machines on a virtual clock. See the package comment for the rule of
// concurrency: there is one goroutine.
type World struct {
	cfg     Config
	epoch   time.Time
	latency *Latency
	now     env.Mono
	queue   events
	inside  bool // an event is running
	events  uint64

	hosts   []*Host
	byName  map[string]*Host
	byAddr  map[netip.Addr]*Host
	names   map[string][]netip.Addr
	reverse map[netip.Addr][]string
	blocked map[[2]int32]bool // pairs of hosts, see Cut
	faulty  bool              // some path may be cut

	suite    onion.Suite // of circuits; nil is the protocol's
	rules    *flow.Rules // for windows; nil is the protocol's
	pool     *parallel.Pool
	memo     cert.Memo // nil when Forgetful
	buffers  buffers
	direct   segment // that is delivered as it arrives, see end.receive
	trace    trace
	checkers []Checker
	watch    watch
	found    []Violation
	networks []*Network
	rumours  rumourCache
	defects  defects

	inspectAt uint64 // number of the event after which OnInspect is due
	acted     *Host  // on which an event ran last
	calm      bool   // see Calm

	flows     []*Flow
	nextFlow  uint64
	openFlows int
	dropFlows bool
	onFlow    []func(*Flow)
	onCircuit []func(*Client, circuit.Event)

	samplers []*sampler
	sampleAt env.Mono                // when the next of them is due
	meters   map[[2]int32]*LinkMeter // by their hosts; nil while nobody asked
	metered  []*LinkMeter
}

// New makes an empty world at its beginning.
func New(cfg Config) *World {
	w := &World{
		cfg: cfg, epoch: cfg.Epoch, latency: cfg.Latency,
		byName: make(map[string]*Host), byAddr: make(map[netip.Addr]*Host),
		names: make(map[string][]netip.Addr), reverse: make(map[netip.Addr][]string),
		blocked: make(map[[2]int32]bool), sampleAt: maxMono,
	}
	if w.epoch.IsZero() {
		w.epoch = Epoch
	}
	if w.latency == nil {
		w.latency = &Latency{Regions: []string{"here"}, oneWay: [][]int64{{0}}}
	}
	if cfg.Last == 0 {
		w.cfg.Last = 64
	}
	switch cfg.Crypto {
	case "", Full:
		w.cfg.Crypto = Full
	case Fast:
		w.suite = standin.Suite{}
	default:
		panic(fmt.Sprintf("simnet: the cryptography %q is neither %q nor %q", cfg.Crypto, Full, Fast))
	}
	if cfg.Flow == "" {
		w.cfg.Flow = baseline.Credits
	} else if !baseline.Known(cfg.Flow) {
		panic(fmt.Sprintf("simnet: no rule for windows is called %q; there are %v", cfg.Flow, baseline.Names()))
	}
	w.rules = baseline.Rules(w.cfg.Flow)
	w.pool = parallel.New(cfg.Workers)
	if !cfg.Forgetful {
		w.memo = parallel.NewMemo(memoBytes)
	}
	w.trace.begin(w.cfg.Last)
	w.rumours.begin()
	return w
}

// Now is the time since the beginning.
func (w *World) Now() env.Mono { return w.now }

// Wall is the right civil time.
func (w *World) Wall() time.Time { return w.epoch.Add(time.Duration(w.now)) }

// Events is how many events have run.
func (w *World) Events() uint64 { return w.events }

// Pending is how many events are to happen, as far as that is known: some of them may have been put off or stopped.
func (w *World) Pending() int { return w.queue.size() }

// Run lets d pass: it runs all events until then.
func (w *World) Run(d time.Duration) {
	end := w.now.Add(d)
	for w.step(end) {
	}
	w.pass(end)
}

// RunUntil runs events until cond holds, which is asked between any two events. It reports false if
// cond does not hold when limit has passed; the world then stands at that limit.
func (w *World) RunUntil(limit time.Duration, cond func() bool) bool {
	end := w.now.Add(limit)
	for !cond() {
		if !w.step(end) {
			w.pass(end)
			return cond()
		}
	}
	return true
}

// At calls f as an event of the world at a time, or now when that is past.
func (w *World) At(at env.Mono, f func()) {
	e := &event{kind: KindWorld, who: call(f)}
	w.queue.schedule(e, max(at, w.now))
}

// After calls f as an event of the world, d from now.
func (w *World) After(d time.Duration, f func()) { w.At(w.now.Add(max(d, 0)), f) }

// Do runs f as an event of a host, or of the world when it is nil, after those that are due, and
// returns when it has run. It is not called from inside an event.
func (w *World) Do(h *Host, f func()) {
	done := false
	e := &event{kind: KindWorld, who: call(func() { f(); done = true }), host: h}
	if h != nil {
		e.life = h.life
	}
	w.queue.schedule(e, w.now)
	for !done {
		if !w.step(maxMono) {
			panic("simnet: Do on a host that is down")
		}
	}
}

const maxMono = env.Mono(1<<63 - 1)

// step runs the next event that is due by end.
func (w *World) step(end env.Mono) bool {
	if w.inside {
		panic("simnet: the world is run from inside an event")
	}
	e := w.queue.next(end)
	if e == nil {
		return false
	}
	w.pass(e.at)
	w.inside = true
	w.dispatch(e)
	w.inside = false
	if w.events >= w.inspectAt {
		w.inspect()
	}
	return true
}

// dispatch runs an event that is due, or has it wait for its host.
func (w *World) dispatch(e *event) {
	h := e.host
	if h == nil {
		w.events++
		e.seq = 0
		if e.kind != KindNone {
			w.trace.add(w, nil, e.kind, 0, 0)
		}
		e.who.happen(e.act)
		return
	}
	if h.life != e.life {
		e.seq = 0
		return
	}
	if h.busy > w.now || h.ready.n > 0 {
		h.ready.push(waiting{e, e.seq})
		h.rouse()
		return
	}
	w.perform(h, e)
}

// perform runs an event on its host.
func (w *World) perform(h *Host, e *event) {
	w.events++
	w.acted = h
	e.seq = 0
	h.cost = h.cpu.Event
	if e.kind != KindNone {
		w.trace.add(w, h, e.kind, 0, 0)
	}
	e.who.happen(e.act)
	if h.cost > 0 {
		h.meter.Loop += h.cost
		h.busy = w.now.Add(h.cost)
		h.cost = 0
	}
}

// after makes fire an event of a host, or of the network when h is nil.
func (w *World) after(h *Host, d time.Duration, kind Kind, fire func()) *event {
	e := &event{kind: kind, who: call(fire)}
	w.on(e, h)
	w.queue.schedule(e, w.now.Add(max(d, 0)))
	return e
}

// on gives an event its host.
func (w *World) on(e *event, h *Host) {
	e.host = h
	if h != nil {
		e.life = h.life
	}
}

// Crypto is the cryptography of circuits: Full or Fast.
func (w *World) Crypto() string { return w.cfg.Crypto }

// Flow is the rule for windows, one of FlowNames.
func (w *World) Flow() string { return w.cfg.Flow }

// FlowNames are the rules for windows that nodes may have, cepa's own first: see package simnet/baseline.
func FlowNames() []string { return baseline.Names() }

// memory is the budget of a node, in bytes. Rules that bound no memory have none.
func (w *World) memory(mib int) int {
	if baseline.Unbounded(w.cfg.Flow) {
		return 1 << 40
	}
	return mib << 20
}

// Hosts are all machines, in the order in which they were made. The slice is not to be modified.
func (w *World) Hosts() []*Host { return w.hosts }

// Lookup is the host of a name, or nil.
func (w *World) Lookup(name string) *Host { return w.byName[name] }

// Name makes a host name resolve to addresses, everywhere; none takes it away.
func (w *World) Name(name string, addrs ...netip.Addr) {
	if len(addrs) == 0 {
		delete(w.names, name)
		return
	}
	w.names[name] = addrs
	for _, a := range addrs {
		w.reverse[a] = append(w.reverse[a], name)
	}
}

// address is where host number i is: each in a /16 of its own as long as there are any.
func address(i int) netip.Addr {
	const wide = 80 * 256
	return netip.AddrFrom4([4]byte{20 + byte(i/256%80), byte(i), byte(i / wide), 1})
}

func (w *World) String() string {
	return fmt.Sprintf("world of seed %d at %v", w.cfg.Seed, time.Duration(w.now))
}
