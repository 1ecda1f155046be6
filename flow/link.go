package flow

import (
	"errors"
	"fmt"
	"time"

	"cepa/cell"
	"cepa/env"
)

// Link is one neighbour: circuit ids, credits, teardown and scheduling of its circuits. It
// implements env.LinkEvents for the env.Link under it.
//
//	     OnCreate, Create              Created / CREATED in               DESTROY in
//	free ----------------> incoming,   -----------------> open ---------------------------> dying
//	 ^                     opening                          \  Destroy                        | ours written
//	 |                                                       `-----------> tombstone ---------+--> free
//	 `------------------------------------------------------------------------ DESTROY in ----'
//
// The first three are a Leg, the others a tombstone: dying has had the peer's DESTROY and waits
// for its own to be written, tombstone the other way round. What may come when is in receive.go.
type Link struct {
	// What every cell needs, in few lines of the processor's cache: a relay has thousands of links.
	links        *Links
	env          env.Link
	last         *Leg
	circuits     map[cell.CircuitID]*Leg
	up           bool
	dirty        bool // on links.dirty
	ticking      bool
	creditNow    bool // the tick has come: write CREDIT
	flushing     bool
	padding      bool // write PADDING
	draining     bool // LINK_DRAIN sent or asked for
	drained      bool // LINK_DRAIN came from the peer
	drainWritten bool
	renewing     bool
	guest        bool // a client, or a relay that the consensus does not list
	counted      bool // accepted and open
	lastIn       env.Mono
	stirred      env.Mono // when the last cell of a circuit came or went, see stir
	cellsIn      uint64
	batch        []byte // lent by env, to be sent at the end of this event; nil when nothing is
	batched      int    // bytes of it that are cells
	batchSpace   int    // bytes of it that the link took when it was begun
	lastOut      env.Mono
	cellsOut     uint64
	taken        env.Mono  // when the network last took something of what waits below, or began to
	sparse       list[Leg] // with something to send: before all others, and
	active       list[Leg] // in turn
	pace         pace
	turnOf       *Leg // of active, that has cells left in its turn:
	turnLeft     int
	inSparse     node[Link] // links.uplink.sparse
	inActive     node[Link] // links.uplink.active
	due          list[Leg]  // with credit to be returned
	returns      list[Leg]  // with credit to give back
	partial      list[Leg]  // with credit to be returned when they have come to rest
	heads        list[Leg]  // with a CREATE or CREATED to be written
	destroys     []destroy
	gossip       queue
	tender       env.Timer // runs tend
	tendAt       env.Mono  // when tender fires; 0 when it does not run
	ticker       env.Timer
	flusher      env.Timer
	trip         time.Duration // the shortest trip of credit, see trips; 0 if none was seen

	peer    *env.Peer
	target  env.Target // that was dialled; zero when accepted
	reason  error
	born    env.Mono
	grace   env.Mono // nobody is judged before: this node was stopped
	renewAt env.Mono
	doubted env.Mono // when a link beside this one came up although nothing came on this; 0 if not so
	drainAt env.Mono

	legs      list[Leg] // those in circuits, in the order in which they were made
	tombs     map[cell.CircuitID]tomb
	graves    graves
	windows   int      // cells that the windows of its legs promise
	theirs    int      // legs and tombstones with ids that the peer picked
	given     int      // legs of those
	idleSince env.Mono // when the last leg went
	shares    []*share // narrowest first
	gossipIn  bucket
	gossipOut bucket
	padIn     bucket
}

type destroy struct {
	id     cell.CircuitID
	reason cell.Reason
}

func newLink(ls *Links, e env.Link) *Link {
	now := ls.clock.Now()
	l := &Link{
		links: ls, env: e, peer: e.Peer(), up: true,
		born: now, lastIn: now, lastOut: now, taken: now,
		idleSince: now,
		circuits:  make(map[cell.CircuitID]*Leg),
		tombs:     make(map[cell.CircuitID]tomb),
	}
	l.inSparse.of, l.inActive.of = l, l
	l.renewAt = now.Add(renewAfter)
	if !l.peer.Dialled {
		l.renewAt = l.renewAt.Add(renewAfter / 24) // the dialler's turn first
	}
	return l
}

// Peer is who is at the far end; constant.
func (l *Link) Peer() *env.Peer { return l.peer }

// Legs returns the number of live circuits.
func (l *Link) Legs() int { return len(l.circuits) }

// Draining reports whether the link takes no new circuits (LINK_DRAIN).
func (l *Link) Draining() bool { return l.draining }

// Open reports whether the link is up.
func (l *Link) Open() bool { return l.up }

// Close ends the link. Its circuits hear OnDestroyed and the node OnLinkDown after the event
// in which it was called. Closing twice is harmless.
func (l *Link) Close(reason error) {
	if l.up {
		l.shut(reason, true)
	}
}

// fail closes the link because the neighbour broke the protocol.
func (l *Link) fail(what string, err error) {
	e := &ProtocolError{what, err}
	l.links.stats.LinkErrors++
	l.links.warn("neighbour broke the link protocol", l, e)
	l.Close(e)
}

// shut takes the link out of the set; bury tells those concerned later.
func (l *Link) shut(reason error, closeEnv bool) {
	l.up = false
	l.reason = reason
	if closeEnv {
		l.env.Close(reason)
	}
	for _, t := range []env.Timer{l.tender, l.ticker, l.flusher} {
		if t != nil {
			t.Stop()
		}
	}
	l.inSparse.remove()
	l.inActive.remove()
	l.links.remove(l)
	l.links.downs = append(l.links.downs, l)
	l.links.poke()
}

// bury ends the circuits of a link that is down, and tells everybody.
func (l *Link) bury() {
	for l.legs.first != nil && !l.links.closed {
		g := l.legs.first.of
		h := g.h
		g.forget()
		if h != nil {
			h.OnDestroyed(cell.ReasonDestroyed)
		}
	}
	l.release()
	if !l.links.closed {
		l.links.cfg.Handler.OnLinkDown(l, l.reason)
	}
}

// release gives back everything that a link which is down holds.
func (l *Link) release() {
	ls := l.links
	for l.legs.first != nil {
		g := l.legs.first.of
		g.forget()
	}
	ls.stats.Tombstones -= int64(len(l.tombs))
	clear(l.tombs)
	for l.gossip.n > 0 {
		ls.give(l.gossip.pop())
	}
	l.destroys, l.last = nil, nil
	l.leaveShares()
}

// held returns the bytes of the budget that the link holds.
func (l *Link) held() int {
	n := l.gossip.n
	for at := l.legs.first; at != nil; at = at.next {
		n += at.of.queue.n
		if at.of.head != nil {
			n++
		}
	}
	return n * cell.Size
}

// OnCells, OnDrained and OnDown make a Link env.LinkEvents; they are the shell's to call.
func (l *Link) OnCells(cells []byte) {
	if !l.up {
		return
	}
	l.links.enter()
	defer l.links.leave()
	now := l.links.clock.Now()
	l.lastIn = now
	l.cellsIn += uint64(len(cells) / cell.Size)
	for ; len(cells) >= cell.Size && l.up; cells = cells[cell.Size:] {
		l.links.stats.CellsIn++
		if countKind(&l.links.stats.KindsIn, cells) {
			l.stir(now)
		}
		l.receive(cells[:cell.Size:cell.Size])
	}
	if len(cells) > 0 && l.up {
		l.fail(fmt.Sprintf("%d bytes are no whole cell", len(cells)), nil)
	}
}

// OnDrained is described at OnCells.
func (l *Link) OnDrained() {
	if !l.up {
		return
	}
	l.links.enter()
	defer l.links.leave()
	now := l.links.clock.Now()
	l.pace.drained(l.env.Queued(), now.Sub(l.taken))
	l.taken = now
	l.mark()
}

// OnDown is described at OnCells.
func (l *Link) OnDown(reason error) {
	if !l.up {
		return
	}
	l.links.enter()
	defer l.links.leave()
	if reason == nil {
		reason = ErrClosed
	}
	l.shut(reason, false)
}

// mark has the link pumped at the top of the event.
func (l *Link) mark() {
	if l.dirty || !l.up {
		return
	}
	l.dirty = true
	l.links.dirty = append(l.links.dirty, l)
	l.links.poke()
}

// ---- circuits made by this node ----

// Create opens a circuit towards this neighbour: it picks an id and sends CREATE with a
// handshake of at most cell.MaxCreateHandshake bytes, which is copied. h hears OnCreated or
// OnDestroyed, never before Create returns. The errors are ErrClosed, ErrDraining,
// ErrToClient, ErrCircuitLimit, ErrBudget, and a *cell.Error for the handshake.
func (l *Link) Create(h LegHandler, handshakeType uint16, handshake []byte) (*Leg, error) {
	ls := l.links
	switch {
	case !l.up:
		return nil, ErrClosed
	case l.draining:
		return nil, ErrDraining
	case l.peer.Client():
		return nil, ErrToClient
	case len(l.circuits)+len(l.tombs)-l.theirs >= ls.circuitsPerLink(ls.client()):
		return nil, ErrCircuitLimit
	case !ls.budget.admits(0, 1):
		return nil, ErrBudget
	}
	g := newLeg(l, l.pick(), true)
	g.h = h
	if err := g.putHead(cell.CommandCreate, handshakeType, handshake); err != nil {
		return nil, err
	}
	l.add(g)
	return g, nil
}

// pick returns a random circuit id of this side's half that is not in use.
func (l *Link) pick() cell.CircuitID {
	for {
		id := cell.CircuitID(l.links.cfg.Env.Rand.Uint64()) &^ cell.InitiatorBit
		if l.peer.Dialled {
			id |= cell.InitiatorBit
		}
		_, buried := l.tombs[id]
		if id != 0 && !buried && l.circuits[id] == nil {
			return id
		}
	}
}

// mine reports whether id is of the half that this side picks from.
func (l *Link) mine(id cell.CircuitID) bool { return (id&cell.InitiatorBit != 0) == l.peer.Dialled }

// stir is for a cell of a circuit that comes or goes, CREDIT and RETURN apart, and for the first circuit: the link is at rest
// no more.
func (l *Link) stir(now env.Mono) {
	if !l.inUse(now) { // from now on silence says more
		l.lastIn = now
		l.tendBy(now.Add(l.links.cfg.Keepalive))
	}
	l.stirred = now
}

func (l *Link) add(g *Leg) {
	l.stir(l.links.clock.Now())
	l.circuits[g.id] = g
	l.legs.push(&g.inLink)
	l.links.stats.Legs++
	if g.opened {
		l.links.budget.out++
	} else {
		l.links.budget.in++
		l.theirs++
		l.count(1)
	}
}

// ---- draining ----

// OnRenew is an event of links that wear out: the shell says that a session has carried as
// much as one key should.
func (l *Link) OnRenew() {
	l.links.enter()
	defer l.links.leave()
	l.Renew()
}

// Renew replaces the link: the side that dialled it dials a younger one and then drains this
// one, the other side drains it at once. The shell asks for it when the link's TLS records run
// out; age does it by itself.
func (l *Link) Renew() {
	switch {
	case !l.up || l.draining || l.renewing:
	case !l.peer.Dialled:
		l.drain()
	default:
		to := l.target
		if to.Identity.IsZero() {
			to = env.Target{Identity: l.peer.Identity}
			to.Addresses = append(to.Addresses, l.peer.Address)
		}
		l.renewing = true
		d := l.links.dial(to)
		d.renews = append(d.renews, l)
	}
}

// renewed hears how the dial for a younger link went.
func (l *Link) renewed(err error) {
	l.renewing = false
	switch {
	case !l.up:
	case err == nil:
		if now := l.links.clock.Now(); l.silent(now) {
			l.doubted = now
			l.tendBy(now.Add(proofTime))
		}
		l.drain()
	default:
		l.renewAt = l.links.clock.Now().Add(renewRetry)
		l.tendBy(l.renewAt)
	}
}

// drain sends LINK_DRAIN: no new circuits here. The peer answers with its own; when both have
// passed, the link is closed with its last circuit.
func (l *Link) drain() {
	if l.draining {
		return
	}
	l.draining = true
	l.drainAt = l.links.clock.Now()
	l.tendBy(l.drainAt.Add(drainTime))
	l.mark()
}

var errDrained = errors.New("link was replaced and its last circuit is gone")

// closeIfDrained closes a draining link that nobody uses.
func (l *Link) closeIfDrained() {
	if l.up && l.drainWritten && l.drained && len(l.circuits) == 0 && len(l.tombs) == 0 {
		l.Close(errDrained)
	}
}
