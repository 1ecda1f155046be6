package flow

import (
	"testing"
	"time"

	"cepa/cell"
)

// TestCircuitsGivenUpLeaveNothingBehind: towards a neighbour that speaks but does not read, CREATEs
// are never written, so that no tombstone bounds how many circuits come and go.
func TestCircuitsGivenUpLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	b.tap.queued = 1 << 20
	first, err := b.l.Create(new(hearing), 1, []byte("h"))
	must(t, err)
	for range 1000 {
		g, err := b.l.Create(new(hearing), 1, []byte("h"))
		must(t, err)
		b.w.run(time.Millisecond)
		g.Destroy(cell.ReasonNone)
		if g.h != nil {
			t.Fatal("a dead leg holds its handler")
		}
	}
	n := 0
	for at := b.l.heads.first; at != nil; at = at.next {
		n++
	}
	if n != 1 || b.l.heads.first.of != first || b.n.budget.Used() != cell.Size {
		t.Errorf("%d CREATEs wait, %d bytes used", n, b.n.budget.Used())
	}
	b.check(t)
	b.tap.queued = 0
	b.l.OnDrained()
	if got := b.tap.commands(t); got != "CREATE" {
		t.Errorf("sent %q", got)
	}
}

// TestCreditDueGoesWithTheCircuit: what is due to a circuit that is gone is due to nobody.
func TestCreditDueGoesWithTheCircuit(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	g1, _ := b.open(t, 1)
	g2, _ := b.open(t, 2)
	for range b.n.links.batch(b.n.links.cfg.Limits.InitialWindow) {
		b.in(raw(cell.CommandRelay, g1.ID()), raw(cell.CommandRelay, g2.ID()))
	}
	g1.Destroy(cell.ReasonNone)
	if b.l.due.first == nil || b.l.due.first.of != g2 || b.l.due.last.of != g2 {
		t.Error("the list of credit due holds a dead circuit")
	}
	b.w.run(creditTick)
	if got := b.tap.commands(t); got != "DESTROY CREDIT" {
		t.Errorf("sent %q", got)
	}
	b.check(t)
}

// TestNeighbourThatDoesNotReadIsGivenUp: one that speaks but takes nothing holds what waits for it.
func TestNeighbourThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		takes time.Duration // between two times at which the neighbour takes a cell; 0: never
		want  bool
	}{
		"takes nothing":             {0, true},
		"takes a cell too late":     {DefaultDead + time.Second, true},
		"takes little, in time":     {DefaultDead - time.Second, false},
		"takes a cell now and then": {DefaultKeepalive - time.Second, false},
	} {
		b := newBench(t, benchOptions{})
		_, h := b.open(t, 1)
		b.w.run(3 * time.Second) // nothing waits yet, and time passes
		b.in(raw(cell.CommandPadding, 0))
		b.tap.slow = true
		began := b.w.now
		for i := range 120 {
			b.w.run(time.Second)
			if b.tap.closed {
				break
			}
			b.in(raw(cell.CommandPadding, 0))
			if c.takes > 0 && (i+1)%int(c.takes/time.Second) == 0 {
				b.tap.queued = max(b.tap.queued-cell.Size, 0)
				b.l.OnDrained()
			}
		}
		switch {
		case b.tap.closed != c.want:
			t.Errorf("%s: closed %v: %v", name, b.tap.closed, b.tap.reason)
		case !c.want:
			b.check(t)
		case b.n.stats.DeadLinks != 1 || len(h.destroyed) != 1 || b.tap.reason != errDeaf:
			t.Errorf("%s: %v, circuit heard %v", name, b.tap.reason, h.destroyed)
		case b.w.now.Sub(began) < DefaultDead || b.w.now.Sub(began) > DefaultDead+DefaultKeepalive:
			t.Errorf("%s: closed after %v", name, b.w.now.Sub(began))
		default:
			b.w.checkEmpty(t)
		}
	}
}

// TestOwnSleepIsNotANeighbourThatDoesNotRead: what waited while this node was stopped says nothing.
func TestOwnSleepIsNotANeighbourThatDoesNotRead(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	b.tap.slow = true
	for range 6 {
		b.w.run(time.Second)
		b.in(raw(cell.CommandPadding, 0))
	}
	for range 2 { // a little late again and again: that is not the neighbour's time
		b.w.now = b.l.tendAt.Add(DefaultKeepalive - 1)
		b.w.step()
		b.in(raw(cell.CommandPadding, 0))
	}
	if b.tap.closed {
		t.Fatalf("closed for what this node lost: %v", b.tap.reason)
	}
	b.tap.queued = cell.Size
	b.l.OnDrained()
	b.w.now = b.w.now.Add(time.Hour)
	b.w.step() // the late timer
	b.in(raw(cell.CommandPadding, 0))
	if b.tap.closed {
		t.Fatalf("closed at once: %v", b.tap.reason)
	}
	b.tap.queued = 0
	b.l.OnDrained()
	b.w.run(DefaultKeepalive)
	if b.tap.closed {
		t.Errorf("closed although the neighbour read: %v", b.tap.reason)
	}
}
