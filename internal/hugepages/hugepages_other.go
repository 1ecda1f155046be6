//go:build !linux

package hugepages

func advise([]byte) bool { return false }

func populate(uintptr, uintptr) bool { return false }

// available is nothing: there is nobody to ask for big pages.
func available() int64 { return 0 }
