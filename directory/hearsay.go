package directory

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// rumours remembers verdicts on rumours, and limits how many are looked at.
type rumours struct {
	seen    map[[32]byte]verdict // by the hash of the sealed rumour
	order   [][32]byte           // a ring, the oldest at next
	next    int
	from    limit.Buckets // by neighbour
	updates limit.Rate    // how often one relay may have news
}

func newRumours(network *Network) rumours {
	return rumours{
		seen:    make(map[[32]byte]verdict),
		from:    newBuckets(rumourRate, rumourBurst),
		updates: newUpdates(network).Rate,
	}
}

// verdict is what was found out about a rumour: nothing good when it is zero, or else of what descriptor it speaks.
type verdict struct {
	identity   cert.Identity
	descriptor cert.Digest
}

// spend takes news of a relay from its budget, once for each digest however often it is heard. Relays of which nothing
// is held have none: those are bounded by the candidate store and by what may be fetched, and not by a table that a
// flood of names could fill.
func (r *rumours) spend(e *entry, digest cert.Digest, now env.Mono) bool {
	if e == nil || e.counted == digest {
		return true
	}
	if !r.updates.Take(&e.news, 1, now) {
		return false
	}
	e.counted = digest
	return true
}

// inherit gives an entry the budget of the one that it replaces; the first of a relay has cost one.
func (r *rumours) inherit(e, from *entry, now env.Mono) {
	if from == nil {
		e.news = r.updates.Full(now)
		r.updates.Take(&e.news, 1, now)
		return
	}
	e.news, e.counted = from.news, from.counted
}

func (r *rumours) remember(key [32]byte, v verdict) {
	if _, known := r.seen[key]; known {
		r.seen[key] = v
		return
	}
	if len(r.order) < maxSeenRumours {
		r.order = append(r.order, key)
	} else {
		delete(r.seen, r.order[r.next])
		r.order[r.next] = key
		r.next = (r.next + 1) % maxSeenRumours
	}
	r.seen[key] = v
}

// OnRumour judges a rumour that the neighbour from has passed on: accept says whether it may be kept and passed on, and
// fresh whether it says something new. It is accepted only when the descriptor is held that it speaks of: identities are
// free, and whoever passes on what nobody has seen lets anybody speak to the whole network. The descriptor behind a
// fresh one is fetched from that neighbour, who has it if it is honest; then the rumour goes to Gossip.Spread. To hear
// the same rumour from others meanwhile gives more relays to ask.
func (a *Agent) OnRumour(sealed []byte, from cert.Identity) (accept, fresh bool) {
	a.stats.Rumours++
	now := a.env.Clock.Now()
	if len(sealed) > MaxRumour {
		a.stats.BadRumours++
		return false, false
	}
	key := sha256.Sum256(sealed)
	if v, known := a.rumours.seen[key]; known {
		e, p := a.store.entries[v.identity], a.pulls.wanted[v.descriptor]
		switch {
		case v.identity.IsZero():
			return false, false
		case e != nil && e.Digest == v.descriptor:
			return true, false
		case p != nil && p.identity == v.identity:
			p.ask([]env.Target{a.targetOf(from)})
			return false, false
		}
	}
	if !a.rumours.from.Take(string(from[:]), 1, now) {
		a.stats.LimitedRumours++
		return false, false
	}
	r, err := OpenRumour(sealed, a.network, a.env.Clock.Wall())
	if errors.Is(err, ErrExpired) {
		a.stats.LateRumours++
		a.rumours.remember(key, verdict{})
		return false, false
	}
	if err != nil {
		a.stats.BadRumours++
		a.gripes.warn("a rumour that is not true", "from", from.Short(), "err", err)
		a.rumours.remember(key, verdict{})
		return false, false
	}
	accept, fresh, final := a.judge(r, now)
	if fresh && !a.believe(&hearsay{r, bytes.Clone(sealed), from}, a.targetOf(from)) {
		return false, false // it is judged anew when it is heard again
	}
	switch {
	case final && (accept || fresh):
		a.rumours.remember(key, verdict{r.Identity, r.Descriptor})
	case final:
		a.rumours.remember(key, verdict{})
	}
	return accept, fresh
}

// judge compares a verified rumour with what is held. A fresh one that is not accepted may be when its descriptor has
// come. The verdict is final when it need not be verified again to be judged again.
func (a *Agent) judge(r Rumour, now env.Mono) (accept, fresh, final bool) {
	if r.Identity == a.cfg.Identity {
		return a.own.Descriptor != nil && r.Descriptor == a.own.Digest, false, false
	}
	if !a.keeps(r.Identity) {
		return false, false, false
	}
	if e := a.store.entries[r.Identity]; e != nil {
		if r.Descriptor == e.Digest {
			return true, r.isFarewell() && !e.leaving, true
		}
		as := &Descriptor{Issued: r.Issued, Published: r.Published, Digest: r.Descriptor}
		if as.Compare(e.Descriptor) < 0 && !a.cfg.Undefended.Replays {
			a.stats.LateRumours++
			return false, false, true
		}
	} else if r.isFarewell() {
		// Of a relay that is not known here: there is nothing to forget. Only the consensus can tell that it is one at
		// all; anybody can say farewell in new names for ever.
		return a.InConsensus(r.Identity), false, false
	}
	if !a.rumours.spend(a.store.entries[r.Identity], r.Descriptor, now) {
		a.stats.LimitedRumours++
		return false, false, false
	}
	return false, true, true
}

// believe acts on a rumour that says something new, and reports whether there is a descriptor behind it or on its way.
// The descriptor comes from those who told, and not from where the rumour says that the relay is, unless the consensus
// says so too: else one rumour could make all relays of the network call at any address.
func (a *Agent) believe(h *hearsay, from env.Target) bool {
	if e := a.store.entries[h.Identity]; e != nil && e.Digest == h.Descriptor {
		a.onFarewell(e)
		return true
	}
	if _, held := a.store.digests[h.Descriptor]; held {
		return false // it is another's
	}
	p := &pull{digest: h.Descriptor, identity: h.Identity, hearsay: h, from: from.Identity, sources: []env.Target{from}}
	if a.InConsensus(h.Identity) {
		p.ask([]env.Target{a.targetOf(h.Identity)})
	}
	return a.pull(p)
}

// onFarewell hears that a relay leaves whose descriptor is held.
func (a *Agent) onFarewell(e *entry) {
	e.leaving = true
	a.log.Info("a relay says that it leaves", "relay", e.Identity.Short())
	a.changed(e.Identity)
}

// targetOf is how to reach a relay: over an open link, which may be all that is known, or where it is proved to be.
func (a *Agent) targetOf(id cert.Identity) env.Target {
	return env.Target{Identity: id, Addresses: a.provedAddresses(id)}
}
