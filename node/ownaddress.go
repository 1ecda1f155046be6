package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/directory"
	"cepa/env"
	"cepa/ipaddr"
)

// Bounds of what a relay believes of its own address.
const (
	observers    = 3  // networks (/16 or /32) that must agree
	maxObservers = 64 // that are remembered, the newest
	// minPatience is how long the authorities may take, at least, to come and see whether a relay can be reached.
	minPatience = time.Minute
)

// Observed gathers at which address other nodes see this one. Each network (/16 or /32) has one voice, its newest, so
// that nobody who has many addresses in one can decide. The zero value is ready; it is not for concurrent use.
type Observed struct{ list []observation }

type observation struct {
	from netip.Prefix
	saw  netip.Addr
}

// Note takes what one peer says. Only links that this node dialled count: on others the peer repeats what it dialled.
func (o *Observed) Note(p *env.Peer) {
	if !p.Dialled || p.Client() || !p.Observed.IsValid() {
		return
	}
	from := networkOf(p.Address.Addr())
	o.list = slices.DeleteFunc(o.list, func(x observation) bool { return x.from == from && x.saw.Is4() == p.Observed.Unmap().Is4() })
	o.list = append(o.list, observation{from, p.Observed.Unmap()})
	if len(o.list) > maxObservers {
		o.list = o.list[1:]
	}
}

func networkOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is4() {
		bits = 16
	}
	p, _ := a.WithZone("").Prefix(bits) // an invalid one counts as one network
	return p
}

// Agreed is the address of one kind, IPv4 or not, that at least three networks and more than half of all say; invalid
// if there is none.
func (o *Observed) Agreed(v4 bool) netip.Addr {
	all := 0
	for _, x := range o.list {
		if x.saw.Is4() == v4 {
			all++
		}
	}
	for _, x := range o.list {
		n := 0
		for _, y := range o.list {
			if y.saw == x.saw {
				n++
			}
		}
		if x.saw.Is4() == v4 && n >= observers && 2*n > all {
			return x.saw
		}
	}
	return netip.Addr{}
}

// closedPort says that those who were asked do not reach this relay, and what to open; "" if that is not so.
func (r *Relay) closedPort() string {
	reach := r.agent.Reach()
	if reach.State != directory.ReachUnreached || r.cfg.DirectoryOnly {
		return ""
	}
	at, family := reach.Address, "IPv4"
	if at.Addr().Is6() {
		family = "IPv6"
	}
	return fmt.Sprintf("this relay is not published, since others do not reach it at %s (%s): let TCP port %d over %s in through the firewall of this machine and of its provider, and behind NAT forward it to the port of listen; nothing else needs to be open",
		at, reach.Verdict, at.Port(), family)
}

// onReach tells what the test of the own address has come to.
func (r *Relay) onReach() {
	switch reach := r.agent.Reach(); reach.State {
	case directory.ReachUnreached:
		if w := r.closedPort(); w != r.shut {
			r.shut = w
			r.env.Log.Warn(w)
		}
		r.progress(r.percent, "serving, but not published", fmt.Sprintf("others to reach TCP port %d at %s: it is tried again", reach.Address.Port(), reach.Address.Addr()))
	case directory.ReachProved:
		if r.shut != "" {
			r.shut = ""
			r.env.Log.Info("others reach this relay now: it is published")
		}
		if r.follower.Current() != nil && !r.listed {
			r.progress(95, "serving, but not listed yet", "the authorities to list this relay")
		}
	}
}

// addressWarning says that others see this relay at another address than it says, or that nobody comes to it; "" if
// all is well.
func (r *Relay) addressWarning() string {
	said := r.cfg.Addresses[0]
	agreed := r.observed.Agreed(said.Addr().Is4())
	if agreed.IsValid() && agreed != said.Addr() && (r.cfg.Network.Test || ipaddr.IsPublic(agreed)) {
		return fmt.Sprintf("the relay says that it is at %s, but others see it come from %s: if that is its address now, set address = \"%s\"; if it has several, all is well",
			said, agreed, netip.AddrPortFrom(agreed, said.Port()))
	}
	if patience := max(2*r.cfg.Network.Interval(), minPatience); !r.visited && !r.listed && r.percent >= 95 && r.env.Clock.Now().Sub(r.began) > patience {
		return fmt.Sprintf("no other node has reached this relay at %s, so the authorities cannot list it: let TCP port %d in through the firewall, and behind NAT forward it to the port of listen",
			said, said.Port())
	}
	return ""
}
