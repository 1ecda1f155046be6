//go:build !purego && (amd64 || arm64)

package cgo

// split divides data for the assembly: n blocks, of which n-1 are read at the
// start of data and the final one at last, which is in padded if data ends with
// a partial block.
func split(data []byte, padded *block) (n int, last *byte) {
	full := len(data) &^ (blockSize - 1)
	n = full / blockSize
	if full < len(data) {
		copy(padded[:], data[full:])
		return n + 1, &padded[0]
	}
	if n == 0 {
		return 0, &padded[0]
	}
	return n, &data[full-blockSize]
}
