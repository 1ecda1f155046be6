package directory

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// standing is what an authority knows of a relay beside its descriptor.
type standing struct {
	id        cert.Identity
	firstSeen time.Time // when it was reachable for the first time; zero before
	upSince   time.Time // since when it has been reachable; zero when it is not
	lastSeen  time.Time // when it was last found reachable

	reached  []netip.AddrPort // where it answered when last probed, in the order of its descriptor
	backAt   time.Time        // when it was last found again after it had gone; zero when it has not
	tried    env.Mono         // when it was last begun to probe it
	failures int              // probes that reached nothing, in a row
	probed   bool             // since the start
	open     bool             // being probed, or queued for it
	timer    env.Timer
}

// proof is an address at which a relay was when a link was dialled from here.
type proof struct {
	addr  netip.AddrPort
	since env.Mono
}

// up says whether the relay counts as running.
func (s *standing) up() bool { return len(s.reached) > 0 }

const (
	maxProbes      = 32               // at once
	maxProbeTime   = 15 * time.Second // for one address
	minProbeTime   = 3 * time.Second
	maxProbeEvery  = 20 * time.Minute
	minProbeEvery  = time.Second
	downAfter      = 2  // probes in a row that reached nothing
	soonBack       = 12 // intervals for which a relay that has gone is looked for more often than others
	forgetRelay    = 30 * 24 * time.Hour
	maxHistory     = MaxRelays
	historyRecord  = 32 + 3*8
	historyBlob    = "authority.history"
	historyMinimum = time.Minute // between two savings
)

// probeEvery is how often a relay without an open link is probed.
func (a *Authority) probeEvery() time.Duration {
	return min(max(a.network.Interval()/2, minProbeEvery), maxProbeEvery)
}

// proofLife is how long an open link proves that the relay still listens where it was dialled: the link stays when the
// relay has long gone from there.
func (a *Authority) proofLife() time.Duration { return min(8*a.probeEvery(), maxProbeEvery) }

// probeTimeout is how long an address has to answer.
func (a *Authority) probeTimeout() time.Duration {
	return min(max(a.network.Interval()/4, minProbeTime), maxProbeTime)
}

// quickProbe is how often a relay is probed that has not been gone for long, as after a partition.
func (a *Authority) quickProbe() time.Duration {
	return min(max(a.network.Interval()/10, minProbeEvery), a.probeEvery())
}

// onDescriptor hears that what the Agent holds of a relay has changed.
func (a *Authority) onDescriptor(id cert.Identity) {
	e := a.cfg.Agent.store.entries[id]
	s := a.relays[id]
	switch {
	case e == nil && s == nil:
		return
	case e == nil:
		if s.timer != nil {
			s.timer.Stop()
		}
		s.reached = nil
		if s.firstSeen.IsZero() {
			delete(a.relays, id) // never reached: nothing to remember
		}
		return
	case s == nil:
		a.makeRoom()
		s = &standing{id: id}
		a.relays[id] = s
	}
	if s.timer == nil {
		s.timer = a.env.Clock.AfterFunc(0, func() { a.wantProbe(s) })
	}
	// What it no longer says cannot be listed; what it newly says is proved first.
	s.reached = slices.DeleteFunc(s.reached, func(addr netip.AddrPort) bool { return !slices.Contains(e.Addresses, addr) })
	if id == a.cfg.Identity {
		a.onReached(s, e.Addresses)
		return
	}
	s.timer.Reset(0)
}

// makeRoom forgets some of those who have no descriptor any more, the longest gone first, when there are too many.
func (a *Authority) makeRoom() {
	if len(a.relays) < maxHistory {
		return
	}
	var gone []*standing
	for id, s := range a.relays { // order: sorted below
		if a.cfg.Agent.store.entries[id] == nil {
			gone = append(gone, s)
		}
	}
	slices.SortFunc(gone, func(x, y *standing) int { return cmp.Or(x.lastSeen.Compare(y.lastSeen), x.id.Compare(y.id)) })
	for _, s := range gone[:(len(gone)+7)/8] {
		delete(a.relays, s.id)
	}
}

// LinkUp is told of every link with a relay. One that was dialled from here proves that the relay listens there, for
// a while, or until it goes down. One that comes from a relay that cannot be reached is a reason to look again, as long
// as that makes not many more probes: a relay may say of any address that it is its own.
func (a *Authority) LinkUp(p *env.Peer) {
	now := a.env.Clock.Now()
	if p.Dialled {
		links := slices.DeleteFunc(a.links[p.Identity], func(o proof) bool { return o.addr == p.Address })
		a.links[p.Identity] = append(links, proof{p.Address, now})
	}
	s := a.relays[p.Identity]
	if a.running && s != nil && s.timer != nil && !s.up() && a.cfg.Agent.store.entries[s.id] != nil &&
		(p.Dialled || now.Sub(s.tried) >= a.quickProbe()/2) {
		s.timer.Reset(0)
	}
}

// LinkDown is to be called for every link with a relay that goes down. What one that was dialled has proved is proved no
// more; with any other all is in doubt. The relay is probed soon, unless the link was new: links that cross are made to
// be closed, and to look at once would only make the next.
func (a *Authority) LinkDown(p *env.Peer) {
	now, isNew := a.env.Clock.Now(), false
	links := slices.DeleteFunc(a.links[p.Identity], func(o proof) bool {
		isNew = isNew || p.Dialled && o.addr == p.Address && now.Sub(o.since) < a.probeEvery()/2
		return !p.Dialled || o.addr == p.Address
	})
	if len(links) == 0 {
		delete(a.links, p.Identity)
	} else {
		a.links[p.Identity] = links
	}
	s := a.relays[p.Identity]
	if a.running && s != nil && s.up() && a.cfg.Agent.store.entries[s.id] != nil && s.id != a.cfg.Identity && !isNew {
		s.failures = max(s.failures, downAfter-1) // one failed probe is enough now
		s.timer.Reset(a.cfg.Agent.randomTime(100 * time.Millisecond))
	}
}

// wantProbe queues a relay for probing, unless open links prove all of its addresses.
func (a *Authority) wantProbe(s *standing) {
	e := a.cfg.Agent.store.entries[s.id]
	if !a.running || e == nil || s.open || s.id == a.cfg.Identity {
		return
	}
	now, linked := a.env.Clock.Now(), true
	for _, addr := range e.Addresses {
		linked = linked && slices.ContainsFunc(a.links[s.id], func(o proof) bool {
			return o.addr == addr && now.Sub(o.since) < a.proofLife()
		})
	}
	if linked {
		a.onReached(s, e.Addresses)
		return
	}
	s.open, s.tried = true, now
	a.probing.queue = append(a.probing.queue, s)
	a.pumpProbes()
}

func (a *Authority) pumpProbes() {
	for a.running && a.probing.open < maxProbes && len(a.probing.queue) > 0 {
		s := a.probing.queue[0]
		a.probing.queue = slices.Delete(a.probing.queue, 0, 1)
		a.probing.open++
		var addrs []netip.AddrPort
		if e := a.cfg.Agent.store.entries[s.id]; e != nil {
			addrs = e.Addresses
		}
		a.probeNext(s, addrs, nil)
	}
}

// probeNext tries one address after the other: each that is to be in the consensus has to be proved.
func (a *Authority) probeNext(s *standing, addrs, reached []netip.AddrPort) {
	if len(addrs) == 0 || !a.running {
		a.probing.open--
		s.open, s.probed = false, true
		if a.running {
			a.onProbed(s, reached)
			a.env.Clock.AfterFunc(0, a.pumpProbes)
		}
		return
	}
	addr := addrs[0]
	a.stats.Probes++
	over := false
	finish := func(err error) {
		if over {
			return
		}
		over = true
		if err == nil {
			reached = append(reached, addr)
		} else {
			a.stats.ProbesFailed++
			a.log.Debug("a relay was not reached", "relay", s.id.Short(), "err", err)
		}
		a.probeNext(s, addrs[1:], reached)
	}
	timer := a.env.Clock.AfterFunc(a.probeTimeout(), func() { finish(errNoAnswer) })
	a.cfg.Prober.Probe(env.Target{Identity: s.id, Addresses: []netip.AddrPort{addr}}, func(err error) {
		timer.Stop()
		finish(err)
	})
}

// onProbed takes the result of probing all addresses.
func (a *Authority) onProbed(s *standing, reached []netip.AddrPort) {
	e := a.cfg.Agent.store.entries[s.id]
	if e == nil {
		return // it has gone meanwhile
	}
	reached = slices.DeleteFunc(reached, func(addr netip.AddrPort) bool { return !slices.Contains(e.Addresses, addr) })
	if len(reached) > 0 {
		a.onReached(s, reached)
		return
	}
	s.failures++
	wasUp := s.up()
	if s.failures >= downAfter || !wasUp {
		s.reached, s.upSince = nil, time.Time{}
		if wasUp {
			a.log.Info("a relay can no longer be reached", "relay", s.id.Short())
		}
	}
	wait, most := max(a.network.Interval()/20, 100*time.Millisecond), a.probeEvery()
	if !s.firstSeen.IsZero() && a.env.Clock.Wall().Sub(s.lastSeen) < soonBack*a.network.Interval() {
		most = a.quickProbe()
	}
	for range min(s.failures-1, 30) {
		wait = min(2*wait, most)
	}
	s.timer.Reset(wait + a.cfg.Agent.randomTime(wait/4))
}

// onReached notes that a relay answered at addrs.
func (a *Authority) onReached(s *standing, addrs []netip.AddrPort) {
	wall := a.env.Clock.Wall()
	if !s.up() {
		if s.probed && !s.firstSeen.IsZero() {
			s.backAt = wall
		}
		a.newcomer = a.env.Clock.Now()
		a.wake(0) // what could not be made in this slot perhaps can be now
	}
	if s.firstSeen.IsZero() {
		s.firstSeen = wall
	}
	if s.upSince.IsZero() || s.upSince.After(wall) {
		s.upSince = wall
	}
	s.reached, s.failures, s.lastSeen, s.probed = slices.Clone(addrs), 0, wall, true
	every := a.probeEvery()
	s.timer.Reset(every - every/4 + a.cfg.Agent.randomTime(every/4))
}

// manyBack says whether many relays are back that the newest consensus cannot have as running, as when a partition has
// healed: they came when its votes had been cast, and are an eighth or more of those that it has.
func (a *Authority) manyBack() bool {
	c := a.cfg.Follower.Current()
	if c == nil || c.Head.Digest != a.cfg.Follower.Newest().Digest {
		return false
	}
	cast, back := a.agenda.begin(c.Head.ValidAfter), 0
	for _, s := range a.relays { // order: counts only
		if !s.up() || s.backAt.Before(cast) || a.cfg.Agent.store.entries[s.id] == nil {
			continue
		}
		if r := c.Lookup(s.id); r == nil || !r.Flags.Has(FlagRunning) {
			back++
		}
	}
	return back > 0 && back*8 >= c.Count(FlagRunning)
}

// unprobed says whether a relay with a descriptor has not been tried since the start.
func (a *Authority) unprobed() bool {
	for id, s := range a.relays { // order: any one will do
		if !s.probed && a.cfg.Agent.store.entries[id] != nil {
			return true
		}
	}
	return false
}

// loadHistory reads what is known of relays from before: records of identity, first seen, up since, last seen, u64 in
// ms each.
func (a *Authority) loadHistory() error {
	data, err := a.env.Store.Load(historyBlob)
	if err != nil {
		return notExistIsNil(err)
	}
	if len(data)%historyRecord != 0 {
		return fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	}
	wall := a.env.Clock.Wall()
	gap := max(3*a.network.Interval(), 15*time.Minute)
	for ; len(data) > 0; data = data[historyRecord:] {
		s := &standing{id: cert.Identity(data[:32])}
		for i, t := range []*time.Time{&s.firstSeen, &s.upSince, &s.lastSeen} {
			if ms := binary.BigEndian.Uint64(data[32+8*i:]); ms <= latestMilli {
				*t = time.UnixMilli(int64(ms)).UTC()
			}
		}
		if s.firstSeen.After(wall) {
			s.firstSeen = wall
		}
		if wall.Sub(s.lastSeen) > gap {
			s.upSince = time.Time{} // nobody knows what happened in between
		}
		a.relays[s.id] = s
	}
	return nil
}

// saveHistory writes it down, at most once a minute.
func (a *Authority) saveHistory() {
	wall := a.env.Clock.Wall()
	if wall.Sub(a.historyAt).Abs() < historyMinimum && a.running {
		return
	}
	a.historyAt = wall
	var b []byte
	for _, id := range slices.SortedFunc(maps.Keys(a.relays), cert.Identity.Compare) {
		s := a.relays[id]
		if wall.Sub(s.lastSeen) > forgetRelay && a.cfg.Agent.store.entries[id] == nil {
			delete(a.relays, id)
			continue
		}
		if s.firstSeen.IsZero() || len(b) >= maxHistory*historyRecord {
			continue
		}
		b = append(b, id[:]...)
		for _, t := range []time.Time{s.firstSeen, s.upSince, s.lastSeen} {
			b = binary.BigEndian.AppendUint64(b, uint64(max(t.UnixMilli(), 0)))
		}
	}
	a.env.Store.Save(historyBlob, b, func(err error) {
		if err != nil {
			a.gripes.warn("the history of relays cannot be stored", "err", err)
		}
	})
}
