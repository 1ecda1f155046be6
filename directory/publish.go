package directory

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// newUpdates makes the budget of one identity's news: one in the time of the parameter, or in an interval if that is
// shorter, and three at once.
func newUpdates(network *Network) limit.Buckets {
	every := min(network.millis(UpdateMillis), network.Interval())
	return newBuckets(1/every.Seconds(), 3)
}

// renewal is the age at which a descriptor is published anew although nothing has changed.
func (a *Agent) renewal() time.Duration {
	scaled := time.Duration(float64(descriptorRenewal) * a.network.Interval().Hours())
	return min(max(scaled, time.Minute), descriptorRenewal)
}

// Update looks whether what this relay says of itself has changed, or is old, and publishes it if so, once it may: see Reach. The node calls
// it when addresses or keys have changed; beside that it happens once an interval, at least once a minute.
func (a *Agent) Update() {
	if a.cfg.Describe == nil || !a.running || a.own.leaving {
		return
	}
	d, signer := a.cfg.Describe(), a.cfg.Signer()
	d.Identity = a.cfg.Identity
	if !a.mayPublish(&d) {
		return
	}
	wall := a.env.Clock.Wall().Truncate(time.Millisecond).UTC()
	if held := a.own.Descriptor; held != nil {
		same := a.own.issued.Equal(signer.Certificate.Issued()) && sameBut(&d, held)
		if same && wall.Sub(held.Published).Abs() < a.renewal() {
			a.announce()
			return
		}
		if !wall.After(held.Published) {
			wall = held.Published.Add(time.Millisecond) // the clock was set back: the newer one must count
		}
	}
	if !a.own.updates.Take("", 1, a.env.Clock.Now()) {
		return // others would not pass it on: housekeeping comes back
	}
	d.Published = wall
	a.publish(d, signer)
}

// sameBut reports whether two descriptors differ in nothing but the time of publication.
func sameBut(d, held *Descriptor) bool {
	x, y := *d, *held
	x.Published = y.Published
	one, err1 := x.body()
	two, err2 := y.body()
	return err1 == nil && err2 == nil && bytes.Equal(one, two)
}

// publish signs a descriptor and its rumour and tells the world.
func (a *Agent) publish(d Descriptor, signer cert.Signer) {
	sealed, err := SealDescriptor(a.network, d, signer)
	var opened *Descriptor
	if err == nil {
		opened, err = OpenDescriptor(sealed, a.network, a.env.Clock.Wall()) // what others will see
	}
	var rumour []byte
	if err == nil {
		rumour, err = SealRumour(a.network, RumourOf(opened), signer)
	}
	if err != nil {
		a.gripes.warn("this relay cannot describe itself, so nobody will use it", "err", err)
		return
	}
	a.own.Descriptor, a.own.rumour, a.own.issued = opened, rumour, signer.Certificate.Issued()
	a.store.put(&entry{Descriptor: opened, sealed: sealed, listed: true})
	a.stats.Published++
	a.log.Info("published the descriptor of this relay", "digest", opened.Digest.Short(), "addresses", len(opened.Addresses))
	if a.cfg.Gossip != nil {
		a.cfg.Gossip.Announce(rumour)
	}
	a.changed(opened.Identity)
	a.announce()
}

// isListed says whether the consensus shows this relay as it is now. It need not show all of its addresses: the
// authorities leave out those that they cannot reach.
func (a *Agent) isListed() bool {
	c := a.cfg.Follower.Current()
	if c == nil || a.own.Descriptor == nil {
		return false
	}
	r := c.Lookup(a.cfg.Identity)
	return r != nil && r.OnionKey == a.own.OnionKey &&
		!slices.ContainsFunc(r.Addresses, func(addr netip.AddrPort) bool { return !slices.Contains(a.own.Addresses, addr) })
}

// announce makes sure that every authority is told of the present descriptor: once for each that is new, and again
// every interval as long as the consensus does not show it.
func (a *Agent) announce() {
	if a.own.Descriptor == nil || !a.running {
		return
	}
	for _, to := range targetsOf(a.network.Authorities) {
		if to.Identity == a.cfg.Identity {
			continue
		}
		n := a.own.told[to.Identity]
		if n == nil {
			n = &announcement{to: to}
			n.timer = a.env.Clock.AfterFunc(0, func() { a.announceTo(n) })
			a.own.told[to.Identity] = n
			continue
		}
		news := n.digest != a.own.Digest || !a.isListed() && a.env.Clock.Now().Sub(n.taken) >= a.network.Interval()
		if news && !n.open && n.failures == 0 {
			n.timer.Reset(0)
		}
	}
}

// announceTo tells one authority, unless there is no need.
func (a *Agent) announceTo(n *announcement) {
	if !a.running || n.open || a.own.leaving {
		return
	}
	digest := a.own.Digest
	if n.digest == digest && (a.isListed() || a.env.Clock.Now().Sub(n.taken) < a.network.Interval()) {
		return
	}
	n.open = true
	fetch(a.cfg.Fetcher, n.to, Request{Kind: Announce, Rumour: a.own.rumour}, 0, func(status Status, _ []byte, err error) {
		n.open = false
		if err == nil && status == StatusOK {
			a.stats.Announced++
			n.digest, n.taken, n.failures = digest, a.env.Clock.Now(), 0
			n.timer.Reset(a.network.Interval() + a.randomTime(a.network.Interval()/4))
			return
		}
		wait := min(max(a.network.Interval()/40, 100*time.Millisecond), announceFloor)
		for range min(n.failures, 30) {
			wait = min(2*wait, max(a.network.Interval()/4, wait))
		}
		n.failures++
		a.log.Debug("an authority did not take the announcement", "authority", n.to.Identity.Short(), "status", status, "err", err)
		n.timer.Reset(wait/2 + a.randomTime(wait/2+1))
	})
}

// Leave tells the authorities and the neighbours that this relay is going, so that it stops being chosen, and calls
// done when they have heard, at the latest after limit. The Agent publishes nothing afterwards.
func (a *Agent) Leave(limit time.Duration, done func()) {
	finished := false
	var timer env.Timer
	finish := func() {
		if !finished {
			finished = true
			timer.Stop()
			done()
		}
	}
	timer = a.env.Clock.AfterFunc(max(limit, 0), finish)
	a.save()
	rumour := a.farewell()
	if rumour == nil {
		timer.Reset(0)
		return
	}
	a.own.leaving = true
	a.own.rumour = rumour
	if e := a.store.entries[a.cfg.Identity]; e != nil {
		e.leaving = true
	}
	a.changed(a.cfg.Identity)
	if a.cfg.Gossip != nil {
		a.cfg.Gossip.Announce(rumour)
	}
	open := 0
	for _, to := range targetsOf(a.network.Authorities) {
		if to.Identity == a.cfg.Identity {
			continue
		}
		open++
		fetch(a.cfg.Fetcher, to, Request{Kind: Announce, Rumour: rumour}, 0, func(Status, []byte, error) {
			if open--; open == 0 {
				finish()
			}
		})
	}
	if open == 0 {
		timer.Reset(0)
	}
}

// farewell signs the rumour of a departure: that of the present descriptor, with an early end.
func (a *Agent) farewell() []byte {
	if a.own.Descriptor == nil || a.own.leaving {
		return nil
	}
	r := RumourOf(a.own.Descriptor)
	end := a.env.Clock.Wall().Add(leaveGrace).Truncate(time.Millisecond).UTC()
	if last := r.Expires.Add(-time.Millisecond); end.After(last) {
		end = last
	}
	r.Expires = end
	sealed, err := SealRumour(a.network, r, a.cfg.Signer())
	if err != nil {
		a.gripes.warn("this relay cannot say that it leaves", "err", err)
		return nil
	}
	return sealed
}

// isFarewell says whether a rumour ends the life of its descriptor early.
func (r Rumour) isFarewell() bool { return r.Expires.Before(r.Published.Add(DescriptorLifetime)) }
