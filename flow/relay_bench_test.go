package flow

import (
	"runtime"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// sink is a link that swallows what it is sent, as fast as it comes.
type sink struct {
	peer  env.Peer
	cells int
	room  [16 * cell.Size]byte
}

func (s *sink) Peer() *env.Peer { return &s.peer }
func (s *sink) Send(cells []byte) {
	s.cells += len(cells) / cell.Size
}
func (s *sink) Room(int) []byte { return s.room[:] }
func (s *sink) Queued() int     { return 0 }
func (s *sink) Close(error)     {}

// passThrough forwards cells from one leg to the other.
type passThrough struct{ to, from *Leg }

func (h *passThrough) OnCreated(cell.Create) {}
func (h *passThrough) OnCell(cmd cell.Command, body []byte) bool {
	h.to.Relay(cmd, body, h.from)
	return true
}
func (h *passThrough) NextCell([]byte) (cell.Command, bool) { return 0, false }
func (h *passThrough) Pending() bool                        { return false }
func (h *passThrough) OnDestroyed(reason cell.Reason) {
	if h.to != nil {
		h.to.Destroy(reason)
	}
}

// frozen is a clock that only its owner moves, and whose timers it fires.
type frozen struct {
	now    env.Mono
	timers []*frozenTimer
}

type frozenTimer struct {
	c   *frozen
	at  env.Mono
	set bool
	f   func()
}

func (c *frozen) Now() env.Mono   { return c.now }
func (c *frozen) Wall() time.Time { return time.Time{} }
func (c *frozen) AfterFunc(d time.Duration, f func()) env.Timer {
	t := &frozenTimer{c: c, f: f}
	c.timers = append(c.timers, t)
	t.Reset(d)
	return t
}
func (t *frozenTimer) Stop() bool            { t.set = false; return true }
func (t *frozenTimer) Reset(d time.Duration) { t.at, t.set = t.c.now.Add(d), true }

func (c *frozen) advance(d time.Duration) {
	c.now = c.now.Add(d)
	for _, t := range c.timers {
		if t.set && t.at <= c.now {
			t.set = false
			t.f()
		}
	}
}

// relayHop is one relay between two sinks, with circuits that pass through.
type relayHop struct {
	clock    *frozen
	in, out  *sink
	from, to *Link
	batch    []byte
	credit   []byte
	ids      []cell.CircuitID // on out
	next     int
}

func newRelayHop(tb testing.TB, circuits, batch int) *relayHop {
	tb.Helper()
	w := newWorld(1)
	b := &relayHop{clock: &frozen{now: 1e9}, in: new(sink), out: new(sink)}
	b.in.peer.Identity = cert.Identity{1}
	b.out.peer.Identity, b.out.peer.Dialled = cert.Identity{2}, true
	n := &testNode{w: w}
	limits := DefaultLimits()
	limits.CircuitsPerLink = max(limits.CircuitsPerLink, 2*circuits)
	links := NewLinks(Config{
		Env: env.Env{Clock: b.clock, Rand: w}, Self: cert.Identity{3}, Handler: n, Budget: NewBudget(4 << 30), Limits: limits,
		Listed: func(cert.Identity) bool { return true },
	})
	var legs []*Leg
	n.onCreate = func(g *Leg, _ cell.Create) { legs = append(legs, g) }
	b.from, b.to = links.LinkUp(b.in).(*Link), links.LinkUp(b.out).(*Link)
	for i := range circuits {
		id := cell.InitiatorBit | cell.CircuitID(i+1)
		b.from.OnCells(createCell(id, 64))
		in := legs[i]
		out, err := b.to.Create(&passThrough{in, nil}, 1, []byte("h"))
		if err != nil {
			tb.Fatal(err)
		}
		in.Bind(&passThrough{out, in})
		in.Created(1, []byte("h"))
		b.ids = append(b.ids, out.ID())
	}
	b.clock.advance(0)
	for _, id := range b.ids {
		b.to.OnCells(createdCell(id, 1000))
	}
	b.batch = make([]byte, batch*cell.Size)
	b.credit = make([]byte, cell.Size)
	cell.Header{Command: cell.CommandCredit}.Put(b.credit)
	if err := b.from.links.Check(); err != nil {
		tb.Fatal(err)
	}
	return b
}

// step sends one batch of cells of all circuits in turn, and the credit for them.
func (b *relayHop) step() {
	pairs := make([]cell.CreditPair, 0, 64)
	for i := 0; i < len(b.batch); i += cell.Size {
		id := b.next % len(b.ids)
		b.next++
		cell.Header{Circuit: cell.InitiatorBit | cell.CircuitID(id+1), Command: cell.CommandRelay}.Put(b.batch[i:])
		pairs = append(pairs, cell.CreditPair{Circuit: b.ids[id], Add: 1})
	}
	b.from.OnCells(b.batch)
	if err := cell.PutCredit(b.credit[cell.HeaderSize:], pairs); err != nil {
		panic(err)
	}
	b.to.OnCells(b.credit)
	b.clock.advance(creditTick)
}

func createCell(id cell.CircuitID, credit int) []byte {
	return headCell(cell.CommandCreate, id, credit)
}

func createdCell(id cell.CircuitID, credit int) []byte {
	return headCell(cell.CommandCreated, id, credit)
}

func headCell(cmd cell.Command, id cell.CircuitID, credit int) []byte {
	b := make([]byte, cell.Size)
	cell.Header{Circuit: id, Command: cmd}.Put(b)
	c := cell.Create{Credit: uint16(credit), Type: 1, Total: 1, Handshake: []byte("h")}
	if err := c.Put(b[cell.HeaderSize:]); err != nil {
		panic(err)
	}
	return b
}

func TestForwardingACellAllocatesNothing(t *testing.T) {
	b := newRelayHop(t, 8, 32)
	for range 20 {
		b.step()
	}
	before := b.out.cells
	if n := testing.AllocsPerRun(100, b.step); n != 0 {
		t.Errorf("%v allocations in a batch of 32 cells", n)
	}
	if got := b.out.cells - before; got < 100*32 {
		t.Errorf("only %d cells were forwarded", got)
	}
	if err := b.from.links.Check(); err != nil {
		t.Error(err)
	}
}

func BenchmarkRelayHop(b *testing.B) {
	for _, c := range []struct {
		name            string
		circuits, batch int
	}{{"1circuit", 1, 32}, {"8circuits", 8, 32}, {"10000circuits", 10000, 32}, {"batch1", 1, 1}} {
		b.Run(c.name, func(b *testing.B) {
			h := newRelayHop(b, c.circuits, c.batch)
			b.SetBytes(cell.Size)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += c.batch {
				h.step()
			}
		})
	}
}

// BenchmarkLinkDown is the end of a link with 50,000 circuits that go on over another one: all of them are ended and a
// DESTROY is written for each, in one event.
func BenchmarkLinkDown(b *testing.B) {
	const circuits = 50_000
	var before, after runtime.MemStats
	memory := uint64(0)
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&before)
		h := newRelayHop(b, circuits, 1)
		runtime.GC()
		runtime.ReadMemStats(&after)
		memory += after.HeapAlloc - before.HeapAlloc
		sent := h.out.cells
		b.StartTimer()
		h.from.OnDown(ErrClosed)
		h.clock.advance(0)
		b.StopTimer()
		if h.to.Legs() != 0 || h.out.cells-sent < circuits {
			b.Fatalf("%d circuits are left, %d cells were sent", h.to.Legs(), h.out.cells-sent)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(memory)/float64(b.N)/circuits, "B/circuit")
}
