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
	post func(func()) bool

	mu      sync.Mutex
	changed sync.Cond // for the application's goroutines

	// Towards the application.
	in      [][]byte // chunks that Read has not yet returned
	queued  int
	ended   bool // CloseWrite: EOF after in
	drained bool // an OnDrained is on its way to the loop

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
	held   [][]byte       // chunks that came while paused
	heldUp bool           // an EOF came while chunks were held
}

const (
	pipeChunk   = 64 << 10
	pipeBuffers = 4
)

var errStreamClosed = errors.New("stream closed")

func newPipe(post func(func()) bool) *pipe {
	p := &pipe{post: post, paused: true}
	p.changed.L = &p.mu
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
		if last < 0 || len(p.in[last]) == cap(p.in[last]) {
			p.in = append(p.in, make([]byte, 0, max(4<<10, min(pipeChunk, len(b)))))
			last++
		}
		n := min(len(b), cap(p.in[last])-len(p.in[last]))
		p.in[last] = append(p.in[last], b[:n]...)
		b = b[n:]
	}
	p.changed.Broadcast()
}

func (p *pipe) Queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
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
			p.in, p.queued = nil, 0
		}
	}
	p.events, p.held = nil, nil
	p.changed.Broadcast()
}

// deliver gives the stream what is held, in events of their own.
func (p *pipe) deliver() {
	for len(p.held) > 0 && p.events != nil && !p.isPaused() {
		chunk := p.held[0]
		p.held = p.held[1:]
		p.landed()
		p.events.OnData(chunk)
	}
	if len(p.held) == 0 && p.heldUp && p.events != nil {
		p.heldUp = false
		p.events.OnEOF()
	}
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
		chunk := p.held[0]
		p.held = p.held[1:]
		p.events.OnData(chunk)
	}
	if e := p.events; e != nil {
		p.events, p.held = nil, nil
		e.OnDown(net.ErrClosed)
	}
}

// ---- the application's side ----

// appConn is the pipe as the application's goroutines see it.
type appConn struct {
	*pipe
	local, remote net.Addr
}

func (c appConn) Read(b []byte) (int, error) {
	p := c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closed:
			return 0, net.ErrClosed
		case p.failure != nil && !p.flushed:
			return 0, p.failure
		case len(p.in) > 0:
			return p.take(b), nil
		case p.ended:
			return 0, io.EOF
		case p.failure != nil:
			return 0, p.failure
		}
		p.changed.Wait()
	}
}

// take moves bytes from the list to b. The caller holds the lock.
func (p *pipe) take(b []byte) (n int) {
	for n < len(b) && len(p.in) > 0 {
		k := copy(b[n:], p.in[0])
		n += k
		if k == len(p.in[0]) {
			p.in[0] = nil
			p.in = p.in[1:]
		} else {
			p.in[0] = p.in[0][k:]
		}
	}
	p.queued -= n
	if !p.drained && p.failure == nil {
		p.drained = true
		p.post(p.onDrained)
	}
	return n
}

func (c appConn) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		chunk := append([]byte(nil), b[:min(len(b), pipeChunk)]...)
		if err := c.send(chunk); err != nil {
			return n, err
		}
		n += len(chunk)
		b = b[len(chunk):]
	}
	return n, nil
}

func (c appConn) send(chunk []byte) error {
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
	if !p.post(func() { p.held = append(p.held, chunk); p.deliver() }) {
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
	p.whole = p.sentEOF && p.ended && p.queued == 0
	p.in, p.queued = nil, 0
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
