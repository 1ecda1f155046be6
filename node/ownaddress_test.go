package node

import (
	"net/netip"
	"testing"

	"cepa/cert"
	"cepa/env"
)

// TestObservedNeedsThreeNetworks: one network has one voice, links that others made have none, and a majority decides.
func TestObservedNeedsThreeNetworks(t *testing.T) {
	t.Parallel()
	mine, other := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("192.0.2.9")
	var o Observed
	note := func(from string, saw netip.Addr, dialled bool) {
		o.Note(&env.Peer{Identity: cert.Identity{1}, Address: netip.AddrPortFrom(netip.MustParseAddr(from), 9001), Dialled: dialled, Observed: saw})
	}
	want := func(a netip.Addr, when string) {
		t.Helper()
		if got := o.Agreed(true); got != a {
			t.Errorf("%s: %v", when, got)
		}
	}
	note("10.1.0.1", mine, true)
	note("10.1.2.2", mine, true)
	note("10.1.3.3", mine, true)
	note("10.2.0.1", mine, true)
	note("10.3.0.1", mine, false)
	want(netip.Addr{}, "two networks")
	note("10.3.0.1", mine, true)
	want(mine, "three networks")
	for _, from := range []string{"10.4.0.1", "10.5.0.1", "10.6.0.1"} {
		note(from, other, true)
	}
	want(netip.Addr{}, "three against three")
	note("10.1.0.1", other, true)
	want(other, "the address has changed")
	note("10.7.0.1", netip.MustParseAddr("2001:db8::1"), true)
	want(other, "IPv6 beside it")
	for i := range 2000 {
		note(netip.AddrFrom4([4]byte{11, byte(i), 0, byte(i >> 8)}).String(), mine, true)
	}
	if len(o.list) > maxObservers {
		t.Errorf("%d are remembered", len(o.list))
	}
}
