package directory

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"cepa/cert"
)

// Two relays find out which descriptors one of them lacks by comparing summaries of what they hold, and then the
// digests of the buckets in which they differ.

// Buckets is the number of buckets that descriptors fall into by their digests.
const Buckets = 64

const (
	bucketSumSize = 16

	// SummarySize is the size of a Summary in bytes.
	SummarySize = Buckets * bucketSumSize

	maxBucketDigests = 1 << 14
)

// BucketOf returns the bucket of a digest: its first six bits.
func BucketOf(d cert.Digest) int { return int(d[0] >> 2) }

// Summary has a sum for each bucket: the first 16 bytes of SHA-256 over the digests in the bucket, in ascending
// order. The wire form is the sums one after the other.
type Summary [Buckets][bucketSumSize]byte

// SummaryOf returns the summary of a set of digests, which must be in ascending order.
func SummaryOf(sorted []cert.Digest) (s Summary) {
	for bucket := range Buckets {
		end := 0
		for end < len(sorted) && BucketOf(sorted[end]) <= bucket {
			end++
		}
		h := sha256.New()
		for _, d := range sorted[:end] {
			h.Write(d[:])
		}
		copy(s[bucket][:], h.Sum(nil))
		sorted = sorted[end:]
	}
	return s
}

// AppendTo appends the wire form, SummarySize bytes, to b.
func (s *Summary) AppendTo(b []byte) []byte {
	for i := range s {
		b = append(b, s[i][:]...)
	}
	return b
}

// DecodeSummary decodes the wire form.
func DecodeSummary(data []byte) (s Summary, err error) {
	if len(data) != SummarySize {
		return s, fmt.Errorf("reading a summary: %w: %d bytes, want %d", ErrMalformed, len(data), SummarySize)
	}
	for i := range s {
		s[i] = [bucketSumSize]byte(data[i*bucketSumSize:])
	}
	return s, nil
}

// Differing returns the buckets in which two summaries differ, ascending.
func (s *Summary) Differing(other *Summary) []int {
	var out []int
	for i := range s {
		if s[i] != other[i] {
			out = append(out, i)
		}
	}
	return out
}

// AppendDigests appends the answer to AskBucket to b: the digests of one bucket out of a set in ascending order, 32
// bytes each, the first of them if there are more than most.
func AppendDigests(b []byte, sorted []cert.Digest, bucket, most int) []byte {
	start, _ := slices.BinarySearchFunc(sorted, bucket, func(d cert.Digest, bucket int) int { return BucketOf(d) - bucket })
	for i := start; i < len(sorted) && BucketOf(sorted[i]) == bucket && i-start < most; i++ {
		b = append(b, sorted[i][:]...)
	}
	return b
}

// DecodeDigests decodes the answer to AskBucket: digests of that bucket in strictly ascending order, at most 16,384.
func DecodeDigests(data []byte, bucket int) ([]cert.Digest, error) {
	if len(data)%32 != 0 || len(data) > 32*maxBucketDigests {
		return nil, fmt.Errorf("reading the digests of a bucket: %w: %d bytes", ErrMalformed, len(data))
	}
	out := make([]cert.Digest, len(data)/32)
	for i := range out {
		out[i] = cert.Digest(data[32*i:])
		if BucketOf(out[i]) != bucket || i > 0 && out[i].Compare(out[i-1]) <= 0 {
			return nil, fmt.Errorf("reading the digests of a bucket: %w: digest %d is out of place", ErrInvalid, i)
		}
	}
	return out, nil
}
