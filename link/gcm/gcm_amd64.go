//go:build !purego

package gcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"unsafe"

	"golang.org/x/sys/cpu"
)

const (
	keySize   = 16
	blockSize = 16
	nonceSize = 12
	tagSize   = 16
	groupSize = 16 * blockSize // what sealGroups and openGroups take at once
	// maxData is what one nonce is good for: the counter has 32 bits, and begins at 2.
	maxData = (1<<32 - 2) * blockSize
)

type block [blockSize]byte

// native says that the assembly here runs on this processor.
var native = hasNative(&cpu.X86.HasAES, &cpu.X86.HasBMI2, &cpu.X86.HasAVX512F, &cpu.X86.HasAVX512BW,
	&cpu.X86.HasAVX512DQ, &cpu.X86.HasAVX512VL, &cpu.X86.HasAVX512VAES, &cpu.X86.HasAVX512VPCLMULQDQ)

func hasNative(features ...*bool) bool {
	return !slices.ContainsFunc(features, func(has *bool) bool { return !*has })
}

// vaes is AES-128-GCM in assembly.
//
// GHASH is done as POLYVAL (RFC 8452, appendix A), which is the same with the bytes of each block in reverse order: then
// a block is a number as the processor knows it. acc below is in that order, and so is ctr, the counter block.
type vaes struct {
	// powers[i] is H^(16-i), the hash key being H^1.
	//
	//lint:ignore U1000 the linter does not see assembly
	powers [16]block
	enc    [11]block // round keys
}

func newNative(key []byte) cipher.AEAD {
	g := new(vaes)
	var words [44]uint32 // FIPS 197, section 5.2, in the order of memory
	for i := range words {
		if i < 4 {
			words[i] = binary.LittleEndian.Uint32(key[4*i:])
			continue
		}
		w := words[i-1]
		if i%4 == 0 {
			w = subWord(bits.RotateLeft32(w, -8)) ^ uint32(roundConstants[i/4-1])
		}
		words[i] = words[i-4] ^ w
	}
	for i, w := range words {
		binary.LittleEndian.PutUint32(g.enc[i/4][i%4*4:], w)
	}
	var h block
	if c, err := aes.NewCipher(key); err == nil { // the length is right
		c.Encrypt(h[:], h[:])
	}
	slices.Reverse(h[:])
	// Times x in POLYVAL's field.
	lo, hi := binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:])
	carry := -(hi >> 63)
	binary.LittleEndian.PutUint64(h[:], lo<<1^carry&1)
	binary.LittleEndian.PutUint64(h[8:], hi<<1^lo>>63^carry&0xc200000000000000)
	expandPowers(g, &h)
	return g
}

var roundConstants = [10]byte{1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36}

func (g *vaes) NonceSize() int { return nonceSize }
func (g *vaes) Overhead() int  { return tagSize }

// Seal implements cipher.AEAD.
func (g *vaes) Seal(dst, nonce, plain, ad []byte) []byte {
	ctr := start(nonce, plain)
	dst = slices.Grow(dst, len(plain)+tagSize)
	out := dst[len(dst) : len(dst)+len(plain)+tagSize]
	mask := g.mask(&ctr)
	var acc block
	g.absorb(&acc, ad)
	whole := len(plain) &^ (groupSize - 1)
	if whole > 0 {
		sealGroups(g, &ctr, &acc, unsafe.SliceData(out), unsafe.SliceData(plain), whole/groupSize)
	}
	tail := out[whole:len(plain)]
	g.xorTail(&ctr, tail, plain[whole:])
	g.finish(&acc, tail, len(ad), len(plain))
	subtle.XORBytes(out[len(plain):], acc[:], mask[:])
	return dst[:len(dst)+len(out)]
}

var errOpen = errors.New("gcm: message authentication failed")

// Open implements cipher.AEAD.
func (g *vaes) Open(dst, nonce, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < tagSize {
		return nil, errOpen
	}
	data, want := sealed[:len(sealed)-tagSize], sealed[len(sealed)-tagSize:]
	ctr := start(nonce, data)
	dst = slices.Grow(dst, len(data))
	out := dst[len(dst) : len(dst)+len(data)]
	mask := g.mask(&ctr)
	var acc block
	g.absorb(&acc, ad)
	whole := len(data) &^ (groupSize - 1)
	if whole > 0 {
		openGroups(g, &ctr, &acc, unsafe.SliceData(out), unsafe.SliceData(data), whole/groupSize)
	}
	g.finish(&acc, data[whole:], len(ad), len(data))
	g.xorTail(&ctr, out[whole:], data[whole:])
	subtle.XORBytes(acc[:], acc[:], mask[:])
	if subtle.ConstantTimeCompare(acc[:], want) != 1 {
		clear(out)
		return nil, errOpen
	}
	return dst[:len(dst)+len(out)], nil
}

// start is the counter block of the mask of the tag, that is, number 1.
func start(nonce, data []byte) (ctr block) {
	if len(nonce) != nonceSize {
		panic("gcm: a nonce is 12 bytes long")
	}
	if uint64(len(data)) > maxData {
		panic("gcm: too much data for one nonce")
	}
	ctr[0] = 1
	for i, b := range nonce {
		ctr[15-i] = b
	}
	return ctr
}

// mask is what the tag is encrypted with. It leaves ctr at 2.
func (g *vaes) mask(ctr *block) (m block) {
	xorTail(g, ctr, &m[0], &m[0], blockSize)
	ctr[0] = 2
	return m
}

// absorb adds p to the hash, zeros behind it.
func (g *vaes) absorb(acc *block, p []byte) {
	if n := len(p) / blockSize; n > 0 {
		hashBlocks(g, acc, &p[0], n)
		p = p[n*blockSize:]
	}
	if len(p) > 0 {
		var last block
		copy(last[:], p)
		hashBlocks(g, acc, &last[0], 1)
	}
}

// finish adds the rest of the data, less than a group, and the lengths, and makes acc the hash.
func (g *vaes) finish(acc *block, rest []byte, ad, data int) {
	var last [groupSize + blockSize]byte
	n := (len(rest) + blockSize - 1) / blockSize * blockSize
	copy(last[:], rest)
	binary.BigEndian.PutUint64(last[n:], 8*uint64(ad))
	binary.BigEndian.PutUint64(last[n+8:], 8*uint64(data))
	hashBlocks(g, acc, &last[0], n/blockSize+1)
	slices.Reverse(acc[:])
}

func (g *vaes) xorTail(ctr *block, dst, src []byte) {
	if len(src) > 0 {
		xorTail(g, ctr, &dst[0], &src[0], len(src))
	}
}

// subWord is SubWord of FIPS 197.
func subWord(w uint32) uint32

// expandPowers sets key.powers from H.
//
//go:noescape
func expandPowers(key *vaes, h *block)

// hashBlocks adds n blocks to the hash.
//
//go:noescape
func hashBlocks(key *vaes, acc *block, data *byte, n int)

// sealGroups encrypts so many groups of 16 blocks from src to dst, adds what it has written to the hash, and advances
// the counter.
//
//go:noescape
func sealGroups(key *vaes, ctr, acc *block, dst, src *byte, groups int)

// openGroups decrypts so many groups from src to dst and adds what it has read to the hash.
//
//go:noescape
func openGroups(key *vaes, ctr, acc *block, dst, src *byte, groups int)

// xorTail encrypts n bytes, from 1 to 256, from src to dst. The counter stays.
//
//go:noescape
func xorTail(key *vaes, ctr *block, dst, src *byte, n int)
