//go:build linux

package hugepages

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// TestHeapLiesOnBigPages: what is allocated after Reserve is on big pages, for the most part, where the
// system has them for those who ask.
func TestHeapLiesOnBigPages(t *testing.T) {
	enabled, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || strings.Contains(string(enabled), "[never]") {
		t.Skip("this system has no transparent huge pages")
	}
	const room, used = 1 << 30, 256 << 20
	if !Reserve(room) {
		t.Skip("less than 1 GiB is free, or the system does not take the request")
	}
	var keep [][]byte
	for range used / 1024 {
		p := make([]byte, 1024)
		p[0] = 1
		keep = append(keep, p)
	}
	big := anonHuge(t)
	runtime.KeepAlive(keep)
	t.Logf("%d MiB on big pages", big>>20)
	if big < used/2 {
		t.Errorf("of %d MiB that are in use, %d MiB are on big pages", used>>20, big>>20)
	}
}

// TestReserveTooMuch: nobody reserves what the machine does not have.
func TestReserveTooMuch(t *testing.T) {
	for _, n := range []int64{-1, 0, 1 << 50} {
		if Reserve(n) {
			t.Errorf("%d bytes were reserved", n)
		}
	}
}

func anonHuge(t *testing.T) int64 {
	f, err := os.Open("/proc/self/smaps_rollup")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "AnonHugePages: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
