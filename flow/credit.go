package flow

import "cepa/cell"

// grant is what this node has allowed a neighbour to send on one circuit, in cells since the
// circuit began. What was granted is with the neighbour, in a queue, or has left:
//
//	granted - received   the neighbour may still send
//	received - freed     wait in the queue of the next leg
type grant struct{ granted, received, freed int }

func (v *grant) outstanding() int { return v.granted - v.received }

// due is how many cells more the neighbour may be granted under a window.
func (v *grant) due(window int) int { return window - (v.granted - v.freed) }

// window is how many cells a leg may have granted and not freed: the fixed initial window, but
// beyond the reserve at most an eighth of the free budget, so that a window need not be taken
// back when the budget runs low; it shrinks by not being returned. This is the one place that
// decides on the size of windows.
func (ls *Links) window() int {
	lim := &ls.cfg.Limits
	return max(min(lim.InitialWindow, ls.budget.free()/(8*cell.Size)), lim.Reserve)
}

// batch is how many cells must be due before a CREDIT is worth its 2048 bytes. It is at most
// half of the window: a neighbour without credit, whose cells have all left, is always due for
// one. Circuits would stop for ever otherwise.
func (ls *Links) batch(window int) int {
	return max(min(max(window/4, min(16, window/2)), 64), 1, ls.leastBatch)
}

// returned gives back the credit of one cell: it has left for the next link, or was read here.
func (g *Leg) returned() {
	g.in.freed++
	l := g.link
	if g.inDue.on != nil || g.state != legOpen {
		return
	}
	w := l.links.window()
	if g.in.due(w) < l.links.batch(w) {
		return
	}
	l.due.push(&g.inDue)
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
	w := ls.window()
	for !l.due.empty() && len(pairs) < cell.MaxCreditPairs {
		g := l.due.first.of
		g.inDue.remove()
		if add := min(g.in.due(w), maxCredit-g.in.outstanding()); add > 0 {
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

// onCredit takes a grant of the peer's. It reports whether the link is still up.
func (g *Leg) onCredit(add int) bool {
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
