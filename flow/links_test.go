package flow

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// got collects the answers of To.
type got struct {
	links []*Link
	errs  []error
}

func (g *got) done(l *Link, err error) {
	g.links = append(g.links, l)
	g.errs = append(g.errs, err)
}

func TestToSharesLinksAndDials(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	a, b := w.node(nodeOptions{}), w.node(nodeOptions{})
	var g got
	for range 3 {
		a.links.To(b.target(), g.done)
	}
	if len(g.links) != 0 {
		t.Fatal("answered before To returned")
	}
	w.run(time.Second)
	if a.dials != 1 || len(g.links) != 3 || g.links[0] == nil || g.links[0] != g.links[2] {
		t.Fatalf("%d dials, answers %v %v", a.dials, g.links, g.errs)
	}
	a.links.To(b.target(), g.done)
	if len(g.links) != 3 {
		t.Fatal("answered before To returned")
	}
	w.run(0)
	b.links.To(a.target(), g.done) // the same link from the other side
	w.run(time.Second)
	if a.dials+b.dials != 1 || len(g.links) != 5 || g.links[3] != g.links[0] || g.links[4] != b.links.Open(a.id) || g.links[4] == nil {
		t.Fatalf("%d dials, answers %v %v", a.dials+b.dials, g.links, g.errs)
	}
	a.links.To(a.target(), g.done)
	a.dialErr = errors.New("no route")
	a.links.To(env.Target{Identity: neighbour}, g.done)
	w.run(time.Second)
	if !errors.Is(g.errs[5], ErrSelf) || !errors.Is(g.errs[6], a.dialErr) {
		t.Errorf("errors %v", g.errs)
	}
	w.check(t)
}

func TestCrossedDialsLeaveTheLinkOfTheSmallerIdentity(t *testing.T) {
	t.Parallel()
	for _, delays := range [][2]time.Duration{{5, 5}, {5, 7}, {9, 5}} {
		w := newWorld(1)
		a, b := w.node(nodeOptions{}), w.node(nodeOptions{}) // a has the smaller identity
		a.delay, b.delay = delays[0]*time.Millisecond, delays[1]*time.Millisecond
		var g, h got
		a.links.To(b.target(), g.done)
		b.links.To(a.target(), h.done)
		w.run(time.Second)
		if a.dials+b.dials != 2 || len(g.links) != 1 || len(h.links) != 1 || g.links[0] == nil || h.links[0] == nil {
			t.Fatalf("%d dials, answers %v, %v", a.dials+b.dials, g, h)
		}
		// The other one was drained and, having no circuits, closed.
		if n, m := len(a.links.All()), len(b.links.All()); n != 1 || m != 1 {
			t.Fatalf("%v: %d and %d links are left", delays, n, m)
		}
		if l := a.links.All()[0]; !l.Peer().Dialled || l.Draining() {
			t.Errorf("%v: the wrong link stayed", delays)
		}
		if a.stats.LinkErrors+b.stats.LinkErrors != 0 {
			t.Error("link errors")
		}
		w.checkEmpty(t)
	}
}

func TestDrainingLinkKeepsItsCircuits(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	p := newPath(w, 2, linkOptions{delay: time.Millisecond})
	c := p.circuit(t)
	xs := p.exchanges(t, c, func(x *exchange) { x.exit.every = 20 * time.Second / 64 }, [2]int{0, 1 << 20})
	w.run(time.Second)
	old := p.links[1]
	old.Renew()
	w.run(time.Second)
	young := p.relays[0].links.Open(p.relays[1].id)
	if young == old || young == nil || !old.Draining() || young.Draining() {
		t.Fatalf("renewed from %p to %p", old, young)
	}
	if _, err := old.Create(new(hearing), 1, []byte("h")); !errors.Is(err, ErrDraining) {
		t.Errorf("Create on the old link: %v", err)
	}
	if !w.runUntil(time.Minute, allDone(xs)) || !bytes.Equal(xs[0].client.got, xs[0].down) {
		t.Fatal("the circuit did not survive")
	}
	if !old.Open() {
		t.Fatal("closed under a circuit")
	}
	c.end(cell.ReasonNone)
	w.run(time.Second)
	if old.Open() || len(p.relays[0].links.All()) != 2 || len(p.relays[1].links.All()) != 1 {
		t.Errorf("old link open %v, %d and %d links", old.Open(), len(p.relays[0].links.All()), len(p.relays[1].links.All()))
	}
	w.checkEmpty(t)
}

func TestLinkIsRenewedAfterADayAndClosedAnHourLater(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	p := newPath(w, 2, linkOptions{delay: time.Millisecond})
	c := p.circuit(t)
	w.run(renewAfter - time.Minute)
	if n := p.client.dials + p.relays[0].dials; n != 0 || c.gone {
		t.Fatalf("%d dials in the first day", n)
	}
	w.run(2 * time.Minute)
	if p.client.dials != 1 || p.relays[0].dials != 1 || p.relays[1].dials != 0 || c.gone {
		t.Fatalf("dials: %d %d %d", p.client.dials, p.relays[0].dials, p.relays[1].dials)
	}
	w.run(drainTime - 2*time.Minute)
	if c.gone {
		t.Fatal("the circuit was closed too early")
	}
	w.run(3 * time.Minute)
	if !c.gone || len(p.client.links.All()) != 1 || p.client.links.Open(p.relays[0].id) == nil {
		t.Errorf("circuit gone %v, %d links", c.gone, len(p.client.links.All()))
	}
	w.checkEmpty(t)
}

func TestRenewalIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	a, b := w.node(nodeOptions{}), w.node(nodeOptions{})
	l, _ := w.connect(a, b, linkOptions{})
	a.dialErr = errors.New("no route")
	l.Renew()
	w.run(renewRetry - time.Second)
	if a.dials != 1 || !l.Open() || l.Draining() {
		t.Fatalf("%d dials", a.dials)
	}
	a.dialErr = nil
	w.run(time.Minute)
	if a.dials != 2 || l.Open() || a.links.Open(b.id) == nil {
		t.Errorf("%d dials, old link open %v", a.dials, l.Open())
	}
}

func TestNothingIsHeardAfterClose(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	p := newPath(w, 3, linkOptions{delay: time.Millisecond})
	c := p.circuit(t)
	p.exchanges(t, c, nil, [2]int{1 << 20, 1 << 20})
	w.run(20 * time.Millisecond)
	middle := p.relays[1]
	var g got
	middle.links.To(p.client.target(), g.done)
	middle.links.Close(errors.New("shutting down"))
	h := p.hops[1]
	if h.gone || len(middle.downs) != 0 {
		t.Fatal("heard something in Close")
	}
	w.run(time.Minute)
	if h.gone || len(middle.downs) != 0 || len(g.links) != 0 {
		t.Error("heard something after Close")
	}
	if s := middle.stats; s.Legs != 0 || s.Links != 0 || s.QueuedBytes != 0 || middle.budget.Used() != 0 || len(middle.budget.holders) != 0 {
		t.Errorf("left: %+v", *s)
	}
	// Others see their links go, and the circuit with them.
	if !c.gone || !p.hops[0].gone || !p.hops[2].gone {
		t.Error("the neighbours keep the circuit")
	}
}

func TestLinkGoingDownTakesItsCircuits(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	p := newPath(w, 3, linkOptions{delay: time.Millisecond})
	var cs []*circuit
	var xs []*exchange
	for range 5 {
		c := p.circuit(t)
		w.run(50 * time.Millisecond)
		cs = append(cs, c)
	}
	for _, c := range cs {
		xs = append(xs, p.exchanges(t, c, nil, [2]int{4 << 20, 4 << 20})...)
	}
	w.run(20 * time.Millisecond)
	why := errors.New("cable cut")
	p.links[2].Close(why)
	if p.hops[1].gone {
		t.Error("OnDestroyed was called before Close returned")
	}
	w.run(time.Second)
	for i, c := range cs {
		if !c.gone || xs[i].clog.reason != cell.ReasonDestroyed || xs[i].elog.reason != cell.ReasonDestroyed {
			t.Errorf("circuit %d: gone %v, heard %v and %v", i, c.gone, xs[i].clog.reason, xs[i].elog.reason)
		}
	}
	if downs := p.relays[1].downs; len(downs) != 1 || downs[0] != why {
		t.Errorf("node heard %v", downs)
	}
	if len(p.relays[0].downs) != 0 {
		t.Error("another link went down")
	}
	w.checkEmpty(t)
}

func TestLinkLimit(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.MaxLinks = 2
	w := newWorld(1)
	a := w.node(nodeOptions{limits: limits})
	for i := range 3 {
		l, _ := w.connect(w.node(nodeOptions{client: true}), a, linkOptions{})
		if (l != nil) != (i < 2) {
			t.Errorf("link %d: %v", i, l)
		}
	}
	var g got
	a.links.To(w.node(nodeOptions{}).target(), g.done)
	w.run(time.Second)
	if len(g.errs) != 1 || !errors.Is(g.errs[0], ErrLinkLimit) || a.dials != 0 {
		t.Errorf("To: %v", g.errs)
	}
	if x, _ := w.pair(a.id, a.id, linkOptions{}); a.links.LinkUp(x) != nil {
		t.Error("a link to itself was taken")
	}
}

func TestCreateErrors(t *testing.T) {
	t.Parallel()
	h := new(hearing)
	b := newBench(t, benchOptions{peerClient: true})
	if _, err := b.l.Create(h, 1, []byte("h")); !errors.Is(err, ErrToClient) {
		t.Errorf("towards a client: %v", err)
	}
	limits := DefaultLimits()
	limits.CircuitsPerLink = 1
	b = newBench(t, benchOptions{limits: limits})
	var bad *cell.Error
	if _, err := b.l.Create(h, 1, nil); !errors.As(err, &bad) {
		t.Errorf("without handshake: %v", err)
	}
	b.check(t)
	g, _ := b.ours(t, true)
	if _, err := b.l.Create(h, 1, []byte("h")); !errors.Is(err, ErrCircuitLimit) {
		t.Errorf("beyond the limit: %v", err)
	}
	g.Destroy(cell.ReasonNone)
	if _, err := b.l.Create(h, 1, []byte("h")); !errors.Is(err, ErrCircuitLimit) {
		t.Errorf("beyond the limit, with a tombstone: %v", err)
	}
	b = newBench(t, benchOptions{budget: 100})
	if _, err := b.l.Create(h, 1, []byte("h")); !errors.Is(err, ErrBudget) {
		t.Errorf("without budget: %v", err)
	}
	b.l.Close(nil)
	if _, err := b.l.Create(h, 1, []byte("h")); !errors.Is(err, ErrClosed) {
		t.Errorf("on a closed link: %v", err)
	}
	// One that is destroyed before its CREATE was written was never there.
	b = newBench(t, benchOptions{})
	b.tap.queued = 1 << 20
	g, err := b.l.Create(h, 1, []byte("h"))
	must(t, err)
	g.Destroy(cell.ReasonNone)
	b.tap.queued = 0
	b.l.OnDrained()
	if got := b.tap.commands(t); got != "" {
		t.Errorf("sent %q", got)
	}
	b.w.checkEmpty(t)
}

// TestWornLinkIsRenewed: the shell says that a session has carried enough, and circuits after
// that go to a younger link.
func TestWornLinkIsRenewed(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	var e env.LinkEvents = b.l
	r, ok := e.(interface{ OnRenew() })
	if !ok {
		t.Fatal("links do not hear that they are worn")
	}
	r.OnRenew()
	if !b.l.Draining() && !b.l.renewing {
		t.Error("the link goes on as before")
	}
}
