package node

import (
	"net/netip"
	"testing"

	"cepa/cert"
	"cepa/env"
)

// TestSightings: each neighbour counts once, with the last that it said, and the list is bounded.
func TestSightings(t *testing.T) {
	t.Parallel()
	announced := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.7:9001")}
	peer := func(id byte, at string, dialled bool) *env.Peer {
		p := &env.Peer{Identity: cert.Identity{id}, Dialled: dialled}
		if at != "" {
			p.Observed = netip.MustParseAddr(at)
		}
		return p
	}
	var s sightings
	s.add(peer(1, "203.0.113.7", false))
	s.add(peer(2, "::ffff:203.0.113.7", true))
	s.add(peer(3, "198.51.100.1", true))
	s.add(peer(4, "2001:db8::1", true)) // the other family: it says nothing
	s.add(peer(5, "", true))
	if here, elsewhere := s.count(announced); here != 2 || elsewhere != 1 || s.inbound != 1 {
		t.Fatalf("%d here, %d elsewhere, %d inbound", here, elsewhere, s.inbound)
	}
	for i := range 3 {
		s.add(peer(byte(1+i), "198.51.100.1", true)) // they see it move
	}
	if here, elsewhere := s.count(announced); here != 0 || elsewhere != 3 {
		t.Fatalf("%d here, %d elsewhere", here, elsewhere)
	}
	for i := range 100 {
		s.add(peer(byte(i), "198.51.100.1", true))
	}
	if len(s.last) != maxSightings {
		t.Errorf("%d are kept", len(s.last))
	}
}
