package cert

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	testNow     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	testNetwork = NetworkID{0: 0xce, 1: 0xba, 31: 1}
)

// seed returns a seed that differs for every n.
func seed(n byte) (s [32]byte) {
	for i := range s {
		s[i] = n ^ byte(i)
	}
	return s
}

func signer(t testing.TB, n byte, now time.Time) Signer {
	t.Helper()
	key := NewSigningKey(seed(n + 100))
	c, err := NewIdentityKey(seed(n)).Certify(testNetwork, key.Public(), now, 0)
	if err != nil {
		t.Fatal(err)
	}
	return Signer{c, key}
}

func chain(t testing.TB, n byte, now time.Time) Chain {
	t.Helper()
	s := signer(t, n, now)
	link, err := s.Key.Certify(testNetwork, NewLinkKey(seed(n+200)).Public(), now, 0)
	if err != nil {
		t.Fatal(err)
	}
	return Chain{s.Certificate, link}
}

// golden compares got with the hexadecimal digits in testdata/name.hex. The wire forms are promises to other
// versions of the program, so a difference is a new protocol version and never just an update of the file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; the bytes are now:\n%x", err, got)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the wire form changed\n got %x\nwant %x", name, got, want)
	}
}

func TestWireFormsAreThePublishedOnes(t *testing.T) {
	t.Parallel()
	c := chain(t, 1, testNow)
	golden(t, "chain", c.AppendTo(nil))
	sealed, err := Seal(ConsensusDocument, testNetwork, []byte("a body"), signer(t, 1, testNow), signer(t, 2, testNow))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "envelope", sealed)
	if got, want := DigestOf(ConsensusDocument, testNetwork, []byte("a body")).String(),
		"54d9a0a907364a57f3492f582057590c74ab835720702575fd4b25638e620975"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if len(c.Signing.AppendTo(nil)) != CertificateSize || len(c.AppendTo(nil)) != ChainSize {
		t.Errorf("a certificate has %d bytes, CertificateSize says %d", len(c.Signing.AppendTo(nil)), CertificateSize)
	}
	if len(sealed) != EnvelopeSize(6, 2) {
		t.Errorf("an envelope has %d bytes, EnvelopeSize says %d", len(sealed), EnvelopeSize(6, 2))
	}
}

func TestNamesParseWhatTheyPrint(t *testing.T) {
	t.Parallel()
	id := NewIdentityKey(seed(7)).Identity()
	got, err := ParseIdentity(id.String())
	if err != nil || got != id {
		t.Errorf("ParseIdentity(String()) = %v, %v", got, err)
	}
	if got, err := ParseIdentity(strings.ToUpper(id.String())); err != nil || got != id {
		t.Errorf("upper case: %v, %v", got, err)
	}
	if id.Short() != id.String()[:8] {
		t.Errorf("Short() = %s", id.Short())
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("g", 64)} {
		if _, err := ParseIdentity(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseIdentity(%q) = %v, want ErrMalformed", bad, err)
		}
		if _, err := ParseNetworkID(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseNetworkID(%q) = %v, want ErrMalformed", bad, err)
		}
		if _, err := ParseDigest(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseDigest(%q) = %v, want ErrMalformed", bad, err)
		}
	}
	var other Identity
	text, _ := id.MarshalText()
	if err := other.UnmarshalText(text); err != nil || other.Compare(id) != 0 || other.IsZero() {
		t.Errorf("UnmarshalText: %v, %v", other, err)
	}
	var network NetworkID
	text, _ = testNetwork.MarshalText()
	if err := network.UnmarshalText(text); err != nil || network.Compare(testNetwork) != 0 || network.Short() != "ceba0000" {
		t.Errorf("UnmarshalText: %v, %v", network, err)
	}
	var digest Digest
	text, _ = Digest{1}.MarshalText()
	if err := digest.UnmarshalText(text); err != nil || digest.Compare(Digest{1}) != 0 || digest.Short() != "01000000" {
		t.Errorf("UnmarshalText: %v, %v", digest, err)
	}
	if !(NetworkID{}).IsZero() || !(Digest{}).IsZero() || !(Identity{}).IsZero() {
		t.Error("a zero value is not zero")
	}
}

func TestPrintingAKeyNeverShowsItsPrivateHalf(t *testing.T) {
	t.Parallel()
	s := seed(9)
	secret := hex.EncodeToString(s[:4])
	for _, key := range []any{NewIdentityKey(s), NewSigningKey(s), NewLinkKey(s), NewFamilyKey(s), &Signer{Key: NewSigningKey(s)}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			text := fmt.Sprintf(verb, key)
			if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprint(s[:4])) ||
				strings.Contains(text, fmt.Sprintf("%d %d", s[1], s[2])) {
				t.Errorf("%s of %T shows the seed: %s", verb, key, text)
			}
		}
	}
	if got := fmt.Sprint(IdentityKey{}, SigningKey{}, LinkKey{}); got != "no identity key no signing key no link key" {
		t.Errorf("zero keys print as %q", got)
	}
}

func TestKeysGrowFromTheirSeeds(t *testing.T) {
	t.Parallel()
	id, signing, link := NewIdentityKey(seed(3)), NewSigningKey(seed(3)), NewLinkKey(seed(3))
	public := id.Identity()
	if id.Seed() != seed(3) || signing.Seed() != seed(3) || !bytes.Equal(link.Private().Seed(), id.private.Seed()) {
		t.Error("a key does not give back its seed")
	}
	if !bytes.Equal(public[:], signing.Public()) || !bytes.Equal(public[:], link.Public()) {
		t.Error("one seed, different keys")
	}
	if id.IsZero() || signing.IsZero() || link.IsZero() || !(IdentityKey{}).IsZero() || !(SigningKey{}).IsZero() || !(LinkKey{}).IsZero() {
		t.Error("IsZero is wrong")
	}
}

func TestChainIsAcceptedAndNamesItsKeys(t *testing.T) {
	t.Parallel()
	c := chain(t, 1, testNow)
	decoded, err := DecodeChain(c.AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	id, signing, link, err := decoded.Verify(testNetwork, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if id != NewIdentityKey(seed(1)).Identity() || !signing.Equal(NewSigningKey(seed(101)).Public()) || !link.Equal(NewLinkKey(seed(201)).Public()) {
		t.Error("the chain names other keys than it was made of")
	}
	if !decoded.Signing.Issued().Equal(testNow) {
		t.Errorf("issued %v, want %v", decoded.Signing.Issued(), testNow)
	}
}

func TestCertificateIsValidFromADayBeforeUntilItsEnd(t *testing.T) {
	t.Parallel()
	c := chain(t, 1, testNow)
	for _, tt := range []struct {
		name string
		at   time.Duration
		want error
	}{
		{"a second before the back-dating", -BackDate - time.Second, ErrNotYetValid},
		{"a nanosecond before the back-dating", -BackDate - 1, ErrNotYetValid},
		{"the first moment", -BackDate, nil},
		{"now", 0, nil},
		{"the last moment", MaxLink - 1, nil},
		{"the end of the link certificate", MaxLink, ErrExpired},
		{"the end of the signing certificate", SigningLifetime, ErrExpired},
	} {
		_, _, _, err := c.Verify(testNetwork, testNow.Add(tt.at))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		var v *ValidityError
		if tt.want != nil {
			if !errors.As(err, &v) || !v.Now.Equal(testNow.Add(tt.at)) || v.From.IsZero() || v.Until.IsZero() {
				t.Errorf("%s: the error does not carry the dates: %#v", tt.name, err)
			} else if !strings.Contains(v.Error(), "clock here says") || errors.Is(err, ErrExpired) == errors.Is(err, ErrNotYetValid) {
				t.Errorf("%s: %v", tt.name, v)
			}
		}
	}
}

func TestLifetimesAreBoundedByIssuerAndVerifier(t *testing.T) {
	t.Parallel()
	id, signing := NewIdentityKey(seed(1)), NewSigningKey(seed(2))
	for _, d := range []time.Duration{-time.Hour, time.Millisecond, MaxSigning + time.Second} {
		if _, err := id.Certify(testNetwork, signing.Public(), testNow, d); !errors.Is(err, ErrLifetime) {
			t.Errorf("signing certificate for %v: %v, want ErrLifetime", d, err)
		}
	}
	if _, err := signing.Certify(testNetwork, signing.Public(), testNow, MaxLink+time.Second); !errors.Is(err, ErrLifetime) {
		t.Errorf("link certificate beyond the maximum: %v, want ErrLifetime", err)
	}
	if _, err := id.Certify(testNetwork, signing.Public(), time.Unix(0, 0), 0); !errors.Is(err, ErrLifetime) {
		t.Errorf("a certificate from before 1970: %v, want ErrLifetime", err)
	}
	longest, err := id.Certify(testNetwork, signing.Public(), testNow, MaxSigning)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := longest.VerifySigning(testNetwork, testNow); err != nil {
		t.Errorf("the longest certificate: %v", err)
	}
	// What a dishonest issuer could sign.
	longest.Until = longest.Until.Add(time.Second)
	resign(&longest, id)
	if _, _, err := longest.VerifySigning(testNetwork, testNow); !errors.Is(err, ErrLifetime) {
		t.Errorf("a second too long: %v, want ErrLifetime", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	good := chain(t, 1, testNow)
	other := chain(t, 50, testNow)
	for _, tt := range []struct {
		name  string
		chain Chain
		net   NetworkID
		want  error
	}{
		{"another network", good, NetworkID{1}, ErrSignature},
		{"certificates in the wrong order", Chain{good.Link, good.Signing}, testNetwork, ErrWrongType},
		{"two signing certificates", Chain{good.Signing, good.Signing}, testNetwork, ErrIssuer},
		{"a link certificate by another signing key", Chain{good.Signing, other.Link}, testNetwork, ErrIssuer},
		{"nothing", Chain{}, testNetwork, ErrWrongType},
	} {
		if id, _, _, err := tt.chain.Verify(tt.net, testNow); !errors.Is(err, tt.want) || !id.IsZero() {
			t.Errorf("%s: %v %v, want %v", tt.name, id, err, tt.want)
		}
	}
}

// TestEveryBitOfAChainMatters flips each bit: no altered chain verifies.
func TestEveryBitOfAChainMatters(t *testing.T) {
	t.Parallel()
	wire := chain(t, 1, testNow).AppendTo(nil)
	for i := range len(wire) * 8 {
		altered := bytes.Clone(wire)
		altered[i/8] ^= 1 << (i % 8)
		c, err := DecodeChain(altered)
		if err == nil {
			_, _, _, err = c.Verify(testNetwork, testNow)
		}
		if err == nil {
			t.Errorf("bit %d of byte %d does not matter", i%8, i/8)
		}
	}
}

func TestDecodeRefusesTruncatedAndTrailing(t *testing.T) {
	t.Parallel()
	wire := chain(t, 1, testNow).Signing.AppendTo(nil)
	for n := range wire {
		if _, err := DecodeCertificate(wire[:n]); err == nil {
			t.Errorf("accepted %d bytes of %d", n, len(wire))
		}
	}
	if _, err := DecodeCertificate(append(bytes.Clone(wire), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("trailing byte: %v", err)
	}
	alter := func(at int, b ...byte) []byte {
		w := bytes.Clone(wire)
		copy(w[at:], b)
		return w
	}
	for _, tt := range []struct {
		name string
		wire []byte
		want error
	}{
		{"version 2", alter(0, 2), ErrVersion},
		{"type 0", alter(1, 0), ErrWrongType},
		{"type 3", alter(1, 3), ErrWrongType},
		{"subject algorithm 2", alter(2, 0, 2), ErrAlgorithm},
		{"subject length 31", alter(4, 0, 31), ErrMalformed},
		{"from after until", alter(38, 0, 0, 1), ErrMalformed},
		{"until beyond the year 9999", alter(46, 0x7f), ErrMalformed},
		{"signature algorithm 9", alter(90, 0, 9), ErrAlgorithm},
		{"signature length 63", alter(92, 0, 63), ErrMalformed},
	} {
		if _, err := DecodeCertificate(tt.wire); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestPointsOfSmallOrderAreNoKeys: under the neutral element the signature (R = neutral, S = 0) holds for every
// message, so without the check anybody could certify in its name.
func TestPointsOfSmallOrderAreNoKeys(t *testing.T) {
	t.Parallel()
	for _, y := range smallOrder {
		for _, sign := range []byte{0, 0x80} {
			y := y
			y[31] |= sign
			if _, err := NewIdentityKey(seed(1)).Certify(testNetwork, y[:], testNow, 0); !errors.Is(err, ErrWeakKey) {
				t.Errorf("%x: certified: %v", y, err)
			}
			forged := chain(t, 1, testNow).Signing
			forged.Issuer = KeyOf(y[:])
			forged.Signature.Bytes = make([]byte, 64)
			forged.Signature.Bytes[0] = 1
			if _, _, err := forged.VerifySigning(testNetwork, testNow); !errors.Is(err, ErrWeakKey) {
				t.Errorf("%x: accepted as an issuer: %v", y, err)
			}
		}
	}
}

func resign(c *Certificate, id IdentityKey) {
	c.Signature.Bytes = ed25519.Sign(id.private, c.signedMessage(testNetwork))
}

func FuzzDecodeCertificate(f *testing.F) {
	c := chain(f, 1, testNow)
	f.Add(c.Signing.AppendTo(nil))
	f.Add(c.Link.AppendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCertificate(data)
		if err != nil {
			return
		}
		if again := c.AppendTo(nil); !bytes.Equal(again, data) {
			t.Errorf("decode then encode\n from %x\n   to %x", data, again)
		}
		_, _, _ = c.VerifySigning(testNetwork, testNow)
	})
}

func FuzzDecodeChain(f *testing.F) {
	f.Add(chain(f, 1, testNow).AppendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeChain(data)
		if err != nil {
			return
		}
		if again := c.AppendTo(nil); !bytes.Equal(again, data) {
			t.Errorf("decode then encode\n from %x\n   to %x", data, again)
		}
		if _, _, _, err := c.Verify(testNetwork, testNow); err == nil && !slices.Equal(data, chain(t, 1, testNow).AppendTo(nil)) {
			t.Error("a chain that was never made verifies")
		}
	})
}
