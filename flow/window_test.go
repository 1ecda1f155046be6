package flow

import (
	"testing"
	"time"

	"cepa/cell"
)

// windowBench is a relay between one neighbour's circuit and the queue of another leg, whose credit the test gives out.
type windowBench struct {
	*bench
	g, out *Leg
}

// queueing passes cells on.
type queueing struct {
	hearing
	to, from *Leg
}

func (h *queueing) OnCell(cmd cell.Command, body []byte) bool {
	h.to.Relay(cmd, body, h.from)
	return true
}

func newWindowBench(t testing.TB, budget int) *windowBench {
	t.Helper()
	b := &windowBench{bench: newBench(t, benchOptions{budget: budget})}
	b.g, _ = b.open(t, 1)
	b.out, _ = b.open(t, 2)
	b.g.h = &queueing{to: b.out, from: b.g}
	b.out.credit = 0
	return b
}

// come brings cells, as far as there is credit, the last of them dry or not.
func (b *windowBench) come(n int, dry bool) {
	for i := range min(n, b.g.in.outstanding()) {
		c := raw(cell.CommandRelay, b.g.ID())
		cell.Header{Circuit: b.g.ID(), Command: cell.CommandRelay, Dry: dry && i == n-1}.Put(c)
		b.in(c)
	}
}

// leave has n cells leave the queue.
func (b *windowBench) leave(n int) {
	b.out.credit += n
	b.out.activate()
	b.w.run(0)
}

// round is a window of cells, of which none, all but some, or all leave before the next.
func (b *windowBench) round(dry bool, standing int) {
	for end := b.g.in.window.end; b.g.in.received < end; {
		n := min(end-b.g.in.received, max(8, b.size()/8))
		b.w.run(time.Millisecond)
		b.come(n, dry && b.g.in.received+n == end)
		if over := b.out.queue.n - standing; over > 0 {
			b.leave(over)
		} else if b.g.in.outstanding() == 0 {
			b.leave(1)
		}
		b.w.run(2 * creditTick) // the CREDIT
	}
}

func (b *windowBench) size() int { return b.g.in.window.size }

func TestWindowGrowsWhenOnlyCreditHeldTheNeighbourBack(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	for _, want := range []int{64, 128, 256} {
		if b.round(true, 0); b.size() != want {
			t.Fatalf("a window of %d cells instead of %d", b.size(), want)
		}
	}
	if b.round(false, 0); b.size() != 256 {
		t.Errorf("%d cells although the neighbour had credit left", b.size())
	}
	for range 8 {
		b.round(true, 0)
	}
	if most := b.n.links.cfg.Limits.MaxWindow; b.size() != most {
		t.Errorf("%d cells, not the most, %d", b.size(), most)
	}
	b.check(t)
}

// A queue that stands says that something else than credit is the bottleneck; a window that has been large enough once
// grows with care.
func TestWindowGrowsWithCareOnceItWasLargeEnough(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	b.round(true, 0) // 64
	b.round(true, 3) // the queue forms
	if b.round(true, 3); b.size() > 128 {
		t.Fatalf("%d cells with a queue that never drains", b.size())
	}
	b.leave(b.out.queue.n)
	b.round(false, 0)
	size := b.size()
	for _, want := range []int{size + size/4, 0, 0} {
		if b.round(true, 0); want != 0 && b.size() != want {
			t.Errorf("%d cells after %d, wanted %d", b.size(), size, want)
		}
	}
	if least := (size + size/4) * 3 / 2 * 2; b.size() < least-4 || b.size() > least+4 {
		t.Errorf("%d cells after growing by a quarter, a half and once more; wanted %d", b.size(), least)
	}
}

func TestWindowGivesUpTheQueueThatNeverDrains(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	b.round(true, 0)
	b.round(true, 0) // 128
	b.round(false, 60)
	before := b.size()
	b.round(false, 60)
	// What may stand is 4 cells, or those of 5 ms at the rate of the round: 8 in 11 ms.
	if want := before - (60 - 4); b.size() < want-8 || b.size() > want+8 {
		t.Errorf("%d cells of %d with 60 standing, wanted %d", b.size(), before, want)
	}
	for range 20 {
		b.round(false, max(b.size()-2, 6))
	}
	if b.size() != minWindow {
		t.Errorf("%d cells, not the least", b.size())
	}
	if b.g.in.granted-b.g.in.freed > before {
		t.Error("more is granted than the window ever was")
	}
	b.check(t)
}

// The neighbour's flag speaks of the window that it had, not of the one that it got meanwhile.
func TestDryFlagsOfAnEarlierWindowSayNothing(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	b.round(true, 0)
	if b.size() != 64 {
		t.Fatal(b.size())
	}
	b.g.in.window.dryFrom = b.g.in.received + 1000
	if b.round(true, 0); b.size() != 64 {
		t.Errorf("%d cells for a flag of before", b.size())
	}
}

func TestWindowShrinksWhenMemoryRunsLow(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 8<<20)
	for range 6 {
		b.round(true, 0)
	}
	before := b.size()
	b.n.budget.add(6 << 20)
	b.round(true, 0)
	if b.size() >= before {
		t.Errorf("%d cells after %d, with more than half of the memory used", b.size(), before)
	}
	for range 10 {
		b.round(true, 0)
	}
	if most := (b.n.budget.limit - b.n.budget.used) / (4 * cell.Size); b.size() > most {
		t.Errorf("%d cells, a quarter of what is free is %d", b.size(), most)
	}
	b.n.budget.sub(6 << 20)
	b.check(t)
}

// Whatever neighbours ask for, all windows together promise no more than four times the budget, but for their first.
func TestPromisesOfAllWindowsAreBounded(t *testing.T) {
	t.Parallel()
	const budget = 4 << 20
	b := newBench(t, benchOptions{budget: budget})
	var all []*windowBench
	for i := range 40 {
		x := &windowBench{bench: b}
		x.g, _ = b.open(t, 2*i+1)
		x.out, _ = b.open(t, 2*i+2)
		x.g.h = &queueing{to: x.out, from: x.g}
		all = append(all, x)
	}
	for range 8 {
		for _, x := range all {
			x.round(true, 0)
		}
	}
	sum := 0
	for n := b.l.legs.first; n != nil; n = n.next {
		sum += n.of.in.window.size
	}
	if sum != b.n.links.windows || sum > 4*budget/cell.Size {
		t.Errorf("%d cells are promised, %d counted; the budget has %d", sum, b.n.links.windows, budget/cell.Size)
	}
	b.check(t)
	for _, x := range all {
		x.g.Destroy(cell.ReasonNone)
		x.out.Destroy(cell.ReasonNone)
	}
	if b.n.links.windows != 0 {
		t.Errorf("%d cells are promised to nobody", b.n.links.windows)
	}
}

// A circuit that comes to rest gets back what was not worth a CREDIT, and a window that shrank is a first one again.
func TestRestMakesTheWindowWhole(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	b.come(6, false)
	b.leave(6)
	b.w.run(creditTick)
	if due := b.g.in.due(b.g.window()); due != 6 {
		t.Fatalf("%d cells are due", due)
	}
	b.w.run(3 * flushTime)
	if due := b.g.in.due(b.g.window()); due != 0 {
		t.Errorf("%d cells are still due after a rest", due)
	}
	for range 4 {
		b.round(false, 20)
	}
	if b.size() >= 32 {
		t.Fatalf("%d cells: it did not shrink", b.size())
	}
	b.leave(b.out.queue.n)
	b.w.run(3 * flushTime)
	if b.size() != 32 || b.g.in.outstanding() != 32 {
		t.Errorf("a window of %d cells, %d of them granted, after a rest", b.size(), b.g.in.outstanding())
	}
	b.w.run(time.Second)
	b.tap.take(t)
	b.w.run(time.Second)
	if got := b.tap.commands(t); got != "" {
		t.Errorf("sent %q at rest", got)
	}
}

// A neighbour that would run out of credit before the tick gets its CREDIT at once.
func TestCreditDoesNotWaitForATickThatComesTooLate(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	for range 6 {
		b.round(true, 0)
	}
	b.w.run(time.Second)
	b.tap.take(t)
	size := b.size()
	began := b.w.now
	// As fast as can be, for many windows: the clock stands.
	for range 10 * size / 64 {
		b.come(64, false)
		b.leave(64)
		if b.g.in.outstanding() == 0 {
			t.Fatalf("the neighbour has run out of credit, window %d", b.size())
		}
	}
	if b.w.now != began {
		t.Error("the clock moved")
	}
}
