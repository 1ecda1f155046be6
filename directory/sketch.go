package directory

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"cepa/cert"
)

// A sketch of a set of digests is a sequence of symbols without end, of which one and a half times as many as there are
// digests that only one of two sets has, and a few more, are enough to find those: rateless set reconciliation (Yang,
// Gilad, Alizadeh: Practical Rateless Set Reconciliation, SIGCOMM 2024). What two relays send each other so depends on
// how much they differ, and not on how much they hold.
//
// A digest counts in symbol 0 and in others that a generator chooses which is seeded by the digest, in symbol i with
// probability 1/(1+i/2). A symbol is the sum (XOR) of the digests that count in it, the sum of their checksums, and
// their number. The difference of two sketches is the sketch of the difference of the sets; a symbol of it in which one
// digest is left shows that digest, which is then taken out of all others.
//
// Seeds and checksums depend on a salt that whoever asks draws anew each time: nobody can make digests in advance that
// a sketch cannot tell apart.

// Sizes of sketches.
const (
	sketchSymbolSize = 32 + 8 + 4
	firstSymbols     = 32   // of the first request, which fit into one cell
	maxSymbols       = 4096 // of all requests of one comparison
)

// symbol is one symbol of a sketch.
//
// Its wire form is the sum of digests (32 bytes), the sum of checksums u64 and the number u32, as two's complement in a
// difference.
type symbol struct {
	sum      cert.Digest
	checksum uint64
	count    uint32
}

func (s *symbol) add(d cert.Digest, checksum uint64, count uint32) {
	for i := range s.sum {
		s.sum[i] ^= d[i]
	}
	s.checksum ^= checksum
	s.count += count
}

// keyOf returns the checksum of a digest and the seed of the symbols in which it counts.
func keyOf(salt uint64, d cert.Digest) (checksum, seed uint64) {
	var b [8 + len(d)]byte
	binary.BigEndian.PutUint64(b[:], salt)
	copy(b[8:], d[:])
	h := sha256.Sum256(b[:])
	return binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
}

// places are the symbols in which one digest counts, ascending.
type places struct {
	state uint64
	at    uint64
}

func placesOf(seed uint64) places { return places{state: seed | 1} }

// next moves on to the next place. The gap after place i has the distribution that makes the probability of each later
// place 1/(1+place/2).
func (p *places) next() {
	p.state *= 0xda942042e4dd58b5
	u := float64(uint32(p.state>>32)) + 1 // 1 to 2^32
	gap := math.Ceil((float64(p.at) + 1.5) * (float64(1<<16)/math.Sqrt(u) - 1))
	p.at += uint64(max(gap, 1))
}

// sketchOf returns the symbols from first (inclusive) to end of the sketch of a set.
func sketchOf(salt uint64, set []cert.Digest, first, end int) []symbol {
	out := make([]symbol, end-first)
	for _, d := range set {
		checksum, seed := keyOf(salt, d)
		for p := placesOf(seed); p.at < uint64(end); p.next() {
			if p.at >= uint64(first) {
				out[int(p.at)-first].add(d, checksum, 1)
			}
		}
	}
	return out
}

// subtract makes s the sketch of the difference; other is as long as s.
func subtract(s, other []symbol) {
	for i := range s {
		s[i].add(other[i].sum, other[i].checksum, -other[i].count)
	}
}

// decodeSketch finds what the difference of two sketches, theirs minus ours, is of: the digests that only they have, and
// how many there are on either side. ok is false when more symbols are needed. It takes no more steps than there can be
// digests in so many symbols.
func decodeSketch(salt uint64, difference []symbol) (theirs []cert.Digest, total int, ok bool) {
	s := slices.Clone(difference)
	var work []int
	for i := range s {
		work = append(work, i)
	}
	for len(work) > 0 && total <= len(s) {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		if s[i].count != 1 && s[i].count != math.MaxUint32 {
			continue
		}
		d, side := s[i].sum, s[i].count
		checksum, seed := keyOf(salt, d)
		if checksum != s[i].checksum {
			continue
		}
		if side == 1 {
			theirs = append(theirs, d)
		}
		total++
		for p := placesOf(seed); p.at < uint64(len(s)); p.next() {
			s[p.at].add(d, checksum, -side)
			work = append(work, int(p.at))
		}
	}
	ok = !slices.ContainsFunc(s, func(x symbol) bool { return x != symbol{} })
	return theirs, total, ok
}

// appendSketch appends the wire form of symbols to b.
func appendSketch(b []byte, symbols []symbol) []byte {
	for i := range symbols {
		b = append(b, symbols[i].sum[:]...)
		b = binary.BigEndian.AppendUint64(b, symbols[i].checksum)
		b = binary.BigEndian.AppendUint32(b, symbols[i].count)
	}
	return b
}

// decodeSymbols decodes the wire form of so many symbols.
func decodeSymbols(data []byte, count int) ([]symbol, error) {
	if len(data) != count*sketchSymbolSize {
		return nil, fmt.Errorf("reading a sketch: %w: %d bytes, want %d symbols", ErrMalformed, len(data), count)
	}
	out := make([]symbol, count)
	for i := range out {
		b := data[i*sketchSymbolSize:]
		out[i] = symbol{cert.Digest(b), binary.BigEndian.Uint64(b[32:]), binary.BigEndian.Uint32(b[40:])}
	}
	return out, nil
}

// symbolsAt is how many symbols a request for those from first on is answered with: as many as there are already.
func symbolsAt(first int) int { return max(first, firstSymbols) }

// isSketchStart says whether requests may ask for symbols from first on: 0, 32, 64, 128, …
func isSketchStart(first int) bool {
	for at := 0; at < maxSymbols; at += symbolsAt(at) {
		if at == first {
			return true
		}
	}
	return false
}
