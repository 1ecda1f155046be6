package simnet

import (
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"time"

	"cepa/cert"
	"cepa/env"
)

// CPU is what work costs on a host: fixed figures of a scenario, so that a run does not depend on
// the machine that it is made on. Zero is free.
type CPU struct {
	// Cores do what is offloaded; the loop has one of its own. 0 is as many as there is work.
	Cores int
	// Event is the price of any event on the loop.
	Event time.Duration
	// Cell is the price on the loop of a cell that comes in: decrypt, look up, pass on.
	Cell time.Duration
	// Send is the price on the loop of a cell that goes out.
	Send time.Duration
	// Offload is the price of one computation in the pool: a public-key handshake.
	Offload time.Duration
	// Link is the price of setting up a link, in time: TLS and the certificates, at each end.
	Link time.Duration
}

// HostSpec describes a machine.
type HostSpec struct {
	Name   string // unique
	Region string // of the world's Latency; empty is the first
	// Up and Down are the rates of its access link in bytes a second; 0 is without limit.
	Up, Down int64
	// Mile is the last mile: what is added on each way from and to the host.
	Mile time.Duration
	// Buffer is how much the queue before Down holds, in time; more is lost. 0 is 100 ms.
	Buffer time.Duration
	// FIFO has connections wait upwards in the order in which they had something to send, each until
	// it has sent that. Otherwise they take turns.
	FIFO bool
	CPU  CPU
	// Disk is how long a save takes; 0 is 2 ms.
	Disk time.Duration
	// Resolver is how long a look-up takes; 0 is 20 ms.
	Resolver time.Duration
}

// Host is a machine. It lives through crashes of the process on it.
type Host struct {
	// What every event needs comes first.
	w       *World
	dice    Stream   // jitter and loss
	busy    env.Mono // the loop is, until then
	cost    time.Duration
	life    uint32 // counts starts and ends
	index   int32
	alive   bool
	watched bool          // checkers see its circuits
	silent  bool          // nothing comes or goes
	part    int32         // of a partitioned network
	extra   time.Duration // on each way
	loss    uint64        // of packets, in units of 2^-32
	ready   ring[waiting]
	// Its clock: at base, the monotonic clock showed mono; it runs faster by drift parts in a million.
	base, mono env.Mono
	drift      int64
	skew       time.Duration
	meter      Meter
	up, down   access
	cpu        CPU
	wake       event

	Name    string
	Address netip.Addr
	spec    HostSpec
	region  int
	env     env.Env    // of the process on it
	cores   []env.Mono // until when each is busy
	ends    []*end
	disk    disk

	// Its identity on links.
	identity  cert.Identity
	port      uint16
	onionKey  func() [32]byte
	handler   env.LinkHandler
	from      time.Time // its certificates are valid from then …
	until     time.Time // … until then; zero is for ever
	listeners map[uint16]func(env.Conn) env.ConnEvents

	check   func() error             // verifies the accounts of the node on it
	extends func(cert.Identity) bool // says whether the client on it has a circuit, or begins one, that goes on from there
}

// waiting is an event in the queue of a busy loop.
type waiting struct {
	e   *event
	seq uint64
}

// Host makes a machine, with nothing on it.
func (w *World) Host(spec HostSpec) *Host {
	if spec.Name == "" || w.byName[spec.Name] != nil {
		panic(fmt.Sprintf("simnet: a host needs a name of its own, and %q is none", spec.Name))
	}
	h := &Host{
		Name: spec.Name, Address: address(len(w.hosts)), w: w, spec: spec, cpu: spec.CPU, index: int32(len(w.hosts)),
		region: w.latency.region(spec.Region), dice: w.Stream(StreamLatency, spec.Name),
		listeners: make(map[uint16]func(env.Conn) env.ConnEvents), extra: spec.Mile,
	}
	if h.spec.Disk == 0 {
		h.spec.Disk = 2 * time.Millisecond
	}
	if h.spec.Resolver == 0 {
		h.spec.Resolver = 20 * time.Millisecond
	}
	if h.spec.Buffer == 0 {
		h.spec.Buffer = 100 * time.Millisecond
	}
	h.up.rate, h.down.rate = spec.Up, spec.Down
	h.up.ev.who, h.up.ev.act = h, actTurn
	h.wake.who, h.wake.act = h, actWork
	h.disk.saved = make(map[string][]byte)
	w.hosts = append(w.hosts, h)
	w.byName[h.Name] = h
	w.byAddr[h.Address] = h
	h.Boot()
	return h
}

// Boot begins a new process on the host, if none is running: a fresh Env, without links and
// listeners, over the store that the last one left.
func (h *Host) Boot() {
	if h.alive {
		return
	}
	h.life++
	h.alive = true
	h.busy, h.cost = h.w.now, 0
	h.ready.clear()
	h.cores = nil
	if h.cpu.Cores > 0 {
		h.cores = make([]env.Mono, h.cpu.Cores)
	}
	clear(h.listeners)
	h.handler = nil
	log := slog.New(slog.DiscardHandler)
	if h.w.cfg.Log != nil {
		log = h.w.cfg.Log(h.Name)
	}
	h.env = env.Env{
		Clock: clock{h}, Rand: h.w.Stream(StreamPaths, h.Name, fmt.Sprint(h.life)), Log: log,
		Dialer: dialer{h}, Network: network{h}, Pool: pool{h}, Store: store{h},
	}
}

// Env is the environment of the process on the host. It is another one after Boot.
func (h *Host) Env() env.Env { return h.env }

// Alive says whether there is a process on the host.
func (h *Host) Alive() bool { return h.alive }

// Life counts the processes that began and ended on the host.
func (h *Host) Life() uint32 { return h.life }

// Links says who is told of the host's links, who it is on them (zero for a client, which nobody can
// dial), at which port, and what onion key it shows.
func (h *Host) Links(handler env.LinkHandler, id cert.Identity, port uint16, onionKey func() [32]byte) {
	h.handler, h.identity, h.port, h.onionKey = handler, id, port, onionKey
	h.from, h.until = time.Time{}, time.Time{}
}

// Certify says when what the host shows on links is valid. Who dials, and who is dialled, judges that
// by a clock of their own.
func (h *Host) Certify(from, until time.Time) { h.from, h.until = from, until }

// valid reports whether what the host shows is valid at a time.
func (h *Host) valid(now time.Time) bool {
	return h.until.IsZero() || !now.Before(h.from) && now.Before(h.until)
}

// Listen makes accept hear of every connection to a port of the host, as an event of it; it returns
// who hears the connection's events, and nil closes it. A nil accept ends that.
func (h *Host) Listen(port uint16, accept func(env.Conn) env.ConnEvents) netip.AddrPort {
	if accept == nil {
		delete(h.listeners, port)
	} else {
		h.listeners[port] = accept
	}
	return netip.AddrPortFrom(h.Address, port)
}

// Target is what others dial to open a link with the host.
func (h *Host) Target() env.Target {
	return env.Target{Identity: h.identity, Addresses: []netip.AddrPort{netip.AddrPortFrom(h.Address, h.port)}}
}

// The events of a host.
const (
	actWork act = iota // the loop is free
	actTurn            // its uplink is
)

func (h *Host) happen(a act) {
	if a == actTurn {
		h.up.turn(h.w)
		return
	}
	h.work()
}

// work runs the next event that waits for the loop.
func (h *Host) work() {
	for h.ready.n > 0 && h.busy <= h.w.now {
		next := h.ready.pop()
		if next.e.seq == next.seq && next.e.life == h.life {
			h.w.perform(h, next.e)
		}
	}
	h.rouse()
}

// rouse makes work run when the loop is free.
func (h *Host) rouse() {
	if h.ready.n > 0 && !h.wake.pending() {
		h.w.queue.schedule(&h.wake, max(h.busy, h.w.now))
	}
}

// charge adds to the price of the event that is running.
func (h *Host) charge(d time.Duration) { h.cost += d }

// Crash ends the process: it runs no more events, what it had not written to its disk is lost, and
// the machine resets its links and connections.
func (h *Host) Crash() { h.end(true) }

// PowerOff ends the process and the machine with it: nobody hears of it.
func (h *Host) PowerOff() {
	h.Silence(true)
	h.end(false)
}

func (h *Host) end(reset bool) {
	if !h.alive {
		return
	}
	h.w.trace.add(h.w, h, KindCrash, 0, 0)
	h.w.calm = false
	h.alive, h.check, h.extends = false, nil, nil
	h.life++
	h.handler = nil
	clear(h.listeners)
	h.ready.clear()
	h.w.queue.stop(&h.wake)
	h.disk.crash()
	ends := h.ends
	h.ends = nil
	for _, e := range ends {
		e.place = -1
		e.abandon(reset)
	}
}

// Silence makes all packets from and to the host disappear, or come through again.
func (h *Host) Silence(silent bool) {
	h.silent = silent
	h.w.faulty = true
	h.w.disturb(silent)
}

// Part puts the host into a part of the network. Hosts in different parts do not reach each other; all
// begin in part 0.
func (h *Host) Part(part int) {
	h.part = int32(part)
	h.w.faulty = true
	h.w.disturb(part != 0)
}

// Cut makes two hosts unreachable for each other, or reachable again.
func (w *World) Cut(a, b *Host, cut bool) {
	w.faulty = true
	w.disturb(cut)
	if cut {
		w.blocked[pairOf(a, b)] = true
	} else {
		delete(w.blocked, pairOf(a, b))
	}
}

func pairOf(a, b *Host) [2]int32 { return [2]int32{min(a.index, b.index), max(a.index, b.index)} }

// reach says whether packets come through between two hosts.
func (w *World) reach(a, b *Host) bool {
	if !w.faulty {
		return true
	}
	return a == b || !a.silent && !b.silent && a.part == b.part && (len(w.blocked) == 0 || !w.blocked[pairOf(a, b)])
}

// Clog adds a delay to all that comes or goes, from now on.
func (h *Host) Clog(extra time.Duration) {
	h.extra = h.spec.Mile + extra
	h.w.disturb(extra > 0)
}

// Loss makes some of the packets from the host disappear: so many in a million.
func (h *Host) Loss(perMillion uint64) {
	h.loss = (perMillion << 32) / 1_000_000
	h.w.disturb(perMillion > 0)
}

// Rates changes the access link; 0 is without limit. What waits for it passes at the new rate.
func (h *Host) Rates(up, down int64) {
	h.up.setRate(h.w, up)
	faster := h.down.setRate(h.w, down)
	for _, e := range h.ends {
		e.far.hurry(faster)
	}
}

// SlowDisk changes how long a save takes, from the next on.
func (h *Host) SlowDisk(d time.Duration) { h.spec.Disk = d }

// SetClock sets the clock ahead of the right time by skew, a jump, and has it run faster than it
// should by drift parts in a million from now on.
func (h *Host) SetClock(skew time.Duration, drift int) {
	h.w.disturb(skew != 0 || drift != 0)
	now := h.now()
	// The civil time is epoch + now + skew, so what drift has added comes off the skew.
	h.skew = skew - now.Sub(h.w.now)
	h.base, h.mono, h.drift = h.w.now, now, int64(drift)
}

// now is the host's monotonic clock.
func (h *Host) now() env.Mono {
	passed := int64(h.w.now - h.base)
	if h.drift == 0 {
		return h.mono + env.Mono(passed)
	}
	return h.mono + env.Mono(passed+mulDiv(passed, h.drift, million))
}

// real is how much of the right time passes while the host's clock moves by d: at least that.
func (h *Host) real(d time.Duration) time.Duration {
	if h.drift == 0 {
		return d
	}
	return time.Duration(mulDiv(int64(d), million, million+h.drift) + 1)
}

const million = 1_000_000

// mulDiv is a·b/c for a ≥ 0 and c > 0, without overflow in between.
func mulDiv(a, b, c int64) int64 {
	negative := b < 0
	if negative {
		b = -b
	}
	high, low := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(high, low, uint64(c))
	if negative {
		return -int64(q)
	}
	return int64(q)
}

// clock implements env.Clock for the host's process.
type clock struct{ h *Host }

func (c clock) Now() env.Mono { return c.h.now() }

func (c clock) Wall() time.Time {
	return c.h.w.epoch.Add(time.Duration(c.h.now()) + c.h.skew)
}

func (c clock) AfterFunc(d time.Duration, f func()) env.Timer {
	t := &timer{h: c.h, f: f}
	t.ev.kind, t.ev.who = KindTimer, t
	c.h.w.on(&t.ev, c.h)
	t.Reset(d)
	return t
}

// timer implements env.Timer.
type timer struct {
	ev  event
	h   *Host
	due env.Mono // on the host's clock
	f   func()
}

func (t *timer) Stop() bool { return t.h.w.queue.stop(&t.ev) }

func (t *timer) Reset(d time.Duration) {
	d = max(d, 0)
	t.due = t.h.now().Add(d)
	at := t.h.w.now.Add(t.h.real(d))
	if t.due < t.h.now() || at < t.h.w.now {
		t.due, at = maxMono, maxMono
	}
	t.h.w.queue.schedule(&t.ev, at)
}

func (t *timer) happen(act) {
	if now := t.h.now(); now < t.due { // the clock has been slowed down since
		t.Reset(t.due.Sub(now))
		return
	}
	t.f()
}

// pool implements env.Pool: computations wait for a core, and take what the host's CPU says. They are made meanwhile, by
// whoever has time (see package parallel), and at the latest in the event in which they are done.
type pool struct{ h *Host }

func (p pool) Offload(work, done func()) {
	h := p.h
	at := h.w.now
	if len(h.cores) > 0 {
		first := 0
		for i, free := range h.cores {
			if free < h.cores[first] {
				first = i
			}
		}
		at = max(at, h.cores[first])
		h.cores[first] = at.Add(h.cpu.Offload)
	}
	h.meter.Offloaded++
	h.meter.Pool += h.cpu.Offload
	finish := h.w.pool.Start(work)
	h.w.after(h, at.Add(h.cpu.Offload).Sub(h.w.now), KindOffload, func() { finish(); done() })
}
