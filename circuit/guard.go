package circuit

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

const (
	primaries = 3 // guards that are used; the first that works is preferred
	maxSample = 20

	guardLifetime = 60 * 24 * time.Hour // after which a guard is replaced
	guardUnlisted = 20 * 24 * time.Hour // after which one that no consensus lists is forgotten

	offlineRetry = 5 * time.Second // at most, between attempts while no guard works
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
	id       cert.Identity
	sampled  time.Time
	unlisted time.Time // when it was first missing in a consensus; zero while listed

	relay     *relayInfo // in the consensus in force; nil when it cannot be used there
	state     guardState
	suspect   bool     // something was asked of it a moment ago, and nothing came back
	suspected env.Mono // when that began
	failures  int      // in a row, that count
	retry     env.Mono // when down: not before
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
type guards struct {
	env     env.Env
	log     *slog.Logger
	network cert.NetworkID
	sample  []*guard // in order of preference
	listed  []*guard // the first primaries of sample that the consensus lists
	base    time.Duration
	most    time.Duration
	saved   []byte
}

const guardsBlob = "guards"

// newGuards loads the sample of an earlier run.
func newGuards(e env.Env, network cert.NetworkID) *guards {
	g := &guards{env: e, log: e.Log, network: network, base: 10 * time.Second, most: time.Hour}
	data, err := e.Store.Load(guardsBlob)
	if err != nil {
		if !isNotExist(err) {
			g.log.Warn("the guards of the last run could not be read; choosing new ones", "err", err)
		}
		return g
	}
	sample, err := decodeGuards(data, network)
	if err != nil {
		g.log.Warn("the guards of the last run are not usable; choosing new ones", "err", err)
		return g
	}
	g.sample, g.saved = sample, data
	return g
}

// update takes a new consensus: who is listed, who must be replaced, and whether more guards
// must be drawn.
func (g *guards) update(n *network, subnets bool) {
	now := g.env.Clock.Wall()
	interval := n.consensus.Head.Interval()
	g.base = min(max(interval/360, time.Second), 10*time.Second)
	g.most = min(max(interval, 10*time.Second), time.Hour)
	for _, x := range g.sample {
		x.relay = n.find(x.id)
		if x.relay != nil && (!x.relay.mayGuard() || !n.carries(x.relay, subnets)) {
			x.relay = nil
		}
		switch {
		case x.relay != nil:
			x.unlisted = time.Time{}
		case x.unlisted.IsZero():
			x.unlisted = now.Truncate(time.Second)
		}
	}
	g.sample = slices.DeleteFunc(g.sample, func(x *guard) bool {
		return now.Sub(x.sampled) > guardLifetime || !x.unlisted.IsZero() && now.Sub(x.unlisted) > guardUnlisted
	})
	g.list()
	for len(g.listed) < primaries && g.drawOne(n, subnets, now) {
		g.list()
	}
	g.save()
}

func (g *guards) list() {
	g.listed = g.listed[:0]
	for _, x := range g.sample {
		if x.relay != nil && len(g.listed) < primaries {
			g.listed = append(g.listed, x)
		}
	}
}

// targets are the primary guards that the consensus lists, the preferred first.
func (g *guards) targets() (list []env.Target) {
	for _, x := range g.listed {
		list = append(list, env.Target{Identity: x.id, Addresses: x.relay.addresses})
	}
	return list
}

// drawOne adds one guard to the sample. When that is full, the guard that has been unlisted for longest goes.
func (g *guards) drawOne(n *network, subnets bool, now time.Time) bool {
	r := n.draw(g.env.Rand, atGuard, func(r *relayInfo) bool {
		known := slices.ContainsFunc(g.sample, func(x *guard) bool { return x.id == r.identity })
		return !known && r.mayGuard() && n.carries(r, subnets)
	})
	if r == nil {
		return false
	}
	if len(g.sample) >= maxSample {
		longest := -1
		for i, x := range g.sample {
			if x.relay == nil && (longest < 0 || x.unlisted.Before(g.sample[longest].unlisted)) {
				longest = i
			}
		}
		g.sample = slices.Delete(g.sample, longest, longest+1)
	}
	// A date up to a tenth of the lifetime back keeps the guards of clients that began
	// together from ending together.
	back := time.Duration(below(g.env.Rand, uint64(guardLifetime/10)))
	g.sample = append(g.sample, &guard{id: r.identity, sampled: now.Add(-back).Truncate(time.Second), relay: r})
	return true
}

// save writes the sample if it has changed.
func (g *guards) save() {
	data, err := encodeGuards(g.sample, g.network)
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

// choose returns the guard for a new circuit: the first that is up or untried, else the first
// suspect, else, when all are down, the first whose time has come and
// through which no circuit is being built. Without one it returns how long to wait; a negative time when the consensus lists no guard.
func (g *guards) choose() (*guard, time.Duration) {
	now := g.env.Clock.Now()
	wait := time.Duration(-1)
	var suspect, due *guard
	for _, x := range g.listed {
		left := x.retry.Sub(now)
		switch {
		case x.state != guardDown && !x.suspect:
			return x, 0
		case x.state != guardDown:
			if suspect == nil {
				suspect = x
			}
		case left <= 0 && x.trying == 0:
			if due == nil {
				due = x
			}
		default:
			wait = sooner(wait, max(left, time.Second))
		}
	}
	if suspect != nil {
		return suspect, 0
	}
	if due != nil {
		return due, 0
	}
	return nil, wait
}

// trial returns a guard that was down and comes before the one in use, and whose time has come
// for one circuit that shows whether it works again; else nil and the time until the next, or a
// negative time.
func (g *guards) trial() (*guard, time.Duration) {
	now := g.env.Clock.Now()
	wait := time.Duration(-1)
	for _, x := range g.listed {
		if x.state == guardUp && !x.suspect {
			break
		}
		if x.state != guardDown || x.trying > 0 {
			continue
		}
		left := x.retry.Sub(now)
		if left <= 0 {
			return x, 0
		}
		wait = sooner(wait, left)
	}
	return nil, wait
}

// onSuccess: a CREATED of x was verified.
func (g *guards) onSuccess(x *guard) {
	if x.state == guardDown {
		g.log.Info("a guard works again", "failures", x.failures)
	}
	x.state, x.failures, x.suspect = guardUp, 0, false
	x.worked = g.env.Clock.Now()
}

// onFailure: no link to x, or no CREATED from it, for a circuit begun then. When no other
// guard works either, the network is away and nobody is to blame: all are tried again soon.
func (g *guards) onFailure(x *guard, began env.Mono) {
	now := g.env.Clock.Now()
	if x.state == guardUp && x.worked >= began || x.state == guardDown && x.retry > now {
		return // it has answered since, or this failure was counted with another circuit's
	}
	x.state, x.suspect = guardDown, false
	if g.offline() {
		for _, y := range g.listed {
			y.failures = min(y.failures, 1)
			y.retry = min(y.retry, now.Add(offlineRetry))
		}
		x.retry = now.Add(min(g.base, offlineRetry))
		return
	}
	x.failures++
	backoff := g.base
	for i := 1; i < x.failures && backoff < g.most; i++ {
		backoff *= 2
	}
	backoff = min(backoff, g.most)
	x.retry = now.Add(backoff + time.Duration(below(g.env.Rand, uint64(backoff/10)+1)))
	g.log.Info("a guard does not answer; using the next", "failures", x.failures, "again", backoff)
}

// fails says whether a relay is a guard that does not answer.
func (g *guards) fails(id cert.Identity) bool {
	return slices.ContainsFunc(g.listed, func(x *guard) bool { return x.id == id && (x.suspect || x.state == guardDown) })
}

// offline says that no guard works.
func (g *guards) offline() bool {
	for _, x := range g.listed {
		if x.state != guardDown {
			return false
		}
	}
	return true
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

var errGuards = errors.New("not a list of guards")
