package loop

import (
	"errors"
	"io"
	"net"
	"time"

	"cepa/internal/rawio"
)

func (k *conn) startReader() {
	if k.reader == notStarted {
		k.reader = started
		k.l.wait.Add(1)
		go k.read()
	}
}

func (k *conn) startWriter() {
	if k.writer == notStarted {
		k.writer = started
		k.l.wait.Add(1)
		go k.write()
	}
}

// read is the reader.
func (k *conn) read() {
	defer k.l.wait.Done()
	src := newSource(k.c)
	for k.mayRead() {
		buf, n, err := src.read()
		k.deliver(buf, n, err)
	}
	k.discard(src)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reader = ended
	k.writeCond.Signal()
}

// mayRead waits until there is room for another batch and the connection is not paused. It
// reports false when there is nothing more to be delivered.
func (k *conn) mayRead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.mode == open && !k.readEnd && (k.paused || len(k.inbox) >= maxRead) {
		k.readCond.Wait()
	}
	return k.mode == open && !k.readEnd
}

// deliver puts what one read gave into the inbox.
func (k *conn) deliver(buf *[readSize]byte, n int, err error) {
	if err != nil && !errors.Is(err, io.EOF) {
		k.fail(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readEnd = err != nil
	switch {
	case n > 0 && k.mode == open:
		k.inbox = append(k.inbox, batch{buf, n})
	case buf != nil:
		readBuffers.Put(buf)
	}
	if errors.Is(err, io.EOF) && k.mode == open {
		k.inbox = append(k.inbox, batch{})
	}
	k.post()
}

// discard reads what the far end still sends while a connection is flushed, for a while: to
// close a descriptor with unread data would reset the connection, and the far end could lose
// what was written last.
func (k *conn) discard(src source) {
	for total := 0; total < lingerBytes; {
		k.mu.Lock()
		over := k.mode != flushing || k.readEnd
		k.mu.Unlock()
		if over {
			return
		}
		buf, n, err := src.read()
		if buf != nil {
			readBuffers.Put(buf)
		}
		if err != nil {
			return
		}
		total += n
	}
}

// write is the writer.
func (k *conn) write() {
	defer k.l.wait.Done()
	var bufs [writeChunks][]byte
	to := rawio.Wrap(k.c)
	sentEOF := false
	for {
		chunks, ok := k.nextWrite(sentEOF)
		if !ok {
			break
		}
		if len(chunks) == 0 {
			sentEOF = true
			if c, ok := k.c.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
			continue
		}
		for i, c := range chunks {
			bufs[i] = c.buf[:c.n]
		}
		n, err := to.WriteBuffers(bufs[:len(chunks)])
		clear(bufs[:])
		k.wrote(chunks, n, err)
	}
	k.end(sentEOF)
}

// nextWrite waits for chunks to write, or for EOF, which is no chunks. It reports false when
// the connection is at its end.
func (k *conn) nextWrite(sentEOF bool) (chunks []*outChunk, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		switch {
		case k.mode == dropping || (k.mode == flushing && k.failure != nil):
			return nil, false
		case k.failure != nil: // the loop will hear of it and drop
		case len(k.outbox) > 0:
			n := min(len(k.outbox), writeChunks)
			chunks = k.outbox[:n:n]
			k.outbox = k.outbox[n:]
			return chunks, true
		case k.eof && !sentEOF:
			return nil, true
		case k.mode == flushing:
			return nil, false
		}
		k.writeCond.Wait()
	}
}

// wrote accounts for a write.
func (k *conn) wrote(chunks []*outChunk, n int, err error) {
	for _, c := range chunks {
		writeBuffers.Put(c)
	}
	k.queued.Add(int64(-n))
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && k.failure == nil {
		k.failure = portable(err)
	}
	k.drained = true
	k.post()
}

// end closes the connection when the reader has ended.
func (k *conn) end(sentEOF bool) {
	k.mu.Lock()
	if k.reader == started {
		until := time.Unix(1, 0)
		if _, halfClose := k.c.(interface{ CloseWrite() error }); halfClose && sentEOF && k.mode == flushing {
			until = time.Now().Add(lingerTime)
			if until.After(k.deadline) {
				until = k.deadline
			}
		}
		_ = k.c.SetReadDeadline(until)
	}
	for k.reader == started {
		k.writeCond.Wait()
	}
	for _, c := range k.outbox {
		writeBuffers.Put(c)
	}
	k.outbox = nil
	k.mu.Unlock()
	_ = k.c.Close()
	k.l.connMu.Lock()
	delete(k.l.conns, k)
	k.l.connMu.Unlock()
}

// source reads batches from a connection.
type source interface {
	// read waits for data and returns it in a buffer of readBuffers, or nil.
	read() (buf *[readSize]byte, n int, err error)
}

// newSource gives the source that suits c.
func newSource(c net.Conn) source {
	if k := rawio.Wrap(c); k.Short() {
		return &socket{k}
	}
	return &stream{c: c}
}

// socket is the source of a TCP connection. It takes a buffer only when there is something to read, so that a connection at
// rest costs none.
type socket struct{ c *rawio.Conn }

func (s *socket) read() (*[readSize]byte, int, error) {
	p, n, err := s.c.ReadWith(takeRead, giveRead)
	if p == nil {
		return nil, 0, err
	}
	return (*[readSize]byte)(p), n, err
}

func takeRead() []byte  { return readBuffers.Get().(*[readSize]byte)[:] }
func giveRead(p []byte) { readBuffers.Put((*[readSize]byte)(p)) }

// stream is the source of any net.Conn. A read must bring the buffer to wait with, so it waits
// with a small one of its own unless the last read was full.
type stream struct {
	c     net.Conn
	small [2 << 10]byte
	busy  bool
}

func (s *stream) read() (*[readSize]byte, int, error) {
	if s.busy {
		buf := readBuffers.Get().(*[readSize]byte)
		n, err := s.c.Read(buf[:])
		s.busy = n >= len(s.small)
		return buf, n, err
	}
	n, err := s.c.Read(s.small[:])
	if n == 0 {
		return nil, 0, err
	}
	s.busy = n == len(s.small)
	buf := readBuffers.Get().(*[readSize]byte)
	copy(buf[:], s.small[:n])
	return buf, n, err
}
