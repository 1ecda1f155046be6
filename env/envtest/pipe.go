package envtest

import (
	"errors"
	"io"
	"slices"
	"syscall"
	"time"

	"cepa/cell"
	"cepa/env"
)

const (
	chunk      = 16 << 10 // bytes that leave and arrive together: a TLS record, 8 cells
	connWindow = 64 << 10 // bytes that a paused Conn holds before its sender must wait
)

var errStopped = errors.New("node stopped")

// end is one end of a byte stream between two nodes, or between a node and the clear net. It
// is the common half of a fakeConn and a fakeLink. Its node is nil in the clear net.
type end struct {
	node     *Node
	events   connEvents
	out, in  *pipe
	closed   bool // nothing more is heard
	paused   bool
	eof      bool // CloseWrite or Close was called
	waking   bool // an event that calls deliver is scheduled
	isLink   bool
	received [][]byte // arrived and not delivered; nil is EOF
}

// connEvents is env.ConnEvents; links adapt to it.
type connEvents = env.ConnEvents

// pipe is one direction, from one end to the other.
type pipe struct {
	f        *Fake
	from, to *end
	queue    []byte
	window   int // most bytes under way or received and not delivered; 0: without limit
	under    int // bytes under way or received and not delivered
	leaving  bool
	sentEOF  bool
	dead     bool // reset: what is queued never leaves
	arrival  env.Mono
}

// join makes the two ends of a stream.
func (f *Fake) join(a, b *Node, window int) (*end, *end) {
	x, y := &end{node: a, isLink: window == 0, paused: true}, &end{node: b, isLink: window == 0, paused: true}
	x.out = &pipe{f: f, from: x, to: y, window: window}
	y.out = &pipe{f: f, from: y, to: x, window: window}
	x.in, y.in = y.out, x.out
	for _, e := range []*end{x, y} {
		e.events = &ConnProbe{} // until the owner says who hears
		if e.node != nil {
			e.node.ends = append(e.node.ends, e)
		}
	}
	return x, y
}

// pump makes the next chunk leave, if there is one and it may.
func (p *pipe) pump() {
	if p.leaving || p.dead || p.sentEOF || p.from.vanished() || p.to.vanished() {
		return
	}
	n := min(len(p.queue), chunk)
	if p.window > 0 {
		n = min(n, p.window-p.under)
	}
	if n == 0 && (len(p.queue) > 0 || !p.from.eof) {
		return
	}
	var wait time.Duration
	if p.f.Rate > 0 {
		wait = time.Duration(n) * time.Second / time.Duration(p.f.Rate)
	}
	if from := p.from.node; from != nil && from.Uplink != nil {
		if rate := from.Uplink(p.to.node); rate > 0 {
			from.sending = max(from.sending, p.f.now).Add(time.Duration(n) * time.Second / time.Duration(rate))
			wait = max(wait, from.sending.Sub(p.f.now))
		}
	}
	p.leaving = true
	p.f.schedule(nil, wait, func() { p.leave(n) })
}

// leave hands n bytes, or EOF, to the network.
func (p *pipe) leave(n int) {
	p.leaving = false
	if p.dead || p.from.vanished() || p.to.vanished() {
		return // pump is called when it is over
	}
	var data []byte
	if n > 0 {
		data = p.queue[:n:n]
		p.queue = p.queue[n:]
		p.under += n
	} else {
		p.sentEOF = true
	}
	p.travel(func() { p.to.arrive(data) })
	p.pump()
	if n > 0 && !p.from.closed {
		p.from.events.OnDrained()
	}
}

// travel runs f at the far end when everything sent before has arrived there.
func (p *pipe) travel(f func()) {
	p.arrival = max(p.arrival, p.f.now.Add(p.f.Delay))
	p.f.scheduleAt(nil, p.arrival, f)
}

func (e *end) vanished() bool { return e.node != nil && e.node.vanished }

func (e *end) arrive(data []byte) {
	if e.closed { // nobody reads this
		if data != nil && (e.out.sentEOF || e.out.dead) {
			e.out.reset()
		}
		e.in.under -= len(data)
		e.in.pump()
		return
	}
	e.received = append(e.received, data)
	if !e.waking {
		e.deliver()
	}
}

// deliver hands one chunk to the handler, as the last thing of an event.
func (e *end) deliver() {
	e.waking = false
	if e.closed || e.paused || len(e.received) == 0 {
		return
	}
	data := e.received[0]
	e.received = e.received[1:]
	e.in.under -= len(data)
	e.in.pump()
	e.wake()
	switch {
	case data != nil:
		e.events.OnData(data)
	case e.isLink:
		e.down(io.EOF)
	default:
		e.events.OnEOF()
	}
}

// wake schedules deliver if there is something to deliver.
func (e *end) wake() {
	if !e.waking && !e.paused && len(e.received) > 0 {
		e.waking = true
		e.out.f.schedule(nil, 0, e.deliver)
	}
}

// down says that the stream is gone.
func (e *end) down(reason error) {
	if e.closed {
		return
	}
	e.forget()
	e.events.OnDown(reason)
}

// forget ends e: it hears and sends nothing more.
func (e *end) forget() {
	e.closed = true
	e.out.dead = true
	e.received = nil
	if e.node != nil {
		e.node.ends = slices.DeleteFunc(e.node.ends, func(x *end) bool { return x == e })
	}
}

// reset drops what is queued and makes the far end hear that the stream is gone, unless one of
// the nodes has vanished: then only a timeout can tell.
func (p *pipe) reset() {
	p.dead = true
	p.queue = nil
	if !p.to.closed && !p.from.vanished() && !p.to.vanished() {
		p.travel(func() { p.to.down(syscall.ECONNRESET) })
	}
}

func (e *end) write(data []byte) {
	if !e.closed && !e.eof {
		e.out.queue = append(e.out.queue, data...)
		e.out.pump()
	}
}

func (e *end) closeWrite() {
	if !e.closed && !e.eof {
		e.eof = true
		e.out.pump()
	}
}

func (e *end) close(reason error) {
	if e.closed {
		return
	}
	switch {
	case reason == nil || (e.isLink && reason != errStopped):
		e.closeWrite()
		e.forget()
		e.out.dead = false
	default:
		e.forget()
		e.out.reset()
	}
}

// fakeConn is an end as a Conn.
type fakeConn struct{ e *end }

func (c *fakeConn) Write(p []byte)     { c.e.write(p) }
func (c *fakeConn) Queued() int        { return len(c.e.out.queue) }
func (c *fakeConn) CloseWrite()        { c.e.closeWrite() }
func (c *fakeConn) Close(reason error) { c.e.close(reason) }
func (c *fakeConn) Pause(paused bool) {
	c.e.paused = paused
	c.e.wake()
}

// fakeLink is an end as a Link.
type fakeLink struct {
	e    *end
	peer env.Peer
}

func (l *fakeLink) Peer() *env.Peer { return &l.peer }

// Room lends more than it is asked for, as links do, so that cells of one event arrive in one.
func (l *fakeLink) Room(n int) []byte  { return make([]byte, max(n, 16)*cell.Size) }
func (l *fakeLink) Send(cells []byte)  { l.e.write(cells) }
func (l *fakeLink) Queued() int        { return len(l.e.out.queue) }
func (l *fakeLink) Close(reason error) { l.e.close(reason) }

// linkEvents hears an end for an env.LinkEvents.
type linkEvents struct{ env.LinkEvents }

func (e linkEvents) OnData(p []byte) { e.OnCells(p) }
func (e linkEvents) OnEOF()          {}
