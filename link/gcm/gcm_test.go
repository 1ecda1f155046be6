package gcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
)

// both is New's and the standard library's AES-GCM with one key.
func both(t testing.TB, key []byte) (ours, theirs cipher.AEAD) {
	t.Helper()
	ours, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// check seals with one and opens with the other, both ways, in place and not.
func check(t *testing.T, key, nonce, plain, ad []byte) {
	t.Helper()
	ours, theirs := both(t, key)
	want := theirs.Seal(nil, nonce, plain, ad)
	kept := bytes.Clone(plain)
	got := ours.Seal([]byte("before"), nonce, plain, ad)
	if !bytes.Equal(got, append([]byte("before"), want...)) {
		t.Fatalf("%d bytes with %d more: sealed as %x, want %x", len(plain), len(ad), got[6:], want)
	}
	if !bytes.Equal(plain, kept) {
		t.Fatalf("Seal changed what it was given")
	}
	inPlace := append(make([]byte, 0, len(want)), plain...)
	if got := ours.Seal(inPlace[:0], nonce, inPlace, ad); !bytes.Equal(got, want) || &got[0] != &inPlace[:1][0] {
		t.Fatalf("%d bytes: sealed in place as %x, want %x", len(plain), got, want)
	}
	opened, err := ours.Open([]byte("before"), nonce, want, ad)
	if err != nil || !bytes.Equal(opened, append([]byte("before"), plain...)) {
		t.Fatalf("%d bytes with %d more: opened as %x, %v", len(plain), len(ad), opened, err)
	}
	opened, err = ours.Open(inPlace[:0], nonce, inPlace[:len(want)], ad)
	if err != nil || !bytes.Equal(opened, plain) {
		t.Fatalf("%d bytes: opened in place as %x, %v", len(plain), opened, err)
	}
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Test case 4 of the paper that defines GCM (McGrew and Viega, "The Galois/Counter Mode of Operation").
func TestVector(t *testing.T) {
	t.Parallel()
	parse := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ours, _ := both(t, parse("feffe9928665731c6d6a8f9467308308"))
	got := ours.Seal(nil, parse("cafebabefacedbaddecaf888"),
		parse("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"),
		parse("feedfacedeadbeeffeedfacedeadbeefabaddad2"))
	want := parse("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091" +
		"5bc94fbc3221a5db94fae95ae7121a47")
	if !bytes.Equal(got, want) {
		t.Errorf("sealed as %x, want %x", got, want)
	}
}

func TestItIsTheSameAsTheStandardLibrarys(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 1100 {
		check(t, random(r, 16), random(r, 12), random(r, n), random(r, 5))
	}
	for _, n := range []int{2049, 16383, 16384, 16385, 16640, 100_000} {
		for _, key := range []int{16, 32} {
			for _, ad := range []int{0, 1, 5, 15, 16, 17, 32, 100} {
				check(t, random(r, key), random(r, 12), random(r, n), random(r, ad))
			}
		}
	}
	// Carries in all places of the field and the counter.
	for _, b := range []byte{0, 0xff, 0x80, 1} {
		fill := func(n int) []byte { return bytes.Repeat([]byte{b}, n) }
		check(t, fill(16), fill(12), fill(5000), fill(5))
	}
	if _, err := New(make([]byte, 17)); err == nil {
		t.Error("a key of 17 bytes will do")
	}
}

func TestAnAlteredMessageDoesNotOpen(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 16, 255, 256, 257, 600, 2049} {
		key, nonce, ad := random(r, 16), random(r, 12), random(r, 5)
		ours, _ := both(t, key)
		sealed := ours.Seal(nil, nonce, random(r, n), ad)
		for i := range sealed {
			sealed[i] ^= 1 << (i % 8)
			out := make([]byte, n, n+1)
			for j := range out {
				out[j] = 0xaa
			}
			if got, err := ours.Open(out[:0], nonce, sealed, ad); err == nil || got != nil {
				t.Fatalf("%d bytes: opens with byte %d changed", n, i)
			}
			if !bytes.Equal(out, make([]byte, n)) {
				t.Fatalf("%d bytes: what does not open is given out", n)
			}
			sealed[i] ^= 1 << (i % 8)
		}
		if _, err := ours.Open(nil, nonce, sealed[:len(sealed)-1], ad); err == nil {
			t.Errorf("%d bytes: opens without its last byte", n)
		}
		if _, err := ours.Open(nil, nonce, sealed, append(ad, 0)); err == nil {
			t.Errorf("%d bytes: opens with other additional data", n)
		}
	}
	ours, _ := both(t, make([]byte, 16))
	for n := range 16 {
		if _, err := ours.Open(nil, make([]byte, 12), make([]byte, n), nil); err == nil {
			t.Errorf("%d bytes open", n)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	ours, _ := both(t, make([]byte, 16))
	plain, nonce, ad := make([]byte, 2049), make([]byte, 12), make([]byte, 5)
	out, opened := make([]byte, 0, 2049+16), make([]byte, 0, 2049)
	if n := testing.AllocsPerRun(20, func() {
		sealed := ours.Seal(out, nonce, plain, ad)
		if _, err := ours.Open(opened, nonce, sealed, ad); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzSameAsStandard(f *testing.F) {
	f.Add(make([]byte, 16), make([]byte, 12), make([]byte, 700), make([]byte, 5))
	f.Add(bytes.Repeat([]byte{0xff}, 16), bytes.Repeat([]byte{0xff}, 12), bytes.Repeat([]byte{0xff}, 257), []byte{1})
	f.Fuzz(func(t *testing.T, key, nonce, plain, ad []byte) {
		key, nonce = append(key, make([]byte, 16)...)[:16], append(nonce, make([]byte, 12)...)[:12]
		check(t, key, nonce, plain, ad)
	})
}

func BenchmarkRecord(b *testing.B) {
	for _, n := range []int{2049, 16385} {
		ours, theirs := both(b, make([]byte, 16))
		for name, g := range map[string]cipher.AEAD{"ours": ours, "standard": theirs} {
			nonce, ad, plain := make([]byte, 12), make([]byte, 5), make([]byte, n)
			out := make([]byte, 0, n+16)
			b.Run(fmt.Sprintf("seal/%s/%d", name, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					g.Seal(out, nonce, plain, ad)
				}
			})
			b.Run(fmt.Sprintf("open/%s/%d", name, n), func(b *testing.B) {
				sealed := g.Seal(nil, nonce, plain, ad)
				b.SetBytes(int64(n))
				for b.Loop() {
					if _, err := g.Open(out, nonce, sealed, ad); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
