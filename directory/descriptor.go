package directory

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
)

// Bounds of descriptors.
const (
	MaxDescriptor = 16 << 10 // bytes, sealed

	DescriptorLifetime  = 48 * time.Hour   // after Published
	DescriptorFresh     = 24 * time.Hour   // after Published, a descriptor may be spread as news
	DescriptorClockSkew = 10 * time.Minute // Published may be so far in the future

	maxContact  = 512
	maxSoftware = 64
	maxFamilies = 4
)

// Descriptor is what a relay says of itself. Authorities make the consensus of descriptors; clients never see them.
//
// The body is a map, at most MaxDescriptor bytes when sealed by the relay's signing key:
//
//	 1  identity     32 bytes, that of the signer
//	 2  onion key    32 bytes
//	 3  until        uint, ms: the onion key is used until then
//	 4  addresses    array of 1 to 8: address (4 or 16 bytes) and port (2 bytes) in one byte string
//	 5  policy       text, canonical; absent when it rejects everything
//	 6  bandwidth    uint, bytes a second
//	 7  families     array of at most 4: array of family id (32 bytes) and signature (64 bytes), ascending by id
//	 8  contact      text of at most 512 bytes, or absent
//	 9  nickname     text of 1 to 19 of A-Z, a-z, 0-9 and "-", or absent
//	10  protocols    array of uint, ascending: part << 16 | version
//	11  software     text of at most 64 bytes, or absent
//	12  published    uint, ms
//	13  ipv6 exit    true when the relay can reach IPv6, or absent
type Descriptor struct {
	Identity      cert.Identity
	OnionKey      [32]byte
	OnionKeyUntil time.Time        // whole milliseconds
	Addresses     []netip.AddrPort // 1 to 8; public unless the network is a test network
	Policy        Policy
	Bandwidth     uint64            // bytes a second that the relay claims to carry
	Families      []cert.Membership // at most 4
	Contact       string            // how to reach the operator: at most 512 bytes of printable text
	Nickname      string            // for people only: nobody checks that it is unique
	Protocols     Protocols
	Software      string    // name and version: at most 64 bytes of printable text
	Published     time.Time // whole milliseconds
	IPv6Exit      bool
	Extensions    Extensions

	// Issued is the time of issue of the signing certificate, and Digest is that of the document. OpenDescriptor
	// sets them; SealDescriptor does not look at them.
	Issued time.Time
	Digest cert.Digest

	sealed []byte // for all who hold it; nil unless the network remembers
}

// keep is a copy of the sealed descriptor to be held beside it.
func (d *Descriptor) keep(sealed []byte) []byte {
	if d.sealed != nil {
		return d.sealed
	}
	return bytes.Clone(sealed)
}

type wireMembership struct {
	_         struct{} `cbor:",toarray"`
	Family    []byte
	Signature []byte
}

type wireDescriptor struct {
	Identity      []byte           `cbor:"1,keyasint"`
	OnionKey      []byte           `cbor:"2,keyasint"`
	OnionKeyUntil uint64           `cbor:"3,keyasint"`
	Addresses     [][]byte         `cbor:"4,keyasint"`
	Policy        string           `cbor:"5,keyasint,omitempty"`
	Bandwidth     uint64           `cbor:"6,keyasint"`
	Families      []wireMembership `cbor:"7,keyasint,omitempty"`
	Contact       string           `cbor:"8,keyasint,omitempty"`
	Nickname      string           `cbor:"9,keyasint,omitempty"`
	Protocols     Protocols        `cbor:"10,keyasint,omitempty"`
	Software      string           `cbor:"11,keyasint,omitempty"`
	Published     uint64           `cbor:"12,keyasint"`
	IPv6Exit      bool             `cbor:"13,keyasint,omitempty"`
}

// SealDescriptor checks and signs a descriptor for a network. Identity must be that of the signer. Families are
// sorted in the document, whatever their order in d.
func SealDescriptor(network *Network, d Descriptor, signer cert.Signer) ([]byte, error) {
	d.Families = slices.Clone(d.Families)
	slices.SortFunc(d.Families, func(a, b cert.Membership) int { return slices.Compare(a.Family[:], b.Family[:]) })
	sealed, err := sealDescriptor(network, d, signer)
	if err != nil {
		return nil, fmt.Errorf("sealing a descriptor: %w", err)
	}
	return sealed, nil
}

func sealDescriptor(network *Network, d Descriptor, signer cert.Signer) ([]byte, error) {
	if d.Identity != signer.Identity() {
		return nil, fmt.Errorf("%w: it is of %s, the signer is %s", ErrSigners, d.Identity.Short(), signer.Identity().Short())
	}
	if err := checkMilli(d.Published, "published"); err != nil {
		return nil, err
	}
	if err := checkMilli(d.OnionKeyUntil, "onion key until"); err != nil {
		return nil, err
	}
	if err := d.check(network); err != nil {
		return nil, err
	}
	body, err := d.body()
	if err != nil {
		return nil, err
	}
	sealed, err := cert.Seal(cert.DescriptorDocument, network.ID, body, signer)
	if err == nil && len(sealed) > MaxDescriptor {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(sealed), MaxDescriptor)
	}
	return sealed, err
}

func (d *Descriptor) body() ([]byte, error) {
	w := wireDescriptor{
		Identity:      d.Identity[:],
		OnionKey:      d.OnionKey[:],
		OnionKeyUntil: milli(d.OnionKeyUntil),
		Addresses:     encodeAddrs(d.Addresses),
		Bandwidth:     d.Bandwidth,
		Contact:       d.Contact,
		Nickname:      d.Nickname,
		Protocols:     d.Protocols,
		Software:      d.Software,
		Published:     milli(d.Published),
		IPv6Exit:      d.IPv6Exit,
	}
	if !d.Policy.IsEmpty() {
		w.Policy = d.Policy.String()
	}
	for _, m := range d.Families {
		w.Families = append(w.Families, wireMembership{Family: m.Family[:], Signature: m.Signature.Bytes})
	}
	return encodeMap(w, d.Extensions)
}

// OpenDescriptor verifies and decodes a descriptor that is valid at now: signed by the relay that it names,
// published at most DescriptorLifetime ago and not from the future. Whether it may still be spread as news is
// another question: see IsNews.
func OpenDescriptor(sealed []byte, network *Network, now time.Time) (*Descriptor, error) {
	d, err := openRemembered(sealed, network, now, cert.DescriptorDocument, func() (*Descriptor, cert.Endorsement, error) {
		return openDescriptor(sealed, network, now)
	})
	if err == nil {
		if err = d.checkPublished(now); err != nil {
			err = fmt.Errorf("reading the descriptor of %s: %w", d.Identity.Short(), err)
		}
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// openDescriptor is OpenDescriptor but for the time of publication.
func openDescriptor(sealed []byte, network *Network, now time.Time) (*Descriptor, cert.Endorsement, error) {
	doc, by, err := openOne(sealed, network, now, cert.DescriptorDocument, MaxDescriptor)
	if err != nil {
		return nil, by, err
	}
	d, err := decodeDescriptor(doc.Body)
	if err == nil && d.Identity != by.Identity() {
		err = fmt.Errorf("%w: it is of %s", ErrSigners, d.Identity.Short())
	}
	if err == nil {
		err = d.check(network)
	}
	if err != nil {
		return nil, by, fmt.Errorf("reading the descriptor of %s: %w", by.Identity().Short(), err)
	}
	d.Issued, d.Digest = by.Certificate.Issued(), doc.Digest
	if network.memo != nil {
		d.sealed = bytes.Clone(sealed)
	}
	return d, by, nil
}

// decodeDescriptor decodes a body; d.check is for the caller.
func decodeDescriptor(body []byte) (*Descriptor, error) {
	var w wireDescriptor
	ext, err := decodeMap(body, &w)
	if err != nil {
		return nil, err
	}
	d := &Descriptor{
		Bandwidth:  w.Bandwidth,
		Contact:    w.Contact,
		Nickname:   w.Nickname,
		Protocols:  w.Protocols,
		Software:   w.Software,
		IPv6Exit:   w.IPv6Exit,
		Extensions: ext,
	}
	if d.Identity, err = read32(w.Identity, "identity"); err != nil {
		return nil, err
	}
	if d.OnionKey, err = read32(w.OnionKey, "onion key"); err != nil {
		return nil, err
	}
	if d.OnionKeyUntil, err = readMilli(w.OnionKeyUntil, "onion key until"); err != nil {
		return nil, err
	}
	if d.Published, err = readMilli(w.Published, "published"); err != nil {
		return nil, err
	}
	if d.Addresses, err = readAddrs(w.Addresses); err != nil {
		return nil, err
	}
	if d.Policy, err = readPolicy(w.Policy); err != nil {
		return nil, err
	}
	for _, m := range w.Families {
		family, err := read32(m.Family, "family id")
		if err != nil {
			return nil, err
		}
		sig := cert.Signature{Algorithm: cert.Ed25519, Bytes: m.Signature}
		d.Families = append(d.Families, cert.Membership{Family: family, Signature: sig})
	}
	return d, nil
}

// readPolicy reads the text of a policy in a document, which must be the canonical one.
func readPolicy(text string) (Policy, error) {
	if text == "" {
		return Policy{}, nil
	}
	p, err := ParsePolicy(text)
	if err == nil && (p.IsEmpty() || p.String() != text) {
		err = fmt.Errorf("exit policy: %w", ErrNotCanonical)
	}
	return p, err
}

// check checks everything that does not depend on the time.
func (d *Descriptor) check(network *Network) error {
	if err := (OnionKey{Key: d.OnionKey}).check(); err != nil {
		return err
	}
	if life := d.OnionKeyUntil.Sub(d.Published); life <= 0 || life > MaxOnionKeyLifetime {
		return fmt.Errorf("%w onion key: its time ends %v after publication", ErrInvalid, life)
	}
	if err := checkAddrs(d.Addresses, network.Test); err != nil {
		return err
	}
	if err := checkText(d.Contact, "contact", maxContact); err != nil {
		return err
	}
	if err := checkText(d.Software, "software", maxSoftware); err != nil {
		return err
	}
	if err := CheckNickname(d.Nickname); err != nil {
		return err
	}
	if err := d.Protocols.check(); err != nil {
		return err
	}
	if len(d.Families) > maxFamilies {
		return fmt.Errorf("%w: %d families, at most %d", ErrInvalid, len(d.Families), maxFamilies)
	}
	for i, m := range d.Families {
		if i > 0 && slices.Compare(m.Family[:], d.Families[i-1].Family[:]) <= 0 {
			return fmt.Errorf("families: %w: not ascending", ErrNotCanonical)
		}
		if err := m.Verify(network.ID, d.Identity); err != nil {
			return err
		}
	}
	return nil
}

func (d *Descriptor) checkPublished(now time.Time) error {
	if d.Published.After(now.Add(DescriptorClockSkew)) {
		return fmt.Errorf("%w: published %v, and the clock here says %v", ErrFromTheFuture, d.Published, now.UTC())
	}
	if !now.Before(d.Expires()) {
		return fmt.Errorf("%w at %v, and the clock here says %v", ErrExpired, d.Expires(), now.UTC())
	}
	return nil
}

// Expires returns the time from which OpenDescriptor refuses the descriptor.
func (d *Descriptor) Expires() time.Time { return d.Published.Add(DescriptorLifetime) }

// IsNews reports whether the descriptor may be taken from others as news, and passed on, at now: it was published
// within the last DescriptorFresh, and is not from the future.
func (d *Descriptor) IsNews(now time.Time) bool {
	return !d.Published.Before(now.Add(-DescriptorFresh)) && !d.Published.After(now.Add(DescriptorClockSkew))
}

// Compare orders two descriptors of one identity: by the time of issue of the signing certificate, then by
// publication, then by digest. The greater one replaces the other.
func (d *Descriptor) Compare(other *Descriptor) int {
	if c := d.Issued.Compare(other.Issued); c != 0 {
		return c
	}
	if c := d.Published.Compare(other.Published); c != 0 {
		return c
	}
	return d.Digest.Compare(other.Digest)
}

// FamilyIDs returns the families, ascending.
func (d *Descriptor) FamilyIDs() []cert.FamilyID {
	out := make([]cert.FamilyID, len(d.Families))
	for i, m := range d.Families {
		out[i] = m.Family
	}
	return out
}
