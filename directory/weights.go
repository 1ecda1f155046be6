package directory

// weightBits is how many significant bits of a weight the consensus keeps. What is measured varies by more from hour to
// hour, and each change is a few bytes for every client.
const weightBits = 4

// roundWeight rounds a weight to weightBits significant bits, half up: 100 becomes 104, 115 becomes 112. The error is
// less than 6 %.
func roundWeight(w uint64) uint64 {
	unit := uint64(1)
	for w/unit >= 1<<weightBits {
		unit *= 2
	}
	return (w + unit/2) / unit * unit
}

// stepOf numbers the weights that have no more than weightBits significant bits, ascending from 0 for 0; ok is false
// for others.
func stepOf(w uint32) (step uint32, ok bool) {
	shift := uint32(0)
	for w>>shift >= 1<<weightBits {
		shift++
	}
	if w>>shift<<shift != w {
		return 0, false
	}
	if shift == 0 {
		return w, true
	}
	const half = 1 << (weightBits - 1)
	return half*(shift+1) + w>>shift - half, true
}

// weightOf is the weight with that number; ok is false when there is none.
func weightOf(step uint32) (w uint32, ok bool) {
	const half = 1 << (weightBits - 1)
	if step < 2*half {
		return step, true
	}
	shift := step/half - 1
	if shift > 32-weightBits {
		return 0, false
	}
	return (step%half + half) << shift, true
}

// zigzag writes small numbers of either sign as small numbers.
func zigzag(n int32) uint32     { return uint32(n<<1) ^ uint32(n>>31) }
func fromZigzag(u uint32) int32 { return int32(u>>1) ^ -int32(u&1) }
