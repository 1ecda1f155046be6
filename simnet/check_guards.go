package simnet

import (
	"time"

	"cepa/directory"
	"cepa/env"
)

// GuardChecker: in any 30 days a client has circuits through no more guards than docs/protocol.md, "Guards",
// says: a fifth of those in the network, but at least 20 and at most 60, whoever fails and leaves, and however
// often the client restarts. What counts is that a relay was asked to extend a circuit: it knows then that the
// client is one, and sees its traffic.
type GuardChecker struct {
	Silent
	// Bound is how many guards there may be in Span; 0 is the protocol's.
	Bound int
	Span  time.Duration // 0 is 30 days

	stated int
	asked  map[*Host][]guardAsked
	// Most is the largest number of guards of a client within Span until now.
	Most int
}

// guardAsked says when a client asked a relay last.
type guardAsked struct {
	relay *Host
	at    env.Mono
}

// The protocol's figures.
const (
	guardSpan   = 30 * 24 * time.Hour
	leastGuards = 20
	mostGuards  = 60
	guardShare  = 5
)

func (*GuardChecker) Name() string { return "guards" }

// OnConsensus finds out how many guards there are, at most.
func (c *GuardChecker) OnConsensus(_ *World, _ *Host, x *directory.Consensus) {
	c.stated = max(c.stated, min(max(x.Count(directory.FlagGuard)/guardShare, leastGuards), mostGuards))
}

func (c *GuardChecker) OnExtend(w *World, client, first *Host) {
	if c.asked == nil {
		c.asked = make(map[*Host][]guardAsked)
	}
	list := c.asked[client]
	for i := range list {
		if list[i].relay == first {
			list[i].at = w.now
			return
		}
	}
	span := c.Span
	if span == 0 {
		span = guardSpan
	}
	kept := list[:0]
	for _, x := range list {
		if w.now.Sub(x.at) < span {
			kept = append(kept, x)
		}
	}
	kept = append(kept, guardAsked{first, w.now})
	c.asked[client] = kept
	c.Most = max(c.Most, len(kept))
	most := c.Bound
	if most == 0 {
		most = c.stated
	}
	if len(kept) > most {
		w.Violate(c, client, "%s is its guard number %d within %v, of at most %d", first.Name, len(kept), span, most)
	}
}
