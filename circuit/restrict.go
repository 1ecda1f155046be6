package circuit

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"cepa/cert"
)

// RelaySet names relays by what cannot be taken over by another: their identity, a family that
// signed for them, or a prefix that one of their addresses is in. Nicknames are not unique, so
// they name nobody.
type RelaySet struct {
	Identities []cert.Identity
	Families   []cert.FamilyID
	Prefixes   []netip.Prefix
}

const familyPrefix = "family:"

// ParseRelaySet reads a set from texts: an identity (64 hexadecimal digits), "family:" and a
// family's id (64), an IP address, or a prefix such as 192.0.2.0/24 or 2001:db8::/32.
func ParseRelaySet(items []string) (RelaySet, error) {
	var s RelaySet
	for _, item := range items {
		text := strings.TrimSpace(item)
		if family, ok := strings.CutPrefix(text, familyPrefix); ok {
			var id cert.FamilyID
			if err := id.UnmarshalText([]byte(family)); err != nil {
				return RelaySet{}, fmt.Errorf("%q names no family: %w", item, err)
			}
			s.Families = append(s.Families, id)
			continue
		}
		if prefix, err := netip.ParsePrefix(text); err == nil {
			if prefix != prefix.Masked() {
				return RelaySet{}, fmt.Errorf("%q is an address, not a prefix: write %v", item, prefix.Masked())
			}
			s.Prefixes = append(s.Prefixes, prefix)
			continue
		}
		if address, err := netip.ParseAddr(text); err == nil {
			address = address.Unmap().WithZone("")
			s.Prefixes = append(s.Prefixes, netip.PrefixFrom(address, address.BitLen()))
			continue
		}
		id, err := cert.ParseIdentity(text)
		if err != nil {
			return RelaySet{}, fmt.Errorf("%q names no relay: write an identity (64 hexadecimal digits), family: and the id of a family, "+
				"an address or a prefix such as 192.0.2.0/24; nicknames are not unique", item)
		}
		s.Identities = append(s.Identities, id)
	}
	return s, nil
}

// Empty says whether the set names nobody.
func (s *RelaySet) Empty() bool { return len(s.Identities)+len(s.Families)+len(s.Prefixes) == 0 }

func (s *RelaySet) has(r *relayInfo) bool {
	if slices.Contains(s.Identities, r.identity) {
		return true
	}
	if slices.ContainsFunc(s.Families, func(f cert.FamilyID) bool { return slices.Contains(r.families, f) }) {
		return true
	}
	return slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool {
		return slices.ContainsFunc(r.addresses, func(a netip.AddrPort) bool { return p.Contains(a.Addr().Unmap()) })
	})
}

// Restriction is what the user wants of one position. An empty Only is no requirement.
type Restriction struct {
	Only   RelaySet // no other relays
	Except RelaySet // not these
}

// Restrictions are what the user wants of paths. They hold always: a request that cannot be
// served within them fails.
type Restrictions struct {
	Exclude RelaySet // at no position
	Guards  Restriction
	Middles Restriction
	Exits   Restriction
}

func (r *Restrictions) at(at position) *Restriction {
	switch at {
	case atGuard:
		return &r.Guards
	case atExit:
		return &r.Exits
	}
	return &r.Middles
}

// Empty says whether nothing is restricted.
func (r *Restrictions) Empty() bool {
	if r == nil {
		return true
	}
	if !r.Exclude.Empty() {
		return false
	}
	for at := range positions {
		if x := r.at(at); !x.Only.Empty() || !x.Except.Empty() {
			return false
		}
	}
	return true
}

// Check finds requirements that no network can meet: relays that are wanted and excluded at once.
func (r *Restrictions) Check() error {
	for at := range positions {
		x := r.at(at)
		if x.Only.Empty() || len(x.Only.Families)+len(x.Only.Prefixes) > 0 {
			continue // what they name is known only with a consensus
		}
		if !slices.ContainsFunc(x.Only.Identities, func(id cert.Identity) bool {
			return !slices.Contains(x.Except.Identities, id) && !slices.Contains(r.Exclude.Identities, id)
		}) {
			return fmt.Errorf("every relay that may be the %v is excluded too", at)
		}
	}
	return nil
}

func (r *Restrictions) allows(relay *relayInfo, at position) bool {
	if r == nil {
		return true
	}
	x := r.at(at)
	return !r.Exclude.has(relay) && !x.Except.has(relay) && (x.Only.Empty() || x.Only.has(relay))
}

// errRestricted is what requests fail with that the user's settings leave no relays for.
var errRestricted = errors.New("the settings for paths leave no relay")

// restrictedError names the position that the user's settings leave empty.
func restrictedError(at position, why string) error {
	return fmt.Errorf("%w for the %v: %s; change the settings exclude, exclude_%vs or %vs of [paths]", errRestricted, at, why, at, at)
}

// restrictedPath is an error of choosePath that the user's settings bring about. It reads as the
// first of the two, and is both to errors.Is.
type restrictedPath struct {
	error
	cause error
}

func (e restrictedPath) Unwrap() []error { return []error{e.error, e.cause} }

// leave says how much of the bandwidth at each position the user's settings leave, in percent,
// rounded up, and which position they leave without any relay.
func (n *network) leave() (percent [positions]int, empty error) {
	for at := range positions {
		var all, left uint64
		some, any := false, false
		for _, r := range n.relays {
			if at == atGuard && !r.mayGuard() || at == atExit && !r.mayExit() {
				continue
			}
			w := n.weightAt(r, at)
			all += w
			some = true
			if n.restrict.allows(r, at) {
				left += w
				any = true
			}
		}
		switch {
		case !any:
			if some && empty == nil {
				empty = restrictedError(at, "of the relays that the consensus lists for it, they allow none")
			}
		case all == 0:
			percent[at] = 100
		default:
			hi, lo := bits.Mul64(left, 100)
			q, rest := bits.Div64(hi, lo, all) // hi is below all: left is at most all
			percent[at] = int(q + min(rest, 1))
		}
	}
	return percent, empty
}
