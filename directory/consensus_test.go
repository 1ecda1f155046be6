package directory

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cert"

	"github.com/fxamacker/cbor/v2"
)

func testInput(t testing.TB, relays int) ConsensusInput {
	return ConsensusInput{
		ValidAfter:  testNow,
		Previous:    cert.Digest{9},
		Relays:      testRelays(t, relays),
		Parameters:  Parameters{IntervalMillis: 5000, "of_the_future": 7},
		Recommended: OurProtocols(),
		Required:    OurProtocols()[:1],
	}
}

func build(t testing.TB, network *Network, in ConsensusInput) (head, body []byte) {
	t.Helper()
	head, body, err := BuildConsensus(network, in)
	if err != nil {
		t.Fatal(err)
	}
	return head, body
}

func sealHead(t testing.TB, head []byte, signers ...cert.Signer) []byte {
	t.Helper()
	return must[[]byte](t)(cert.Seal(cert.ConsensusDocument, testID, head, signers...))
}

func TestConsensusComesBack(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	in := testInput(t, 50)
	in.Relays[3].Extensions = Extensions{40: {0x05}}
	headBody, body := build(t, network, in)
	head := must[*Head](t)(OpenHead(sealHead(t, headBody, testSigners(t, 3)...), network, testNow))
	if len(head.Signers) != 3 || head.Interval() != 5*time.Second || head.Previous != in.Previous || head.Method != ConsensusMethod {
		t.Errorf("head %+v", head)
	}
	if head.Digest != cert.DigestOf(cert.ConsensusDocument, testID, headBody) {
		t.Error("wrong digest")
	}
	c := must[*Consensus](t)(OpenBody(head, body, network))
	for i := range in.Relays {
		want := &in.Relays[i]
		got := c.Lookup(want.Identity)
		if got == nil || fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *want) {
			t.Errorf("relay %d came back as\n%+v instead of\n%+v", i, got, want)
		}
	}
	if c.Lookup(cert.Identity{1}) != nil {
		t.Error("found a relay that is not there")
	}
	if c.Param(IntervalMillis) != 5000 || c.Param(KeepaliveMillis) != 5000 || c.Parameters["of_the_future"] != 7 ||
		!slices.Equal(c.Recommended, in.Recommended) || !slices.Equal(c.Required, in.Required) {
		t.Errorf("parameters %v, protocols %v, %v", c.Parameters, c.Recommended, c.Required)
	}
	if again := must[[]byte](t)(c.body()); !bytes.Equal(again, body) {
		t.Error("the body does not re-encode to its own bytes")
	}
}

// TestConsensusIsTheSameForAllAuthorities: the order in which an authority holds its relays changes no byte.
func TestConsensusIsTheSameForAllAuthorities(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	in := testInput(t, 50)
	head, body := build(t, network, in)
	random := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		random.Shuffle(len(in.Relays), func(i, j int) { in.Relays[i], in.Relays[j] = in.Relays[j], in.Relays[i] })
		if h, b := build(t, network, in); !bytes.Equal(h, head) || !bytes.Equal(b, body) {
			t.Fatal("the order of relays shows")
		}
	}
}

func TestConsensusNeedsAQuorum(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	headBody, body := build(t, network, testInput(t, 5))
	all := testSigners(t, 4)
	stranger := testSigner(t, 50)
	for _, tt := range []struct {
		name    string
		signers []cert.Signer
		want    error
	}{
		{"all", all, nil},
		{"a quorum", all[1:], nil},
		{"a quorum and a stranger", append(all[1:], stranger), nil},
		{"one too few", all[:2], ErrSigners},
		{"one too few, and a stranger", []cert.Signer{all[0], all[1], stranger}, ErrSigners},
	} {
		head, err := OpenHead(sealHead(t, headBody, tt.signers...), network, testNow)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil && slices.Contains(head.Signers, stranger.Identity()) {
			t.Errorf("%s: a stranger counts", tt.name)
		}
	}
	head := must[*Head](t)(OpenHead(sealHead(t, headBody, all...), network, testNow))
	for name, wrong := range map[string][]byte{
		"a bit flipped": append([]byte{body[0] ^ 1}, body[1:]...),
		"cut short":     body[:len(body)-1],
		"too long":      append(bytes.Clone(body), 0),
		"nothing":       nil,
	} {
		if _, err := OpenBody(head, wrong, network); !errors.Is(err, ErrDigest) {
			t.Errorf("body %s: %v", name, err)
		}
	}
}

func TestConsensusStates(t *testing.T) {
	t.Parallel()
	h := Head{ValidAfter: testNow, FreshUntil: testNow.Add(time.Hour), ValidUntil: testNow.Add(24 * time.Hour)}
	for _, tt := range []struct {
		at   time.Duration
		want State
	}{
		{-1, NotYetValid}, {0, Fresh}, {time.Hour - 1, Fresh}, {time.Hour, Usable}, {3*time.Hour - 1, Usable},
		{3 * time.Hour, Stale}, {24*time.Hour - 1, Stale}, {24 * time.Hour, Expired},
	} {
		if got := h.State(testNow.Add(tt.at)); got != tt.want {
			t.Errorf("after %v: %q, want %q", tt.at, got, tt.want)
		}
	}
}

func TestConsensusDoesNotGoBackOrFork(t *testing.T) {
	t.Parallel()
	at := func(intervals int, digest, previous byte) *Head {
		va := testNow.Add(time.Duration(intervals) * time.Hour)
		return &Head{ValidAfter: va, FreshUntil: va.Add(time.Hour), ValidUntil: va.Add(24 * time.Hour), Digest: cert.Digest{digest}, Previous: cert.Digest{previous}}
	}
	held := at(5, 5, 4)
	for _, tt := range []struct {
		name string
		h    *Head
		want error
	}{
		{"the same", at(5, 5, 4), nil},
		{"the next", at(6, 6, 5), nil},
		{"a later one", at(8, 8, 7), nil},
		{"an older one", at(4, 4, 3), ErrRollback},
		{"another of the same time", at(5, 55, 4), ErrFork},
		{"a next one that follows another", at(6, 6, 55), ErrFork},
	} {
		if err := tt.h.Follows(held); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestConsensusInputRefused(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	for name, change := range map[string]func(*ConsensusInput){
		"no relays":                  func(in *ConsensusInput) { in.Relays = nil },
		"a relay twice":              func(in *ConsensusInput) { in.Relays[1].Identity = in.Relays[2].Identity },
		"no identity":                func(in *ConsensusInput) { in.Relays[1].Identity = cert.Identity{} },
		"no onion key":               func(in *ConsensusInput) { in.Relays[1].OnionKey = [32]byte{} },
		"no address":                 func(in *ConsensusInput) { in.Relays[1].Addresses = nil },
		"a private address":          func(in *ConsensusInput) { in.Relays[1].Addresses = []netip.AddrPort{addr("10.0.0.1:1")} },
		"ports out of order":         func(in *ConsensusInput) { in.Relays[1].Ports.IPv4 = []PortRange{{5, 4}} },
		"families out of order":      func(in *ConsensusInput) { in.Relays[1].Families = []cert.FamilyID{{2}, {1}} },
		"five families":              func(in *ConsensusInput) { in.Relays[1].Families = []cert.FamilyID{{1}, {2}, {3}, {4}, {5}} },
		"a wrong nickname":           func(in *ConsensusInput) { in.Relays[1].Nickname = "ü" },
		"protocols out of order":     func(in *ConsensusInput) { in.Relays[1].Protocols = Protocols{2, 1} },
		"required out of order":      func(in *ConsensusInput) { in.Required = Protocols{2, 2} },
		"recommended out of order":   func(in *ConsensusInput) { in.Recommended = Protocols{2, 1} },
		"a parameter without a name": func(in *ConsensusInput) { in.Parameters = Parameters{"": 1} },
		"a parameter with a space":   func(in *ConsensusInput) { in.Parameters = Parameters{"a b": 1} },
		"half a millisecond":         func(in *ConsensusInput) { in.ValidAfter = testNow.Add(time.Microsecond) },
	} {
		in := testInput(t, 5)
		change(&in)
		if _, _, err := BuildConsensus(network, in); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConsensusBodyRefused: what a quorum of dishonest authorities could sign is still parsed strictly.
func TestConsensusBodyRefused(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	_, body := build(t, network, testInput(t, 12))
	for name, change := range map[string]func(*wireConsensus){
		"relays out of order":     func(w *wireConsensus) { w.Relays[0], w.Relays[1] = w.Relays[1], w.Relays[0] },
		"no relays":               func(w *wireConsensus) { w.Relays = nil },
		"ports out of order":      func(w *wireConsensus) { w.Ports[0], w.Ports[1] = w.Ports[1], w.Ports[0] },
		"ports that nobody uses":  func(w *wireConsensus) { w.Ports = append(w.Ports, cbor.RawMessage{0xa1, 0x02, 0x9f, 0xff}) },
		"too few ports":           func(w *wireConsensus) { w.Ports = w.Ports[:1] },
		"ports with another key":  func(w *wireConsensus) { w.Ports[0] = cbor.RawMessage{0xa1, 0x03, 0x00} },
		"protocols that are null": func(w *wireConsensus) { w.Protocols[0] = cbor.RawMessage{0xf6} },
		"no protocols":            func(w *wireConsensus) { w.Protocols = nil },
		"a family of 31 bytes":    func(w *wireConsensus) { w.Families[0] = w.Families[0][:31] },
		"no families":             func(w *wireConsensus) { w.Families = nil },
		"a family nobody is in":   func(w *wireConsensus) { w.Families = append(w.Families, bytes.Repeat([]byte{0xff}, 32)) },
		"a relay that is null":    func(w *wireConsensus) { w.Relays[0] = cbor.RawMessage{0xf6} },
	} {
		var w wireConsensus
		if _, err := decodeMap(body, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		wrong, err := encoding.Marshal(w)
		if err != nil {
			continue // no bytes to be refused
		}
		c, err := decodeConsensus(wrong)
		if err == nil {
			err = c.check(network)
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHeadRefused(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	headBody, _ := build(t, network, testInput(t, 5))
	for name, change := range map[string]func(*wireHead){
		"fresh for nothing": func(w *wireHead) { w.FreshUntil = w.ValidAfter },
		"fresh for two days": func(w *wireHead) {
			w.FreshUntil = w.ValidAfter + 172_800_000
			w.ValidUntil = w.ValidAfter + 24*172_800_000
		},
		"valid for too long":  func(w *wireHead) { w.ValidUntil++ },
		"no method":           func(w *wireHead) { w.Method = 0 },
		"no body":             func(w *wireHead) { w.BodyLength = 0 },
		"a large body":        func(w *wireHead) { w.BodyLength = MaxConsensusBody + 1 },
		"a short digest":      func(w *wireHead) { w.BodyDigest = w.BodyDigest[:31] },
		"a zero predecessor":  func(w *wireHead) { w.Previous = make([]byte, 32) },
		"a short predecessor": func(w *wireHead) { w.Previous = w.Previous[:3] },
		"no dates":            func(w *wireHead) { w.ValidAfter = 0 },
	} {
		var w wireHead
		if _, err := decodeMap(headBody, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		wrong := must[[]byte](t)(encoding.Marshal(w))
		if _, err := OpenHead(sealHead(t, wrong, testSigner(t, 0)), network, testNow); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := OpenHead(make([]byte, MaxConsensusHead+1), network, testNow); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestHeadOfAllSignersFits(t *testing.T) {
	t.Parallel()
	if size := cert.EnvelopeSize(maxHeadBody, cert.MaxSigners); size > MaxConsensusHead {
		t.Errorf("a head has up to %d bytes, MaxConsensusHead is %d", size, MaxConsensusHead)
	}
}

func TestFlagsAndProtocolsPrint(t *testing.T) {
	t.Parallel()
	if got := (FlagGuard | FlagIPv6Exit | 1<<20).String(); got != "Guard IPv6Exit 0x100000" {
		t.Errorf("%q", got)
	}
	if f := FlagGuard | FlagExit; !f.Has(FlagExit) || f.Has(FlagExit|FlagFast) {
		t.Error("Has is wrong")
	}
	ours := OurProtocols()
	if got := append(ours, MakeProtocol(9, 2)).String(); got != "link=1 handshake=1 relay=1 directory=1 part9=2" {
		t.Errorf("%q", got)
	}
	if ours.check() != nil || !ours.Has(MakeProtocol(LinkProtocol, 1)) || ours.Has(MakeProtocol(LinkProtocol, 2)) {
		t.Error("our protocols are not a set")
	}
	if got := ours[:2].Missing(ours); !slices.Equal(got, ours[2:]) || ours.Missing(ours) != nil {
		t.Errorf("missing %v", got)
	}
}

// TestConsensusSize keeps the consensus of a thousand relays, which every client fetches whole, below 130 bytes a
// relay.
func TestConsensusSize(t *testing.T) {
	t.Parallel()
	_, body := build(t, testNetwork(t, 1), testInput(t, 1000))
	t.Logf("1,000 relays: %d bytes", len(body))
	if len(body) > 130_000 {
		t.Errorf("%d bytes", len(body))
	}
}

func BenchmarkOpenBody(b *testing.B) {
	network := testNetwork(b, 1)
	headBody, body := build(b, network, testInput(b, 1000))
	head := must[*Head](b)(OpenHead(sealHead(b, headBody, testSigner(b, 0)), network, testNow))
	b.ReportAllocs()
	b.ReportMetric(float64(len(body)), "body-bytes")
	for b.Loop() {
		if _, err := OpenBody(head, body, network); err != nil {
			b.Fatal(err)
		}
	}
}
