package link

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// errWouldBlock is what a wire in stream mode answers to TLS.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "TLS gets no more" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// wire is the connection under TLS: buffers, so that one system call carries many records each way.
//
// During the handshake it passes everything to TLS and from it, a record at a time, so that TLS never holds more. After
// stream() it gives TLS nothing more: the opener takes whole records that fill has brought, and those of the sealer are
// collected until flush. Reading belongs to one goroutine, writing to another.
type wire struct {
	net.Conn               // the TCP connection
	kernel   io.ReadWriter // the same, by the shortest way
	large    *bufferPool
	streams  bool // set by stream, before the reader and writer exist

	// Reading. buf[r:w] has been read but not given out; the record that is being given out goes on for left bytes.
	buf   []byte
	lent  *buffer // where buf comes from, nil if it is small or private
	small []byte
	r, w  int
	left  int
	given uint64 // records that TLS got
	busy  bool   // the last read brought more than the small buffer holds
	read  atomic.Int64

	// Writing.
	out     []byte // records collected
	written atomic.Int64
}

func newWire(c net.Conn, large *bufferPool) *wire {
	small := make([]byte, smallRead)
	return &wire{Conn: c, kernel: direct(c), large: large, buf: small, small: small}
}

// stream switches from the handshake to the life of the link. TLS must hold no part of a record.
func (w *wire) stream() { w.streams = true }

// SetDeadline and its siblings do nothing: crypto/tls sets write deadlines when it says goodbye, and the owner of the
// wire, who sets those of the TCP connection, knows better.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// recordLength returns the length of the record at r with its header, or 0 if the header has not arrived. A length
// that TLS will not accept counts as that of the header alone.
func (w *wire) recordLength() int {
	if w.w-w.r < 5 {
		return 0
	}
	n := 5 + int(binary.BigEndian.Uint16(w.buf[w.r+3:]))
	if n > maxRecord {
		return 5
	}
	return n
}

// ready reports whether Read would give out a whole record.
func (w *wire) ready() bool {
	n := w.recordLength()
	return n > 0 && w.w-w.r >= n
}

// Read gives out one record, or a part of it, and never more: TLS would keep the rest.
func (w *wire) Read(p []byte) (int, error) {
	if w.left == 0 {
		if err := w.nextRecord(); err != nil {
			return 0, err
		}
	}
	for w.r == w.w { // only in the handshake: otherwise the record is whole
		if err := w.fill(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	n := copy(p, w.buf[w.r:min(w.w, w.r+w.left)])
	w.r += n
	w.left -= n
	return n, nil
}

func (w *wire) nextRecord() error {
	if w.streams {
		return errWouldBlock // TLS gets no more
	}
	for w.recordLength() == 0 {
		if err := w.fill(); err != nil {
			return err
		}
	}
	w.left = w.recordLength()
	w.given++
	return nil
}

// take gives out the record at r, which ready has said is there. It is valid until fill.
func (w *wire) take() []byte {
	b := w.buf[w.r : w.r+w.recordLength()]
	w.r += len(b)
	return b
}

// holdsLarge reports whether fill is going to wait with a large buffer.
func (w *wire) holdsLarge() bool { return w.lent != nil && w.busy }

// calm tells fill that nothing has come for a while, so that it waits with a small buffer.
func (w *wire) calm() { w.busy = false }

// fill waits for bytes from the network, and grows or shrinks the buffer to what is going on.
func (w *wire) fill() error {
	if w.r == w.w {
		w.r, w.w = 0, 0
	}
	w.resize()
	n, err := w.kernel.Read(w.buf[w.w:])
	w.w += n
	w.read.Add(int64(n))
	w.busy = w.w-w.r >= smallRead
	if n > 0 {
		return nil
	}
	if err == io.EOF && w.r < w.w {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// resize makes room at the end of buf: for the rest of the record at r at least, for a lot of them while much is
// arriving, and for little when the link is quiet.
func (w *wire) resize() {
	held := w.w - w.r
	need := max(w.recordLength(), held+1)
	switch {
	case !w.busy && need <= len(w.small):
		w.adopt(w.small, nil)
	case w.streams && w.busy && w.lent == nil:
		if b := w.large.tryGet(); b != nil {
			w.adopt(b.data, b)
		}
	}
	if need > len(w.buf) || !w.busy && w.lent != nil {
		w.adopt(make([]byte, maxRecord), nil) // the large ones are all lent, or too good for so little
	}
	if w.r > 0 && (w.r+need > len(w.buf) || w.w == len(w.buf)) {
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
}

// adopt moves what is held to another buffer.
func (w *wire) adopt(buf []byte, lent *buffer) {
	if &buf[0] == &w.buf[0] {
		return
	}
	w.w = copy(buf, w.buf[w.r:w.w])
	w.r = 0
	w.returnLent()
	w.buf, w.lent = buf, lent
}

func (w *wire) returnLent() {
	if w.lent != nil {
		w.large.put(w.lent)
		w.lent, w.buf = nil, w.small
	}
}

// release gives the read buffer back, when no more will be read.
func (w *wire) release() {
	w.r, w.w = 0, 0
	w.returnLent()
}

// Write is TLS's, in the handshake.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.written.Add(int64(n))
	return n, err
}

// collectIn lends the wire memory to collect records in until takeBack.
func (w *wire) collectIn(b []byte) { w.out = b[:0] }

// takeBack ends collectIn.
func (w *wire) takeBack() { w.out = nil }

// collect seals p into what the next flush hands to the kernel. p has room for one byte more.
func (w *wire) collect(out *sealer, p []byte) (err error) {
	w.out, err = out.sealAll(w.out, p)
	return err
}

// flush hands what has been collected to the kernel. It calls extend before it and after each part that the kernel
// took in time: a deadline is for no progress at all.
func (w *wire) flush(extend func()) error {
	b := w.out
	w.out = b[:0]
	for len(b) > 0 {
		extend()
		n, err := w.kernel.Write(b)
		b = b[n:]
		w.written.Add(int64(n))
		if timeout, ok := err.(net.Error); err != nil && (n == 0 || !ok || !timeout.Timeout()) {
			return err
		}
	}
	return nil
}
