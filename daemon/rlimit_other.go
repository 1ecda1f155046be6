//go:build !unix

package daemon

import "time"

// fileLimit is not known on this system.
func fileLimit() (int, bool) { return 0, false }

// processorTime is not known on this system.
func processorTime() (time.Duration, bool) { return 0, false }
