package cell

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// unhex reads hex with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// padded returns b with zeros up to n bytes.
func padded(b []byte, n int) []byte { return append(bytes.Clone(b), make([]byte, n-len(b))...) }

// dirty returns n bytes that are not zero, so that a test sees what an encoder leaves unwritten.
func dirty(n int) []byte { return bytes.Repeat([]byte{0xee}, n) }

func TestHeaderBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		hex string
		h   Header
	}{
		{"00000000 00", Header{0, CommandPadding, false}},
		{"00000001 01", Header{1, CommandCreate, false}},
		{"80000001 02", Header{InitiatorBit | 1, CommandCreated, false}},
		{"80c0ffee 03", Header{0x80c0ffee, CommandRelay, false}},
		{"80c0ffee 83", Header{0x80c0ffee, CommandRelay, true}},
		{"ffffffff 04", Header{0xffffffff, CommandDestroy, false}},
		{"00000000 05", Header{0, CommandHello, false}},
		{"00000000 06", Header{0, CommandCredit, false}},
		{"00000000 07", Header{0, CommandGossip, false}},
		{"00000000 08", Header{0, CommandLinkDrain, false}},
		{"00000000 0b", Header{0, CommandReturn, false}},
		{"01020304 09", Header{0x01020304, CommandRelayEarly, false}},
		{"01020304 89", Header{0x01020304, CommandRelayEarly, true}},
	} {
		b := dirty(Size)
		tt.h.Put(b)
		if want := unhex(t, tt.hex); !bytes.Equal(b[:HeaderSize], want) || !bytes.Equal(b[HeaderSize:], dirty(BodySize)) {
			t.Errorf("Put(%+v) wrote %x", tt.h, b[:HeaderSize+1])
		}
		h, err := DecodeHeader(b)
		if err != nil || h != tt.h {
			t.Errorf("DecodeHeader(%s) = %+v, %v", tt.hex, h, err)
		}
	}
}

func TestBodyBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		hex    string
		put    func(body []byte) error
		decode func(body []byte) (any, error)
		want   any
	}{
		{
			"CREATE", "0200 0001 0003 0000 aabbcc",
			Create{0x200, 1, 3, 0, []byte{0xaa, 0xbb, 0xcc}}.Put,
			func(b []byte) (any, error) { return DecodeCreate(b) },
			Create{0x200, 1, 3, 0, []byte{0xaa, 0xbb, 0xcc}},
		}, {
			"CREATED", "0001 ffff 0001 0000 00",
			Created{1, 0xffff, 1, 0, []byte{0}}.Put,
			func(b []byte) (any, error) { return DecodeCreated(b) },
			Created{1, 0xffff, 1, 0, []byte{0}},
		}, {
			"DESTROY", "04",
			func(b []byte) error { return PutDestroy(b, ReasonDestroyed) },
			func(b []byte) (any, error) { return DecodeDestroy(b) },
			ReasonDestroyed,
		}, {
			"CREDIT", "0002 80000001 0010 00000002 ffff",
			func(b []byte) error { return PutCredit(b, []CreditPair{{InitiatorBit | 1, 16}, {2, 65535}}) },
			func(b []byte) (any, error) { return DecodeCredit(b, nil) },
			[]CreditPair{{InitiatorBit | 1, 16}, {2, 65535}},
		}, {
			"GOSSIP", "0003 010200",
			func(b []byte) error { return PutGossip(b, []byte{1, 2, 0}) },
			func(b []byte) (any, error) { return DecodeGossip(b) },
			[]byte{1, 2, 0},
		}, {
			"HELLO", "0001 07",
			func(b []byte) error { return PutHello(b, []byte{7}) },
			func(b []byte) (any, error) { return DecodeHello(b) },
			[]byte{7},
		}, {
			"LINK_DRAIN", "",
			func(b []byte) error { clear(b); return nil },
			func(b []byte) (any, error) { return nil, CheckEmpty(b) },
			nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body := dirty(BodySize)
			if err := tt.put(body); err != nil {
				t.Fatal(err)
			}
			if want := padded(unhex(t, tt.hex), BodySize); !bytes.Equal(body, want) {
				t.Errorf("wrote %x…, want %x…", body[:24], want[:24])
			}
			got, err := tt.decode(body)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("decoded %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// appender is what all message bodies have in common.
type appender interface{ AppendTo([]byte) ([]byte, error) }

// decoders has the decoder of every message with a body of its own.
var decoders = map[MessageCommand]func([]byte) (appender, error){
	MessageExtend:       func(b []byte) (appender, error) { return DecodeExtend(b) },
	MessageExtended:     func(b []byte) (appender, error) { return DecodeExtended(b) },
	MessageExtendFailed: func(b []byte) (appender, error) { return DecodeExtendFailed(b) },
	MessageBegin:        func(b []byte) (appender, error) { return DecodeBegin(b) },
	MessageConnected:    func(b []byte) (appender, error) { return DecodeConnected(b) },
	MessageEnd:          func(b []byte) (appender, error) { return DecodeEnd(b) },
	MessageResolve:      func(b []byte) (appender, error) { return DecodeResolve(b) },
	MessageResolved:     func(b []byte) (appender, error) { return DecodeResolved(b) },
	MessageWindow:       func(b []byte) (appender, error) { return DecodeWindow(b) },
}

const identityHex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func testIdentity() (id [IdentitySize]byte) {
	for i := range id {
		id[i] = byte(i)
	}
	return id
}

// goldenMessages fixes the bytes of every message body.
var goldenMessages = []struct {
	command MessageCommand
	hex     string
	value   appender
}{
	{MessageExtend, identityHex + " 03 01 06 c0000201 2692 02 12 20010db8000000000000000000000001 01bb 63 00 0002 0003 0000 010203",
		Extend{
			Identity: testIdentity(),
			Specifiers: []LinkSpecifier{
				AddrPortSpecifier(netip.MustParseAddrPort("192.0.2.1:9874")),
				AddrPortSpecifier(netip.MustParseAddrPort("[2001:db8::1]:443")),
				{Type: 99, Value: []byte{}},
			},
			Type: 2, Total: 3, Handshake: []byte{1, 2, 3},
		}},
	{MessageExtended, "0002 0004 0000 00090807", Extended{2, 4, 0, []byte{0, 9, 8, 7}}},
	{MessageExtendFailed, "08", ExtendFailed{ReasonWrongIdentity}},
	{MessageExtendFailed, "ff", ExtendFailed{ReasonOther}},
	{MessageBegin, "00000007 02 0b 6578616d706c652e6f7267 01bb",
		Begin{AllowIPv4 | AllowIPv6 | PreferIPv6, Address{Host: "example.org"}, 443}},
	{MessageBegin, "00000001 01 04 c0000207 0050", Begin{AllowIPv4, IPAddress(netip.MustParseAddr("192.0.2.7")), 80}},
	{MessageBegin, "00000000 03 10 20010db8000000000000000000000002 ffff",
		Begin{0, IPAddress(netip.MustParseAddr("2001:db8::2")), 65535}},
	{MessageConnected, "00 00", Connected{}},
	{MessageConnected, "01 04 c0000207", Connected{netip.MustParseAddr("192.0.2.7")}},
	{MessageConnected, "03 10 20010db8000000000000000000000002", Connected{netip.MustParseAddr("2001:db8::2")}},
	{MessageEnd, "00", End{ReasonEOF}},
	{MessageEnd, "0d", End{ReasonRefused}},
	{MessageEnd, "c8", End{200}}, // unknown, still the same bytes again
	{MessageResolve, "00000003 02 01 61", Resolve{AllowIPv4 | AllowIPv6, Address{Host: "a"}}},
	{MessageResolve, "00000000 01 04 c0000207", Resolve{0, IPAddress(netip.MustParseAddr("192.0.2.7"))}},
	{MessageResolved, "00 00000e10 02 01 04 c0000207 03 10 20010db8000000000000000000000002",
		Resolved{ReasonNone, 3600, []Address{
			IPAddress(netip.MustParseAddr("192.0.2.7")), IPAddress(netip.MustParseAddr("2001:db8::2")),
		}}},
	{MessageResolved, "00 ffffffff 01 02 03 612e62", Resolved{ReasonNone, 1<<32 - 1, []Address{{Host: "a.b"}}}},
	{MessageResolved, "0b 0000003c 00", Resolved{ReasonNoSuchHost, 60, nil}},
	{MessageWindow, "00010000", Window{65536}},
}

func TestMessageBodyBytes(t *testing.T) {
	t.Parallel()
	seen := map[MessageCommand]bool{}
	for _, tt := range goldenMessages {
		seen[tt.command] = true
		want := unhex(t, tt.hex)
		got, err := tt.value.AppendTo([]byte("before"))
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%+v: appended %x, %v; want %x", tt.value, got[len("before"):], err, want)
		}
		v, err := decoders[tt.command](want)
		if err != nil || !reflect.DeepEqual(v, tt.value) {
			t.Errorf("%v %s decodes to %+v, %v; want %+v", tt.command, tt.hex, v, err, tt.value)
		}
	}
	for c := range decoders {
		if !seen[c] {
			t.Errorf("no golden bytes for %v", c)
		}
	}
}

func TestPayloadBytes(t *testing.T) {
	t.Parallel()
	payload := dirty(PayloadSize)
	p := NewPacker(payload)
	if !p.Add(MessageWindow, 0, []byte{0, 0, 0, 9}) || !p.Add(MessageBeginDir, 0x0102) || !p.Add(MessageData, 0x0102, []byte("ab"), []byte("c")) {
		t.Fatal("does not fit")
	}
	p.Finish()
	want := padded(unhex(t, "0b 0000 0004 00000009  0a 0102 0000  06 0102 0003 616263"), PayloadSize)
	if !bytes.Equal(payload, want) {
		t.Fatalf("packed %x…, want %x…", payload[:32], want[:32])
	}
	got, err := ParsePayload(payload, nil)
	if want := []Message{
		{MessageWindow, 0, []byte{0, 0, 0, 9}},
		{MessageBeginDir, 0x0102, []byte{}},
		{MessageData, 0x0102, []byte("abc")},
	}; err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("parsed %+v, %v; want %+v", got, err, want)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, tt := range [][3]any{
		{"Size", Size, 2048}, {"HeaderSize", HeaderSize, 5}, {"BodySize", BodySize, 2043}, {"TagSize", TagSize, 16},
		{"PayloadSize", PayloadSize, 2027}, {"MessageHeaderSize", MessageHeaderSize, 5}, {"MaxData", MaxData, 2022},
		{"MaxCreditPairs", MaxCreditPairs, 340}, {"MaxGossip", MaxGossip, 2041}, {"MaxHello", MaxHello, 2041},
		{"MaxCreateHandshake", MaxCreateHandshake, 2035},
	} {
		if tt[1] != tt[2] {
			t.Errorf("%s = %v, want %v", tt[0], tt[1], tt[2])
		}
	}
}
