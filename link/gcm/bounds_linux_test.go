package gcm

import (
	"syscall"
	"testing"
)

// TestItStaysInBounds puts data against unreadable memory, before and behind: whatever reads or writes a byte too many
// dies.
func TestItStaysInBounds(t *testing.T) {
	t.Parallel()
	page := syscall.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mem)
	for _, outer := range [][]byte{mem[:page], mem[2*page:]} {
		if err := syscall.Mprotect(outer, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	ours, _ := both(t, make([]byte, 16))
	nonce := make([]byte, 12)
	for n := range 1100 {
		for _, at := range []int{page, 2*page - n - 16} {
			plain, sealed := mem[at:at+n], mem[at:at+n+16]
			ours.Seal(nil, nonce, plain, plain[:min(n, 40)]) // reads
			ours.Seal(plain[:0], nonce, plain, nil)          // writes, in place
			if _, err := ours.Open(nil, nonce, sealed, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := ours.Open(plain[:0], nonce, sealed, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}
