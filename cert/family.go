package cert

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
)

const contextFamily = "cepa1 family"

// FamilyID names a set of relays that one operator runs: the Ed25519 public key that admits its members. No two
// relays of one family carry the same circuit. Membership is signed by the family, so that nobody can join another's
// family and in that way keep its relays off circuits.
type FamilyID [32]byte

// String returns 64 lower-case hexadecimal digits.
func (id FamilyID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (id FamilyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with the form of String.
func (id *FamilyID) UnmarshalText(text []byte) error {
	b, err := parse32(string(text), "family id")
	if err == nil {
		*id = b
	}
	return err
}

// FamilyKey is the private half of a FamilyID. Printing it shows the public half only.
type FamilyKey struct{ private ed25519.PrivateKey }

// NewFamilyKey returns the key that grows from seed, which must be 32 secret random bytes.
func NewFamilyKey(seed [32]byte) FamilyKey {
	return FamilyKey{ed25519.NewKeyFromSeed(seed[:])}
}

// ID returns the public half.
func (k FamilyKey) ID() FamilyID { return FamilyID(publicOf(k.private)) }

// Seed returns the 32 secret bytes that the key grew from, to be stored.
func (k FamilyKey) Seed() [32]byte { return [32]byte(k.private.Seed()) }

// Format implements fmt.Formatter, so that no verb can print the private half.
func (k FamilyKey) Format(f fmt.State, _ rune) { formatKey(f, "family", k.private) }

// Membership says that a family admits a relay: the family's signature over
// "cepa1 family" | network id (32) | identity of the relay (32). It does not expire: a relay leaves a family by no
// longer naming it.
type Membership struct {
	Family    FamilyID
	Signature Signature
}

// Admit makes the membership of a relay.
func (k FamilyKey) Admit(network NetworkID, member Identity) Membership {
	sig := ed25519.Sign(k.private, familyMessage(network, member))
	return Membership{k.ID(), Signature{Ed25519, sig}}
}

// Verify checks that the family admitted member.
func (m Membership) Verify(network NetworkID, member Identity) error {
	key := Key{Ed25519, m.Family[:]}
	if err := key.verify(familyMessage(network, member), m.Signature); err != nil {
		return fmt.Errorf("family %x: %w", m.Family[:4], err)
	}
	return nil
}

func familyMessage(network NetworkID, member Identity) []byte {
	m := make([]byte, 0, len(contextFamily)+len(network)+len(member))
	m = append(m, contextFamily...)
	m = append(m, network[:]...)
	return append(m, member[:]...)
}
