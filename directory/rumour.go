package directory

import (
	"fmt"
	"net/netip"
	"time"

	"cepa/cert"
)

// MaxRumour is the largest rumour in bytes, sealed: what fits in the metadata of a gossip member.
const MaxRumour = 512

// Rumour is what a relay spreads of itself by gossip: that a descriptor with this digest exists. It proves nothing
// but that the relay signed it; the descriptor is fetched by its digest.
//
// The body is a map, at most MaxRumour bytes when sealed by the relay's signing key:
//
//	1  digest     32 bytes, of the descriptor
//	2  address    address (4 or 16 bytes) and port (2 bytes) in one byte string
//	3  published  uint, ms: that of the descriptor
//	4  expires    uint, ms: that of the descriptor, or earlier
type Rumour struct {
	Descriptor cert.Digest
	Address    netip.AddrPort // where the relay can be reached
	Published  time.Time      // whole milliseconds
	Expires    time.Time      // whole milliseconds, at most DescriptorLifetime after Published
	Extensions Extensions

	// Identity is the relay that signed, and Issued the time of issue of its signing certificate. OpenRumour sets
	// them; SealRumour does not look at them.
	Identity cert.Identity
	Issued   time.Time
}

type wireRumour struct {
	Descriptor []byte `cbor:"1,keyasint"`
	Address    []byte `cbor:"2,keyasint"`
	Published  uint64 `cbor:"3,keyasint"`
	Expires    uint64 `cbor:"4,keyasint"`
}

// RumourOf returns the rumour of a descriptor that OpenDescriptor returned.
func RumourOf(d *Descriptor) Rumour {
	return Rumour{Descriptor: d.Digest, Address: d.Addresses[0], Published: d.Published, Expires: d.Expires()}
}

// SealRumour checks and signs a rumour.
func SealRumour(network *Network, r Rumour, signer cert.Signer) ([]byte, error) {
	sealed, err := sealRumour(network, r, signer)
	if err != nil {
		return nil, fmt.Errorf("sealing a rumour: %w", err)
	}
	return sealed, nil
}

func sealRumour(network *Network, r Rumour, signer cert.Signer) ([]byte, error) {
	if err := checkMilli(r.Published, "published"); err != nil {
		return nil, err
	}
	if err := checkMilli(r.Expires, "expires"); err != nil {
		return nil, err
	}
	if err := r.check(network); err != nil {
		return nil, err
	}
	body, err := encodeMap(wireRumour{r.Descriptor[:], addrBytes(r.Address), milli(r.Published), milli(r.Expires)}, r.Extensions)
	if err != nil {
		return nil, err
	}
	sealed, err := cert.Seal(cert.RumourDocument, network.ID, body, signer)
	if err == nil && len(sealed) > MaxRumour {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(sealed), MaxRumour)
	}
	return sealed, err
}

// OpenRumour verifies and decodes a rumour that is valid at now.
func OpenRumour(sealed []byte, network *Network, now time.Time) (Rumour, error) {
	r, err := openRemembered(sealed, network, now, cert.RumourDocument, func() (Rumour, cert.Endorsement, error) {
		return openRumour(sealed, network, now)
	})
	if err != nil {
		return Rumour{}, err
	}
	if r.Published.After(now.Add(DescriptorClockSkew)) {
		err = fmt.Errorf("%w: published %v, and the clock here says %v", ErrFromTheFuture, r.Published, now.UTC())
	}
	if err == nil && !now.Before(r.Expires) {
		err = fmt.Errorf("%w at %v", ErrExpired, r.Expires)
	}
	if err != nil {
		return Rumour{}, fmt.Errorf("reading a rumour of %s: %w", r.Identity.Short(), err)
	}
	return r, nil
}

// openRumour is OpenRumour but for its dates.
func openRumour(sealed []byte, network *Network, now time.Time) (Rumour, cert.Endorsement, error) {
	doc, by, err := openOne(sealed, network, now, cert.RumourDocument, MaxRumour)
	if err != nil {
		return Rumour{}, by, err
	}
	r, err := decodeRumour(doc.Body)
	if err == nil {
		err = r.check(network)
	}
	if err != nil {
		return Rumour{}, by, fmt.Errorf("reading a rumour of %s: %w", by.Identity().Short(), err)
	}
	r.Identity, r.Issued = by.Identity(), by.Certificate.Issued()
	return r, by, nil
}

func decodeRumour(body []byte) (r Rumour, err error) {
	var w wireRumour
	if r.Extensions, err = decodeMap(body, &w); err != nil {
		return Rumour{}, err
	}
	if r.Descriptor, err = read32(w.Descriptor, "digest"); err != nil {
		return Rumour{}, err
	}
	if r.Address, err = readAddr(w.Address); err != nil {
		return Rumour{}, err
	}
	if r.Published, err = readMilli(w.Published, "published"); err != nil {
		return Rumour{}, err
	}
	if r.Expires, err = readMilli(w.Expires, "expires"); err != nil {
		return Rumour{}, err
	}
	return r, nil
}

func (r Rumour) check(network *Network) error {
	if life := r.Expires.Sub(r.Published); life <= 0 || life > DescriptorLifetime {
		return fmt.Errorf("%w expiry: %v after publication, at most %v", ErrInvalid, life, DescriptorLifetime)
	}
	if r.Descriptor.IsZero() {
		return fmt.Errorf("%w digest: all zero", ErrInvalid)
	}
	return checkAddr(r.Address, network.Test)
}
