package directory

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cepa/cert"
)

// Bounds of a consensus.
const (
	MaxConsensusHead = 16 << 10 // bytes, sealed: 32 signers and the body of the head
	MaxConsensusBody = 8 << 20  // bytes
	MaxRelays        = 1<<16 - 1

	maxHeadBody = 1024
)

// ConsensusMethod is the newest way of making a consensus that this version knows. Authorities use the highest that
// a quorum of them supports.
const ConsensusMethod = 1

// A consensus is fresh for one interval of the network, worth a warning after three, and valid for 24.
const (
	staleIntervals = 3
	validIntervals = 24
)

// Flags are what the authorities say of a relay. Bits that this version does not know are kept.
type Flags uint32

// The flags.
const (
	FlagAuthority  Flags = 1 << iota // carries a directory authority
	FlagGuard                        // may be the first hop of a circuit
	FlagExit                         // has a port summary that is not empty, and may be used as an exit
	FlagFast                         // carries enough for bulk traffic
	FlagStable                       // stays up long enough for long-lived streams
	FlagRunning                      // was reachable when the consensus was made
	FlagValid                        // may be used at all
	FlagMiddleOnly                   // may be used as a middle only
	FlagBadExit                      // must not be used as an exit
	FlagIPv6Exit                     // reaches IPv6 as an exit
)

var flagNames = [...]string{"Authority", "Guard", "Exit", "Fast", "Stable", "Running", "Valid", "MiddleOnly", "BadExit", "IPv6Exit"}

// Has reports whether all of want are set.
func (f Flags) Has(want Flags) bool { return f&want == want }

// String returns the names of the flags separated by spaces.
func (f Flags) String() string {
	var names []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := f >> len(flagNames); rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest<<len(flagNames))))
	}
	return strings.Join(names, " ")
}

// Relay is what a consensus says of one relay: all that a client needs to build circuits through it.
type Relay struct {
	Identity   cert.Identity
	OnionKey   [32]byte
	Addresses  []netip.AddrPort // 1 to 8
	Flags      Flags
	Weight     uint32 // KiB a second that the authorities trust it to carry; clients choose in proportion
	Ports      PortSummary
	Protocols  Protocols
	Families   []cert.FamilyID // at most 4, ascending
	Nickname   string
	Extensions Extensions
}

// Head is the signed part of a consensus.
//
// The body of the document is a map; the document has at least a quorum of the authorities as signers:
//
//	1  valid after  uint, ms
//	2  fresh until  uint, ms: one interval later, at least 500 ms and at most a day
//	3  valid until  uint, ms: 24 intervals after valid after
//	4  previous     32 bytes, the digest of the consensus before it; absent in the first
//	5  method       uint
//	6  length       uint, of the body of the consensus
//	7  digest       32 bytes: SHA-256 over "cepa1 consensus body" | network id (32) | the body of the consensus
//	8  previous at  uint, ms: the valid after of 4; absent when that is, or when it is not said
type Head struct {
	ValidAfter time.Time // whole milliseconds
	FreshUntil time.Time
	ValidUntil time.Time
	Previous   cert.Digest // zero in the first consensus of a network
	PreviousAt time.Time   // the valid after of Previous; zero when it is not said
	Method     uint64
	BodyLength uint32
	BodyDigest cert.Digest
	Extensions Extensions

	// Digest is that of the document, and Signers the authorities that signed it, ascending. OpenHead sets them.
	Digest  cert.Digest
	Signers []cert.Identity
}

type wireHead struct {
	ValidAfter uint64 `cbor:"1,keyasint"`
	FreshUntil uint64 `cbor:"2,keyasint"`
	ValidUntil uint64 `cbor:"3,keyasint"`
	Previous   []byte `cbor:"4,keyasint,omitempty"`
	Method     uint64 `cbor:"5,keyasint"`
	BodyLength uint32 `cbor:"6,keyasint"`
	BodyDigest []byte `cbor:"7,keyasint"`
	PreviousAt uint64 `cbor:"8,keyasint,omitempty"`
}

// OpenHead verifies and decodes the head of a consensus. At least a quorum of the network's authorities must have
// signed it; signers that the network file does not know do not count and do no harm. An authority must not sign
// with a certificate that ends before the consensus does, since every signature must be good at now.
//
// OpenHead does not compare the dates of the consensus with now: see State.
func OpenHead(sealed []byte, network *Network, now time.Time) (*Head, error) {
	if len(sealed) > MaxConsensusHead {
		return nil, fmt.Errorf("opening a consensus: %w: a head of %d bytes, at most %d", ErrTooLarge, len(sealed), MaxConsensusHead)
	}
	doc, err := network.open(sealed, now, cert.ConsensusDocument, maxHeadBody)
	if err != nil {
		return nil, err
	}
	signers := slices.DeleteFunc(doc.Signers(), func(id cert.Identity) bool { return !network.IsAuthority(id) })
	if len(signers) < network.Quorum {
		return nil, fmt.Errorf("opening a consensus: %w: %d of the authorities, want %d", ErrSigners, len(signers), network.Quorum)
	}
	h, err := decodeHead(doc.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the head of a consensus: %w", err)
	}
	h.Digest, h.Signers = doc.Digest, signers
	return h, nil
}

// decodeHead decodes and checks the body of a head.
func decodeHead(body []byte) (*Head, error) {
	var w wireHead
	ext, err := decodeMap(body, &w)
	if err != nil {
		return nil, err
	}
	h := &Head{Method: w.Method, BodyLength: w.BodyLength, Extensions: ext}
	if h.ValidAfter, err = readMilli(w.ValidAfter, "valid after"); err != nil {
		return nil, err
	}
	if h.FreshUntil, err = readMilli(w.FreshUntil, "fresh until"); err != nil {
		return nil, err
	}
	if h.ValidUntil, err = readMilli(w.ValidUntil, "valid until"); err != nil {
		return nil, err
	}
	if len(w.Previous) > 0 {
		if h.Previous, err = read32(w.Previous, "previous digest"); err != nil {
			return nil, err
		}
		if h.Previous.IsZero() {
			return nil, fmt.Errorf("previous digest: %w: zero instead of absent", ErrNotCanonical)
		}
	}
	if w.PreviousAt != 0 {
		if h.PreviousAt, err = readMilli(w.PreviousAt, "previous at"); err != nil {
			return nil, err
		}
	}
	if h.BodyDigest, err = read32(w.BodyDigest, "body digest"); err != nil {
		return nil, err
	}
	return h, h.check()
}

func (h *Head) check() error {
	info, _ := IntervalMillis.Info()
	interval := h.FreshUntil.Sub(h.ValidAfter)
	switch {
	case interval < time.Duration(info.Min)*time.Millisecond || interval > time.Duration(info.Max)*time.Millisecond:
		return fmt.Errorf("%w dates: fresh for %v", ErrInvalid, interval)
	case h.ValidUntil.Sub(h.ValidAfter) != validIntervals*interval:
		return fmt.Errorf("%w dates: fresh for %v, but valid for %v", ErrInvalid, interval, h.ValidUntil.Sub(h.ValidAfter))
	case !h.PreviousAt.IsZero() && (h.Previous.IsZero() || !h.PreviousAt.Before(h.ValidAfter)):
		return fmt.Errorf("%w date of the consensus before: %v", ErrInvalid, h.PreviousAt)
	case h.Method == 0:
		return fmt.Errorf("%w method: 0", ErrInvalid)
	case h.BodyLength == 0 || h.BodyLength > MaxConsensusBody:
		return fmt.Errorf("%w body length: %d, want 1 to %d", ErrInvalid, h.BodyLength, MaxConsensusBody)
	}
	return nil
}

func (h *Head) body() ([]byte, error) {
	w := wireHead{
		ValidAfter: milli(h.ValidAfter),
		FreshUntil: milli(h.FreshUntil),
		ValidUntil: milli(h.ValidUntil),
		Method:     h.Method,
		BodyLength: h.BodyLength,
		BodyDigest: h.BodyDigest[:],
	}
	if !h.Previous.IsZero() {
		w.Previous = h.Previous[:]
	}
	if !h.PreviousAt.IsZero() {
		w.PreviousAt = milli(h.PreviousAt)
	}
	return encodeMap(w, h.Extensions)
}

// Interval returns the time from one consensus to the next.
func (h *Head) Interval() time.Duration { return h.FreshUntil.Sub(h.ValidAfter) }

// State says how a consensus stands to the time.
type State uint8

// The states, in the order in which a consensus passes through them.
const (
	NotYetValid State = iota // before valid after
	Fresh                    // for one interval
	Usable                   // a newer one should exist; use this one until it is here
	Stale                    // after three intervals: usable, but the person should be warned
	Expired                  // after 24 intervals: not to be used
)

// String returns the name of the state in lower-case words.
func (s State) String() string {
	switch s {
	case NotYetValid:
		return "not yet valid"
	case Fresh:
		return "fresh"
	case Usable:
		return "usable"
	case Stale:
		return "stale"
	case Expired:
		return "expired"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// State returns the state at now. A clock that is late by a little sees a new consensus as not yet valid; how much
// of that to forgive is for the caller.
func (h *Head) State(now time.Time) State {
	switch {
	case now.Before(h.ValidAfter):
		return NotYetValid
	case now.Before(h.FreshUntil):
		return Fresh
	case now.Before(h.ValidAfter.Add(staleIntervals * h.Interval())):
		return Usable
	case now.Before(h.ValidUntil):
		return Stale
	}
	return Expired
}

// Errors of Head.Follows.
var (
	// ErrRollback: the consensus is older than the one held. It is to be refused.
	ErrRollback = errors.New("older than the consensus held")
	// ErrFork: both are of one time but differ, or the newer names another predecessor than the one held. Keep both
	// as evidence, go on with the one held, and raise an alarm: this cannot happen while the authorities are honest.
	ErrFork = errors.New("another consensus than the one held for the same time")
)

// Follows returns nil when h may take the place of held, the consensus that is in use: it is newer, or the same. Of
// the predecessor that h names it can say something only when that is of held's time. One of another time proves
// nothing: honest authorities name the newest consensus that those of them who voted had seen, and one that was signed
// in the last moment may be known to few.
func (h *Head) Follows(held *Head) error {
	switch {
	case h.ValidAfter.Before(held.ValidAfter):
		return fmt.Errorf("%w: %v after %v", ErrRollback, h.ValidAfter, held.ValidAfter)
	case h.ValidAfter.Equal(held.ValidAfter) && h.Digest != held.Digest:
		return fmt.Errorf("%w: %v, %s instead of %s", ErrFork, h.ValidAfter, h.Digest.Short(), held.Digest.Short())
	case h.followsTimeOf(held) && h.Previous != held.Digest:
		return fmt.Errorf("%w: %v comes after %s instead of %s", ErrFork, h.ValidAfter, h.Previous.Short(), held.Digest.Short())
	}
	return nil
}

// followsTimeOf says whether h names a predecessor of held's time. A head that does not say of what time its
// predecessor is means the one that it comes right after.
func (h *Head) followsTimeOf(held *Head) bool {
	if !h.PreviousAt.IsZero() {
		return h.PreviousAt.Equal(held.ValidAfter)
	}
	return h.ValidAfter.Equal(held.FreshUntil)
}

// bodyDigest is what a head says of the body.
func bodyDigest(network cert.NetworkID, body []byte) cert.Digest {
	d := sha256.New()
	d.Write([]byte("cepa1 consensus body"))
	d.Write(network[:])
	d.Write(body)
	return cert.Digest(d.Sum(nil))
}
