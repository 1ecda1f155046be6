package directory

import (
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

// verdict is what was thought of a rumour.
type verdict struct {
	accept   bool // it is to be passed on, as long as there is or will be a descriptor
	about    cert.Identity
	describe cert.Digest
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

// OnRumour judges a rumour that the neighbour from has passed on: accept says whether it is true as far as it goes,
// so that it may be kept and passed on, and fresh whether it says something new. The descriptor behind a fresh one is
// then fetched, from that neighbour or from the relay itself.
func (a *Agent) OnRumour(sealed []byte, from cert.Identity) (accept, fresh bool) {
	a.stats.Rumours++
	now := a.env.Clock.Now()
	if len(sealed) > MaxRumour {
		a.stats.BadRumours++
		return false, false
	}
	key := sha256.Sum256(sealed)
	if v, known := a.rumours.seen[key]; known && (!v.accept || a.stands(v)) {
		return v.accept, false
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
	if fresh && !a.believe(r, a.targetOf(from)) {
		return false, false // nothing would ever show whether there is a descriptor
	}
	if final {
		a.rumours.remember(key, verdict{accept, r.Identity, r.Descriptor})
	}
	return accept, fresh
}

// stands says whether what a rumour was accepted for still holds: a descriptor of the relay is held, or on its way.
func (a *Agent) stands(v verdict) bool {
	p := a.pulls.wanted[v.describe]
	return a.store.entries[v.about] != nil || p != nil && p.identity == v.about
}

// judge compares a verified rumour with what is held. The verdict is final when hearing the same rumour again cannot
// change it.
func (a *Agent) judge(r Rumour, now env.Mono) (accept, fresh, final bool) {
	if r.Identity == a.cfg.Identity {
		return a.own.Descriptor != nil && r.Descriptor == a.own.Digest, false, false
	}
	if e := a.store.entries[r.Identity]; e != nil {
		if r.Descriptor == e.Digest {
			return true, r.isFarewell() && !e.leaving, true
		}
		as := &Descriptor{Issued: r.Issued, Published: r.Published, Digest: r.Descriptor}
		if as.Compare(e.Descriptor) < 0 {
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
	return true, true, true
}

// believe acts on a rumour that says something new, and reports whether there is a descriptor behind it or on its way.
func (a *Agent) believe(r Rumour, from env.Target) bool {
	if e := a.store.entries[r.Identity]; e != nil && e.Digest == r.Descriptor {
		e.leaving = true
		a.log.Info("a relay says that it leaves", "relay", r.Identity.Short())
		a.changed(r.Identity)
		return true
	}
	if _, held := a.store.digests[r.Descriptor]; held {
		return false // it is another's
	}
	p := &pull{digest: r.Descriptor, identity: r.Identity, from: from.Identity}
	itself := env.Target{Identity: r.Identity, Addresses: oneAddress(r)}
	if from.Identity != r.Identity {
		p.sources = append(p.sources, from)
	}
	p.sources = append(p.sources, itself)
	return a.pull(p)
}

// targetOf is how to reach a relay of which an open link may be all that is known.
func (a *Agent) targetOf(id cert.Identity) env.Target {
	return env.Target{Identity: id, Addresses: a.Addresses(id)}
}
