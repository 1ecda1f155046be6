package simnet

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"strings"
)

// Streams of randomness. Each host has its own of each, so that what one draws changes nothing
// for another, and each may have a seed of its own (Config.Streams), so that one factor of a run can
// change while the others stay.
const (
	StreamLatency   = "latency"   // jitter and loss
	StreamChurn     = "churn"     // who leaves and comes, and when
	StreamWorkload  = "workload"  // what the users want
	StreamPaths     = "paths"     // all that nodes draw while they run
	StreamAdversary = "adversary" // what attackers draw
	StreamKeys      = "keys"      // long-term keys
)

// StreamNames are all of them.
var StreamNames = []string{StreamLatency, StreamChurn, StreamWorkload, StreamPaths, StreamAdversary, StreamKeys}

// Stream is a source of randomness of the world: the same seed, stream and name give the same
// numbers. It implements env.Rand.
type Stream struct{ *rand.ChaCha8 }

// Stream makes the stream of a kind for a name, at its beginning.
func (w *World) Stream(kind string, name ...string) Stream {
	seed := w.cfg.Seed
	if own, ok := w.cfg.Streams[kind]; ok {
		seed = own
	}
	key := binary.BigEndian.AppendUint64(nil, seed)
	key = append(append(key, kind...), 0)
	key = append(key, strings.Join(name, "\x00")...)
	return Stream{rand.NewChaCha8(sha256.Sum256(key))}
}

// Below draws a number from 0 to n-1, for n > 0. It makes no use of floating point, which differs
// from machine to machine.
func (s Stream) Below(n uint64) uint64 {
	high, low := bits.Mul64(s.Uint64(), n)
	for low < n { // seldom: the numbers that would make some likelier than others
		if low >= -n%n {
			break
		}
		high, low = bits.Mul64(s.Uint64(), n)
	}
	return high
}

// Exponential draws a number with the mean given, in its unit, from an exponential distribution
// that is cut off at about 22 times its mean.
func (s Stream) Exponential(mean int64) int64 {
	u := s.Uint64()>>32 + 1 // 1 … 2^32
	// -ln(u/2^32), in units of 2^-32
	x := uint64(32)*ln2 - log2of(u)
	return scale(mean, x)
}

// ln2 is the natural logarithm of 2 in units of 2^-32.
const ln2 = 2977044472

// log2of is the natural logarithm of u in units of 2^-32, for u > 0, by repeated squaring of
// its mantissa.
func log2of(u uint64) uint64 {
	whole := uint64(bits.Len64(u) - 1)
	m := u << (63 - whole) // 1 ≤ m/2^63 < 2
	var fraction uint64
	for i := 0; i < 32; i++ {
		high, _ := bits.Mul64(m, m) // m²/2^64, that is (m/2^63)²·2^62
		fraction <<= 1
		if high >= 1<<63 {
			fraction |= 1
			m = high
		} else {
			m = high << 1
		}
	}
	high, low := bits.Mul64(fraction, ln2)
	return whole*ln2 + (high<<32 | low>>32)
}

// scale is n times x/2^32.
func scale(n int64, x uint64) int64 {
	high, low := bits.Mul64(uint64(n), x)
	return int64(high<<32 | low>>32)
}
