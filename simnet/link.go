package simnet

import (
	"errors"
	"fmt"
	"io"
	"time"

	"cepa/cell"
	"cepa/env"
)

// link is one end of a connection as an env.Link: between two nodes that know who the other is.
type link struct {
	*end
	number   uint64 // of the far host
	events   env.LinkEvents
	room     []byte            // lent by Room
	circuits map[uint32]uint64 // numbers of those that a watched host made
	peer     env.Peer
}

var (
	errEnded   = errors.New("the far end has closed the link")
	errRefused = errors.New("closed as soon as it was up")
)

func newLink(e *end, dialled bool) *link {
	self, peer := e.host, e.far.host
	l := &link{end: e, number: uint64(peer.index)}
	l.peer = env.Peer{Identity: peer.identity, Dialled: dialled, Observed: self.Address, Version: 1}
	l.peer.Address = peer.Target().Addresses[0]
	if !l.peer.Client() {
		l.peer.OnionKey = peer.onionKey()
		l.peer.Time = clock{peer}.Wall().Truncate(time.Millisecond)
		l.peer.Skew = l.peer.Time.Sub(clock{self}.Wall())
	}
	e.hear = l
	return l
}

// Peer implements env.Link.
func (l *link) Peer() *env.Peer { return &l.peer }

// Queued implements env.Link.
func (l *link) Queued() int { return l.queue.size }

// roomCells is how much Room lends at least.
const roomCells = 16

// Room implements env.Link.
func (l *link) Room(n int) []byte {
	if l.room == nil {
		l.room = l.w.buffers.takeRoom()
	}
	if len(l.room) < n*cell.Size {
		l.room = make([]byte, n*cell.Size)
	}
	return l.room
}

// Send implements env.Link. What Room has lent goes back.
func (l *link) Send(cells []byte) {
	if len(cells)%cell.Size != 0 {
		panic(fmt.Sprintf("simnet: Send of %d bytes, which are no whole cells", len(cells)))
	}
	if l.room != nil {
		defer l.w.buffers.giveRoom(l.room)
		l.room = nil
	}
	if l.over || l.fin || len(cells) == 0 {
		return
	}
	w, h := l.w, l.host
	w.trace.record(w, h, KindSend, len(cells), uint64(l.peer.Identity[0])<<8|uint64(l.peer.Identity[1]), 0) // KindCells digests them
	h.charge(time.Duration(len(cells)/cell.Size) * h.cpu.Send)
	if l.host.watched {
		w.watch.sent(l, cells)
	}
	if w.defects.cells != nil {
		cells = w.defects.cells(h, cells)
	}
	l.write(cells)
}

// closeTime is how long a link that is closed may take to write what was sent.
const closeTime = time.Second

// Close implements env.Link.
func (l *link) Close(error) { l.close(false, closeTime) }

// up tells the node of the link, and reports whether it is wanted.
func (l *link) up() bool {
	h := l.host
	if l.over || h.handler == nil {
		l.close(false, closeTime)
		return false
	}
	l.w.trace.add(l.w, h, KindLink, l.number, 0)
	l.events = h.handler.LinkUp(l)
	if l.events == nil {
		l.Close(errRefused)
		return false
	}
	if l.over {
		return false
	}
	l.pause(false)
	return true
}

func (l *link) data(p []byte) {
	w, h := l.w, l.host
	w.trace.data(w, h, KindCells, l.number, p)
	h.charge(time.Duration(len(p)/cell.Size) * h.cpu.Cell)
	if h.watched {
		w.watch.deliver(l, p)
		return
	}
	l.events.OnCells(p)
}

func (l *link) ended() {}

func (l *link) drained() {
	if l.events != nil {
		l.events.OnDrained()
	}
}

func (l *link) broken(reason error) {
	if l.events == nil {
		return
	}
	if errors.Is(reason, io.EOF) {
		reason = errEnded
	}
	l.w.trace.add(l.w, l.host, KindDown, l.number, 0)
	l.events.OnDown(fmt.Errorf("link with %s: %w", l.peer.Identity.Short(), reason))
}

// conn is one end of a connection as an env.Conn.
type conn struct {
	*end
	events env.ConnEvents
}

func newConn(e *end) *conn {
	c := &conn{end: e}
	e.hear = c
	return c
}

// flushTime is how long a connection that is closed may take to write what was given to it.
const flushTime = time.Minute

// Write implements env.Conn.
func (c *conn) Write(p []byte) {
	c.w.trace.data(c.w, c.host, KindWrite, 0, p)
	c.write(p)
}

// Queued implements env.Conn.
func (c *conn) Queued() int { return c.queue.size }

// Pause implements env.Conn.
func (c *conn) Pause(paused bool) { c.pause(paused) }

// CloseWrite implements env.Conn.
func (c *conn) CloseWrite() { c.closeWrite() }

// Close implements env.Conn.
func (c *conn) Close(reason error) { c.close(reason != nil, flushTime) }

// up tells the owner of the connection.
func (c *conn) up(tell func(env.Conn) env.ConnEvents) {
	c.w.trace.add(c.w, c.host, KindConn, uint64(c.far.host.index), 0)
	if c.events = tell(c); c.events == nil {
		c.Close(nil)
	}
}

func (c *conn) data(p []byte) {
	c.w.trace.data(c.w, c.host, KindData, 0, p)
	c.events.OnData(p)
}

func (c *conn) ended() {
	c.w.trace.add(c.w, c.host, KindEOF, 0, 0)
	c.events.OnEOF()
}

func (c *conn) drained() {
	if c.events != nil {
		c.events.OnDrained()
	}
}

func (c *conn) broken(reason error) {
	c.w.trace.add(c.w, c.host, KindDown, uint64(c.far.host.index), 0)
	if c.events != nil {
		c.events.OnDown(reason)
	}
}
