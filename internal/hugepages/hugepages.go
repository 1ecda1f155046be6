// Package hugepages has the Go heap live on pages of 2 MiB where the system gives them to those who ask.
//
// A program that goes back and forth over gigabytes of small objects spends much of its time on translating addresses:
// with pages of 4 KiB nearly every object is a miss in the processor's table of pages, and in a virtual machine each miss is
// two walks. Linux gives big pages by itself only where transparent_hugepage/enabled is "always"; most
// distributions have "madvise", and the Go runtime does not ask.
package hugepages

import (
	"runtime"
	"runtime/metrics"
	"time"
	"unsafe"
)

// Reserve makes room for a heap of n bytes, asks for big pages there, and reports whether the system took the
// request. What the heap grows to beyond has ordinary pages. It is for the beginning of a program, before a memory limit is
// set, and takes a collection. Where there are no such pages, or less than n bytes of memory are free, it does nothing.
//
// A big page is cleared by the system when it is first touched, by whoever touches it: of the first gigabytes of a large
// simulation that was a sixth of the time. So a goroutine touches the next ones before the heap comes to them. The program
// uses no more of the machine's memory than its heap and ahead bytes.
func Reserve(n int64) bool {
	if n <= 0 || n > available() {
		return false
	}
	room := make([]byte, n) // fresh from the system, so not cleared: no page is touched
	ok := advise(room)
	at := uintptr(unsafe.Pointer(unsafe.SliceData(room)))
	room = nil
	runtime.GC() // the address range becomes the heap's free list, which is used from the lowest address on
	if ok {
		go touch(at, at+uintptr(n))
	}
	return ok
}

const (
	ahead = 128 << 20
	piece = 8 << 20 // touched with one system call
	pause = 50 * time.Millisecond
)

// touch has the system prepare the pages of the heap from one address to another, which the Go runtime never gives up, a
// little before they are used. It ends when that is all, and where the system cannot do so.
func touch(at, end uintptr) {
	from := at
	for ; at < end; time.Sleep(pause) {
		for to := min(from+heap()+ahead, end); at < to; at += piece {
			if !populate(at, min(piece, end-at)) {
				return
			}
		}
	}
}

// heap is how many bytes of addresses the heap is using, about.
func heap() (n uintptr) {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(s)
	for _, x := range s {
		n += uintptr(x.Value.Uint64())
	}
	return n
}
