package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/ipaddr"
	"cepa/limit"
)

// A relay finds out whether others reach it before it publishes: it asks authorities and relays to connect back to each
// address that it wants to publish (docs/protocol.md, "Connecting back"). One that says yes is enough: the authorities
// look by themselves later, and a lie would only have them look in vain. While all say no, nothing is published, which
// saves everybody the attempts, and the operator hears what to open.

// Verdict is what came of connecting back to an address.
type Verdict uint8

// The verdicts, as they stand in the answer to AskReach.
const (
	VerdictReached  Verdict = 0 // the relay answered there and proved its identity
	VerdictClosed   Verdict = 1 // the connection was refused, or broke
	VerdictSilent   Verdict = 2 // nothing came within reachTime
	VerdictStranger Verdict = 3 // another relay answered
)

// String returns the verdict in lower-case words.
func (v Verdict) String() string {
	switch v {
	case VerdictReached:
		return "reached"
	case VerdictClosed:
		return "the connection was refused or cut"
	case VerdictSilent:
		return "no answer"
	case VerdictStranger:
		return "another relay answered"
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// Bounds of connecting back (docs/protocol.md, "Bounds").
const (
	reachTime     = 8 * time.Second // that an address has to answer
	reachAsked    = 3               // nodes that are asked at once about an address
	reachRounds   = 3               // without any verdict, after which the relay publishes untested
	maxDialBacks  = 32              // for others at once
	reachFirst    = 2 * time.Second
	reachLongest  = 10 * time.Minute
	reachShortest = 5 * time.Second // that the pauses grow to at least
)

// ReachState is how far a relay is with finding out whether it can be reached.
type ReachState uint8

// The states.
const (
	ReachAssumed   ReachState = iota // not tested: the relay publishes
	ReachTesting                     // no verdict yet
	ReachProved                      // another node has connected to each address that is published
	ReachUnreached                   // those who were asked do not reach it: it is not published
	ReachUntested                    // nobody could tell: the relay publishes
)

// Reach is what is known of whether this relay can be reached.
type Reach struct {
	State   ReachState
	Address netip.AddrPort // in ReachUnreached: the first that is not reached
	Verdict Verdict        // in ReachUnreached: the last on that address
	Asked   int            // in ReachUnreached: how many said so since the last round
}

// reach is the test of the addresses of this relay.
type reach struct {
	state   ReachState
	proved  map[netip.AddrPort]bool
	last    map[netip.AddrPort]Verdict // of those that are not proved
	asked   map[netip.AddrPort]int     // who said so in the last round
	open    int                        // questions that are not answered
	heard   bool                       // a verdict in this round
	dumb    bool                       // somebody answered in this round, without a verdict
	mute    int                        // rounds in a row that brought no verdict, but answers
	rounds  int                        // that did not end in a publication
	running bool
	timer   env.Timer
}

// Reach says whether this relay can be reached, as far as it has found out.
func (a *Agent) Reach() Reach {
	r := Reach{State: a.reach.state}
	if r.State != ReachUnreached {
		return r
	}
	for _, addr := range a.cfg.Describe().Addresses {
		if v, told := a.reach.last[addr]; told && !a.reach.proved[addr] {
			r.Address, r.Verdict, r.Asked = addr, v, a.reach.asked[addr]
			break
		}
	}
	return r
}

func (a *Agent) setReach(s ReachState) {
	if a.reach.state != s || s == ReachUnreached {
		a.reach.state = s
		if a.cfg.OnReach != nil {
			a.cfg.OnReach()
		}
	}
}

// mayPublish says whether a descriptor with these addresses may be published; if not, they are being tested. Those of
// several that were not reached are left out.
func (a *Agent) mayPublish(d *Descriptor) bool {
	if !a.cfg.CheckReach || a.reach.state == ReachUntested || a.network.IsAuthority(a.cfg.Identity) {
		return true
	}
	proved := slices.DeleteFunc(slices.Clone(d.Addresses), func(addr netip.AddrPort) bool { return !a.reach.proved[addr] })
	if len(proved) == 0 {
		a.testReach(d.Addresses)
		return false
	}
	d.Addresses = proved
	return true
}

// testReach begins a round, unless one is under way or due.
func (a *Agent) testReach(addrs []netip.AddrPort) {
	r := &a.reach
	if r.running {
		return
	}
	if r.proved == nil {
		r.proved, r.last, r.asked = map[netip.AddrPort]bool{}, map[netip.AddrPort]Verdict{}, map[netip.AddrPort]int{}
		a.setReach(ReachTesting)
	}
	r.running, r.heard, r.dumb = true, false, false
	clear(r.asked)
	for _, addr := range addrs {
		if r.proved[addr] {
			continue
		}
		for _, to := range a.reachable() {
			r.open++
			fetch(a.cfg.Fetcher, to, Request{Kind: AskReach, Address: addr}, 1, func(status Status, body []byte, err error) {
				a.onVerdict(addr, status, body, err)
			})
		}
	}
	if r.open == 0 { // nobody to ask: an authority is, unless the network file has none but this
		a.env.Clock.AfterFunc(0, a.endRound)
	}
}

// reachable are some who may be asked: of the authorities and the relays of the consensus, those of other sites first.
func (a *Agent) reachable() []env.Target {
	all := targetsOf(a.network.Authorities)
	if c := a.cfg.Follower.Current(); c != nil {
		for range min(len(c.Relays), 4*reachAsked) {
			r := &c.Relays[a.random(len(c.Relays))]
			all = append(all, env.Target{Identity: r.Identity, Addresses: r.Addresses})
		}
	}
	seen := map[cert.Identity]bool{a.cfg.Identity: true}
	all = slices.DeleteFunc(all, func(t env.Target) bool { again := seen[t.Identity]; seen[t.Identity] = true; return again })
	a.cfg.Follower.shuffled(all)
	var near, far []env.Target
	for _, t := range all {
		if a.isNear(t) {
			near = append(near, t)
		} else {
			far = append(far, t)
		}
	}
	all = append(far, near...)
	return all[:min(len(all), reachAsked)]
}

// isNear says whether a node is of the site of this relay: it may see it where the world does not.
func (a *Agent) isNear(t env.Target) bool {
	for _, mine := range a.cfg.Describe().Addresses {
		if slices.ContainsFunc(t.Addresses, func(x netip.AddrPort) bool { return ipaddr.Site(x.Addr()) == ipaddr.Site(mine.Addr()) }) {
			return true
		}
	}
	return false
}

func (a *Agent) onVerdict(addr netip.AddrPort, status Status, body []byte, err error) {
	r := &a.reach
	r.open--
	switch {
	case !a.running:
		return
	case err == nil && status == StatusOK && len(body) == 1:
		r.heard = true
		if v := Verdict(body[0]); v == VerdictReached {
			r.proved[addr] = true
			delete(r.last, addr)
		} else if !r.proved[addr] {
			r.last[addr] = v
			r.asked[addr]++
		}
	case err == nil || !errors.Is(err, errNoAnswer):
		r.dumb = true
	}
	if r.open == 0 || len(r.proved) == len(a.cfg.Describe().Addresses) {
		a.endRound()
	}
}

// endRound publishes, or has the next round come.
func (a *Agent) endRound() {
	r := &a.reach
	if !r.running || !a.running {
		return
	}
	wait := a.reachPause()
	r.rounds++
	switch {
	case len(r.proved) > 0:
		r.running, r.rounds, r.mute = false, 0, 0
		a.setReach(ReachProved)
		a.Update()
		return
	case r.heard:
		r.mute = 0
		a.setReach(ReachUnreached)
	case r.dumb:
		if r.mute++; r.mute >= reachRounds {
			r.running = false
			a.log.Info("nobody could tell whether this relay can be reached: it is published without")
			a.setReach(ReachUntested)
			a.Update()
			return
		}
	}
	r.timer = a.env.Clock.AfterFunc(wait, func() {
		r.running = false
		a.Update()
	})
}

// reachPause is the time to the next round: longer each time.
func (a *Agent) reachPause() time.Duration {
	interval := a.network.Interval()
	wait, most := min(max(interval/40, 100*time.Millisecond), reachFirst), min(max(interval/4, reachShortest), reachLongest)
	for range min(a.reach.rounds, 30) {
		wait = min(2*wait, most)
	}
	return wait/2 + a.randomTime(wait/2+1)
}

// newDialBacks are the budget of connecting back: like that of EXTENDs to relays that are not known, which is the other
// way to have a relay connect to any address.
func newDialBacks(network *Network) limit.Buckets {
	if network.Limit(SiteLimits) == 0 {
		return newBuckets(100, 1000)
	}
	return newBuckets(1, 20)
}

// serveReach connects back for a relay that asks whether it can be reached.
func (a *Agent) serveReach(addr netip.AddrPort, from *env.Peer, done func([]byte)) {
	s := &a.serving
	switch {
	case a.cfg.Prober == nil:
		done(AppendAnswer(nil, StatusNotFound, nil))
		return
	case checkAddr(addr, a.network.Test) != nil || a.own.Descriptor != nil && slices.Contains(a.own.Addresses, addr):
		done(AppendAnswer(nil, StatusRefused, nil))
		return
	case s.dialling >= maxDialBacks || !s.dialBacks.Take(a.relayKey(from), 1, a.env.Clock.Now()):
		a.stats.Busy++
		done(AppendAnswer(nil, StatusBusy, nil))
		return
	}
	s.dialling++
	a.stats.DialBacks++
	over := false
	finish := func(v Verdict) {
		if !over {
			over = true
			s.dialling--
			done(AppendAnswer(nil, StatusOK, []byte{byte(v)}))
		}
	}
	timer := a.env.Clock.AfterFunc(reachTime, func() { finish(VerdictSilent) })
	a.cfg.Prober.Probe(env.Target{Identity: from.Identity, Addresses: []netip.AddrPort{addr}}, func(err error) {
		timer.Stop()
		switch {
		case err == nil:
			finish(VerdictReached)
		case errors.Is(err, env.ErrIdentity):
			finish(VerdictStranger)
		default:
			finish(VerdictClosed)
		}
	})
}
