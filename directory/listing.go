package directory

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math"
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
	at     []netip.AddrPort // where it was reached
	lot    [32]byte         // decides between newcomers
	listed bool             // in the last consensus
}

// claim is the bandwidth that a relay claims, KiB a second, at least 1. One that claims nothing is taken for what anybody
// could have by a claim, until it is measured.
func (c *candidate) claim(network *Network) uint32 {
	if c.Bandwidth == 0 {
		return uint32(min(network.Limit(UnmeasuredCap), math.MaxUint32))
	}
	return uint32(min(max(c.Bandwidth>>10, 1), math.MaxUint32))
}

// vote says what this authority would list in a consensus of that time if it were alone. Relays that the last one
// listed come first; newcomers are limited in number, and drawn by a hash of their prefix and of the last consensus,
// which nobody can foresee or wait for: being many in one place, or early, does not help.
func (a *Authority) vote(at, wall time.Time) *Vote {
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
		host := c.at[0].Addr()
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
	slices.SortFunc(chosen, func(x, y *candidate) int { return x.standing.id.Compare(y.standing.id) })
	v := &Vote{
		Head: &VoteHead{ValidAfter: at, Author: a.cfg.Identity, Serial: a.network.Serial},
		Listing: &Consensus{
			Parameters: a.parameters(), Recommended: OurProtocols(), Required: OurProtocols(), NetworkSerial: a.network.Serial,
		},
		Methods: []uint64{ConsensusMethod},
	}
	a.describe(v, chosen, wall)
	a.addPrevious(v)
	return v
}

// addPrevious puts the newest consensus before the session into a vote, if its signatures will still be good then.
func (a *Authority) addPrevious(v *Vote) {
	c := a.cfg.Follower.current
	if c == nil || !c.Head.ValidAfter.Before(v.Head.ValidAfter) {
		return
	}
	v.Previous = c.head
	if v.readPrevious(a.network) != nil {
		v.Previous, v.previous = nil, nil
	}
}

// candidates are the relays that may be listed: reachable, with a good descriptor, and not about to leave. One of the
// last consensus that has stopped answering a while ago is kept, but not as running: most come back.
func (a *Authority) candidates(last *Consensus, wall time.Time) []*candidate {
	var out []*candidate
	keep := time.Duration(a.network.Limit(UnreachableSeconds)) * time.Second
	for _, id := range a.cfg.Agent.store.identities() {
		e, s := a.cfg.Agent.store.entries[id], a.relays[id]
		if s == nil || e.leaving || !wall.Before(e.Expires()) || !wall.Before(e.OnionKeyUntil) ||
			len(e.Protocols.Missing(OurProtocols())) > 0 {
			continue
		}
		var before *Relay
		if last != nil {
			before = last.Lookup(id)
		}
		c := &candidate{standing: s, Descriptor: e.Descriptor, at: s.reached, listed: before != nil}
		if !s.up() && before != nil && wall.Sub(s.lastSeen) < keep {
			c.at = slices.DeleteFunc(slices.Clone(before.Addresses), func(o netip.AddrPort) bool { return !slices.Contains(e.Addresses, o) })
		}
		if len(c.at) == 0 {
			continue
		}
		if last != nil && before == nil {
			prefix := ipaddr.Site(c.at[0].Addr()).Addr().As16()
			c.lot = sha256.Sum256(append(last.Head.Digest[:], prefix[:]...))
		}
		out = append(out, c)
	}
	return out
}

// describe says what the chosen relays may be used for.
func (a *Authority) describe(v *Vote, chosen []*candidate, wall time.Time) {
	weights := make([]uint64, len(chosen)) // what this authority thinks of them
	for i, c := range chosen {
		weights[i] = min(uint64(c.claim(a.network)), uint64(a.network.Limit(WeightCap)))
		if a.cfg.Measured == nil {
			continue
		}
		kib, ok := a.cfg.Measured(c.standing.id)
		if ok = ok && kib > 0; ok {
			weights[i] = uint64(kib)
		} else {
			kib, weights[i] = 0, min(weights[i], uint64(a.network.Limit(UnmeasuredCap)))
		}
		v.Measured = append(v.Measured, kib)
	}
	sorted := slices.Sorted(slices.Values(weights))
	fast := uint64(fastEnough)
	if len(sorted) > 0 {
		fast = min(fast, sorted[len(sorted)/8])
	}
	age := a.guardAge(wall)
	v.Listing.Relays = make([]Relay, len(chosen))
	v.Descriptors = make([]DescriptorRef, len(chosen))
	for i, c := range chosen {
		r := Relay{
			Identity:  c.Descriptor.Identity,
			OnionKey:  c.OnionKey,
			Addresses: c.at,
			Weight:    c.claim(a.network),
			Ports:     c.Policy.Summary(c.IPv6Exit),
			Protocols: c.Protocols,
			Families:  c.FamilyIDs(),
			Nickname:  c.Nickname,
			Flags:     FlagValid,
		}
		set := func(flag Flags, when bool) {
			if when {
				r.Flags |= flag
			}
		}
		isFast, isStable := weights[i] >= fast, c.up() && wall.Sub(c.upSince) >= age/8
		set(FlagRunning, c.up())
		set(FlagAuthority, a.network.IsAuthority(r.Identity))
		set(FlagExit, !r.Ports.IsEmpty())
		set(FlagIPv6Exit, len(r.Ports.IPv6) > 0)
		set(FlagFast, isFast)
		set(FlagStable, isStable)
		set(FlagGuard, isFast && isStable && wall.Sub(c.firstSeen) >= age)
		v.Listing.Relays[i] = r
		v.Descriptors[i] = DescriptorRef{Digest: c.Digest, Issued: c.Issued, Published: c.Published}
	}
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
