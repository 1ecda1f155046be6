package directory

import (
	"fmt"
	"math"
	"time"

	"cepa/cert"
)

// Bounds of a measurement ticket.
const (
	MaxSpeedTicket = 400     // bytes, sealed
	MaxSpeedBytes  = 1 << 27 // bytes that one ticket can ask for

	// SpeedTicketLifetime is for how long an authority makes a ticket good. It is long for a ticket that is used at once:
	// the clock of the relay may be off by as much as that of one whose descriptor is accepted.
	SpeedTicketLifetime = 10 * time.Minute
	// maxSpeedTicketLife is how far in the future a ticket may expire by the clock of the relay.
	maxSpeedTicketLife = 2 * SpeedTicketLifetime
)

// SpeedTicket is an authority's word that a relay may send it bytes that mean nothing, so that it sees how fast they come
// (docs/protocol.md, section "Measurement").
//
// The body is a map, at most MaxSpeedTicket bytes when sealed by the authority's signing key:
//
//	1  audience  32 bytes, identity of the relay
//	2  bytes     uint, 1 to MaxSpeedBytes
//	3  expires   uint, ms
//	4  nonce     16 bytes
type SpeedTicket struct {
	Audience   cert.Identity
	Bytes      int       // 1 to MaxSpeedBytes
	Expires    time.Time // whole milliseconds
	Nonce      [16]byte  // random: a ticket is good once
	Extensions Extensions

	// Authority is who signed. OpenSpeedTicket sets it; SealSpeedTicket does not look at it.
	Authority cert.Identity
}

type wireSpeedTicket struct {
	Audience []byte `cbor:"1,keyasint"`
	Bytes    uint64 `cbor:"2,keyasint"`
	Expires  uint64 `cbor:"3,keyasint"`
	Nonce    []byte `cbor:"4,keyasint"`
}

// SealSpeedTicket checks and signs a ticket.
func SealSpeedTicket(network *Network, t SpeedTicket, signer cert.Signer) ([]byte, error) {
	sealed, err := sealSpeedTicket(network, t, signer)
	if err != nil {
		return nil, fmt.Errorf("sealing a measurement ticket: %w", err)
	}
	return sealed, nil
}

func sealSpeedTicket(network *Network, t SpeedTicket, signer cert.Signer) ([]byte, error) {
	if err := checkMilli(t.Expires, "expires"); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	body, err := encodeMap(t.wire(), t.Extensions)
	if err != nil {
		return nil, err
	}
	sealed, err := cert.Seal(cert.TicketDocument, network.ID, body, signer)
	if err == nil && len(sealed) > MaxSpeedTicket {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(sealed), MaxSpeedTicket)
	}
	return sealed, err
}

// OpenSpeedTicket verifies and decodes a ticket for a relay: it must be of one of the network's authorities, for this
// relay, and good at now. Whether it was used before is for the caller to say.
func OpenSpeedTicket(sealed []byte, network *Network, audience cert.Identity, now time.Time) (SpeedTicket, error) {
	doc, by, err := openOne(sealed, network, now, cert.TicketDocument, MaxSpeedTicket)
	if err != nil {
		return SpeedTicket{}, err
	}
	t, err := decodeSpeedTicket(doc.Body)
	switch {
	case err != nil:
	case !network.IsAuthority(by.Identity()):
		err = fmt.Errorf("%w: %s is none of the network's authorities", ErrSigners, by.Identity().Short())
	case t.Audience != audience:
		err = fmt.Errorf("%w audience: another relay", ErrInvalid)
	case !now.Before(t.Expires):
		err = fmt.Errorf("%w at %v", ErrExpired, t.Expires)
	case t.Expires.Sub(now) > maxSpeedTicketLife:
		err = fmt.Errorf("%w: it expires at %v, and the clock here says %v", ErrFromTheFuture, t.Expires, now.UTC())
	}
	if err != nil {
		return SpeedTicket{}, fmt.Errorf("reading a measurement ticket of %s: %w", by.Identity().Short(), err)
	}
	t.Authority = by.Identity()
	return t, nil
}

func (t SpeedTicket) wire() wireSpeedTicket {
	return wireSpeedTicket{t.Audience[:], uint64(t.Bytes), milli(t.Expires), t.Nonce[:]}
}

func decodeSpeedTicket(body []byte) (t SpeedTicket, err error) {
	var w wireSpeedTicket
	if t.Extensions, err = decodeMap(body, &w); err != nil {
		return SpeedTicket{}, err
	}
	if t.Audience, err = read32(w.Audience, "audience"); err != nil {
		return SpeedTicket{}, err
	}
	if t.Expires, err = readMilli(w.Expires, "expires"); err != nil {
		return SpeedTicket{}, err
	}
	if len(w.Nonce) != len(t.Nonce) {
		return SpeedTicket{}, fmt.Errorf("%w nonce: %d bytes, want %d", ErrMalformed, len(w.Nonce), len(t.Nonce))
	}
	t.Nonce = [16]byte(w.Nonce)
	t.Bytes = int(min(w.Bytes, math.MaxInt32))
	return t, t.check()
}

func (t SpeedTicket) check() error {
	switch {
	case t.Audience.IsZero():
		return fmt.Errorf("%w audience: all zero", ErrInvalid)
	case t.Bytes < 1 || t.Bytes > MaxSpeedBytes:
		return fmt.Errorf("%w: a ticket for %d bytes, want 1 to %d", ErrInvalid, t.Bytes, MaxSpeedBytes)
	}
	return nil
}
