package socks

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"cepa/internal/rawio"
)

const (
	// A direction begins with a small buffer and takes a large one while reads fill it, so an idle connection holds
	// 8 KiB. At most maxLargeBuffers are out at a time, 64 MiB; beyond them small ones do.
	smallBuffer     = 4 << 10
	largeBuffer     = 64 << 10
	maxLargeBuffers = 1024

	// After the stream refused a write there may still be data to read that came before it broke; it gets this long.
	drainTimeout = 2 * time.Second

	// maxEmptyReads is how many reads in a row may bring neither bytes nor an error.
	maxEmptyReads = 100
)

type closeWriter interface{ CloseWrite() error }

// transfer copies between an application and its stream.
//
// End of file in one direction is passed on as such and the other goes on. An error of the stream, or of the
// application's connection, resets both: an answer that was cut off must not look like one that ended.
type transfer struct {
	session *session
	stream  net.Conn
	app     io.ReadWriter // the application, by the shortest way
	moved   atomic.Uint64 // bytes, both ways

	once   sync.Once // abort
	failed atomic.Bool

	mu    sync.Mutex
	ended bool
	idle  *time.Timer
	drain *time.Timer
}

// transfer runs until both directions have ended. The caller closes the application's connection.
func (s *Server) transfer(c *session) {
	t := &transfer{session: c, stream: c.stream, app: rawio.Wrap(c.conn)}
	c.conn.SetDeadline(time.Time{})
	if d := s.config.IdleTimeout; d > 0 {
		t.expectTraffic(d)
	}
	// Closing the application's connection is not enough: once it has ended its side, nobody reads from it.
	defer context.AfterFunc(s.ctx, t.abort)()
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		defer s.survive(t.abort)
		t.upload()
	}()
	func() {
		defer s.survive(t.abort)
		t.download()
	}()
	<-uploaded

	t.mu.Lock()
	t.ended = true
	for _, timer := range []*time.Timer{t.idle, t.drain} {
		if timer != nil {
			timer.Stop()
		}
	}
	t.mu.Unlock()
	if t.failed.Load() {
		t.abort()
		s.count.aborted.Add(1)
	}
	t.stream.Close()
}

// upload copies from the application to the stream: first what was sent ahead of the reply.
func (t *transfer) upload() {
	c := t.session
	ahead, _ := c.in.Peek(c.in.Buffered())
	c.in = nil // and its buffer, once ahead is written
	sent := &c.server.count.sent
	writeErr := t.pass(t.stream, ahead, sent)
	var readErr error
	if ahead = nil; writeErr == nil {
		readErr, writeErr = t.copy(t.stream, t.app, sent)
	}
	if readErr != nil {
		t.abort()
		return
	}
	if writeErr == nil {
		writeErr = t.stream.(closeWriter).CloseWrite()
	}
	if writeErr != nil {
		t.giveUp()
		return
	}
	t.expectTraffic(c.server.config.HalfClosedTimeout)
}

// download copies from the stream to the application.
func (t *transfer) download() {
	c := t.session
	var readErr, writeErr error
	if from, ok := t.stream.(io.WriterTo); ok { // which needs no buffer in between
		w := passer{t: t, dst: t.app, total: &c.server.count.received}
		_, readErr = from.WriteTo(&w)
		if writeErr = w.err; writeErr != nil {
			readErr = nil
		}
	} else {
		readErr, writeErr = t.copy(c.conn, t.stream, &c.server.count.received)
	}
	if readErr == nil && writeErr == nil {
		if conn, ok := c.conn.(closeWriter); ok {
			writeErr = conn.CloseWrite()
		}
	}
	if readErr != nil || writeErr != nil {
		t.abort()
		return
	}
	t.expectTraffic(c.server.config.HalfClosedTimeout)
}

// copy copies until src ends; both errors are nil then.
func (t *transfer) copy(dst io.Writer, src io.Reader, total *atomic.Uint64) (readErr, writeErr error) {
	pool := &t.session.server.buffers
	buf := pool.small()
	defer func() { pool.put(buf) }()
	for empty := 0; ; {
		n, err := src.Read(buf)
		if writeErr = t.pass(dst, buf[:n], total); writeErr != nil {
			return nil, writeErr
		}
		switch {
		case err == io.EOF:
			return nil, nil
		case err != nil:
			return err, nil
		case n > 0:
			empty = 0
		default:
			if empty++; empty == maxEmptyReads {
				return io.ErrNoProgress, nil
			}
		}
		buf = pool.fit(buf, n)
	}
}

// passer is a writer that counts, and remembers that it failed.
type passer struct {
	t     *transfer
	dst   io.Writer
	total *atomic.Uint64
	err   error
}

func (w *passer) Write(b []byte) (int, error) {
	if w.err = w.t.pass(w.dst, b, w.total); w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}

// pass writes all of b and counts it.
func (t *transfer) pass(dst io.Writer, b []byte, total *atomic.Uint64) error {
	if len(b) == 0 {
		return nil
	}
	n, err := dst.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if n > 0 {
		total.Add(uint64(n))
		t.moved.Add(uint64(n))
	}
	return err
}

// abort resets both connections. It may be called at any time, and again.
func (t *transfer) abort() {
	t.once.Do(func() {
		t.failed.Store(true)
		t.session.cut()
		t.stream.Close()
	})
}

// giveUp marks the transfer as failed and leaves the download a little time to bring what had arrived.
func (t *transfer) giveUp() {
	t.failed.Store(true)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.drain = time.AfterFunc(drainTimeout, t.abort)
	}
}

// expectTraffic aborts the transfer when nothing moves for d, up to twice that. It replaces an earlier call.
func (t *transfer) expectTraffic(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	if t.idle != nil {
		t.idle.Stop()
	}
	seen := t.moved.Load()
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.ended || t.idle != timer {
			return
		}
		if moved := t.moved.Load(); moved != seen {
			seen = moved
			timer.Reset(d)
			return
		}
		t.abort()
	})
	t.idle = timer
}

// buffers are the two sizes of copy buffers. The zero value is ready.
type buffers struct {
	smalls, larges sync.Pool // of *[smallBuffer]byte, *[largeBuffer]byte
	largeOut       atomic.Int64
}

func (p *buffers) small() []byte {
	if b, ok := p.smalls.Get().(*[smallBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, smallBuffer)
}

// fit returns the buffer to use after a read of n bytes into buf: buf, or another, and then buf went back.
func (p *buffers) fit(buf []byte, n int) []byte {
	switch {
	case len(buf) == smallBuffer && n == smallBuffer:
		if p.largeOut.Add(1) > maxLargeBuffers {
			p.largeOut.Add(-1)
			return buf
		}
		p.put(buf)
		if b, ok := p.larges.Get().(*[largeBuffer]byte); ok {
			return b[:]
		}
		return make([]byte, largeBuffer)
	case len(buf) == largeBuffer && n <= smallBuffer:
		p.put(buf)
		return p.small()
	}
	return buf
}

func (p *buffers) put(buf []byte) {
	if len(buf) == smallBuffer {
		p.smalls.Put((*[smallBuffer]byte)(buf))
		return
	}
	p.larges.Put((*[largeBuffer]byte)(buf))
	p.largeOut.Add(-1)
}
