package flow

import (
	"cepa/cell"
	"cepa/env"
)

// grant is what this node has allowed a neighbour to send on one circuit, in cells since the
// circuit began. What was granted is with the neighbour, in a queue, or has left:
//
//	granted - received   the neighbour may still send
//	received - freed     wait in the queue of the next leg
type grant struct {
	granted, received, freed int
	first                    int // of granted, with CREATE or CREATED
	window                   window
}

func (v *grant) outstanding() int { return v.granted - v.received }

// due is how many cells more the neighbour may be granted under a window.
func (v *grant) due(window int) int { return window - (v.granted - v.freed) }

// batch is how many cells must be due before a CREDIT is worth its 2048 bytes. It is at most
// half of the window: a neighbour without credit, whose cells have all left, is always due for
// one. Circuits would stop for ever otherwise.
func (ls *Links) batch(window int) int {
	n := max(min(max(window/4, min(16, window/2)), 64), 1)
	if 2*n > window && window >= 2 {
		panic("flow: a CREDIT that waits for more than half of the window")
	}
	return max(n, ls.leastBatch)
}

// returned gives back the credit of one cell: it has left for the next link, or was read here.
func (g *Leg) returned() {
	v := &g.in
	v.freed++
	if g.link.links.budget.defect == DefectCredit {
		v.freed++
	}
	v.window.low = min(v.window.low, v.waiting())
	g.offer()
}

// offer has a CREDIT written soon if enough is due for one, or, if it is little, once the circuit has come to rest.
func (g *Leg) offer() {
	l := g.link
	if g.state != legOpen {
		return
	}
	if g.inDue.on != nil {
		g.hasten()
		return
	}
	w := g.window()
	switch due := g.in.due(w); {
	case due >= l.links.batch(w):
	case due*flushShare >= w && due >= l.links.leastBatch:
		g.mayRest()
		return
	default:
		return
	}
	if !g.shrunk() {
		g.inPartial.remove()
	}
	l.due.push(&g.inDue)
	g.hasten()
	if l.ticking || l.creditNow {
		return
	}
	l.ticking = true
	if l.ticker == nil {
		l.ticker = l.links.clock.AfterFunc(creditTick, l.onTick)
	} else {
		l.ticker.Reset(creditTick)
	}
}

// hasten has the CREDIT that is due written at once when the neighbour would run out of credit before the tick.
func (g *Leg) hasten() {
	if l := g.link; !l.creditNow && g.in.outstanding() <= g.in.window.perTick {
		l.creditNow = true
		l.mark()
	}
}

func (l *Link) onTick() {
	l.links.enter()
	defer l.links.leave()
	l.ticking = false
	l.creditNow = true
	l.mark()
}

// writeCredit writes one CREDIT cell with what is due now.
func (l *Link) writeCredit(c []byte) bool {
	ls := l.links
	pairs := ls.pairs[:0]
	for !l.due.empty() && len(pairs) < cell.MaxCreditPairs {
		g := l.due.first.of
		g.inDue.remove()
		if add := min(g.in.due(g.window()), maxCredit-g.in.outstanding()); add > 0 {
			if g.rule != nil {
				g.rule.Granted(ls.clock.Now(), g.in.granted)
			}
			g.in.window.trips.onCredit(g.in.granted, ls.clock.Now())
			g.in.granted += add
			pairs = append(pairs, cell.CreditPair{Circuit: g.id, Add: uint16(add)})
		}
	}
	l.creditNow = !l.due.empty()
	if len(pairs) == 0 {
		return false
	}
	cell.Header{Command: cell.CommandCredit}.Put(c)
	if err := cell.PutCredit(c[cell.HeaderSize:], pairs); err != nil {
		panic(err) // pairs are built above from live circuits
	}
	ls.stats.CreditsOut += uint64(len(pairs))
	return true
}

// tendCredit sees to it that nobody keeps what he does not use, and so that nobody can hoard what a budget promises. Of
// what a neighbour has granted it gets back all but the first grant once nothing was sent for returnTime; who does not do so
// for hoardTime, which is long beyond the silence of a link that is dead, loses the circuit.
func (g *Leg) tendCredit(now env.Mono) {
	if g.state != legOpen || g.head != nil {
		return
	}
	if g.idleCredit(now) > 0 && g.inReturn.on == nil {
		g.link.returns.push(&g.inReturn)
		g.link.mark()
	}
	if g.in.outstanding() > g.in.first && now.Sub(max(g.lastIn, g.link.grace)) >= hoardTime+g.link.links.cfg.Dead {
		g.link.links.stats.Hoarders++
		g.end(cell.ReasonResource)
	}
}

// idleCredit is how many cells of credit the leg has to give back.
func (g *Leg) idleCredit(now env.Mono) int {
	if g.queue.n > 0 || now.Sub(g.lastSent) < returnTime {
		return 0
	}
	return max(g.credit-g.first, 0)
}

// writeReturn writes one RETURN cell with the credit that is not used.
func (l *Link) writeReturn(c []byte) bool {
	pairs, now := l.links.pairs[:0], l.links.clock.Now()
	for !l.returns.empty() && len(pairs) < cell.MaxCreditPairs {
		g := l.returns.first.of
		g.inReturn.remove()
		if n := g.idleCredit(now); n > 0 {
			g.credit -= n
			pairs = append(pairs, cell.CreditPair{Circuit: g.id, Add: uint16(n)})
		}
	}
	if len(pairs) == 0 {
		return false
	}
	cell.Header{Command: cell.CommandReturn}.Put(c)
	if err := cell.PutCredit(c[cell.HeaderSize:], pairs); err != nil {
		panic(err) // pairs are built above from live circuits
	}
	return true
}

// onReturn takes back n cells that the peer has not used. The window is a first one again. It reports whether the link is
// still up.
func (g *Leg) onReturn(n int) bool {
	v, ls := &g.in, g.link.links
	if g.state != legOpen || g.head != nil || n > v.outstanding() {
		g.link.fail("RETURN of credit that was not granted", nil)
		return false
	}
	ls.stats.Returned += uint64(n)
	v.granted -= n
	g.setWindow(min(v.window.size, ls.cfg.Limits.InitialWindow))
	v.window.grown, v.window.steps, v.window.dryFrom, v.window.trips = false, 0, v.received, nil
	g.newRound(ls.clock.Now())
	g.offer()
	return true
}

// onCredit takes a grant of the peer's. It reports whether the link is still up.
func (g *Leg) onCredit(add int) bool {
	g.link.links.stats.CreditsIn++
	switch {
	case g.state != legOpen || g.head != nil:
		g.link.fail("CREDIT for a circuit that is not open", nil)
		return false
	case g.credit+add > maxCredit:
		g.link.fail("CREDIT of more than 65535 cells", nil)
		return false
	}
	g.credit += add
	g.activate()
	return true
}
