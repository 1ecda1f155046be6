package flow

import (
	"strings"
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

// That the queue ran empty says nothing about a larger window before its first cells have come.
func TestQueueThatRanEmptyBeforeTheWindowGrewSaysNothing(t *testing.T) {
	t.Parallel()
	for _, standing := range []int{0, 3} {
		b := newWindowBench(t, 0)
		b.g.in.window.grown = true
		b.round(true, 0)
		size, w := b.size(), &b.g.in.window
		if size != 32+32/4 {
			t.Fatal(size)
		}
		b.come(w.dryFrom-b.g.in.received, false) // under the old window: all leave but some
		b.leave(b.out.queue.n - standing)
		b.w.run(2 * creditTick)
		for end := w.end; b.g.in.received < end; {
			n := end - b.g.in.received
			b.come(n, true)
			b.leave(b.out.queue.n - standing)
			b.w.run(2 * creditTick)
		}
		if grew := b.size() > size; grew != (standing == 0) {
			t.Errorf("%d cells after %d with %d standing since the window grew", b.size(), size, standing)
		}
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

// grown is a leg whose window has grown, in a network at rest.
func (b *windowBench) grown(t *testing.T) int {
	t.Helper()
	for range 4 {
		b.round(true, 0)
	}
	b.leave(b.out.queue.n)
	b.w.run(3 * flushTime)
	n := b.g.in.outstanding()
	if n < 300 {
		t.Fatalf("a grant of %d cells", n)
	}
	return n
}

// pass has time pass on a link that is alive.
func (b *windowBench) pass(d time.Duration) {
	for end := b.w.now.Add(d); b.w.now < end; b.w.run(time.Second) {
		b.in(raw(cell.CommandPadding, 0))
	}
}

// What a neighbour gives back is as if it had not been granted, and to be had by others.
func TestReturnedCreditIsGrantedAnew(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	large := b.grown(t)
	c := raw(cell.CommandReturn, 0)
	if err := cell.PutCredit(c[cell.HeaderSize:], []cell.CreditPair{{Circuit: b.g.ID(), Add: uint16(large - 32)}}); err != nil {
		t.Fatal(err)
	}
	b.in(c)
	if b.g.in.outstanding() != 32 || b.size() != 32 || b.n.links.windows != b.l.windows || b.l.windows != 64 {
		t.Errorf("%d cells of a window of %d; %d and %d are promised", b.g.in.outstanding(), b.size(), b.n.links.windows, b.l.windows)
	}
	b.check(t)
	b.pass(2 * hoardTime)
	if b.round(true, 0); b.size() != 64 {
		t.Errorf("then it grows to %d", b.size())
	}
	if b.in(c); b.l.Open() {
		t.Error("more was taken back than is granted")
	}
}

// A neighbour that keeps what it does not use loses the circuit, and only that.
func TestHoarderLosesTheCircuit(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	b.grown(t)
	b.pass(hoardTime)
	if !b.g.Alive() {
		t.Fatal("too soon")
	}
	b.pass(b.n.links.cfg.Dead + 2*b.n.links.cfg.Keepalive)
	if b.g.Alive() || !b.out.Alive() || !b.l.Open() || b.n.stats.Hoarders != 1 {
		t.Errorf("alive: %v and %v, open: %v, %d hoarders", b.g.Alive(), b.out.Alive(), b.l.Open(), b.n.stats.Hoarders)
	}
	if b.n.links.windows != 32 {
		t.Errorf("%d cells are promised", b.n.links.windows)
	}
}

// Credit that is not used is given back, all but what was there at first, and once.
func TestUnusedCreditIsGivenBack(t *testing.T) {
	t.Parallel()
	b := newWindowBench(t, 0)
	b.out.credit = 500
	b.come(1, false)
	b.w.run(time.Second)
	b.tap.take(t)
	b.pass(returnTime + 2*b.n.links.cfg.Keepalive)
	if want := b.out.first; b.out.Credit() != want {
		t.Errorf("%d cells of credit instead of %d", b.out.Credit(), want)
	}
	if got := strings.Count(b.tap.commands(t), "RETURN"); got != 1 {
		t.Errorf("said %d times", got)
	}
}

// One neighbour cannot have all that windows may promise: a quarter of it at most.
func TestPromisesToOneNeighbourAreBounded(t *testing.T) {
	t.Parallel()
	const budget = 4 << 20
	b := newBench(t, benchOptions{budget: budget})
	var all []*windowBench
	for i := range 20 {
		x := &windowBench{bench: b}
		x.g, _ = b.open(t, 2*i+1)
		x.out, _ = b.open(t, 2*i+2)
		x.g.h = &queueing{to: x.out, from: x.g}
		all = append(all, x)
	}
	for _, x := range all {
		for range 8 {
			x.round(true, 0)
		}
	}
	if b.l.windows > budget/cell.Size || b.l.windows < budget/cell.Size/2 {
		t.Errorf("%d cells are promised to one neighbour; the budget has %d", b.l.windows, budget/cell.Size)
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
