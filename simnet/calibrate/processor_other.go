//go:build !unix

package calibrate

import "time"

var begun = time.Now()

// processor is the time that has passed: the system does not say what a process has used exactly enough.
func processor() time.Duration { return time.Since(begun) }
