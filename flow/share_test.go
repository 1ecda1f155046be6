package flow

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// crowd is one relay with many neighbours that are the test.
type crowd struct {
	w    *world
	n    *testNode
	taps []*tap
	hear []*hearing // of all circuits, in order
}

func newCrowd(o nodeOptions) *crowd {
	c := &crowd{w: newWorld(5)}
	c.n = c.w.node(o)
	c.n.onCreate = func(g *Leg, m cell.Create) {
		h := new(hearing)
		g.Bind(h)
		g.Created(m.Type, m.Handshake)
		c.hear = append(c.hear, h)
	}
	return c
}

// link brings a neighbour up; nil when it is refused. A relay 0 is a client.
func (c *crowd) link(relay byte, address string, dialled bool) *Link {
	e := &tap{peer: env.Peer{Address: netip.AddrPortFrom(netip.MustParseAddr(address), 9000), Dialled: dialled}}
	if relay > 0 {
		e.peer.Identity = cert.Identity{7, relay}
	}
	events := c.n.links.LinkUp(e)
	if events == nil {
		return nil
	}
	c.taps = append(c.taps, e)
	return events.(*Link)
}

// create has a neighbour open n circuits, and returns how many of them live. Those that it is
// refused it forgets.
func (c *crowd) create(t testing.TB, l *Link, n int) int {
	t.Helper()
	lived := 0
	for range n {
		id := cell.CircuitID(c.w.rng.Uint64()) &^ cell.InitiatorBit
		if !l.peer.Dialled {
			id |= cell.InitiatorBit
		}
		l.OnCells(createCell(id, 100))
		if l.circuits[id] != nil {
			lived++
		} else if l.up {
			l.OnCells(destroyCell(id))
		}
	}
	if err := c.n.links.Check(); err != nil {
		t.Fatal(err)
	}
	return lived
}

// pass lets time pass while all neighbours speak.
func (c *crowd) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		c.w.run(time.Second)
		for _, l := range c.n.links.All() {
			l.OnCells(raw(cell.CommandPadding, 0))
		}
	}
}

// admitting is a budget of so many circuits.
func admitting(circuits int) int {
	return circuits * (2*DefaultLimits().Reserve*cell.Size + legCost)
}

func TestCircuitsAreShared(t *testing.T) {
	t.Parallel()
	type neighbour struct {
		relay   byte
		address string
		want    int // circuits of 900 asked for
	}
	oneSite := DefaultLimits()
	oneSite.OneSite = true
	fewCircuits := DefaultLimits()
	fewCircuits.CircuitsPerLink = 100
	for name, c := range map[string]struct {
		o          nodeOptions
		neighbours []neighbour
	}{
		"a client has a few hundred at most": {nodeOptions{budget: admitting(16000)}, []neighbour{
			{0, "192.0.2.1", 256}, {0, "192.0.2.1", 256},
		}},
		"a site has an eighth, however many clients": {nodeOptions{budget: admitting(3200)}, []neighbour{
			{0, "192.0.2.1", 256}, {0, "192.0.2.200", 144}, {0, "192.0.2.201", 0}, {0, "198.51.100.1", 256}, {0, "2001:db8:1:1::1", 256}, {0, "2001:db8:1:2::1", 144},
		}},
		"where all are of one site it does not count": {nodeOptions{budget: admitting(1600), limits: oneSite}, []neighbour{
			{0, "127.0.0.1", 256}, {0, "127.0.0.1", 256}, {0, "127.0.0.1", 256},
		}},
		"guests have three quarters, listed relays the rest": {nodeOptions{budget: admitting(800), limits: oneSite}, []neighbour{
			{0, "127.0.0.1", 256}, {0, "127.0.0.1", 256}, {0, "127.0.0.1", 88}, {101, "127.0.0.1", 0}, {1, "127.0.0.1", 200},
		}},
		"an unlisted relay has an eighth, and its site too": {nodeOptions{budget: admitting(1600)}, []neighbour{
			{101, "192.0.2.1", 200}, {102, "192.0.2.2", 0}, {0, "192.0.2.3", 0}, {1, "192.0.2.4", 800},
		}},
		"one of several links of a relay": {nodeOptions{budget: admitting(1600), limits: oneSite}, []neighbour{
			{101, "192.0.2.1", 200}, {101, "198.51.100.1", 0}, {102, "198.51.100.1", 200},
		}},
		"one of two listed relays may have half": {nodeOptions{budget: admitting(1600)}, []neighbour{
			{1, "192.0.2.1", 800}, {2, "192.0.2.2", 800}, {0, "192.0.2.3", 0},
		}},
		"the link's own limit is for all": {nodeOptions{budget: admitting(1600), limits: fewCircuits}, []neighbour{
			{1, "192.0.2.1", 100}, {0, "192.0.2.2", 100},
		}},
	} {
		x := newCrowd(c.o)
		x.n.listed = func(id cert.Identity) bool { return id[1] < 100 }
		for i, n := range c.neighbours {
			if got := x.create(t, x.link(n.relay, n.address, false), 900); got != n.want {
				t.Errorf("%s: neighbour %d has %d circuits, want %d", name, i, got, n.want)
			}
		}
	}
}

// TestManyListedRelaysHaveAnEighthEach: what one may have shrinks as others come.
func TestManyListedRelaysHaveAnEighthEach(t *testing.T) {
	t.Parallel()
	c := newCrowd(nodeOptions{budget: admitting(800)})
	var links []*Link
	for i := range byte(40) {
		links = append(links, c.link(1+i, "192.0.2.1", i%2 == 0))
	}
	for i, l := range links {
		if got, want := c.create(t, l, 110), 100; i < 8 && got != want || i >= 8 && got != 0 {
			t.Errorf("relay %d has %d circuits", i, got)
		}
	}
}

// TestRelayCountsAsTheConsensusSays: also one whose link was there before.
func TestRelayCountsAsTheConsensusSays(t *testing.T) {
	t.Parallel()
	c := newCrowd(nodeOptions{budget: admitting(800)})
	c.n.listed = func(cert.Identity) bool { return false }
	l := c.link(1, "192.0.2.1", false)
	if got := c.create(t, l, 110); got != 100 {
		t.Errorf("%d circuits before it is listed", got)
	}
	c.n.listed = func(cert.Identity) bool { return true }
	if got := c.create(t, l, 400); got != 300 {
		t.Errorf("%d more when it is", got)
	}
	if c.n.links.guests.circuits != 0 || len(c.n.links.sites) != 0 {
		t.Error("still counts as a guest")
	}
	c.n.listed = func(cert.Identity) bool { return false }
	if got := c.create(t, l, 1); got != 0 || c.n.links.guests.circuits != 400 {
		t.Error("counts as listed when it is no more")
	}
	l.Close(errors.New("bye"))
	c.w.run(0)
	if s := c.n.links; len(s.sites)+len(s.relays)+s.listed+s.all.circuits+s.guests.users != 0 {
		t.Error("shares are left of a link that is gone")
	}
	c.w.checkEmpty(t)
}

// TestIdleCircuitsMakeRoom: those that carried nothing for longest, and only when there is no room.
func TestIdleCircuitsMakeRoom(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.OneSite = true
	c := newCrowd(nodeOptions{budget: admitting(400), limits: limits, strangers: true})
	own := c.link(1, "192.0.2.4", true)
	for range 10 { // which are this node's own affair
		_, err := own.Create(new(hearing), 1, []byte("h"))
		must(t, err)
	}
	c.pass(time.Second)
	busy, old := c.link(0, "192.0.2.2", false), c.link(0, "192.0.2.1", false)
	c.create(t, old, 100)
	c.pass(time.Minute)
	c.create(t, busy, 200)
	alive := func(from, to int) (n int) {
		for _, h := range c.hear[from:to] {
			if len(h.destroyed) == 0 {
				n++
			}
		}
		return n
	}
	c.pass(idleCircuit - 2*time.Minute) // the first were made 4 minutes ago
	young := c.link(0, "192.0.2.3", false)
	if got := c.create(t, young, 5); got != 0 || alive(0, 300) != 300 {
		t.Fatalf("%d created although nobody was idle for so long", got)
	}
	// Half of the first carry something, each in its way.
	for i, n := 0, old.legs.first; i < 50; i, n = i+1, n.next {
		if i%2 == 0 {
			old.OnCells(raw(cell.CommandRelay, n.of.ID()))
		} else {
			n.of.h.(*hearing).send = 1
			n.of.Wake()
		}
	}
	c.pass(3 * time.Minute) // and now all others have been idle for so long
	// 300 of guests at most; a sixteenth is made free, of those that nobody used.
	if got := c.create(t, young, 10); got != 10 {
		t.Fatalf("%d created", got)
	}
	if a, b, d := alive(0, 50), alive(50, 100), alive(100, 300); a != 50 || b != 50-19 || d != 200 {
		t.Errorf("left: %d of those in use, %d of those idle longest, %d of those idle for less", a, b, d)
	}
	if s := c.n.stats; s.IdleVictims != 19 || own.Legs() != 10 {
		t.Errorf("%d victims, and %d circuits of this node's are left", s.IdleVictims, own.Legs())
	}
	for _, h := range c.hear {
		if len(h.destroyed) > 0 && !slices.Equal(h.destroyed, []cell.Reason{cell.ReasonResource}) {
			t.Errorf("heard %v", h.destroyed)
		}
	}
	// They are looked for once a second, since that takes time.
	if got := c.create(t, young, 20); got != 9 {
		t.Errorf("%d more created at once", got)
	}
	c.pass(2 * time.Second)
	if got := c.create(t, young, 20); got != 19 {
		t.Errorf("%d more created later", got)
	}
}

// TestIdleCircuitsMakeRoomInTheirOwnShare: who is over its own share costs others nothing.
func TestIdleCircuitsMakeRoomInTheirOwnShare(t *testing.T) {
	t.Parallel()
	c := newCrowd(nodeOptions{budget: admitting(1600)})
	other, l := c.link(0, "198.51.100.1", false), c.link(0, "192.0.2.1", false)
	c.create(t, other, 100)
	c.create(t, l, 200)
	c.pass(idleCircuit + time.Second)
	if got := c.create(t, c.link(0, "192.0.2.2", false), 1); got != 1 || l.Legs() != 187 || other.Legs() != 100 {
		t.Errorf("%d created; %d and %d are left", got, l.Legs(), other.Legs())
	}
}

// TestClientKeepsItsOwnLimit, so that relays need not refuse what it asks for.
func TestClientKeepsItsOwnLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{selfClient: true, dialled: true, budget: admitting(1000)})
	for i := range 257 {
		if _, err := b.l.Create(new(hearing), 1, []byte("h")); (err != nil) != (i == 256) || err != nil && !errors.Is(err, ErrCircuitLimit) {
			t.Fatalf("circuit %d: %v", i, err)
		}
	}
}

func TestLinksAreShared(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.MaxLinks = 800
	c := newCrowd(nodeOptions{limits: limits})
	c.n.listed = func(id cert.Identity) bool { return id[1] < 100 }
	up := func(n int, relay byte, site byte, dialled bool) (ups int) {
		for i := range n {
			a := netip.AddrFrom4([4]byte{192, 0, site, byte(i)}).String()
			if c.link(relay, a, dialled) != nil {
				ups++
			}
		}
		if err := c.n.links.Check(); err != nil {
			t.Fatal(err)
		}
		return ups
	}
	if got := up(100, 0, 2, false); got != 50 {
		t.Errorf("%d links of one site", got)
	}
	if got := up(1, 101, 2, false); got != 0 {
		t.Error("a certificate makes room")
	}
	if got := up(1, 1, 2, false); got != 1 {
		t.Error("a listed relay pays for its neighbourhood")
	}
	if got := up(20, 2, 3, false); got != linksPerRelay {
		t.Errorf("%d links of one relay", got)
	}
	for site := range byte(20) {
		up(100, 0, 10+site, false)
	}
	if got := c.n.links.guests.accepted; got != 600 {
		t.Errorf("%d links of guests", got)
	}
	for i := range byte(90) {
		up(20, 3+i, 3, false)
	}
	if got := c.n.links.all.accepted; got != 700 {
		t.Errorf("%d accepted links", got)
	}
	if got := up(200, 101, 4, true); got != 100 {
		t.Errorf("%d dialled links", got)
	}
	if got := c.n.stats.LinksRefused; got == 0 {
		t.Error("refused links are not counted")
	}
	for _, l := range c.n.links.All() {
		l.Close(errors.New("bye"))
	}
	c.w.run(0)
	if s := c.n.links; len(s.sites)+len(s.relays)+s.listed+s.all.accepted+s.guests.accepted != 0 {
		t.Error("shares are left of links that are gone")
	}
	c.w.checkEmpty(t)
}

// TestIdleLinksMakeRoom: those of guests when there are many guests, or many of their site; those
// of relays when there are many links. They are drained first, which an honest neighbour answers.
func TestIdleLinksMakeRoom(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.MaxLinks = 160
	oneSite := limits
	oneSite.OneSite = true
	for name, c := range map[string]struct {
		limits                   Limits
		clients, relays, dialled int // without circuits
		used                     int // clients with a circuit
		sites                    int
		left                     int
	}{
		"few guests stay":                  {limits, 20, 0, 0, 40, 60, 60},
		"many guests do not":               {limits, 40, 0, 0, 60, 100, 60},
		"only as many as are too many":     {limits, 80, 0, 0, 0, 80, 60},
		"few guests, but of one site":      {limits, 16, 0, 0, 0, 1, 8},
		"few guests, of a site for all":    {oneSite, 50, 0, 0, 0, 1, 50},
		"relays stay":                      {limits, 0, 70, 0, 50, 50, 120},
		"relays stay until links are many": {limits, 0, 70, 40, 40, 40, 140},
	} {
		x := newCrowd(nodeOptions{limits: c.limits})
		for i := range c.used + c.clients {
			a := netip.AddrFrom4([4]byte{192, 0, byte(i % c.sites), 1}).String()
			if l := x.link(0, a, false); i < c.used {
				x.create(t, l, 1)
			}
		}
		for i := range c.relays + c.dialled {
			if x.link(byte(i+1), "198.51.100.1", i >= c.relays) == nil {
				t.Fatal("a relay's link was refused")
			}
		}
		all := c.used + c.clients + c.relays + c.dialled
		x.pass(50 * time.Second)
		if got := len(x.n.links.All()); got != all {
			t.Errorf("%s: %d of %d links are left after 50 s", name, got, all)
		}
		x.pass(20 * time.Second)
		if got := len(x.n.links.All()); got != all {
			t.Errorf("%s: not drained, but closed", name)
		}
		x.pass(time.Minute)
		if got := len(x.n.links.All()); got != c.left {
			t.Errorf("%s: %d links are left, want %d", name, got, c.left)
		}
		if x.n.stats.Legs != int64(c.used) || x.n.stats.LinkErrors != 0 {
			t.Errorf("%s: %+v", name, *x.n.stats)
		}
		if err := x.n.links.Check(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRelayThatIsListedLaterKeepsItsLink: it came up as a guest, before the first consensus.
func TestRelayThatIsListedLaterKeepsItsLink(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.MaxLinks, limits.OneSite = 160, true
	for _, listed := range []bool{false, true} {
		c := newCrowd(nodeOptions{limits: limits, strangers: true})
		for i := range byte(80) {
			c.link(1+i, "192.0.2.1", false)
		}
		c.n.listed = func(cert.Identity) bool { return listed }
		c.pass(2 * time.Minute)
		if got, want := len(c.n.links.All()), map[bool]int{false: 60, true: 80}[listed]; got != want {
			t.Errorf("listed %v: %d links are left, want %d", listed, got, want)
		}
	}
}

// TestIdleClientIsNotHarmed: an honest client hears that its link takes no circuits, and dials anew.
func TestIdleClientIsNotHarmed(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.MaxLinks = 16
	w := newWorld(1)
	p := newPath(w, 1, linkOptions{delay: time.Millisecond}, nodeOptions{limits: limits})
	for range 8 {
		o := newPath(w, 0, linkOptions{})
		l, _ := w.connect(o.client, p.relays[0], linkOptions{delay: time.Millisecond})
		if _, err := l.Create(new(hearing), 1, []byte("h")); err != nil {
			t.Fatal(err)
		}
	}
	w.run(70 * time.Second)
	if p.links[0].Open() || len(p.relays[0].links.All()) != 8 || p.relays[0].stats.IdleLinks != 1 {
		t.Fatalf("link open %v, %d links", p.links[0].Open(), len(p.relays[0].links.All()))
	}
	if s := p.client.stats; s.LinkErrors+s.DeadLinks != 0 {
		t.Errorf("the client saw %+v", *s)
	}
	var g got
	p.client.links.To(p.relays[0].target(), g.done)
	w.run(time.Second)
	if len(g.links) != 1 || g.links[0] == nil {
		t.Fatal("not to be dialled again")
	}
	w.check(t)
}
