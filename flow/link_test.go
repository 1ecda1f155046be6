package flow

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// tap is a link whose far end is the test.
type tap struct {
	peer   env.Peer
	sent   []byte
	queued int
	slow   bool // what is sent stays queued
	closed bool
	reason error
}

func (t *tap) Peer() *env.Peer   { return &t.peer }
func (t *tap) Room(n int) []byte { return make([]byte, 16*cell.Size) }
func (t *tap) Send(cells []byte) {
	t.sent = append(t.sent, cells...)
	if t.slow {
		t.queued += len(cells)
	}
}
func (t *tap) Queued() int        { return t.queued }
func (t *tap) Close(reason error) { t.closed, t.reason = true, reason }

// take returns the commands and circuits sent since the last time, as "DESTROY 1".
func (t *tap) take(tb testing.TB) (cells []cell.Header, bodies [][]byte) {
	tb.Helper()
	for ; len(t.sent) > 0; t.sent = t.sent[cell.Size:] {
		h, err := cell.DecodeHeader(t.sent)
		if err != nil {
			tb.Fatalf("sent a bad cell: %v", err)
		}
		cells = append(cells, h)
		bodies = append(bodies, append([]byte(nil), t.sent[cell.HeaderSize:cell.Size]...))
	}
	return cells, bodies
}

// commands is what take returns, in words.
func (t *tap) commands(tb testing.TB) string {
	tb.Helper()
	cells, _ := t.take(tb)
	var words []string
	for _, h := range cells {
		words = append(words, h.Command.String())
	}
	return strings.Join(words, " ")
}

// bench is one relay (or client) with one neighbour that is the test.
type bench struct {
	w    *world
	n    *testNode
	tap  *tap
	l    *Link
	legs []*Leg
	hear []*hearing
	data [][]byte // gossip
}

// hearing is a LegHandler that remembers.
type hearing struct {
	created   bool
	cells     int
	destroyed []cell.Reason
	send      int // cells to originate
	on        func()
}

func (h *hearing) OnCreated(cell.Create) { h.created = true }
func (h *hearing) OnCell(cell.Command, []byte) bool {
	h.cells++
	if h.on != nil {
		h.on()
	}
	return false
}
func (h *hearing) NextCell(body []byte) (cell.Command, bool) {
	if h.send == 0 {
		return 0, false
	}
	h.send--
	clear(body)
	return cell.CommandRelay, true
}
func (h *hearing) Pending() bool                  { return h.send > 0 }
func (h *hearing) OnDestroyed(reason cell.Reason) { h.destroyed = append(h.destroyed, reason) }

var neighbour = cert.Identity{0: 1, 1: 0xff}

type benchOptions struct {
	selfClient, peerClient bool
	dialled                bool // by this node
	budget                 int
	limits                 Limits
	silent                 bool // CREATEs are not answered
	idle                   time.Duration
}

func newBench(t testing.TB, o benchOptions) *bench {
	t.Helper()
	w := newWorld(3)
	b := &bench{w: w, n: w.node(nodeOptions{client: o.selfClient, budget: o.budget, limits: o.limits, idle: o.idle}), tap: new(tap)}
	if !o.peerClient {
		b.tap.peer.Identity = neighbour
	}
	b.tap.peer.Dialled = o.dialled
	b.n.onCreate = func(g *Leg, c cell.Create) {
		h := new(hearing)
		g.Bind(h)
		b.legs, b.hear = append(b.legs, g), append(b.hear, h)
		if !o.silent {
			g.Created(c.Type, c.Handshake)
		}
	}
	b.n.onGossip = func(_ *Link, p []byte) { b.data = append(b.data, append([]byte(nil), p...)) }
	b.l = b.n.links.LinkUp(b.tap).(*Link)
	return b
}

// theirs is a circuit id that the neighbour may pick.
func (b *bench) theirs(i int) cell.CircuitID {
	if b.tap.peer.Dialled {
		return cell.CircuitID(i)
	}
	return cell.InitiatorBit | cell.CircuitID(i)
}

// in brings cells, and lets the events that follow at once happen.
func (b *bench) in(cells ...[]byte) {
	for _, c := range cells {
		b.l.OnCells(c)
	}
	b.w.run(0)
}

func raw(cmd cell.Command, id cell.CircuitID) []byte {
	c := make([]byte, cell.Size)
	cell.Header{Circuit: id, Command: cmd}.Put(c)
	return c
}

func destroyCell(id cell.CircuitID) []byte { return raw(cell.CommandDestroy, id) }

func creditCell(pairs ...cell.CreditPair) []byte {
	c := raw(cell.CommandCredit, 0)
	if err := cell.PutCredit(c[cell.HeaderSize:], pairs); err != nil {
		panic(err)
	}
	return c
}

func gossipCell(p string) []byte {
	c := raw(cell.CommandGossip, 0)
	if err := cell.PutGossip(c[cell.HeaderSize:], []byte(p)); err != nil {
		panic(err)
	}
	return c
}

// open has the neighbour open circuit i, and b answer it.
func (b *bench) open(t testing.TB, i int) (*Leg, *hearing) {
	t.Helper()
	b.in(createCell(b.theirs(i), 64))
	if got := b.tap.commands(t); got != "CREATED" {
		t.Fatalf("CREATE was answered by %q", got)
	}
	return b.legs[len(b.legs)-1], b.hear[len(b.hear)-1]
}

// ours has b open a circuit.
func (b *bench) ours(t testing.TB, answered bool) (*Leg, *hearing) {
	t.Helper()
	h := new(hearing)
	g, err := b.l.Create(h, 1, []byte("h"))
	if err != nil {
		t.Fatal(err)
	}
	b.w.run(0)
	if got := b.tap.commands(t); got != "CREATE" {
		t.Fatalf("Create sent %q", got)
	}
	if answered {
		b.in(createdCell(g.ID(), 64))
		if !h.created {
			t.Fatal("CREATED was not heard")
		}
	}
	return g, h
}

func (b *bench) check(t testing.TB) {
	t.Helper()
	b.w.check(t)
}

// outcome of a cell.
type outcome int

const (
	fine outcome = iota
	circuitError
	linkError
)

func TestEveryStateAndCommandHasAnOutcome(t *testing.T) {
	t.Parallel()
	relay := func(id cell.CircuitID) []byte { return raw(cell.CommandRelay, id) }
	early := func(id cell.CircuitID) []byte { return raw(cell.CommandRelayEarly, id) }
	create := func(id cell.CircuitID) []byte { return createCell(id, 9) }
	created := func(id cell.CircuitID) []byte { return createdCell(id, 9) }
	credit := func(id cell.CircuitID) []byte { return creditCell(cell.CreditPair{Circuit: id, Add: 1}) }
	commands := map[string]func(cell.CircuitID) []byte{
		"CREATE": create, "CREATED": created, "RELAY": relay, "RELAY_EARLY": early, "DESTROY": destroyCell, "CREDIT": credit,
	}
	states := map[string]struct {
		prepare func(t *testing.T, b *bench) cell.CircuitID
		want    map[string]outcome // others are link errors
		silent  bool
	}{
		"free, theirs": {
			prepare: func(_ *testing.T, b *bench) cell.CircuitID { return b.theirs(5) },
			want:    map[string]outcome{"CREATE": fine},
		},
		"free, ours": {
			prepare: func(_ *testing.T, b *bench) cell.CircuitID { return b.theirs(5) ^ cell.InitiatorBit },
		},
		"CREATE not answered": {
			prepare: func(_ *testing.T, b *bench) cell.CircuitID { b.in(create(b.theirs(5))); return b.theirs(5) },
			silent:  true,
			want: map[string]outcome{
				"CREATE": circuitError, "CREATED": circuitError, "RELAY": circuitError, "RELAY_EARLY": circuitError,
				"DESTROY": fine,
			},
		},
		"open, theirs": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID { g, _ := b.open(t, 5); return g.ID() },
			want: map[string]outcome{
				"CREATE": circuitError, "CREATED": circuitError, "RELAY": fine, "RELAY_EARLY": fine,
				"DESTROY": fine, "CREDIT": fine,
			},
		},
		"CREATE sent": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID { g, _ := b.ours(t, false); return g.ID() },
			want: map[string]outcome{
				"CREATE": circuitError, "CREATED": fine, "RELAY": circuitError, "RELAY_EARLY": circuitError, "DESTROY": fine,
			},
		},
		"CREATE queued": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID {
				b.tap.queued = 1 << 20
				g, err := b.l.Create(new(hearing), 1, []byte("h"))
				if err != nil {
					t.Fatal(err)
				}
				b.w.run(0)
				return g.ID()
			},
		},
		"open, ours": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID { g, _ := b.ours(t, true); return g.ID() },
			want: map[string]outcome{
				"CREATE": circuitError, "CREATED": circuitError, "RELAY": fine, "RELAY_EARLY": circuitError,
				"DESTROY": fine, "CREDIT": fine,
			},
		},
		"tombstone, theirs": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID {
				g, _ := b.open(t, 5)
				g.Destroy(cell.ReasonOther)
				b.w.run(0)
				return g.ID()
			},
			want: map[string]outcome{"RELAY": fine, "RELAY_EARLY": fine, "DESTROY": fine, "CREDIT": fine},
		},
		"tombstone, ours, not answered": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID {
				g, _ := b.ours(t, false)
				g.Destroy(cell.ReasonOther)
				b.w.run(0)
				return g.ID()
			},
			want: map[string]outcome{
				"CREATED": fine, "RELAY": fine, "RELAY_EARLY": fine, "DESTROY": fine, "CREDIT": fine,
			},
		},
		"tombstone, ours, answered": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID {
				g, _ := b.ours(t, true)
				g.Destroy(cell.ReasonOther)
				b.w.run(0)
				return g.ID()
			},
			want: map[string]outcome{"RELAY": fine, "RELAY_EARLY": fine, "DESTROY": fine, "CREDIT": fine},
		},
		"dying": { // the peer's DESTROY has come, ours waits for the link
			prepare: func(t *testing.T, b *bench) cell.CircuitID {
				g, _ := b.open(t, 5)
				b.tap.queued = 1 << 20
				b.in(destroyCell(g.ID()))
				return g.ID()
			},
		},
		"free again, theirs": {
			prepare: func(t *testing.T, b *bench) cell.CircuitID {
				g, _ := b.open(t, 5)
				b.in(destroyCell(g.ID()))
				if got := b.tap.commands(t); got != "DESTROY" {
					t.Fatalf("DESTROY was answered by %q", got)
				}
				return g.ID()
			},
			want: map[string]outcome{"CREATE": fine},
		},
	}
	for name, state := range states {
		for command, make := range commands {
			for _, dialled := range []bool{false, true} {
				t.Run(name+"/"+command, func(t *testing.T) {
					t.Parallel()
					want, ok := state.want[command]
					if !ok {
						want = linkError
					}
					b := newBench(t, benchOptions{dialled: dialled, silent: state.silent})
					id := state.prepare(t, b)
					b.tap.take(t)
					b.in(make(id))
					if got := b.tap.closed; got != (want == linkError) {
						t.Fatalf("link closed %v: %v", got, b.tap.reason)
					}
					if got := b.n.stats.CircuitErrors; got != map[outcome]uint64{circuitError: 1}[want] {
						t.Errorf("%d circuit errors", got)
					}
					if got := b.n.stats.LinkErrors; got != map[outcome]uint64{linkError: 1}[want] {
						t.Errorf("%d link errors", got)
					}
					if sent := b.tap.commands(t); (want == circuitError) != (sent == "DESTROY") && command != "DESTROY" {
						t.Errorf("answered by %q", sent)
					}
					b.check(t)
				})
			}
		}
	}
}

func TestBrokenLinkCellsCloseTheLink(t *testing.T) {
	t.Parallel()
	dirty := func(c []byte) []byte { c[cell.Size-1] = 1; return c }
	command := func(cmd byte, id cell.CircuitID) []byte {
		c := raw(0, id)
		c[4] = cmd
		return c
	}
	many := func(n int) (cells [][]byte) {
		for range n {
			cells = append(cells, raw(cell.CommandPadding, 0))
		}
		return cells
	}
	for name, c := range map[string]struct {
		o     benchOptions
		cells func(t *testing.T, b *bench) [][]byte
	}{
		"unknown command":       {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(11, 1)} }},
		"reserved command":      {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(10, 0)} }},
		"dry flag on DESTROY":   {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(0x84, 1)} }},
		"RELAY without circuit": {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(3, 0)} }},
		"PADDING on a circuit":  {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(0, 1)} }},
		"HELLO":                 {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(5, 0)} }},
		"no whole cell":         {cells: func(*testing.T, *bench) [][]byte { return [][]byte{make([]byte, 100)} }},
		"empty CREDIT":          {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(6, 0)} }},
		"empty GOSSIP":          {cells: func(*testing.T, *bench) [][]byte { return [][]byte{command(7, 0)} }},
		"garbage behind GOSSIP": {cells: func(*testing.T, *bench) [][]byte { return [][]byte{dirty(gossipCell("x"))} }},
		"LINK_DRAIN with data":  {cells: func(*testing.T, *bench) [][]byte { return [][]byte{dirty(command(8, 0))} }},
		"LINK_DRAIN twice": {cells: func(t *testing.T, b *bench) [][]byte {
			b.open(t, 1)
			return [][]byte{command(8, 0), command(8, 0)}
		}},
		"too much padding": {cells: func(*testing.T, *bench) [][]byte { return many(paddingBurst + 1) }},
		"CREATE to a client": {o: benchOptions{selfClient: true, dialled: true}, cells: func(_ *testing.T, b *bench) [][]byte {
			return [][]byte{createCell(b.theirs(1), 1)}
		}},
		"GOSSIP to a client": {o: benchOptions{selfClient: true, dialled: true}, cells: func(*testing.T, *bench) [][]byte {
			return [][]byte{gossipCell("x")}
		}},
		"GOSSIP from a client": {o: benchOptions{peerClient: true}, cells: func(*testing.T, *bench) [][]byte {
			return [][]byte{gossipCell("x")}
		}},
		"credit beyond 65535": {cells: func(t *testing.T, b *bench) [][]byte {
			g, _ := b.open(t, 1) // which brought 64
			return [][]byte{
				creditCell(cell.CreditPair{Circuit: g.ID(), Add: 65535 - 64}),
				creditCell(cell.CreditPair{Circuit: g.ID(), Add: 1}),
			}
		}},
		"RELAY beyond the credit of a tombstone": {cells: func(t *testing.T, b *bench) (cells [][]byte) {
			g, _ := b.open(t, 1)
			g.Destroy(cell.ReasonOther)
			for range b.n.links.cfg.Limits.InitialWindow + 1 {
				cells = append(cells, raw(cell.CommandRelay, g.ID()))
			}
			return cells
		}},
		"CREATED twice on a tombstone": {cells: func(t *testing.T, b *bench) [][]byte {
			g, _ := b.ours(t, false)
			g.Destroy(cell.ReasonOther)
			return [][]byte{createdCell(g.ID(), 1), createdCell(g.ID(), 1)}
		}},
		"circuits far beyond the limit": {
			o: benchOptions{limits: Limits{InitialWindow: 8, Reserve: 4, LinkQueue: 1 << 16, CircuitsPerLink: 2, MaxLinks: 9}},
			cells: func(t *testing.T, b *bench) (cells [][]byte) {
				for i := range 5 {
					cells = append(cells, createCell(b.theirs(i+1), 1))
				}
				return cells
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, c.o)
			cells := c.cells(t, b)
			b.in(cells[:len(cells)-1]...)
			if b.tap.closed {
				t.Fatalf("closed too early: %v", b.tap.reason)
			}
			b.in(cells[len(cells)-1])
			var wrong *ProtocolError
			if !b.tap.closed || !errors.As(b.tap.reason, &wrong) || b.n.stats.LinkErrors != 1 {
				t.Fatalf("closed %v, with %v; %d link errors", b.tap.closed, b.tap.reason, b.n.stats.LinkErrors)
			}
			if len(b.n.downs) != 1 || b.n.downs[0] != b.tap.reason {
				t.Errorf("node heard %v", b.n.downs)
			}
			for i, h := range b.hear {
				if b.legs[i].Alive() || len(h.destroyed) > 1 {
					t.Errorf("circuit %d heard %v", i, h.destroyed)
				}
			}
			b.w.checkEmpty(t)
		})
	}
}

func TestOverrunDestroysOnlyTheCircuit(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	// The cells must stay in a queue, or their credit would be due at once.
	g, h := b.open(t, 1)
	_, other := b.open(t, 2)
	b.tap.queued = 1 << 20 // no CREDIT gets out
	for range b.n.links.cfg.Limits.InitialWindow {
		b.in(raw(cell.CommandRelay, g.ID()))
	}
	if h.cells != b.n.links.cfg.Limits.InitialWindow || len(h.destroyed) != 0 {
		t.Fatalf("%d cells, destroyed %v", h.cells, h.destroyed)
	}
	b.in(raw(cell.CommandRelay, g.ID()))
	if h.cells != b.n.links.cfg.Limits.InitialWindow || len(h.destroyed) != 1 || h.destroyed[0] != cell.ReasonProtocol || b.n.stats.Overruns != 1 {
		t.Fatalf("%d cells, destroyed %v, overruns %d", h.cells, h.destroyed, b.n.stats.Overruns)
	}
	b.in(raw(cell.CommandRelay, b.theirs(2)))
	if b.tap.closed || other.cells != 1 {
		t.Errorf("link closed %v, other circuit got %d cells", b.tap.closed, other.cells)
	}
	b.check(t)
}

func TestRelayEarlyIsAPrefixOfAtMostEight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cells string // E and R
		ok    bool
	}{
		"eight":       {"EEEEEEEER", true},
		"nine":        {"EEEEEEEEE", false},
		"after RELAY": {"EERE", false},
		"none":        {"RRR", true},
	} {
		b := newBench(t, benchOptions{})
		g, h := b.open(t, 1)
		for _, x := range c.cells {
			b.in(raw(map[rune]cell.Command{'E': cell.CommandRelayEarly, 'R': cell.CommandRelay}[x], g.ID()))
		}
		if ok := len(h.destroyed) == 0; ok != c.ok {
			t.Errorf("%s: destroyed %v", name, h.destroyed)
		}
	}
}

func TestCreditGoesBackInOneCellATick(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	g1, _ := b.open(t, 1)
	g2, _ := b.open(t, 2)
	g3, _ := b.open(t, 3)
	quarter := b.n.links.batch(b.n.links.cfg.Limits.InitialWindow)
	for range quarter {
		b.in(raw(cell.CommandRelay, g1.ID()), raw(cell.CommandRelay, g2.ID()))
	}
	b.in(raw(cell.CommandRelay, g3.ID())) // too little to be worth it
	if got := b.tap.commands(t); got != "" {
		t.Fatalf("sent %q before the tick", got)
	}
	b.w.run(creditTick)
	cells, bodies := b.tap.take(t)
	if len(cells) != 1 || cells[0].Command != cell.CommandCredit {
		t.Fatalf("sent %v", cells)
	}
	pairs, err := cell.DecodeCredit(bodies[0], nil)
	if err != nil || len(pairs) != 2 || pairs[0] != (cell.CreditPair{Circuit: g1.ID(), Add: uint16(quarter)}) || pairs[1] != (cell.CreditPair{Circuit: g2.ID(), Add: uint16(quarter)}) {
		t.Fatalf("pairs %v, %v", pairs, err)
	}
	b.w.run(time.Second)
	if got := b.tap.commands(t); got != "" {
		t.Errorf("sent %q afterwards", got)
	}
	b.check(t)
}

func TestDryFlagMarksTheLastCreditWithMoreToSend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		send, credit int
		dry          bool
	}{{3, 3, false}, {4, 3, true}, {2, 3, false}} {
		b := newBench(t, benchOptions{})
		b.in(createCell(b.theirs(1), c.credit))
		b.tap.take(t)
		b.hear[0].send = c.send
		b.legs[0].Wake()
		b.w.run(0)
		cells, _ := b.tap.take(t)
		if len(cells) != min(c.send, c.credit) {
			t.Fatalf("%+v: sent %d cells", c, len(cells))
		}
		for i, h := range cells {
			if want := c.dry && i == len(cells)-1; h.Dry != want {
				t.Errorf("%+v: cell %d has dry %v", c, i, h.Dry)
			}
		}
	}
}

func TestCircuitsAreRefusedAtTheLimits(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.CircuitsPerLink = 3
	reserve := 2*limits.Reserve*cell.Size + legCost
	for name, o := range map[string]benchOptions{
		"circuits of the neighbour": {limits: limits},
		"reserve of the budget":     {budget: 3*reserve + reserve/2},
	} {
		b := newBench(t, o)
		for i := range 3 {
			b.open(t, i+1)
		}
		b.in(createCell(b.theirs(4), 1))
		cells, bodies := b.tap.take(t)
		if len(cells) != 1 || cells[0] != (cell.Header{Circuit: b.theirs(4), Command: cell.CommandDestroy}) ||
			bodies[0][0] != byte(cell.ReasonResource) || b.n.stats.Refused != 1 {
			t.Fatalf("%s: sent %v, refused %d", name, cells, b.n.stats.Refused)
		}
		// The tombstone counts too, and goes with the neighbour's DESTROY.
		b.in(destroyCell(b.theirs(4)), destroyCell(b.theirs(1)))
		b.tap.take(t)
		b.open(t, 5)
		b.check(t)
	}
}

func TestReserveIsAlwaysGivenBack(t *testing.T) {
	t.Parallel()
	// The budget has room for the reserves of two circuits and hardly more.
	limits := DefaultLimits()
	b := newBench(t, benchOptions{budget: 4*limits.Reserve*cell.Size + 2*legCost + 100})
	g1, h1 := b.open(t, 1)
	g2, _ := b.open(t, 2)
	for _, g := range []*Leg{g1, g2} {
		if got := g.in.outstanding(); got != limits.Reserve {
			t.Fatalf("granted %d at first", got)
		}
	}
	for range 50 {
		for range limits.Reserve {
			b.in(raw(cell.CommandRelay, g1.ID()))
		}
		b.w.run(creditTick)
		if got := g1.in.outstanding(); got != limits.Reserve {
			t.Fatalf("got back %d of %d", got, limits.Reserve)
		}
	}
	if len(h1.destroyed) != 0 {
		t.Errorf("destroyed %v", h1.destroyed)
	}
	b.check(t)
}

func TestTombstoneOfAMinuteClosesTheLink(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	g, _ := b.open(t, 1)
	g.Destroy(cell.ReasonOther)
	// The neighbour is alive, but does not answer.
	for i := range 59 {
		b.w.run(time.Second)
		b.in(raw(cell.CommandPadding, 0))
		if b.tap.closed {
			t.Fatalf("closed after %d s: %v", i, b.tap.reason)
		}
	}
	b.w.run(2 * time.Second)
	if !b.tap.closed || b.n.stats.LinkErrors != 1 {
		t.Fatal("link was not closed")
	}
	b.w.checkEmpty(t)
}

func TestSilentNeighbourIsGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	_, h := b.open(t, 1)
	b.w.run(5 * time.Second)
	if got := b.tap.commands(t); got != "PADDING" {
		t.Errorf("sent %q on an idle link", got)
	}
	if !b.w.runUntil(15*time.Second, func() bool { return b.tap.closed }) {
		t.Fatal("link was not closed")
	}
	if got := b.w.now.Sub(b.l.born); got != DefaultDead {
		t.Errorf("closed after %v", got)
	}
	if len(h.destroyed) != 1 || h.destroyed[0] != cell.ReasonDestroyed || len(b.n.downs) != 1 || b.n.stats.DeadLinks != 1 {
		t.Errorf("circuit heard %v, node heard %v", h.destroyed, b.n.downs)
	}
	b.w.checkEmpty(t)
	if len(b.w.queue) != 0 && b.w.step() {
		t.Error("a timer is left")
	}
}

// TestLinkBetweenRelaysRests: with circuits on which nothing is sent it pads seldom and may be silent for long, like one
// without; from the next cell of a circuit on, of either side, silence ends it as ever. A client's link never rests.
func TestLinkBetweenRelaysRests(t *testing.T) {
	t.Parallel()
	rested := func(o benchOptions) (*bench, *Leg) {
		o.idle = time.Minute
		b := newBench(t, o)
		g, _ := b.open(t, 1)
		for end := b.w.now.Add(b.n.links.restTime()); b.w.now < end; b.w.run(time.Second) {
			b.in(raw(cell.CommandPadding, 0))
		}
		b.tap.take(t)
		b.w.run(2 * time.Minute)
		return b, g
	}
	for name, stir := range map[string]func(b *bench, g *Leg){
		"a cell comes": func(b *bench, g *Leg) { b.in(raw(cell.CommandRelay, g.ID())) },
		"a cell goes":  func(b *bench, g *Leg) { b.ours(t, false) },
	} {
		b, g := rested(benchOptions{})
		if b.tap.closed {
			t.Fatalf("%s: closed at rest: %v", name, b.tap.reason)
		}
		if got := b.tap.commands(t); got != "PADDING PADDING" {
			t.Errorf("%s: sent %q in two minutes", name, got)
		}
		stir(b, g)
		b.w.run(DefaultDead - time.Second)
		if b.tap.closed {
			t.Errorf("%s: closed for silence from before", name)
		}
		b.w.run(DefaultKeepalive + 2*time.Second)
		if !b.tap.closed {
			t.Errorf("%s: not closed for silence after", name)
		}
		b.w.checkEmpty(t)
	}
	if b, _ := rested(benchOptions{peerClient: true}); !b.tap.closed {
		t.Error("a link with a client rests")
	}
}

func TestKeepaliveHoldsAnIdleLink(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	a, b := w.node(nodeOptions{}), w.node(nodeOptions{client: true})
	w.connect(b, a, linkOptions{delay: 300 * time.Millisecond})
	w.run(10 * time.Minute)
	if len(a.downs)+len(b.downs) != 0 {
		t.Errorf("links went down: %v %v", a.downs, b.downs)
	}
	if out := a.stats.CellsOut; out < 140 || out > 160 {
		t.Errorf("%d cells in 10 minutes", out)
	}
}

// TestLinkWithoutCircuitsIsQuiet: it pads seldom and may be silent for long; with its first circuit that is over, on
// both sides.
func TestLinkWithoutCircuitsIsQuiet(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	a, b := w.node(nodeOptions{idle: time.Minute}), w.node(nodeOptions{idle: time.Minute})
	w.connect(b, a, linkOptions{delay: 300 * time.Millisecond})
	w.run(time.Hour)
	if len(a.downs)+len(b.downs) != 0 {
		t.Errorf("links went down: %v %v", a.downs, b.downs)
	}
	if out := a.stats.CellsOut; out < 55 || out > 61 {
		t.Errorf("%d cells in an hour", out)
	}
	// The neighbour has been silent for two minutes when a circuit is made to it, and stays so.
	s := newBench(t, benchOptions{idle: time.Minute, silent: true})
	s.w.run(2 * time.Minute)
	if s.tap.closed {
		t.Fatalf("closed: %v", s.tap.reason)
	}
	if got := s.tap.commands(t); got != "PADDING PADDING" {
		t.Errorf("sent %q in two minutes", got)
	}
	began := s.w.now
	_, h := s.ours(t, false)
	s.w.run(DefaultDead - time.Second)
	if s.tap.closed {
		t.Error("closed for silence from before the circuit")
	}
	s.w.run(DefaultKeepalive + 2*time.Second)
	if !s.tap.closed || len(h.destroyed) != 1 {
		t.Errorf("not closed %v after the first circuit", s.w.now.Sub(began))
	}
	// Nor is a link without circuits kept for ever.
	q := newBench(t, benchOptions{idle: time.Minute})
	q.w.run(15*DefaultDead + time.Minute)
	if !q.tap.closed {
		t.Error("a silent link is not closed")
	}
}

func TestOwnSleepIsNotTheNeighboursDeath(t *testing.T) {
	t.Parallel()
	// An hour during which this node did not run: its timer fires late, before it has read
	// what came meanwhile.
	b := newBench(t, benchOptions{})
	g, _ := b.open(t, 1)
	g.Destroy(cell.ReasonOther)
	b.w.run(time.Second)
	b.w.now = b.w.now.Add(time.Hour)
	b.w.step() // the late timer
	if b.tap.closed {
		t.Fatalf("closed at once: %v", b.tap.reason)
	}
	b.in(raw(cell.CommandPadding, 0), destroyCell(g.ID()))
	b.w.run(DefaultKeepalive)
	if b.tap.closed {
		t.Fatalf("closed although the neighbour spoke: %v", b.tap.reason)
	}
	// But one that stays silent is still found.
	b.w.now = b.w.now.Add(time.Hour)
	b.w.step()
	b.w.run(DefaultKeepalive + time.Second)
	if !b.tap.closed {
		t.Error("not closed although the neighbour stayed silent")
	}
	b.w.checkEmpty(t)
}

func TestGossipHasABudget(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	for range gossipBurst + 10 {
		b.in(gossipCell("rumour"))
	}
	if len(b.data) != gossipBurst || b.n.stats.GossipDropped != 10 || string(b.data[0]) != "rumour" {
		t.Errorf("heard %d packets, %d dropped", len(b.data), b.n.stats.GossipDropped)
	}
	b.w.run(time.Second)
	b.in(gossipCell("later"))
	if len(b.data) != gossipBurst+1 {
		t.Error("the budget does not refill")
	}
	// What this node sends never exceeds what a neighbour of its kind takes.
	sent := 0
	for range 20 {
		for b.l.Gossip([]byte("x")) {
			sent++
			b.w.run(0)
		}
		b.w.run(100 * time.Millisecond)
	}
	if sent < 200 || sent > gossipBurst+2*50 {
		t.Errorf("sent %d packets in 2 s", sent)
	}
	if b.l.Gossip(nil) || b.l.Gossip(make([]byte, cell.MaxGossip+1)) {
		t.Error("a packet of a wrong length was taken")
	}
	b.check(t)
}

func TestScheduler(t *testing.T) {
	t.Parallel()
	// Two bulk circuits with endless data, then one that was idle: its cell goes next.
	limits := DefaultLimits()
	limits.LinkQueue = 64 << 10
	b := newBench(t, benchOptions{limits: limits})
	var legs []*Leg
	for i := range 3 {
		b.in(createCell(b.theirs(i+1), 60000))
		legs = append(legs, b.legs[i])
	}
	b.tap.take(t)
	b.w.run(time.Second)
	b.tap.slow = true
	for i := range 2 {
		b.hear[i].send = 10000
		legs[i].Wake()
	}
	b.w.run(0)
	cells, _ := b.tap.take(t)
	if len(cells) != 32 {
		t.Fatalf("%d cells were given to an empty link", len(cells))
	}
	var counts [3]int
	for round := range 101 { // one cell leaves the link at a time; the quanta are used up after 32
		if round == 90 {
			b.hear[2].send = 1
			legs[2].Wake()
		}
		b.tap.queued -= cell.Size
		b.l.OnDrained()
		cells, _ := b.tap.take(t)
		if len(cells) != 1 {
			t.Fatalf("%d cells were sent where one had room", len(cells))
		}
		k := int(cells[0].Circuit &^ cell.InitiatorBit)
		if (round == 90) != (k == 3) {
			t.Errorf("circuit %d in round %d", k, round)
		}
		if round >= 40 {
			counts[k-1]++
		}
	}
	if d := counts[0] - counts[1]; d < -mostTurn || d > mostTurn || counts[2] != 1 { // this link is as fast as can be
		t.Errorf("turns were not fair: %v", counts)
	}
}
