package loop

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"cepa/env"
)

// Sizes and times of connections.
const (
	readSize    = 64 << 10 // most bytes of one OnData
	maxRead     = 2        // batches read and not yet delivered
	chunkSize   = 16 << 10 // unit of what waits to be written
	writeChunks = 4        // chunks handed to the kernel at once
	flushTime   = time.Minute
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 10
	abandonTime = time.Second
)

var (
	readBuffers  = sync.Pool{New: func() any { return new([readSize]byte) }}
	writeBuffers = sync.Pool{New: func() any { return new(outChunk) }}
)

// conn implements env.Conn on a net.Conn.
//
//	reader ──▶ inbox (at most 2 × 64 KiB) ──▶ loop ──▶ outbox ──▶ writer
//
// The reader waits while the inbox is full or the connection is paused; the writer waits for
// something to write. Both are started when first needed. The reader ends with EOF, a failure
// or the connection; the writer ends last and closes the descriptor.
//
// Pausing stops the reader, so the end of a paused connection to which nothing is written is
// noticed only when it is resumed, and OnEOF waits with the data before it. A writer learns of
// the end at once.
type conn struct {
	l *Loop
	c net.Conn

	// Owned by the loop.
	events env.ConnEvents
	over   bool // closed or down: nothing more is heard
	dirty  bool // in l.dirty
	wakeFn func()

	queued atomic.Int64

	mu        sync.Mutex
	readCond  sync.Cond // paused, inbox, mode
	writeCond sync.Cond // outbox, eof, mode, reading
	mode      closing
	paused    bool
	inbox     []batch
	posted    bool // onWake is on its way
	drained   bool // queued has fallen since OnDrained was called
	outbox    []*outChunk
	eof       bool // CloseWrite: EOF after the outbox
	failure   error
	reader    worker
	writer    worker
	readEnd   bool      // nothing more can be read
	deadline  time.Time // of flushing
}

// worker is the state of a goroutine.
type worker uint8

const (
	notStarted worker = iota
	started
	ended
)

// closing says how far the end of a connection has come.
type closing uint8

const (
	open     closing = iota
	flushing         // Close(nil): write what is queued, then end
	dropping         // end now
)

// batch is what one read has given: data, or EOF when buf is nil.
type batch struct {
	buf *[readSize]byte
	n   int
}

type outChunk struct {
	n   int
	buf [chunkSize]byte
}

// Adopt makes c a connection of the loop, which owns it from now on. up is called as an event,
// and returns who hears its events; a nil answer closes it. When the loop has been stopped,
// Adopt closes c and reports false. It may be called from any goroutine.
func (l *Loop) Adopt(c net.Conn, up func(env.Conn) env.ConnEvents) bool {
	k := &conn{l: l, c: c, paused: true}
	k.readCond.L, k.writeCond.L = &k.mu, &k.mu
	k.wakeFn = k.onWake
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
	}
	if l.Post(func() {
		l.connMu.Lock()
		l.conns[k] = struct{}{}
		l.connMu.Unlock()
		if k.events = up(k); k.events == nil {
			k.Close(nil)
		}
	}) {
		return true
	}
	_ = c.Close()
	return false
}

func (k *conn) Queued() int { return int(k.queued.Load()) }

func (k *conn) Write(p []byte) {
	if k.over || len(p) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.eof || k.failure != nil {
		return
	}
	k.queued.Add(int64(len(p)))
	if i := len(k.outbox) - 1; i >= 0 {
		last := k.outbox[i]
		n := copy(last.buf[last.n:], p)
		last.n += n
		p = p[n:]
	}
	for len(p) > 0 {
		last := writeBuffers.Get().(*outChunk)
		last.n = copy(last.buf[:], p)
		p = p[last.n:]
		k.outbox = append(k.outbox, last)
	}
	k.touch()
}

func (k *conn) CloseWrite() {
	if k.over {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.eof = true
	k.touch()
}

// touch makes the loop wake the writer at the end of the batch.
func (k *conn) touch() {
	if !k.dirty {
		k.dirty = true
		k.l.dirty = append(k.l.dirty, k)
	}
}

// flush wakes the writer, after a batch.
func (k *conn) flush() {
	k.dirty = false
	k.mu.Lock()
	defer k.mu.Unlock()
	k.startWriter()
	k.writeCond.Signal()
}

func (k *conn) Pause(paused bool) {
	if k.over {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paused = paused
	if !paused {
		k.startReader()
		k.post()
		k.readCond.Signal()
	}
}

func (k *conn) Close(reason error) {
	if k.over {
		return
	}
	k.over = true
	if reason != nil {
		k.drop()
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropInbox()
	k.mode = flushing
	k.eof = true
	k.deadline = time.Now().Add(flushTime)
	_ = k.c.SetDeadline(k.deadline)
	k.startReader() // to read what closing must not leave behind
	k.startWriter()
	k.readCond.Signal()
	k.writeCond.Signal()
}

// abandon ends the connection when the loop runs no more.
func (k *conn) abandon() {
	k.mu.Lock()
	if k.mode == flushing {
		k.deadline = time.Now().Add(abandonTime)
		_ = k.c.SetDeadline(k.deadline)
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()
	k.drop()
}

// drop ends the connection now, with a reset where that can be had.
func (k *conn) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mode == dropping {
		return
	}
	k.mode = dropping
	k.dropInbox()
	if c, ok := k.c.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = k.c.SetDeadline(time.Unix(1, 0)) // reads and writes return
	k.startWriter()
	k.readCond.Signal()
	k.writeCond.Signal()
}

func (k *conn) dropInbox() {
	for _, b := range k.inbox {
		if b.buf != nil {
			readBuffers.Put(b.buf)
		}
	}
	k.inbox = nil
}

// post makes onWake an event, if there is something for it.
func (k *conn) post() {
	if !k.posted && ((len(k.inbox) > 0 && !k.paused) || k.drained || k.failure != nil) {
		k.posted = true
		k.l.Post(k.wakeFn)
	}
}

// onWake is the event of everything that comes from the reader and the writer. It calls one
// handler, and posts itself again when there is more.
func (k *conn) onWake() {
	k.mu.Lock()
	k.posted = false
	if k.over {
		k.mu.Unlock()
		return
	}
	switch {
	case len(k.inbox) > 0 && !k.paused:
		b := k.inbox[0]
		k.inbox = append(k.inbox[:0], k.inbox[1:]...)
		k.post()
		k.readCond.Signal()
		k.mu.Unlock()
		if b.buf == nil {
			k.events.OnEOF()
			return
		}
		k.events.OnData(b.buf[:b.n])
		readBuffers.Put(b.buf)
	case k.failure != nil:
		err := k.failure
		k.mu.Unlock()
		k.over = true
		k.drop()
		k.events.OnDown(err)
	case k.drained:
		k.drained = false
		k.mu.Unlock()
		k.events.OnDrained()
	default: // paused in the meantime
		k.mu.Unlock()
	}
}

// fail says that the connection is gone. Only the first reason counts.
func (k *conn) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mode != open {
		return
	}
	if k.failure == nil {
		k.failure = portable(err)
	}
	k.post()
}
