package daemon

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"cepa/env"
)

// pipe joins an application's goroutines with a stream on the loop: to them it is a
// net.Conn, to the stream an env.Conn. Bytes towards the application wait in a list of
// chunks, which the stream's window bounds; bytes from it wait for the loop, at most
// pipeBuffers chunks at a time.
type pipe struct {
	post  func(func()) bool
	batch *pipeBatch // nil: the application is woken by each Write

	mu      sync.Mutex
	changed sync.Cond // for the application's goroutines

	// Towards the application.
	in      []*pipeChunk // what Read and WriteTo have not yet taken
	queued  int          // bytes in there, and
	writing int          // those that WriteTo has taken and not yet written
	ended   bool         // CloseWrite: EOF after in
	drained bool         // an OnDrained is on its way to the loop
	onDrain func()       // that one, made once

	// From the application.
	flying  int // chunks on their way to the loop
	paused  bool
	sentEOF bool

	closed  bool  // by the application
	whole   bool  // when it did, both directions had ended and all was read
	failure error // by the stream; nil while it lives
	flushed bool  // the stream closed without error: Read may go on to the end of in

	// Owned by the loop.
	events env.ConnEvents // nil before it is up and when it has ended
	held   []*pipeChunk   // that came while paused
	heldUp bool           // an EOF came while chunks were held
	dirty  bool           // in batch.pipes
}

const (
	pipeChunkSize = 32 << 10
	pipeBuffers   = 8
)

// pipeChunk is what bytes wait in, either way: b[r:w]. Chunks are shared by all pipes.
type pipeChunk struct {
	r, w int
	b    [pipeChunkSize]byte
	pipe *pipe  // that it goes to the stream of, and
	land func() // how: made once
}

var pipeChunks sync.Pool // of *pipeChunk

func takeChunk() *pipeChunk {
	if c, ok := pipeChunks.Get().(*pipeChunk); ok {
		return c
	}
	c := new(pipeChunk)
	c.land = func() {
		p := c.pipe
		p.held = append(p.held, c)
		p.deliver()
	}
	return c
}

func (c *pipeChunk) give() {
	c.r, c.w, c.pipe = 0, 0, nil
	pipeChunks.Put(c)
}

// pipeBatch wakes the applications that a batch of events of the loop wrote to, once each, so that they find much at a
// time. It belongs to the loop.
type pipeBatch struct{ pipes []*pipe }

func (b *pipeBatch) wake() {
	for i, p := range b.pipes {
		p.dirty = false
		p.changed.Broadcast()
		b.pipes[i] = nil
	}
	b.pipes = b.pipes[:0]
}

var errStreamClosed = errors.New("stream closed")

func newPipe(post func(func()) bool, batch *pipeBatch) *pipe {
	p := &pipe{post: post, batch: batch, paused: true}
	p.changed.L = &p.mu
	p.onDrain = p.onDrained
	return p
}

// ---- the stream's side, on the loop ----

// up names who hears the application's bytes.
func (p *pipe) up(events env.ConnEvents) { p.events = events }

func (p *pipe) Write(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.failure != nil || p.ended {
		return
	}
	p.queued += len(b)
	for len(b) > 0 {
		last := len(p.in) - 1
		if last < 0 || p.in[last].w == pipeChunkSize {
			p.in = append(p.in, takeChunk())
			last++
		}
		c := p.in[last]
		n := copy(c.b[c.w:], b)
		c.w += n
		b = b[n:]
	}
	switch {
	case p.batch == nil:
		p.changed.Broadcast()
	case !p.dirty:
		p.dirty = true
		p.batch.pipes = append(p.batch.pipes, p)
	}
}

func (p *pipe) Queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued + p.writing
}

// drop forgets what the application has not taken. The caller holds the lock.
func (p *pipe) drop() {
	for _, c := range p.in {
		c.give()
	}
	clear(p.in)
	p.in, p.queued = p.in[:0], 0
}

func (p *pipe) Pause(paused bool) {
	p.mu.Lock()
	p.paused = paused
	p.mu.Unlock()
	if !paused {
		p.post(p.deliver)
	}
}

func (p *pipe) CloseWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.changed.Broadcast()
}

func (p *pipe) Close(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure == nil {
		p.failure, p.flushed = reason, reason == nil
		if reason == nil {
			p.failure = errStreamClosed
		} else {
			p.drop()
		}
	}
	p.forget()
	p.changed.Broadcast()
}

// forget ends what goes to the stream.
func (p *pipe) forget() {
	p.events = nil
	for _, c := range p.held {
		c.give()
	}
	p.held = nil
}

// deliver gives the stream what is held, in events of their own.
func (p *pipe) deliver() {
	for len(p.held) > 0 && p.events != nil && !p.isPaused() {
		p.deliverOne()
	}
	if len(p.held) == 0 && p.heldUp && p.events != nil {
		p.heldUp = false
		p.events.OnEOF()
	}
}

// deliverOne gives the stream the oldest chunk that is held.
func (p *pipe) deliverOne() {
	c := p.held[0]
	p.held = shift(p.held)
	p.landed()
	p.events.OnData(c.b[c.r:c.w])
	c.give()
}

func (p *pipe) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}

// landed makes room for another chunk from the application.
func (p *pipe) landed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying--
	p.changed.Broadcast()
}

func (p *pipe) onDrained() {
	p.mu.Lock()
	p.drained = false
	p.mu.Unlock()
	if p.events != nil {
		p.events.OnDrained()
	}
}

// onGone tells the stream that the application closed. Where both directions had ended and all
// was read, what is held goes out in its own time. Where only the application had ended its
// own, that still goes out, before the reset; otherwise it is an abort.
func (p *pipe) onGone() {
	p.mu.Lock()
	whole, eof := p.whole, p.sentEOF
	p.mu.Unlock()
	if p.events == nil || whole {
		return
	}
	for eof && len(p.held) > 0 && p.events != nil {
		p.deliverOne()
	}
	if e := p.events; e != nil {
		p.forget()
		e.OnDown(net.ErrClosed)
	}
}

// ---- the application's side ----

// appConn is the pipe as the application's goroutines see it.
type appConn struct {
	*pipe
	local, remote net.Addr
}

func (c appConn) Read(b []byte) (n int, err error) {
	p := c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.await(); err != nil {
		return 0, err
	}
	for n < len(b) && len(p.in) > 0 {
		first := p.in[0]
		k := copy(b[n:], first.b[first.r:first.w])
		n += k
		if first.r += k; first.r == first.w {
			p.next().give()
		}
	}
	p.queued -= n
	p.took()
	return n, nil
}

// WriteTo writes what comes to w as it comes, without a copy, until EOF.
func (c appConn) WriteTo(w io.Writer) (total int64, err error) {
	p := c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if err := p.await(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		first := p.next()
		b := first.b[first.r:first.w]
		p.writing = len(b)
		p.queued -= len(b)
		p.mu.Unlock()
		n, err := w.Write(b)
		first.give()
		p.mu.Lock()
		p.writing = 0
		p.took()
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// await waits until there is something to be taken, or says why there will be nothing. The caller holds the lock.
func (p *pipe) await() error {
	for {
		switch {
		case p.closed:
			return net.ErrClosed
		case p.failure != nil && !p.flushed:
			return p.failure
		case len(p.in) > 0:
			return nil
		case p.ended:
			return io.EOF
		case p.failure != nil:
			return p.failure
		}
		p.changed.Wait()
	}
}

// next takes the oldest chunk off the list. The caller holds the lock.
func (p *pipe) next() *pipeChunk {
	first := p.in[0]
	p.in = shift(p.in)
	return first
}

// shift takes the first of a short list off, so that appending to it allocates nothing.
func shift(l []*pipeChunk) []*pipeChunk {
	n := copy(l, l[1:])
	l[n] = nil
	return l[:n]
}

// took tells the stream that the application has taken something. The caller holds the lock.
func (p *pipe) took() {
	if !p.drained && p.failure == nil {
		p.drained = true
		p.post(p.onDrain)
	}
}

func (c appConn) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		chunk := takeChunk()
		chunk.w = copy(chunk.b[:], b)
		k := chunk.w // send gives the chunk away
		if err := c.send(chunk); err != nil {
			chunk.give()
			return n, err
		}
		n += k
		b = b[k:]
	}
	return n, nil
}

// send has the chunk delivered to the stream, which it then belongs to.
func (c appConn) send(chunk *pipeChunk) error {
	p := c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.flying >= pipeBuffers && !p.closed && p.failure == nil {
		p.changed.Wait()
	}
	switch {
	case p.closed || p.sentEOF:
		return net.ErrClosed
	case p.failure != nil:
		return p.failure
	}
	p.flying++
	chunk.pipe = p
	if !p.post(chunk.land) {
		return errStopped
	}
	return nil
}

// CloseWrite sends EOF after what was written.
func (c appConn) CloseWrite() error {
	p := c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if !p.sentEOF {
		p.sentEOF = true
		p.post(func() { p.heldUp = true; p.deliver() })
	}
	return nil
}

// Close ends both directions. What was written before an EOF still goes out.
func (c appConn) Close() error {
	p := c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.closed = true
	p.whole = p.sentEOF && p.ended && p.queued+p.writing == 0
	p.drop()
	p.changed.Broadcast()
	p.post(p.onGone)
	return nil
}

func (c appConn) LocalAddr() net.Addr  { return c.local }
func (c appConn) RemoteAddr() net.Addr { return c.remote }

// Deadlines are the SOCKS server's business, on the application's own connection.
func (c appConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c appConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c appConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
