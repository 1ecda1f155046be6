package flow

import "cepa/cell"

// pump gives the link what it can take: no more than LinkQueue bytes wait below, so that what
// is most urgent is decided as late as possible. When the rate of the uplink is known, cells of
// circuits are left to share.
func (l *Link) pump() {
	u := &l.links.uplink
	for l.up && !(l.idle() && l.batched == 0) {
		if l.batch == nil && !l.begin() {
			break
		}
		l.batchSpace = min(len(l.batch), l.space())
		for l.batched < l.batchSpace && l.up && l.write(l.batch[l.batched:l.batched+cell.Size]) {
			l.batched += cell.Size
			u.spend(l.links.clock.Now())
		}
		full := l.batched > 0 && l.batched >= l.batchSpace
		l.send()
		if !full {
			break
		}
	}
	if l.batch != nil {
		l.send()
	}
	u.enlist(l)
	l.closeIfDrained()
}

// begin borrows memory for a batch, if the link takes one now.
func (l *Link) begin() bool {
	space := l.space()
	if space == 0 {
		return false
	}
	l.batch = l.env.Room(1)
	l.batchSpace = min(len(l.batch), space)
	return true
}

// send hands the batch, which may be empty, to the link.
func (l *Link) send() {
	if l.batched > 0 && l.up {
		l.lastOut = l.links.clock.Now()
		if l.env.Queued() == 0 {
			l.taken = l.lastOut
			l.pace.left = 0
		}
		l.pace.left += l.batched
		l.cellsOut += uint64(l.batched / cell.Size)
		l.links.stats.CellsOut += uint64(l.batched / cell.Size)
		for at := 0; at < l.batched; at += cell.Size {
			if countKind(&l.links.stats.KindsOut, l.batch[at:]) {
				l.stir(l.lastOut)
			}
		}
	}
	if l.up {
		l.env.Send(l.batch[:l.batched])
	}
	l.batch, l.batched = nil, 0
}

// space returns how many bytes of whole cells the link takes now: none until OnDrained when
// enough are queued.
func (l *Link) space() int {
	room := l.pace.queue(l.links.cfg.Limits.LinkQueue) - l.env.Queued()
	return max(room+cell.Size-1, 0) / cell.Size * cell.Size
}

// room returns how many bytes may wait below in addition to those in the batch, of which the last may be the first of
// a cell.
func (l *Link) room() int {
	return l.pace.queue(l.links.cfg.Limits.LinkQueue) - l.env.Queued() - l.batched
}

// sendNow puts a cell of g straight into the batch that goes out at the end of this event, when
// nothing else waits for the link: what the scheduler would do, without the copy in between. The
// last credit of a circuit is left to the scheduler, which knows whether there is more to send.
func (g *Leg) sendNow(cmd cell.Command, body []byte) bool {
	l := g.link
	if g.credit < 2 || g.state != legOpen || g.head != nil || g.queue.n > 0 || g.woken || !l.idle() {
		return false
	}
	if l.batched == len(l.batch) {
		if l.batch != nil {
			l.send()
		}
		if !l.begin() {
			return false
		}
		l.mark() // which has pump send the batch
	}
	now := l.links.clock.Now()
	if l.batched+cell.Size > l.batchSpace || !l.links.uplink.free(now) {
		return false
	}
	c := l.batch[l.batched : l.batched+cell.Size]
	l.batched += cell.Size
	l.links.uplink.spend(now)
	cell.Header{Circuit: g.id, Command: cmd}.Put(c)
	copy(c[cell.HeaderSize:], body)
	g.credit--
	if now.Sub(g.lastSent) > sparseIdle {
		g.quantum = sparseQuantum
	}
	g.quantum = max(g.quantum-1, 0)
	g.lastSent = now
	g.carried(now, false)
	return true
}

// idle reports whether nothing waits to be sent that is not in the batch.
func (l *Link) idle() bool {
	return l.up && l.sparse.empty() && l.active.empty() && l.heads.empty() && len(l.destroys) == 0 &&
		!l.creditNow && l.returns.empty() && !l.padding && l.gossip.n == 0 && l.draining == l.drainWritten
}

// write fills c with the next cell, of the link itself if there is one, or returns false.
func (l *Link) write(c []byte) bool {
	switch {
	case !l.heads.empty():
		l.writeHead(c)
	case len(l.destroys) > 0:
		l.writeDestroy(c)
	case l.creditNow && l.writeCredit(c):
	case !l.returns.empty() && l.writeReturn(c):
	case l.draining && !l.drainWritten:
		l.writeDrain(c)
	case l.padding:
		l.padding = false
		l.links.stats.PaddingOut++
		clear(c) // PADDING is 0, as is the id of the link
	case l.gossip.n > 0:
		q := l.gossip.pop()
		copy(c, q.b[:])
		l.links.give(q)
	default:
		return !l.links.uplink.known() && l.writeRelay(c)
	}
	return true
}

// writeHead writes the first CREATE or CREATED.
func (l *Link) writeHead(c []byte) {
	g := l.heads.first.of
	copy(c, g.head.b[:])
	g.dropHead()
	g.activate()
}

func (l *Link) writeDestroy(c []byte) {
	d := l.destroys[0]
	if l.destroys = l.destroys[1:]; len(l.destroys) == 0 {
		l.destroys = nil
	}
	cell.Header{Circuit: d.id, Command: cell.CommandDestroy}.Put(c)
	if err := cell.PutDestroy(c[cell.HeaderSize:], d.reason); err != nil {
		panic(err) // c is a whole cell
	}
	t := l.tombs[d.id]
	t.oursWritten = true
	l.tombs[d.id] = t
	l.exhume(d.id)
}

func (l *Link) writeDrain(c []byte) {
	clear(c)
	cell.Header{Command: cell.CommandLinkDrain}.Put(c)
	l.drainWritten = true
}

// writeRelay writes a cell of a circuit: sparse ones first, then all in turn.
func (l *Link) writeRelay(c []byte) bool {
	for {
		turn := l.sparse.first
		if turn == nil {
			if turn = l.active.first; turn == nil {
				return false
			}
		}
		g := turn.of
		cmd, ok := g.next(c[cell.HeaderSize:])
		if !ok {
			turn.remove()
			continue
		}
		g.credit--
		g.lastSent = l.links.clock.Now()
		g.quantum = max(g.quantum-1, 0)
		g.round = l.links.uplink.round + 1
		more := g.more()
		cell.Header{Circuit: g.id, Command: cmd, Dry: more && g.credit == 0}.Put(c)
		g.starved = more && g.credit == 0
		g.carried(g.lastSent, g.starved)
		switch {
		case !more || g.credit == 0:
			turn.remove()
		case turn.next == nil && turn.prev == nil && (turn.on == &l.active || g.quantum > 0):
			// Nobody else's turn.
		case turn.on == &l.active && !l.links.uplink.known() && l.goesOn(g):
			// Its turn is not over.
		default:
			turn.remove()
			if g.quantum > 0 {
				l.sparse.push(turn)
			} else {
				l.active.push(turn)
			}
		}
		return true
	}
}

// goesOn reports whether g, the first of active, has cells left in its turn, now that it has sent one. What a circuit sends in
// one go is cheaper all the way: what it needs is in the processor's cache, and the far end hands it on in larger pieces.
func (l *Link) goesOn(g *Leg) bool {
	if l.turnOf != g {
		l.turnOf, l.turnLeft = g, l.pace.turn(l.active.n)
	}
	if l.turnLeft--; l.turnLeft == 0 {
		l.turnOf = nil
	}
	return l.turnOf != nil
}

// Gossip sends one packet of 1 to cell.MaxGossip bytes, copied. False means that it was not
// sent: the link is down, busy, over its budget, or one end of it is a client; or that the
// packet is too long.
func (l *Link) Gossip(packet []byte) bool {
	ls := l.links
	if !l.up || ls.client() || l.peer.Client() || len(packet) == 0 || len(packet) > cell.MaxGossip ||
		l.gossip.n >= gossipQueue || !l.gossipOut.take(ls.clock.Now(), gossipOutEvery, gossipOutBurst) {
		return false
	}
	q := ls.take()
	cell.Header{Command: cell.CommandGossip}.Put(q.b[:])
	if err := cell.PutGossip(q.b[cell.HeaderSize:], packet); err != nil {
		panic(err) // the length was checked
	}
	l.gossip.push(q)
	l.mark()
	return true
}
