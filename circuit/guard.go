package circuit

import (
	"log/slog"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

const (
	primaries = 3 // guards that are used; the first that works is preferred

	// How many guards are known, and how many of them may be asked for anything within
	// guardContact: a fifth of the network's guards, but not fewer and not more than these.
	leastSample = 20
	mostSample  = 60
	sampleShare = 5
	maxSample   = 3 * mostSample // with those that the user's settings do not allow

	guardLifetime  = 60 * 24 * time.Hour  // from the choice of a guard that was never used
	guardConfirmed = 120 * 24 * time.Hour // from the first use of one
	guardUnlisted  = 20 * 24 * time.Hour  // after which one that no consensus lists is forgotten
	guardContact   = 30 * 24 * time.Hour  // for which a guard that was asked counts
)

// guard is one relay of the sample. Only its identity and dates outlive a restart: whether it
// works is found out anew.
//
//	          success                    no answer for a moment
//	untried ----------> up <=========================================> suspect
//	   |                 |  failure   a cell, or CREATED                   | failure
//	   +-----------------+-----------------> down <-----------------------+
//	                                           |  one circuit when its time has come
//	                                           +-------------> up, or down for longer
type guard struct {
	id        cert.Identity
	sampled   time.Time
	confirmed time.Time // when it was used first; zero if it was not
	contacted time.Time // the end of the day on which it was asked last; zero if it was not
	unlisted  time.Time // when it was first missing in a consensus; zero while listed

	relay     *relayInfo // in the consensus in force; nil when it cannot be used there
	barred    bool       // listed, but the user's settings do not allow it
	primary   bool       // one of guards.primary
	state     guardState
	suspect   bool     // something was asked of it a moment ago, and nothing came back
	suspected env.Mono // when that began
	failures  int      // in a row, that count
	retry     env.Mono // when down: not before
	fault     error    // when down: what its last failure is, or nil
	worked    env.Mono // when up: its last success
	trying    int      // circuits that wait for its CREATED
	asked     int      // circuits that it was to extend, for the warning about route capture
	built     int      // those that became whole
	captured  bool     // fewer than half of them did
	last      env.Mono // when a circuit through it was begun last
}

type guardState uint8

const (
	guardUntried guardState = iota
	guardUp
	guardDown
)

// guards are the relays that may be first hops of this client (docs/protocol.md, "Guards").
//
// The sample is drawn once and changes slowly. Of it, those count that the consensus lists and
// the user's settings allow: first the confirmed in the order of their first use, then the
// others in the order in which they were drawn. The first three of these are the primary guards.
// Others are tried only when no primary works.
type guards struct {
	env       env.Env
	log       *slog.Logger
	network   cert.NetworkID
	sample    []*guard    // in the order in which they were drawn
	confirmed []*guard    // of these, in the order of their first use
	former    []time.Time // contacted of guards that are not in the sample any more
	usable    []*guard    // of the sample, in order of preference
	primary   []*guard    // the first of usable
	limit     int         // on the sample, and on guards contacted
	base      time.Duration
	most      time.Duration
	saved     []byte

	walked  int      // guards beyond the primaries that were tried in this outage
	walk    env.Mono // the next may not be tried before
	regroup env.Mono // until then the primaries have a chance to come back
}

const guardsBlob = "guards"

// newGuards loads the sample of an earlier run.
func newGuards(e env.Env, network cert.NetworkID) *guards {
	g := &guards{env: e, log: e.Log, network: network, limit: leastSample, base: 10 * time.Second, most: time.Hour}
	data, err := e.Store.Load(guardsBlob)
	if err != nil {
		if !isNotExist(err) {
			g.log.Warn("the guards of the last run could not be read; choosing new ones", "err", err)
		}
		return g
	}
	known, err := decodeGuards(data, network)
	if err != nil {
		g.log.Warn("the guards of the last run are not usable; choosing new ones", "err", err)
		return g
	}
	g.sample, g.confirmed, g.former, g.saved = known.sample, known.confirmed, known.former, data
	return g
}

// update takes a new consensus: who is listed, who must be replaced, and whether more guards
// must be drawn.
func (g *guards) update(n *network, subnets bool) {
	now := g.env.Clock.Wall()
	interval := n.consensus.Head.Interval()
	g.base = min(max(interval/360, time.Second), 10*time.Second)
	g.most = min(max(interval, 10*time.Second), time.Hour)
	g.limit = sampleLimit(n)
	for _, x := range g.sample {
		r := n.find(x.id)
		listed := r != nil && r.mayGuard()
		x.relay, x.barred = nil, listed && !n.mayBe(r, atGuard)
		if listed && !x.barred && n.carries(r, subnets) {
			x.relay = r
		}
		switch {
		case listed:
			x.unlisted = time.Time{}
		case x.unlisted.IsZero():
			x.unlisted = g.earlier(now, guardUnlisted/5)
		}
	}
	g.expire(now)
	g.order()
	for len(g.usable) < leastSample && g.drawOne(n, subnets, now) {
	}
	g.list()
	g.save()
}

// sampleLimit is how many guards a client may know and contact in a network.
func sampleLimit(n *network) int {
	all := 0
	for _, r := range n.relays {
		if r.mayGuard() {
			all++
		}
	}
	return min(max(all/sampleShare, leastSample), mostSample)
}

// expire forgets guards whose time is over, but not that they were contacted.
func (g *guards) expire(now time.Time) {
	over := func(x *guard) bool {
		since, lifetime := x.sampled, guardLifetime
		if !x.confirmed.IsZero() {
			since, lifetime = x.confirmed, guardConfirmed
		}
		return now.Sub(since) > lifetime || !x.unlisted.IsZero() && now.Sub(x.unlisted) > guardUnlisted
	}
	for _, x := range g.sample {
		if over(x) && g.counts(x.contacted, now) {
			g.former = append(g.former, x.contacted)
		}
	}
	g.sample = slices.DeleteFunc(g.sample, over)
	g.confirmed = slices.DeleteFunc(g.confirmed, over)
	g.former = slices.DeleteFunc(g.former, func(at time.Time) bool { return !g.counts(at, now) })
}

// earlier returns now moved back by a random part of most, in whole seconds: so that guards of
// clients that began together do not end together, and nobody can tell from an end when a client began.
func (g *guards) earlier(now time.Time, most time.Duration) time.Time {
	return now.Add(-time.Duration(below(g.env.Rand, uint64(most)))).Truncate(time.Second)
}

// order makes usable: the confirmed first.
func (g *guards) order() {
	g.usable = g.usable[:0]
	for _, x := range g.confirmed {
		if x.relay != nil {
			g.usable = append(g.usable, x)
		}
	}
	for _, x := range g.sample {
		if x.relay != nil && x.confirmed.IsZero() {
			g.usable = append(g.usable, x)
		}
	}
}

// list makes usable and primary. A primary guard counts as contacted: the consensus is fetched from it too.
func (g *guards) list() {
	g.order()
	g.primary = g.primary[:0]
	for _, x := range g.usable {
		if x.primary = len(g.primary) < primaries && g.contact(x); x.primary {
			g.primary = append(g.primary, x)
		}
	}
}

// counts says whether a guard contacted then counts against the limit.
func (g *guards) counts(contacted, now time.Time) bool {
	return !contacted.IsZero() && now.Before(contacted.Add(guardContact))
}

// contact notes that x is about to be asked for something. It reports false, and x must be left
// alone, when as many others as may be have been asked within the last 30 days: whoever can make
// guards fail does not lead a client through more than these until it comes to his own.
func (g *guards) contact(x *guard) bool {
	now := g.env.Clock.Wall()
	if !g.counts(x.contacted, now) && g.full() {
		return false
	}
	const day = 24 * time.Hour
	x.contacted = now.Truncate(day).Add(day) // no more exact than this on disk
	return true
}

// asks is contact for a guard that is no primary.
func (g *guards) asks(x *guard) bool {
	before := x.contacted
	if !g.contact(x) {
		return false
	}
	if !x.contacted.Equal(before) {
		g.save()
	}
	return true
}

// full says whether as many guards have been asked as may be.
func (g *guards) full() bool {
	now := g.env.Clock.Wall()
	n := 0
	for _, x := range g.sample {
		if g.counts(x.contacted, now) {
			n++
		}
	}
	for _, at := range g.former {
		if g.counts(at, now) {
			n++
		}
	}
	return n >= g.limit
}

// targets are the primary guards, the preferred first.
func (g *guards) targets() (list []env.Target) {
	for _, x := range g.primary {
		list = append(list, env.Target{Identity: x.id, Addresses: x.relay.addresses})
	}
	return list
}

// drawOne adds one guard to the sample, if that may grow.
func (g *guards) drawOne(n *network, subnets bool, now time.Time) bool {
	size := len(g.sample)
	for _, x := range g.sample {
		if x.barred {
			size--
		}
	}
	if size >= g.limit || len(g.sample) >= maxSample {
		return false
	}
	r := n.draw(g.env.Rand, atGuard, func(r *relayInfo) bool {
		known := slices.ContainsFunc(g.sample, func(x *guard) bool { return x.id == r.identity })
		return !known && n.carries(r, subnets)
	})
	if r == nil {
		return false
	}
	x := &guard{id: r.identity, sampled: g.earlier(now, guardLifetime/10), relay: r}
	g.sample, g.usable = append(g.sample, x), append(g.usable, x)
	return true
}

// confirm says that x is in use now, for the first time perhaps: from now on it comes before
// those that never were.
func (g *guards) confirm(x *guard) {
	if !x.confirmed.IsZero() {
		return
	}
	x.confirmed = g.earlier(g.env.Clock.Wall(), guardConfirmed/10)
	g.confirmed = append(g.confirmed, x)
	g.list()
	g.save()
}

// save writes the sample if it has changed.
func (g *guards) save() {
	data, err := encodeGuards(guardFile{g.sample, g.confirmed, g.former}, g.network)
	if err != nil {
		g.log.Error("the guards could not be encoded", "err", err)
		return
	}
	if slices.Equal(data, g.saved) {
		return
	}
	g.saved = data
	g.env.Store.Save(guardsBlob, data, func(err error) {
		if err != nil {
			g.log.Warn("the guards could not be saved; after a restart there may be others", "err", err)
		}
	})
}

// Route capture: a guard that lets only circuits through whose other relays are its friends'
// shows as many failures beyond the first hop.
const (
	captureSample = 100             // circuits
	captureShare  = 2               // warn when fewer than 1 of 2 become whole
	captureEvery  = 2 * time.Second // then at most 30 circuits a minute
)

// onExtended counts one circuit beyond the first hop.
func (g *guards) onExtended(x *guard, whole bool) {
	x.asked++
	if whole {
		x.built++
	}
	if x.asked < captureSample {
		return
	}
	bad := x.built*captureShare < x.asked
	if bad && !x.captured {
		g.log.Warn("most circuits through a guard fail beyond it: an overloaded network, or a guard that chooses the others; building fewer through it",
			"built", x.built, "of", x.asked)
	}
	x.captured = bad
	x.asked, x.built = x.asked/2, x.built/2
}

// mayBuild returns how long the next circuit through x has to wait.
func (g *guards) mayBuild(x *guard) time.Duration {
	if !x.captured {
		return 0
	}
	return captureEvery - g.env.Clock.Now().Sub(x.last)
}
