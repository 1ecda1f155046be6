package relay

import (
	"net/netip"

	"cepa/cell"
	"cepa/directory"
	"cepa/limit"
)

// ExitLimits bound the connections of an exit. 0 is no limit. Rates are of new ones a second, and allow a burst of ten
// seconds' worth; a destination is an address and port. What is refused ends with "rate limited" or "resource limit".
type ExitLimits struct {
	Open               int // open or being opened at once
	OpenPerCircuit     int
	OpenPerDestination int
	Rate               int
	RatePerCircuit     int
	RatePerDestination int
}

// exitBurst is how many seconds' worth of a rate may come at once.
const exitBurst = 10

// maxDestinations bounds the table of rates by destination; with more, new ones share one bucket.
const maxDestinations = 16384

// exitCounts is what ExitLimits are held against.
type exitCounts struct {
	open  int
	byTo  map[netip.AddrPort]int // of these, by destination
	all   limit.Bucket
	rates limit.Buckets // by destination
}

func newExitCounts(l ExitLimits) exitCounts {
	per := rateOf(l.RatePerDestination)
	return exitCounts{byTo: make(map[netip.AddrPort]int), all: rateOf(l.Rate).Full(0), rates: limit.NewBuckets(per.PerSecond, per.Burst, maxDestinations)}
}

// rateOf is a rate of the settings as a bucket's.
func rateOf(perSecond int) limit.Rate {
	return limit.Rate{PerSecond: float64(perSecond), Burst: float64(perSecond * exitBurst)}
}

// mayBegin spends one new connection of the exit and of the circuit.
func (x *exit) mayBegin() bool {
	r, c := x.c.relay, x.c
	l, now := &r.cfg.Limits.Exit, r.env.Clock.Now()
	if n := l.RatePerCircuit; n > 0 {
		if !c.rated {
			c.begun, c.rated = rateOf(n).Full(now), true
		}
		if !rateOf(n).Take(&c.begun, 1, now) {
			x.failure = cell.ReasonRateLimited
			return false
		}
	}
	if n := l.Rate; n > 0 && !rateOf(n).Take(&r.exits.all, 1, now) {
		x.failure = cell.ReasonRateLimited
		return false
	}
	return true
}

// hold counts a connection to a destination until release, if the limits leave room for it.
func (x *exit) hold(to netip.AddrPort) bool {
	r, c := x.c.relay, x.c
	l, e := &r.cfg.Limits.Exit, &r.exits
	if l.Open > 0 && e.open >= l.Open || l.OpenPerCircuit > 0 && c.conns >= l.OpenPerCircuit ||
		l.OpenPerDestination > 0 && e.byTo[to] >= l.OpenPerDestination {
		x.failure = cell.ReasonResource
		return false
	}
	if l.RatePerDestination > 0 && !e.rates.Take(to.String(), 1, r.env.Clock.Now()) {
		x.failure = cell.ReasonRateLimited
		return false
	}
	x.held, x.to = true, to
	e.open++
	c.conns++
	e.byTo[to]++
	return true
}

// release ends the count of hold. Calling it again is harmless.
func (x *exit) release() {
	if !x.held {
		return
	}
	x.held = false
	e := &x.c.relay.exits
	e.open--
	x.c.conns--
	if e.byTo[x.to]--; e.byTo[x.to] == 0 {
		delete(e.byTo, x.to)
	}
}

// limited refuses the stream for a limit of the settings, which x.failure names.
func (x *exit) limited() {
	x.c.relay.stats.ExitLimited++
	x.end(x.failure)
}

// SetExit changes the policy, nil for no exit, and the limits of the exit. Streams that are open stay.
func (r *Relay) SetExit(policy *directory.Policy, l ExitLimits) {
	r.cfg.Policy = policy
	if l.Rate != r.cfg.Limits.Exit.Rate {
		r.exits.all = rateOf(l.Rate).Full(r.env.Clock.Now())
	}
	if l.RatePerDestination != r.cfg.Limits.Exit.RatePerDestination {
		per := rateOf(l.RatePerDestination)
		r.exits.rates = limit.NewBuckets(per.PerSecond, per.Burst, maxDestinations)
	}
	r.cfg.Limits.Exit = l
}

// Drain has the relay refuse new circuits with "relay shutting down"; those that it has go on.
func (r *Relay) Drain() { r.draining = true }

// Carrying is how much somebody would miss: circuits that go on to another relay, and streams of the exit. Circuits that
// end here without one, such as those of directory requests, are none.
func (r *Relay) Carrying() int64 { return r.middles + r.stats.ExitStreams }
