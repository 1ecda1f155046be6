package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/ipaddr"
	"cepa/limit"
)

// Handler judges rumours.
type Handler interface {
	// OnRumour brings a rumour that verified, is valid now, and is newer than what gossip holds of that relay; from is the
	// neighbour that told. It returns true if the rumour is to be passed on. A Handler that has to find that out returns
	// false, and calls Spread later; until then it hears of each neighbour that tells the same. The slice is shared: read
	// it, keep it if need be, do not modify it. It is called on the loop and may call Forget, Spread and Announce.
	OnRumour(sealed []byte, from cert.Identity) (accept bool)
}

// Config is what a Gossip is made of. All but Dial, Violation, Log, Now and Limits is required.
type Config struct {
	Identity cert.Identity      // of this relay
	Network  *directory.Network // whose rumours are spread
	Rumours  Handler
	// Post makes f an event of the node's loop and returns at once; false when the loop has stopped.
	Post func(f func()) bool
	// Send sends a packet (1 to cell.MaxGossip bytes) as a GOSSIP cell on an open link to a relay, copying it. It returns
	// false when that cannot be done now: there is no link, or it is above its budget.
	Send func(to cert.Identity, packet []byte) bool
	// Dial asks for a link with a member. Its success shows as LinkUp.
	Dial func(to env.Target)
	// Violation says that a neighbour sent what no honest relay sends: a bad GOSSIP is a link error. It is called for each
	// such packet.
	Violation func(from cert.Identity, why error)
	Log       *slog.Logger
	Now       func() time.Time // civil time, for the dates of rumours and for budgets; default time.Now
	Limits    Limits           // zero fields have their defaults
	// Undefended is zero but in the attack suite.
	Undefended directory.Undefended
}

// Limits are the bounds of a Gossip.
type Limits struct {
	Members        int        // relays of which a rumour is held; memberlist is told up to twice as many names
	Inbox          int        // packets that wait to be read, at most 2041 bytes each
	InboxNeighbour int        // of these, from one neighbour
	Outgoing       int        // packets of memberlist that wait for the loop
	Packets        limit.Rate // from a neighbour
	Messages       limit.Rate // from a neighbour
	Verify         limit.Rate // rumours of a neighbour whose signatures are checked, about 0.15 ms each
	VerifyAll      limit.Rate // the same for all neighbours together
	Welcome        int        // rumours sent to a new neighbour beside the own one
	Neighbours     int        // Dial is used while fewer have a link
	Dials          limit.Rate
}

// DefaultLimits returns the limits of a relay. An honest neighbour sends at most 15 packets a second, with 4 messages each.
func DefaultLimits() Limits {
	return Limits{
		Members: 16384, Inbox: 256, InboxNeighbour: 32, Outgoing: 64, Welcome: 15, Neighbours: 6,
		Packets:   limit.Rate{PerSecond: 20, Burst: 60},
		Messages:  limit.Rate{PerSecond: 80, Burst: 240},
		Verify:    limit.Rate{PerSecond: 20, Burst: 200},
		VerifyAll: limit.Rate{PerSecond: 500, Burst: 1000},
		Dials:     limit.Rate{PerSecond: 1.0 / 30, Burst: 6},
	}
}

func (l Limits) orDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct {
		value *int
		def   int
	}{
		{&l.Members, d.Members}, {&l.Inbox, d.Inbox}, {&l.InboxNeighbour, d.InboxNeighbour}, {&l.Outgoing, d.Outgoing},
		{&l.Welcome, d.Welcome}, {&l.Neighbours, d.Neighbours},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
	}
	for _, f := range []struct {
		value *limit.Rate
		def   limit.Rate
	}{{&l.Packets, d.Packets}, {&l.Messages, d.Messages}, {&l.Verify, d.Verify}, {&l.VerifyAll, d.VerifyAll}, {&l.Dials, d.Dials}} {
		if *f.value == (limit.Rate{}) {
			*f.value = f.def
		}
	}
	return l
}

// Gossip carries rumours between this relay and its neighbours. See the package comment for who may call what.
type Gossip struct {
	cfg      Config
	self     cert.Identity
	limits   Limits
	bySite   bool // neighbours that no consensus lists are counted by site
	log      *slog.Logger
	logger   *log.Logger // memberlist's
	now      func() time.Time
	counters counters

	// Owned by the loop.
	neighbours map[cert.Identity]*neighbour
	order      []*neighbour // the same
	turn       int          // in order: who was told last
	trickled   time.Time    // when
	packets    limiter
	dials      bucket

	// Handed from the loop to the worker.
	inbox     chan parcel
	announced chan struct{}

	// Owned by the worker.
	messages, verify limiter
	verifyAll        bucket
	memory           memory
	renewed          time.Time

	outstanding atomic.Int64 // packets of memberlist that wait for the loop
	closed      atomic.Bool
	closing     sync.Once
	quit        chan struct{}
	worker      sync.WaitGroup

	mu          sync.Mutex
	driver      *driver
	own         []byte // this relay's rumour; nil before the first Announce
	table       map[cert.Identity]*entry
	departed    map[cert.Identity]*directory.Rumour // farewells of relays that are no longer in the table
	unlisted    *directory.Lottery                  // the entries of relays that the consensus does not list
	listed      func(cert.Identity) bool            // asked on the loop only
	waiting     int                                 // entries that memberlist has not taken yet
	incarnation uint32
}

// neighbour is a relay with which links are open.
type neighbour struct {
	id      cert.Identity
	at      netip.Addr // where its first link comes from
	account string     // by which its budgets count
	since   time.Time
	again   bool         // was welcomed a second time
	queued  atomic.Int64 // packets in the inbox
}

// New starts a Gossip, without neighbours and without anything to say. Close ends it.
func New(cfg Config) (*Gossip, error) {
	if cfg.Identity.IsZero() || cfg.Network == nil || cfg.Rumours == nil || cfg.Post == nil || cfg.Send == nil {
		return nil, errors.New("starting gossip: identity, network, rumours, post and send are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	limits, start := cfg.Limits.orDefaults(), cfg.Now()
	g := &Gossip{
		cfg: cfg, self: cfg.Identity, limits: limits, bySite: cfg.Network.Limit(directory.SiteLimits) != 0, log: cfg.Log, now: cfg.Now,
		neighbours: make(map[cert.Identity]*neighbour),
		packets:    newLimiter(limits.Packets, start), dials: newBucket(limits.Dials, start),
		inbox: make(chan parcel, limits.Inbox), announced: make(chan struct{}, 1),
		messages: newLimiter(limits.Messages, start), verify: newLimiter(limits.Verify, start), verifyAll: newBucket(limits.VerifyAll, start),
		memory: newMemory(), renewed: start,
		quit:  make(chan struct{}),
		table: make(map[cert.Identity]*entry), departed: make(map[cert.Identity]*directory.Rumour),
		unlisted: directory.NewLottery(int(cfg.Network.Limit(directory.CandidatesPerSite)), rand.IntN),
		listed:   func(cert.Identity) bool { return false },
	}
	g.logger = log.New(newLogWriter(cfg.Log), "", 0)
	g.driver = g.newDriver()
	if err := g.driver.start(); err != nil {
		return nil, fmt.Errorf("starting gossip: %w", err)
	}
	g.worker.Go(g.work)
	return g, nil
}

// Close ends the gossip and waits for the worker. memberlist's goroutines have been told and return at once. Nothing is
// called any more; calls to the Gossip do nothing. It may be called more than once.
func (g *Gossip) Close() {
	g.closing.Do(func() {
		g.closed.Store(true)
		close(g.quit)
		g.worker.Wait()
		g.mu.Lock()
		d := g.driver
		g.mu.Unlock()
		d.stop()
	})
}

// post runs f on the loop unless the gossip is closed by then.
func (g *Gossip) post(f func()) bool {
	return g.cfg.Post(func() {
		if !g.closed.Load() {
			f()
		}
	})
}

// Announce spreads this relay's own rumour, in place of the one before; sealed is copied. A rumour that is not this
// relay's or not valid is a mistake in the program: it is logged and not spread.
func (g *Gossip) Announce(sealed []byte) {
	if g.closed.Load() {
		return
	}
	r, err := directory.OpenRumour(sealed, g.cfg.Network, g.now())
	if err == nil && r.Identity != g.self {
		err = fmt.Errorf("signed by %s", r.Identity.Short())
	}
	if err != nil {
		g.log.Error("gossip: own rumour is not valid", "error", err)
		return
	}
	sealed = bytes.Clone(sealed)
	g.mu.Lock()
	g.own = sealed
	g.mu.Unlock()
	select {
	case g.announced <- struct{}{}: // the worker makes memberlist spread it
	default:
	}
	packet := appendAlive(nil, alive{g.self, sealed, wireIncarnation})
	for _, n := range g.order {
		g.send(n, packet) // whom memberlist does not know yet hears it too
	}
}

// Spread takes in a rumour that the Handler was shown and did not accept then. from is the neighbour that told. The slice
// is shared and not to be modified.
func (g *Gossip) Spread(r directory.Rumour, sealed []byte, from cert.Identity) {
	if !g.closed.Load() && r.Identity != g.self && g.now().Before(r.Expires) {
		g.admit(news{r, sealed, from})
	}
}

// OnConsensus says that another consensus is in use. listed is asked whether it lists a relay, now and until the next call,
// on the loop, and must not call the Gossip. What is held of such relays is never given up to make room for others.
func (g *Gossip) OnConsensus(listed func(id cert.Identity) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listed = listed
	for _, n := range g.order {
		n.account = g.accountOf(n)
	}
	for id, e := range g.table {
		switch in := listed(id); {
		case in && e.ticket != nil:
			g.unlisted.Leave(e.ticket)
			e.ticket = nil
		case !in && e.ticket == nil:
			e.ticket = directory.NewTicket(id, []netip.AddrPort{e.rumour.Address})
			g.unlisted.Join(e.ticket)
		}
	}
}

// Forget drops a relay whose descriptor is no longer held. The neighbours are not told: each knows for itself. When it
// is heard of again, the Handler is asked again.
func (g *Gossip) Forget(id cert.Identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.table[id]; e != nil && !g.closed.Load() {
		g.forgetLocked(id, e)
	}
}

// accountOf is what the budgets of a neighbour count by: its identity once the consensus lists it. Identities are free for
// everybody else, who share the budgets of their /24 or /48, unless the network counts none of these.
func (g *Gossip) accountOf(n *neighbour) string {
	if !g.bySite || g.listed(n.id) {
		return string(n.id[:])
	}
	return ipaddr.Site(n.at).String()
}

// LinkUp says that there is a link with a relay, and where its far end is; more calls for further links change nothing.
// Clients, whose identity is zero, do not gossip. A new neighbour is told this relay's rumour and some others.
func (g *Gossip) LinkUp(id cert.Identity, at netip.Addr) {
	if g.closed.Load() || id.IsZero() || id == g.self || g.neighbours[id] != nil {
		return
	}
	n := &neighbour{id: id, at: at.Unmap(), since: g.now()}
	n.account = g.accountOf(n)
	g.neighbours[id] = n
	g.order = append(g.order, n)
	g.counters.neighbours.Store(int64(len(g.order)))
	g.welcome(n)
}

// LinkDown says that the last link with a relay is gone. It may be called more than once.
func (g *Gossip) LinkDown(id cert.Identity) {
	n := g.neighbours[id]
	if n == nil {
		return
	}
	delete(g.neighbours, id)
	g.order = slices.DeleteFunc(g.order, func(o *neighbour) bool { return o == n })
	g.counters.neighbours.Store(int64(len(g.order)))
}

// welcome tells a new neighbour what memberlist's Join would.
func (g *Gossip) welcome(n *neighbour) {
	g.mu.Lock()
	own := g.own
	g.mu.Unlock()
	g.tell(n, own, g.limits.Welcome)
}

// trickle tells the neighbours in turn a few rumours that they may have missed: an epidemic leaves some out, by chance.
func (g *Gossip) trickle() {
	if len(g.order) > 0 {
		g.turn = (g.turn + 1) % len(g.order)
		g.tell(g.order[g.turn], nil, trickleSize)
	}
}

// welcomeAgain tells new neighbours a second time, when the answers to the first links have come: relays that are started
// together know nothing when their links come up.
func (g *Gossip) welcomeAgain() {
	now := g.now()
	for _, n := range g.order {
		if !n.again && now.Sub(n.since) >= welcomePause {
			n.again = true
			g.tell(n, nil, g.limits.Welcome)
		}
	}
}

// tell sends a neighbour this relay's rumour, if there is one, and up to so many others.
func (g *Gossip) tell(n *neighbour, own []byte, others int) {
	var messages [][]byte
	if own != nil {
		messages = append(messages, appendAlive(nil, alive{g.self, own, wireIncarnation}))
	}
	now := g.now()
	for _, e := range g.some(others, func(id cert.Identity, e *entry) bool {
		return id == n.id || e.from == n.id || !now.Before(e.rumour.Expires)
	}) {
		messages = append(messages, appendAlive(nil, alive{e.rumour.Identity, e.sealed, wireIncarnation}))
	}
	for len(messages) > 0 {
		var count, size int
		for count < len(messages) && count < maxParts && packetSize(count+1, size+len(messages[count])) <= cell.MaxGossip {
			size += len(messages[count])
			count++
		}
		g.send(n, appendPacket(nil, messages[:count]))
		messages = messages[count:]
	}
}

func (g *Gossip) send(n *neighbour, packet []byte) bool {
	if !g.cfg.Send(n.id, packet) {
		return false
	}
	g.counters.packetsOut.Add(1)
	return true
}

// OnPacket brings the packet of a GOSSIP cell, which is copied. It costs the loop little: the worker reads it.
func (g *Gossip) OnPacket(from cert.Identity, packet []byte) {
	if g.closed.Load() {
		return
	}
	g.counters.packetsIn.Add(1)
	n := g.neighbours[from]
	switch {
	case n == nil:
		g.counters.drop(DropStranger)
	case !g.packets.take(n.account, g.now()) && !g.cfg.Undefended.Budgets:
		g.counters.drop(DropPacketBudget)
	case n.queued.Load() >= int64(g.limits.InboxNeighbour):
		g.counters.drop(DropInboxFull)
	default:
		n.queued.Add(1)
		select {
		case g.inbox <- parcel{n, n.account, bytes.Clone(packet)}:
		default:
			n.queued.Add(-1)
			g.counters.drop(DropInboxFull)
		}
	}
}

// message is one alive message on its way out.
type message struct {
	id, from cert.Identity // whom it is about, and who told; zero for this relay itself
	wire     []byte
}

// outgoing filters a packet of memberlist's and hands it to the loop. It is called from memberlist's goroutines.
func (g *Gossip) outgoing(packet []byte, to cert.Identity) {
	if len(packet) >= crcHeader && packet[0] == crcMessage {
		packet = packet[crcHeader:] // links have no bit errors
	}
	parts, err := splitPacket(packet)
	if err != nil {
		g.counters.drop(DropHeldBack)
		return
	}
	var messages []message
	for _, part := range parts {
		a, err := decodeAlive(part)
		if err != nil { // a death, or this relay before its first Announce
			g.counters.drop(DropHeldBack)
			continue
		}
		from, ok := g.current(a.id, a.meta)
		if !ok {
			g.counters.drop(DropHeldBack)
			continue
		}
		a.incarnation = wireIncarnation
		messages = append(messages, message{a.id, from, appendAlive(make([]byte, 0, len(part)), a)})
	}
	if len(messages) == 0 {
		return
	}
	if g.outstanding.Add(1) > int64(g.limits.Outgoing) {
		g.outstanding.Add(-1)
		g.counters.drop(DropOutgoing)
		return
	}
	if !g.cfg.Post(func() {
		g.outstanding.Add(-1)
		if !g.closed.Load() {
			g.deliver(messages, to)
		}
	}) {
		g.outstanding.Add(-1)
	}
}

// maxTries bounds how many neighbours are considered for one packet.
const maxTries = 8

// deliver sends each of the messages once: to the neighbour that memberlist chose, or else, because there is no such link or
// it knows the message, to one chosen at random to whom it is news.
func (g *Gossip) deliver(messages []message, to cert.Identity) {
	if n := g.neighbours[to]; n != nil {
		messages, _ = g.sendNews(n, messages)
	}
	if len(g.order) > 0 {
		start := rand.IntN(len(g.order))
		for i := 0; i < min(maxTries, len(g.order)) && len(messages) > 0; i++ {
			if n := g.order[(start+i)%len(g.order)]; n.id != to {
				var sent bool
				if messages, sent = g.sendNews(n, messages); sent {
					g.counters.redirected.Add(1)
				}
			}
		}
	}
	if len(messages) > 0 {
		g.counters.drop(DropUndeliverable)
	}
}

// sendNews sends those of the messages that the neighbour is not known to know, and returns the others; all of them if it
// could not send.
func (g *Gossip) sendNews(n *neighbour, messages []message) (rest []message, sent bool) {
	var news [][]byte
	for _, m := range messages {
		if m.id == n.id || m.from == n.id {
			rest = append(rest, m)
		} else {
			news = append(news, m.wire)
		}
	}
	if len(news) == 0 || !g.send(n, appendPacket(nil, news)) {
		return messages, false
	}
	return rest, true
}

// dial asks for a link with a member while there are few neighbours, and the budget lasts.
func (g *Gossip) dial() {
	if len(g.order) >= g.limits.Neighbours {
		return
	}
	now := g.now()
	for _, e := range g.some(1, func(id cert.Identity, e *entry) bool {
		return g.neighbours[id] != nil || farewell(&e.rumour) || !now.Before(e.rumour.Expires)
	}) {
		if !g.dials.take(now) {
			return
		}
		g.counters.dials.Add(1)
		g.cfg.Dial(env.Target{Identity: e.rumour.Identity, Addresses: []netip.AddrPort{e.rumour.Address}})
	}
}
