package link

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"cepa/cell"
)

func relayHelloForTest(t testing.TB) *Hello {
	now := time.UnixMilli(1790000000123).UTC()
	k := newKeys(t, testNetwork, "h", now)
	return relayHello(testNetwork, k.credentials(t, testNetwork, now), now, netip.MustParseAddr("192.0.2.1"))
}

func TestHelloRoundTrip(t *testing.T) {
	t.Parallel()
	relay := relayHelloForTest(t)
	v6 := relayHelloForTest(t)
	v6.Observed = netip.MustParseAddr("2001:db8::1")
	later := relayHelloForTest(t)
	later.Versions = []uint16{1, 2, 9}
	later.Flags = 0xffff
	later.Unknown = []TLV{{0, []byte("before")}, {5, []byte{}}, {65535, []byte("after")}}
	for _, h := range []*Hello{clientHello(testNetwork), relay, v6, later} {
		b, err := h.AppendTo([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeHello(b[1:])
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Unknown {
			if len(got.Unknown[i].Value) == 0 {
				got.Unknown[i].Value = []byte{}
			}
		}
		if !reflect.DeepEqual(got, h) {
			t.Errorf("decoded %+v, encoded %+v", got, h)
		}
	}
}

func TestHelloFitsWithRoomToSpare(t *testing.T) {
	t.Parallel()
	b, err := relayHelloForTest(t).AppendTo(nil)
	if err != nil || len(b) > 1024 {
		t.Errorf("a relay's HELLO has %d bytes, %v", len(b), err)
	}
	b, err = clientHello(testNetwork).AppendTo(nil)
	if want := 1 + 2 + 32 + 2; err != nil || len(b) != want {
		t.Errorf("a client's HELLO has %d bytes, %v; want %d", len(b), err, want)
	}
}

func TestHelloThatDoesNotEncode(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Hello){
		"no versions":         func(h *Hello) { h.Versions = nil },
		"too many versions":   func(h *Hello) { h.Versions = make([]uint16, 17) },
		"versions descending": func(h *Hello) { h.Versions = []uint16{2, 1} },
		"too long":            func(h *Hello) { h.Unknown = []TLV{{9, make([]byte, 2000)}} },
		"field too long":      func(h *Hello) { h.Unknown = []TLV{{9, make([]byte, 70000)}} },
		"known as unknown":    func(h *Hello) { h.Unknown = []TLV{{tlvTime, make([]byte, 8)}} },
		"a type twice":        func(h *Hello) { h.Unknown = []TLV{{9, nil}, {9, nil}} },
	} {
		h := relayHelloForTest(t)
		change(h)
		if b, err := h.AppendTo([]byte("x")); err == nil || string(b) != "x" {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

func TestHelloIsDecodedStrictly(t *testing.T) {
	t.Parallel()
	good, err := relayHelloForTest(t).AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	fields := 1 + 2 + 32 + 2
	tlv := func(kind byte, value ...byte) []byte { return append([]byte{0, kind, 0, byte(len(value))}, value...) }
	head := good[:fields]
	with := func(parts ...[]byte) []byte { return slices.Concat(append([][]byte{head}, parts...)...) }
	for name, b := range map[string][]byte{
		"empty":                nil,
		"no versions":          append([]byte{0}, good[3:]...),
		"17 versions":          append([]byte{17}, make([]byte, 200)...),
		"versions not rising":  append([]byte{2, 0, 1, 0, 1}, good[3:]...),
		"longer than a cell":   make([]byte, cell.MaxHello+1),
		"time of 7 bytes":      with(tlv(2, 0, 0, 0, 0, 0, 0, 1)),
		"time zero":            with(tlv(2, 0, 0, 0, 0, 0, 0, 0, 0)),
		"time past 9999":       with(tlv(2, 1, 0, 0, 0, 0, 0, 0, 0)),
		"observed of 4 bytes":  with(tlv(4, 127, 0, 0, 1)),
		"empty statement":      with(tlv(3)),
		"broken chain":         with(tlv(1, 1, 2, 3)),
		"fields not rising":    with(tlv(9), tlv(8)),
		"field twice":          with(tlv(9), tlv(9)),
		"length past the end":  with([]byte{0, 9, 0, 5, 1, 2}),
		"a byte behind":        with(tlv(9), []byte{0}),
		"chain and one more":   nil,
		"three bytes of field": with([]byte{0, 9, 0}),
	} {
		if h, err := DecodeHello(b); err == nil {
			t.Errorf("%s: decoded as %+v", name, h)
		}
	}
	for n := range good {
		// Cut between fields it is another HELLO; anywhere else it is none.
		if h, err := DecodeHello(good[:n]); err == nil {
			if again, _ := h.AppendTo(nil); !bytes.Equal(again, good[:n]) {
				t.Errorf("cut to %d bytes it decodes and does not re-encode", n)
			}
		}
	}
}

func TestCommonVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b []uint16
		want uint16
	}{
		{[]uint16{1}, []uint16{1}, 1}, {[]uint16{1, 2, 5}, []uint16{2, 3, 4}, 2}, {[]uint16{1, 4}, []uint16{1, 4, 9}, 4},
		{[]uint16{1}, []uint16{2}, 0}, {nil, []uint16{1}, 0},
	} {
		got, ok := commonVersion(test.a, test.b)
		back, _ := commonVersion(test.b, test.a)
		if got != test.want || ok != (test.want != 0) || back != got {
			t.Errorf("commonVersion(%v, %v) = %d, %v", test.a, test.b, got, ok)
		}
	}
}

func FuzzHello(f *testing.F) {
	for _, h := range []*Hello{clientHello(testNetwork), relayHelloForTest(f)} {
		b, err := h.AppendTo(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	judge := &session{network: testNetwork, now: time.UnixMilli(1790000000123)}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHello(b)
		if err != nil {
			return
		}
		again, err := h.AppendTo(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes as %+v and encodes as %x, %v", b, h, again, err)
		}
		for _, leaf := range [][]byte{nil, make([]byte, 32)} {
			judge.leaf = leaf
			if peer, err := judge.judge(h); err == nil && !(leaf == nil && peer.Client()) {
				t.Fatalf("believed as %+v", peer)
			}
		}
	})
}

// FuzzFirstCell is what a far end may send when TLS is up: any cell at all.
func FuzzFirstCell(f *testing.F) {
	b, err := clientHello(testNetwork).AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(helloCell(f, b))
	f.Add(cells(1, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		first := make([]byte, cell.Size)
		copy(first, b)
		h, err := openHelloCell(first)
		if err != nil {
			return
		}
		content, err := h.AppendTo(nil)
		if err != nil || !bytes.Equal(helloCell(t, content), first) {
			t.Fatalf("accepted %x, which is %+v", first, h)
		}
	})
}

// TestServerSurvivesAnyStream plays mutilated streams to a relay once TLS is up: only a client's HELLO makes a link of
// one. The seed is fixed.
func TestServerSurvivesAnyStream(t *testing.T) {
	t.Parallel()
	content, err := clientHello(testNetwork).AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	hello := helloCell(t, content)
	seeds := [][]byte{hello, append(bytes.Clone(hello), cells(3, 0)...), []byte("GET / HTTP/1.1\r\n\r\n"), append(bytes.Clone(hello), hello...)}
	relay := newNode(t, "r", func(c *Config) { c.Log = nil })
	r := rand.New(rand.NewPCG(1, 2))
	made := 0
	for i := range 200 {
		b := bytes.Clone(seeds[i%len(seeds)])
		for range r.IntN(4) {
			mutate(r, &b)
		}
		if playStream(t, relay, r, b) {
			made++
		}
	}
	if made < 20 || made > 180 {
		t.Errorf("%d of 200 streams made a link: the test does not test much", made)
	}
}

func mutate(r *rand.Rand, b *[]byte) {
	if len(*b) == 0 {
		return
	}
	at := r.IntN(len(*b))
	if r.IntN(2) == 0 {
		at = r.IntN(min(len(*b), 50)) // where something is
	}
	switch r.IntN(4) {
	case 0:
		(*b)[at] ^= 1 << r.IntN(8)
	case 1:
		*b = (*b)[:at]
	case 2:
		*b = slices.Insert(*b, at, byte(r.IntN(256)))
	case 3:
		*b = slices.Delete(*b, at, at+1)
	}
}

// playStream sends b after a TLS handshake, cut at random, and reports whether a link came of it, as it should.
func playStream(t *testing.T, relay *testNode, r *rand.Rand, b []byte) bool {
	c := rawClient(t, relay.addr, nil)
	defer c.Close()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	for rest := b; len(rest) > 0; {
		n := min(len(rest), 1+r.IntN(4000))
		if _, err := c.Write(rest[:n]); err != nil {
			break
		}
		rest = rest[n:]
	}
	c.CloseWrite()
	io.Copy(io.Discard, c)
	valid := false
	if len(b) >= cell.Size {
		if h, err := openHelloCell(b[:cell.Size]); err == nil {
			_, err = (&session{network: testNetwork, now: time.Now()}).judge(h)
			valid = err == nil
		}
	}
	if valid {
		receive(t, "LinkUp", relay.ups)
		receive(t, "OnDown", relay.downs)
	} else if len(relay.ups) != 0 {
		t.Fatalf("%x made a link", b)
	}
	return valid
}
