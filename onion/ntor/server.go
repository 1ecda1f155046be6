package ntor

import (
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
)

// OnionKey is a relay's medium-term X25519 key, b with B, by which clients
// authenticate the relay. It does not change and may be used by many goroutines
// at once.
type OnionKey struct{ private *privateKey }

// NewOnionKey makes the key of 32 bytes of entropy. The seed is the private key
// (RFC 7748 clamps it when it is used); it is what a relay stores.
func NewOnionKey(seed [32]byte) *OnionKey {
	defer erase(seed[:])
	return &OnionKey{private: newPrivateKey(seed[:])}
}

// Public is B, as it stands in the descriptor and in the consensus.
func (k *OnionKey) Public() [32]byte { return k.private.public }

// Server answers a client's message as the relay of Ed25519 identity id in the
// network networkID and returns the keys of the new hop and the message for the
// client, ServerSize+len(sm) bytes that belong to the caller. message is not
// kept or changed.
//
// onionKeys are the keys that the relay accepts, the newest first. accept is
// called once, after the message is authenticated and before the costly half of
// the work; it gets the client's extension list cm, a slice of at most
// MaxExtensions bytes that it may keep, and returns the relay's list sm, at most
// MaxExtensions bytes, or an error, which is returned wrapped. The same message
// may be replayed by anybody who saw it, so accept has no lasting effects. It
// must not be nil.
//
// Exactly 64 bytes are read from rand, after accept: 32 for X25519 and 32 for
// ML-KEM. They determine the reply.
//
// Errors: ErrTruncated, ErrTooLong, ErrUnknownOnionKey, ErrWrongIdentity,
// ErrLowOrder, ErrAuth, ErrEncapsulationKey, and those of accept and rand; keys
// are zero and reply is nil then. See docs/protocol.md, section 4.
func Server(
	rand io.Reader,
	id [32]byte,
	onionKeys []*OnionKey,
	networkID [32]byte,
	message []byte,
	accept func(cm []byte) (sm []byte, err error),
) (keys Keys, reply []byte, err error) {
	p := hybrid(networkID)
	e, cm, err := p.openOffer(id, onionKeys, message)
	if err != nil {
		return Keys{}, nil, fmt.Errorf("answering a circuit handshake: %w", err)
	}
	defer e.erase()
	var ek mlkem768.PublicKey
	if err := ek.Unpack(e.ek); err != nil {
		return Keys{}, nil, fmt.Errorf("answering a circuit handshake: %w", ErrEncapsulationKey)
	}
	sm, err := accept(cm)
	if err != nil {
		return Keys{}, nil, fmt.Errorf("answering a circuit handshake: client's request: %w", err)
	}
	if len(sm) > MaxExtensions {
		return Keys{}, nil, fmt.Errorf("answering a circuit handshake: %d bytes: %w", len(sm), ErrTooLong)
	}

	var seed [pointSize + mlkem768.EncapsulationSeedSize]byte
	defer erase(seed[:])
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return Keys{}, nil, fmt.Errorf("answering a circuit handshake: reading entropy: %w", err)
	}
	e.kem, e.ct = make([]byte, mlkem768.SharedKeySize), make([]byte, mlkem768.CiphertextSize)
	ek.EncapsulateTo(e.ct, e.kem, seed[pointSize:])
	ephemeral := newPrivateKey(seed[:pointSize])
	defer ephemeral.erase()
	var keystream [keystreamSize]byte
	defer erase(keystream[:])
	reply, err = p.sealAnswer(e, ephemeral, sm, keystream[:])
	if err != nil {
		return Keys{}, nil, fmt.Errorf("answering a circuit handshake: %w", err)
	}
	return splitKeystream(&keystream), reply, nil
}

// openOffer checks the first message and decrypts CM. The exchange that it
// returns has all that the client's half decides, its ek a part of message; the
// caller erases it. Refusals that cost nothing come first.
func (p protocol) openOffer(id [32]byte, onionKeys []*OnionKey, message []byte) (*exchange, []byte, error) {
	fixed := 3*pointSize + p.encapsulationKeySize() + hashSize
	switch {
	case len(message) < fixed:
		return nil, nil, fmt.Errorf("%d bytes of at least %d: %w", len(message), fixed, ErrTruncated)
	case len(message) > fixed+MaxExtensions:
		return nil, nil, fmt.Errorf("%d bytes of at most %d: %w", len(message), fixed+MaxExtensions, ErrTooLong)
	}
	e := new(exchange)
	rest := message[copy(e.id[:], message):]
	rest = rest[copy(e.onionKey[:], rest):]
	rest = rest[copy(e.x[:], rest):]
	e.ek, rest = rest[:p.encapsulationKeySize()], rest[p.encapsulationKeySize():]
	sealed, received := rest[:len(rest)-hashSize], rest[len(rest)-hashSize:]

	if e.id != id {
		return nil, nil, ErrWrongIdentity
	}
	// B is public and so is which of its keys a relay was asked for.
	var key *OnionKey
	for _, k := range onionKeys {
		if k.Public() == e.onionKey {
			key = k
			break
		}
	}
	if key == nil {
		return nil, nil, ErrUnknownOnionKey
	}
	if err := diffieHellman(&e.static, key.private, e.x, "client's ephemeral key"); err != nil {
		return nil, nil, err
	}
	encKey, macKey := p.messageKeys(e)
	defer erase(encKey[:])
	defer erase(macKey[:])
	e.mac = p.messageMAC(&macKey, e, sealed)
	if subtle.ConstantTimeCompare(e.mac[:], received) != 1 {
		e.erase()
		return nil, nil, fmt.Errorf("client's message: %w", ErrAuth)
	}
	return e, encrypt(&encKey, sealed), nil
}

// sealAnswer completes an exchange that has its kem and ct, encodes the second
// message and fills keystream.
func (p protocol) sealAnswer(e *exchange, ephemeral *privateKey, sm, keystream []byte) ([]byte, error) {
	e.y = ephemeral.public
	if err := diffieHellman(&e.ephemeral, ephemeral, e.x, "client's ephemeral key"); err != nil {
		return nil, err
	}
	seed, verify := p.secrets(e)
	defer erase(seed[:])
	defer erase(verify[:])
	var encKey [keySize]byte
	defer erase(encKey[:])
	p.finalKeys(&seed, &encKey, keystream)
	sealed := encrypt(&encKey, sm)
	auth := p.auth(&verify, e, sealed)

	reply := make([]byte, 0, pointSize+len(e.ct)+hashSize+len(sealed))
	reply = append(reply, e.y[:]...)
	reply = append(reply, e.ct...)
	reply = append(reply, auth[:]...)
	return append(reply, sealed...), nil
}
