package cell

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
)

// IdentitySize is the length in bytes of a relay's identity, an Ed25519 public key.
const IdentitySize = 32

// MaxSpecifiers is how many link specifiers an EXTEND can have.
const MaxSpecifiers = 8

// Types of link specifiers that this version understands.
const (
	SpecifierIPv4 = 1 // value: address (4), port (2)
	SpecifierIPv6 = 2 // value: address (16), port (2)
)

// LinkSpecifier is one way to reach a relay. Specifiers of a type that this version does not have are kept as they
// are and not used.
type LinkSpecifier struct {
	Type  uint8
	Value []byte // at most 255 bytes
}

// AddrPortSpecifier returns the specifier of a TCP address; an IPv4 address mapped to IPv6 becomes plain IPv4, and a
// zone, which means nothing on another machine, is left out.
func AddrPortSpecifier(ap netip.AddrPort) LinkSpecifier {
	ip := ap.Addr().Unmap()
	s := LinkSpecifier{Type: SpecifierIPv4, Value: ip.AsSlice()}
	if ip.Is6() {
		s.Type = SpecifierIPv6
	}
	s.Value = append(s.Value, byte(ap.Port()>>8), byte(ap.Port()))
	return s
}

// AddrPort returns the TCP address of s, and false when s is of another kind or not well formed.
func (s LinkSpecifier) AddrPort() (netip.AddrPort, bool) {
	var size int
	switch s.Type {
	case SpecifierIPv4:
		size = 4
	case SpecifierIPv6:
		size = 16
	default:
		return netip.AddrPort{}, false
	}
	if len(s.Value) != size+2 {
		return netip.AddrPort{}, false
	}
	ip, _ := netip.AddrFromSlice(s.Value[:size])
	port := uint16(s.Value[size])<<8 | uint16(s.Value[size+1])
	return netip.AddrPortFrom(ip, port), port != 0 && !ip.Is4In6()
}

// check returns why s has no encoding.
func (s LinkSpecifier) check() error {
	if len(s.Value) > 255 {
		return fmt.Errorf("link specifier of %d bytes, at most 255 are possible", len(s.Value))
	}
	if s.Type == SpecifierIPv4 || s.Type == SpecifierIPv6 {
		if _, ok := s.AddrPort(); !ok {
			return fmt.Errorf("link specifier of type %d with a bad address", s.Type)
		}
	}
	return nil
}

// Extend is the data of an EXTEND message: the relay to extend the circuit to, how to reach it, and the first half of
// the handshake with it (docs/protocol.md, "EXTEND"). The credit of the new hop is not here: it is between neighbours.
type Extend struct {
	Identity      [IdentitySize]byte
	Specifiers    []LinkSpecifier // 1 to MaxSpecifiers
	Type          uint16          // of the handshake
	Total, Offset uint16          // as in Create: the length of Handshake, and 0
	Handshake     []byte
}

// AppendTo appends the encoding of e to b. After an error, an *Error, b comes back as it was.
func (e Extend) AppendTo(b []byte) ([]byte, error) {
	if len(e.Specifiers) == 0 || len(e.Specifiers) > MaxSpecifiers {
		return b, encodeError("EXTEND", "%d link specifiers, 1 to %d are possible", len(e.Specifiers), MaxSpecifiers)
	}
	for _, s := range e.Specifiers {
		if err := s.check(); err != nil {
			return b, encodeError("EXTEND", "%v", err)
		}
	}
	if err := checkHandshake(e.Total, e.Offset, len(e.Handshake), MaxData); err != nil {
		return b, encodeError("EXTEND", "%v", err)
	}
	w := cryptobyte.NewBuilder(b)
	w.AddBytes(e.Identity[:])
	w.AddUint8(uint8(len(e.Specifiers)))
	for _, s := range e.Specifiers {
		w.AddUint8(s.Type)
		w.AddUint8(uint8(len(s.Value)))
		w.AddBytes(s.Value)
	}
	addHandshake(w, e.Type, e.Total, e.Offset, e.Handshake)
	return finishMessage("EXTEND", b, w)
}

// DecodeExtend reads the data of an EXTEND message. Specifiers and Handshake alias data.
//
//	0   32        identity of the next relay
//	32  1         count of link specifiers, 1 to 8
//	              each: type (1), length (1), value (length);
//	              type 1: IPv4 address (4), port (2, not 0); type 2: IPv6 address (16), port (2, not 0); others opaque
//	+0  2         handshake type
//	+2  2         total length of the handshake, at least 1
//	+4  2         offset of this part, 0
//	+6  total     handshake, to the end of the data
func DecodeExtend(data []byte) (Extend, error) {
	r := newReader("EXTEND", data)
	var e Extend
	copy(e.Identity[:], r.bytes(IdentitySize, "identity"))
	count := int(r.uint8("count of link specifiers"))
	if count == 0 || count > MaxSpecifiers {
		r.failf("%d link specifiers, 1 to %d are possible", count, MaxSpecifiers)
	}
	if r.err == nil {
		e.Specifiers = make([]LinkSpecifier, 0, count)
	}
	for i := 0; i < count && r.err == nil; i++ {
		s := LinkSpecifier{Type: r.uint8("link specifier type")}
		start := r.at
		s.Value = r.bytes(int(r.uint8("link specifier length")), "link specifier")
		if err := s.check(); err != nil {
			r.at = start
			r.failf("%v", err)
		}
		e.Specifiers = append(e.Specifiers, s)
	}
	e.Type, e.Total, e.Offset, e.Handshake = r.handshake()
	if err := r.finish(); err != nil {
		return Extend{}, err
	}
	return e, nil
}

// Extended is the data of an EXTENDED message: the second half of the handshake with the new hop.
type Extended struct {
	Type          uint16
	Total, Offset uint16 // as in Create: the length of Handshake, and 0
	Handshake     []byte
}

// AppendTo appends the encoding of e to b. After an error, an *Error, b comes back as it was.
func (e Extended) AppendTo(b []byte) ([]byte, error) {
	if err := checkHandshake(e.Total, e.Offset, len(e.Handshake), MaxData); err != nil {
		return b, encodeError("EXTENDED", "%v", err)
	}
	w := cryptobyte.NewBuilder(b)
	addHandshake(w, e.Type, e.Total, e.Offset, e.Handshake)
	return finishMessage("EXTENDED", b, w)
}

// DecodeExtended reads the data of an EXTENDED message. Handshake aliases data.
//
//	0  2      handshake type
//	2  2      total length of the handshake, at least 1
//	4  2      offset of this part, 0
//	6  total  handshake, to the end of the data
func DecodeExtended(data []byte) (Extended, error) {
	r := newReader("EXTENDED", data)
	var e Extended
	e.Type, e.Total, e.Offset, e.Handshake = r.handshake()
	if err := r.finish(); err != nil {
		return Extended{}, err
	}
	return e, nil
}

// ExtendFailed is the data of an EXTEND_FAILED message: the circuit could not be extended, and stands as it was.
type ExtendFailed struct {
	Reason Reason // not 0
}

// AppendTo appends the encoding of e to b. After an error, an *Error, b comes back as it was.
func (e ExtendFailed) AppendTo(b []byte) ([]byte, error) {
	if e.Reason == ReasonNone {
		return b, encodeError("EXTEND_FAILED", "no reason")
	}
	return append(b, byte(e.Reason)), nil
}

// DecodeExtendFailed reads the data of an EXTEND_FAILED message.
//
//	0  1  reason, not 0
func DecodeExtendFailed(data []byte) (ExtendFailed, error) {
	r := newReader("EXTEND_FAILED", data)
	e := ExtendFailed{Reason(r.uint8("reason"))}
	if e.Reason == ReasonNone {
		r.failf("no reason")
	}
	if err := r.finish(); err != nil {
		return ExtendFailed{}, err
	}
	return e, nil
}

// checkHandshake returns why a handshake part of n bytes cannot be: this version has no handshakes of several parts.
func checkHandshake(total, offset uint16, n, most int) error {
	switch {
	case total == 0:
		return errors.New("no handshake")
	case offset != 0 || int(total) > most:
		return fmt.Errorf("handshake in several parts (total %d, offset %d)", total, offset)
	case int(total) != n:
		return fmt.Errorf("handshake of %d bytes, its total says %d", n, total)
	}
	return nil
}

func addHandshake(w *cryptobyte.Builder, typ, total, offset uint16, handshake []byte) {
	w.AddUint16(typ)
	w.AddUint16(total)
	w.AddUint16(offset)
	w.AddBytes(handshake)
}

// handshake reads a handshake that goes to the end of the data.
func (r *reader) handshake() (typ, total, offset uint16, handshake []byte) {
	typ = r.uint16("handshake type")
	total = r.uint16("handshake total")
	start := r.at
	offset = r.uint16("handshake offset")
	r.at = start
	if err := checkHandshake(total, offset, len(r.rest), MaxData); err != nil {
		r.failf("%v", err)
	}
	return typ, total, offset, r.bytes(len(r.rest), "handshake")
}

// finishMessage returns what w has appended to b, unless no message can hold it.
func finishMessage(what string, b []byte, w *cryptobyte.Builder) ([]byte, error) {
	out, err := w.Bytes()
	if err != nil {
		return b, encodeError(what, "%v", err)
	}
	if n := len(out) - len(b); n > MaxData {
		return b, encodeError(what, "%d bytes, a message holds %d", n, MaxData)
	}
	return out, nil
}
