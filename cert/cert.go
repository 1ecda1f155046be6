// Package cert holds the names, keys and certificates of relays and authorities, and the envelope that carries
// every signed document of the network.
//
// A relay or authority is named by its Ed25519 identity key, which may stay offline. The identity certifies a
// signing key for some weeks; the signing key signs documents and certifies a link key for at most two days; the
// link key is the key of the relay's TLS certificate, so the key that signs documents never answers strangers.
// Every signature covers a context string and the network id, so nothing that is signed for one purpose or network
// holds in another.
//
// The package does not read a clock or a source of randomness: times and seeds are arguments. It knows nothing of
// what is inside a document (package directory does), and it keeps no state. It is called by link (certificates in
// HELLO), by directory (all documents) and by the command line (making keys). All functions are safe for concurrent
// use; values are not to be modified while another goroutine reads them.
//
// The wire forms are those of docs/protocol.md, sections "Certificates" and "Envelope". Integers are big-endian.
package cert

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Errors that a caller can test for with errors.Is. Every error of this package that is caused by its input wraps
// one of them.
var (
	// ErrMalformed: the bytes are not a whole, canonical structure.
	ErrMalformed = errors.New("malformed")
	// ErrVersion: the structure has a version that this code does not know.
	ErrVersion = errors.New("unknown version")
	// ErrAlgorithm: a key or signature has an algorithm that this code does not know.
	ErrAlgorithm = errors.New("unknown algorithm")
	// ErrWeakKey: a public key is a point of small order, under which anybody can sign.
	ErrWeakKey = errors.New("weak public key")
	// ErrWrongType: a certificate or document is of another type than the one asked for.
	ErrWrongType = errors.New("wrong type")
	// ErrSignature: a signature does not verify, for this network.
	ErrSignature = errors.New("bad signature")
	// ErrIssuer: a certificate was issued by another key than the one that precedes it in its chain, or a signature
	// was to be made by a key that its certificate does not name.
	ErrIssuer = errors.New("wrong issuer")
	// ErrLifetime: a certificate is valid for longer than its type may be.
	ErrLifetime = errors.New("certificate lifetime out of bounds")
	// ErrExpired: a certificate is no longer valid. The error is a *ValidityError.
	ErrExpired = errors.New("expired")
	// ErrNotYetValid: a certificate is not valid yet. The error is a *ValidityError.
	ErrNotYetValid = errors.New("not yet valid")
	// ErrTooLarge: the body of a document is larger than the caller's bound.
	ErrTooLarge = errors.New("too large")
	// ErrSigners: a document has too few or too many signers, the same one twice, or in the wrong order.
	ErrSigners = errors.New("wrong set of signers")
)

// ValidityError says that a certificate is outside its dates, with the dates, so that a caller who knows another
// clock (the peer's, say) can tell a wrong clock from an old certificate. It is ErrExpired or ErrNotYetValid to
// errors.Is.
type ValidityError struct {
	Type        Type      // of the certificate
	From, Until time.Time // the certificate is valid in [From, Until)
	Now         time.Time // the time at which it was checked
}

func (e *ValidityError) Error() string {
	const layout = "2006-01-02 15:04:05 MST"
	if e.Now.Before(e.From) {
		return fmt.Sprintf("%s certificate is not valid before %s, and the clock here says %s",
			e.Type, e.From.UTC().Format(layout), e.Now.UTC().Format(layout))
	}
	return fmt.Sprintf("%s certificate expired at %s, and the clock here says %s",
		e.Type, e.Until.UTC().Format(layout), e.Now.UTC().Format(layout))
}

// Is reports whether target is ErrExpired or ErrNotYetValid, whichever applies.
func (e *ValidityError) Is(target error) bool {
	if e.Now.Before(e.From) {
		return target == ErrNotYetValid
	}
	return target == ErrExpired
}

// Identity is the Ed25519 public key that names a relay or an authority for as long as it exists. The zero value
// names nobody.
type Identity [32]byte

// NetworkID names a network: 32 random bytes chosen when the network was made.
type NetworkID [32]byte

// Digest is the SHA-256 digest of the body of a document; see DigestOf.
type Digest [32]byte

// ParseIdentity reads the form that Identity.String writes: 64 hexadecimal digits, of either case.
func ParseIdentity(s string) (Identity, error) {
	b, err := parse32(s, "identity")
	return Identity(b), err
}

// ParseNetworkID reads the form that NetworkID.String writes: 64 hexadecimal digits, of either case.
func ParseNetworkID(s string) (NetworkID, error) {
	b, err := parse32(s, "network id")
	return NetworkID(b), err
}

// ParseDigest reads the form that Digest.String writes: 64 hexadecimal digits, of either case.
func ParseDigest(s string) (Digest, error) {
	b, err := parse32(s, "digest")
	return Digest(b), err
}

// String returns 64 lower-case hexadecimal digits.
func (id Identity) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 digits of String, for logs and tables. It does not name a relay: identities with a
// chosen beginning are easy to make.
func (id Identity) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is the zero value.
func (id Identity) IsZero() bool { return id == Identity{} }

// Compare orders identities by their bytes: -1, 0 or +1.
func (id Identity) Compare(other Identity) int { return bytes.Compare(id[:], other[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (id Identity) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseIdentity.
func (id *Identity) UnmarshalText(text []byte) (err error) {
	*id, err = ParseIdentity(string(text))
	return err
}

// String returns 64 lower-case hexadecimal digits.
func (id NetworkID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 digits of String.
func (id NetworkID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is the zero value.
func (id NetworkID) IsZero() bool { return id == NetworkID{} }

// Compare orders network ids by their bytes: -1, 0 or +1.
func (id NetworkID) Compare(other NetworkID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (id NetworkID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseNetworkID.
func (id *NetworkID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseNetworkID(string(text))
	return err
}

// String returns 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 8 digits of String.
func (d Digest) Short() string { return hex.EncodeToString(d[:4]) }

// IsZero reports whether d is the zero value, which no document has.
func (d Digest) IsZero() bool { return d == Digest{} }

// Compare orders digests by their bytes: -1, 0 or +1.
func (d Digest) Compare(other Digest) int { return bytes.Compare(d[:], other[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseDigest.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}

func parse32(s, what string) ([32]byte, error) {
	var b [32]byte
	if len(s) != 64 {
		return b, fmt.Errorf("parsing %s: %w: %d characters, want 64 hexadecimal digits", what, ErrMalformed, len(s))
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return [32]byte{}, fmt.Errorf("parsing %s: %w: not hexadecimal", what, ErrMalformed)
	}
	return b, nil
}
