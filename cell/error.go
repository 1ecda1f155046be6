package cell

import (
	"bytes"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Error is the only error type of this package. From a decoder it means that the peer broke the protocol
// ([ReasonProtocol] on the wire); from an encoder that the caller asked for something that has no encoding.
type Error struct {
	What   string // what was being done: "decoding BEGIN", "encoding CREDIT"
	Offset int    // of the offending field in the bytes given to the decoder; -1 from an encoder
	Why    string
}

// Error reads "decoding BEGIN at byte 4: unknown address type 9".
func (e *Error) Error() string {
	if e.Offset < 0 {
		return e.What + ": " + e.Why
	}
	return fmt.Sprintf("%s at byte %d: %s", e.What, e.Offset, e.Why)
}

func decodeError(what string, offset int, format string, args ...any) *Error {
	return &Error{What: "decoding " + what, Offset: offset, Why: fmt.Sprintf(format, args...)}
}

func encodeError(what, format string, args ...any) *Error {
	return &Error{What: "encoding " + what, Offset: -1, Why: fmt.Sprintf(format, args...)}
}

// reader takes fields off a structure one after the other. The first failure sticks: afterwards every field reads as
// zero and finish reports that failure, so a decoder checks for it once.
type reader struct {
	what string
	size int
	rest cryptobyte.String
	at   int // where the field read last begins
	err  *Error
}

func newReader(what string, data []byte) reader {
	return reader{what: what, size: len(data), rest: data}
}

// newBodyReader reads a cell body, which has one size only.
func newBodyReader(what string, body []byte) reader {
	r := newReader(what, body)
	if len(body) != BodySize {
		r.failf("body of %d bytes instead of %d", len(body), BodySize)
	}
	return r
}

// failf records why the field read last is wrong.
func (r *reader) failf(format string, args ...any) {
	if r.err == nil {
		r.err = decodeError(r.what, r.at, format, args...)
	}
}

func (r *reader) mark() bool {
	r.at = r.size - len(r.rest)
	return r.err == nil
}

func (r *reader) uint8(field string) (v uint8) {
	if r.mark() && !r.rest.ReadUint8(&v) {
		r.failf("cut off in %s", field)
	}
	return v
}

func (r *reader) uint16(field string) (v uint16) {
	if r.mark() && !r.rest.ReadUint16(&v) {
		r.failf("cut off in %s", field)
	}
	return v
}

func (r *reader) uint32(field string) (v uint32) {
	if r.mark() && !r.rest.ReadUint32(&v) {
		r.failf("cut off in %s", field)
	}
	return v
}

// bytes returns the next n bytes, which alias the input; nil after a failure.
func (r *reader) bytes(n int, field string) (v []byte) {
	if r.mark() && !r.rest.ReadBytes(&v, n) {
		r.failf("cut off in %s: %d bytes of %d", field, len(r.rest), n)
	}
	return v[:len(v):len(v)]
}

// finish reports the first failure, or that bytes are left over.
func (r *reader) finish() error {
	if r.mark() && len(r.rest) != 0 {
		r.failf("%d bytes too many", len(r.rest))
	}
	return r.result()
}

// finishZeros reports the first failure, or a byte that is not zero in what is left.
func (r *reader) finishZeros() error {
	if r.mark() {
		if i := firstNonZero(r.rest); i >= 0 {
			r.at += i
			r.failf("byte %#02x where the rest must be zeros", r.rest[i])
		}
	}
	return r.result()
}

// result keeps a nil *Error from becoming a non-nil error.
func (r *reader) result() error {
	if r.err != nil {
		return r.err
	}
	return nil
}

// zeros is never written; comparing with it is many times faster than a loop over bytes.
var zeros [Size]byte

// firstNonZero returns the index of the first byte of b, at most Size long, that is not zero, or -1.
func firstNonZero(b []byte) int {
	if bytes.Equal(b, zeros[:len(b)]) {
		return -1
	}
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return -1
}
