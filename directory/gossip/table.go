package gossip

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/directory"
)

// entry is the newest rumour of one relay.
type entry struct {
	rumour      directory.Rumour
	sealed      []byte
	from        cert.Identity     // the neighbour that told
	incarnation uint32            // towards memberlist
	waiting     bool              // memberlist has not taken it yet
	member      bool              // memberlist holds the relay for alive
	ticket      *directory.Ticket // nil when the consensus lists the relay
}

// compareRumours says which of two rumours of one relay is newer, in the order of descriptors (Descriptor.Compare). Of
// two about one descriptor, that which ends earlier is newer: it says that the relay leaves.
func compareRumours(a, b *directory.Rumour) int {
	return cmp.Or(a.Issued.Compare(b.Issued), a.Published.Compare(b.Published), a.Descriptor.Compare(b.Descriptor), b.Expires.Compare(a.Expires))
}

// farewell reports whether a rumour says that the relay leaves: it ends before its descriptor does.
func farewell(r *directory.Rumour) bool { return r.Expires.Before(endOf(r)) }

// endOf is when no rumour of the same descriptor is valid any more.
func endOf(r *directory.Rumour) time.Time { return r.Published.Add(directory.DescriptorLifetime) }

// known reports whether exactly this rumour is held.
func (g *Gossip) known(a alive) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.table[a.id]
	return e != nil && bytes.Equal(e.sealed, a.meta)
}

// newer reports whether r is newer than what is held of the relay, and than the farewell that was held.
func (g *Gossip) newer(r *directory.Rumour) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.newerLocked(r)
}

func (g *Gossip) newerLocked(r *directory.Rumour) bool {
	e, last := g.table[r.Identity], g.departed[r.Identity]
	if g.cfg.Undefended.Replays {
		return e == nil || compareRumours(r, &e.rumour) != 0
	}
	return (e == nil || compareRumours(r, &e.rumour) > 0) && (last == nil || compareRumours(r, last) > 0)
}

// admit takes a verified and accepted rumour into the table and offers it to memberlist.
func (g *Gossip) admit(n news) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.newerLocked(&n.rumour) { // one packet may bring two of one relay
		g.counters.drop(DropStale)
		return
	}
	id := n.rumour.Identity
	e := g.table[id]
	ticket, ok := g.makeRoomLocked(&n.rumour, e)
	if !ok {
		g.counters.drop(DropTableFull)
		return
	}
	if e == nil {
		e = &entry{}
		g.table[id] = e
		delete(g.departed, id)
	}
	e.ticket = ticket
	g.counters.accepted.Add(1)
	g.incarnation++
	e.rumour, e.sealed, e.from, e.incarnation = n.rumour, n.sealed, n.from, g.incarnation
	g.waitLocked(e, true)
	g.feedLocked(e)
}

// makeRoomLocked makes room for the rumour of a relay in the place of e, the entry that it has, if any: by lot among those
// that the consensus does not list, so that a flood of names does not keep newcomers out, nor push out the others. It
// returns the relay's ticket in that lottery, nil for a listed one, or false when all that are held are listed.
func (g *Gossip) makeRoomLocked(r *directory.Rumour, e *entry) (ticket *directory.Ticket, ok bool) {
	if e != nil && e.ticket != nil {
		g.unlisted.Leave(e.ticket)
		e.ticket = nil
	}
	listed := g.listed(r.Identity)
	place := []netip.AddrPort{r.Address}
	if listed {
		place = nil // no site is full for it
	}
	ticket = directory.NewTicket(r.Identity, place)
	for {
		full := e == nil && len(g.table) >= g.limits.Members
		loser := g.unlisted.Loser(ticket, full)
		if loser == nil && full {
			return nil, false
		}
		if loser == nil {
			break
		}
		g.counters.evicted.Add(1)
		g.forgetLocked(loser.Identity, g.table[loser.Identity])
	}
	if listed {
		return nil, true
	}
	g.unlisted.Join(ticket)
	return ticket, true
}

// nameRoomLocked reports whether memberlist may be told of a relay: it remembers the dead until it is replaced.
func (g *Gossip) nameRoomLocked(id cert.Identity) bool {
	_, known := g.driver.names[id]
	return known || !g.namesFullLocked()
}

func (g *Gossip) namesFullLocked() bool { return len(g.driver.names) >= 2*g.limits.Members }

func (g *Gossip) waitLocked(e *entry, waiting bool) {
	switch {
	case waiting && !e.waiting:
		g.waiting++
	case !waiting && e.waiting:
		g.waiting--
	}
	e.waiting = waiting
}

// feedLocked gives an entry to memberlist and reports whether there was room.
func (g *Gossip) feedLocked(e *entry) bool {
	a := alive{e.rumour.Identity, e.sealed, e.incarnation}
	if !g.nameRoomLocked(a.id) || !g.driver.feed(appendAlive(make([]byte, 0, len(e.sealed)+160), a)) {
		g.counters.drop(DropDriverFull)
		return false
	}
	g.driver.names[a.id] = struct{}{}
	return true
}

// forgetLocked drops a relay and tells memberlist that it is dead. Should memberlist not take that now, it goes on
// choosing the relay, whose packets are redirected, until it is replaced. A farewell is remembered until the
// descriptor's end: whoever missed it still passes on the rumour before it.
func (g *Gossip) forgetLocked(id cert.Identity, e *entry) {
	if farewell(&e.rumour) {
		for old := range g.departed { // by lot
			if len(g.departed) < g.limits.Members {
				break
			}
			delete(g.departed, old)
		}
		last := e.rumour
		g.departed[id] = &last
	}
	if e.ticket != nil {
		g.unlisted.Leave(e.ticket)
		e.ticket = nil
	}
	g.waitLocked(e, false)
	delete(g.table, id)
	if _, known := g.driver.names[id]; known && !g.driver.feed(appendDead(nil, id, g.self, e.incarnation)) {
		g.counters.drop(DropDriverFull)
	}
}

func (g *Gossip) expireLocked(now time.Time) {
	for id, e := range g.table {
		if !now.Before(e.rumour.Expires) {
			g.forgetLocked(id, e)
		}
	}
	for id, last := range g.departed {
		if !now.Before(endOf(last)) {
			delete(g.departed, id)
		}
	}
}

// current reports whether meta is what is held of a relay: this one's own rumour, or the newest of another. from is the
// neighbour that told.
func (g *Gossip) current(id cert.Identity, meta []byte) (from cert.Identity, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id == g.self {
		return from, bytes.Equal(meta, g.own)
	}
	e := g.table[id]
	if e == nil || !bytes.Equal(meta, e.sealed) {
		return from, false
	}
	return e.from, true
}

// some returns up to n entries other than those that skip rejects: not a fair sample, but another one each time.
func (g *Gossip) some(n int, skip func(cert.Identity, *entry) bool) []*entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found []*entry
	for id, e := range g.table {
		if len(found) >= n {
			break
		}
		if !skip(id, e) {
			found = append(found, &entry{rumour: e.rumour, sealed: e.sealed}) // admit changes entries, never what they point to
		}
	}
	return found
}

// Members returns the relays that memberlist holds for alive, without this one, ascending. It may be called from any
// goroutine.
func (g *Gossip) Members() []cert.Identity {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []cert.Identity
	for id, e := range g.table {
		if e.member {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, cert.Identity.Compare)
	return ids
}
