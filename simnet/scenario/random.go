package scenario

import (
	"math/big"
	"math/bits"
	"time"

	"cepa/simnet"
)

// weibull draws a time from a Weibull distribution with a scale and a shape in thousandths, without
// floating point, which differs from machine to machine. The longest is a million times the scale.
func weibull(dice simnet.Stream, scale time.Duration, shape int64) time.Duration {
	x := dice.Exponential(1 << 32) // of mean 1, in units of 2^-32
	if x <= 0 {
		return 0
	}
	if shape == 1000 {
		return mulQ32(scale, x)
	}
	// x^(1/shape) = 2^(log2(x)/shape)
	log := int64(log2(uint64(x))) - 32<<32
	return exp2(scale, mulDiv(log, 1000, shape))
}

// mulQ32 is d times x/2^32, for x ≥ 0.
func mulQ32(d time.Duration, x int64) time.Duration {
	high, low := bits.Mul64(uint64(d), uint64(x))
	if high >= 1<<31 {
		return maxTime
	}
	return time.Duration(high<<32 | low>>32)
}

const maxTime = time.Duration(1<<63 - 1)

// mulDiv is a·b/c, rounded towards 0, for b ≥ 0 and c > 0 and a result below 2^63.
func mulDiv(a, b, c int64) int64 {
	negative := a < 0
	if negative {
		a = -a
	}
	high, low := bits.Mul64(uint64(a), uint64(b))
	q := uint64(1<<63 - 1)
	if high < uint64(c) {
		q, _ = bits.Div64(high, low, uint64(c))
	}
	if negative {
		return -int64(q)
	}
	return int64(q)
}

// log2 is the binary logarithm of x > 0, in units of 2^-32.
func log2(x uint64) uint64 {
	whole := uint64(bits.Len64(x) - 1)
	m := x << (63 - whole) // 1 ≤ m/2^63 < 2
	var fraction uint64
	for range 32 {
		high, _ := bits.Mul64(m, m) // (m/2^63)²·2^62
		fraction <<= 1
		if high >= 1<<63 {
			fraction |= 1
			m = high
		} else {
			m = high << 1
		}
	}
	return whole<<32 | fraction
}

// roots are 2^(1/2), 2^(1/4), … in units of 2^-62.
var roots = func() (r [32]uint64) {
	x := new(big.Int).Lsh(big.NewInt(2), 62)
	for i := range r {
		x.Sqrt(x.Lsh(x, 62))
		r[i] = x.Uint64()
	}
	return r
}()

// exp2 is d times two to the power of y, which is in units of 2^-32; at most a million times d.
func exp2(d time.Duration, y int64) time.Duration {
	const most = 1_000_000
	if y >= 20<<32 {
		return bounded(d, most)
	}
	whole, fraction := y>>32, uint32(y)
	m := uint64(1) << 62
	for i, root := range roots {
		if fraction>>(31-i)&1 == 1 {
			high, low := bits.Mul64(m, root)
			m = high<<2 | low>>62
		}
	}
	if whole < -62 {
		return 0
	}
	// m/2^62 is from 1 to 2.
	high, low := bits.Mul64(uint64(d), m)
	shift := uint(62 - whole) // 43 to 124
	var v uint64
	switch {
	case shift >= 64:
		v = high >> (shift - 64)
	case high>>(shift-1) > 0:
		return bounded(d, most)
	default:
		v = high<<(64-shift) | low>>shift
	}
	return min(time.Duration(v), bounded(d, most))
}

func bounded(d time.Duration, times int64) time.Duration {
	if int64(d) > int64(maxTime)/times {
		return maxTime
	}
	return d * time.Duration(times)
}
