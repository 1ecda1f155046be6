package cgo

import (
	"syscall"
	"testing"
)

// TestKernelsStayInBounds puts data against unreadable memory, before and
// behind: a kernel that reads or writes a byte too many dies.
func TestKernelsStayInBounds(t *testing.T) {
	t.Parallel()
	page := syscall.Getpagesize()
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
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
			var ks aesKey
			var hk hashKey
			var x, key block
			kern.expandAES(&ks, &key)
			kern.expandHash(&hk, &key)
			for _, n := range testLengths() {
				if n > page {
					continue
				}
				for _, data := range [][]byte{mem[page : page+n], mem[2*page-n : 2*page]} {
					kern.hash(&hk, &x, data)
					kern.keystream(&ks, &key, &x, 0xff, 0, data)
				}
			}
		})
	}
}
