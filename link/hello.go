package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"cepa/cell"
	"cepa/cert"
)

// The types of the TLVs in HELLO that version 1 knows. Others are skipped.
const (
	tlvCertificates uint16 = 1 // cert.Chain: signing certificate, link certificate
	tlvTime         uint16 = 2 // u64, Unix milliseconds
	tlvOnionKey     uint16 = 3 // onion key statement in its envelope
	tlvObserved     uint16 = 4 // 16 bytes: the IPv6 (or mapped IPv4) address at which the sender sees the receiver
)

const (
	maxVersions  = 16
	latestMillis = 253402300799999 // the last millisecond of the year 9999
)

// Hello is what each side says first on a link, before anything else (docs/protocol.md, section "Link").
type Hello struct {
	Versions []uint16 // link protocol versions spoken, ascending, 1 to 16 of them
	Network  cert.NetworkID
	Flags    uint16 // none is defined; sent as 0, not looked at
	// A client sends none of what follows, so that all clients look alike. A relay sends the first three.
	Chain    *cert.Chain // proves that the key of the TLS session is the relay's
	Time     time.Time   // the clock of the sender, whole milliseconds; zero if not said
	OnionKey []byte      // the onion key statement, sealed; aliases what was decoded
	Observed netip.Addr  // where the sender sees the receiver; invalid if not said
	Unknown  []TLV       // TLVs of types that this version does not know, ascending
}

// TLV is a field of HELLO whose type this version does not know. Value aliases what was decoded.
type TLV struct {
	Type  uint16
	Value []byte
}

// AppendTo appends the wire form to b. It fails when there is no room for it in a HELLO cell or a field has no wire
// form; b comes back as it was then.
func (h *Hello) AppendTo(b []byte) ([]byte, error) {
	if n := len(h.Versions); n == 0 || n > maxVersions {
		return b, fmt.Errorf("encoding HELLO: %d versions, 1 to %d are possible", n, maxVersions)
	}
	out := append(b, byte(len(h.Versions)))
	for i, v := range h.Versions {
		if i > 0 && v <= h.Versions[i-1] {
			return b, fmt.Errorf("encoding HELLO: versions %d not ascending", h.Versions)
		}
		out = binary.BigEndian.AppendUint16(out, v)
	}
	out = append(out, h.Network[:]...)
	out = binary.BigEndian.AppendUint16(out, h.Flags)
	last := -1
	for _, f := range h.fields() {
		if int(f.Type) <= last || len(f.Value) > cell.MaxHello {
			return b, fmt.Errorf("encoding HELLO: field %d with %d bytes after field %d", f.Type, len(f.Value), last)
		}
		last = int(f.Type)
		out = binary.BigEndian.AppendUint16(out, f.Type)
		out = binary.BigEndian.AppendUint16(out, uint16(len(f.Value)))
		out = append(out, f.Value...)
	}
	if n := len(out) - len(b); n > cell.MaxHello {
		return b, fmt.Errorf("encoding HELLO: %d bytes, at most %d fit in a cell", n, cell.MaxHello)
	}
	return out, nil
}

// fields lists the TLVs by type.
func (h *Hello) fields() []TLV {
	fields := make([]TLV, 0, 4+len(h.Unknown))
	if h.Chain != nil {
		fields = append(fields, TLV{tlvCertificates, h.Chain.AppendTo(nil)})
	}
	if !h.Time.IsZero() {
		fields = append(fields, TLV{tlvTime, binary.BigEndian.AppendUint64(nil, uint64(h.Time.UnixMilli()))})
	}
	if len(h.OnionKey) != 0 {
		fields = append(fields, TLV{tlvOnionKey, h.OnionKey})
	}
	if h.Observed.IsValid() {
		as16 := h.Observed.As16()
		fields = append(fields, TLV{tlvObserved, as16[:]})
	}
	fields = append(fields, h.Unknown...)
	slices.SortStableFunc(fields, func(a, b TLV) int { return int(a.Type) - int(b.Type) })
	return fields
}

// DecodeHello decodes the content of a HELLO cell (as cell.DecodeHello returns it): everything in it, strictly, but
// for TLVs of unknown types, which are kept as they are. It verifies nothing. The result aliases content. What it
// accepts, AppendTo turns into the same bytes again.
//
//	count     u8      1 to 16
//	versions  u16     each, strictly ascending
//	network   32      network id
//	flags     u16
//	TLVs to the end, strictly ascending by type:
//	  type    u16
//	  length  u16
//	  value
func DecodeHello(content []byte) (*Hello, error) {
	if len(content) > cell.MaxHello {
		return nil, fmt.Errorf("decoding HELLO: %d bytes, at most %d fit in a cell", len(content), cell.MaxHello)
	}
	h := new(Hello)
	s := cryptobyte.String(content)
	if err := h.decode(&s); err != nil {
		return nil, fmt.Errorf("decoding HELLO at byte %d: %w", len(content)-len(s), err)
	}
	return h, nil
}

func (h *Hello) decode(s *cryptobyte.String) error {
	var count uint8
	if !s.ReadUint8(&count) {
		return fmt.Errorf("cut short in the versions")
	}
	if count == 0 || count > maxVersions {
		return fmt.Errorf("%d versions, 1 to %d are possible", count, maxVersions)
	}
	for i := range int(count) {
		var v uint16
		if !s.ReadUint16(&v) {
			return fmt.Errorf("cut short in the versions")
		}
		if i > 0 && v <= h.Versions[i-1] {
			return fmt.Errorf("version %d after %d: not ascending", v, h.Versions[i-1])
		}
		h.Versions = append(h.Versions, v)
	}
	if !s.CopyBytes(h.Network[:]) {
		return fmt.Errorf("cut short in the network id")
	}
	if !s.ReadUint16(&h.Flags) {
		return fmt.Errorf("cut short in the flags")
	}
	last := -1
	for !s.Empty() {
		var kind uint16
		var value cryptobyte.String
		if !s.ReadUint16(&kind) || !s.ReadUint16LengthPrefixed(&value) {
			return fmt.Errorf("cut short in a field")
		}
		if int(kind) <= last {
			return fmt.Errorf("field %d after %d: not ascending", kind, last)
		}
		last = int(kind)
		if err := h.decodeField(kind, value); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hello) decodeField(kind uint16, value []byte) error {
	switch kind {
	case tlvCertificates:
		chain, err := cert.DecodeChain(value)
		if err != nil {
			return fmt.Errorf("certificates: %w", err)
		}
		h.Chain = &chain
	case tlvTime:
		if len(value) != 8 {
			return fmt.Errorf("time of %d bytes instead of 8", len(value))
		}
		ms := binary.BigEndian.Uint64(value)
		if ms == 0 || ms > latestMillis {
			return fmt.Errorf("time %d out of bounds", ms)
		}
		h.Time = time.UnixMilli(int64(ms)).UTC()
	case tlvOnionKey:
		if len(value) == 0 {
			return fmt.Errorf("empty onion key statement")
		}
		h.OnionKey = value
	case tlvObserved:
		if len(value) != 16 {
			return fmt.Errorf("observed address of %d bytes instead of 16", len(value))
		}
		h.Observed = netip.AddrFrom16([16]byte(value)).Unmap()
	default:
		h.Unknown = append(h.Unknown, TLV{kind, value})
	}
	return nil
}

// commonVersion is the highest number in both ascending lists.
func commonVersion(a, b []uint16) (uint16, bool) {
	for i, j := len(a)-1, len(b)-1; i >= 0 && j >= 0; {
		switch {
		case a[i] == b[j]:
			return a[i], true
		case a[i] > b[j]:
			i--
		default:
			j--
		}
	}
	return 0, false
}
