package directory

import (
	"fmt"
	"slices"
	"strings"
)

// Protocol is a version of one part of the protocol that a relay speaks: a part in the upper 16 bits, a version in
// the lower. A client asks a relay only for what the consensus lists for it.
type Protocol uint32

// The parts of the protocol.
const (
	LinkProtocol      = 1 // links, cells and their commands
	HandshakeProtocol = 2 // CREATE and EXTEND
	RelayProtocol     = 3 // relay crypto, relay messages and flow control
	DirectoryProtocol = 4 // BEGIN_DIR and the documents
)

// MakeProtocol returns the Protocol for a version of a part.
func MakeProtocol(part, version uint16) Protocol { return Protocol(part)<<16 | Protocol(version) }

// Part returns the part of the protocol.
func (p Protocol) Part() uint16 { return uint16(p >> 16) }

// Version returns the version of the part.
func (p Protocol) Version() uint16 { return uint16(p) }

// String returns, for example, "link=1".
func (p Protocol) String() string {
	names := map[uint16]string{LinkProtocol: "link", HandshakeProtocol: "handshake", RelayProtocol: "relay", DirectoryProtocol: "directory"}
	name, ok := names[p.Part()]
	if !ok {
		name = fmt.Sprintf("part%d", p.Part())
	}
	return fmt.Sprintf("%s=%d", name, p.Version())
}

// Protocols is a set of protocols in strictly ascending order, at most 64.
type Protocols []Protocol

// maxProtocols bounds a set of protocols.
const maxProtocols = 64

// OurProtocols returns what this version of the software speaks.
func OurProtocols() Protocols {
	return Protocols{
		MakeProtocol(LinkProtocol, 1),
		MakeProtocol(HandshakeProtocol, 1),
		MakeProtocol(RelayProtocol, 1),
		MakeProtocol(DirectoryProtocol, 1),
	}
}

// Has reports whether p is in the set.
func (s Protocols) Has(p Protocol) bool {
	_, found := slices.BinarySearch(s, p)
	return found
}

// Missing returns what of wanted is not in s: what a node lacks of the required or recommended protocols.
func (s Protocols) Missing(wanted Protocols) Protocols {
	var out Protocols
	for _, p := range wanted {
		if !s.Has(p) {
			out = append(out, p)
		}
	}
	return out
}

// String returns the set separated by spaces.
func (s Protocols) String() string {
	texts := make([]string, len(s))
	for i, p := range s {
		texts[i] = p.String()
	}
	return strings.Join(texts, " ")
}

func (s Protocols) check() error {
	if len(s) > maxProtocols {
		return fmt.Errorf("%w: %d protocols, at most %d", ErrTooLarge, len(s), maxProtocols)
	}
	for i := range s {
		if i > 0 && s[i] <= s[i-1] {
			return fmt.Errorf("protocols: %w: not ascending", ErrNotCanonical)
		}
	}
	return nil
}
