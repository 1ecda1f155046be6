package directory

import (
	"fmt"
	"time"

	"cepa/cert"
)

// Bounds of onion keys.
const (
	MaxOnionKeyStatement = 512                 // bytes, sealed
	MaxOnionKeyLifetime  = 40 * 24 * time.Hour // from the time of checking
)

// OnionKey is a relay's statement of its onion key, which it shows in HELLO. Clients use it for one-hop directory
// circuits only, and what the consensus says for all others.
//
// The body is a map; it is at most MaxOnionKeyStatement bytes, sealed by the relay's signing key:
//
//	1  key    32 bytes, the X25519 public key B
//	2  until  uint, ms
type OnionKey struct {
	Key   [32]byte
	Until time.Time // whole milliseconds
	// Identity is the relay that signed. OpenOnionKey sets it; SealOnionKey does not look at it.
	Identity   cert.Identity
	Extensions Extensions
}

type wireOnionKey struct {
	Key   []byte `cbor:"1,keyasint"`
	Until uint64 `cbor:"2,keyasint"`
}

// SealOnionKey signs a statement.
func SealOnionKey(network cert.NetworkID, k OnionKey, signer cert.Signer) ([]byte, error) {
	err := checkMilli(k.Until, "until")
	if err == nil {
		err = k.check()
	}
	var body []byte
	if err == nil {
		body, err = encodeMap(wireOnionKey{k.Key[:], milli(k.Until)}, k.Extensions)
	}
	if err != nil {
		return nil, fmt.Errorf("sealing an onion key statement: %w", err)
	}
	sealed, err := cert.Seal(cert.OnionKeyDocument, network, body, signer)
	if err == nil && len(sealed) > MaxOnionKeyStatement {
		return nil, fmt.Errorf("sealing an onion key statement: %w: %d bytes, at most %d", ErrTooLarge, len(sealed), MaxOnionKeyStatement)
	}
	return sealed, err
}

// OpenOnionKey verifies and decodes a statement. The caller compares Identity with the relay that showed it.
func OpenOnionKey(sealed []byte, network cert.NetworkID, now time.Time) (OnionKey, error) {
	doc, by, err := openOne(sealed, &Network{ID: network}, now, cert.OnionKeyDocument, MaxOnionKeyStatement)
	if err != nil {
		return OnionKey{}, err
	}
	k, err := decodeOnionKey(doc.Body)
	if err == nil {
		err = k.checkTime(now)
	}
	if err != nil {
		return OnionKey{}, fmt.Errorf("reading the onion key statement of %s: %w", by.Identity().Short(), err)
	}
	k.Identity = by.Identity()
	return k, nil
}

func decodeOnionKey(body []byte) (k OnionKey, err error) {
	var w wireOnionKey
	if k.Extensions, err = decodeMap(body, &w); err != nil {
		return OnionKey{}, err
	}
	if k.Key, err = read32(w.Key, "onion key"); err != nil {
		return OnionKey{}, err
	}
	if k.Until, err = readMilli(w.Until, "until"); err != nil {
		return OnionKey{}, err
	}
	return k, k.check()
}

// check checks the key; the handshake catches the other points of small order.
func (k OnionKey) check() error {
	if k.Key == [32]byte{} {
		return fmt.Errorf("%w onion key: all zero", ErrInvalid)
	}
	return nil
}

func (k OnionKey) checkTime(now time.Time) error {
	if !now.Before(k.Until) {
		return fmt.Errorf("onion key: %w at %v", ErrExpired, k.Until)
	}
	if k.Until.Sub(now) > MaxOnionKeyLifetime {
		return fmt.Errorf("%w onion key: valid until %v, more than %v from now", ErrInvalid, k.Until, MaxOnionKeyLifetime)
	}
	return nil
}

// read32 reads a byte string of 32 bytes.
func read32(b []byte, what string) (out [32]byte, err error) {
	if len(b) != 32 {
		return out, fmt.Errorf("%w %s: %d bytes, want 32", ErrMalformed, what, len(b))
	}
	return [32]byte(b), nil
}
