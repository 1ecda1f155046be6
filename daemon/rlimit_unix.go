//go:build unix

package daemon

import "golang.org/x/sys/unix"

// fileLimit is how many files the process may have open; the runtime has raised that as far as it may.
func fileLimit() (int, bool) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, false
	}
	const plenty = 1 << 30 // also where it is without limit
	if l.Cur > plenty || int64(l.Cur) < 0 {
		return plenty, true
	}
	return int(l.Cur), true
}
