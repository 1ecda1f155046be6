package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cepa/cell"
	"cepa/env"
)

const (
	stallLimit  = 60 * time.Second       // a link that can write nothing for so long is dead
	calmAfter   = 300 * time.Millisecond // without anything to read, until a large buffer is given back
	closeLimit  = time.Second            // for writing what is queued when a link is closed
	batchesLink = 4                      // batches of a link that the loop has not dealt with, until the reader waits
	// maxQueued bounds what Send takes, in bytes. Whoever minds Queued never comes near it.
	maxQueued = 256 << 20
	// renewRecords and renewAge are when a link should be replaced by a new one: long before the 2^24.5 full records
	// that one AES-GCM key is good for, and before the keys of a day can be stolen.
	renewRecords = 1 << 23
	renewAge     = 24 * time.Hour
)

// Renewer is a LinkEvents that wants to know when its link should be replaced (docs/protocol.md, section "Link").
type Renewer interface {
	// OnRenew says, once, that the link has written 2^23 TLS records or is 24 hours old. The link goes on.
	OnRenew()
}

// tcpConn is what a *net.TCPConn can do and is needed here.
type tcpConn interface {
	net.Conn
	CloseWrite() error
}

type state uint8

const (
	open    state = iota
	closing       // by Close: the writer writes what is queued, the reader discards
	dead          // by a failure: both goroutines end
)

// link is an established link. It implements env.Link.
//
//	open --Close--> closing --flushed, or 1 s--> gone
//	  \--failure--> dead --both goroutines ended--> gone, OnDown
type link struct {
	t      *Transport
	peer   env.Peer
	in     *opener
	out    *sealer
	rest   []byte // came with HELLO
	wire   *wire
	tcp    tcpConn
	born   time.Time
	events env.LinkEvents // set by the loop before anything is posted that uses it

	silent atomic.Bool   // Close was called: no more events
	ended  chan struct{} // closed when the state leaves open
	slots  chan struct{} // one for each batch that the loop has not dealt with
	exits  atomic.Int32  // goroutines still to end

	queued  atomic.Int64
	drained atomic.Bool // OnDrained is posted and has not run
	onDrain func()      // runs it; made once

	readTimer time.Time // the reader's: when it last set a read deadline; zero if there is none

	mu      sync.Mutex
	wake    sync.Cond // the writer waits for pending or a change of state
	state   state
	reason  error
	pending *buffer   // given to Send, not yet taken by the writer
	lent    bool      // the room behind pending's data is the node's: the writer waits
	held    bool      // it does
	unsent  bool      // the link is in t.unsent
	renewal time.Time // of the write deadline
}

func newLink(t *Transport, peer env.Peer, in *opener, out *sealer, rest []byte, w *wire, tcp tcpConn) *link {
	l := &link{
		t: t, peer: peer, in: in, out: out, rest: rest, wire: w, tcp: tcp, born: time.Now(),
		ended: make(chan struct{}),
		slots: make(chan struct{}, batchesLink),
	}
	l.wake.L = &l.mu
	l.onDrain = l.deliverDrained
	return l
}

// start posts up, which gives l its events, and begins the life of the link. l is counted in t.goroutines once.
func (l *link) start(up func()) {
	l.exits.Store(2)
	if !l.t.cfg.Loop.Post(up) {
		l.silent.Store(true)
		l.fail(ErrClosed)
	}
	go l.reader()
	go l.writer()
}

// Peer implements env.Link.
func (l *link) Peer() *env.Peer { return &l.peer }

// Queued implements env.Link.
func (l *link) Queued() int { return int(l.queued.Load()) }

// Room implements env.Link. It lends what lies behind the cells that wait to be written; until Send, or the end of the
// batch of events, the writer leaves them alone.
func (l *link) Room(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t.cfg.AfterBatch == nil || l.state != open { // nobody would say when it is over
		return make([]byte, n*cell.Size)
	}
	if l.pending == nil {
		l.pending = l.t.getQueue()
	}
	l.lent = true
	l.noteUnsent()
	return l.pending.room(n)
}

// Send implements env.Link. It panics when cells is not a whole number of cells.
func (l *link) Send(cells []byte) {
	if len(cells)%cell.Size != 0 {
		panic(fmt.Sprintf("link: Send of %d bytes, which are no whole cells", len(cells)))
	}
	l.mu.Lock()
	inPlace := l.lent && l.pending.ahead(cells)
	if !inPlace {
		l.endLoan()
	}
	l.lent = false
	if l.state != open || len(cells) == 0 {
		l.mu.Unlock()
		return
	}
	if l.queued.Add(int64(len(cells))) > l.t.cfg.maxQueued {
		l.mu.Unlock()
		l.fail(fmt.Errorf("%w: %d bytes are waiting to be written", ErrLimit, l.queued.Load()))
		return
	}
	if l.pending == nil {
		l.pending = l.t.getQueue()
	}
	if inPlace {
		l.pending.data = l.pending.data[:len(l.pending.data)+len(cells)]
	} else {
		l.pending.add(cells)
	}
	if l.t.cfg.AfterBatch == nil || l.held {
		l.wake.Signal()
	} else {
		l.noteUnsent()
	}
	l.mu.Unlock()
}

// noteUnsent has the writer woken after the batch of events.
func (l *link) noteUnsent() {
	if !l.unsent {
		l.unsent = true
		l.t.unsent.add(l)
	}
}

// endLoan takes back what Room lent, in which there are no cells.
func (l *link) endLoan() {
	if !l.lent {
		return
	}
	l.lent = false
	if l.pending.empty() {
		l.t.putQueue(l.pending)
		l.pending = nil
	}
}

// Close implements env.Link. What is queued is written if that takes less than a second.
func (l *link) Close(reason error) {
	l.silent.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != open {
		return
	}
	l.state, l.reason = closing, reason
	close(l.ended)
	l.tcp.SetDeadline(time.Now().Add(closeLimit))
	l.wake.Signal()
}

// fail ends the link because of err; the first reason counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.state == open {
		l.state, l.reason = dead, err
		close(l.ended)
	}
	l.wake.Signal()
	l.mu.Unlock()
	l.tcp.Close()
}

// exit is called by each goroutine as the last thing it does. The second one clears up.
func (l *link) exit() {
	if l.exits.Add(-1) > 0 {
		return
	}
	l.tcp.Close()
	l.wire.release()
	l.mu.Lock()
	reason, flushed := l.reason, l.state == closing
	if !l.lent {
		l.t.putQueue(l.pending)
	}
	l.pending, l.lent = nil, false
	l.mu.Unlock()
	l.t.forget(l, reason)
	if !flushed {
		// The reason may be logged, and a client's address must not be.
		with := "a client"
		if !l.peer.Client() {
			with = l.peer.Address.String()
		}
		reason := &Error{"link with", with, reason}
		l.t.cfg.Loop.Post(func() {
			if !l.silent.Swap(true) && l.events != nil {
				l.events.OnDown(reason)
			}
		})
	}
	l.t.goroutines.Done()
}

// isOpen reports whether neither Close nor a failure has happened.
func (l *link) isOpen() bool {
	select {
	case <-l.ended:
		return false
	default:
		return true
	}
}

// ---- reading ----

// batch is one event of the loop: whole cells from one read.
type batch struct {
	data [batchPlain + cell.Size]byte // the second part is room for the rest of a cell from the last batch
	size int
	link *link
	run  func() // deliver, made once
}

// reader posts what arrives, batch by batch, until the link ends.
func (l *link) reader() {
	err := l.readAll()
	l.mu.Lock()
	graceful := l.state == closing
	l.mu.Unlock()
	if graceful {
		l.discard()
	} else {
		l.fail(err)
	}
	l.exit()
}

func (l *link) readAll() error {
	rest := l.rest // the beginning of a cell, from a peer whose records do not end with a cell
	l.rest = nil
	for first := len(rest) > 0; ; first = false {
		for !first && !l.wire.ready() {
			if err := l.fill(); err != nil {
				return explainEnd(err, len(rest))
			}
		}
		b := l.acquireBatch()
		if b == nil {
			return nil // the link has ended
		}
		n, err := l.readBatch(b, rest)
		whole := n - n%cell.Size
		rest = append(rest[:0], b.data[whole:n]...)
		l.postBatch(b, whole)
		if err != nil {
			return explainEnd(err, len(rest))
		}
	}
}

// fill waits for bytes, and gives a large buffer back when none have come for a while.
func (l *link) fill() error {
	if l.wire.holdsLarge() {
		// As with writing, a look at the clock is cheaper than setting a timer.
		if now := time.Now(); now.Sub(l.readTimer) > calmAfter/2 {
			l.readTimer = now
			l.setReadDeadline(now.Add(calmAfter))
		}
	}
	err := l.wire.fill()
	if err == nil || l.readTimer.IsZero() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	l.readTimer = time.Time{}
	l.setReadDeadline(time.Time{})
	l.wire.calm()
	return l.wire.fill()
}

// setReadDeadline leaves the deadline of Close alone.
func (l *link) setReadDeadline(d time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == open {
		l.tcp.SetReadDeadline(d)
	}
}

// readBatch fills b, after what is left from the last batch, with the records that have arrived.
func (l *link) readBatch(b *batch, rest []byte) (int, error) {
	data := append(b.data[:0], rest...)
	for cap(data)-len(data) >= maxRecord && l.wire.ready() {
		var err error
		if data, err = l.in.open(data, l.wire.take()); err != nil {
			return len(data), err
		}
	}
	return len(data), nil
}

// acquireBatch waits until the loop has dealt with enough. It returns nil when the link has ended.
func (l *link) acquireBatch() *batch {
	select {
	case l.slots <- struct{}{}:
	case <-l.ended:
		return nil
	}
	select {
	case l.t.batches <- struct{}{}:
	case <-l.ended:
		<-l.slots
		return nil
	}
	b, ok := l.t.batchPool.Get().(*batch)
	if !ok {
		b = new(batch)
		b.run = b.deliver
	}
	b.link = l
	return b
}

// postBatch gives the first size bytes of b to the loop, or b back if there are none.
func (l *link) postBatch(b *batch, size int) {
	b.size = size
	if size == 0 || !l.t.cfg.Loop.Post(b.run) {
		b.free()
	}
}

// deliver runs on the loop.
func (b *batch) deliver() {
	if l := b.link; !l.silent.Load() && l.events != nil {
		l.events.OnCells(b.data[:b.size])
	}
	b.free()
}

func (b *batch) free() {
	l := b.link
	b.link = nil
	l.t.batchPool.Put(b)
	<-l.t.batches
	<-l.slots
}

// discard reads until the far end has seen the end of what was written, or the deadline of Close: closing a socket
// with unread bytes would make the kernel throw away what the far end has not read.
func (l *link) discard() {
	l.wire.release()
	var sink [smallRead]byte
	for {
		if _, err := l.tcp.Read(sink[:]); err != nil {
			return
		}
	}
}

func explainEnd(err error, rest int) error {
	var opErr *net.OpError
	switch {
	case rest != 0 && errors.Is(err, io.EOF):
		return fmt.Errorf("%w in the middle of a cell", ErrPeerClosed)
	case err == io.EOF:
		return ErrPeerClosed
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("cut off by the far end or the network: %w", err)
	case errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("reset by the far end: its process may have died: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: the far end has taken nothing for %v", ErrTimeout, stallLimit)
	case errors.As(err, &opErr) && opErr.Op == "local error":
		return fmt.Errorf("%w: the far end broke the TLS protocol: %w", ErrTLS, err)
	}
	return err
}

// ---- writing ----

// writer writes what has been sent until the link ends.
func (l *link) writer() {
	if err := l.writeAll(); err != nil {
		l.fail(explainEnd(err, 0))
	}
	l.exit()
}

func (l *link) writeAll() error {
	var taken *buffer // the queue being written; afterwards it becomes pending, so that two take turns
	defer func() { l.t.putQueue(taken) }()
	for {
		l.mu.Lock()
		for l.state != dead && (l.lent || l.state == open && l.pending.empty()) {
			if !l.lent {
				l.t.putQueue(l.pending)
				l.pending = nil
			}
			l.t.putQueue(taken)
			taken = nil
			l.held = l.lent
			l.wake.Wait()
			l.held = false
		}
		if l.state == dead {
			l.mu.Unlock()
			return nil
		}
		if l.pending.empty() { // closing
			l.mu.Unlock()
			return l.goodbye()
		}
		taken, l.pending = l.pending, taken
		l.mu.Unlock()
		if err := l.writeQueue(taken.data); err != nil {
			return err
		}
		taken.data = taken.data[:0]
	}
}

// writeQueue encrypts and writes q, a few records with each system call.
func (l *link) writeQueue(q []byte) error {
	pool, step := &l.t.largeWrites, batchPlain
	if len(q) <= maxPlain {
		pool, step = &l.t.smallWrites, maxPlain
	}
	b := pool.tryGet()
	if b == nil { // many links are stuck in a write: make do with little
		pool, b, step = nil, &buffer{make([]byte, smallWrite)}, maxPlain
	}
	l.wire.collectIn(b.data)
	defer func() {
		l.wire.takeBack()
		if pool != nil {
			pool.put(b)
		}
	}()
	for len(q) > 0 {
		n := min(step, len(q))
		if err := l.wire.collect(l.out, q[:n]); err != nil {
			return err
		}
		if err := l.wire.flush(l.extendDeadline); err != nil {
			return err
		}
		q = q[n:]
		l.queued.Add(int64(-n))
		l.noteDrained()
		l.noteAge()
	}
	return nil
}

// extendDeadline allows stallLimit for the next bytes. While the link is closing the deadline of Close stays.
func (l *link) extendDeadline() {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Setting a timer costs more than a look at the clock.
	if now := time.Now(); l.state == open && now.Sub(l.renewal) > time.Second {
		l.renewal = now
		l.tcp.SetWriteDeadline(now.Add(l.t.cfg.stallLimit))
	}
}

// goodbye tells TLS and TCP of the far end that there is no more.
func (l *link) goodbye() error {
	l.wire.out = l.out.goodbye(l.wire.out)
	err := l.wire.flush(func() {})
	if err == nil {
		err = l.tcp.CloseWrite()
	}
	return err
}

func (l *link) noteDrained() {
	if !l.silent.Load() && !l.drained.Swap(true) {
		l.t.cfg.Loop.Post(l.onDrain)
	}
}

func (l *link) deliverDrained() {
	l.drained.Store(false)
	if !l.silent.Load() && l.events != nil {
		l.events.OnDrained()
	}
}

func (l *link) noteAge() {
	if l.born.IsZero() || l.out.records.Load() < l.t.cfg.renewRecords && time.Since(l.born) < renewAge {
		return
	}
	l.born = time.Time{} // once
	l.t.cfg.Loop.Post(func() {
		if r, ok := l.events.(Renewer); ok && !l.silent.Load() {
			r.OnRenew()
		}
	})
}
