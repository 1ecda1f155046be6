package directory

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// pull is a descriptor to be fetched.
type pull struct {
	digest   cert.Digest
	identity cert.Identity // who says that it is theirs, by a rumour; zero when only the digest is known
	hearsay  *hearsay      // that rumour, to be passed on when it has proved true; nil without one
	from     cert.Identity // who told of it: bounds count by this
	sources  []env.Target  // still to be asked
	at       int           // index in the queue; -1 when it runs
}

// hearsay is a rumour that was heard.
type hearsay struct {
	Rumour
	sealed []byte
	from   cert.Identity
}

// pulls are the descriptors being fetched and those that wait for their turn.
type pulls struct {
	queue   []*pull
	wanted  map[cert.Digest]*pull    // queued and running
	news    map[cert.Identity]*pull  // queued, by whose it should be
	told    map[cert.Identity]int    // how many are queued that one relay told of; no zeros
	open    int                      // running
	refused map[cert.Digest]env.Mono // not to be fetched again until then
}

func newPulls() pulls {
	q := pulls{refused: make(map[cert.Digest]env.Mono)}
	q.clear()
	return q
}

// clear forgets what is queued; what runs ends by itself.
func (q *pulls) clear() {
	q.queue = nil
	q.wanted = make(map[cert.Digest]*pull)
	q.news = make(map[cert.Identity]*pull)
	q.told = make(map[cert.Identity]int)
}

func (q *pulls) add(p *pull) {
	p.at = len(q.queue)
	q.queue = append(q.queue, p)
	q.wanted[p.digest] = p
	q.told[p.from]++
	if !p.identity.IsZero() {
		q.news[p.identity] = p
	}
}

// remove takes one out of the queue, whose order means nothing. It is still wanted.
func (q *pulls) remove(i int) *pull {
	p, last := q.queue[i], len(q.queue)-1
	q.queue[i] = q.queue[last]
	q.queue[i].at, p.at = i, -1
	q.queue[last] = nil
	q.queue = q.queue[:last]
	if q.told[p.from]--; q.told[p.from] == 0 {
		delete(q.told, p.from)
	}
	if q.news[p.identity] == p {
		delete(q.news, p.identity)
	}
	return p
}

// replace puts a newer descriptor of the same relay in the place of the one that is queued, at the expense of whoever
// told of that.
func (q *pulls) replace(old, p *pull) {
	p.at, p.from = old.at, old.from
	q.queue[p.at] = p
	delete(q.wanted, old.digest)
	q.wanted[p.digest] = p
	q.news[p.identity] = p
}

// full says whether as much is queued as one relay may tell of.
func (q *pulls) full(from cert.Identity) bool { return q.told[from] >= maxPullsFrom }

const (
	maxPullsFrom  = maxPullsQueued / 4 // waiting that one relay told of
	maxSources    = 3                  // when so many are still to be asked for a descriptor, more do not help
	maxRefused    = 8192
	refusedFor    = 30 * time.Minute
	pullTimeout   = 8 * time.Second
	failedPullFor = 10 * time.Second // at most; less when relays compare notes more often
)

// pull queues a descriptor and reports whether it is on its way, for the identity that p names: not when it was refused
// lately, when another says that it is theirs, or when too much that the same relay told of is waiting. What it costs
// does not depend on how much is waiting.
func (a *Agent) pull(p *pull) bool {
	q := &a.pulls
	if !a.running || q.refused[p.digest] > a.env.Clock.Now() {
		return false
	}
	if o := q.wanted[p.digest]; o != nil {
		o.ask(p.sources)
		if o.identity.IsZero() {
			o.identity, o.hearsay = p.identity, p.hearsay
		}
		return o.identity == p.identity || p.identity.IsZero()
	}
	if o := q.news[p.identity]; o != nil {
		q.replace(o, p)
		return true
	}
	if q.full(p.from) {
		a.stats.LimitedRumours++
		return false
	}
	if len(q.queue) >= maxPullsQueued { // one has to go, by lot
		a.stats.LimitedRumours++
		q.forget(q.remove(a.random(len(q.queue))))
	}
	q.add(p)
	a.pump()
	return true
}

// ask adds sources to those that are still to be asked.
func (p *pull) ask(sources []env.Target) {
	for _, s := range sources {
		known := slices.ContainsFunc(p.sources, func(o env.Target) bool { return o.Identity == s.Identity })
		if !known && len(p.sources) < maxSources {
			p.sources = append(p.sources, s)
		}
	}
}

// forget ends the wish for a descriptor that is neither queued nor running any more.
func (q *pulls) forget(p *pull) {
	if q.wanted[p.digest] == p {
		delete(q.wanted, p.digest)
	}
}

// pump starts as many pulls as may run at once: those of relays in the consensus first, and else by lot, so that many
// who announce themselves and then do not answer delay the others, but do not stop them.
func (a *Agent) pump() {
	q := &a.pulls
	search := true // for one of the consensus; in vain only once
	for q.open < maxPulls && len(q.queue) > 0 {
		i := -1
		if search {
			i = slices.IndexFunc(q.queue, func(p *pull) bool { return !p.identity.IsZero() && a.InConsensus(p.identity) })
			search = i >= 0
		}
		if i < 0 {
			i = a.random(len(q.queue))
		}
		q.open++
		a.tryPull(q.remove(i))
	}
}

func (a *Agent) tryPull(p *pull) {
	if _, held := a.store.digests[p.digest]; held || len(p.sources) == 0 || !a.running {
		if !held {
			a.stats.PullsFailed++
			a.refuse(p.digest, min(failedPullFor, a.network.millis(ReconcileMillis)))
		}
		a.endPull(p)
		return
	}
	to := p.sources[0]
	p.sources = p.sources[1:]
	a.stats.Pulls++
	over := false
	finish := func(status Status, body []byte, err error) {
		if !over {
			over = true
			a.onPulled(p, to, status, body, err)
		}
	}
	timer := a.env.Clock.AfterFunc(pullTimeout, func() { finish(0, nil, errNoAnswer) })
	fetch(a.cfg.Fetcher, to, Request{Kind: AskDescriptor, Digest: p.digest}, MaxDescriptor, func(status Status, body []byte, err error) {
		timer.Stop()
		finish(status, body, err)
	})
}

func (a *Agent) endPull(p *pull) {
	a.pulls.open--
	a.pulls.forget(p)
	a.env.Clock.AfterFunc(0, a.pump) // an event of its own: many in a row must not nest
}

func (a *Agent) onPulled(p *pull, from env.Target, status Status, sealed []byte, err error) {
	if err != nil || status != StatusOK {
		a.log.Debug("a descriptor did not come", "from", from.Identity.Short(), "status", status, "err", err)
		a.tryPull(p)
		return
	}
	d, err := OpenDescriptor(sealed, a.network, a.env.Clock.Wall())
	if errors.Is(err, ErrExpired) && a.cfg.Undefended.Replays {
		d, err = OpenDescriptor(sealed, a.network, a.env.Clock.Wall().Add(-yesterday))
	}
	if err == nil && d.Digest != p.digest {
		err = fmt.Errorf("%w: another descriptor than asked for", ErrDigest)
	}
	if err != nil {
		// Held against the source only: another may have the true one.
		a.stats.BadDescriptors++
		a.gripes.warn("a descriptor that is not what it should be", "from", from.Identity.Short(), "err", err)
		a.tryPull(p)
		return
	}
	// Should it not be of the relay whose rumour named it, the rumour was false, and the descriptor is true all the same.
	a.take(&entry{Descriptor: d, sealed: d.keep(sealed)})
	a.endPull(p)
	if p.hearsay != nil {
		a.confirm(p.hearsay)
	}
}

// confirm passes a rumour on whose descriptor is held now. Nobody else could tell it from one about nothing, of which
// anybody can make any number.
func (a *Agent) confirm(h *hearsay) {
	e := a.store.entries[h.Identity]
	if e == nil || e.Digest != h.Descriptor || !e.Published.Equal(h.Published) || !slices.Contains(e.Addresses, h.Address) {
		return
	}
	if h.isFarewell() {
		a.onFarewell(e)
	}
	if a.cfg.Gossip != nil {
		a.cfg.Gossip.Spread(h.Rumour, h.sealed, h.from)
	}
}

// take stores a descriptor that verifies, if it is news.
func (a *Agent) take(e *entry) {
	held := a.store.entries[e.Identity]
	switch {
	case e.Identity == a.cfg.Identity, !a.keeps(e.Identity), !a.cfg.Undefended.Replays && (held != nil && e.Compare(held.Descriptor) <= 0 || !e.IsNews(a.env.Clock.Wall())):
		a.refuse(e.Digest, refusedFor)
		return
	}
	if c := a.cfg.Follower.Current(); c != nil {
		e.listed = c.Lookup(e.Identity) != nil
	}
	a.stats.Stored++
	a.rumours.inherit(e, held, a.env.Clock.Now())
	a.store.put(e)
	a.changed(e.Identity)
}

// refuse remembers not to fetch a descriptor again for a while.
func (a *Agent) refuse(d cert.Digest, during time.Duration) {
	if len(a.pulls.refused) >= maxRefused {
		clear(a.pulls.refused) // rare, and only costs some fetches
	}
	a.pulls.refused[d] = a.env.Clock.Now().Add(during)
}

// tidy forgets what was refused long ago.
func (q *pulls) tidy(now env.Mono) {
	for d, until := range q.refused { // order: deletes only
		if until <= now {
			delete(q.refused, d)
		}
	}
}
