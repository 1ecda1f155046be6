package directory

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"cepa/cert"

	"github.com/fxamacker/cbor/v2"
)

// TestDiffLeadsToTheNewBody: whatever changes from one consensus to another, over one interval or many, the diff makes
// the very bytes of the new one.
func TestDiffLeadsToTheNewBody(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		c := newChurn(t, 120, seed)
		c.leave, c.flags = 0.05, 0.1
		if seed%2 == 0 {
			c.quality = func(w uint32) uint32 { return uint32(roundWeight(uint64(w))) }
		}
		bodies := [][]byte{c.consensus()}
		for range 8 {
			c.next()
			bodies = append(bodies, c.consensus())
		}
		for i, from := range bodies {
			for j, to := range bodies {
				diff := must[[]byte](t)(makeDiffParts(from, to))
				got := must[[]byte](t)(applyDiff(from, diff, len(to)))
				if !bytes.Equal(got, to) {
					t.Fatalf("seed %d: the diff from %d to %d leads elsewhere", seed, i, j)
				}
			}
		}
	}
}

// TestDiffSaysWhatColumnsCannot: fields that change rarely, tables that lose entries, keys of the future.
func TestDiffSaysWhatColumnsCannot(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	base := testInput(t, 40)
	_, from := build(t, network, base)
	for name, change := range map[string]func(*ConsensusInput){
		"nothing":            func(*ConsensusInput) {},
		"nickname":           func(in *ConsensusInput) { in.Relays[3].Nickname = "other" },
		"address":            func(in *ConsensusInput) { in.Relays[3].Addresses = in.Relays[4].Addresses },
		"extension":          func(in *ConsensusInput) { in.Relays[3].Extensions = Extensions{40: {0x05}} },
		"family":             func(in *ConsensusInput) { in.Relays[3].Families = []cert.FamilyID{{1}} },
		"last of its family": func(in *ConsensusInput) { in.Relays[0].Families, in.Relays[5].Families = nil, nil },
		"no families": func(in *ConsensusInput) {
			for i := range in.Relays {
				in.Relays[i].Families = nil
			}
		},
		"all other protocols": func(in *ConsensusInput) {
			for i := range in.Relays {
				in.Relays[i].Protocols = OurProtocols()[:2]
			}
		},
		"one policy for all": func(in *ConsensusInput) {
			for i := range in.Relays {
				in.Relays[i].Ports = in.Relays[1].Ports
			}
		},
		"parameters":     func(in *ConsensusInput) { in.Parameters = Parameters{IntervalMillis: 5000} },
		"no parameters":  func(in *ConsensusInput) { in.Parameters = nil },
		"serial":         func(in *ConsensusInput) { in.NetworkSerial = 2 },
		"required":       func(in *ConsensusInput) { in.Required = OurProtocols() },
		"one relay left": func(in *ConsensusInput) { in.Relays = in.Relays[7:8] },
		"other relays":   func(in *ConsensusInput) { in.Relays = testRelays(t, 90)[41:] },
	} {
		in := testInput(t, 40)
		change(&in)
		_, to := build(t, network, in)
		for _, d := range [][2][]byte{{from, to}, {to, from}} {
			diff := must[[]byte](t)(makeDiffParts(d[0], d[1]))
			if got, err := applyDiff(d[0], diff, len(d[1])); err != nil || !bytes.Equal(got, d[1]) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestDiffThatSavesNothingIsNotMade(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	in := testInput(t, 10)
	_, from := build(t, network, in)
	in.Relays = testRelays(t, 40)[20:]
	_, to := build(t, network, in)
	if _, err := makeDiff(from, to); !errors.Is(err, errNoDiff) {
		t.Errorf("got %v", err)
	}
}

// TestHostileDiffIsBounded: a diff is signed by nobody. Whatever it says, it fails or makes at most what the head
// announced.
func TestHostileDiffIsBounded(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	_, from := build(t, network, testInput(t, 40))
	relay := must[*parts](t)(takeApart(from)).raw[0]
	many := make([]cbor.RawMessage, 5000)
	for i := range many {
		many[i] = relay
	}
	for name, w := range map[string]wireDiff{
		"removes what is not there": {Removed: []uint32{40}},
		"a gap to infinity":         {Removed: []uint32{3, 1<<32 - 1, 1<<32 - 1}},
		"a key for nobody":          {KeysAt: []uint32{39, 0}, Keys: make([]byte, 64)},
		"keys without positions":    {Keys: make([]byte, 32)},
		"positions without keys":    {KeysAt: []uint32{1}},
		"a step to nowhere":         {Steps: &column{Gaps: []uint32{0}, Values: []uint32{1<<32 - 1}}},
		"a weight too few":          {Weights: &column{Gaps: []uint32{1, 1}, Values: []uint32{1}}},
		"an empty column":           {Flags: &column{Gaps: []uint32{}, Values: []uint32{}}},
		"an empty table":            {Families: &tableDiff{Gaps: []uint32{}, Added: []cbor.RawMessage{}}},
		"removes no entry":          {PortTable: &tableDiff{Gaps: []uint32{99}, Added: []cbor.RawMessage{}}},
		"relays without end":        {Relays: many},
		"a table without end":       {ProtocolTable: &tableDiff{Gaps: []uint32{}, Added: many}},
		"a relay that is none":      {Relays: []cbor.RawMessage{{0x01}}},
		"a family that is none":     {Families: &tableDiff{Gaps: []uint32{}, Added: []cbor.RawMessage{{0x01}}}},
		"relays in the rest":        {Rest: must[[]byte](t)(encoding.Marshal(map[int]int{1: 0}))},
		"a rest that is none":       {Rest: []byte{0x01}},
	} {
		diff := must[[]byte](t)(encodeMap(w, nil))
		if got, err := applyDiff(from, diff, len(from)+100); err == nil {
			t.Errorf("%s: a body of %d bytes", name, len(got))
		}
	}
	// What it may not refuse, the digest of the signed head does: an index beyond its table, a relay twice.
	for name, w := range map[string]wireDiff{
		"an index beyond the table": {Ports: &column{Gaps: []uint32{0}, Values: []uint32{1 << 31}}},
		"a relay twice":             {Relays: []cbor.RawMessage{relay, relay}},
		"the last of a policy gone": {PortTable: &tableDiff{Gaps: []uint32{0}, Added: []cbor.RawMessage{}}},
	} {
		diff := must[[]byte](t)(encodeMap(w, nil))
		got, err := applyDiff(from, diff, len(from)+1000)
		if err != nil {
			continue
		}
		if _, err := decodeConsensus(got); err == nil && bytes.Equal(got, from) {
			t.Errorf("%s: changed nothing", name)
		}
	}
}

// TestAlteredDiffNeverLeadsToTheBody flips bits of a diff: the result is an error or other bytes, never a panic.
func TestAlteredDiffNeverLeadsToTheBody(t *testing.T) {
	t.Parallel()
	c := newChurn(t, 200, 3)
	from := c.consensus()
	c.next()
	to := c.consensus()
	diff := must[[]byte](t)(makeDiff(from, to))
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		bad := bytes.Clone(diff)
		bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		if got, err := applyDiff(from, bad, len(to)); err == nil && bytes.Equal(got, to) {
			t.Fatalf("an altered diff leads to the same body")
		}
	}
	for n := range diff {
		if _, err := applyDiff(from, diff[:n], len(to)); err == nil {
			t.Fatalf("the first %d of %d bytes are a diff", n, len(diff))
		}
	}
}

func FuzzDecodeDiff(f *testing.F) {
	c := newChurn(f, 40, 1)
	c.leave = 0.1
	from := c.consensus()
	for range 3 {
		c.next()
		f.Add(must[[]byte](f)(makeDiffParts(from, c.consensus())))
	}
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, diff []byte) {
		w, err := decodeDiff(diff)
		if err != nil {
			return
		}
		same(t, diff)(encodeMap(*w, nil))
		const limit = 20_000
		if got, err := applyDiff(from, diff, limit); err == nil && len(got) > limit {
			t.Errorf("a body of %d bytes", len(got))
		}
	})
}

// TestRoundWeights: every weight is rounded to one with a number, by less than 6 %, and numbers and weights belong
// together one to one.
func TestRoundWeights(t *testing.T) {
	t.Parallel()
	const largest = (1<<weightBits - 1) << (32 - weightBits)
	last := uint32(0)
	for step := uint32(0); last != largest; step++ {
		w, ok := weightOf(step)
		if !ok {
			t.Fatalf("no weight %d", step)
		}
		if step > 0 && w <= last {
			t.Fatalf("weight %d is %d after %d", step, w, last)
		}
		if back, ok := stepOf(w); !ok || back != step || roundWeight(uint64(w)) != uint64(w) {
			t.Fatalf("weight %d, number %d, has the number %d", w, step, back)
		}
		last = w
	}
	after, _ := stepOf(largest)
	for _, step := range []uint32{after + 1, 1 << 31, 1<<32 - 1} {
		if w, ok := weightOf(step); ok {
			t.Errorf("number %d is the weight %d", step, w)
		}
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 10_000 {
		w := uint64(rng.Uint32() >> rng.IntN(32))
		r := roundWeight(w)
		if 100*(max(r, w)-min(r, w)) > 6*w {
			t.Fatalf("%d becomes %d", w, r)
		}
		if _, ok := stepOf(uint32(r)); !ok && r <= largest {
			t.Fatalf("%d becomes %d, which is not round", w, r)
		}
		if n := int32(rng.Uint32()); fromZigzag(zigzag(n)) != n {
			t.Fatal(n)
		}
	}
}

// TestRequestsForDiffsAndNetworkFiles: what each kind needs, and nothing else.
func TestRequestsForDiffsAndNetworkFiles(t *testing.T) {
	t.Parallel()
	a, b := cert.Digest{1}, cert.Digest{2}
	for _, want := range []Request{
		{Kind: AskHead, Known: a}, {Kind: AskDiff, Known: a, Digest: b}, {Kind: AskNetworkFile, Serial: 1}, {Kind: AskNetworkFile, Serial: maxSerial},
	} {
		wire := must[[]byte](t)(want.AppendTo(nil))
		if got, err := DecodeRequest(wire[requestHeader:]); err != nil || got.Kind != want.Kind || got.Known != want.Known || got.Digest != want.Digest || got.Serial != want.Serial {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
	}
	for name, r := range map[string]Request{
		"a diff from nowhere":          {Kind: AskDiff, Digest: b},
		"a diff to nowhere":            {Kind: AskDiff, Known: a},
		"a body after what":            {Kind: AskBody, Digest: b, Known: a},
		"a network file after what":    {Kind: AskNetworkFile},
		"a serial too high":            {Kind: AskNetworkFile, Serial: maxSerial + 1},
		"a head after a network file":  {Kind: AskHead, Serial: 1},
		"a network file with a digest": {Kind: AskNetworkFile, Serial: 1, Digest: a},
	} {
		if _, err := r.AppendTo(nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
