// Package hugepages has the Go heap live on pages of 2 MiB where the system gives them to those who ask.
//
// A program that goes back and forth over gigabytes of small objects spends much of its time on translating addresses:
// with pages of 4 KiB nearly every object is a miss in the processor's table of pages, and in a virtual machine each miss is
// two walks. Linux gives big pages by itself only where transparent_hugepage/enabled is "always"; most
// distributions have "madvise", and the Go runtime does not ask.
package hugepages

import "runtime"

// Reserve makes room for a heap of n bytes, asks for big pages there, and reports whether the system took the
// request. Nothing is touched, so nothing is used of the machine's memory; what the heap grows to beyond has ordinary
// pages. It is for the beginning of a program, before a memory limit is set, and takes a collection. Where there are no
// such pages, or less than n bytes of memory are free, it does nothing.
func Reserve(n int64) bool {
	if n <= 0 || n > available() {
		return false
	}
	room := make([]byte, n) // fresh from the system, so not cleared: no page is touched
	ok := advise(room)
	room = nil
	runtime.GC() // the address range becomes the heap's free list, which is used from the lowest address on
	return ok
}
