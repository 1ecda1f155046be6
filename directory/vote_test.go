package directory

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"cepa/cert"
)

func sealVote(t testing.TB, network *Network, v *Vote, author int) (head, body []byte) {
	t.Helper()
	head, body, err := SealVote(network, v, testSigner(t, author))
	if err != nil {
		t.Fatal(err)
	}
	return head, body
}

func TestVoteComesBack(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	v := testVote(t, network, 2, 1, 2, 3, 5)
	v.Measured = []uint32{0, 7, 1 << 31, 0}
	v.Extensions = Extensions{99: {0x01}}
	sealed, body := sealVote(t, network, v, 2)
	h, doc, err := OpenVoteHead(sealed, network)
	if err != nil {
		t.Fatal(err)
	}
	if h.Author != testIdentity(2) || !h.ValidAfter.Equal(testNow) || h.Serial != 1 || h.Digest != doc.Digest || int(h.BodyLength) != len(body) {
		t.Errorf("head %+v", h)
	}
	got := must[*Vote](t)(OpenVote(h, body, network))
	if !slices.Equal(got.Measured, v.Measured) || !slices.Equal(got.Descriptors, v.Descriptors) || len(got.Listing.Relays) != 4 ||
		!slices.Equal(got.Methods, v.Methods) || !bytes.Equal(got.Extensions[99], []byte{1}) {
		t.Errorf("came back as %+v", got)
	}
	for i := range got.Listing.Relays {
		if x, y := got.Listing.Relays[i], v.Listing.Relays[i]; x.Identity != y.Identity || x.Weight != y.Weight || x.Flags != y.Flags || !slices.Equal(x.Addresses, y.Addresses) {
			t.Errorf("relay %d: %+v", i, x)
		}
	}
	// Others sign below, without changing what was signed.
	endorsements := doc.Endorsements
	for _, i := range []int{0, 3} {
		endorsements = append(endorsements, must[cert.Endorsement](t)(cert.Endorse(cert.VoteDocument, testID, doc.Body, testSigner(t, i))))
	}
	more, doc2, err := OpenVoteHead(must[[]byte](t)(cert.Join(cert.VoteDocument, doc.Body, endorsements...)), network)
	if err != nil || more.Digest != h.Digest || len(doc2.Endorsements) != 3 {
		t.Errorf("with three signatures: %v", err)
	}
}

func TestVoteRefused(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	for name, change := range map[string]func(*Vote){ // order: each on its own
		"no relays":              func(v *Vote) { v.Listing.Relays, v.Descriptors = nil, nil },
		"a descriptor missing":   func(v *Vote) { v.Descriptors = v.Descriptors[1:] },
		"a measurement too many": func(v *Vote) { v.Measured = make([]uint32, 4) },
		"no method":              func(v *Vote) { v.Methods = nil },
		"method 0":               func(v *Vote) { v.Methods = []uint64{0, 1} },
		"methods in disorder":    func(v *Vote) { v.Methods = []uint64{2, 1} },
		"too many methods":       func(v *Vote) { v.Methods = make([]uint64, 99) },
		"no address":             func(v *Vote) { v.Listing.Relays[0].Addresses = nil },
		"a long nickname":        func(v *Vote) { v.Listing.Relays[0].Nickname = "a-very-long-name-of-a-relay" },
		"a long predecessor":     func(v *Vote) { v.Previous = make([]byte, MaxConsensusHead+1) },
		"no serial":              func(v *Vote) { v.Head.Serial = 0 },
		"half a millisecond":     func(v *Vote) { v.Head.ValidAfter = testNow.Add(time.Microsecond) },
		"before any time":        func(v *Vote) { v.Descriptors[0].Issued = time.UnixMilli(0) },
	} {
		v := testVote(t, network, 1, 1, 2, 3)
		change(v)
		if _, _, err := SealVote(network, v, testSigner(t, 1)); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	sealed, body := sealVote(t, network, testVote(t, network, 1, 1, 2), 1)
	h, doc, err := OpenVoteHead(sealed, network)
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(body)
	wrong[len(wrong)-1] ^= 1
	for name, b := range map[string][]byte{"another body": wrong, "a longer body": append(bytes.Clone(body), 0), "none": nil} { // order: each on its own
		if _, err := OpenVote(h, b, network); !errors.Is(err, ErrDigest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	join := func(signers ...int) []byte {
		var all []cert.Endorsement
		for _, i := range signers {
			all = append(all, must[cert.Endorsement](t)(cert.Endorse(cert.VoteDocument, testID, doc.Body, testSigner(t, i))))
		}
		return must[[]byte](t)(cert.Join(cert.VoteDocument, doc.Body, all...))
	}
	for name, s := range map[string][]byte{ // order: each on its own
		"not by its author": join(0, 2), "by a stranger too": join(1, 9), "cut short": sealed[:len(sealed)-1], "nothing": nil,
		"too long": make([]byte, MaxVoteHead+1),
	} {
		if _, _, err := OpenVoteHead(s, network); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	forged := join(1, 2)
	forged[len(forged)-len(doc.Body)-10] ^= 1
	if _, _, err := OpenVoteHead(forged, network); !errors.Is(err, cert.ErrSignature) {
		t.Errorf("a forged signature: %v", err)
	}
	// The predecessor must be proved, and older.
	in := testInput(t, 3)
	head, _ := build(t, network, in)
	for name, previous := range map[string][]byte{ // order: each on its own
		"of this time": sealHead(t, head, testSigners(t, 3)...), "signed by too few": sealHead(t, head, testSigners(t, 2)...), "no head": {1, 2, 3},
	} {
		v := testVote(t, network, 1, 1, 2)
		v.Head.ValidAfter = in.ValidAfter
		v.Previous = previous
		s, b := sealVote(t, network, v, 1)
		h, _, err := OpenVoteHead(s, network)
		if err == nil {
			_, err = OpenVote(h, b, network)
		}
		if err == nil {
			t.Errorf("a predecessor %s: taken", name)
		}
	}
}

// TestHeadsOfAllAuthoritiesFit: what 32 authorities have signed can be sent.
func TestHeadsOfAllAuthoritiesFit(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, cert.MaxSigners)
	sealed, _ := sealVote(t, network, testVote(t, network, 0, 1), 0)
	doc := must[cert.Document](t)(cert.Parse(sealed, cert.VoteDocument, maxVoteHeadBody))
	all := must[[]byte](t)(cert.Seal(cert.VoteDocument, testID, doc.Body, testSigners(t, cert.MaxSigners)...))
	if _, _, err := OpenVoteHead(all, network); err != nil {
		t.Error(err)
	}
	if _, err := (Request{Kind: PushVote, Document: all}).AppendTo(nil); err != nil {
		t.Error(err)
	}
	if _, err := (Request{Kind: PushSignature, Document: make([]byte, cert.EnvelopeSize(maxHeadBody, cert.MaxSigners))}).AppendTo(nil); err != nil {
		t.Error(err)
	}
}

func TestEvidenceComesBackAndProves(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4)
	vote := func(author, relays int) []byte {
		head, _ := sealVote(t, network, testVote(t, network, author, []int{1, 2, 3}[:relays]...), author)
		return head
	}
	head := func(author, relays int) []byte {
		h, _ := build(t, network, testInput(t, relays))
		return sealHead(t, h, testSigner(t, author))
	}
	list := []Evidence{{Kind: TwoVotes, First: vote(1, 1), Second: vote(1, 2)}, {Kind: TwoConsensuses, First: head(2, 3), Second: head(2, 4)}}
	data := must[[]byte](t)(AppendEvidence(nil, list))
	got := must[[]Evidence](t)(DecodeEvidence(data))
	for i, e := range got {
		if err := CheckEvidence(network, &e); err != nil {
			t.Errorf("evidence %d: %v", i, err)
		}
		if e.Author != testIdentity(i+1) || e.ValidAfter.IsZero() {
			t.Errorf("evidence %d is against %s of %v", i, e.Author.Short(), e.ValidAfter)
		}
	}
	for name, e := range map[string]Evidence{ // order: each on its own
		"the same twice":   {Kind: TwoVotes, First: vote(1, 1), Second: vote(1, 1)},
		"of two authors":   {Kind: TwoVotes, First: vote(1, 1), Second: vote(2, 2)},
		"another kind":     {Kind: TwoConsensuses, First: vote(1, 1), Second: vote(1, 2)},
		"an unknown kind":  {Kind: 9, First: vote(1, 1), Second: vote(1, 2)},
		"of a stranger":    {Kind: TwoConsensuses, First: head(9, 3), Second: head(9, 4)},
		"two consensuses":  {Kind: TwoVotes, First: head(2, 3), Second: head(2, 4)},
		"without a second": {Kind: TwoVotes, First: vote(1, 1)},
	} {
		if err := CheckEvidence(network, &e); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
	for name, data := range map[string][]byte{ // order: each on its own
		"nothing": {}, "garbage": {0xff}, "bytes behind": append(bytes.Clone(data), 0), "too much": make([]byte, MaxEvidence+1),
		"too many": must[[]byte](t)(AppendEvidence(nil, make([]Evidence, maxEvidence+1))),
		"too long": must[[]byte](t)(AppendEvidence(nil, []Evidence{{First: make([]byte, maxEvidenceHalf+1)}})),
	} {
		if _, err := DecodeEvidence(data); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func FuzzDecodeVoteHead(f *testing.F) {
	network := testNetwork(f, 4)
	sealed, _ := sealVote(f, network, testVote(f, network, 1, 1, 2), 1)
	f.Add(must[cert.Document](f)(cert.Parse(sealed, cert.VoteDocument, maxVoteHeadBody)).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		if h, err := decodeVoteHead(body); err == nil {
			same(t, body)(h.body())
		}
	})
}

func FuzzDecodeVote(f *testing.F) {
	network := testNetwork(f, 4)
	v := testVote(f, network, 1, 1, 2, 3)
	f.Add(must[[]byte](f)(v.body()))
	v.Measured, v.Previous, v.Extensions = []uint32{1, 2, 3}, []byte("a head"), Extensions{99: {0x01}}
	f.Add(must[[]byte](f)(v.body()))
	f.Fuzz(func(t *testing.T, body []byte) {
		if v, err := decodeVote(body, network); err == nil {
			same(t, body)(v.body())
		}
	})
}

func FuzzDecodeEvidence(f *testing.F) {
	f.Add(must[[]byte](f)(AppendEvidence(nil, []Evidence{{Kind: TwoVotes, First: []byte("one"), Second: []byte("two")}})))
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := DecodeEvidence(data); err == nil {
			same(t, data)(AppendEvidence(nil, list))
		}
	})
}

// FuzzOpenVoteHead covers the way from the wire: the envelope with everything in it.
func FuzzOpenVoteHead(f *testing.F) {
	network := testNetwork(f, 4)
	sealed, _ := sealVote(f, network, testVote(f, network, 1, 1, 2), 1)
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, sealed []byte) { _, _, _ = OpenVoteHead(sealed, network) })
}
