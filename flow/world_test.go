package flow

import (
	"container/heap"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// world is a virtual clock with links and conns in memory: as little as flow needs, so that
// tests can run it from many thousands of seeds.
type world struct {
	now    env.Mono
	seq    uint64
	queue  eventHeap
	rng    *rand.Rand
	nodes  []*testNode
	ports  int
	fewIDs bool // random numbers, and so circuit ids, are from 0 to 3
}

type event struct {
	at    env.Mono
	seq   uint64
	f     func()
	timer *testTimer
	gen   int
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

func newWorld(seed uint64) *world {
	return &world{now: 1e9, rng: rand.New(rand.NewPCG(seed, 1))}
}

func (w *world) at(d time.Duration, f func()) { w.push(event{at: w.now.Add(max(d, 0)), f: f}) }

func (w *world) push(e event) {
	w.seq++
	e.seq = w.seq
	heap.Push(&w.queue, e)
}

// step runs one event; false when there is none.
func (w *world) step() bool {
	for len(w.queue) > 0 {
		e := heap.Pop(&w.queue).(event)
		if e.timer != nil {
			if e.timer.gen != e.gen {
				continue
			}
			e.timer.gen++
		}
		w.now = max(w.now, e.at)
		e.f()
		return true
	}
	return false
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && w.queue[0].at <= end {
		w.step()
	}
	w.now = end
}

// runUntil runs until cond holds, at most d; it says whether it does.
func (w *world) runUntil(d time.Duration, cond func() bool) bool {
	end := w.now.Add(d)
	for !cond() {
		if len(w.queue) == 0 || w.queue[0].at > end {
			return false
		}
		w.step()
	}
	return true
}

func (w *world) Now() env.Mono   { return w.now }
func (w *world) Wall() time.Time { return time.Unix(0, int64(w.now)) }
func (w *world) AfterFunc(d time.Duration, f func()) env.Timer {
	t := &testTimer{w: w, f: f}
	t.Reset(d)
	return t
}

type testTimer struct {
	w   *world
	f   func()
	gen int
}

func (t *testTimer) Stop() bool { t.gen++; return true }
func (t *testTimer) Reset(d time.Duration) {
	t.gen++
	t.w.push(event{at: t.w.now.Add(max(d, 0)), f: t.f, timer: t, gen: t.gen})
}

func (w *world) Uint64() uint64 {
	if w.fewIDs {
		return w.rng.Uint64N(4)
	}
	return w.rng.Uint64()
}
func (w *world) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(w.rng.Uint64())
	}
	return len(p), nil
}

// ---- links ----

// pipeEnd is one end of a link: cells wait in queue, leave at rate, and arrive after delay.
type pipeEnd struct {
	w      *world
	peer   env.Peer
	other  *pipeEnd
	ev     env.LinkEvents
	queue  []byte
	room   []byte // lent
	busy   bool
	delay  time.Duration
	rate   float64  // bytes a second; 0 is at once
	line   float64  // bytes a second of a line behind the kernel, whose queue nobody sees; 0 is at once
	free   env.Mono // when that line is free
	closed bool
	mute   bool   // what is sent vanishes
	sent   []byte // if keep, all that was sent
	keep   bool
	reason error
}

func (e *pipeEnd) Peer() *env.Peer { return &e.peer }
func (e *pipeEnd) Queued() int     { return len(e.queue) }
func (e *pipeEnd) Room(n int) []byte {
	e.room = make([]byte, max(n, 16)*cell.Size)
	return e.room
}
func (e *pipeEnd) Send(cells []byte) {
	if len(cells) > 0 && len(e.room) > 0 && &cells[0] != &e.room[0] {
		panic("Send of something else than what Room lent")
	}
	e.room = nil
	if e.closed || len(cells) == 0 {
		return
	}
	if len(cells)%cell.Size != 0 {
		panic("Send of no whole cells")
	}
	if e.keep {
		e.sent = append(e.sent, cells...)
	}
	e.queue = append(e.queue, cells...)
	e.move()
}

// move schedules the departure of what is queued.
func (e *pipeEnd) move() {
	if e.busy || len(e.queue) == 0 || e.closed {
		return
	}
	n := len(e.queue)
	var took time.Duration
	if e.rate > 0 {
		n = cell.Size
		took = time.Duration(float64(n) / e.rate * 1e9)
	}
	e.busy = true
	e.w.at(took, func() {
		e.busy = false
		if e.closed {
			return
		}
		p := append([]byte(nil), e.queue[:n]...)
		e.queue = append(e.queue[:0], e.queue[n:]...)
		if !e.mute {
			wait := e.delay
			if e.line > 0 {
				e.free = max(e.free, e.w.now).Add(time.Duration(float64(n) / e.line * 1e9))
				wait += e.free.Sub(e.w.now)
			}
			e.w.at(wait, func() { e.other.arrive(p) })
		}
		e.move()
		e.ev.OnDrained()
	})
}

func (e *pipeEnd) arrive(p []byte) {
	if !e.closed && e.ev != nil {
		e.ev.OnCells(p)
	}
}

func (e *pipeEnd) Close(reason error) {
	if e.closed {
		return
	}
	e.closed = true
	e.reason = reason
	// What was sent is written if that is possible at once.
	p := e.queue
	e.queue = nil
	o := e.other
	e.w.at(e.delay, func() {
		if len(p) > 0 && !e.mute && e.rate == 0 {
			o.arrive(p)
		}
		o.hangUp()
	})
}

func (e *pipeEnd) hangUp() {
	if !e.closed {
		e.closed = true
		e.queue = nil
		e.ev.OnDown(io.EOF)
	}
}

type linkOptions struct {
	delay time.Duration
	rate  float64
}

// connect joins two nodes; a dialled.
func (w *world) connect(a, b *testNode, o linkOptions) (*Link, *Link) {
	x, y := w.pair(a.id, b.id, o)
	x.ev, y.ev = a.links.LinkUp(x), b.links.LinkUp(y)
	if x.ev == nil || y.ev == nil {
		for _, e := range []*pipeEnd{x, y} {
			e.closed = true
			if e.ev != nil {
				e.ev.OnDown(errors.New("refused"))
			}
		}
		return nil, nil
	}
	return x.ev.(*Link), y.ev.(*Link)
}

func (w *world) pair(a, b cert.Identity, o linkOptions) (x, y *pipeEnd) {
	w.ports++
	x = &pipeEnd{w: w, delay: o.delay, rate: o.rate}
	y = &pipeEnd{w: w, delay: o.delay, rate: o.rate, other: x}
	x.other = y
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(w.ports >> 8), byte(w.ports)}), 9000)
	x.peer = env.Peer{Identity: b, Dialled: true, Address: addr}
	y.peer = env.Peer{Identity: a, Address: addr}
	return x, y
}

// ---- nodes ----

// testNode is a node: it dials other nodes of the world, and gives circuits to whoever serves.
type testNode struct {
	w      *world
	id     cert.Identity
	links  *Links
	budget *Budget
	stats  *Stats
	delay  time.Duration // of dials

	onCreate func(*Leg, cell.Create)
	onGossip func(*Link, []byte)
	listed   func(cert.Identity) bool
	ups      []*Link
	downs    []error
	dials    int
	dialErr  error
}

type nodeOptions struct {
	client    bool
	budget    int
	limits    Limits
	strangers bool          // no relay is listed
	idle      time.Duration // IdleKeepalive
	uplink    int64
}

func (w *world) node(o nodeOptions) *testNode {
	n := &testNode{w: w, stats: new(Stats)}
	if !o.client {
		n.id = cert.Identity{0: 1, 1: byte(len(w.nodes) >> 8), 2: byte(len(w.nodes))}
	}
	if o.budget == 0 {
		o.budget = 64 << 20
	}
	n.budget = NewBudget(o.budget)
	n.listed = func(cert.Identity) bool { return !o.strangers }
	n.links = NewLinks(Config{
		Listed: func(id cert.Identity) bool { return n.listed(id) },
		Env:    env.Env{Clock: w, Rand: w, Dialer: n},
		Self:   n.id, Budget: n.budget, Limits: o.limits, Handler: n, Stats: n.stats, IdleKeepalive: o.idle, Uplink: o.uplink,
	})
	w.nodes = append(w.nodes, n)
	return n
}

func (n *testNode) OnLink(l *Link)                   { n.ups = append(n.ups, l) }
func (n *testNode) OnLinkDown(_ *Link, err error)    { n.downs = append(n.downs, err) }
func (n *testNode) OnCreate(leg *Leg, c cell.Create) { n.onCreate(leg, c) }
func (n *testNode) OnGossip(l *Link, packet []byte)  { n.onGossip(l, packet) }
func (n *testNode) target() env.Target               { return env.Target{Identity: n.id} }
func (n *testNode) env() env.Env                     { return env.Env{Clock: n.w, Rand: n.w} }
func (n *testNode) DialLink(to env.Target, done func(env.Link, error)) {
	n.dials++
	n.w.at(n.delay, func() {
		if n.dialErr != nil {
			done(nil, n.dialErr)
			return
		}
		for _, other := range n.w.nodes {
			if other.id == to.Identity {
				l, _ := n.w.connect(n, other, linkOptions{delay: time.Millisecond})
				if l == nil {
					done(nil, errors.New("refused"))
				} else {
					done(l.env, nil)
				}
				return
			}
		}
		done(nil, errors.New("no such node"))
	})
}

// check fails the test when the accounts of a node do not add up.
func (w *world) check(t testing.TB) {
	t.Helper()
	for i, n := range w.nodes {
		if err := n.links.Check(); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
}

// checkEmpty fails the test when anything is left of circuits and streams.
func (w *world) checkEmpty(t testing.TB) {
	t.Helper()
	w.check(t)
	for i, n := range w.nodes {
		s := *n.stats
		if s.Legs != 0 || s.Tombstones != 0 || s.Streams != 0 || s.QueuedBytes != 0 || n.budget.Used() != 0 {
			t.Fatalf("node %d is left with %d legs, %d tombstones, %d streams, %d queued bytes, budget %d",
				i, s.Legs, s.Tombstones, s.Streams, s.QueuedBytes, n.budget.Used())
		}
		if n.budget.in != 0 || n.budget.out != 0 {
			t.Fatalf("node %d is left with the reserve of %d and %d legs", i, n.budget.in, n.budget.out)
		}
	}
}

// ---- conns ----

// testConn is an env.Conn whose far end the test is: it brings input when not paused, and
// takes what is written at some rate.
type testConn struct {
	w       *world
	s       *Stream
	input   []byte // that the far end sends
	read    int
	piece   int  // bytes of one OnData
	eof     bool // EOF follows the input
	paused  bool
	reading bool

	queue    int
	got      []byte
	gotEOF   bool
	closed   bool
	reason   error
	rate     float64 // bytes a second that the far end takes; 0 at once, below 0 never
	draining bool
	sentEOF  bool
	every    time.Duration // between two OnData
}

func newConn(w *world, s *Stream, input []byte, eof bool) *testConn {
	return &testConn{w: w, s: s, input: input, eof: eof, paused: true, piece: 16 << 10}
}

func (c *testConn) Write(p []byte) {
	if c.closed {
		panic("Write after Close")
	}
	if c.gotEOF {
		panic("Write after CloseWrite")
	}
	c.got = append(c.got, p...)
	if c.rate == 0 {
		return
	}
	c.queue += len(p)
	c.drain()
}

func (c *testConn) drain() {
	if c.draining || c.queue == 0 || c.rate <= 0 || c.closed {
		return
	}
	c.draining = true
	n := min(c.queue, 4096)
	c.w.at(time.Duration(float64(n)/c.rate*1e9), func() {
		c.draining = false
		c.queue -= min(n, c.queue)
		c.drain()
		if !c.closed {
			c.s.OnDrained()
		}
	})
}

func (c *testConn) Queued() int { return c.queue }
func (c *testConn) CloseWrite() { c.gotEOF = true }
func (c *testConn) Close(reason error) {
	if c.closed {
		panic("Close twice")
	}
	c.closed = true
	c.reason = reason
	if reason == nil && c.queue > 0 {
		panic("the stream let go of a Conn that has not drained")
	}
}

func (c *testConn) Pause(paused bool) {
	c.paused = paused
	c.pull()
}

// fail is the far end closing the conn.
func (c *testConn) fail(reason error) {
	if !c.closed {
		c.closed = true
		c.s.OnDown(reason)
	}
}

// pull brings input in events of its own.
func (c *testConn) pull() {
	if c.paused || c.reading || c.closed || c.sentEOF {
		return
	}
	c.reading = true
	c.w.at(c.every, func() {
		c.reading = false
		switch {
		case c.closed || c.paused || c.sentEOF:
			return
		case c.read < len(c.input):
			n := min(c.piece, len(c.input)-c.read)
			p := c.input[c.read : c.read+n]
			c.read += n
			c.s.OnData(p)
		case c.eof:
			c.sentEOF = true
			c.s.OnEOF()
		default:
			return
		}
		c.pull()
	})
}

// more lets the far end send more.
func (c *testConn) more(p []byte) {
	c.input = append(c.input, p...)
	c.pull()
}

// ---- circuits ----

// hop is a relay's side of a circuit without any crypto: a switch between two legs, or the
// end with a mux.
type hop struct {
	n          *testNode
	prev, next *Leg
	mux        *Mux
	gone       bool
	reason     cell.Reason
	early      int
	bad        error
}

type hopLeg struct {
	h    *hop
	back bool // the leg towards the client
}

func (l hopLeg) OnCreated(c cell.Create) { l.h.prev.Created(c.Type, c.Handshake) }
func (l hopLeg) OnCell(cmd cell.Command, body []byte) bool {
	h := l.h
	if h.mux != nil {
		if err := h.mux.OnPayload(body[cell.TagSize:]); err != nil {
			h.bad = err
			h.end(cell.ReasonProtocol)
		}
		return false
	}
	to, from := h.prev, h.next
	if l.back {
		to, from = h.next, h.prev
	}
	to.Relay(cmd, body, from)
	return true
}
func (l hopLeg) NextCell(body []byte) (cell.Command, bool) {
	h := l.h
	if h.mux == nil {
		return 0, false
	}
	if !h.mux.NextPayload(body[cell.TagSize:]) {
		return 0, false
	}
	clear(body[:cell.TagSize])
	if h.next != nil && !l.back && h.early < earlyCells { // the client's first cells
		h.early++
		return cell.CommandRelayEarly, true
	}
	return cell.CommandRelay, true
}
func (l hopLeg) Pending() bool { return l.h.mux != nil && l.h.mux.Pending() }
func (l hopLeg) OnDestroyed(reason cell.Reason) {
	l.h.reason = reason
	l.h.end(cell.ReasonDestroyed)
}

func (h *hop) end(reason cell.Reason) {
	if h.gone {
		return
	}
	h.gone = true
	for _, g := range []*Leg{h.prev, h.next} {
		if g != nil {
			g.Destroy(reason)
		}
	}
	if h.mux != nil {
		h.mux.Close(cell.ReasonDestroyed)
	}
}

// serve has the nodes of a path forward circuits that are made at the first to the last, which
// answers; open is called for streams there.
type path struct {
	w       *world
	client  *testNode
	relays  []*testNode
	links   []*Link // from each node to the next
	hops    []*hop  // of the last circuit made, at each relay
	exits   []*hop
	open    func(s *Stream, m cell.Message)
	control func(m cell.Message) error
	grantC  Windows
	grantE  Windows
	number  byte // the handshake of its CREATEs
	made    int  // circuits
}

// newPath is a client and n relays in a row.
func newPath(w *world, n int, o linkOptions, opts ...nodeOptions) *path {
	p := &path{w: w, grantC: ClientWindows, grantE: ExitWindows}
	var no nodeOptions
	if len(opts) > 0 {
		no = opts[0]
	}
	for i := range n {
		r := w.node(no)
		r.onCreate = func(g *Leg, c cell.Create) { p.serve(i, g, c) }
		p.relays = append(p.relays, r)
	}
	no.client = true
	p.client = w.node(no)
	last := p.client
	for _, r := range p.relays {
		l, _ := w.connect(last, r, o)
		p.links = append(p.links, l)
		last = r
	}
	return p
}

func (p *path) serve(i int, g *Leg, c cell.Create) {
	h := &hop{n: p.relays[i], prev: g}
	p.hops = append(p.hops, h)
	g.Bind(hopLeg{h, true})
	if i == len(p.relays)-1 {
		h.mux = NewMux(MuxConfig{
			Env: h.n.env(), Granted: p.grantE, Allowed: p.grantC, Wake: g.Wake,
			Handler: muxHandler{p}, Budget: h.n.budget, Stats: h.n.stats,
		})
		p.exits = append(p.exits, h)
		g.Created(c.Type, c.Handshake)
		return
	}
	next, err := p.links[i+1].Create(hopLeg{h, false}, c.Type, c.Handshake)
	if err != nil {
		h.end(cell.ReasonConnectFailed)
		return
	}
	h.next = next
}

type muxHandler struct{ p *path }

func (m muxHandler) OnOpen(s *Stream, msg cell.Message) { m.p.open(s, msg) }
func (m muxHandler) OnControl(msg cell.Message) error {
	if m.p.control == nil {
		return wrong("no control here")
	}
	return m.p.control(msg)
}

// circuit is the client's side.
type circuit struct {
	hop
	created bool
	index   int // of the circuit on its path
}

type circuitLeg struct {
	hopLeg
	c *circuit
}

func (l circuitLeg) OnCreated(cell.Create) { l.c.created = true }

func (p *path) circuit(t testing.TB) *circuit {
	t.Helper()
	c := &circuit{index: p.made}
	p.made++
	c.n = p.client
	leg, err := p.links[0].Create(circuitLeg{hopLeg{&c.hop, false}, c}, 7, []byte{p.number})
	if err != nil {
		t.Fatal(err)
	}
	c.next = leg
	c.mux = NewMux(MuxConfig{
		Env: c.n.env(), Initiator: true, Granted: p.grantC, Allowed: p.grantE, Wake: leg.Wake,
		Handler: muxHandler{p}, Budget: c.n.budget, Stats: c.n.stats,
	})
	return c
}

// streamLog is a StreamHandler that remembers.
type streamLog struct {
	connected, ended bool
	resolved         []byte
	reason           cell.Reason
}

func (s *streamLog) OnConnected([]byte)       { s.connected = true }
func (s *streamLog) OnResolved(data []byte)   { s.resolved = append([]byte{}, data...) }
func (s *streamLog) OnEnd(reason cell.Reason) { s.ended, s.reason = true, reason }

// begin is a BEGIN's body.
func begin(t testing.TB) []byte {
	t.Helper()
	b, err := cell.Begin{Flags: cell.AllowIPv4, Address: cell.Address{Host: "example.com"}, Port: 80}.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func connected() []byte {
	b, _ := cell.Connected{}.AppendTo(nil)
	return b
}

// pattern is n bytes that differ from place to place.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 2))
	for i := 0; i+8 <= n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}
