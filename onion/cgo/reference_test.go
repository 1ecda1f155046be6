package cgo

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"testing"
)

// reference is one layer's permutation, written from the specification with no
// code of the package: POLYVAL on big integers, and the standard library's
// counter mode with a counter of 128 bits.
type reference struct {
	kb, k   cipher.Block
	ku, b   block
	chain   block
	blocks  int  // keystream blocks of a body
	ivClear byte // low bits of an IV's last byte that are zero
}

func newReference(t *testing.T, keys []byte, blocks int, ivClear byte) *reference {
	t.Helper()
	kb, err1 := aes.NewCipher(keys[0:16])
	k, err2 := aes.NewCipher(keys[32:48])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return &reference{kb: kb, k: k, ku: block(keys[16:32]), b: block(keys[48:64]), blocks: blocks, ivClear: ivClear}
}

func (r *reference) mask(cmd byte, rest []byte) block {
	return polyvalBig(r.ku, bytes.Join([][]byte{r.chain[:], {cmd}, rest}, nil))
}

func (r *reference) stream(x []byte, offset, n int) []byte {
	iv := polyvalBig(r.b, x)
	iv[15] &^= r.ivClear
	stream := make([]byte, offset*16+n)
	cipher.NewCTR(r.k, iv[:]).XORKeyStream(stream, stream)
	return stream[offset*16:]
}

func (r *reference) encrypt(cmd byte, body []byte) []byte {
	u := r.mask(cmd, body[16:])
	tag := xor(body[:16], u[:])
	r.kb.Encrypt(tag, tag)
	tag = xor(tag, u[:])
	return append(tag, xor(body[16:], r.stream(tag, 0, len(body)-16))...)
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// TestReference compares layers of several body sizes, the cell's among them,
// with the specification: the published vectors have one size only.
func TestReference(t *testing.T) {
	t.Parallel()
	tests := []struct {
		size, blocks int
		ivClear      byte
	}{
		{MinBodySize, 1, 0x07},
		{32, 1, 0x07},
		{vectorBodySize, 31, 0x3f},
		{944, 58, 0x3f},
		{960, 59, 0x3f},
		{961, 60, 0x7f},
		{1024, 63, 0x7f},
		{cellBodySize, 127, 0xff},
		{MaxBodySize, 251, 0xff},
	}
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			r := newRand(5)
			for _, test := range tests {
				keys := randomBytes(r, layerKeySize)
				var l layer
				l.init(kern, test.size, (*[layerKeySize]byte)(keys))
				ref := newReference(t, keys, test.blocks, test.ivClear)
				r.Read(l.chain[:])
				ref.chain = l.chain

				plain := randomBytes(r, test.size)
				want := ref.encrypt(cmdRelayEarly, plain)
				body := bytes.Clone(plain)
				l.encrypt(cmdRelayEarly, body)
				if !bytes.Equal(body, want) {
					t.Fatalf("encryption of %d bytes:\n got %x\nwant %x", test.size, body, want)
				}
				l.decrypt(cmdRelayEarly, body)
				if !bytes.Equal(body, plain) {
					t.Fatalf("decryption of %d bytes:\n got %x\nwant %x", test.size, body, plain)
				}

				next := ref.stream(l.nonce[:], test.blocks, layerKeySize)
				ref = newReference(t, next, test.blocks, test.ivClear)
				ref.chain = l.chain
				l.update()
				if !bytes.Equal(l.nonce[:], next[64:]) {
					t.Fatalf("nonce after the update, %d bytes: %x, want %x", test.size, l.nonce, next[64:])
				}
				l.encrypt(cmdRelay, body)
				if want := ref.encrypt(cmdRelay, plain); !bytes.Equal(body, want) {
					t.Fatalf("encryption of %d bytes after the update:\n got %x\nwant %x", test.size, body, want)
				}
			}
		})
	}
}
