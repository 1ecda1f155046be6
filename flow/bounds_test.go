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
	for range 64 {
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
