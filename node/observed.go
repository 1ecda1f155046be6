package node

import (
	"net/netip"
	"slices"

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
// is done upon them but to tell the operator; see Observed for what decides.
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
