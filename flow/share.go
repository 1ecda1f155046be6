package flow

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/ipaddr"
)

// share is what several links have of the node together. A link counts in one of each kind that
// applies to it, so that nobody has all circuits or all links of the node who is one client, one
// relay, one site, or all those whom nobody vouches for.
type share struct {
	kind     shareKind
	site     netip.Prefix  // of a siteShare
	relay    cert.Identity // of a relayShare
	listed   bool          // a relayShare of a relay that the consensus lists
	circuits int           // live ones that the neighbours opened
	accepted int           // open links that this node did not dial
	users    int           // links that count here, open or not yet buried
	searched env.Mono      // when idle circuits were last looked for
}

type shareKind uint8

const (
	siteShare  shareKind = iota // guests of one site: addresses of one are had together
	relayShare                  // one relay's links
	guestShare                  // guests: clients, and relays that the consensus does not list
	allShare
)

// Bounds of shares. The others are parts of what the node has: see circuitsOf and linksOf.
const (
	minShare      = 16               // circuits or links, so that a small node is of use at all
	linksPerRelay = 8                // one in use, those that it replaces, and some that nobody noticed the end of
	idleCircuit   = 5 * time.Minute  // after which a circuit makes room for another when there is none
	idleLink      = time.Minute      // after which a link without circuits does
	keptLinks     = 128              // open links up to which relays keep those without circuits, and
	spareLink     = 10 * time.Minute // after which they go beyond: each costs a cell every few seconds
	searchEvery   = time.Second      // for idle circuits, which takes time proportional to all of them
)

// circuitsOf is how many circuits neighbours may have in a share: an eighth of all for a site or a
// relay, three quarters for guests. In a small network, where a few relays bring all circuits, one
// that the consensus lists may have more, up to half.
func (ls *Links) circuitsOf(s *share) int {
	most := ls.budget.most()
	switch s.kind {
	case siteShare:
		return max(most/8, minShare)
	case relayShare:
		if !s.listed {
			return max(most/8, minShare)
		}
		return max(most/8, minShare, min(most/2, ls.fairRelay(most)))
	case guestShare:
		return most - most/4
	}
	return most
}

// fairRelay is twice what each would have if the links with listed relays had as much each.
func (ls *Links) fairRelay(most int) int { return most / max(ls.listed, 1) * 2 }

// linksOf is how many accepted links a share may have: the last eighth of all is for those that
// this node dials.
func (ls *Links) linksOf(s *share) int {
	most := ls.cfg.Limits.MaxLinks
	switch s.kind {
	case siteShare:
		return max(most/16, minShare)
	case relayShare:
		return linksPerRelay
	case guestShare:
		return most - most/4
	}
	return most - most/8
}

// shareOf finds or makes a share.
func (ls *Links) shareOf(kind shareKind, peer *env.Peer) *share {
	switch kind {
	case siteShare:
		site := ipaddr.Site(peer.Address.Addr())
		if ls.sites[site] == nil {
			ls.sites[site] = &share{kind: kind, site: site}
		}
		return ls.sites[site]
	case relayShare:
		if ls.relays[peer.Identity] == nil {
			ls.relays[peer.Identity] = &share{kind: kind, relay: peer.Identity}
		}
		return ls.relays[peer.Identity]
	case guestShare:
		return &ls.guests
	}
	return &ls.all
}

// classify has the link count where it belongs, which the consensus may have changed.
func (l *Link) classify() {
	ls := l.links
	guest := l.peer.Client() || ls.cfg.Listed == nil || !ls.cfg.Listed(l.peer.Identity)
	if len(l.shares) > 0 && guest == l.guest {
		return
	}
	l.leaveShares()
	l.guest = guest
	if guest && !ls.cfg.Limits.OneSite {
		l.join(siteShare)
	}
	if !l.peer.Client() {
		l.join(relayShare)
	}
	if guest {
		l.join(guestShare)
	} else {
		ls.listed++
	}
	l.join(allShare)
}

func (l *Link) join(kind shareKind) {
	s := l.links.shareOf(kind, l.peer)
	l.shares = append(l.shares, s)
	s.users++
	s.listed = !l.guest
	s.circuits += l.given
	if l.counted {
		s.accepted++
	}
}

// leaveShares takes the link out of all its shares, and forgets those that nobody has part in.
func (l *Link) leaveShares() {
	ls := l.links
	for _, s := range l.shares {
		s.users--
		s.circuits -= l.given
		if l.counted {
			s.accepted--
		}
		switch {
		case s.users > 0:
		case s.kind == siteShare:
			delete(ls.sites, s.site)
		case s.kind == relayShare:
			delete(ls.relays, s.relay)
		}
	}
	if len(l.shares) > 0 && !l.guest {
		ls.listed--
	}
	l.shares = l.shares[:0]
}

// count adds n to the circuits that the neighbour has.
func (l *Link) count(n int) {
	l.given += n
	for _, s := range l.shares {
		s.circuits += n
	}
}

// ---- links ----

// fits reports whether one more link may come up.
func (l *Link) fits() bool {
	ls := l.links
	switch {
	case len(ls.links) >= ls.cfg.Limits.MaxLinks:
		return false
	case l.peer.Dialled:
		return true
	}
	for _, s := range l.shares {
		if s.accepted >= ls.linksOf(s) {
			return false
		}
	}
	return true
}

// setCounted says whether the link is one of the accepted ones that are open.
func (l *Link) setCounted(counted bool) {
	if l.counted == counted {
		return
	}
	l.counted = counted
	n := -1
	if counted {
		n = 1
	}
	for _, s := range l.shares {
		s.accepted += n
	}
}

// unwanted reports whether the link, without circuits for a while, takes the place of another:
// guests when they have half of what they may have, or their site does; relays, with whom it is
// worth while to keep a link, when there is hardly room for more, or when it has long been of no use.
func (l *Link) unwanted(now env.Mono) bool {
	ls := l.links
	if len(l.circuits) > 0 || now.Sub(l.idleSince) < idleLink || ls.client() {
		return false
	}
	l.classify()
	most := ls.cfg.Limits.MaxLinks
	if len(ls.links) > most-most/8 || len(ls.links) > keptLinks && now.Sub(l.idleSince) >= spareLink {
		return true
	}
	for _, s := range l.shares {
		if l.counted && (s.kind == siteShare || s.kind == guestShare) && s.accepted > ls.linksOf(s)/2 {
			return true
		}
	}
	return false
}

// ---- circuits ----

// circuitsPerLink is how many circuits may be opened from one end of a link, tombstones included.
func (ls *Links) circuitsPerLink(byClient bool) int {
	if byClient {
		return min(ls.cfg.Limits.ClientCircuits, ls.cfg.Limits.CircuitsPerLink)
	}
	return ls.cfg.Limits.CircuitsPerLink
}

// idle is for how long nothing has passed on the leg.
func (g *Leg) idle(now env.Mono) time.Duration { return now.Sub(max(g.lastIn, g.lastSent)) }

// admits reports whether the neighbour may have one more circuit; where there is no room, those
// that carried nothing for long make some.
func (l *Link) admits() bool {
	ls := l.links
	l.classify()
	for _, s := range l.shares {
		if s.circuits >= ls.circuitsOf(s) && !ls.dropIdle(s) {
			return false
		}
	}
	return ls.budget.admits(1, 0)
}

// dropIdle destroys the circuits of a share that carried nothing for longest, until a sixteenth
// of it is free or no other is idle. It reports whether there is room for a circuit now.
func (ls *Links) dropIdle(s *share) bool {
	now, most := ls.clock.Now(), ls.circuitsOf(s)
	if s.searched != 0 && now.Sub(s.searched) < searchEvery {
		return false
	}
	s.searched = now
	var idle []*Leg
	for _, l := range ls.links {
		if !slices.Contains(l.shares, s) {
			continue
		}
		for n := l.legs.first; n != nil; n = n.next {
			if g := n.of; !g.opened && g.idle(now) >= idleCircuit {
				idle = append(idle, g)
			}
		}
	}
	slices.SortStableFunc(idle, func(a, b *Leg) int { return cmp.Compare(b.idle(now), a.idle(now)) })
	for _, g := range idle {
		if s.circuits < most-most/16 {
			break
		}
		if g.state != legDead {
			ls.stats.IdleVictims++
			g.end(cell.ReasonResource)
		}
	}
	return s.circuits < most
}

// checkShares verifies that the shares are the sums of their links.
func (ls *Links) checkShares() error {
	sums := make(map[*share]share)
	listed := 0
	for _, l := range ls.allLinks() {
		given := 0
		for n := l.legs.first; n != nil; n = n.next {
			if !n.of.opened {
				given++
			}
		}
		if given != l.given || len(l.shares) == 0 || l.counted != (l.up && !l.peer.Dialled) {
			return fmt.Errorf("a link counts %d circuits of its neighbour, there are %d; in %d shares, counted %v", l.given, given, len(l.shares), l.counted)
		}
		if !l.guest {
			listed++
		}
		for _, s := range l.shares {
			sum := sums[s]
			sum.users++
			sum.circuits += given
			if l.counted {
				sum.accepted++
			}
			sums[s] = sum
		}
	}
	all := []*share{&ls.all, &ls.guests}
	for _, s := range ls.sites { // order: the first error is as good as another
		all = append(all, s)
	}
	for _, s := range ls.relays { // order: likewise
		all = append(all, s)
	}
	for _, s := range all {
		sum := sums[s]
		if sum.users != s.users || sum.circuits != s.circuits || sum.accepted != s.accepted || s.users == 0 && s.kind < guestShare {
			return fmt.Errorf("a share has %+v, its links %+v", *s, sum)
		}
		delete(sums, s)
	}
	if listed != ls.listed || len(sums) != 0 || ls.all.circuits != ls.budget.in {
		return fmt.Errorf("%d links with listed relays, %d counted; %d shares of nobody; %d circuits of neighbours, %d in the budget",
			listed, ls.listed, len(sums), ls.all.circuits, ls.budget.in)
	}
	return nil
}
