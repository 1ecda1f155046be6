//go:build unix

package procs

import (
	"time"

	"golang.org/x/sys/unix"
)

// Used is what the process has used of its processors; false where the system does not tell.
func Used() (time.Duration, bool) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
