package directory

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cert"
)

// testVote is a vote of an authority for the relays with these numbers, all alike.
func testVote(t testing.TB, network *Network, author int, relays ...int) *Vote {
	t.Helper()
	all := testRelays(t, 20)
	v := &Vote{
		Head: &VoteHead{ValidAfter: testNow, Author: testIdentity(author), Serial: network.Serial},
		Listing: &Consensus{Parameters: Parameters{IntervalMillis: 5000}, Recommended: OurProtocols(), Required: OurProtocols(),
			NetworkSerial: network.Serial},
		Methods: []uint64{ConsensusMethod},
	}
	for _, i := range relays {
		v.Listing.Relays = append(v.Listing.Relays, all[i])
	}
	slices.SortFunc(v.Listing.Relays, func(a, b Relay) int { return a.Identity.Compare(b.Identity) })
	for i := range v.Listing.Relays {
		v.Descriptors = append(v.Descriptors, DescriptorRef{cert.Digest(v.Listing.Relays[i].Identity), testNow, testNow})
	}
	return v
}

// opinionOf returns what a vote says of relay i of testRelays.
func (v *Vote) opinionOf(t testing.TB, i int) (*Relay, *DescriptorRef) {
	id := testRelays(t, i+1)[i].Identity
	at := slices.IndexFunc(v.Listing.Relays, func(r Relay) bool { return r.Identity == id })
	if at < 0 {
		t.Fatalf("no relay %d in the vote", i)
	}
	return &v.Listing.Relays[at], &v.Descriptors[at]
}

func (in *ConsensusInput) relay(t testing.TB, i int) *Relay {
	id := testRelays(t, i+1)[i].Identity
	at := slices.IndexFunc(in.Relays, func(r Relay) bool { return r.Identity == id })
	if at < 0 {
		return nil
	}
	return &in.Relays[at]
}

func countVotes(t testing.TB, network *Network, votes ...*Vote) *ConsensusInput {
	t.Helper()
	in := must[ConsensusInput](t)(CountVotes(network, testNow, votes))
	return &in
}

// TestCountIsTheSameInAnyOrder: the same votes make the same bytes, whoever counts them in whatever order.
func TestCountIsTheSameInAnyOrder(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 7)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var votes []*Vote
		for i := range 7 {
			relays := rng.Perm(20)[:14]
			v := testVote(t, network, i, relays...)
			for j := range v.Listing.Relays {
				r := &v.Listing.Relays[j]
				r.Flags, r.Weight = Flags(rng.Uint32N(1<<10)), 1+rng.Uint32N(3)
				v.Descriptors[j].Published = testNow.Add(time.Duration(rng.IntN(2)) * time.Second)
				v.Measured = append(v.Measured, rng.Uint32N(5000))
			}
			v.Listing.Parameters = Parameters{IntervalMillis: 5000, MinRelays: 1 + rng.Int64N(9)}
			votes = append(votes, v)
		}
		head, body := build(t, network, *countVotes(t, network, votes...))
		for range 5 {
			rng.Shuffle(len(votes), func(i, j int) { votes[i], votes[j] = votes[j], votes[i] })
			head2, body2 := build(t, network, *countVotes(t, network, votes...))
			if !bytes.Equal(head, head2) || !bytes.Equal(body, body2) {
				t.Fatal("the order of votes matters")
			}
		}
	}
}

func TestRelaysAreListedByMajority(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	in := countVotes(t, network, testVote(t, network, 0, 1, 2, 3), testVote(t, network, 1, 1, 2), testVote(t, network, 2, 1, 3, 4), testVote(t, network, 3, 1, 2, 4))
	if len(in.Relays) != 2 || in.relay(t, 1) == nil || in.relay(t, 2) == nil {
		t.Errorf("%d relays, want those that three or four of four list", len(in.Relays))
	}
	if _, err := CountVotes(network, testNow, []*Vote{testVote(t, network, 0, 1), testVote(t, network, 1, 1)}); !errors.Is(err, ErrSigners) {
		t.Errorf("two votes of four: %v", err)
	}
}

// TestFormOfARelayNeedsAnHonestAuthority: what comes from a descriptor, above all the onion key, is what most votes say,
// and never what only f of them say, who could all be liars.
func TestFormOfARelayNeedsAnHonestAuthority(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	newer := testNow.Add(time.Hour)
	votes := func(change ...func(*Relay, *DescriptorRef)) (out []*Vote) {
		for i := range 4 {
			v := testVote(t, network, i, 1, 2)
			if i < len(change) && change[i] != nil {
				change[i](v.opinionOf(t, 1))
			}
			out = append(out, v)
		}
		return out
	}
	lie := func(r *Relay, d *DescriptorRef) { r.OnionKey, d.Published = testSeed('x', 1), newer }
	republished := func(r *Relay, d *DescriptorRef) { r.OnionKey, d.Published = testSeed('b', 99), newer }
	stale := func(r *Relay, d *DescriptorRef) { r.OnionKey, d.Published = testSeed('b', 98), testNow.Add(-time.Hour) }
	want := func(in *ConsensusInput, key [32]byte) {
		t.Helper()
		if r := in.relay(t, 1); r == nil || r.OnionKey != key {
			t.Errorf("want onion key %x, got %v", key[:2], r)
		}
	}
	want(countVotes(t, network, votes(lie)...), testSeed('b', 1))
	want(countVotes(t, network, votes(republished, republished)...), testSeed('b', 99)) // two and two: the newer
	want(countVotes(t, network, votes(republished, republished, republished)...), testSeed('b', 99))
	sameDescriptor := func(r *Relay, _ *DescriptorRef) { r.OnionKey = testSeed('x', 1) }
	want(countVotes(t, network, votes(sameDescriptor)...), testSeed('b', 1))
	// One each: nobody can say which is true.
	if r := countVotes(t, network, votes(lie, stale, republished)[:3]...).relay(t, 1); r != nil {
		t.Errorf("listed with onion key %x, on the word of one", r.OnionKey[:2])
	}
}

func TestAddressesAreThoseThatMostReach(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 7)
	v4, other4, v6 := addr("20.0.0.1:9001"), addr("20.0.0.2:9001"), addr("[2a00::5]:9001")
	for _, tt := range []struct {
		name    string
		reached [][]netip.AddrPort // by vote, of relay 1
		six     int                // votes that reach another relay at IPv6
		want    []netip.AddrPort
	}{
		{"all both", [][]netip.AddrPort{{v4, v6}, {v4, v6}, {v4, v6}, {v4, v6}, {v4, v6}}, 0, []netip.AddrPort{v4, v6}},
		{"two one of them", [][]netip.AddrPort{{v4, other4}, {v4, other4}, {v4}, {v4}, {v4}}, 0, []netip.AddrPort{v4}},
		{"three of five have IPv6", [][]netip.AddrPort{{v4, v6}, {v4, v6}, {v4, v6}, {v4}, {v4}}, 3, []netip.AddrPort{v4, v6}},
		{"three of four that have IPv6", [][]netip.AddrPort{{v4, v6}, {v4, v6}, {v4, v6}, {v4}, {v4}, {v4}, {v4}}, 4, []netip.AddrPort{v4, v6}},
		{"three of six that have IPv6", [][]netip.AddrPort{{v4, v6}, {v4, v6}, {v4, v6}, {v4}, {v4}, {v4}, {v4}}, 6, []netip.AddrPort{v4}},
		{"the only two that have IPv6", [][]netip.AddrPort{{v4, v6}, {v4, v6}, {v4}, {v4}, {v4}}, 2, []netip.AddrPort{v4}},
		{"none by most", [][]netip.AddrPort{{v4}, {v4}, {other4}, {other4}, {other4, v4}, {v6}, {v6}}, 0, nil},
	} {
		var votes []*Vote
		for i, reached := range tt.reached {
			v := testVote(t, network, i, 1, 2, 4)
			r, _ := v.opinionOf(t, 1)
			r.Addresses = reached
			for _, o := range []int{2, 4} {
				if x, _ := v.opinionOf(t, o); i < tt.six {
					x.Addresses = []netip.AddrPort{addr("[2a00::9]:9001")}
				}
			}
			votes = append(votes, v)
		}
		var got []netip.AddrPort
		if r := countVotes(t, network, votes...).relay(t, 1); r != nil {
			got = r.Addresses
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestFlagsParametersAndProtocolsByMajority(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	var votes []*Vote
	for i := range 4 {
		v := testVote(t, network, i, 1, 2)
		r, _ := v.opinionOf(t, 1)
		r.Flags = FlagValid | FlagExit // without a port summary that is nothing
		if r.Ports = (PortSummary{}); i < 3 {
			r.Flags |= FlagRunning | 1<<20
		}
		if i < 2 {
			r.Flags |= FlagGuard
		}
		v.Listing.Parameters = Parameters{IntervalMillis: 5000, MinRelays: int64(10 + i)}
		if i < 2 {
			v.Listing.Parameters[NewRelays] = 7
		}
		if i < 3 {
			v.Listing.Parameters["of_the_future"] = []int64{5, 1, 3}[i]
			v.Listing.Required = append(slices.Clone(OurProtocols()), OurProtocols()[3]+7)
		} else {
			v.Listing.Recommended = nil
		}
		votes = append(votes, v)
	}
	in := countVotes(t, network, votes...)
	if r := in.relay(t, 1); r.Flags != FlagRunning|FlagValid|1<<20 {
		t.Errorf("flags %v", r.Flags)
	}
	want := Parameters{IntervalMillis: 5000, MinRelays: 11, "of_the_future": 3}
	if len(in.Parameters) != len(want) {
		t.Errorf("parameters %v, want %v", in.Parameters, want)
	}
	for name, value := range want {
		if in.Parameters[name] != value {
			t.Errorf("%s = %d, want %d", name, in.Parameters[name], value)
		}
	}
	if !slices.Equal(in.Recommended, OurProtocols()) || len(in.Required) != len(OurProtocols())+1 {
		t.Errorf("recommended %v, required %v", in.Recommended, in.Required)
	}
	if in.NetworkSerial != network.Serial {
		t.Errorf("serial %d", in.NetworkSerial)
	}
}

// TestWeightIsMeasured: the low median of enough measurements, whatever the relay claims and f liars say; else the claim
// up to the caps.
func TestWeightIsMeasured(t *testing.T) {
	t.Parallel()
	contents := testContents(7)
	contents.Parameters = Parameters{IntervalMillis: 5000, WeightCap: 4096, UnmeasuredCap: 512}
	network := must[*Network](t)(NewNetwork(contents, testSigners(t, 7)...))
	none := -1 // does not measure
	for _, tt := range []struct {
		claim    uint32
		measured []int
		want     uint64 // before it is rounded
	}{
		{3000, []int{none, none, none, none, none}, 3000},
		{90000, []int{none, none, none, none, none}, 4096},
		{90000, []int{0, none, none, none, none}, 512},
		{90000, []int{200, none, none, none, none}, 200},
		{1, []int{8000, none, none, none, none}, 8000},
		{90000, []int{200, 0, none, none, none}, 512}, // one of two
		{90000, []int{200, 400, none, none, none}, 200},
		{90000, []int{200, 400, 0, 0, 0}, 512},
		{90000, []int{200, 400, 640, 0, 0}, 400},
		{90000, []int{200, 1 << 30, 1 << 30, 400, 440}, 440},
		{1, []int{1, 1, 400, 400, 440, 440, 480}, 400},
	} {
		var votes []*Vote
		for i, m := range tt.measured {
			v := testVote(t, network, i, 1, 2)
			for j := range v.Listing.Relays {
				v.Listing.Relays[j].Weight = tt.claim
				if m != none {
					v.Measured = append(v.Measured, uint32(m))
				}
			}
			votes = append(votes, v)
		}
		if r := countVotes(t, network, votes...).relay(t, 1); uint64(r.Weight) != roundWeight(tt.want) {
			t.Errorf("claim %d, measured %v: weight %d, want %d", tt.claim, tt.measured, r.Weight, tt.want)
		}
	}
}

func TestMethodIsTheHighestOfAQuorum(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	votes := func(newer int) (out []*Vote) {
		for i := range 4 {
			v := testVote(t, network, i, 1)
			if i < newer {
				v.Methods = []uint64{1, 2}
			}
			out = append(out, v)
		}
		return out
	}
	if _, err := CountVotes(network, testNow, votes(2)); err != nil {
		t.Errorf("two of four know another method: %v", err)
	}
	if _, err := CountVotes(network, testNow, votes(3)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a method that this version does not know: %v", err)
	}
	strangers := votes(0)
	for _, v := range strangers[:2] {
		v.Methods = []uint64{7}
	}
	if _, err := CountVotes(network, testNow, strangers); !errors.Is(err, ErrInvalid) {
		t.Errorf("no method that a quorum knows: %v", err)
	}
}

// TestPredecessorIsTheNewestThatIsProved: a vote shows the consensus that it names. An authority that has missed the
// last one does no harm, nor do liars who hide it.
func TestPredecessorIsTheNewestThatIsProved(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	sealed := func(at time.Time) ([]byte, cert.Digest) {
		in := testInput(t, 3)
		in.ValidAfter, in.Previous = at, cert.Digest{}
		head, _ := build(t, network, in)
		return sealHead(t, head, testSigners(t, 3)...), cert.DigestOf(cert.ConsensusDocument, testID, head)
	}
	older, _ := sealed(testNow.Add(-10 * time.Second))
	newer, want := sealed(testNow.Add(-5 * time.Second))
	var votes []*Vote
	for i, previous := range [][]byte{older, nil, newer, older} {
		v := testVote(t, network, i, 1, 2)
		v.Previous = previous
		head, body, err := SealVote(network, v, testSigner(t, i))
		if err != nil {
			t.Fatal(err)
		}
		h, _, err := OpenVoteHead(head, network)
		if err != nil {
			t.Fatal(err)
		}
		votes = append(votes, must[*Vote](t)(OpenVote(h, body, network)))
	}
	in := countVotes(t, network, votes...)
	if in.Previous != want || !in.PreviousAt.Equal(testNow.Add(-5*time.Second)) {
		t.Errorf("the predecessor is %s of %v", in.Previous.Short(), in.PreviousAt)
	}
	if in := countVotes(t, network, votes[0], votes[1], votes[3]); !in.PreviousAt.Equal(testNow.Add(-10 * time.Second)) {
		t.Errorf("without the vote that has the newest: %v", in.PreviousAt)
	}
}

// largeVotes are n votes for so many relays, in most of which they agree.
func largeVotes(t testing.TB, network *Network, n, relays int) []*Vote {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	all := testRelays(t, relays)
	slices.SortFunc(all, func(a, b Relay) int { return a.Identity.Compare(b.Identity) })
	votes := make([]*Vote, n)
	for i := range votes {
		v := testVote(t, network, i)
		for j := range all {
			if rng.IntN(50) == 0 {
				continue
			}
			v.Listing.Relays = append(v.Listing.Relays, all[j])
			v.Descriptors = append(v.Descriptors, DescriptorRef{cert.Digest(all[j].OnionKey), testNow, testNow})
			v.Measured = append(v.Measured, all[j].Weight+rng.Uint32N(100))
		}
		votes[i] = v
	}
	return votes
}

func BenchmarkVotes(b *testing.B) {
	const relays = 8000
	network := testNetwork(b, 9)
	votes := largeVotes(b, network, 9, relays)
	head, body, err := SealVote(network, votes[0], testSigner(b, 0))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			_, _, _ = SealVote(network, votes[0], testSigner(b, 0))
		}
		b.ReportMetric(float64(len(body)), "bytes")
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			h, _, _ := OpenVoteHead(head, network)
			if _, err := OpenVote(h, body, network); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if in := countVotes(b, network, votes...); len(in.Relays) != relays {
				b.Fatalf("%d relays", len(in.Relays))
			}
		}
	})
}
