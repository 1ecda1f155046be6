package flow

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// Config is what a Links needs. Handler and Env.Clock, Env.Rand must be set, and Env.Dialer
// where To is used; zero Limits, Keepalive and Dead mean the defaults, a nil Budget none, and
// nil Stats that nobody reads them.
type Config struct {
	Env       env.Env
	Self      cert.Identity // zero in a client
	Budget    *Budget
	Limits    Limits
	Keepalive time.Duration // a link on which nothing was sent for this long sends one PADDING cell
	// IdleKeepalive takes the place of Keepalive while a link has no circuits, and Dead grows in proportion; 0 is no
	// difference. Most links of a large network have none.
	IdleKeepalive time.Duration
	Dead          time.Duration // a link from which nothing came for this long is closed, as is one on which nothing moved that waits
	Handler       NodeHandler
	Stats         *Stats
	// Uplink is the rate in bytes a second, headers of TCP and IP included, of the way out that all links share. Then
	// cells of circuits take turns over all links, and 97 % of it go out. 0: it is not known.
	Uplink int64
	// UplinkBurst is how much of the rate, as a time, may go at once after a pause; at least 4 ms.
	UplinkBurst time.Duration
	// Listed says whether the consensus lists a relay. One that it does not counts with the
	// clients: anybody can make identities. Nil when no relay is listed.
	Listed func(cert.Identity) bool
}

// NodeHandler is the node hearing what is not for one circuit.
type NodeHandler interface {
	// OnLink tells of a link that came up, in the event in which it did.
	OnLink(l *Link)
	// OnLinkDown tells of its end, after all its circuits have heard OnDestroyed. Not called
	// after Links.Close.
	OnLinkDown(l *Link, reason error)
	// OnCreate brings a CREATE; never at a client. The owner binds a handler at once and
	// answers now or later with Created or Destroy. c.Handshake is valid until it returns.
	OnCreate(leg *Leg, c cell.Create)
	// OnGossip brings a packet, valid until it returns; never at a client or from one.
	OnGossip(l *Link, packet []byte)
}

// Errors of To, Create and Gossip.
var (
	ErrClosed       = errors.New("link is closed")
	ErrDraining     = errors.New("link takes no new circuits")
	ErrToClient     = errors.New("neighbour is a client")
	ErrCircuitLimit = errors.New("too many circuits on the link")
	ErrBudget       = errors.New("no memory budget for another circuit or stream")
	ErrLinkLimit    = errors.New("too many links")
	ErrSelf         = errors.New("relay is this node")
)

// Links is the set of open links of one node. It implements env.LinkHandler.
type Links struct {
	// What every cell needs.
	clock   env.Clock
	stats   *Stats
	budget  *Budget
	depth   int     // of events of this package that are being handled
	dirty   []*Link // that may have something to send
	clean   []*Link // the other array of dirty
	soon    env.Timer
	armed   bool // soon is
	closed  bool
	most    int32   // the highest rate of a leg lately, see load
	spare   *queued // free list
	spares  int
	asks    []ask
	downs   []*Link // closed, nobody told yet
	uplink  uplink
	lightAt env.Mono // when a light circuit last carried a cell
	mostAt  env.Mono // when most was
	place   int
	pairs   []cell.CreditPair

	cfg    Config
	log    *slog.Logger
	logged bucket

	links []*Link // open, in the order in which they came up
	byID  map[cert.Identity][]*Link
	dials map[cert.Identity]*dial

	sites       map[netip.Prefix]*share
	relays      map[cert.Identity]*share
	guests, all share
	listed      int // links with relays that the consensus lists

	windows    int // cells of all windows, promised to neighbours
	doubts     bucket
	leastBatch int // for the test that the rule of batch is needed, and for Rules
}

// ask is one call of To.
type ask struct {
	to   env.Target
	done func(*Link, error)
}

// dial is one dial under way.
type dial struct {
	to      env.Target
	waiters []func(*Link, error)
	renews  []*Link // to be drained when it succeeds
}

// maxSpares bounds the free list of cells: 2 MiB.
const maxSpares = 1024

// NewLinks returns the empty set of links of a node.
func NewLinks(cfg Config) *Links {
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	if cfg.Limits.ClientCircuits == 0 {
		cfg.Limits.ClientCircuits = cfg.Limits.CircuitsPerLink
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = DefaultKeepalive
	}
	cfg.IdleKeepalive = max(cfg.IdleKeepalive, cfg.Keepalive)
	if cfg.Dead == 0 {
		cfg.Dead = DefaultDead
	}
	if cfg.Budget == nil {
		cfg.Budget = NewBudget(int(^uint(0) >> 1))
	}
	if cfg.Stats == nil {
		cfg.Stats = new(Stats)
	}
	if cfg.Env.Log == nil {
		cfg.Env.Log = slog.New(slog.DiscardHandler)
	}
	ls := &Links{
		cfg: cfg, clock: cfg.Env.Clock, budget: cfg.Budget, stats: cfg.Stats, log: cfg.Env.Log,
		byID:  make(map[cert.Identity][]*Link),
		dials: make(map[cert.Identity]*dial),
		sites: make(map[netip.Prefix]*share), relays: make(map[cert.Identity]*share),
		guests: share{kind: guestShare}, all: share{kind: allShare},
		pairs: make([]cell.CreditPair, 0, cell.MaxCreditPairs),
	}
	ls.follow(cfg.Budget.rules)
	ls.uplink = newUplink(cfg.Uplink, cfg.UplinkBurst)
	ls.budget.reserve = cfg.Limits.Reserve * cell.Size
	ls.budget.kick = ls.poke
	ls.budget.register(ls)
	return ls
}

// client reports whether this node is one.
func (ls *Links) client() bool { return ls.cfg.Self.IsZero() }

// ---- events ----

// enter and leave stand around the handling of every event; what the event has flagged is
// done when the outermost is left.
func (ls *Links) enter() { ls.depth++ }

func (ls *Links) leave() {
	if ls.depth == 1 {
		ls.settle()
	}
	ls.depth--
}

// poke makes sure that settle will run: in an event of its own if not at the end of this one.
func (ls *Links) poke() {
	if ls.depth > 0 || ls.armed || ls.closed {
		return
	}
	ls.armed = true
	if ls.soon == nil {
		ls.soon = ls.clock.AfterFunc(0, ls.onSoon)
	} else {
		ls.soon.Reset(0)
	}
}

func (ls *Links) onSoon() {
	ls.armed = false
	ls.enter()
	ls.leave()
}

// settle does what was flagged. Handlers that it calls flag more; what they flag again and
// again waits for another event, so that none lasts for ever.
func (ls *Links) settle() {
	for range 16 {
		if !ls.settleOnce() {
			return
		}
	}
	ls.depth--
	ls.poke()
	ls.depth++
}

func (ls *Links) settleOnce() bool {
	work := ls.budget.over || len(ls.downs)+len(ls.asks)+len(ls.dirty) > 0
	ls.budget.reclaim(ls.clock.Now())
	for len(ls.downs) > 0 {
		l := ls.downs[0]
		ls.downs = slices.Delete(ls.downs, 0, 1)
		l.bury()
	}
	asks := ls.asks
	ls.asks = nil
	for _, a := range asks {
		ls.answer(a)
	}
	dirty := ls.dirty
	ls.dirty = ls.clean[:0]
	for _, l := range dirty {
		l.dirty = false
		l.pump()
	}
	clear(dirty)
	ls.clean = dirty
	ls.share()
	return work && !ls.closed
}

// ---- the set ----

// LinkUp takes a link into the set. The answer is nil when there are too many in all, of the
// neighbour's site, or of those whom nobody vouches for, or when the link leads back to this node.
func (ls *Links) LinkUp(e env.Link) env.LinkEvents {
	peer := e.Peer()
	if ls.closed || !peer.Client() && peer.Identity == ls.cfg.Self {
		return nil
	}
	ls.enter()
	defer ls.leave()
	l := newLink(ls, e)
	l.classify()
	if !l.fits() {
		l.leaveShares()
		ls.stats.LinksRefused++
		return nil
	}
	l.setCounted(!peer.Dialled)
	ls.links = append(ls.links, l)
	ls.stats.Links++
	if !peer.Client() {
		if d := ls.dials[peer.Identity]; d != nil && peer.Dialled {
			l.target = d.to
		}
		ls.crossed(l)
		ls.byID[peer.Identity] = append(ls.byID[peer.Identity], l)
	}
	l.tend()
	ls.cfg.Handler.OnLink(l)
	return l
}

// crossed drains the loser when l and another link of the same neighbour were dialled from
// both sides at once: the link that the smaller identity dialled stays. A link that was there
// before this node dialled l is drained too, or each dial would leave one more behind.
func (ls *Links) crossed(l *Link) {
	if ls.client() {
		return
	}
	for _, other := range ls.byID[l.peer.Identity] {
		if other == l {
			continue
		}
		if other.peer.Dialled == l.peer.Dialled || l.born.Sub(other.born) >= crossedTime {
			if l.peer.Dialled { // as an authority does, to see that a relay answers
				other.drain()
			}
			continue
		}
		loser := l
		if l.peer.Dialled == (ls.cfg.Self.Compare(l.peer.Identity) < 0) {
			loser = other
		}
		loser.drain()
	}
}

// Open is the link that To would use without dialling, or nil.
func (ls *Links) Open(id cert.Identity) *Link {
	links := ls.byID[id]
	for i := len(links) - 1; i >= 0; i-- {
		if l := links[i]; !l.draining {
			return l
		}
	}
	return nil
}

// All lists open links in the order in which they came up. The slice is the caller's.
func (ls *Links) All() []*Link { return slices.Clone(ls.links) }

// To gives an open link authenticated as t.Identity (the youngest that is not draining), or dials
// one; concurrent calls for one identity share a dial. done is called once, and never before To
// returns. The errors are the dialler's, ErrSelf, ErrLinkLimit and ErrClosed.
func (ls *Links) To(t env.Target, done func(*Link, error)) {
	ls.asks = append(ls.asks, ask{t, done})
	ls.poke()
}

func (ls *Links) answer(a ask) {
	id := a.to.Identity
	switch l := ls.Open(id); {
	case ls.closed:
		// Silence.
	case l != nil:
		a.done(l, nil)
	case id == ls.cfg.Self || id.IsZero():
		a.done(nil, ErrSelf)
	case ls.dials[id] == nil && len(ls.links)+len(ls.dials) >= ls.cfg.Limits.MaxLinks:
		a.done(nil, ErrLinkLimit)
	default:
		d := ls.dial(a.to)
		d.waiters = append(d.waiters, a.done)
	}
}

// dial starts a dial, or returns the one under way.
func (ls *Links) dial(to env.Target) *dial {
	if d := ls.dials[to.Identity]; d != nil {
		return d
	}
	d := &dial{to: to}
	ls.dials[to.Identity] = d
	ls.cfg.Env.Dialer.DialLink(to, func(_ env.Link, err error) { ls.onDialled(d, err) })
	return d
}

func (ls *Links) onDialled(d *dial, err error) {
	if ls.closed {
		return
	}
	ls.enter()
	defer ls.leave()
	delete(ls.dials, d.to.Identity)
	for _, old := range d.renews {
		old.renewed(err)
	}
	// A link that the neighbour opened meanwhile will do.
	l := ls.Open(d.to.Identity)
	if l != nil {
		err = nil
	} else if err == nil {
		err = ErrClosed
	}
	for _, done := range d.waiters {
		done(l, err)
	}
}

// Close closes every link; nothing is heard from any of them, or from To, afterwards.
func (ls *Links) Close(reason error) {
	if ls.closed {
		return
	}
	for len(ls.links) > 0 {
		ls.links[0].shut(reason, true)
	}
	ls.closed = true
	for _, l := range ls.downs {
		l.release()
	}
	ls.downs, ls.asks = nil, nil
	for _, t := range []env.Timer{ls.soon, ls.uplink.timer} {
		if t != nil {
			t.Stop()
		}
	}
	ls.budget.unregister(ls)
	ls.budget.kick = nil
}

func (ls *Links) remove(l *Link) {
	ls.stats.Links--
	l.setCounted(false)
	if i := slices.Index(ls.links, l); i >= 0 {
		ls.links = slices.Delete(ls.links, i, i+1)
	}
	id := l.peer.Identity
	if i := slices.Index(ls.byID[id], l); i >= 0 {
		ls.byID[id] = slices.Delete(ls.byID[id], i, i+1)
		if len(ls.byID[id]) == 0 {
			delete(ls.byID, id)
		}
	}
}

// warn logs a neighbour's mistake, at most one a second on average. It never says who a client is.
func (ls *Links) warn(what string, l *Link, err error) {
	if !ls.logged.take(ls.clock.Now(), time.Second, 10) {
		return
	}
	peer := "client"
	if !l.peer.Client() {
		peer = l.peer.Identity.Short()
	}
	ls.log.Warn(what, "peer", peer, "error", err)
}

// ---- accounting ----

func (ls *Links) slot() *int { return &ls.place }

func (ls *Links) sound() error { return nil } // Check looks at the credits

func (ls *Links) held() int {
	n := 0
	for _, l := range ls.allLinks() {
		n += l.held()
	}
	return n
}

// allLinks are the open links and those that nobody was told of yet.
func (ls *Links) allLinks() []*Link { return append(slices.Clone(ls.links), ls.downs...) }

func (ls *Links) victims(dst []victim, now env.Mono) []victim {
	for _, l := range ls.links {
		for n := l.legs.first; n != nil; n = n.next {
			if g := n.of; g.queue.n > 0 {
				dst = append(dst, victim{g, g.queue.n * cell.Size, now.Sub(g.queue.first.at)})
			}
		}
	}
	return dst
}

// Check verifies that what the links, circuits and queues hold adds up to the budget and the
// gauges, and that every credit granted is either with the neighbour, in a queue, or due. It
// is for tests, and takes time proportional to all that is held.
func (ls *Links) Check() error {
	if err := ls.budget.Check(); err != nil {
		return err
	}
	if err := ls.checkShares(); err != nil {
		return err
	}
	var sum Stats
	waiting := make(map[*Leg]int)
	for _, l := range ls.allLinks() {
		for n := l.legs.first; n != nil; n = n.next {
			for q := n.of.queue.first; q != nil; q = q.next {
				waiting[q.from]++
				sum.QueuedBytes += cell.Size
			}
		}
	}
	sum.Links = int64(len(ls.links))
	for _, l := range ls.allLinks() {
		sum.Tombstones += int64(len(l.tombs))
		for n := l.legs.first; n != nil; n = n.next {
			sum.Legs++
			if err := n.of.check(waiting[n.of]); err != nil {
				return fmt.Errorf("circuit %#x: %w", n.of.id, err)
			}
		}
	}
	if err := ls.checkTurns(); err != nil {
		return err
	}
	s := ls.stats
	if got := (Stats{Links: s.Links, Legs: s.Legs, Tombstones: s.Tombstones, QueuedBytes: s.QueuedBytes}); got != sum {
		return fmt.Errorf("gauges say %d links, %d legs, %d tombstones, %d queued bytes; there are %d, %d, %d, %d",
			got.Links, got.Legs, got.Tombstones, got.QueuedBytes, sum.Links, sum.Legs, sum.Tombstones, sum.QueuedBytes)
	}
	return nil
}

// ---- cells ----

// queued is a cell in a queue.
type queued struct {
	next *queued
	from *Leg     // whose credit it took; nil for cells of this node
	at   env.Mono // when it came
	b    [cell.Size]byte
}

// take returns a cell with any content, counted in the budget.
func (ls *Links) take() *queued {
	ls.budget.add(cell.Size)
	q := ls.spare
	if q == nil {
		return new(queued)
	}
	ls.spare = q.next
	ls.spares--
	q.next = nil
	return q
}

func (ls *Links) give(q *queued) {
	ls.budget.sub(cell.Size)
	if ls.spares == maxSpares {
		return
	}
	q.from, q.next = nil, ls.spare
	ls.spare = q
	ls.spares++
}

// queue is a first-in first-out of cells.
type queue struct {
	first, last *queued
	n           int
}

func (q *queue) push(c *queued) {
	if q.last != nil {
		q.last.next = c
	} else {
		q.first = c
	}
	q.last = c
	q.n++
}

func (q *queue) pop() *queued {
	c := q.first
	q.first = c.next
	if q.first == nil {
		q.last = nil
	}
	c.next = nil
	q.n--
	return c
}

// bucket is a token bucket in one word (the generic cell rate algorithm): at is when it will
// be full again.
type bucket struct{ at env.Mono }

func (b *bucket) take(now env.Mono, every time.Duration, burst int) bool {
	b.at = max(b.at, now)
	if b.at.Sub(now) > every*time.Duration(burst-1) {
		return false
	}
	b.at = b.at.Add(every)
	return true
}
