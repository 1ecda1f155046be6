package ntor

import (
	"crypto/mlkem"
	"errors"
)

// HandshakeType is the htype of this handshake in CREATE, CREATED, EXTEND and
// EXTENDED (docs/protocol.md, section 4).
const HandshakeType uint16 = 1

// Sizes in bytes.
const (
	// ClientSize is a client message without extensions.
	ClientSize = 3*pointSize + mlkem.EncapsulationKeySize768 + hashSize
	// ServerSize is a relay message without extensions.
	ServerSize = pointSize + mlkem.CiphertextSize768 + hashSize
	// KeyMaterialSize is the key material of the cell cipher.
	KeyMaterialSize = 160
	// BinderSize is the circuit binder.
	BinderSize = 32
	// MaxExtensions is the longest encoded extension list, CM or SM, so that
	// either message always fits into one cell.
	MaxExtensions = 512
)

// Errors of the handshake; test for them with errors.Is. All but ErrFinished
// say that the message came from a peer that does not follow the protocol, was
// altered, or was meant for another relay, key or network.
var (
	// ErrTruncated: the message is shorter than one without extensions.
	ErrTruncated = errors.New("message truncated")
	// ErrTooLong: the extensions of a message, given or received, are longer
	// than MaxExtensions.
	ErrTooLong = errors.New("extensions too long")
	// ErrUnknownOnionKey: the message is for an onion key that the relay does
	// not have, or no longer accepts.
	ErrUnknownOnionKey = errors.New("unknown onion key")
	// ErrWrongIdentity: the message is for a relay of another identity.
	ErrWrongIdentity = errors.New("wrong relay identity")
	// ErrLowOrder: an X25519 key is of low order, so that the result of the
	// Diffie-Hellman exchange is zero whatever the private key.
	ErrLowOrder = errors.New("x25519 key of low order")
	// ErrEncapsulationKey: the client's ML-KEM-768 key is not a valid one.
	ErrEncapsulationKey = errors.New("invalid ML-KEM-768 encapsulation key")
	// ErrAuth: the mac of a client message or the AUTH of a relay message does
	// not match: it was altered, or made for another handshake or network, or
	// by somebody without the private onion key.
	ErrAuth = errors.New("authentication failed")
	// ErrFinished: Finish was called a second time.
	ErrFinished = errors.New("handshake already finished")
	// ErrExtensions: an extension list is malformed or not in order.
	ErrExtensions = errors.New("malformed extensions")
)

// Keys is what a handshake yields; both ends hold the same values. The owner
// overwrites it when the keys are in use.
type Keys struct {
	// Material is the key material of the cell cipher of the new hop.
	Material [KeyMaterialSize]byte
	// Binder is known to the two ends of the hop only and names this handshake.
	Binder [BinderSize]byte
}

// keystreamSize is what a handshake reads from the final stream for Keys.
const keystreamSize = KeyMaterialSize + BinderSize

// splitKeystream makes Keys of the final stream.
func splitKeystream(keystream *[keystreamSize]byte) (keys Keys) {
	copy(keys.Material[:], keystream[:KeyMaterialSize])
	copy(keys.Binder[:], keystream[KeyMaterialSize:])
	return keys
}
