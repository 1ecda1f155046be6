package directory

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// pull is a descriptor to be fetched.
type pull struct {
	digest   cert.Digest
	identity cert.Identity // whose it should be; zero when only the digest is known
	from     cert.Identity // who told of it: bounds count by this
	sources  []env.Target  // still to be asked
	rumour   []byte        // that told of it; nil when it was not a rumour
}

// pulls are the descriptors being fetched and those that wait for their turn.
type pulls struct {
	queue   []*pull
	running []*pull
	open    int
	refused map[cert.Digest]env.Mono // not to be fetched again until then
}

// remove takes one out of the queue, whose order means nothing.
func (q *pulls) remove(i int) *pull {
	p, last := q.queue[i], len(q.queue)-1
	q.queue[i], q.queue[last] = q.queue[last], nil
	q.queue = q.queue[:last]
	return p
}

const (
	maxPullsFrom  = maxPullsQueued / 4 // waiting that one relay told of
	maxRefused    = 8192
	refusedFor    = 30 * time.Minute
	pullTimeout   = 8 * time.Second
	failedPullFor = 10 * time.Second // at most; less when relays compare notes more often
)

func oneAddress(r Rumour) []netip.AddrPort { return []netip.AddrPort{r.Address} }

// pull queues a descriptor, unless it is being fetched already or too much that the same relay told of is waiting.
func (a *Agent) pull(p *pull) {
	q := &a.pulls
	same := func(o *pull) bool { return o.digest == p.digest }
	if q.refused[p.digest] > a.env.Clock.Now() || slices.ContainsFunc(q.running, same) || !a.running {
		return
	}
	if i := slices.IndexFunc(q.queue, same); i >= 0 {
		if len(q.queue[i].sources) < 3 {
			q.queue[i].sources = append(q.queue[i].sources, p.sources...)
		}
		return
	}
	// A newer descriptor of the same relay takes the place of the older one.
	if i := slices.IndexFunc(q.queue, func(o *pull) bool { return !p.identity.IsZero() && o.identity == p.identity }); i >= 0 {
		q.queue[i] = p
		return
	}
	told := 0
	for _, o := range q.queue {
		if o.from == p.from {
			told++
		}
	}
	if told >= maxPullsFrom {
		a.stats.LimitedRumours++
		return
	}
	if len(q.queue) >= maxPullsQueued { // one has to go, by lot
		a.stats.LimitedRumours++
		q.remove(a.random(len(q.queue)))
	}
	q.queue = append(q.queue, p)
	a.pump()
}

// pump starts as many pulls as may run at once: those of relays in the consensus first, and else by lot, so that many
// who announce themselves and then do not answer delay the others, but do not stop them.
func (a *Agent) pump() {
	for a.pulls.open < maxPulls && len(a.pulls.queue) > 0 {
		i := slices.IndexFunc(a.pulls.queue, func(p *pull) bool { return !p.identity.IsZero() && a.InConsensus(p.identity) })
		if i < 0 {
			i = a.random(len(a.pulls.queue))
		}
		p := a.pulls.remove(i)
		a.pulls.open++
		a.pulls.running = append(a.pulls.running, p)
		a.tryPull(p)
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
	a.pulls.running = slices.DeleteFunc(a.pulls.running, func(o *pull) bool { return o == p })
	a.env.Clock.AfterFunc(0, a.pump) // an event of its own: many in a row must not nest
}

func (a *Agent) onPulled(p *pull, from env.Target, status Status, sealed []byte, err error) {
	if err != nil || status != StatusOK {
		a.log.Debug("a descriptor did not come", "from", from.Identity.Short(), "status", status, "err", err)
		a.tryPull(p)
		return
	}
	d, err := OpenDescriptor(sealed, a.network, a.env.Clock.Wall())
	switch {
	case err != nil:
	case d.Digest != p.digest:
		err = fmt.Errorf("%w: another descriptor than asked for", ErrDigest)
	case !p.identity.IsZero() && d.Identity != p.identity:
		err = fmt.Errorf("%w: it is of %s", ErrSigners, d.Identity.Short())
	}
	if err != nil {
		// Held against the source only: another may have the true one.
		a.stats.BadDescriptors++
		a.gripes.warn("a descriptor that is not what it should be", "from", from.Identity.Short(), "err", err)
		a.tryPull(p)
		return
	}
	a.take(&entry{Descriptor: d, sealed: bytes.Clone(sealed), rumour: p.rumour})
	a.endPull(p)
}

// take stores a descriptor that verifies, if it is news.
func (a *Agent) take(e *entry) {
	held := a.store.entries[e.Identity]
	switch {
	case e.Identity == a.cfg.Identity, held != nil && e.Compare(held.Descriptor) <= 0, !e.IsNews(a.env.Clock.Wall()):
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
