package ntor

import (
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
)

// Client is the client's state between its message and the relay's: about
// 10 KiB. It is used by one goroutine at a time, and for one reply.
type Client struct {
	core *initiator // nil once finished
}

// NewClient starts a handshake with the relay of Ed25519 identity id and
// X25519 onion key onionKey in the network networkID, and returns the message
// for it, ClientSize+len(cm) bytes that belong to the caller.
//
// cm is the encoded extension list, at most MaxExtensions bytes, not kept. It is
// protected by the onion key alone and may be replayed (see the package
// comment). Exactly 96 bytes are read from rand, 32 for X25519 and 64 for
// ML-KEM; they determine the message.
//
// Errors: ErrTooLong, ErrLowOrder for an impossible onion key, and those of
// rand. See docs/protocol.md, section 4.
func NewClient(rand io.Reader, id, onionKey [32]byte, networkID [32]byte, cm []byte) (*Client, []byte, error) {
	if len(cm) > MaxExtensions {
		return nil, nil, fmt.Errorf("starting a circuit handshake: %d bytes: %w", len(cm), ErrTooLong)
	}
	var seed [pointSize + mlkem768.KeySeedSize]byte
	defer erase(seed[:])
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return nil, nil, fmt.Errorf("starting a circuit handshake: reading entropy: %w", err)
	}
	encapsulation, decapsulation := mlkem768.NewKeyFromSeed(seed[pointSize:])
	ek := make([]byte, mlkem768.PublicKeySize)
	encapsulation.Pack(ek)
	core, message, err := hybrid(networkID).initiate(newPrivateKey(seed[:pointSize]), ek, decapsulation, id, onionKey, cm)
	if err != nil {
		return nil, nil, fmt.Errorf("starting a circuit handshake: %w", err)
	}
	return &Client{core: core}, message, nil
}

// Finish checks the relay's message and returns the keys of the hop and the
// relay's extension list sm, a new slice of at most MaxExtensions bytes. reply
// is not kept. Whatever it returns, a second call returns ErrFinished: a reply
// that fails ends the circuit.
//
// Errors: ErrTruncated, ErrTooLong, ErrLowOrder, ErrAuth, ErrFinished; keys are
// zero and sm is nil then. See docs/protocol.md, section 4.
func (c *Client) Finish(reply []byte) (keys Keys, sm []byte, err error) {
	core := c.core
	if core == nil {
		return Keys{}, nil, fmt.Errorf("finishing a circuit handshake: %w", ErrFinished)
	}
	c.core = nil
	var keystream [keystreamSize]byte
	defer erase(keystream[:])
	sm, err = core.finish(reply, keystream[:])
	if err != nil {
		return Keys{}, nil, fmt.Errorf("finishing a circuit handshake: %w", err)
	}
	return splitKeystream(&keystream), sm, nil
}

// initiator is the client's half of any protocol of the family.
type initiator struct {
	protocol      protocol
	exchange      exchange
	ephemeral     *privateKey
	decapsulation *mlkem768.PrivateKey // nil without a KEM
}

// initiate makes the first message. ek and decapsulation are nil without a KEM.
func (p protocol) initiate(ephemeral *privateKey, ek []byte, decapsulation *mlkem768.PrivateKey, id, onionKey [32]byte, cm []byte) (*initiator, []byte, error) {
	i := &initiator{
		protocol:      p,
		exchange:      exchange{id: id, onionKey: onionKey},
		ephemeral:     ephemeral,
		decapsulation: decapsulation,
	}
	e := &i.exchange
	e.x, e.ek = ephemeral.public, ek
	if err := diffieHellman(&e.static, ephemeral, onionKey, "onion key"); err != nil {
		return nil, nil, err
	}
	return i, p.sealOffer(e, cm), nil
}

// sealOffer encodes the first message of an exchange that has its id, onionKey,
// x, ek and static, and sets its mac.
func (p protocol) sealOffer(e *exchange, cm []byte) []byte {
	encKey, macKey := p.messageKeys(e)
	defer erase(encKey[:])
	defer erase(macKey[:])
	sealed := encrypt(&encKey, cm)
	e.mac = p.messageMAC(&macKey, e, sealed)

	message := make([]byte, 0, 3*pointSize+len(e.ek)+len(sealed)+hashSize)
	message = append(message, e.id[:]...)
	message = append(message, e.onionKey[:]...)
	message = append(message, e.x[:]...)
	message = append(message, e.ek...)
	message = append(message, sealed...)
	return append(message, e.mac[:]...)
}

// finish opens the second message, fills keystream and returns SM. Its secrets
// are gone afterwards, whatever the result.
func (i *initiator) finish(reply, keystream []byte) ([]byte, error) {
	p, e := i.protocol, &i.exchange
	defer e.erase()
	defer i.ephemeral.erase()

	fixed := pointSize + p.ciphertextSize() + hashSize
	switch {
	case len(reply) < fixed:
		return nil, fmt.Errorf("%d bytes of at least %d: %w", len(reply), fixed, ErrTruncated)
	case len(reply) > fixed+MaxExtensions:
		return nil, fmt.Errorf("%d bytes of at most %d: %w", len(reply), fixed+MaxExtensions, ErrTooLong)
	}
	rest := reply[copy(e.y[:], reply):]
	e.ct, rest = rest[:p.ciphertextSize()], rest[p.ciphertextSize():]
	received, sealed := rest[:hashSize], rest[hashSize:]

	if err := diffieHellman(&e.ephemeral, i.ephemeral, e.y, "relay's ephemeral key"); err != nil {
		return nil, err
	}
	if p.kem {
		// A ciphertext that was altered decapsulates to an unrelated key (implicit
		// rejection, FIPS 203 section 6.3), and fails with AUTH.
		e.kem = make([]byte, mlkem768.SharedKeySize)
		i.decapsulation.DecapsulateTo(e.kem, e.ct)
	}
	seed, verify := p.secrets(e)
	defer erase(seed[:])
	defer erase(verify[:])
	auth := p.auth(&verify, e, sealed)
	if subtle.ConstantTimeCompare(auth[:], received) != 1 {
		return nil, fmt.Errorf("relay's message: %w", ErrAuth)
	}
	var encKey [keySize]byte
	defer erase(encKey[:])
	p.finalKeys(&seed, &encKey, keystream)
	return encrypt(&encKey, sealed), nil
}
