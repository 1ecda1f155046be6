package simnet

import (
	"bytes"
	"fmt"
	"testing"
)

// TestDigestSeesEveryByte: each bit, the order and the length count, for all lengths that take another way through it.
func TestDigestSeesEveryByte(t *testing.T) {
	t.Parallel()
	seen := make(map[uint64]string)
	note := func(p []byte, what string) {
		what = fmt.Sprintf("%d bytes of %s", len(p), what)
		d := digest(p)
		if before, there := seen[d]; there {
			t.Fatalf("%s and %s have one digest", before, what)
		}
		seen[d] = what
	}
	for _, n := range []int{0, 1, 7, 8, 9, 63, 64, 65, 128, 136, 2048} {
		p := bytes.Repeat([]byte{0}, n)
		note(p, "zeros")
		for i := range 8 * n {
			p[i/8] ^= 1 << (i % 8)
			note(p, "one bit")
			p[i/8] ^= 1 << (i % 8)
		}
	}
	a, b := bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64)
	note(append(bytes.Clone(a), b...), "two blocks")
	note(append(bytes.Clone(b), a...), "two blocks the other way")
	if digest(a) != digest(bytes.Clone(a)) {
		t.Error("the same bytes have two digests")
	}
}

func BenchmarkDigest(b *testing.B) {
	p := make([]byte, 2048)
	b.SetBytes(2048)
	for b.Loop() {
		digest(p)
	}
}
