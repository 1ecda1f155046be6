package cgo

import "crypto/cipher"

// A kernel is one implementation of the primitives under a layer. It has no
// state of its own; a key expanded by one kernel is used with that kernel only.
type kernel interface {
	// name is the instruction set, for benchmarks and tests.
	name() string

	// expandAES sets ks from key, for both directions of the cipher.
	expandAES(ks *aesKey, key *block)

	// encrypt and decrypt replace x by AES(x ^ mask) ^ mask and its inverse.
	encrypt(ks *aesKey, x, mask *block)
	decrypt(ks *aesKey, x, mask *block)

	// keystream XORs into data the encryption of IV + first and its successors,
	// where IV is POLYVAL(b; x) without the bits clear of its last byte. Only
	// that byte counts (modulo 256). data is at most 256 blocks, the last of
	// which may be partial.
	keystream(ks *aesKey, b, x *block, clear, first uint8, data []byte)

	// expandHash sets hk from the POLYVAL key.
	expandHash(hk *hashKey, key *block)

	// hash replaces x by POLYVAL(key; x | data), data zero-padded to whole
	// blocks. It does not write to data.
	hash(hk *hashKey, x *block, data []byte)
}

// An aesKey is an expanded AES-128 key.
type aesKey struct {
	// Round keys in the order of their use, dec for the equivalent inverse
	// cipher. Used by the assembly kernels, for which enc must stand first.
	enc, dec [11]block

	// Used by the portable kernel, with a counter and a keystream block.
	std     cipher.Block
	iv, buf block
}

// hashPowers is the number of powers of a POLYVAL key that are kept, so that
// many blocks share one reduction.
const hashPowers = 16

// A hashKey is an expanded POLYVAL key.
type hashKey struct {
	// powers[i] is H^(hashPowers-i), in POLYVAL's sense of a product: the order
	// in which a run of blocks needs them. A kernel may keep fewer; the last is
	// H itself.
	powers [hashPowers]block

	// mids holds, for each of the last eight powers, the sum of its halves;
	// only assembly uses it.
	//
	//lint:ignore U1000 the linter does not see assembly
	mids [4]block
}

// best is the fastest kernel that this processor has.
var best = kernels()[0]

// kernels lists the kernels of this processor, the fastest first; the last is
// the portable one.
func kernels() []kernel { return append(nativeKernels(), portable{}) }
