package hugepages

import (
	"bufio"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func advise(p []byte) bool { return unix.Madvise(p, unix.MADV_HUGEPAGE) == nil }

// populate has the pages there be writable without a fault, and leaves what they hold as it is.
func populate(at, n uintptr) bool {
	const page = 4096
	first := (at + page - 1) &^ (page - 1)
	last := (at + n) &^ (page - 1)
	if first >= last {
		return true
	}
	_, _, e := unix.Syscall(unix.SYS_MADVISE, first, last-first, unix.MADV_POPULATE_WRITE)
	return e == 0
}

// available is how many bytes of memory programs can still take without swapping.
func available() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
