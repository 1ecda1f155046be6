package circuit

import (
	"cmp"
	"slices"

	"cepa/cert"
	"cepa/env"
)

// avoidance is a failure to add a relay to a circuit. The hop before it may have made it up, so it
// counts only for circuits in which that hop comes before the relay again. See Client.everywhere
// for when it counts for all.
type avoidance struct {
	relay    cert.Identity
	previous cert.Identity // the hop that was to extend to relay
	guard    cert.Identity // of the circuit; previous, if relay was to be the second hop
	since    env.Mono
	until    env.Mono
	times    int  // that it failed
	answered bool // relay has become part of a circuit behind another hop since
}

// doubt is a relay that may be the one that is silent: for circuits through the same guard, in any
// place, and for a moment only.
type doubt struct {
	relay cert.Identity
	guard cert.Identity
	since env.Mono
	until env.Mono
	times int // that a circuit or stream gave reason to
}

// outlook is whom circuits through one guard keep away from, and since when. It is made of the
// avoidances and doubts of one moment and holds until these change.
type outlook struct {
	guard    cert.Identity
	until    env.Mono
	anywhere map[cert.Identity]env.Mono                   // whatever comes before
	behind   map[cert.Identity]map[cert.Identity]env.Mono // the same and more, behind some hops
}

// since says whether a relay behind previous is to be kept away from, and since when; the zero
// Identity is any hop before it.
func (o *outlook) since(previous, relay cert.Identity) (env.Mono, bool) {
	set, ok := o.behind[previous]
	if !ok {
		set = o.anywhere
	}
	at, ok := set[relay]
	return at, ok
}

// outlookFor returns what holds now for circuits through a guard.
func (c *Client) outlookFor(guard cert.Identity) *outlook {
	now := c.env.Clock.Now()
	for i, o := range c.outlooks {
		switch {
		case o.guard != guard:
		case o.until > now:
			return o
		default:
			c.outlooks = slices.Delete(c.outlooks, i, i+1)
			return c.look(guard, now)
		}
	}
	return c.look(guard, now)
}

// look makes an outlook. In case that not all can be heeded, failures come before doubts, new ones
// before old ones, and of the doubts those with most reasons first: who is silent is on all
// circuits that stall, who is not only on some.
func (c *Client) look(guard cert.Identity, now env.Mono) *outlook {
	o := &outlook{guard: guard, until: now.Add(c.limits.AvoidMost), behind: make(map[cert.Identity]map[cert.Identity]env.Mono)}
	var failed []avoidance
	var doubts []doubt
	for _, a := range c.failed {
		if a.until > now {
			failed = append(failed, a)
			o.until = min(o.until, a.until)
		}
	}
	for _, d := range c.doubts {
		if d.until > now && d.guard == guard {
			doubts = append(doubts, d)
			o.until = min(o.until, d.until)
		}
	}
	slices.SortStableFunc(failed, func(a, b avoidance) int { return cmp.Compare(b.since, a.since) })
	slices.SortStableFunc(doubts, func(a, b doubt) int { return cmp.Or(cmp.Compare(b.times, a.times), cmp.Compare(b.since, a.since)) })
	everywhere := everywhere(failed)
	o.anywhere = c.heed(failed, doubts, func(a *avoidance) bool { return everywhere[a.relay] })
	for _, x := range failed {
		if _, ok := o.behind[x.previous]; !ok {
			o.behind[x.previous] = c.heed(failed, doubts, func(a *avoidance) bool { return a.previous == x.previous || everywhere[a.relay] })
		}
	}
	c.outlooks = append(c.outlooks, o)
	return o
}

// everywhere returns the relays that count as failed behind every hop: two circuits without a
// common relay before that one failed at it, so that no single relay can bring it about, and it
// has not answered since.
func everywhere(failed []avoidance) map[cert.Identity]bool {
	set := make(map[cert.Identity]bool)
	for i, a := range failed {
		for _, b := range failed[:i] {
			if a.relay == b.relay && !a.answered && !b.answered && a.guard != b.guard && a.guard != b.previous &&
				a.previous != b.guard && a.previous != b.previous {
				set[a.relay] = true
			}
		}
	}
	return set
}

// heed takes as many of the avoidances for which counts holds, and of the doubts, as may be heeded
// at once: a bounded share of the network. Whoever makes circuits fail or stall would else leave
// its friends alone to choose from.
func (c *Client) heed(failed []avoidance, doubts []doubt, counts func(*avoidance) bool) map[cert.Identity]env.Mono {
	set := make(map[cert.Identity]env.Mono)
	var heeded uint64
	add := func(id cert.Identity, since env.Mono) {
		if at, ok := set[id]; ok {
			set[id] = max(at, since)
			return
		}
		r := c.network.find(id)
		if r == nil {
			return
		}
		weight, total := r.weight, c.network.total
		if total == 0 {
			weight, total = 1, uint64(len(c.network.relays))
		}
		if len(set) >= c.limits.AvoidLeast && (heeded+weight)*100 > total*uint64(c.limits.AvoidShare) {
			return
		}
		heeded += weight
		set[id] = since
	}
	for i := range failed {
		if counts(&failed[i]) {
			add(failed[i].relay, failed[i].since)
		}
	}
	for _, d := range doubts {
		add(d.relay, d.since)
	}
	return set
}

// avoid keeps the hop before a relay from being asked for it again for a while, longer each time:
// the circuit failed when its hop number hop, from 1 on, was to be added.
func (c *Client) avoid(p *pooled, hop int) {
	relay, previous, guard := p.path[hop].identity, p.path[hop-1].identity, p.path[0].identity
	now := c.env.Clock.Now()
	i := slices.IndexFunc(c.failed, func(a avoidance) bool {
		return a.relay == relay && a.previous == previous && a.guard == guard
	})
	if i < 0 {
		if len(c.failed) >= c.limits.Avoided {
			first := 0
			for i, a := range c.failed {
				if a.until < c.failed[first].until {
					first = i
				}
			}
			c.failed = slices.Delete(c.failed, first, first+1)
		}
		i = len(c.failed)
		c.failed = append(c.failed, avoidance{relay: relay, previous: previous, guard: guard})
	}
	a := &c.failed[i]
	a.answered = false
	if a.until <= now { // else it is the same failure, seen by another circuit
		backoff := c.limits.AvoidTime
		for range min(a.times, 10) {
			backoff = min(2*backoff, c.limits.AvoidMost)
		}
		a.times++
		a.since, a.until = now, now.Add(backoff)
	}
	c.outlooks = nil
}

// doubt keeps circuits through a guard away from a relay that may be the one that is silent. Those
// that exist take no new streams until something comes on them.
func (c *Client) doubt(guard, relay cert.Identity) {
	now := c.env.Clock.Now()
	c.doubts = slices.DeleteFunc(c.doubts, func(d doubt) bool { return d.until <= now })
	c.outlooks = nil
	if i := slices.IndexFunc(c.doubts, func(d doubt) bool { return d.relay == relay && d.guard == guard }); i >= 0 {
		c.doubts[i].times++
		return
	}
	if len(c.doubts) >= c.limits.Avoided {
		c.doubts = slices.Delete(c.doubts, 0, 1) // the oldest: all last equally long
	}
	c.doubts = append(c.doubts, doubt{relay: relay, guard: guard, since: now, until: now.Add(c.limits.DoubtTime), times: 1})
}

// forgive ends what was held against a relay behind a hop: it has become part of a circuit there.
// What it failed at behind other hops goes on to count for these alone.
func (c *Client) forgive(previous, relay cert.Identity) {
	c.trust(relay)
	if !slices.ContainsFunc(c.failed, func(a avoidance) bool { return a.relay == relay }) {
		return
	}
	c.failed = slices.DeleteFunc(c.failed, func(a avoidance) bool { return a.relay == relay && a.previous == previous })
	for i := range c.failed {
		if a := &c.failed[i]; a.relay == relay {
			a.answered = true
		}
	}
	c.outlooks = nil
}

// trust ends the doubts about a relay, but not what it is known to have failed at.
func (c *Client) trust(relay cert.Identity) {
	n := len(c.doubts)
	c.doubts = slices.DeleteFunc(c.doubts, func(d doubt) bool { return d.relay == relay })
	if len(c.doubts) < n {
		c.outlooks = nil
	}
}

// doubtful says whether a relay of the circuit beyond the guard is avoided and nothing has come
// on the circuit since.
func (c *Client) doubtful(p *pooled) bool {
	if c.network == nil || len(c.failed) == 0 && len(c.doubts) == 0 {
		return false
	}
	o := c.outlookFor(p.path[0].identity)
	for i, r := range p.path[1:] {
		if since, ok := o.since(p.path[i].identity, r.identity); ok && since > p.circuit.heard {
			return true
		}
	}
	return false
}

// avoids returns what choosePath asks for circuits through a guard. A guard that does not answer is
// avoided behind others too; that was seen at first hand, and they are few.
func (c *Client) avoids(guard cert.Identity) func(previous, relay cert.Identity) bool {
	o := c.outlookFor(guard)
	return func(previous, relay cert.Identity) bool {
		if c.guards.fails(relay) {
			return true
		}
		_, ok := o.since(previous, relay)
		return ok
	}
}
