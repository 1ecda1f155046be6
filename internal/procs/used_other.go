//go:build !unix

package procs

import "time"

// Used is not known on this system.
func Used() (time.Duration, bool) { return 0, false }
