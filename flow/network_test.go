package flow

import (
	"slices"
	"testing"
	"time"

	"cepa/cell"
)

// network is random relays, and circuits over random paths of three of them, all with little
// of everything.
type network struct {
	w        *world
	paths    []*path
	circuits []*circuit
	xs       []*exchange
}

func newNetwork(t testing.TB, seed uint64, leastBatch int) *network {
	t.Helper()
	w := newWorld(seed)
	r := w.rng
	x := &network{w: w}
	limits := Limits{
		InitialWindow: 2 + r.IntN(8), Reserve: 2, LinkQueue: cell.Size * (1 + r.IntN(4)), CircuitsPerLink: 100, MaxLinks: 100,
	}
	if r.IntN(2) == 0 { // windows that grow
		limits.MaxWindow = 8 + r.IntN(200)
	}
	circuits := 2 + r.IntN(6)
	var paths []*path
	var relays []*testNode
	for range 3 + r.IntN(3) {
		// Room for the reserves of all circuits, and for what their ends may hold.
		n := w.node(nodeOptions{
			limits: limits, budget: 2*circuits*limits.Reserve*cell.Size + 1<<20 + r.IntN(1<<20),
			uplink: int64(seed%5) * 150_000, // of every fifth network nobody knows it
		})
		n.links.leastBatch = leastBatch
		n.onCreate = func(g *Leg, c cell.Create) {
			p := paths[c.Handshake[0]]
			p.serve(slices.Index(p.relays, n), g, c)
		}
		relays = append(relays, n)
	}
	client := w.node(nodeOptions{limits: limits, client: true})
	client.links.leastBatch = leastBatch
	links := make(map[[2]*testNode]*Link)
	connect := func(a, b *testNode) *Link {
		if links[[2]*testNode{a, b}] == nil {
			o := linkOptions{delay: time.Duration(r.IntN(20)) * time.Millisecond, rate: float64(100000 + r.IntN(4000000))}
			links[[2]*testNode{a, b}], links[[2]*testNode{b, a}] = w.connect(a, b, o)
		}
		return links[[2]*testNode{a, b}]
	}
	for i := range circuits {
		p := &path{w: w, client: client, number: byte(i)}
		for _, g := range []*Windows{&p.grantC, &p.grantE} {
			*g = Windows{Stream: uint32(1 + r.IntN(20000))}
			g.Circuit = g.Stream * uint32(2+r.IntN(3))
		}
		last := client
		for _, k := range r.Perm(len(relays))[:3] {
			p.relays = append(p.relays, relays[k])
			p.links = append(p.links, connect(last, relays[k]))
			last = relays[k]
		}
		paths = append(paths, p)
		c := p.circuit(t)
		x.paths, x.circuits = append(x.paths, p), append(x.circuits, c)
		if !w.runUntil(time.Minute, func() bool { return c.created }) {
			t.Fatalf("seed %d: circuit %d was not built", seed, i)
		}
		// A tiny window takes a message each way for so many bytes: give it less to carry.
		most := min(100000, 20*int(min(p.grantC.Stream, p.grantE.Stream)))
		size := func() [2]int { return [2]int{r.IntN(most), r.IntN(most)} }
		x.xs = append(x.xs, p.exchanges(t, c, func(e *exchange) {
			for _, conn := range []*testConn{e.client, e.exit} {
				conn.piece = 1 + r.IntN(30000)
				if r.IntN(3) == 0 {
					conn.rate = float64(50000 + r.IntN(1000000))
				}
			}
		}, size(), size())...)
	}
	return x
}

func TestNoNetworkDeadlocks(t *testing.T) {
	t.Parallel()
	n := seeds(100)
	if n > 100 {
		n = 10_000
	}
	for seed := range n {
		x := newNetwork(t, seed, 0)
		done := allDone(x.xs)
		for range 1800 { // half an hour, with a look at the accounts each second
			if x.w.runUntil(time.Second, done) || done() {
				break
			}
			x.w.check(t)
		}
		if !done() {
			t.Fatalf("seed %d: stuck", seed)
		}
		for _, e := range x.xs {
			e.verify(t)
		}
		x.w.check(t)
		for i, n := range x.w.nodes {
			if s := n.stats; s.LinkErrors+s.CircuitErrors+s.Overruns+s.BudgetVictims+s.Stuck+s.DeadLinks != 0 {
				t.Errorf("node %d: %+v", i, *s)
			}
		}
		for _, c := range x.circuits {
			c.end(cell.ReasonNone)
		}
		x.w.run(10 * time.Second)
		x.w.checkEmpty(t)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// Circuits that rest for as long as they like go on afterwards: what was given back is granted again.
func TestRestingCircuitsGoOn(t *testing.T) {
	t.Parallel()
	returned := false
	for seed := range seeds(10) {
		x := newNetwork(t, seed, 0)
		r := x.w.rng
		for _, rest := range []time.Duration{2 * time.Second, returnTime, returnTime + 4*time.Second, hoardTime, 2 * hoardTime} {
			if !x.w.runUntil(10*time.Minute, allDone(x.xs)) {
				t.Fatalf("seed %d: stuck before a rest of %v", seed, rest)
			}
			x.w.run(rest + time.Duration(r.IntN(200)-100)*time.Millisecond)
			for i, p := range x.paths {
				most := min(50_000, 20*int(min(p.grantC.Stream, p.grantE.Stream)))
				x.xs = append(x.xs, p.exchanges(t, x.circuits[i], nil, [2]int{r.IntN(most), r.IntN(most)})...)
			}
		}
		if !x.w.runUntil(10*time.Minute, allDone(x.xs)) {
			t.Fatalf("seed %d: stuck after a rest", seed)
		}
		for _, e := range x.xs {
			e.verify(t)
		}
		x.w.check(t)
		for i, n := range x.w.nodes {
			returned = returned || n.stats.Returned > 0
			if s := n.stats; s.LinkErrors+s.CircuitErrors+s.Overruns+s.BudgetVictims+s.Stuck+s.DeadLinks+s.Hoarders != 0 {
				t.Errorf("node %d: %+v", i, *s)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if !returned {
		t.Error("nothing was given back")
	}
}

// The test above the last is worth something only if it can fail: it does when the threshold for a
// CREDIT is above the window.
func TestNetworksDeadlockWithoutTheBatchRule(t *testing.T) {
	t.Parallel()
	stuck := 0
	for seed := range uint64(10) {
		x := newNetwork(t, seed, 1000)
		if !x.w.runUntil(50*time.Second, allDone(x.xs)) {
			stuck++
		}
	}
	if stuck < 9 {
		t.Errorf("only %d of 10 networks were stuck", stuck)
	}
}

func TestBudgetTakesTheSniper(t *testing.T) {
	t.Parallel()
	// A relay with room for 4 MiB; the far relay stops to give credit for 60 of 64 circuits
	// whose exits keep sending, while 4 honest ones go on.
	w := newWorld(1)
	limits := DefaultLimits()
	limits.OneSite = true
	p := newPath(w, 3, linkOptions{delay: 2 * time.Millisecond}, nodeOptions{budget: 4 << 20, limits: limits})
	middle := p.relays[1]
	var circuits []*circuit
	var xs []*exchange
	for range 64 {
		c := p.circuit(t)
		w.run(100 * time.Millisecond)
		circuits = append(circuits, c)
		xs = append(xs, p.exchanges(t, c, nil, [2]int{0, 1 << 20})...)
	}
	// The client of all but four goes deaf: the guard's legs towards it get no credit any more.
	guard := p.relays[0]
	for i, h := range p.hops {
		if h.n == guard && i/3 >= 4 {
			h.prev.credit = 0
		}
	}
	most := 0
	ok := w.runUntil(time.Minute, func() bool {
		most = max(most, guard.budget.Used(), middle.budget.Used())
		return allDone(xs[:4])()
	})
	if !ok {
		t.Fatal("the honest circuits did not go on")
	}
	for _, x := range xs[:4] {
		x.verify(t)
	}
	if most > 4<<20 {
		t.Errorf("%d bytes were held", most)
	}
	w.check(t)
	for _, c := range circuits {
		c.end(cell.ReasonNone)
	}
	w.run(10 * time.Second)
	w.checkEmpty(t)
}

func TestVictimsAreThoseThatHoldMostForLongest(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{budget: 100 * cell.Size})
	b.n.links.cfg.Limits.InitialWindow = 60
	var legs, from []*Leg
	var hears []*hearing
	for i := range 4 {
		g, h := b.open(t, 2*i+1)
		legs, hears = append(legs, g), append(hears, h)
		g.credit = 0
		f, _ := b.open(t, 2*i+2)
		from = append(from, f)
		f.in.granted, f.in.received = 1000, 0
	}
	fill := func(i, n int) {
		body := make([]byte, cell.BodySize)
		for range n {
			from[i].in.received++
			legs[i].Relay(cell.CommandRelay, body, from[i])
		}
	}
	fill(0, 20) // 20 cells for 1.1 s
	b.w.run(time.Second)
	fill(1, 30) // 30 cells for 0.1 s
	b.w.run(100 * time.Millisecond)
	fill(2, 40) // 40 cells for no time
	fill(3, 10)
	if used := b.n.budget.Used(); used != 100*cell.Size {
		t.Fatalf("%d bytes used", used)
	}
	b.check(t)
	fill(3, 1)
	if !legs[0].Alive() || !legs[1].Alive() || b.n.budget.Used() != 101*cell.Size {
		t.Fatal("memory was taken in the middle of an event")
	}
	b.w.run(0)
	// 101 cells are too many; the first to go leaves 81, the second 51: below three quarters.
	for i, want := range []int{1, 1, 0, 0} {
		if len(hears[i].destroyed) != want {
			t.Errorf("circuit %d heard %v", i, hears[i].destroyed)
		}
	}
	if b.n.budget.Used() != 51*cell.Size || b.n.stats.BudgetVictims != 2 {
		t.Errorf("%d cells are left, %d victims", b.n.budget.Used()/cell.Size, b.n.stats.BudgetVictims)
	}
	b.check(t)
}

func TestStreamsAreVictimsToo(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	p := newPath(w, 2, linkOptions{delay: time.Millisecond}, nodeOptions{budget: 1 << 20})
	c := p.circuit(t)
	i := 0
	xs := p.exchanges(t, c, func(x *exchange) {
		if i++; i <= 6 { // whose destinations do not read
			x.exit.rate = -1
		}
	}, [2]int{1 << 20, 0}, [2]int{1 << 20, 0}, [2]int{1 << 20, 0}, [2]int{1 << 20, 0}, [2]int{1 << 20, 0}, [2]int{1 << 20, 0}, [2]int{200 << 10, 0})
	exit := p.relays[1]
	most := 0
	w.runUntil(20*time.Second, func() bool { most = max(most, exit.budget.Used()); return false })
	if exit.stats.BudgetVictims == 0 {
		t.Error("nobody lost anything")
	}
	// It is over the limit only within an event, by one payload at most.
	if most > 1<<20+cell.PayloadSize {
		t.Errorf("%d bytes were held", most)
	}
	if !xs[6].done() || xs[6].clog.reason != cell.ReasonNone {
		t.Errorf("the stream that was read ended with %+v", xs[6].clog)
	}
	for _, x := range xs[:6] {
		if x.elog.ended && x.elog.reason != cell.ReasonResource {
			t.Errorf("a victim heard %v", x.elog.reason)
		}
	}
	c.end(cell.ReasonNone)
	w.run(time.Second)
	w.checkEmpty(t)
}

func TestQueueThatDoesNotMoveForAMinuteIsDestroyed(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	p := newPath(w, 3, linkOptions{delay: time.Millisecond})
	c := p.circuit(t)
	xs := p.exchanges(t, c, nil, [2]int{0, 1 << 20})
	if !w.runUntil(time.Second, func() bool { return len(xs[0].client.got) > 100000 }) {
		t.Fatal("nothing comes")
	}
	// The guard becomes an attacker who does not return credit.
	middle := p.hops[1]
	p.relays[0].links.leastBatch = 1 << 30
	w.run(50 * time.Second)
	if middle.gone || middle.prev.Queued() == 0 || middle.prev.Credit() != 0 {
		t.Fatal("destroyed too early")
	}
	w.run(20 * time.Second)
	if !middle.gone || middle.n.stats.Stuck != 1 || middle.reason != cell.ReasonTimeout {
		t.Fatalf("gone %v, %+v", middle.gone, *middle.n.stats)
	}
	if len(middle.n.downs) != 0 || !xs[0].clog.ended || xs[0].clog.reason != cell.ReasonDestroyed {
		t.Errorf("links down %v, client heard %+v", middle.n.downs, xs[0].clog)
	}
	w.checkEmpty(t)
}
