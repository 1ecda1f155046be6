package cert

import (
	"crypto/sha256"
	"encoding/binary"
)

// Memo remembers what pure computations gave: whether a signature is good, what a document says. It changes no result,
// it saves making one again. A simulation gives one to all its nodes, which read the same documents in one process; a
// daemon has none, because it reads each document once.
//
// An implementation is safe for concurrent use, as documents are opened in env.Pool.
type Memo interface {
	// Once returns the value that was kept under key, or else what make returns; that is kept, for a while, when its size
	// in bytes (a rough one) is not 0. The key is a digest of all that the value depends on. Values do not change.
	Once(key [32]byte, make func() (value any, size int)) any
}

// MemoKey is the key of something of a kind that depends on these parts, in this order, and on nothing else.
func MemoKey(kind string, parts ...[]byte) (key [32]byte) {
	h := sha256.New()
	var length [8]byte
	write := func(p []byte) {
		binary.BigEndian.PutUint64(length[:], uint64(len(p)))
		h.Write(length[:])
		h.Write(p)
	}
	write([]byte(kind))
	for _, p := range parts {
		write(p)
	}
	h.Sum(key[:0])
	return key
}

// Verifier opens documents as Open does. With a Memo, the same signature over the same bytes is checked once; the zero
// value remembers nothing.
type Verifier struct{ Memo Memo }

// goodSignature is what a remembered signature takes: its key and place in a table.
const goodSignature = 64

// good checks a signature of a message by a key.
func (v Verifier) good(k Key, message []byte, sig Signature) error {
	if v.Memo == nil {
		return k.verify(message, sig)
	}
	if k.Algorithm != Ed25519 || sig.Algorithm != Ed25519 {
		return k.verify(message, sig) // which refuses it
	}
	err, _ := v.Memo.Once(MemoKey("signature", k.Bytes, sig.Bytes, message), func() (any, int) {
		if err := k.verify(message, sig); err != nil {
			return err, 0
		}
		return nil, goodSignature
	}).(error)
	return err
}
