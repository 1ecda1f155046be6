package cert

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
)

// Ed25519 is the only algorithm of keys and signatures in version 1. Others, post-quantum ones, can come: both are
// always written with their algorithm and length.
const Ed25519 uint16 = 1

// Key is a public key:
//
//	algorithm  u16   1 = Ed25519
//	length     u16   32 for Ed25519
//	bytes
type Key struct {
	Algorithm uint16
	Bytes     []byte
}

// Signature is a signature:
//
//	algorithm  u16   1 = Ed25519
//	length     u16   64 for Ed25519
//	bytes
type Signature struct {
	Algorithm uint16
	Bytes     []byte
}

// KeyOf wraps an Ed25519 public key. The bytes are copied.
func KeyOf(public ed25519.PublicKey) Key {
	return Key{Ed25519, bytes.Clone(public)}
}

// Equal reports whether both are the same key.
func (k Key) Equal(other Key) bool {
	return k.Algorithm == other.Algorithm && bytes.Equal(k.Bytes, other.Bytes)
}

// ed25519 returns the key for use with crypto/ed25519. It refuses a key of another algorithm or length, and a point
// of small order.
func (k Key) ed25519() (ed25519.PublicKey, error) {
	switch {
	case k.Algorithm != Ed25519:
		return nil, fmt.Errorf("key: %w %d", ErrAlgorithm, k.Algorithm)
	case len(k.Bytes) != ed25519.PublicKeySize:
		return nil, fmt.Errorf("key: %w: %d bytes, want %d", ErrMalformed, len(k.Bytes), ed25519.PublicKeySize)
	case isSmallOrder(k.Bytes):
		return nil, fmt.Errorf("key: %w", ErrWeakKey)
	}
	return ed25519.PublicKey(k.Bytes), nil
}

// verify checks sig over message.
func (k Key) verify(message []byte, sig Signature) error {
	public, err := k.ed25519()
	if err != nil {
		return err
	}
	if sig.Algorithm != k.Algorithm {
		return fmt.Errorf("signature: %w %d for a key of algorithm %d", ErrAlgorithm, sig.Algorithm, k.Algorithm)
	}
	if len(sig.Bytes) != ed25519.SignatureSize || !ed25519.Verify(public, message, sig.Bytes) {
		return ErrSignature
	}
	return nil
}

func (k Key) append(b []byte) []byte {
	return appendAlgorithm(b, k.Algorithm, k.Bytes)
}

func (s Signature) append(b []byte) []byte {
	return appendAlgorithm(b, s.Algorithm, s.Bytes)
}

func appendAlgorithm(b []byte, algorithm uint16, value []byte) []byte {
	b = append(b, byte(algorithm>>8), byte(algorithm), byte(len(value)>>8), byte(len(value)))
	return append(b, value...)
}

func readKey(s *cryptobyte.String, what string) (Key, error) {
	algorithm, value, err := readAlgorithm(s, what, ed25519.PublicKeySize)
	return Key{algorithm, value}, err
}

func readSignature(s *cryptobyte.String, what string) (Signature, error) {
	algorithm, value, err := readAlgorithm(s, what, ed25519.SignatureSize)
	return Signature{algorithm, value}, err
}

// readAlgorithm reads what appendAlgorithm writes; size is the length that Ed25519 asks for. The value is a copy.
func readAlgorithm(s *cryptobyte.String, what string, size int) (algorithm uint16, value []byte, err error) {
	var v cryptobyte.String
	if !s.ReadUint16(&algorithm) || !s.ReadUint16LengthPrefixed(&v) {
		return 0, nil, fmt.Errorf("%s: %w: cut short", what, ErrMalformed)
	}
	if algorithm != Ed25519 {
		return 0, nil, fmt.Errorf("%s: %w %d", what, ErrAlgorithm, algorithm)
	}
	if len(v) != size {
		return 0, nil, fmt.Errorf("%s: %w: %d bytes, want %d", what, ErrMalformed, len(v), size)
	}
	return algorithm, bytes.Clone(v), nil
}

// smallOrder lists the y coordinates, with the sign bit clear, of the points of order 1, 2, 4 and 8, in every
// encoding that crypto/ed25519 accepts (it does not ask for y < p). Under such a key a signature can be made without
// a private key, so a certificate for one would be a certificate for everybody.
var smallOrder = [...][32]byte{
	{0x00},
	{0x01},
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
	nearPrime(0xec), // p - 1
	nearPrime(0xed), // p, that is 0
	nearPrime(0xee), // p + 1, that is 1
}

func nearPrime(low byte) (y [32]byte) {
	for i := range y {
		y[i] = 0xff
	}
	y[0], y[31] = low, 0x7f
	return y
}

func isSmallOrder(public []byte) bool {
	y := [32]byte(public)
	y[31] &= 0x7f
	for i := range smallOrder {
		if y == smallOrder[i] {
			return true
		}
	}
	return false
}

// IdentityKey is the private half of an Identity. It signs nothing but certificates of signing keys, so it may be
// kept offline. Printing it shows the public half only.
type IdentityKey struct{ private ed25519.PrivateKey }

// SigningKey signs the documents of a relay or authority and the certificates of its link keys. Printing it shows
// the public half only.
type SigningKey struct{ private ed25519.PrivateKey }

// LinkKey is the key of a relay's TLS certificate. Printing it shows the public half only.
type LinkKey struct{ private ed25519.PrivateKey }

// NewIdentityKey returns the key that grows from seed, which must be 32 secret random bytes.
func NewIdentityKey(seed [32]byte) IdentityKey {
	return IdentityKey{ed25519.NewKeyFromSeed(seed[:])}
}

// NewSigningKey returns the key that grows from seed, which must be 32 secret random bytes.
func NewSigningKey(seed [32]byte) SigningKey {
	return SigningKey{ed25519.NewKeyFromSeed(seed[:])}
}

// NewLinkKey returns the key that grows from seed, which must be 32 secret random bytes.
func NewLinkKey(seed [32]byte) LinkKey {
	return LinkKey{ed25519.NewKeyFromSeed(seed[:])}
}

// Identity returns the public half.
func (k IdentityKey) Identity() Identity { return Identity(publicOf(k.private)) }

// Public returns the public half.
func (k SigningKey) Public() ed25519.PublicKey { return publicOf(k.private) }

// Public returns the public half.
func (k LinkKey) Public() ed25519.PublicKey { return publicOf(k.private) }

// Private returns the key in the form that crypto/tls and crypto/x509 take. It is not a copy.
func (k LinkKey) Private() ed25519.PrivateKey { return k.private }

// Seed returns the 32 secret bytes that the key grew from, to be stored.
func (k IdentityKey) Seed() [32]byte { return [32]byte(k.private.Seed()) }

// Seed returns the 32 secret bytes that the key grew from, to be stored.
func (k SigningKey) Seed() [32]byte { return [32]byte(k.private.Seed()) }

// IsZero reports whether k was never made by NewIdentityKey.
func (k IdentityKey) IsZero() bool { return k.private == nil }

// IsZero reports whether k was never made by NewSigningKey.
func (k SigningKey) IsZero() bool { return k.private == nil }

// IsZero reports whether k was never made by NewLinkKey.
func (k LinkKey) IsZero() bool { return k.private == nil }

// Format implements fmt.Formatter, so that no verb can print the private half.
func (k IdentityKey) Format(f fmt.State, _ rune) { formatKey(f, "identity", k.private) }

// Format implements fmt.Formatter, so that no verb can print the private half.
func (k SigningKey) Format(f fmt.State, _ rune) { formatKey(f, "signing", k.private) }

// Format implements fmt.Formatter, so that no verb can print the private half.
func (k LinkKey) Format(f fmt.State, _ rune) { formatKey(f, "link", k.private) }

func formatKey(w io.Writer, kind string, private ed25519.PrivateKey) {
	if private == nil {
		fmt.Fprintf(w, "no %s key", kind)
		return
	}
	fmt.Fprintf(w, "%s key %x", kind, publicOf(private)[:4])
}

func publicOf(private ed25519.PrivateKey) ed25519.PublicKey {
	return private.Public().(ed25519.PublicKey)
}
