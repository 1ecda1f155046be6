package cgo

import (
	"crypto/aes"
	"encoding/binary"
	"math/bits"
)

// portable is the kernel in Go: crypto/aes, and POLYVAL in integer arithmetic
// with neither branches nor table look-ups that depend on data.
type portable struct{}

func (portable) name() string { return "portable" }

func (portable) expandAES(ks *aesKey, key *block) {
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic("cgo: AES-128 refused a key of 16 bytes: " + err.Error())
	}
	ks.std = c
}

func (portable) encrypt(ks *aesKey, x, mask *block) {
	xorBlock(x, mask)
	ks.std.Encrypt(x[:], x[:])
	xorBlock(x, mask)
}

func (portable) decrypt(ks *aesKey, x, mask *block) {
	xorBlock(x, mask)
	ks.std.Decrypt(x[:], x[:])
	xorBlock(x, mask)
}

func (portable) keystream(ks *aesKey, b, x *block, clear, first uint8, data []byte) {
	var h factor
	h.set(b)
	s := loadElement(x)
	s.mul(&h)
	s.store(&ks.iv)
	ks.iv[blockSize-1] = ks.iv[blockSize-1]&^clear + first
	for len(data) >= blockSize {
		ks.std.Encrypt(ks.buf[:], ks.iv[:])
		xorBlock((*block)(data), &ks.buf)
		ks.iv[blockSize-1]++
		data = data[blockSize:]
	}
	if len(data) > 0 {
		ks.std.Encrypt(ks.buf[:], ks.iv[:])
		for i := range data {
			data[i] ^= ks.buf[i]
		}
	}
	ks.iv, ks.buf = block{}, block{}
}

func xorBlock(dst, src *block) {
	le := binary.LittleEndian
	le.PutUint64(dst[:8], le.Uint64(dst[:8])^le.Uint64(src[:8]))
	le.PutUint64(dst[8:], le.Uint64(dst[8:])^le.Uint64(src[8:]))
}

func (portable) expandHash(hk *hashKey, key *block) { hk.powers[hashPowers-1] = *key }

func (portable) hash(hk *hashKey, x *block, data []byte) {
	var h factor
	h.set(&hk.powers[hashPowers-1])
	s := loadElement(x)
	s.mul(&h)
	for len(data) >= blockSize {
		x := loadElement((*block)(data))
		s.lo ^= x.lo
		s.hi ^= x.hi
		s.mul(&h)
		data = data[blockSize:]
	}
	if len(data) > 0 {
		var last block
		copy(last[:], data)
		x := loadElement(&last)
		s.lo ^= x.lo
		s.hi ^= x.hi
		s.mul(&h)
	}
	s.store(x)
}

// An element of GF(2^128): bit i of hi:lo is the coefficient of x^i.
type element struct{ lo, hi uint64 }

func loadElement(b *block) element {
	return element{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}
}

func (e element) store(b *block) {
	binary.LittleEndian.PutUint64(b[:8], e.lo)
	binary.LittleEndian.PutUint64(b[8:], e.hi)
}

// mul sets e to e·h·x^-128, the product of RFC 8452, section 3. It is one
// Karatsuba step over 64-bit halves and a Montgomery reduction by x^128 + x^127
// + x^126 + x^121 + 1, 64 bits at a time.
//
// The low half of a product of 64 bits is had directly. The high half is that
// of the reversed words, reversed, and one place further down.
func (e *element) mul(h *factor) {
	lo, hi := e.lo, e.hi
	loRev, hiRev := bits.Reverse64(lo), bits.Reverse64(hi)
	l0, h0 := h.lo.mulLow(lo), h.loRev.mulLow(loRev)
	l1, h1 := h.hi.mulLow(hi), h.hiRev.mulLow(hiRev)
	lm, hm := h.sum.mulLow(lo^hi), h.sumRev.mulLow(loRev^hiRev)
	lm ^= l0 ^ l1
	hm ^= h0 ^ h1
	w0 := l0
	w1 := bits.Reverse64(h0)>>1 ^ lm
	w2 := bits.Reverse64(hm)>>1 ^ l1
	w3 := bits.Reverse64(h1) >> 1

	w1 ^= w0<<63 ^ w0<<62 ^ w0<<57
	w2 ^= w0 ^ w0>>1 ^ w0>>2 ^ w0>>7
	w2 ^= w1<<63 ^ w1<<62 ^ w1<<57
	w3 ^= w1 ^ w1>>1 ^ w1>>2 ^ w1>>7
	e.lo, e.hi = w2, w3
}

// A factor is a POLYVAL key taken apart for carry-less multiplication: its
// halves and their sum, each also reversed.
type factor struct{ lo, loRev, hi, hiRev, sum, sumRev spread }

func (f *factor) set(key *block) {
	e := loadElement(key)
	f.lo.set(e.lo)
	f.hi.set(e.hi)
	f.sum.set(e.lo ^ e.hi)
	f.loRev.set(bits.Reverse64(e.lo))
	f.hiRev.set(bits.Reverse64(e.hi))
	f.sumRev.set(bits.Reverse64(e.lo ^ e.hi))
}

// A spread is a polynomial of 64 bits in a form that turns a carry-less product
// into ordinary ones: in each word only every fourth bit may be set. In the
// integer product of two such words, up to 16 coefficients add up in a field of
// four bits, whose lowest is their sum modulo 2. Only the topmost field can get
// 16, and its carry falls off the end.
type spread [4]uint64

const everyFourth = 0x1111111111111111

func (s *spread) set(y uint64) {
	for i := range s {
		s[i] = y & (everyFourth << i)
	}
}

// mulLow returns the low half of the carry-less product of s and x.
func (s *spread) mulLow(x uint64) uint64 {
	x0 := x & everyFourth
	x1 := x & (everyFourth << 1)
	x2 := x & (everyFourth << 2)
	x3 := x & (everyFourth << 3)
	y0, y1, y2, y3 := s[0], s[1], s[2], s[3]
	z0 := x0*y0 ^ x1*y3 ^ x2*y2 ^ x3*y1
	z1 := x0*y1 ^ x1*y0 ^ x2*y3 ^ x3*y2
	z2 := x0*y2 ^ x1*y1 ^ x2*y0 ^ x3*y3
	z3 := x0*y3 ^ x1*y2 ^ x2*y1 ^ x3*y0
	return z0&everyFourth | z1&(everyFourth<<1) | z2&(everyFourth<<2) | z3&(everyFourth<<3)
}
