// Package ipaddr says which IP addresses belong to the public internet.
//
// There is one answer for all: the client (which refuses to send a private address literal through an exit), the
// exit (which asks again after it has resolved a name, so that a name that resolves inward gains nothing), the
// resolver, and the documents of the directory. It keeps no state and may be called from everywhere at any time.
package ipaddr

import "net/netip"

// special4 lists the blocks of IPv4 that are not the public internet: the special-purpose address registry of IANA
// (RFC 6890 and its updates), multicast and the reserved rest. Blocks of the registry that hold a few reachable
// anycast addresses (192.0.0.0/24) are listed whole, since nothing that a user wants is there.
var special4 = prefixes(
	"0.0.0.0/8",       // "this network"; 0.0.0.0 is the local host to many systems
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, the metadata services of clouds among it
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments, DS-Lite, NAT64 discovery
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relay anycast, withdrawn
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast
)

// global6 is the only part of IPv6 from which global unicast addresses are assigned. Everything outside is not
// public: unspecified, loopback, IPv4-compatible and IPv4-mapped (::/8), NAT64 (64:ff9b::/96 and 64:ff9b:1::/48),
// discard-only (100::/64), segment routing (5f00::/16), unique local (fc00::/7), link-local (fe80::/10), site-local
// (fec0::/10) and multicast (ff00::/8) among it.
var global6 = netip.MustParsePrefix("2000::/3")

// special6 lists the blocks inside global6 that are not public all the same.
var special6 = prefixes(
	"2001::/23",     // protocol assignments: Teredo (2001::/32), benchmarking, ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4: carries any IPv4 address, private ones too
	"3fff::/20",     // documentation
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// IsPublic reports whether addr is an address of a single host of the public internet. An address that carries
// another inside (IPv4-mapped, NAT64, 6to4, Teredo) or has a zone is not public whatever it carries: who wants to
// allow mapped addresses calls Unmap first. The zero Addr is not public.
func IsPublic(addr netip.Addr) bool {
	switch {
	case addr.Is4():
		return !inside(special4, addr)
	case addr.Is6() && addr.Zone() == "":
		return global6.Contains(addr) && !inside(special6, addr)
	}
	return false
}

func inside(blocks []netip.Prefix, addr netip.Addr) bool {
	for _, block := range blocks {
		if block.Contains(addr) {
			return true
		}
	}
	return false
}

// NonePublic reports whether p lies in a single block that is not public, so that none of its addresses is. It is
// false for an invalid prefix, and for a prefix that reaches into the public internet.
func NonePublic(p netip.Prefix) bool {
	blocks := special6
	if p.Addr().Is4() {
		blocks = special4
	} else if p.IsValid() && !global6.Overlaps(p) {
		return true
	}
	for _, block := range blocks {
		if block.Bits() <= p.Bits() && block.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// Site is the part of the internet that limits count by, since whoever has one address
// there has them all: the /24 of an IPv4 address, the /48 of an IPv6 address.
func Site(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, _ := addr.Prefix(bits) // the zero Prefix of an invalid address
	return p
}
