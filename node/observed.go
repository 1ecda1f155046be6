package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cepa/cert"
	"cepa/env"
)

// maxSightings is how many neighbours' words on this node's address are kept: the last of each of the last so many.
const maxSightings = 32

// sighting is where a neighbour's HELLO says that it sees this node.
type sighting struct {
	by cert.Identity
	at netip.Addr
}

// sightings are what the last relays with a link said (docs/protocol.md, section "Link"). A relay can lie, so nothing
// is done upon them but to tell the operator.
type sightings struct {
	last    []sighting
	inbound uint64 // links that relays opened to this node
}

func (s *sightings) add(p *env.Peer) {
	if !p.Dialled {
		s.inbound++
	}
	if !p.Observed.IsValid() {
		return
	}
	s.last = slices.DeleteFunc(s.last, func(o sighting) bool { return o.by == p.Identity })
	if len(s.last) >= maxSightings {
		s.last = slices.Delete(s.last, 0, 1)
	}
	s.last = append(s.last, sighting{p.Identity, p.Observed.Unmap()})
}

// count tells how many neighbours see this node where it says that it is, and how many elsewhere; those that see the
// other family of addresses say nothing.
func (s *sightings) count(announced []netip.AddrPort) (here, elsewhere int64) {
	for _, o := range s.last {
		switch known, same := compare(o.at, announced); {
		case same:
			here++
		case known:
			elsewhere++
		}
	}
	return here, elsewhere
}

// compare says whether an address of that family is announced, and whether it is this one.
func compare(at netip.Addr, announced []netip.AddrPort) (family, same bool) {
	for _, a := range announced {
		ip := a.Addr().Unmap()
		family = family || ip.Is4() == at.Is4()
		same = same || ip == at
	}
	return family, same
}

// warning is what an operator should know when at least two neighbours, and more than half, see the node elsewhere.
func (s *sightings) warning(announced []netip.AddrPort) []string {
	here, elsewhere := s.count(announced)
	if elsewhere < 2 || elsewhere <= here {
		return nil
	}
	var seen []string
	for _, o := range s.last {
		if known, same := compare(o.at, announced); known && !same && !slices.Contains(seen, o.at.String()) {
			seen = append(seen, o.at.String())
		}
	}
	const most = 3
	slices.Sort(seen)
	seen = seen[:min(len(seen), most)]
	return []string{fmt.Sprintf("%d of %d relays see this node at %s and not at the address that it announces: if the address has changed, set the new one (address in the settings) and restart; behind NAT, set the address of the router",
		elsewhere, here+elsewhere, strings.Join(seen, ", "))}
}
