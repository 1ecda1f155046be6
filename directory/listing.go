package directory

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"cepa/ipaddr"
)

// fastEnough is the weight, in KiB a second, from which every relay is Fast.
const fastEnough = 100

// candidate is a relay that could be listed.
type candidate struct {
	*standing
	*Descriptor
	lot    [32]byte // decides between newcomers
	listed bool     // in the last consensus
}

// list returns the relays of the next consensus. Those that the last one listed come first; newcomers are limited in
// number, and drawn by a hash of their prefix and of the last consensus, which nobody can foresee or wait for: being
// many in one place, or early, does not help.
func (a *Authority) list(wall time.Time) []Relay {
	var last *Consensus
	if c := a.cfg.Follower.current; c != nil {
		last = c.Consensus
	}
	all := a.candidates(last, wall)
	slices.SortFunc(all, func(x, y *candidate) int {
		return cmp.Or(
			b2i(y.listed)-b2i(x.listed),
			bytes.Compare(x.lot[:], y.lot[:]), // zero for those listed
			x.firstSeen.Compare(y.firstSeen),
			x.standing.id.Compare(y.standing.id),
		)
	})
	fresh := MaxRelays
	if last != nil {
		fresh = max(int(a.network.Limit(NewRelays)), len(last.Relays)/8)
	}
	perAddress, perSite := int(a.network.Limit(RelaysPerAddress)), int(a.network.Limit(RelaysPerSite))
	addresses, sites := make(map[netip.Addr]int), make(map[netip.Prefix]int)
	var chosen []*candidate
	for _, c := range all {
		host := c.reached[0].Addr()
		full := addresses[host] >= perAddress || sites[ipaddr.Site(host)] >= perSite
		if full || !c.listed && fresh == 0 || len(chosen) >= MaxRelays {
			continue
		}
		if !c.listed {
			fresh--
		}
		addresses[host]++
		sites[ipaddr.Site(host)]++
		chosen = append(chosen, c)
	}
	return a.describe(chosen, wall)
}

// candidates are the relays that may be listed: reachable, with a good descriptor, and not about to leave.
func (a *Authority) candidates(last *Consensus, wall time.Time) []*candidate {
	var out []*candidate
	for _, id := range a.cfg.Agent.store.identities() {
		e, s := a.cfg.Agent.store.entries[id], a.relays[id]
		if s == nil || !s.up() || e.leaving || !wall.Before(e.Expires()) || !wall.Before(e.OnionKeyUntil) ||
			len(e.Protocols.Missing(OurProtocols())) > 0 {
			continue
		}
		c := &candidate{standing: s, Descriptor: e.Descriptor}
		if last != nil {
			if c.listed = last.Lookup(id) != nil; !c.listed {
				prefix := ipaddr.Site(s.reached[0].Addr()).Addr().As16()
				c.lot = sha256.Sum256(append(last.Head.Digest[:], prefix[:]...))
			}
		}
		out = append(out, c)
	}
	return out
}

// describe says what the chosen relays may be used for.
func (a *Authority) describe(chosen []*candidate, wall time.Time) []Relay {
	weightCap := uint64(a.network.Limit(WeightCap))
	weights := make([]uint64, len(chosen))
	for i, c := range chosen {
		weights[i] = min(max(c.Bandwidth>>10, 1), weightCap)
	}
	sorted := slices.Sorted(slices.Values(weights))
	fast := uint64(fastEnough)
	if len(sorted) > 0 {
		fast = min(fast, sorted[len(sorted)/8])
	}
	age := a.guardAge(wall)
	relays := make([]Relay, len(chosen))
	for i, c := range chosen {
		r := Relay{
			Identity:  c.Descriptor.Identity,
			OnionKey:  c.OnionKey,
			Addresses: c.reached,
			Weight:    uint32(weights[i]),
			Ports:     c.Policy.Summary(c.IPv6Exit),
			Protocols: c.Protocols,
			Families:  c.FamilyIDs(),
			Nickname:  c.Nickname,
			Flags:     FlagRunning | FlagValid,
		}
		set := func(flag Flags, when bool) {
			if when {
				r.Flags |= flag
			}
		}
		isFast, isStable := weights[i] >= fast, wall.Sub(c.upSince) >= age/8
		set(FlagAuthority, a.network.IsAuthority(r.Identity))
		set(FlagExit, !r.Ports.IsEmpty())
		set(FlagIPv6Exit, len(r.Ports.IPv6) > 0)
		set(FlagFast, isFast)
		set(FlagStable, isStable)
		set(FlagGuard, isFast && isStable && wall.Sub(c.firstSeen) >= age)
		relays[i] = r
	}
	return relays
}

// guardAge is the age from which a relay may be a guard: the parameter, or half the age of a young network, so that
// the first relays can serve while those who come in a flood later cannot.
func (a *Authority) guardAge(wall time.Time) time.Duration {
	age := time.Duration(a.network.Limit(GuardMinAge)) * time.Second
	return min(age, max(wall.Sub(a.network.Created)/2, 0))
}

// notExistIsNil drops the error of a blob that was never saved.
func notExistIsNil(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
