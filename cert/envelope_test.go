package cert

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func seal(t testing.TB, kind DocumentType, body []byte, signers ...Signer) []byte {
	t.Helper()
	sealed, err := Seal(kind, testNetwork, body, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestDocumentOpensForItsTypeNetworkAndTime(t *testing.T) {
	t.Parallel()
	a, b := signer(t, 1, testNow), signer(t, 2, testNow)
	body := []byte("a body")
	sealed := seal(t, ConsensusDocument, body, a, b)
	doc, err := Open(sealed, testNetwork, testNow, ConsensusDocument, 6)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(doc.Body, body) || doc.Type != ConsensusDocument || doc.Digest != DigestOf(ConsensusDocument, testNetwork, body) {
		t.Errorf("opened another document: %+v", doc)
	}
	ids := doc.Signers()
	if len(ids) != 2 || ids[0].Compare(ids[1]) >= 0 || (ids[0] != a.Identity() && ids[1] != a.Identity()) {
		t.Errorf("signers %v", ids)
	}
	for _, tt := range []struct {
		name    string
		sealed  []byte
		network NetworkID
		now     time.Time
		want    DocumentType
		max     int
		err     error
	}{
		{"another network", sealed, NetworkID{1}, testNow, ConsensusDocument, 6, ErrSignature},
		{"another type", sealed, testNetwork, testNow, VoteDocument, 6, ErrWrongType},
		{"the type altered", append([]byte{1, byte(VoteDocument)}, sealed[2:]...), testNetwork, testNow, VoteDocument, 6, ErrSignature},
		{"too late", sealed, testNetwork, testNow.Add(SigningLifetime), ConsensusDocument, 6, ErrExpired},
		{"too early", sealed, testNetwork, testNow.Add(-BackDate - 1), ConsensusDocument, 6, ErrNotYetValid},
		{"a body that is too large", sealed, testNetwork, testNow, ConsensusDocument, 5, ErrTooLarge},
		{"a negative bound", sealed, testNetwork, testNow, ConsensusDocument, -1, ErrTooLarge},
		{"a byte more", append(bytes.Clone(sealed), 0), testNetwork, testNow, ConsensusDocument, 7, ErrMalformed},
		{"a byte less", sealed[:len(sealed)-1], testNetwork, testNow, ConsensusDocument, 6, ErrMalformed},
		{"another version", append([]byte{2}, sealed[1:]...), testNetwork, testNow, ConsensusDocument, 6, ErrVersion},
		{"no signers", append([]byte{1, 3, 0}, sealed[3:]...), testNetwork, testNow, ConsensusDocument, 6, ErrSigners},
		{"too many signers", append([]byte{1, 3, 33}, sealed[3:]...), testNetwork, testNow, ConsensusDocument, 6, ErrSigners},
		{"an unknown type", append([]byte{1, 77}, sealed[2:]...), testNetwork, testNow, 77, 6, ErrSigners},
		{"signers swapped", swapSigners(sealed), testNetwork, testNow, ConsensusDocument, 6, ErrSigners},
		{"one signer twice", doubleSigner(sealed), testNetwork, testNow, ConsensusDocument, 6, ErrSigners},
	} {
		doc, err := Open(tt.sealed, tt.network, tt.now, tt.want, tt.max)
		if !errors.Is(err, tt.err) || doc.Body != nil || doc.Endorsements != nil {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

func swapSigners(sealed []byte) []byte {
	out := bytes.Clone(sealed[:3])
	out = append(out, sealed[3+EndorsementSize:3+2*EndorsementSize]...)
	out = append(out, sealed[3:3+EndorsementSize]...)
	return append(out, sealed[3+2*EndorsementSize:]...)
}

func doubleSigner(sealed []byte) []byte {
	out := bytes.Clone(sealed)
	copy(out[3+EndorsementSize:], sealed[3:3+EndorsementSize])
	return out
}

func TestOneSignerDocumentsHaveOneSigner(t *testing.T) {
	t.Parallel()
	a, b := signer(t, 1, testNow), signer(t, 2, testNow)
	for _, kind := range []DocumentType{OnionKeyDocument, DescriptorDocument, RumourDocument, TicketDocument} {
		if _, err := Seal(kind, testNetwork, nil, a, b); !errors.Is(err, ErrSigners) {
			t.Errorf("%s sealed by two: %v", kind, err)
		}
		two := seal(t, ConsensusDocument, nil, a, b)
		two[1] = byte(kind)
		if _, err := Open(two, testNetwork, testNow, kind, 0); !errors.Is(err, ErrSigners) {
			t.Errorf("%s opened with two: %v", kind, err)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	a := signer(t, 1, testNow)
	if _, err := Seal(ConsensusDocument, testNetwork, nil); !errors.Is(err, ErrSigners) {
		t.Errorf("without signers: %v", err)
	}
	if _, err := Seal(ConsensusDocument, testNetwork, nil, a, a); !errors.Is(err, ErrSigners) {
		t.Errorf("twice by one identity: %v", err)
	}
	if _, err := Seal(99, testNetwork, nil, a); !errors.Is(err, ErrSigners) {
		t.Errorf("an unknown type: %v", err)
	}
	if _, err := Seal(ConsensusDocument, testNetwork, nil, Signer{a.Certificate, NewSigningKey(seed(77))}); !errors.Is(err, ErrIssuer) {
		t.Errorf("with another key than certified: %v", err)
	}
	if _, err := Seal(ConsensusDocument, testNetwork, nil, Signer{Certificate: a.Certificate}); !errors.Is(err, ErrIssuer) {
		t.Errorf("without a key: %v", err)
	}
}

// TestEndorsementsMadeApartJoin: authorities sign one after the other and in any order, and the result is the same.
func TestEndorsementsMadeApartJoin(t *testing.T) {
	t.Parallel()
	body := []byte("a body")
	var parts []Endorsement
	var signers []Signer
	for n := range byte(MaxSigners) {
		s := signer(t, n, testNow)
		e, err := Endorse(ConsensusDocument, testNetwork, body, s)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := e.Verify(ConsensusDocument, testNetwork, body, testNow); err != nil || id != s.Identity() {
			t.Errorf("endorsement: %v, %v", id, err)
		}
		if _, err := e.Verify(VoteDocument, testNetwork, body, testNow); !errors.Is(err, ErrSignature) {
			t.Errorf("endorsement of another type: %v", err)
		}
		again, err := DecodeEndorsement(e.AppendTo(nil))
		if err != nil || again.Identity() != s.Identity() {
			t.Errorf("decoding an endorsement: %v", err)
		}
		parts = append([]Endorsement{again}, parts...)
		signers = append(signers, s)
	}
	joined, err := Join(ConsensusDocument, body, parts...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(joined, seal(t, ConsensusDocument, body, signers...)) {
		t.Error("joined and sealed envelopes differ")
	}
	if _, err := Open(joined, testNetwork, testNow, ConsensusDocument, len(body)); err != nil {
		t.Error(err)
	}
	if _, err := Join(ConsensusDocument, body, append(parts, parts[0])...); !errors.Is(err, ErrSigners) {
		t.Errorf("33 signers: %v", err)
	}
}

func TestDetachedSignaturesAttachToTheirBodyOnly(t *testing.T) {
	t.Parallel()
	body := []byte("a body")
	sealed := seal(t, NetworkDocument, body, signer(t, 1, testNow))
	detached, err := Detach(sealed, body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Attach(detached, body), sealed) {
		t.Error("detach then attach is not the identity")
	}
	if _, err := Open(Attach(detached, []byte("another")), testNetwork, testNow, NetworkDocument, 100); !errors.Is(err, ErrSignature) {
		t.Errorf("another body: %v", err)
	}
	for _, other := range [][]byte{nil, []byte("b body"), []byte("body"), bytes.Repeat([]byte{1}, 1000)} {
		if _, err := Detach(sealed, other); !errors.Is(err, ErrMalformed) {
			t.Errorf("Detach with the body %q: %v", other, err)
		}
	}
}

// TestEveryBitOfAnEnvelopeMatters flips each bit: no altered envelope opens.
func TestEveryBitOfAnEnvelopeMatters(t *testing.T) {
	t.Parallel()
	sealed := seal(t, DescriptorDocument, []byte("a body"), signer(t, 1, testNow))
	for i := range len(sealed) * 8 {
		altered := bytes.Clone(sealed)
		altered[i/8] ^= 1 << (i % 8)
		if _, err := Open(altered, testNetwork, testNow, DescriptorDocument, 100); err == nil {
			t.Errorf("bit %d of byte %d does not matter", i%8, i/8)
		}
	}
	for n := range sealed {
		if _, err := Open(sealed[:n], testNetwork, testNow, DescriptorDocument, 100); err == nil {
			t.Errorf("opened %d bytes of %d", n, len(sealed))
		}
	}
}

// TestOpenAllocatesByWhatItReceived: a length that the sender invented costs nothing.
func TestOpenAllocatesByWhatItReceived(t *testing.T) {
	t.Parallel()
	sealed := seal(t, DescriptorDocument, nil, signer(t, 1, testNow))
	copy(sealed[len(sealed)-4:], []byte{0x7f, 0xff, 0xff, 0xff})
	if _, err := Open(sealed, testNetwork, testNow, DescriptorDocument, 1<<31-1); !errors.Is(err, ErrMalformed) {
		t.Errorf("%v, want ErrMalformed", err)
	}
}

func FuzzOpen(f *testing.F) {
	a, b := signer(f, 1, testNow), signer(f, 2, testNow)
	f.Add(seal(f, ConsensusDocument, []byte("a body"), a, b))
	f.Add(seal(f, ConsensusDocument, nil, a))
	f.Fuzz(func(t *testing.T, data []byte) {
		if doc, err := parseEnvelope(data, ConsensusDocument, 1<<16); err == nil {
			again, err := Join(ConsensusDocument, doc.Body, doc.Endorsements...)
			if err != nil || !bytes.Equal(again, data) {
				t.Errorf("decode then encode: %v\n from %x\n   to %x", err, data, again)
			}
		}
		_, _ = Open(data, testNetwork, testNow, ConsensusDocument, 1<<16)
	})
}

func FuzzDecodeEndorsement(f *testing.F) {
	e, err := Endorse(ConsensusDocument, testNetwork, []byte("a body"), signer(f, 1, testNow))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.AppendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := DecodeEndorsement(data); err == nil && !bytes.Equal(e.AppendTo(nil), data) {
			t.Errorf("decode then encode\n from %x\n   to %x", data, e.AppendTo(nil))
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	sealed := seal(b, DescriptorDocument, make([]byte, 1000), signer(b, 1, testNow))
	for b.Loop() {
		if _, err := Open(sealed, testNetwork, testNow, DescriptorDocument, 1000); err != nil {
			b.Fatal(err)
		}
	}
}
