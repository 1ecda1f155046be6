package env

import "time"

// What waits in a kernel that TCP cannot send yet can no longer be overtaken: MostAhead bytes of a link at most, about what
// 10 Gbit/s send in the time that a writer needs to wake up and encrypt more, and less of a slow one.
const (
	MostAhead  = 128 << 10
	leastAhead = 4 << 10
	slowAhead  = 10 * time.Millisecond // of the rate of a slow link,
	fastAhead  = 2 * time.Millisecond  // and of a fast one, which is one that sends
	fastBytes  = 16 << 10              // so many bytes in that time
)

// Ahead is how many bytes of a link a kernel should take ahead of TCP, if it takes rate bytes a second.
func Ahead(rate float64) int {
	n := min(rate*slowAhead.Seconds(), max(fastBytes, rate*fastAhead.Seconds()), MostAhead)
	return max(int(n), leastAhead)
}
