package directory

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
)

// CountVotes makes of votes, which are of one session and of different authors, what the consensus says. The same
// votes give the same result everywhere, whatever their order.
//
// What no honest authority says cannot come in: a relay is listed when more than half of the votes list it, in the form
// that most of them give it and more than f = ⌊(n−1)/3⌋, and at those addresses where more than half of these reached
// it. An authority that reaches nobody at IPv6 (or IPv4) has nothing to say of such addresses. Flags go by the majority
// of the votes that list the relay, parameters by the low median of those who set them, if they are more than half,
// protocols by the majority of all.
//
// The predecessor is the newest consensus of which a vote holds the signed head. It need not be the newest there is:
// one may have been signed in the last moment, and be known to few. Of one valid-after there is but one consensus, so
// all who name a predecessor of that time name the same, and nobody who holds it can mistake the next for a fork. A
// majority of votes for a mere digest would not do: of those who have signed the last consensus a quorum of votes need
// hold only 2q−n, and the others could name another.
func CountVotes(network *Network, at time.Time, votes []*Vote) (ConsensusInput, error) {
	if len(votes) < network.Quorum {
		return ConsensusInput{}, fmt.Errorf("counting votes: %w: %d, want %d", ErrSigners, len(votes), network.Quorum)
	}
	c := &count{network: network, votes: slices.Clone(votes), faulty: (len(network.Authorities) - 1) / 3}
	slices.SortFunc(c.votes, func(a, b *Vote) int { return a.Head.Author.Compare(b.Head.Author) })
	if method := c.method(); method != ConsensusMethod {
		return ConsensusInput{}, fmt.Errorf("counting votes: %w: a quorum of authorities makes consensuses by method %d, which this version does not know: update cepa",
			ErrInvalid, method)
	}
	in := ConsensusInput{
		ValidAfter:    at,
		Parameters:    c.parameters(),
		Recommended:   c.protocols(func(v *Vote) Protocols { return v.Listing.Recommended }),
		Required:      c.protocols(func(v *Vote) Protocols { return v.Listing.Required }),
		NetworkSerial: network.Serial,
	}
	for _, v := range c.votes {
		if p := v.previous; p != nil && p.ValidAfter.After(in.PreviousAt) {
			in.Previous, in.PreviousAt = p.Digest, p.ValidAfter
		}
	}
	c.prepare()
	in.Relays = c.relays()
	return in, nil
}

// count is a count of votes.
type count struct {
	network   *Network
	votes     []*Vote // ascending by author
	faulty    int     // liars that are to have no say
	measurers int     // votes of those who measure
	reaches   []struct{ ipv4, ipv6 bool }
	weightCap uint32
	unproved  uint32 // largest weight of a relay that could have been measured but was not
}

// opinion is what one vote says of one relay.
type opinion struct {
	vote     int
	relay    *Relay
	ref      *DescriptorRef
	measured uint32
}

func (c *count) most(n int) bool { return 2*n > len(c.votes) }

// method is the highest that a quorum of the votes supports; 0 if there is none.
func (c *count) method() (best uint64) {
	for _, v := range c.votes {
		for _, m := range v.Methods {
			support := 0
			for _, other := range c.votes {
				support += b2i(slices.Contains(other.Methods, m))
			}
			if support >= c.network.Quorum {
				best = max(best, m)
			}
		}
	}
	return best
}

func (c *count) parameters() Parameters {
	values := make(map[Parameter][]int64)
	for _, v := range c.votes {
		for name, value := range v.Listing.Parameters { // order: each name on its own
			values[name] = append(values[name], value)
		}
	}
	var out Parameters
	for name, list := range values { // order: each name on its own
		if c.most(len(list)) {
			if out == nil {
				out = make(Parameters)
			}
			out[name] = lowMedian(list)
		}
	}
	return out
}

// lowMedian returns the middle value, the lower of two. It sorts the values, of which there is one.
func lowMedian[T cmp.Ordered](values []T) T {
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

func (c *count) protocols(of func(*Vote) Protocols) Protocols {
	var all, out Protocols
	for _, v := range c.votes {
		all = append(all, of(v)...)
	}
	slices.Sort(all)
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n] == all[0] {
			n++
		}
		if c.most(n) {
			out = append(out, all[0])
		}
		all = all[n:]
	}
	return out
}

func (c *count) prepare() {
	c.weightCap = uint32(c.network.Limit(WeightCap))
	c.reaches = make([]struct{ ipv4, ipv6 bool }, len(c.votes))
	for i, v := range c.votes {
		c.measurers += b2i(len(v.Measured) > 0)
		for j := range v.Listing.Relays {
			for _, a := range v.Listing.Relays[j].Addresses {
				is4 := a.Addr().Is4()
				c.reaches[i].ipv4 = c.reaches[i].ipv4 || is4
				c.reaches[i].ipv6 = c.reaches[i].ipv6 || !is4
			}
		}
	}
	c.unproved = c.weightCap
	if c.measurers > 0 {
		c.unproved = min(c.unproved, uint32(c.network.Limit(UnmeasuredCap)))
	}
}

// relays goes through all votes at once, in the order of identities.
func (c *count) relays() []Relay {
	var out []Relay
	next := make([]int, len(c.votes))
	for {
		var id cert.Identity
		found := false
		for i, v := range c.votes {
			if next[i] < len(v.Listing.Relays) {
				if r := &v.Listing.Relays[next[i]]; !found || r.Identity.Compare(id) < 0 {
					id, found = r.Identity, true
				}
			}
		}
		if !found {
			return out
		}
		var said []opinion
		for i, v := range c.votes {
			if at := next[i]; at < len(v.Listing.Relays) && v.Listing.Relays[at].Identity == id {
				o := opinion{vote: i, relay: &v.Listing.Relays[at], ref: &v.Descriptors[at]}
				if len(v.Measured) > 0 {
					o.measured = v.Measured[at]
				}
				said = append(said, o)
				next[i]++
			}
		}
		if r, ok := c.relay(said); ok {
			out = append(out, r)
		}
	}
}

// relay makes the entry of one relay; ok is false when it is not listed.
func (c *count) relay(said []opinion) (r Relay, ok bool) {
	if !c.most(len(said)) {
		return r, false
	}
	form := commonForm(said)
	if len(form) <= c.faulty {
		return r, false
	}
	one := form[0].relay
	r = Relay{
		Identity:  one.Identity,
		OnionKey:  one.OnionKey,
		Addresses: c.addresses(form),
		Flags:     c.flags(said, one),
		Weight:    c.weight(said, one.Weight),
		Ports:     one.Ports,
		Protocols: one.Protocols,
		Families:  one.Families,
		Nickname:  one.Nickname,
	}
	return r, len(r.Addresses) > 0
}

// commonForm returns the opinions that agree on the descriptor and all that comes from it, of the form that most have;
// of two the one with the newer descriptor, and at last that of the smaller author.
func commonForm(said []opinion) (best []opinion) {
	for i := range said {
		if slices.ContainsFunc(said[:i], func(o opinion) bool { return o.sameForm(&said[i]) }) {
			continue
		}
		var form []opinion
		for j := i; j < len(said); j++ {
			if said[j].sameForm(&said[i]) {
				form = append(form, said[j])
			}
		}
		if len(form) > len(best) || len(form) == len(best) && form[0].ref.compare(best[0].ref) > 0 {
			best = form
		}
	}
	return best
}

func (o *opinion) sameForm(p *opinion) bool {
	x, y := o.relay, p.relay
	return o.ref.compare(p.ref) == 0 && x.OnionKey == y.OnionKey && x.Weight == y.Weight && x.Nickname == y.Nickname &&
		slices.Equal(x.Ports.IPv4, y.Ports.IPv4) && slices.Equal(x.Ports.IPv6, y.Ports.IPv6) &&
		slices.Equal(x.Protocols, y.Protocols) && slices.Equal(x.Families, y.Families)
}

// compare is the order of descriptors: of two of one relay the greater counts.
func (d *DescriptorRef) compare(e *DescriptorRef) int {
	return cmp.Or(d.Issued.Compare(e.Issued), d.Published.Compare(e.Published), bytes.Compare(d.Digest[:], e.Digest[:]))
}

func (c *count) addresses(form []opinion) (out []netip.AddrPort) {
	for i := range form {
		for _, a := range form[i].relay.Addresses {
			if slices.Contains(out, a) || len(out) == maxAddresses {
				continue
			}
			able, reached := 0, 0
			for j := range form {
				can := c.reaches[form[j].vote]
				able += b2i(a.Addr().Is4() && can.ipv4 || !a.Addr().Is4() && can.ipv6)
				reached += b2i(slices.Contains(form[j].relay.Addresses, a))
			}
			if 2*reached > able && reached > c.faulty {
				out = append(out, a)
			}
		}
	}
	return out
}

func (c *count) flags(said []opinion, form *Relay) Flags {
	var out Flags
	for bit := range 32 {
		flag, n := Flags(1)<<bit, 0
		for i := range said {
			n += b2i(said[i].relay.Flags.Has(flag))
		}
		if 2*n > len(said) {
			out |= flag
		}
	}
	if form.Ports.IsEmpty() {
		out &^= FlagExit
	}
	if len(form.Ports.IPv6) == 0 {
		out &^= FlagIPv6Exit
	}
	return out
}

// weight is the low median of what was measured, or what the relay claims, within bounds, when too few have measured.
func (c *count) weight(said []opinion, claim uint32) uint32 {
	var measured []uint32
	for i := range said {
		if said[i].measured > 0 {
			measured = append(measured, said[i].measured)
		}
	}
	if len(measured) >= max(1, min(3, c.measurers)) {
		return uint32(min(roundWeight(uint64(lowMedian(measured))), math.MaxUint32))
	}
	return uint32(min(roundWeight(uint64(max(claim, 1))), uint64(c.unproved)))
}
