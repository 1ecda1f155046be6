package flow

import (
	"cepa/cell"
	"cepa/env"
)

// tomb is what is left of a circuit between the two DESTROYs (docs/protocol.md, "Teardown"):
// 16 bytes.
type tomb struct {
	until        env.Mono // the peer's DESTROY must have come
	credit       uint32   // RELAY cells that may still come
	unanswered   bool     // a CREATED may still come
	oursWritten  bool     // our DESTROY is on the link
	theirsPassed bool     // the peer's DESTROY has come: nothing more may
}

// grave says when a tombstone was made. It may be out of date: the id may be free again.
type grave struct {
	id    cell.CircuitID
	until env.Mono
}

// graves are in the order of time.
type graves struct {
	list []grave
	head int
}

// entomb keeps a tombstone for an id.
func (l *Link) entomb(id cell.CircuitID, t tomb) {
	t.until = l.links.clock.Now().Add(tombstoneTime)
	l.tombs[id] = t
	l.links.stats.Tombstones++
	if !l.mine(id) {
		l.theirs++
	}
	if !t.theirsPassed {
		l.graves.list = append(l.graves.list, grave{id, t.until})
		l.tendBy(t.until)
	}
}

// exhume frees the id when both DESTROYs have passed.
func (l *Link) exhume(id cell.CircuitID) {
	t, ok := l.tombs[id]
	if !ok || !t.oursWritten || !t.theirsPassed {
		return
	}
	delete(l.tombs, id)
	l.links.stats.Tombstones--
	if !l.mine(id) {
		l.theirs--
	}
	l.sweep()
}

// sweep forgets graves whose tombstones are gone, and returns when the oldest tombstone that
// waits for the peer ends, or 0.
func (l *Link) sweep() env.Mono {
	v := &l.graves
	for v.head < len(v.list) {
		oldest := v.list[v.head]
		if t, ok := l.tombs[oldest.id]; ok && t.until == oldest.until && !t.theirsPassed {
			if v.head > len(v.list)/2 {
				v.list = append(v.list[:0], v.list[v.head:]...)
				v.head = 0
			}
			return oldest.until
		}
		v.head++
	}
	*v = graves{list: v.list[:0]}
	if cap(v.list) > 64 {
		v.list = nil
	}
	return 0
}

// sendDestroy has a DESTROY written. What a client says is always NONE.
func (l *Link) sendDestroy(id cell.CircuitID, reason cell.Reason) {
	if l.links.client() {
		reason = cell.ReasonNone
	}
	l.destroys = append(l.destroys, destroy{id, reason})
	l.mark()
}

// dropHead frees the leg's CREATE or CREATED.
func (g *Leg) dropHead() {
	g.inHead.remove()
	g.link.links.give(g.head)
	g.head = nil
}

// forget takes a leg out of everything and frees what it holds, its handler too: whoever keeps
// the leg keeps nothing else.
func (g *Leg) forget() {
	l := g.link
	g.state = legDead
	g.h = nil
	delete(l.circuits, g.id)
	if l.last == g {
		l.last = nil
	}
	if l.turnOf == g {
		l.turnOf = nil
	}
	g.inLink.remove()
	g.inTurn.remove()
	g.inDue.remove()
	g.inReturn.remove()
	g.inPartial.remove()
	g.promise(-g.in.window.size)
	l.links.stats.Legs--
	if g.opened {
		l.links.budget.out--
	} else {
		l.links.budget.in--
		l.theirs--
		l.count(-1)
	}
	if len(l.circuits) == 0 {
		l.idleSince = l.links.clock.Now()
	}
	if !l.up && l.links.budget.defect == DefectLeak {
		g.queue = queue{}
	}
	for g.queue.n > 0 {
		g.departed(g.queue.pop())
	}
	if g.head != nil {
		g.dropHead()
	}
}

// die ends a leg of a link that is up: its queue is freed, DESTROY sent, and a tombstone kept
// unless the peer's DESTROY has come. A CREATE not yet written is taken back instead.
func (g *Leg) die(reason cell.Reason, theirsPassed bool) {
	l := g.link
	unwritten := g.opened && g.head != nil
	t := tomb{
		credit:       uint32(g.in.outstanding()),
		unanswered:   g.state == legOpening,
		theirsPassed: theirsPassed,
	}
	if g.head != nil { // the peer never heard of it
		t.credit = 0
	}
	g.forget()
	if !l.up || unwritten {
		l.closeIfDrained()
		return
	}
	l.entomb(g.id, t)
	l.sendDestroy(g.id, reason)
}

// Destroy ends the leg: queues freed, DESTROY sent, tombstone kept. Nothing more is heard from
// it. Destroying twice is harmless.
func (g *Leg) Destroy(reason cell.Reason) {
	if g.state != legDead {
		g.die(reason, false)
	}
}

// fail ends the circuit for a fault of the peer's, and tells its handler.
func (g *Leg) fail(reason cell.Reason, what string) {
	g.link.links.stats.CircuitErrors++
	g.link.links.warn("neighbour broke the circuit protocol", g.link, &ProtocolError{What: what})
	g.end(reason)
}

// end destroys the circuit and tells its handler.
func (g *Leg) end(reason cell.Reason) {
	h := g.h
	g.die(reason, false)
	if h != nil {
		h.OnDestroyed(reason)
	}
}

// evict makes room in the budget.
func (g *Leg) evict() {
	if g.state != legDead && g.queue.n > 0 {
		g.link.links.stats.BudgetVictims++
		g.end(cell.ReasonResource)
	}
}
