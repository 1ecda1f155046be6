package flow

import (
	"math"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
)

// sharers is a relay that knows its uplink, and links whose far ends are the test.
type sharers struct {
	w    *world
	n    *testNode
	taps []*tap
	ls   []*Link
	legs [][]*Leg // of each link
	hear [][]*hearing
	sent [][]int // cells of each, since the last look
	all  int     // cells of any kind, likewise
}

const sharedRate = mbit100 // bytes a second

// newSharers has a link for each number, with so many circuits.
func newSharers(t testing.TB, circuits ...int) *sharers {
	t.Helper()
	w := newWorld(3)
	c := &sharers{w: w, n: w.node(nodeOptions{limits: DefaultLimits(), uplink: sharedRate})}
	c.n.onCreate = func(g *Leg, create cell.Create) {
		h := new(hearing)
		g.Bind(h)
		g.Created(create.Type, create.Handshake)
		i := len(c.legs) - 1
		c.legs[i], c.hear[i] = append(c.legs[i], g), append(c.hear[i], h)
	}
	for i, k := range circuits {
		p := new(tap)
		p.peer.Identity = cert.Identity{0: 2, 1: byte(i)}
		l := c.n.links.LinkUp(p).(*Link)
		c.taps, c.ls = append(c.taps, p), append(c.ls, l)
		c.legs, c.hear, c.sent = append(c.legs, nil), append(c.hear, nil), append(c.sent, make([]int, k))
		for j := range k {
			l.OnCells(createCell(cell.InitiatorBit|cell.CircuitID(j+1), 65000))
		}
	}
	w.run(time.Second)
	c.count(t)
	return c
}

// count adds up what was sent since the last time.
func (c *sharers) count(t testing.TB) (now int) {
	t.Helper()
	for i, p := range c.taps {
		headers, _ := p.take(t)
		now += len(headers)
		for _, h := range headers {
			if h.Command == cell.CommandRelay {
				c.sent[i][int(h.Circuit&^cell.InitiatorBit)-1]++
			}
		}
	}
	c.all += now
	return now
}

// reset forgets what was sent.
func (c *sharers) reset() {
	c.all = 0
	for _, s := range c.sent {
		clear(s)
	}
}

// send gives a circuit so many cells to send.
func (c *sharers) send(link, circuit, cells int) {
	c.hear[link][circuit].send += cells
	c.legs[link][circuit].Wake()
}

// pass lets d pass and counts every half millisecond.
func (c *sharers) pass(t testing.TB, d time.Duration, each func()) {
	t.Helper()
	for range d / (500 * time.Microsecond) {
		c.w.run(500 * time.Microsecond)
		c.count(t)
		if each != nil {
			each()
		}
	}
	if err := c.n.links.Check(); err != nil {
		t.Fatal(err)
	}
}

// All circuits of all links have the same share, whatever links they are on, and together 97 % of the rate.
func TestCircuitsOfAllLinksShareTheUplink(t *testing.T) {
	t.Parallel()
	c := newSharers(t, 1, 1, 4, 40, 2)
	for i, legs := range c.legs {
		for j := range legs {
			c.send(i, j, 1<<20)
		}
	}
	c.pass(t, time.Second, nil) // past what they send as sparse circuits
	c.reset()
	most := 0
	c.w.run(0)
	for range 2000 {
		c.w.run(500 * time.Microsecond)
		most = max(most, c.count(t))
	}
	want := uplinkPercent * sharedRate / 100.0 / wireCell
	if got := float64(c.all); math.Abs(got-want) > 0.01*want {
		t.Errorf("%.0f cells in a second, want %.0f", got, want)
	}
	each := int(want) / 48
	for i, s := range c.sent {
		for j, n := range s {
			if n < each-2 || n > each+2 {
				t.Errorf("circuit %d of link %d sent %d cells, the others %d", j, i, n, each)
			}
		}
	}
	if bound := int(sharedRate*uplinkBurst.Seconds()/wireCell) + 1; most > bound {
		t.Errorf("%d cells went out at once, want at most %d", most, bound)
	}
}

// A circuit that was idle does not wait for those of any link that were not.
func TestSparseCircuitGoesBeforeThoseOfAllLinks(t *testing.T) {
	t.Parallel()
	c := newSharers(t, 2, 30, 30)
	for i := 1; i < 3; i++ {
		for j := range c.legs[i] {
			c.send(i, j, 1<<20)
		}
	}
	c.pass(t, time.Second, nil)
	for k := range 2 {
		c.reset()
		c.send(0, k, sparseQuantum)
		c.pass(t, 8*time.Millisecond, nil) // of which it takes 5.6 to send these
		if c.sent[0][k] != sparseQuantum {
			t.Errorf("%d cells of circuit %d were sent", c.sent[0][k], k)
		}
	}
	// It has no more of that: now it takes turns.
	c.reset()
	c.send(0, 0, 1000)
	c.pass(t, 100*time.Millisecond, nil)
	if n := c.sent[0][0]; n < 7 || n > 11 {
		t.Errorf("%d cells of 569 of 61 circuits", n)
	}
}

// Links that take less than their circuits' share keep nobody else waiting, and get their share when they take more.
func TestSlowLinkDoesNotKeepTheUplinkWaiting(t *testing.T) {
	t.Parallel()
	c := newSharers(t, 20, 1, 1)
	c.taps[0].slow = true
	for i, legs := range c.legs {
		for j := range legs {
			c.send(i, j, 1<<20)
		}
	}
	c.pass(t, time.Second, nil)
	c.reset()
	c.pass(t, time.Second, nil)
	want := uplinkPercent * sharedRate / 100.0 / wireCell
	if got := float64(c.all); math.Abs(got-want) > 0.01*want || c.taps[0].queued > 32*cell.Size {
		t.Errorf("%.0f cells in a second beside a link that takes none, want %.0f", got, want)
	}
	// With room for fewer cells at a time than a round has, its circuits still have their turns.
	c.n.links.cfg.Limits.LinkQueue = 4 * cell.Size
	for i := range 20_000 {
		if i == 10_000 {
			c.reset()
		}
		c.w.run(100 * time.Microsecond)
		c.count(t)
		c.taps[0].queued = 0
		c.ls[0].OnDrained()
	}
	each := want / 22
	for i, s := range c.sent {
		for j, n := range s {
			if math.Abs(float64(n)-each) > 0.05*each {
				t.Errorf("circuit %d of link %d sent %d cells, want %.0f", j, i, n, each)
			}
		}
	}
}

// What a link itself has to say does not wait for the uplink's turn, but counts.
func TestOwnCellsOfLinksDoNotWaitForTheUplink(t *testing.T) {
	t.Parallel()
	c := newSharers(t, 5, 1)
	for j := range c.legs[0] {
		c.send(0, j, 1<<20)
	}
	c.pass(t, time.Second, nil)
	c.reset()
	own := 0
	for range 100 {
		sent := 0
		for sent < 3 && c.ls[1].Gossip([]byte("x")) {
			sent++
		}
		c.w.run(0)
		if headers, _ := c.taps[1].take(t); len(headers) != sent || sent == 0 {
			t.Fatalf("%d packets of gossip were to be sent, %d cells were", sent, len(headers))
		}
		own += sent
		c.pass(t, 50*time.Millisecond, nil)
	}
	want := 5 * uplinkPercent * sharedRate / 100.0 / wireCell
	if got := float64(c.all + own); math.Abs(got-want) > 0.002*want || own < 200 {
		t.Errorf("%.0f cells in 5 s, %d of links, want %.0f", got, own, want)
	}
}

// An uplink that nothing waits for takes a cell in the event in which it came.
func TestFreeUplinkDoesNotDelay(t *testing.T) {
	t.Parallel()
	c := newSharers(t, 1, 1)
	from, to := c.legs[0][0], c.legs[1][0]
	body := make([]byte, cell.BodySize)
	for range 100 {
		c.w.run(10 * time.Millisecond)
		from.in.granted++
		from.in.received++
		to.Relay(cell.CommandRelay, body, from)
		c.w.run(0)
		if got := c.taps[1].commands(t); got != "RELAY" {
			t.Fatalf("sent %q", got)
		}
	}
}

// A link that ends while its circuits wait for the uplink leaves nothing behind, nor does the end of all.
func TestLinkThatEndsHasNoTurn(t *testing.T) {
	t.Parallel()
	c := newSharers(t, 3, 3, 3)
	for i, legs := range c.legs {
		for j := range legs {
			c.send(i, j, 1<<20)
		}
	}
	c.pass(t, 20*time.Millisecond, nil)
	c.ls[0].OnDown(nil)
	c.ls[1].Close(nil)
	c.pass(t, 20*time.Millisecond, nil)
	u := &c.n.links.uplink
	for _, l := range c.ls[:2] {
		if l.inSparse.on != nil || l.inActive.on != nil {
			t.Error("a link that is gone has a turn")
		}
	}
	if len(u.held) != 0 || c.ls[2].inActive.on == nil {
		t.Error("the link that is left has no turn")
	}
	c.n.links.Close(nil)
	c.reset()
	c.w.run(time.Second)
	if c.count(t) != 0 || !u.sparse.empty() || !u.active.empty() {
		t.Error("links that are closed have turns")
	}
}

// TestSetUplink: another rate holds at once, with its burst after a pause; from or to an unknown one is refused.
func TestSetUplink(t *testing.T) {
	t.Parallel()
	c := newSharers(t, 4, 4)
	const rate, burst = sharedRate / 4, 200 * time.Millisecond
	if c.n.links.SetUplink(0, 0) {
		t.Error("the rate was forgotten")
	}
	if !c.n.links.SetUplink(rate, burst) {
		t.Fatal("a known rate could not be changed")
	}
	c.w.run(time.Second) // a pause, in which the burst comes together
	c.count(t)
	c.reset()
	for i, legs := range c.legs {
		for j := range legs {
			c.send(i, j, 1<<20)
		}
	}
	c.pass(t, 2*time.Second, nil)
	want := uplinkPercent * rate / 100.0 / wireCell * (2 + burst.Seconds())
	if got := float64(c.all); math.Abs(got-want) > 0.02*want {
		t.Errorf("%.0f cells in two seconds, want %.0f", got, want)
	}
}
