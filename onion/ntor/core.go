package ntor

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha3"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"

	"github.com/cloudflare/circl/dh/x25519"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
)

const (
	pointSize = 32 // of an X25519 key, public or private
	hashSize  = 32 // of SHA3-256: mac and AUTH
	keySize   = 32 // of AES-256 and of MAC_K1
)

// protocol is one member of the ntor version 3 family: the names that go into
// every hash, and whether an ML-KEM-768 key exchange takes part. Its methods
// are the formulas of the package comment, and work on either.
type protocol struct {
	name         string // PROTOID
	verification []byte // VER
	kem          bool
}

const (
	hybridName          = "cepa-ntor3-x25519-mlkem768-sha3_256-1"
	verificationContext = "cepa1 circuit"
)

// hybrid is the protocol that is spoken in the network with the given id.
func hybrid(networkID [32]byte) protocol {
	return protocol{
		name:         hybridName,
		verification: append([]byte(verificationContext), networkID[:]...),
		kem:          true,
	}
}

// encapsulationKeySize and ciphertextSize are the bytes that the KEM takes in
// the client's and in the relay's message.
func (p protocol) encapsulationKeySize() int {
	if p.kem {
		return mlkem768.PublicKeySize
	}
	return 0
}

func (p protocol) ciphertextSize() int {
	if p.kem {
		return mlkem768.CiphertextSize
	}
	return 0
}

// exchange is what both ends know of one handshake. Of the shared secrets,
// static is there from the first message on; ephemeral, kem, y and ct belong to
// the second. ek, ct and kem are empty without a KEM.
type exchange struct {
	id, onionKey, x, y [pointSize]byte // ID, B, X, Y
	ek, ct             []byte
	mac                [hashSize]byte

	static    [pointSize]byte // X25519(x,B) = X25519(b,X)
	ephemeral [pointSize]byte // X25519(x,Y) = X25519(y,X)
	kem       []byte          // K
}

// erase overwrites the shared secrets.
func (e *exchange) erase() {
	erase(e.static[:])
	erase(e.ephemeral[:])
	erase(e.kem)
}

// encap is the 8 bytes that ENCAP puts before a string of n bytes.
func encap(n int) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(n))
}

// absorb writes t for the suffix, then the parts.
func (p protocol) absorb(w io.Writer, suffix string, parts ...[]byte) {
	// Writing to a SHA-3 state that was not read from yet cannot fail.
	w.Write(encap(len(p.name) + len(suffix)))
	io.WriteString(w, p.name)
	io.WriteString(w, suffix)
	for _, part := range parts {
		w.Write(part)
	}
}

// hash is H of the concatenated parts.
func (p protocol) hash(suffix string, parts ...[]byte) (sum [hashSize]byte) {
	h := sha3.New256()
	p.absorb(h, suffix, parts...)
	h.Sum(sum[:0])
	h.Reset()
	return sum
}

// kdf fills the outputs, one after the other, from KDF of the parts.
func (p protocol) kdf(suffix string, parts [][]byte, outputs ...[]byte) {
	h := sha3.NewSHAKE256()
	p.absorb(h, suffix, parts...)
	for _, out := range outputs {
		h.Read(out)
	}
	h.Reset()
}

// messageKeys is ENC_K1 and MAC_K1, for the first message.
func (p protocol) messageKeys(e *exchange) (encKey, macKey [keySize]byte) {
	p.kdf(":kdf_phase1", [][]byte{
		e.static[:], e.id[:], e.x[:], e.onionKey[:],
		[]byte(p.name), encap(len(p.verification)), p.verification,
	}, encKey[:], macKey[:])
	return encKey, macKey
}

// messageMAC is the mac of the first message, sealed being its e.
func (p protocol) messageMAC(macKey *[keySize]byte, e *exchange, sealed []byte) [hashSize]byte {
	return p.hash(":msg_mac", encap(len(macKey)), macKey[:],
		e.id[:], e.onionKey[:], e.x[:], e.ek, sealed)
}

// secrets is seed and verify, of a complete exchange.
func (p protocol) secrets(e *exchange) (seed, verify [hashSize]byte) {
	secret := [][]byte{
		e.ephemeral[:], e.static[:], e.kem,
		e.id[:], e.onionKey[:], e.x[:], e.y[:], e.ek, e.ct,
		[]byte(p.name), encap(len(p.verification)), p.verification,
	}
	return p.hash(":key_seed", secret...), p.hash(":verify", secret...)
}

// finalKeys splits the stream of the seed into ENC_KEY and the keystream.
func (p protocol) finalKeys(seed *[hashSize]byte, encKey *[keySize]byte, keystream []byte) {
	p.kdf(":kdf_final", [][]byte{seed[:]}, encKey[:], keystream)
}

// auth is AUTH, sealed being the e' of the second message.
func (p protocol) auth(verify *[hashSize]byte, e *exchange, sealed []byte) [hashSize]byte {
	return p.hash(":auth_final", verify[:],
		e.id[:], e.onionKey[:], e.y[:], e.x[:], e.ct, e.mac[:],
		encap(len(sealed)), sealed, []byte(p.name), []byte("Server"))
}

// encrypt is ENC, which is its own inverse. The result is a new slice.
func encrypt(key *[keySize]byte, text []byte) []byte {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("ntor: aes: " + err.Error()) // only for a key of another size
	}
	out := make([]byte, len(text))
	var zero [aes.BlockSize]byte
	cipher.NewCTR(block, zero[:]).XORKeyStream(out, text)
	return out
}

// privateKey is an X25519 key pair.
type privateKey struct{ secret, public x25519.Key }

// newPrivateKey makes a key pair of 32 bytes of entropy, any 32 bytes.
func newPrivateKey(seed []byte) *privateKey {
	k := &privateKey{secret: x25519.Key(seed)}
	x25519.KeyGen(&k.public, &k.secret)
	return k
}

// diffieHellman writes the shared secret of the two keys to out.
// The error is ErrLowOrder, saying whose key it was.
func diffieHellman(out *[pointSize]byte, private *privateKey, public [pointSize]byte, whose string) error {
	their := x25519.Key(public)
	if !x25519.Shared((*x25519.Key)(out), &private.secret, &their) {
		return fmt.Errorf("%s: %w", whose, ErrLowOrder)
	}
	return nil
}

// erase overwrites the key.
func (k *privateKey) erase() { erase(k.secret[:]) }

// erase overwrites b, in a way that the compiler does not see to be useless.
//
//go:noinline
func erase(b []byte) {
	clear(b)
	runtime.KeepAlive(&b)
}
