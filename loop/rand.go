package loop

import (
	"crypto/rand"
	"encoding/binary"
)

// random implements env.Rand with the system's generator, read 2 KiB at a time. Bytes are wiped
// from the buffer as they are given out. It belongs to the loop.
type random struct {
	buf  [2048]byte
	used int // bytes of buf given out, if filled
	full bool
}

// Read fills p. It does not fail: crypto/rand ends the program if the system has no randomness.
func (r *random) Read(p []byte) (int, error) {
	if len(p) >= len(r.buf)/2 {
		return rand.Read(p)
	}
	n := len(p)
	for len(p) > 0 {
		if !r.full || r.used == len(r.buf) {
			_, _ = rand.Read(r.buf[:])
			r.used, r.full = 0, true
		}
		k := copy(p, r.buf[r.used:])
		clear(r.buf[r.used : r.used+k])
		r.used += k
		p = p[k:]
	}
	return n, nil
}

func (r *random) Uint64() uint64 {
	var b [8]byte
	_, _ = r.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
