package flow

import (
	"cepa/cell"
)

// receive acts on one cell. Every pair of a state and a command has an outcome:
//
//	               live               tombstone           dying  free, their half   free, our half
//	CREATE         circuit error      link error          link   new circuit        link error
//	CREATED        see onCreated      once, if unanswered link   link error         link error
//	RELAY(_EARLY)  see Leg.onRelay    within credit       link   link error         link error
//	DESTROY        destroyed, answer  free                link   link error         link error
//	CREDIT pair    see Leg.onCredit   ignored             link   link error         link error
//	RETURN pair    see Leg.onReturn   ignored             link   link error         link error
//
// A circuit that this node opened is free in this sense until its CREATE is written. A circuit
// error destroys the circuit. On a tombstone, where there is none, whatever is not expected
// closes the link: nobody but the neighbour can have caused it.
//
// For the link itself: PADDING within its budget, CREDIT, RETURN, GOSSIP between relays, and one
// LINK_DRAIN; HELLO was the shell's, and a second one closes the link.
func (l *Link) receive(c []byte) {
	h, err := cell.DecodeHeader(c)
	if err != nil {
		l.fail("bad cell", err)
		return
	}
	body := c[cell.HeaderSize:]
	switch h.Command {
	case cell.CommandRelay, cell.CommandRelayEarly:
		l.onRelay(h, body)
	case cell.CommandCredit, cell.CommandReturn:
		l.onPairs(h.Command, body)
	case cell.CommandCreate:
		l.onCreate(h.Circuit, body)
	case cell.CommandCreated:
		l.onCreated(h.Circuit, body)
	case cell.CommandDestroy:
		l.onDestroy(h.Circuit, body)
	case cell.CommandPadding:
		if !l.padIn.take(l.lastIn, paddingEvery, paddingBurst) {
			l.fail("too much padding", nil)
		}
	case cell.CommandGossip:
		l.onGossip(body)
	case cell.CommandLinkDrain:
		l.onDrain(body)
	default:
		l.fail(h.Command.String()+" after the first cell", nil)
	}
}

// find returns the live circuit with this id, as far as the neighbour can know of it.
func (l *Link) find(id cell.CircuitID) *Leg {
	if g := l.last; g != nil && g.id == id {
		return g
	}
	g := l.circuits[id]
	if g == nil || g.opened && g.head != nil {
		return nil
	}
	l.last = g
	return g
}

// stray closes the link for a cell that belongs to no circuit.
func (l *Link) stray(c cell.Command, id cell.CircuitID) {
	if t, ok := l.tombs[id]; ok && !t.theirsPassed {
		l.fail(c.String()+" for a circuit that is being destroyed", nil)
		return
	}
	l.fail(c.String()+" for a circuit that was never opened", nil)
}

func (l *Link) onRelay(h cell.Header, body []byte) {
	if g := l.find(h.Circuit); g != nil {
		g.onRelay(h, body)
		return
	}
	t, ok := l.tombs[h.Circuit]
	if !ok || t.theirsPassed || t.credit == 0 {
		l.stray(h.Command, h.Circuit)
		return
	}
	t.credit--
	l.tombs[h.Circuit] = t
}

func (l *Link) onCreate(id cell.CircuitID, body []byte) {
	ls := l.links
	_, buried := l.tombs[id]
	g := l.find(id)
	switch limit := ls.circuitsPerLink(l.peer.Client()); {
	case ls.client():
		l.fail("CREATE towards a client", nil)
	case g != nil:
		g.fail(cell.ReasonProtocol, "CREATE for a live circuit")
	case buried:
		l.stray(cell.CommandCreate, id)
	case l.mine(id):
		l.fail("CREATE with an id of this side's half", nil)
	case l.theirs >= 2*limit:
		// Refusals leave tombstones, so a neighbour that does not know the limit gets as many
		// again to notice.
		l.fail("circuits far beyond the limit", nil)
	case l.drained:
		l.refuse(id, cell.ReasonProtocol)
	case l.theirs >= limit, !l.admits():
		ls.stats.Refused++
		l.refuse(id, cell.ReasonResource)
	default:
		c, err := cell.DecodeCreate(body)
		if err != nil {
			ls.stats.CircuitErrors++
			ls.warn("neighbour broke the circuit protocol", l, err)
			l.refuse(id, cell.ReasonProtocol)
			return
		}
		g := newLeg(l, id, false)
		g.credit, g.first = int(c.Credit), int(c.Credit)
		l.add(g)
		ls.cfg.Handler.OnCreate(g, c)
	}
}

// refuse answers a CREATE by DESTROY.
func (l *Link) refuse(id cell.CircuitID, reason cell.Reason) {
	l.entomb(id, tomb{})
	l.sendDestroy(id, reason)
}

func (l *Link) onCreated(id cell.CircuitID, body []byte) {
	g := l.find(id)
	if g == nil {
		t, ok := l.tombs[id]
		if !ok || t.theirsPassed || !t.unanswered {
			l.stray(cell.CommandCreated, id)
			return
		}
		t.unanswered = false
		l.tombs[id] = t
		return
	}
	if g.state != legOpening {
		g.fail(cell.ReasonProtocol, "CREATED that nobody asked for")
		return
	}
	c, err := cell.DecodeCreated(body)
	if err != nil {
		g.fail(cell.ReasonProtocol, err.Error())
		return
	}
	g.state = legOpen
	g.credit, g.first = int(c.Credit), int(c.Credit)
	g.activate()
	g.h.OnCreated(c)
}

func (l *Link) onDestroy(id cell.CircuitID, body []byte) {
	reason, err := cell.DecodeDestroy(body)
	if err != nil { // it is the circuit's end all the same
		l.links.stats.CircuitErrors++
		l.links.warn("neighbour broke the circuit protocol", l, err)
		reason = cell.ReasonProtocol
	}
	if g := l.find(id); g != nil {
		h := g.h
		g.die(cell.ReasonDestroyed, true)
		if h != nil {
			h.OnDestroyed(reason.Known())
		}
		return
	}
	t, ok := l.tombs[id]
	if !ok || t.theirsPassed {
		l.stray(cell.CommandDestroy, id)
		return
	}
	t.theirsPassed = true
	l.tombs[id] = t
	l.exhume(id)
	l.closeIfDrained()
}

// onPairs takes a CREDIT or RETURN.
func (l *Link) onPairs(c cell.Command, body []byte) {
	pairs, err := cell.DecodeCredit(body, l.links.pairs[:0])
	if err != nil {
		l.fail("bad "+c.String(), err)
		return
	}
	for _, p := range pairs {
		if g := l.find(p.Circuit); g != nil {
			take := g.onCredit
			if c == cell.CommandReturn {
				take = g.onReturn
			}
			if !take(int(p.Add)) {
				return
			}
			continue
		}
		if t, ok := l.tombs[p.Circuit]; !ok || t.theirsPassed {
			l.stray(c, p.Circuit)
			return
		}
	}
}

func (l *Link) onGossip(body []byte) {
	switch packet, err := cell.DecodeGossip(body); {
	case l.links.client() || l.peer.Client():
		l.fail("GOSSIP with a client", nil)
	case err != nil:
		l.fail("bad GOSSIP", err)
	case !l.gossipIn.take(l.lastIn, gossipEvery, gossipBurst):
		l.links.stats.GossipDropped++
	default:
		l.links.cfg.Handler.OnGossip(l, packet)
	}
}

func (l *Link) onDrain(body []byte) {
	if err := cell.CheckEmpty(body); err != nil {
		l.fail("bad LINK_DRAIN", err)
		return
	}
	if l.drained {
		l.fail("LINK_DRAIN for the second time", nil)
		return
	}
	l.drained = true
	l.drain()
	l.closeIfDrained()
}
