package cgo

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/big"
	"math/rand/v2"
	"testing"
)

// newRand returns a reproducible source of test input.
func newRand(seed byte) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{'c', 'g', 'o', seed})
}

func randomBytes(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	r.Read(b)
	return b
}

// one is the neutral element of POLYVAL's product: x^128.
var one = block{0: 0x01, 15: 0xc2}

// testLengths are the data lengths at which kernels are compared: each up to a
// few rounds of the widest loop, and those of whole bodies.
func testLengths() []int {
	var list []int
	for n := range 600 {
		list = append(list, n)
	}
	return append(list, 1023, 1024, 1025, 2027, 2028, 2043, 4016)
}

// polyvalBig is POLYVAL by the definition of RFC 8452, section 3, on integers
// as polynomials.
func polyvalBig(key block, data []byte) block {
	le := func(b []byte) *big.Int {
		rev := make([]byte, blockSize)
		for i, x := range b {
			rev[blockSize-1-i] = x
		}
		return new(big.Int).SetBytes(rev)
	}
	poly := new(big.Int)
	for _, i := range []int{128, 127, 126, 121, 0} {
		poly.SetBit(poly, i, 1)
	}
	h, s := le(key[:]), new(big.Int)
	for len(data) > 0 {
		n := min(blockSize, len(data))
		s.Xor(s, le(data[:n]))
		data = data[n:]
		// s·h·x^-128: whatever bit 0 is, make it 0 and divide by x.
		product := new(big.Int)
		for i := range 128 {
			if h.Bit(i) == 1 {
				product.Xor(product, new(big.Int).Lsh(s, uint(i)))
			}
		}
		for range 128 {
			if product.Bit(0) == 1 {
				product.Xor(product, poly)
			}
			product.Rsh(product, 1)
		}
		s = product
	}
	var out block
	for i, x := range s.FillBytes(make([]byte, blockSize)) {
		out[blockSize-1-i] = x
	}
	return out
}

// TestHashIsPOLYVAL compares every kernel with the definition.
func TestHashIsPOLYVAL(t *testing.T) {
	t.Parallel()
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			r := newRand(1)
			for _, n := range []int{0, 1, 15, 16, 17, 111, 112, 113, 128, 129, 240, 255, 256, 257, 500, 513} {
				key, x, data := block(randomBytes(r, 16)), block(randomBytes(r, 16)), randomBytes(r, n)
				want := polyvalBig(key, join(x[:], data))
				var hk hashKey
				kern.expandHash(&hk, &key)
				got := x
				kern.hash(&hk, &got, data)
				if got != want {
					t.Fatalf("hash of %d bytes: %x, want %x", n, got, want)
				}
			}
		})
	}
}

// TestHashEdges feeds the multiplication words of all ones, where an arithmetic
// kernel's carries are longest, and single bits.
func TestHashEdges(t *testing.T) {
	t.Parallel()
	values := []block{
		block(bytes.Repeat([]byte{0xff}, 16)), block(bytes.Repeat([]byte{0x11}, 16)), block(bytes.Repeat([]byte{0x88}, 16)),
		block(bytes.Repeat([]byte{0xaa}, 16)), block(bytes.Repeat([]byte{0x55}, 16)), {},
	}
	for i := range 128 {
		var v block
		v[i/8] = 1 << (i % 8)
		if i%8 == 0 || i%32 > 27 {
			values = append(values, v)
		}
	}
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			for _, key := range values {
				for _, x := range values {
					want := polyvalBig(key, x[:])
					got := x
					var hk hashKey
					kern.expandHash(&hk, &key)
					kern.hash(&hk, &got, nil)
					if got != want {
						t.Fatalf("dot(%x, %x) = %x, want %x", x, key, got, want)
					}
				}
			}
		})
	}
}

// guarded returns data and a copy of it between bytes that must not change;
// intact reports whether they did not.
func guarded(data []byte) (inside []byte, intact func() bool) {
	const margin = 160
	all := bytes.Repeat([]byte{0xee}, margin+len(data)+margin)
	inside = all[margin : margin+len(data) : margin+len(data)]
	copy(inside, data)
	return inside, func() bool {
		edge := bytes.Repeat([]byte{0xee}, margin)
		return bytes.Equal(all[:margin], edge) && bytes.Equal(all[margin+len(data):], edge)
	}
}

// TestKernelsAgree compares each assembly kernel with the portable one on
// random input of many lengths and at every alignment of 16.
func TestKernelsAgree(t *testing.T) {
	t.Parallel()
	list := kernels()
	ref := list[len(list)-1]
	for _, kern := range list[:len(list)-1] {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			r := newRand(2)
			for i, n := range testLengths() {
				key, x, data := block(randomBytes(r, 16)), block(randomBytes(r, 16)), randomBytes(r, n+i%16)[i%16:]
				var hk, hkRef hashKey
				kern.expandHash(&hk, &key)
				ref.expandHash(&hkRef, &key)
				got, want := x, x
				inside, intact := guarded(data)
				kern.hash(&hk, &got, inside)
				ref.hash(&hkRef, &want, data)
				if got != want {
					t.Fatalf("hash of %d bytes: %x, want %x", n, got, want)
				}
				if !intact() || !bytes.Equal(inside, data) {
					t.Fatalf("hash of %d bytes wrote to its input", n)
				}
				var ks, ksRef aesKey
				kern.expandAES(&ks, &key)
				ref.expandAES(&ksRef, &key)
				b := block(randomBytes(r, 16))
				clear, first := byte(r.Uint64()), byte(r.Uint64())
				kern.keystream(&ks, &b, &x, clear, first, inside)
				ref.keystream(&ksRef, &b, &x, clear, first, data)
				if !bytes.Equal(inside, data) {
					t.Fatalf("keystream of %d bytes:\n got %x\nwant %x", n, inside, data)
				}
				if !intact() {
					t.Fatalf("keystream of %d bytes wrote past its end", n)
				}
			}
		})
	}
}

// TestCiphersAreAES compares every kernel's block cipher and counter mode with
// the standard library.
func TestCiphersAreAES(t *testing.T) {
	t.Parallel()
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			r := newRand(3)
			for i, n := range testLengths() {
				key, x, data := block(randomBytes(r, 16)), block(randomBytes(r, 16)), randomBytes(r, n+i%16)[i%16:]
				std, err := aes.NewCipher(key[:])
				if err != nil {
					t.Fatal(err)
				}
				var ks aesKey
				kern.expandAES(&ks, &key)
				var want block
				mask := block(randomBytes(r, 16))
				xorBlock(&want, &x)
				xorBlock(&want, &mask)
				std.Encrypt(want[:], want[:])
				xorBlock(&want, &mask)
				got := x
				kern.encrypt(&ks, &got, &mask)
				if got != want {
					t.Fatalf("encryption of %x: %x, want %x", x, got, want)
				}
				kern.decrypt(&ks, &got, &mask)
				if got != x {
					t.Fatalf("decryption of %x: %x, want %x", want, got, x)
				}

				x[15] = byte(256 - (n+15)/16) // the largest that does not wrap
				if i%2 == 0 {
					x[15] = 0
				}
				inside, intact := guarded(data)
				kern.keystream(&ks, &one, &x, 0, 0, inside)
				cipher.NewCTR(std, x[:]).XORKeyStream(data, data)
				if !bytes.Equal(inside, data) {
					t.Fatalf("keystream of %d bytes:\n got %x\nwant %x", n, inside, data)
				}
				if !intact() {
					t.Fatalf("keystream of %d bytes wrote past its end", n)
				}
			}
		})
	}
}

// TestCounterStaysInItsByte pins the contract of keystream: the byte wraps and
// nothing is carried.
func TestCounterStaysInItsByte(t *testing.T) {
	t.Parallel()
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			r := newRand(4)
			key, x := block(randomBytes(r, 16)), block(randomBytes(r, 16))
			var ks aesKey
			kern.expandAES(&ks, &key)
			got, want := make([]byte, 40*blockSize), make([]byte, 40*blockSize)
			kern.keystream(&ks, &one, &x, 0x7f, 123, got)
			x[15] = x[15]&0x80 + 123
			for i := range 40 {
				b := x
				b[15] += byte(i)
				kern.encrypt(&ks, &b, new(block))
				copy(want[i*blockSize:], b[:])
			}
			equal(t, "keystream", got, want)
		})
	}
}
