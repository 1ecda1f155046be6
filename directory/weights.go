package directory

// weightBits is how many significant bits of a weight the consensus keeps. What is measured varies by more from hour to
// hour, and each change is a few bytes for every client.
const weightBits = 3

// roundWeight rounds a weight to weightBits significant bits, half up: 100 becomes 96, 104 becomes 112. The error is at most a
// sixteenth.
func roundWeight(w uint64) uint64 {
	unit := uint64(1)
	for w/unit >= 1<<weightBits {
		unit *= 2
	}
	return (w + unit/2) / unit * unit
}
