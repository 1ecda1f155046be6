package directory

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
)

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testSeed returns a seed that differs for every kind and n.
func testSeed(kind byte, n int) (s [32]byte) {
	s[0], s[1], s[2] = kind, byte(n), byte(n>>8)
	return s
}

var testID = cert.NetworkID(testSeed('n', 1))

func testSigner(t testing.TB, n int) cert.Signer {
	t.Helper()
	key := cert.NewSigningKey(testSeed('s', n))
	c, err := cert.NewIdentityKey(testSeed('i', n)).Certify(testID, key.Public(), testNow, 0)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Signer{Certificate: c, Key: key}
}

func testIdentity(n int) cert.Identity { return cert.NewIdentityKey(testSeed('i', n)).Identity() }

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// testContents returns a network of n authorities that is not signed.
func testContents(n int) Network {
	c := Network{Name: "a test", ID: testID, Created: testNow, Parameters: Parameters{IntervalMillis: 5000}}
	for i := range n {
		c.Authorities = append(c.Authorities, Contact{testIdentity(i), []netip.AddrPort{addr(fmt.Sprintf("5.%d.0.1:9001", i))}})
	}
	c.Bootstrap = []Contact{{testIdentity(100), []netip.AddrPort{addr("6.0.0.1:9001"), addr("[2a00::1]:9001")}}}
	return c
}

func testSigners(t testing.TB, n int) []cert.Signer {
	signers := make([]cert.Signer, n)
	for i := range signers {
		signers[i] = testSigner(t, i)
	}
	return signers
}

// testNetwork returns a signed network of n authorities.
func testNetwork(t testing.TB, n int) *Network {
	t.Helper()
	network, err := NewNetwork(testContents(n), testSigners(t, n)...)
	if err != nil {
		t.Fatal(err)
	}
	return network
}

func testDescriptor(t testing.TB, n int) Descriptor {
	t.Helper()
	policy, err := ParsePolicy("reject 10.0.0.0/8:*, accept *:80, accept *:443")
	if err != nil {
		t.Fatal(err)
	}
	return Descriptor{
		Identity:      testIdentity(n),
		OnionKey:      testSeed('b', n),
		OnionKeyUntil: testNow.Add(7 * 24 * time.Hour),
		Addresses:     []netip.AddrPort{addr("7.1.0.1:9001"), addr("[2a00::7]:9001")},
		Policy:        policy,
		Bandwidth:     1 << 20,
		Families:      []cert.Membership{cert.NewFamilyKey(testSeed('f', 1)).Admit(testID, testIdentity(n))},
		Contact:       "operator <op@example.net>",
		Nickname:      "relay-7",
		Protocols:     OurProtocols(),
		Software:      "cepa 0.1",
		Published:     testNow,
		IPv6Exit:      true,
	}
}

// testRelays returns n relays as a consensus would list them.
func testRelays(t testing.TB, n int) []Relay {
	t.Helper()
	var summaries []PortSummary
	for _, text := range []string{"none", "web", "reduced", "all"} {
		p, err := ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		summaries = append(summaries, p.Summary(text == "all"))
	}
	relays := make([]Relay, n)
	for i := range relays {
		r := &relays[i]
		*r = Relay{
			Identity:  cert.Identity(testSeed('r', i)),
			OnionKey:  testSeed('b', i),
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 1}), 9001)},
			Flags:     FlagRunning | FlagValid | FlagFast,
			Weight:    uint32(1000 + i),
			Ports:     summaries[i%len(summaries)],
			Protocols: OurProtocols(),
			Nickname:  fmt.Sprintf("relay%d", i),
		}
		// Digests look random; so must what stands for keys, for the size to be right.
		copy(r.Identity[8:], r.OnionKey[:])
		if i%5 == 0 {
			r.Families = []cert.FamilyID{cert.FamilyID(testSeed('f', i/10))}
		}
		if i%3 == 0 {
			r.Addresses = append(r.Addresses, addr("[2a00::1]:9001"))
		}
	}
	return relays
}

// golden compares got with the hexadecimal digits in testdata/name.hex. Formats are promises to other versions of
// the program: a difference is a new version of the protocol.
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
		t.Errorf("%s: the form changed\n got %x\nwant %x", name, got, want)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestFormsAreThePublishedOnes(t *testing.T) {
	t.Parallel()
	bytesOf := must[[]byte](t)
	network := testNetwork(t, 4)
	d := testDescriptor(t, 7)
	golden(t, "descriptor", bytesOf(d.body()))
	golden(t, "descriptor_sealed", bytesOf(SealDescriptor(network, d, testSigner(t, 7))))
	golden(t, "onionkey", bytesOf(SealOnionKey(testID, OnionKey{Key: testSeed('b', 7), Until: testNow.Add(time.Hour)}, testSigner(t, 7))))
	rumour := Rumour{Descriptor: cert.Digest{1}, Address: addr("7.1.0.1:9001"), Published: testNow, Expires: testNow.Add(time.Hour)}
	golden(t, "rumour", bytesOf(SealRumour(network, rumour, testSigner(t, 7))))
	golden(t, "network", bytesOf(network.body()))
	head, body := build(t, network, testInput(t, 5))
	golden(t, "consensus_head", head)
	golden(t, "consensus_body", body)
	for name, r := range map[string]Request{
		"request_head":       {Kind: AskHead},
		"request_body":       {Kind: AskBody, Digest: cert.Digest{1}},
		"request_descriptor": {Kind: AskDescriptor, Digest: cert.Digest{2}},
		"request_summary":    {Kind: AskSummary},
		"request_bucket":     {Kind: AskBucket, Bucket: 0},
		"request_announce":   {Kind: Announce, Rumour: []byte("a rumour")},
	} {
		golden(t, name, bytesOf(r.AppendTo(nil)))
	}
	golden(t, "answer", AppendAnswer(nil, StatusOK, []byte("a document")))
}

func TestDescriptorComesBack(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	d := testDescriptor(t, 7)
	d.Extensions = Extensions{99: {0x01}, -1: {0x63, 'a', 'b', 'c'}}
	sealed := must[[]byte](t)(SealDescriptor(network, d, testSigner(t, 7)))
	got := must[*Descriptor](t)(OpenDescriptor(sealed, network, testNow))
	if !got.Issued.Equal(testNow) || got.Digest.IsZero() || len(got.Extensions) != 2 {
		t.Errorf("issued %v, digest %v, extensions %v", got.Issued, got.Digest, got.Extensions)
	}
	if !got.Policy.Equal(d.Policy) || got.Nickname != d.Nickname || !slices.Equal(got.Addresses, d.Addresses) ||
		!got.Published.Equal(d.Published) || !got.IPv6Exit || got.OnionKey != d.OnionKey || len(got.FamilyIDs()) != 1 ||
		got.Contact != d.Contact || got.Software != d.Software || got.Bandwidth != d.Bandwidth || !slices.Equal(got.Protocols, d.Protocols) {
		t.Errorf("came back as %+v", got)
	}
	again := must[[]byte](t)(got.body())
	if !bytes.Equal(again, must[[]byte](t)(d.body())) {
		t.Error("it does not re-encode to its own bytes")
	}
}

func TestDescriptorRefused(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	long := strings.Repeat("x", 600)
	for _, tt := range []struct {
		name   string
		change func(*Descriptor)
		want   error
	}{
		{"no address", func(d *Descriptor) { d.Addresses = nil }, ErrInvalid},
		{"nine addresses", func(d *Descriptor) {
			for i := range 9 {
				d.Addresses = append(d.Addresses, addr(fmt.Sprintf("7.1.0.%d:1", i+2)))
			}
		}, ErrInvalid},
		{"a private address", func(d *Descriptor) { d.Addresses[0] = addr("10.0.0.1:1") }, ErrInvalid},
		{"port 0", func(d *Descriptor) { d.Addresses[0] = addr("7.0.0.1:0") }, ErrInvalid},
		{"a mapped address", func(d *Descriptor) { d.Addresses[0] = addr("[::ffff:7.0.0.1]:1") }, ErrInvalid},
		{"an address twice", func(d *Descriptor) { d.Addresses[0] = d.Addresses[1] }, ErrInvalid},
		{"no onion key", func(d *Descriptor) { d.OnionKey = [32]byte{} }, ErrInvalid},
		{"an onion key that is over", func(d *Descriptor) { d.OnionKeyUntil = d.Published }, ErrInvalid},
		{"an onion key for ever", func(d *Descriptor) { d.OnionKeyUntil = d.Published.Add(1000 * time.Hour) }, ErrInvalid},
		{"a long contact", func(d *Descriptor) { d.Contact = long }, ErrTooLarge},
		{"a contact that moves the cursor", func(d *Descriptor) { d.Contact = "\x1b[2J" }, ErrInvalid},
		{"a contact that turns the text", func(d *Descriptor) { d.Contact = "\u202e" }, ErrInvalid},
		{"a contact that is no text", func(d *Descriptor) { d.Contact = "\xff" }, ErrInvalid},
		{"a long nickname", func(d *Descriptor) { d.Nickname = long[:20] }, ErrInvalid},
		{"a nickname with a space", func(d *Descriptor) { d.Nickname = "a b" }, ErrInvalid},
		{"a long software", func(d *Descriptor) { d.Software = long[:65] }, ErrTooLarge},
		{"protocols out of order", func(d *Descriptor) { d.Protocols = Protocols{2, 1} }, ErrNotCanonical},
		{"too many protocols", func(d *Descriptor) {
			d.Protocols = nil
			for i := range Protocol(65) {
				d.Protocols = append(d.Protocols, i)
			}
		}, ErrTooLarge},
		{"a family that did not admit it", func(d *Descriptor) { d.Families[0].Family[0] ^= 1 }, cert.ErrSignature},
		{"a family twice", func(d *Descriptor) { d.Families = append(d.Families, d.Families[0]) }, ErrNotCanonical},
		{"five families", func(d *Descriptor) {
			for i := range 4 {
				d.Families = append(d.Families, cert.NewFamilyKey(testSeed('f', 20+i)).Admit(testID, d.Identity))
			}
		}, ErrInvalid},
		{"another's identity", func(d *Descriptor) { d.Identity = testIdentity(8) }, ErrSigners},
		{"a time that is no whole millisecond", func(d *Descriptor) { d.Published = d.Published.Add(1) }, ErrInvalid},
		{"a large extension", func(d *Descriptor) {
			d.Extensions = Extensions{99: append([]byte{0x59, 0x40, 0x00}, make([]byte, 0x4000)...)}
		}, ErrTooLarge},
		{"an extension that is not canonical", func(d *Descriptor) { d.Extensions = Extensions{99: {0x18, 0x01}} }, ErrNotCanonical},
		{"an extension that is a field", func(d *Descriptor) { d.Extensions = Extensions{1: {0x01}} }, ErrInvalid},
		{"an extension that is no CBOR", func(d *Descriptor) { d.Extensions = Extensions{99: {0xff}} }, ErrMalformed},
	} {
		d := testDescriptor(t, 7)
		tt.change(&d)
		if _, err := SealDescriptor(network, d, testSigner(t, 7)); !errors.Is(err, tt.want) {
			t.Errorf("sealing with %s: %v, want %v", tt.name, err, tt.want)
		}
		// What a dishonest relay could sign.
		body, err := d.body()
		if err != nil || len(body) > MaxDescriptor || d.Published.Nanosecond() == 1 {
			continue
		}
		sealed := must[[]byte](t)(cert.Seal(cert.DescriptorDocument, testID, body, testSigner(t, 7)))
		if _, err := OpenDescriptor(sealed, network, testNow); !errors.Is(err, tt.want) && !(d.Contact == "\xff" && errors.Is(err, ErrMalformed)) {
			t.Errorf("opening with %s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestDescriptorPrivateAddressInTestNetworkOnly(t *testing.T) {
	t.Parallel()
	contents := testContents(1)
	contents.Test = true
	network := must[*Network](t)(NewNetwork(contents, testSigner(t, 0)))
	d := testDescriptor(t, 7)
	d.Addresses = []netip.AddrPort{addr("127.1.0.1:9001")}
	sealed := must[[]byte](t)(SealDescriptor(network, d, testSigner(t, 7)))
	if _, err := OpenDescriptor(sealed, network, testNow); err != nil {
		t.Error(err)
	}
	if _, err := OpenDescriptor(sealed, testNetwork(t, 1), testNow); !errors.Is(err, ErrInvalid) {
		t.Errorf("in a network that is no test: %v", err)
	}
}

func TestDescriptorHasItsTime(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	sealed := must[[]byte](t)(SealDescriptor(network, testDescriptor(t, 7), testSigner(t, 7)))
	for _, tt := range []struct {
		at   time.Duration
		want error
		news bool
	}{
		{-DescriptorClockSkew - 1, ErrFromTheFuture, false},
		{-DescriptorClockSkew, nil, true},
		{0, nil, true},
		{DescriptorFresh, nil, true},
		{DescriptorFresh + 1, nil, false},
		{DescriptorLifetime - 1, nil, false},
		{DescriptorLifetime, ErrExpired, false},
	} {
		d, err := OpenDescriptor(sealed, network, testNow.Add(tt.at))
		if !errors.Is(err, tt.want) {
			t.Errorf("after %v: %v, want %v", tt.at, err, tt.want)
		}
		if err == nil && d.IsNews(testNow.Add(tt.at)) != tt.news {
			t.Errorf("after %v: news %v, want %v", tt.at, !tt.news, tt.news)
		}
	}
}

func TestDescriptorsAreOrdered(t *testing.T) {
	t.Parallel()
	base := Descriptor{Issued: testNow, Published: testNow, Digest: cert.Digest{5}}
	for _, tt := range []struct {
		name  string
		other Descriptor
		want  int
	}{
		{"the same", base, 0},
		{"a later certificate, published earlier", Descriptor{Issued: testNow.Add(1), Published: testNow.Add(-5), Digest: cert.Digest{1}}, -1},
		{"published later", Descriptor{Issued: testNow, Published: testNow.Add(1), Digest: cert.Digest{1}}, -1},
		{"published earlier", Descriptor{Issued: testNow, Published: testNow.Add(-1), Digest: cert.Digest{9}}, 1},
		{"a greater digest", Descriptor{Issued: testNow, Published: testNow, Digest: cert.Digest{6}}, -1},
	} {
		if got := base.Compare(&tt.other); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		if got := tt.other.Compare(&base); got != -tt.want {
			t.Errorf("%s, the other way: %d, want %d", tt.name, got, -tt.want)
		}
	}
}

// TestBodiesHaveOneForm: bytes that mean the same in another form are refused, so that a document has one digest.
func TestBodiesHaveOneForm(t *testing.T) {
	t.Parallel()
	key := "5820" + strings.Repeat("07", 32)
	for _, tt := range []struct {
		name, body string
		want       error
	}{
		{"the one form", "a201" + key + "021903e8", nil},
		{"with an extension", "a301" + key + "021903e8181902", nil},
		{"keys out of order", "a2021903e801" + key, ErrNotCanonical},
		{"a long number", "a201" + key + "021a000003e8", ErrNotCanonical},
		{"a key twice", "a301" + key + "021903e8021903e8", ErrMalformed},
		{"an extension twice", "a401" + key + "021903e81819021819" + "02", ErrMalformed},
		{"an extension with a long number", "a301" + key + "021903e818191802", ErrNotCanonical},
		{"a map of indefinite length", "bf01" + key + "021903e8ff", ErrMalformed},
		{"a float for a number", "a201" + key + "02f963d0", ErrNotCanonical},
		{"text for bytes", "a2017820" + strings.Repeat("61", 32) + "021903e8", ErrMalformed},
		{"null for a key", "a201f6021903e8", ErrMalformed},
		{"a tag", "a201" + key + "02c11903e8", ErrMalformed},
		{"bytes behind", "a201" + key + "021903e800", ErrMalformed},
		{"a text key", "a201" + key + "61321903e8", ErrMalformed},
		{"an array", "82" + key + "1903e8", ErrMalformed},
		{"33 bytes of key", "a2015821" + strings.Repeat("07", 33) + "021903e8", ErrMalformed},
		{"deep nesting", "a301" + key + "021903e81819" + strings.Repeat("81", 20) + "00", ErrMalformed},
		{"a time that is 0", "a201" + key + "0200", ErrInvalid},
		{"a time beyond the year 9999", "a201" + key + "021bffffffffffffffff", ErrInvalid},
		{"nothing", "", ErrMalformed},
	} {
		body, err := hex.DecodeString(tt.body)
		if err != nil {
			t.Fatal(err)
		}
		k, err := decodeOnionKey(body)
		if !errors.Is(err, tt.want) && !(tt.want == ErrNotCanonical && errors.Is(err, ErrMalformed)) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil {
			again := must[[]byte](t)(encodeMap(wireOnionKey{k.Key[:], milli(k.Until)}, k.Extensions))
			if !bytes.Equal(again, body) {
				t.Errorf("%s: re-encodes to %x", tt.name, again)
			}
		}
	}
}

func TestOnionKeyStatement(t *testing.T) {
	t.Parallel()
	good := OnionKey{Key: testSeed('b', 7), Until: testNow.Add(24 * time.Hour)}
	sealed := must[[]byte](t)(SealOnionKey(testID, good, testSigner(t, 7)))
	k := must[OnionKey](t)(OpenOnionKey(sealed, testID, testNow))
	if k.Key != good.Key || !k.Until.Equal(good.Until) || k.Identity != testIdentity(7) {
		t.Errorf("came back as %+v", k)
	}
	if _, err := OpenOnionKey(sealed, testID, good.Until); !errors.Is(err, ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	if _, err := OpenOnionKey(sealed, cert.NetworkID{9}, testNow); !errors.Is(err, cert.ErrSignature) {
		t.Errorf("another network: %v", err)
	}
	if _, err := OpenOnionKey(append(sealed, make([]byte, MaxOnionKeyStatement)...), testID, testNow); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := SealOnionKey(testID, OnionKey{Until: testNow}, testSigner(t, 7)); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a key: %v", err)
	}
	long := must[[]byte](t)(SealOnionKey(testID, OnionKey{Key: good.Key, Until: testNow.Add(MaxOnionKeyLifetime + time.Hour)}, testSigner(t, 7)))
	if _, err := OpenOnionKey(long, testID, testNow); !errors.Is(err, ErrInvalid) {
		t.Errorf("for ever: %v", err)
	}
}

func TestRumourComesBackAndHasItsTime(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	d := testDescriptor(t, 7)
	sealed := must[[]byte](t)(SealDescriptor(network, d, testSigner(t, 7)))
	opened := must[*Descriptor](t)(OpenDescriptor(sealed, network, testNow))
	rumour := must[[]byte](t)(SealRumour(network, RumourOf(opened), testSigner(t, 7)))
	if len(rumour) > MaxRumour || len(rumour) > maxGossip {
		t.Errorf("a rumour of %d bytes", len(rumour))
	}
	r := must[Rumour](t)(OpenRumour(rumour, network, testNow))
	if r.Descriptor != opened.Digest || r.Identity != d.Identity || r.Address != d.Addresses[0] || !r.Issued.Equal(opened.Issued) {
		t.Errorf("came back as %+v", r)
	}
	if _, err := OpenRumour(rumour, network, opened.Expires()); !errors.Is(err, ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	if _, err := OpenRumour(rumour, network, testNow.Add(-DescriptorClockSkew-time.Second)); !errors.Is(err, ErrFromTheFuture) {
		t.Errorf("before its time: %v", err)
	}
	for name, change := range map[string]func(*Rumour){
		"no digest":         func(r *Rumour) { r.Descriptor = cert.Digest{} },
		"a private address": func(r *Rumour) { r.Address = addr("192.168.0.1:1") },
		"no time":           func(r *Rumour) { r.Expires = r.Published },
		"too much time":     func(r *Rumour) { r.Expires = r.Published.Add(DescriptorLifetime + time.Hour) },
	} {
		bad := RumourOf(opened)
		change(&bad)
		if _, err := SealRumour(network, bad, testSigner(t, 7)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDescriptorBodyRefused: what a relay could sign without the help of SealDescriptor.
func TestDescriptorBodyRefused(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	d := testDescriptor(t, 7)
	good := must[[]byte](t)(d.body())
	for _, tt := range []struct {
		name   string
		change func(*wireDescriptor)
		want   error
	}{
		{"nothing changed", func(*wireDescriptor) {}, nil},
		{"a short identity", func(w *wireDescriptor) { w.Identity = w.Identity[1:] }, ErrMalformed},
		{"another's identity", func(w *wireDescriptor) { w.Identity[0] ^= 1 }, ErrSigners},
		{"a long onion key", func(w *wireDescriptor) { w.OnionKey = append(w.OnionKey, 0) }, ErrMalformed},
		{"no end of the onion key", func(w *wireDescriptor) { w.OnionKeyUntil = 0 }, ErrInvalid},
		{"no publication", func(w *wireDescriptor) { w.Published = 0 }, ErrInvalid},
		{"an address of 7 bytes", func(w *wireDescriptor) { w.Addresses[0] = make([]byte, 7) }, ErrMalformed},
		{"addresses that are null", func(w *wireDescriptor) { w.Addresses = nil }, ErrInvalid},
		{"a policy that is not canonical", func(w *wireDescriptor) { w.Policy = "accept *:80,accept *:443" }, ErrNotCanonical},
		{"the name of a preset", func(w *wireDescriptor) { w.Policy = "web" }, ErrNotCanonical},
		{"an empty policy that is written", func(w *wireDescriptor) { w.Policy = "reject *:*" }, ErrNotCanonical},
		{"no policy", func(w *wireDescriptor) { w.Policy = "accept" }, ErrMalformed},
		{"a short family id", func(w *wireDescriptor) { w.Families[0].Family = w.Families[0].Family[1:] }, ErrMalformed},
		{"a short family signature", func(w *wireDescriptor) { w.Families[0].Signature = w.Families[0].Signature[1:] }, cert.ErrSignature},
	} {
		var w wireDescriptor
		if _, err := decodeMap(good, &w); err != nil {
			t.Fatal(err)
		}
		tt.change(&w)
		body := must[[]byte](t)(encoding.Marshal(w))
		sealed := must[[]byte](t)(cert.Seal(cert.DescriptorDocument, testID, body, testSigner(t, 7)))
		if _, err := OpenDescriptor(sealed, network, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestRumourBodyRefused(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 1)
	for name, change := range map[string]func(*wireRumour){
		"a short digest":  func(w *wireRumour) { w.Descriptor = w.Descriptor[1:] },
		"a short address": func(w *wireRumour) { w.Address = w.Address[1:] },
		"no publication":  func(w *wireRumour) { w.Published = 0 },
		"no expiry":       func(w *wireRumour) { w.Expires = 0 },
		"a private host":  func(w *wireRumour) { w.Address = addrBytes(addr("10.0.0.1:1")) },
	} {
		w := wireRumour{bytes.Repeat([]byte{1}, 32), addrBytes(addr("7.1.0.1:9001")), milli(testNow), milli(testNow.Add(time.Hour))}
		seal := func() []byte {
			return must[[]byte](t)(cert.Seal(cert.RumourDocument, testID, must[[]byte](t)(encoding.Marshal(w)), testSigner(t, 7)))
		}
		if _, err := OpenRumour(seal(), network, testNow); err != nil {
			t.Errorf("before the change: %v", err)
		}
		change(&w)
		if _, err := OpenRumour(seal(), network, testNow); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
