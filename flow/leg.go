package flow

import (
	"fmt"

	"cepa/cell"
	"cepa/env"
)

// LegHandler is a circuit (relay's or client's) hearing one of its legs.
type LegHandler interface {
	// OnCreated brings the answer to Create; c.Handshake is valid until it returns.
	OnCreated(c cell.Create)
	// OnCell brings one RELAY or RELAY_EARLY onion body (2043 bytes, modifiable until return).
	// It returns true when the cell was passed to Relay on another leg with this leg as from: then
	// the hop credit goes back when the cell leaves that leg's queue; otherwise at once.
	OnCell(cmd cell.Command, body []byte) (forwarded bool)
	// NextCell is asked, when the link can take a cell, there is credit and nothing is queued, for the
	// next cell that this end originates: it fills body (already onion-encrypted) and returns its
	// command, or ok false.
	NextCell(body []byte) (cmd cell.Command, ok bool)
	// Pending says whether NextCell would give a cell now (for the dry flag).
	Pending() bool
	// OnDestroyed says that the leg is gone: DESTROY from the peer, the link went down, a breach of
	// the protocol, the budget's victim. reason is for counters and logs; it must never be forwarded.
	OnDestroyed(reason cell.Reason)
}

type legState uint8

const (
	legOpening  legState = iota // CREATE is ours, CREATED has not come
	legIncoming                 // CREATE came, not answered
	legOpen
	legDead
)

// Leg is one circuit's presence on one link.
type Leg struct {
	// What every cell needs.
	link     *Link
	h        LegHandler
	state    legState
	opened   bool     // by this node
	early    uint8    // RELAY_EARLY cells that came
	late     bool     // a RELAY cell has come: no RELAY_EARLY any more
	woken    bool     // NextCell may have something
	starved  bool     // had more to send than credit
	queue    queue    // cells of the other leg
	credit   int      // cells that may be sent
	first    int      // of these, what the neighbour granted with CREATE or CREATED: the rest is lent
	quantum  int      // cells left as a sparse circuit
	round    int      // of the uplink, in which its turn is
	lastIn   env.Mono // when a cell came
	lastSent env.Mono
	load     load
	moved    env.Mono  // when a cell left the queue, or came to it when it was empty
	inTurn   node[Leg] // link.sparse or link.active: has something to send and the credit for it
	in       grant
	inDue    node[Leg] // link.due

	id        cell.CircuitID
	head      *queued   // CREATE or CREATED to be written
	rule      *otherHop // in place of this package's for windows; nil but in simulations
	inLink    node[Leg]
	inHead    node[Leg] // link.heads: has a head
	inReturn  node[Leg] // link.returns: has credit to give back
	inPartial node[Leg] // link.partial: due, but not enough for a CREDIT
}

func newLeg(l *Link, id cell.CircuitID, opened bool) *Leg {
	g := &Leg{link: l, id: id, opened: opened, quantum: sparseQuantum, lastSent: l.links.clock.Now(), rule: l.links.budget.hopRule()}
	g.inLink.of, g.inHead.of, g.inDue.of, g.inReturn.of, g.inPartial.of, g.inTurn.of = g, g, g, g, g, g
	if opened {
		g.state = legOpening
	} else {
		g.state = legIncoming
	}
	return g
}

// Link is the link that the leg is on.
func (g *Leg) Link() *Link { return g.link }

// ID is the circuit id on that link.
func (g *Leg) ID() cell.CircuitID { return g.id }

// Queued is the number of cells in the queue, Credit how many may be sent now.
func (g *Leg) Queued() int { return g.queue.n }

// Credit is described at Queued.
func (g *Leg) Credit() int { return g.credit }

// Alive reports whether the leg has not been destroyed, by either side.
func (g *Leg) Alive() bool { return g.state != legDead }

// Bind sets who hears a leg that OnCreate brought. A dead leg has nothing to say.
func (g *Leg) Bind(h LegHandler) {
	if g.state != legDead {
		g.h = h
	}
}

// Created answers CREATE with a handshake, which is copied. Too long a handshake, which is the
// caller's mistake, destroys the leg, and its handler hears nothing. On a leg that is dead or
// answered it does nothing.
func (g *Leg) Created(handshakeType uint16, handshake []byte) {
	if g.state != legIncoming {
		return
	}
	if err := g.putHead(cell.CommandCreated, handshakeType, handshake); err != nil {
		g.link.links.log.Error("answering CREATE", "error", err)
		g.Destroy(cell.ReasonInternal)
		return
	}
	g.state = legOpen
}

// putHead has a CREATE or CREATED written, with the first grant.
func (g *Leg) putHead(cmd cell.Command, handshakeType uint16, handshake []byte) error {
	l := g.link
	w := min(g.openWindow(), maxCredit)
	c := cell.Create{Credit: uint16(w), Type: handshakeType, Total: uint16(len(handshake)), Handshake: handshake}
	q := l.links.take()
	cell.Header{Circuit: g.id, Command: cmd}.Put(q.b[:])
	if err := c.Put(q.b[cell.HeaderSize:]); err != nil {
		l.links.give(q)
		return err
	}
	g.head = q
	g.in.granted, g.in.first = w, w
	l.heads.push(&g.inHead)
	l.mark()
	return nil
}

// onRelay takes a cell of the peer's.
func (g *Leg) onRelay(h cell.Header, body []byte) {
	early := h.Command == cell.CommandRelayEarly
	switch {
	case g.state != legOpen || g.head != nil || g.h == nil:
		g.fail(cell.ReasonProtocol, h.Command.String()+" before the circuit is open")
		return
	case g.in.outstanding() == 0:
		g.link.links.stats.Overruns++
		g.fail(cell.ReasonProtocol, "cell without credit")
		return
	case early && (g.opened || g.late || g.early == earlyCells):
		g.fail(cell.ReasonProtocol, "RELAY_EARLY that is not one of the first 8 cells forward")
		return
	}
	if early {
		g.early++
	} else {
		g.late = true
	}
	g.arrived(h.Dry)
	if !g.h.OnCell(h.Command, body) {
		g.returned()
	}
}

// Relay queues one onion body that arrived on from (copied). The queue is bounded by the credit
// granted on from. On a dead leg the cell is lost.
func (g *Leg) Relay(cmd cell.Command, body []byte, from *Leg) {
	ls := g.link.links
	if g.state == legDead {
		from.returned()
		return
	}
	if g.sendNow(cmd, body) {
		from.returned()
		return
	}
	q := ls.take()
	q.b[cell.HeaderSize-1] = byte(cmd)
	copy(q.b[cell.HeaderSize:], body)
	q.from, q.at = from, ls.clock.Now()
	if g.queue.n == 0 {
		g.moved = q.at
	}
	g.queue.push(q)
	ls.stats.QueuedBytes += cell.Size
	g.activate()
}

// Wake says that NextCell may have something now.
func (g *Leg) Wake() {
	if g.state != legDead {
		g.woken = true
		g.activate()
	}
}

// activate gives the leg turns on its link if it can use them. One that was idle for a while
// goes before the others for a quantum; one that was held up by lack of credit does not, since
// that is not what idle means.
func (g *Leg) activate() {
	if g.inTurn.on != nil || g.state != legOpen || g.head != nil || g.queue.n == 0 && !g.woken {
		return
	}
	if g.credit == 0 {
		g.starved = true
		return
	}
	l := g.link
	switch {
	case g.starved:
		g.starved = false
		g.quantum = 0
	case l.links.clock.Now().Sub(g.lastSent) > sparseIdle:
		g.quantum = sparseQuantum
	}
	g.round = max(g.round, l.links.uplink.round)
	if g.quantum > 0 {
		l.sparse.push(&g.inTurn)
	} else {
		l.active.push(&g.inTurn)
	}
	l.mark()
}

// next fills body with the next cell to be sent.
func (g *Leg) next(body []byte) (cmd cell.Command, ok bool) {
	if g.queue.n > 0 {
		q := g.queue.pop()
		cmd = cell.Command(q.b[cell.HeaderSize-1])
		copy(body, q.b[cell.HeaderSize:])
		g.departed(q)
		g.moved = g.link.links.clock.Now()
		return cmd, true
	}
	if !g.woken {
		return 0, false
	}
	if cmd, ok = g.h.NextCell(body); !ok {
		g.woken = false
	}
	return cmd, ok && g.state == legOpen
}

// more reports whether the leg has something to send besides.
func (g *Leg) more() bool {
	if g.queue.n > 0 {
		return true
	}
	g.woken = g.woken && g.h.Pending()
	return g.woken
}

// departed frees a cell that has left the queue of g.
func (g *Leg) departed(q *queued) {
	ls := g.link.links
	ls.stats.QueuedBytes -= cell.Size
	if q.from != nil {
		q.from.returned()
	}
	ls.give(q)
}

// check verifies the credit of a leg, of whose cells waiting are in queues.
func (g *Leg) check(waiting int) error {
	switch in := g.in; {
	case g.credit < 0:
		return fmt.Errorf("negative credit %d", g.credit)
	case in.received > in.granted:
		return fmt.Errorf("%d cells came for a credit of %d", in.received, in.granted)
	case in.received-in.freed != waiting:
		return fmt.Errorf("%d cells came, %d left, but %d are in queues", in.received, in.freed, waiting)
	case in.outstanding() == 0 && waiting == 0 && g.state == legOpen && g.head == nil && g.inDue.on == nil && g.link.up && g.link.links.leastBatch == 0:
		return fmt.Errorf("the neighbour has no credit, nothing waits, and no CREDIT is due: it would stand still for ever")
	case g.inDue.on != nil && g.link.up && !g.link.ticking && !g.link.creditNow:
		return fmt.Errorf("a CREDIT is due and nothing will send it")
	case (g.inHead.on != nil) != (g.head != nil):
		return fmt.Errorf("its CREATE or CREATED is lost")
	case (g.inTurn.on != nil) && (g.state != legOpen || g.credit == 0):
		return fmt.Errorf("scheduled without credit")
	case g.inTurn.on == nil && g.state == legOpen && g.head == nil && g.credit > 0 && (g.queue.n > 0 || g.woken):
		return fmt.Errorf("has something to send and is not scheduled")
	}
	return nil
}
