package cell

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// wantError checks that err is an *Error with this text.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("got %v, want *Error %q", err, want)
	} else if err.Error() != want {
		t.Errorf("got  %q\nwant %q", err, want)
	}
}

func TestHeaderRejected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ hex, want string }{
		{"", "decoding cell header at byte 0: 0 bytes instead of 5"},
		{"00000001", "decoding cell header at byte 0: 4 bytes instead of 5"},
		{"00000001 0a", "decoding cell header at byte 4: unknown command 10"},
		{"00000000 0c", "decoding cell header at byte 4: unknown command 12"},
		{"00000001 7f", "decoding cell header at byte 4: unknown command 127"},
		{"00000001 ff", "decoding cell header at byte 4: unknown command 127"},
		{"00000000 80", "decoding cell header at byte 4: dry flag on PADDING"},
		{"00000001 81", "decoding cell header at byte 4: dry flag on CREATE"},
		{"00000001 82", "decoding cell header at byte 4: dry flag on CREATED"},
		{"00000001 84", "decoding cell header at byte 4: dry flag on DESTROY"},
		{"00000000 85", "decoding cell header at byte 4: dry flag on HELLO"},
		{"00000000 86", "decoding cell header at byte 4: dry flag on CREDIT"},
		{"00000000 87", "decoding cell header at byte 4: dry flag on GOSSIP"},
		{"00000000 8b", "decoding cell header at byte 4: dry flag on RETURN"},
		{"00000002 0b", "decoding cell header at byte 0: RETURN on circuit 2 instead of the link"},
		{"00000000 88", "decoding cell header at byte 4: dry flag on LINK_DRAIN"},
		{"00000001 00", "decoding cell header at byte 0: PADDING on circuit 1 instead of the link"},
		{"00000001 05", "decoding cell header at byte 0: HELLO on circuit 1 instead of the link"},
		{"80000000 06", "decoding cell header at byte 0: CREDIT on circuit 2147483648 instead of the link"},
		{"00000002 07", "decoding cell header at byte 0: GOSSIP on circuit 2 instead of the link"},
		{"00000002 08", "decoding cell header at byte 0: LINK_DRAIN on circuit 2 instead of the link"},
		{"00000000 01", "decoding cell header at byte 0: CREATE without a circuit"},
		{"00000000 02", "decoding cell header at byte 0: CREATED without a circuit"},
		{"00000000 03", "decoding cell header at byte 0: RELAY without a circuit"},
		{"00000000 83", "decoding cell header at byte 0: RELAY without a circuit"},
		{"00000000 04", "decoding cell header at byte 0: DESTROY without a circuit"},
		{"00000000 09", "decoding cell header at byte 0: RELAY_EARLY without a circuit"},
	} {
		h, err := DecodeHeader(unhex(t, tt.hex))
		wantError(t, err, tt.want)
		if h != (Header{}) {
			t.Errorf("%s: %+v beside an error", tt.hex, h)
		}
	}
}

// bodyDecoders has the decoder of every cell body, and re-encodes what it decodes.
var bodyDecoders = map[Command]func(body, again []byte) error{
	CommandCreate: func(body, again []byte) error {
		c, err := DecodeCreate(body)
		if err != nil {
			return err
		}
		return c.Put(again)
	},
	CommandCreated: func(body, again []byte) error {
		c, err := DecodeCreated(body)
		if err != nil {
			return err
		}
		return c.Put(again)
	},
	CommandDestroy: func(body, again []byte) error {
		reason, err := DecodeDestroy(body)
		if err != nil {
			return err
		}
		return PutDestroy(again, reason)
	},
	CommandCredit: func(body, again []byte) error {
		pairs, err := DecodeCredit(body, nil)
		if err != nil {
			return err
		}
		return PutCredit(again, pairs)
	},
	CommandGossip: func(body, again []byte) error {
		packet, err := DecodeGossip(body)
		if err != nil {
			return err
		}
		return PutGossip(again, packet)
	},
	CommandHello: func(body, again []byte) error {
		content, err := DecodeHello(body)
		if err != nil {
			return err
		}
		return PutHello(again, content)
	},
	CommandLinkDrain: func(body, again []byte) error {
		clear(again)
		return CheckEmpty(body)
	},
}

func TestBodyRejected(t *testing.T) {
	t.Parallel()
	tail := func(hex string) []byte { // ends with a byte that is not zero
		b := padded(unhex(t, hex), BodySize)
		b[BodySize-1] = 7
		return b
	}
	body := func(hex string) []byte { return padded(unhex(t, hex), BodySize) }
	for _, tt := range []struct {
		command Command
		body    []byte
		want    string
	}{
		{CommandCreate, body("0000 0001 0001 0000 aa"), "decoding CREATE at byte 0: no initial credit"},
		{CommandCreate, body("0001 0001 0000 0000"), "decoding CREATE at byte 4: no handshake"},
		{CommandCreate, body("0001 0001 0001 0001 aa"), "decoding CREATE at byte 4: handshake in several parts (total 1, offset 1)"},
		{CommandCreate, body("0001 0001 07f4 0000 aa"), "decoding CREATE at byte 4: handshake in several parts (total 2036, offset 0)"},
		{CommandCreate, body("0001 0001 0001 0000 aa bb"), "decoding CREATE at byte 9: byte 0xbb where the rest must be zeros"},
		{CommandCreated, body("0000 0001 0001 0000 aa"), "decoding CREATED at byte 0: no initial credit"},
		{CommandCreated, tail("0001 0001 0001 0000 aa"), "decoding CREATED at byte 2042: byte 0x07 where the rest must be zeros"},
		{CommandDestroy, body("00 01"), "decoding DESTROY at byte 1: byte 0x01 where the rest must be zeros"},
		{CommandDestroy, tail("00"), "decoding DESTROY at byte 2042: byte 0x07 where the rest must be zeros"},
		{CommandCredit, body("0000"), "decoding CREDIT at byte 0: 0 pairs, 1 to 340 are possible"},
		{CommandCredit, body("0155"), "decoding CREDIT at byte 0: 341 pairs, 1 to 340 are possible"},
		{CommandCredit, body("0001 00000000 0001"), "decoding CREDIT at byte 2: pair 0 without a circuit"},
		{CommandCredit, body("0002 00000001 0001 00000002 0000"), "decoding CREDIT at byte 12: pair 1 adds nothing"},
		{CommandCredit, body("0002 00000001 0001"), "decoding CREDIT at byte 8: pair 1 without a circuit"},
		{CommandCredit, body("0001 00000001 0001 00000002 0001"), "decoding CREDIT at byte 11: byte 0x02 where the rest must be zeros"},
		{CommandGossip, body("0000"), "decoding GOSSIP at byte 0: content of 0 bytes, 1 to 2041 are possible"},
		{CommandGossip, body("07fa"), "decoding GOSSIP at byte 0: content of 2042 bytes, 1 to 2041 are possible"},
		{CommandGossip, body("ffff"), "decoding GOSSIP at byte 0: content of 65535 bytes, 1 to 2041 are possible"},
		{CommandGossip, body("0001 01 01"), "decoding GOSSIP at byte 3: byte 0x01 where the rest must be zeros"},
		{CommandHello, body("0000"), "decoding HELLO at byte 0: content of 0 bytes, 1 to 2041 are possible"},
		{CommandHello, tail("0001 01"), "decoding HELLO at byte 2042: byte 0x07 where the rest must be zeros"},
		{CommandLinkDrain, body("01"), "decoding LINK_DRAIN at byte 0: byte 0x01 where the rest must be zeros"},
		{CommandLinkDrain, tail(""), "decoding LINK_DRAIN at byte 2042: byte 0x07 where the rest must be zeros"},
	} {
		wantError(t, bodyDecoders[tt.command](tt.body, make([]byte, BodySize)), tt.want)
	}
	for command, decode := range bodyDecoders {
		for _, n := range []int{0, 1, BodySize - 1, BodySize + 1, Size} {
			err := decode(make([]byte, n), make([]byte, BodySize))
			if err == nil || !strings.Contains(err.Error(), "at byte 0: body of ") {
				t.Errorf("%v: body of %d bytes: %v", command, n, err)
			}
		}
	}
}

func TestCreditLeavesTheListAloneAfterAnError(t *testing.T) {
	t.Parallel()
	before := []CreditPair{{5, 5}}
	got, err := DecodeCredit(padded(unhex(t, "0002 00000001 0001 00000002 0000"), BodySize), before)
	if err == nil || len(got) != 1 || got[0] != before[0] {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestBodyNotEncoded(t *testing.T) {
	t.Parallel()
	body := make([]byte, BodySize)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{Create{1, 1, 1, 0, []byte{1}}.Put(body[1:]), "encoding CREATE or CREATED: body of 2042 bytes instead of 2043"},
		{Create{0, 1, 1, 0, []byte{1}}.Put(body), "encoding CREATE or CREATED: no initial credit"},
		{Create{1, 1, 0, 0, nil}.Put(body), "encoding CREATE or CREATED: no handshake"},
		{Create{1, 1, 2, 0, []byte{1}}.Put(body), "encoding CREATE or CREATED: handshake of 1 bytes, its total says 2"},
		{Create{1, 1, 1, 1, []byte{1}}.Put(body), "encoding CREATE or CREATED: handshake in several parts (total 1, offset 1)"},
		{Create{1, 1, 2036, 0, make([]byte, 2036)}.Put(body), "encoding CREATE or CREATED: handshake in several parts (total 2036, offset 0)"},
		{PutDestroy(nil, 0), "encoding DESTROY: body of 0 bytes instead of 2043"},
		{PutCredit(body[1:], []CreditPair{{1, 1}}), "encoding CREDIT: body of 2042 bytes instead of 2043"},
		{PutCredit(body, nil), "encoding CREDIT: 0 pairs, 1 to 340 are possible"},
		{PutCredit(body, make([]CreditPair, 341)), "encoding CREDIT: 341 pairs, 1 to 340 are possible"},
		{PutCredit(body, []CreditPair{{1, 1}, {0, 1}}), "encoding CREDIT: pair 1 without a circuit"},
		{PutCredit(body, []CreditPair{{1, 0}}), "encoding CREDIT: pair 0 adds nothing"},
		{PutGossip(body[1:], []byte{1}), "encoding GOSSIP: body of 2042 bytes instead of 2043"},
		{PutGossip(body, nil), "encoding GOSSIP: content of 0 bytes, 1 to 2041 are possible"},
		{PutHello(body, make([]byte, 2042)), "encoding HELLO: content of 2042 bytes, 1 to 2041 are possible"},
	} {
		wantError(t, tt.err, tt.want)
	}
	if !bytes.Equal(body, make([]byte, BodySize)) {
		t.Error("an encoder wrote to the body although it failed")
	}
}

func TestMessageBodyRejected(t *testing.T) {
	t.Parallel()
	host256 := "02 ff " + strings.Repeat("61", 255)
	for _, tt := range []struct {
		command MessageCommand
		hex     string
		want    string
	}{
		{MessageExtend, "", "decoding EXTEND at byte 0: cut off in identity: 0 bytes of 32"},
		{MessageExtend, identityHex, "decoding EXTEND at byte 32: cut off in count of link specifiers"},
		{MessageExtend, identityHex + "00 0001 0001 0000 01", "decoding EXTEND at byte 32: 0 link specifiers, 1 to 8 are possible"},
		{MessageExtend, identityHex + "09", "decoding EXTEND at byte 32: 9 link specifiers, 1 to 8 are possible"},
		{MessageExtend, identityHex + "01", "decoding EXTEND at byte 33: cut off in link specifier type"},
		{MessageExtend, identityHex + "01 63", "decoding EXTEND at byte 34: cut off in link specifier length"},
		{MessageExtend, identityHex + "01 63 02 aa", "decoding EXTEND at byte 35: cut off in link specifier: 1 bytes of 2"},
		{MessageExtend, identityHex + "01 01 05 0102030400", "decoding EXTEND at byte 33: link specifier of type 1 with a bad address"},
		{MessageExtend, identityHex + "01 01 06 010203040000", "decoding EXTEND at byte 33: link specifier of type 1 with a bad address"},
		{MessageExtend, identityHex + "01 02 06 010203040001", "decoding EXTEND at byte 33: link specifier of type 2 with a bad address"},
		{MessageExtend, identityHex + "02 63 00 02 12 00000000000000000000ffff010203040001", "decoding EXTEND at byte 35: link specifier of type 2 with a bad address"},
		{MessageExtend, identityHex + "01 63 00", "decoding EXTEND at byte 35: cut off in handshake type"},
		{MessageExtend, identityHex + "01 63 00 0001 0000 0000", "decoding EXTEND at byte 37: no handshake"},
		{MessageExtend, identityHex + "01 63 00 0001 0002 0000 01", "decoding EXTEND at byte 37: handshake of 1 bytes, its total says 2"},
		{MessageExtend, identityHex + "01 63 00 0001 0001 0000 01 02", "decoding EXTEND at byte 37: handshake of 2 bytes, its total says 1"},
		{MessageExtend, identityHex + "01 63 00 0001 0001 0001 01", "decoding EXTEND at byte 37: handshake in several parts (total 1, offset 1)"},
		{MessageExtended, "0001", "decoding EXTENDED at byte 2: cut off in handshake total"},
		{MessageExtended, "0001 0001 00", "decoding EXTENDED at byte 4: cut off in handshake offset"},
		{MessageExtended, "0001 0fff 0000 01", "decoding EXTENDED at byte 2: handshake in several parts (total 4095, offset 0)"},
		{MessageExtended, "0001 0000 0000", "decoding EXTENDED at byte 2: no handshake"},
		{MessageExtendFailed, "", "decoding EXTEND_FAILED at byte 0: cut off in reason"},
		{MessageExtendFailed, "00", "decoding EXTEND_FAILED at byte 0: no reason"},
		{MessageExtendFailed, "01 00", "decoding EXTEND_FAILED at byte 1: 1 bytes too many"},
		{MessageBegin, "000000", "decoding BEGIN at byte 0: cut off in flags"},
		{MessageBegin, "00000008 02 01 61 0050", "decoding BEGIN at byte 0: unknown flags 0x8"},
		{MessageBegin, "80000001 02 01 61 0050", "decoding BEGIN at byte 0: unknown flags 0x80000000"},
		{MessageBegin, "00000001", "decoding BEGIN at byte 4: cut off in address type"},
		{MessageBegin, "00000001 02", "decoding BEGIN at byte 5: cut off in address length"},
		{MessageBegin, "00000001 02 04 6161", "decoding BEGIN at byte 6: cut off in address: 2 bytes of 4"},
		{MessageBegin, "00000001 00 00 0050", "decoding BEGIN at byte 4: unknown address type 0"},
		{MessageBegin, "00000001 04 01 61 0050", "decoding BEGIN at byte 4: unknown address type 4"},
		{MessageBegin, "00000001 01 05 0102030405 0050", "decoding BEGIN at byte 5: length 5 for address type 1"},
		{MessageBegin, "00000001 03 04 01020304 0050", "decoding BEGIN at byte 5: length 4 for address type 3"},
		{MessageBegin, "00000001 02 00 0050", "decoding BEGIN at byte 5: length 0 for address type 2"},
		{MessageBegin, "00000001 03 10 00000000000000000000ffff01020304 0050", "decoding BEGIN at byte 6: IPv4 address mapped to IPv6"},
		{MessageBegin, "00000001 02 02 6100 0050", "decoding BEGIN at byte 6: byte 0x00 in a host name"},
		{MessageBegin, "00000001 02 02 6120 0050", "decoding BEGIN at byte 6: byte 0x20 in a host name"},
		{MessageBegin, "00000001 02 02 0a61 0050", "decoding BEGIN at byte 6: byte 0x0a in a host name"},
		{MessageBegin, "00000001 02 02 617f 0050", "decoding BEGIN at byte 6: byte 0x7f in a host name"},
		{MessageBegin, "00000001 02 02 c3a4 0050", "decoding BEGIN at byte 6: byte 0xc3 in a host name"},
		{MessageBegin, "00000001 02 07 312e322e332e34 0050", "decoding BEGIN at byte 6: IP address written as a host name"},
		{MessageBegin, "00000001 02 03 3a3a31 0050", "decoding BEGIN at byte 6: IP address written as a host name"},
		{MessageBegin, "00000001 02 07 666538303a3a31 0050", "decoding BEGIN at byte 6: IP address written as a host name"},
		{MessageBegin, "00000001 02 06 3a3a31256130 0050", "decoding BEGIN at byte 6: IP address written as a host name"},
		{MessageBegin, "00000001 02 01 61", "decoding BEGIN at byte 7: cut off in port"},
		{MessageBegin, "00000001 02 01 61 0000", "decoding BEGIN at byte 7: port 0"},
		{MessageBegin, "00000001 02 01 61 0050 00", "decoding BEGIN at byte 9: 1 bytes too many"},
		{MessageConnected, "", "decoding CONNECTED at byte 0: cut off in address type"},
		{MessageConnected, "00", "decoding CONNECTED at byte 1: cut off in address length"},
		{MessageConnected, "00 00 00", "decoding CONNECTED at byte 2: 1 bytes too many"},
		{MessageConnected, "00 01 00", "decoding CONNECTED at byte 0: unknown address type 0"},
		{MessageConnected, "02 01 61", "decoding CONNECTED at byte 0: host name instead of an IP address"},
		{MessageConnected, "01 04 01020304 00", "decoding CONNECTED at byte 6: 1 bytes too many"},
		{MessageConnected, "03 10 00000000000000000000ffff01020304", "decoding CONNECTED at byte 2: IPv4 address mapped to IPv6"},
		{MessageEnd, "", "decoding END at byte 0: cut off in reason"},
		{MessageEnd, "00 00", "decoding END at byte 1: 1 bytes too many"},
		{MessageResolve, "00000010 02 01 61", "decoding RESOLVE at byte 0: unknown flags 0x10"},
		{MessageResolve, "00000000", "decoding RESOLVE at byte 4: cut off in address type"},
		{MessageResolve, "00000000 02 01 61 00", "decoding RESOLVE at byte 7: 1 bytes too many"},
		{MessageResolved, "", "decoding RESOLVED at byte 0: cut off in reason"},
		{MessageResolved, "00 0000", "decoding RESOLVED at byte 1: cut off in time to live"},
		{MessageResolved, "00 00000000", "decoding RESOLVED at byte 5: cut off in count of answers"},
		{MessageResolved, "00 00000000 00", "decoding RESOLVED at byte 5: success without an answer"},
		{MessageResolved, "0b 00000000 01 02 01 61", "decoding RESOLVED at byte 5: answers beside a reason for having none"},
		{MessageResolved, "00 00000000 02 02 01 61", "decoding RESOLVED at byte 9: cut off in address type"},
		{MessageResolved, "00 00000000 01 02 01 61 02", "decoding RESOLVED at byte 9: 1 bytes too many"},
		{MessageResolved, "00 00000000 01 00 00", "decoding RESOLVED at byte 6: unknown address type 0"},
		{MessageResolved, "00 00000000 ff " + host256 + " 05", "decoding RESOLVED at byte 264: cut off in address length"},
		{MessageWindow, "000001", "decoding WINDOW at byte 0: cut off in bytes added"},
		{MessageWindow, "00000000", "decoding WINDOW at byte 0: adds nothing"},
		{MessageWindow, "00000001 00", "decoding WINDOW at byte 4: 1 bytes too many"},
	} {
		_, err := decoders[tt.command](unhex(t, tt.hex))
		wantError(t, err, tt.want)
	}
}

func TestNoPrefixOfAMessageBodyIsOne(t *testing.T) {
	t.Parallel()
	for _, tt := range goldenMessages {
		b := unhex(t, tt.hex)
		for n := range b {
			if v, err := decoders[tt.command](b[:n]); err == nil {
				t.Errorf("%v: %d bytes of %x decode to %+v", tt.command, n, b, v)
			}
		}
		if v, err := decoders[tt.command](append(b, 0)); err == nil {
			t.Errorf("%v: %x and a zero decode to %+v", tt.command, b, v)
		}
	}
}

func TestMessageBodyNotEncoded(t *testing.T) {
	t.Parallel()
	extend := func(f func(*Extend)) Extend {
		e := Extend{Specifiers: []LinkSpecifier{{99, nil}}, Total: 1, Handshake: []byte{1}}
		f(&e)
		return e
	}
	host := Address{Host: "a"}
	v4 := netip.MustParseAddr("192.0.2.1")
	for _, tt := range []struct {
		m    appender
		want string
	}{
		{extend(func(e *Extend) { e.Specifiers = nil }), "encoding EXTEND: 0 link specifiers, 1 to 8 are possible"},
		{extend(func(e *Extend) { e.Specifiers = make([]LinkSpecifier, 9) }), "encoding EXTEND: 9 link specifiers, 1 to 8 are possible"},
		{extend(func(e *Extend) { e.Specifiers[0].Value = make([]byte, 256) }), "encoding EXTEND: link specifier of 256 bytes, at most 255 are possible"},
		{extend(func(e *Extend) { e.Specifiers[0].Type = SpecifierIPv4 }), "encoding EXTEND: link specifier of type 1 with a bad address"},
		{extend(func(e *Extend) { e.Specifiers[0] = AddrPortSpecifier(netip.AddrPort{}) }), "encoding EXTEND: link specifier of type 1 with a bad address"},
		{extend(func(e *Extend) { e.Total = 2 }), "encoding EXTEND: handshake of 1 bytes, its total says 2"},
		{extend(func(e *Extend) { e.Total, e.Handshake = 2000, make([]byte, 2000) }), "encoding EXTEND: 2041 bytes, a message holds 2022"},
		{Extended{Offset: 1, Total: 1, Handshake: []byte{1}}, "encoding EXTENDED: handshake in several parts (total 1, offset 1)"},
		{Extended{Total: 2017, Handshake: make([]byte, 2017)}, "encoding EXTENDED: 2023 bytes, a message holds 2022"},
		{ExtendFailed{}, "encoding EXTEND_FAILED: no reason"},
		{Begin{8, host, 80}, "encoding BEGIN: unknown flags 0x8"},
		{Begin{0, host, 0}, "encoding BEGIN: port 0"},
		{Begin{0, Address{}, 80}, "encoding BEGIN: host name of 0 bytes, 1 to 255 are possible"},
		{Begin{0, Address{IP: v4, Host: "a"}, 80}, "encoding BEGIN: address has both an IP address and a host name"},
		{Begin{0, Address{Host: strings.Repeat("a", 256)}, 80}, "encoding BEGIN: host name of 256 bytes, 1 to 255 are possible"},
		{Begin{0, Address{Host: "192.0.2.1"}, 80}, "encoding BEGIN: IP address written as a host name"},
		{Begin{0, Address{Host: "a b"}, 80}, "encoding BEGIN: byte 0x20 in a host name"},
		{Begin{0, Address{IP: netip.MustParseAddr("fe80::1%eth0")}, 80}, "encoding BEGIN: IPv6 address with a zone"},
		{Begin{0, Address{IP: netip.MustParseAddr("::ffff:192.0.2.1")}, 80}, "encoding BEGIN: IPv4 address mapped to IPv6"},
		{Connected{netip.MustParseAddr("::ffff:192.0.2.1")}, "encoding CONNECTED: IPv4 address mapped to IPv6"},
		{Resolve{8, host}, "encoding RESOLVE: unknown flags 0x8"},
		{Resolve{0, Address{}}, "encoding RESOLVE: host name of 0 bytes, 1 to 255 are possible"},
		{Resolved{}, "encoding RESOLVED: success without an answer"},
		{Resolved{Reason: ReasonPolicy, Answers: []Address{host}}, "encoding RESOLVED: answers beside a reason for having none"},
		{Resolved{Answers: make([]Address, 256)}, "encoding RESOLVED: 256 answers, at most 255 are possible"},
		{Resolved{Answers: []Address{host, {}}}, "encoding RESOLVED: host name of 0 bytes, 1 to 255 are possible"},
		{Resolved{Answers: slicesOf(8, Address{Host: strings.Repeat("a", 255)})}, "encoding RESOLVED: 2062 bytes, a message holds 2022"},
		{Window{}, "encoding WINDOW: adds nothing"},
	} {
		b, err := tt.m.AppendTo([]byte("before"))
		wantError(t, err, tt.want)
		if string(b) != "before" {
			t.Errorf("%+v: %q after an error", tt.m, b)
		}
	}
}

func slicesOf(n int, a Address) []Address {
	s := make([]Address, n)
	for i := range s {
		s[i] = a
	}
	return s
}
