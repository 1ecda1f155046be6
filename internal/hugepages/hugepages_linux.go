package hugepages

import (
	"bufio"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func advise(p []byte) bool { return unix.Madvise(p, unix.MADV_HUGEPAGE) == nil }

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
