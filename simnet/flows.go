package simnet

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/circuit"
	"cepa/env"
)

// FlowSpec is what one stream of an application does: so many exchanges, in each of which Up bytes
// go to the server and Down bytes come back, with a pause between two.
type FlowSpec struct {
	Host      string // name or address of a Server
	Port      uint16
	Up, Down  int64 // bytes; Up is at least a request's, 48
	Exchanges int   // 0 is 1
	Pause     time.Duration
	Isolation string
	Workload  string // a name for tables
	// Patience is how long the application waits for progress before it gives up; 0 is for ever.
	Patience time.Duration
	// Read is how many bytes a second the application reads; 0 is all that comes, at once.
	Read int64
	// Optimistic applications send before they hear that they are connected. Over SOCKS none can.
	Optimistic bool
}

// Flow is one stream of an application, and what became of it.
type Flow struct {
	ID        uint64
	Client    *Host
	Spec      FlowSpec
	Isolation string
	// Opened is when the application asked, Connected when the exit had a connection, First and Last when
	// the first and the last byte came back, Ended when it was over. What has not been is 0.
	Opened, Connected, First, Last, Ended env.Mono
	Up, Down                              int64 // bytes of the payload that went and came
	Err                                   error // nil, when it is over, if it went well
	// Circuit is that of the client's which carries it, as in circuit.Event; 0 before Connected.
	Circuit uint64
	// Path has its relays, guard first; nobody modifies it.
	Path []cert.Identity
	// Cut says that it failed because its client was stopped: see Client.Stop.
	Cut bool

	life uint32
	app  *app
}

// requestSize is that of the header of a request, which is part of what goes up.
const requestSize = 48

// total is how many bytes one direction has in all, headers apart.
func (f *Flow) total(up bool) int64 {
	n := f.Spec.Down
	if up {
		n = f.Spec.Up - requestSize
	}
	return n * int64(max(1, f.Spec.Exchanges))
}

// ErrPatience is the result of a flow whose application gave up.
var ErrPatience = errors.New("the application gave up")

// Open has an application open a stream, as an event of the client; done, which may be nil, is told
// of its end.
func (c *Client) Open(spec FlowSpec, done func(*Flow)) *Flow {
	w := c.n.w
	w.nextFlow++
	spec.Up = max(spec.Up, requestSize)
	spec.Exchanges = max(spec.Exchanges, 1)
	f := &Flow{ID: w.nextFlow, Client: c.Host, Spec: spec, Isolation: spec.Isolation, Opened: w.now, life: c.Host.life}
	f.app = &app{w: w, f: f, client: c, done: done, paused: true}
	f.app.producing.who, f.app.producing.act = f.app, actProduce
	w.on(&f.app.producing, c.Host)
	f.app.reading.who, f.app.reading.act = f.app, actRead
	w.on(&f.app.reading, c.Host)
	w.keep(f)
	w.after(c.Host, 0, KindNone, func() { f.app.open(c) })
	return f
}

// Flows are those that were opened, in order, of which those that are over may have been dropped:
// see KeepFlows.
func (w *World) Flows() []*Flow { return w.flows }

// KeepFlows has Flows keep what is over, or not: then OnFlow is the only one to hear.
func (w *World) KeepFlows(keep bool) { w.dropFlows = !keep }

// OnFlow has f told of the end of each stream, besides others that are.
func (w *World) OnFlow(f func(*Flow)) { w.onFlow = append(w.onFlow, f) }

func (w *World) keep(f *Flow) {
	if w.dropFlows && len(w.flows) > 1024 && len(w.flows) > 2*w.openFlows {
		kept := w.flows[:0]
		for _, x := range w.flows {
			if x.Ended == 0 {
				kept = append(kept, x)
			}
		}
		clear(w.flows[len(kept):])
		w.flows = kept
	}
	w.flows = append(w.flows, f)
	w.openFlows++
}

// app is the application's end of a stream: an env.Conn for the client, which reads what is written to it at once, or
// as fast as it can.
type app struct {
	w         *World
	f         *Flow
	client    *Client
	handle    *circuit.Handle
	done      func(*Flow)
	producing event
	exchange  int   // that is under way
	sent      int64 // bytes of it that went up
	got       int64 // and came down
	waiting   bool  // for the pause to pass
	paused    bool
	ended     bool // EOF was sent
	closed    bool // by the client
	over      bool
	patience  *event
	unread    int64 // bytes that came and were not read, and
	reading   event // some of them are
}

func (a *app) open(c *Client) {
	f := a.f
	address, err := cell.ParseAddress(f.Spec.Host)
	if err != nil {
		a.finish(err)
		return
	}
	key := f.Isolation
	if a.w.defects.isolation != nil {
		key = a.w.defects.isolation(key)
	}
	a.w.trace.add(a.w, f.Client, KindFlow, f.ID, 0)
	a.handle = c.Node.Open(circuit.Request{Address: address, Port: f.Spec.Port, Isolation: key}, a, func(r circuit.Result, err error) {
		if err != nil {
			a.finish(err)
			return
		}
		f.Connected, f.Circuit, f.Path = a.w.now, r.Circuit, c.paths[r.Circuit]
		if circuit := a.w.watch.current; circuit > 0 {
			for _, c := range a.w.checkers {
				c.OnAttached(a.w, f, circuit)
			}
		}
	})
	a.touch()
}

// touch begins the application's patience anew.
func (a *app) touch() {
	d := a.f.Spec.Patience
	if d == 0 {
		return
	}
	if a.patience == nil {
		a.patience = a.w.after(a.f.Client, d, KindTimer, func() {
			if !a.over {
				a.closed = true
				a.handle.Cancel()
				a.finish(ErrPatience)
			}
		})
		return
	}
	a.w.queue.schedule(a.patience, a.w.now.Add(d))
}

// finish notes the result.
func (a *app) finish(err error) {
	if a.over || a.w.defects.deaf != nil && a.w.defects.deaf(a.f) {
		return
	}
	a.over = true
	w, f := a.w, a.f
	f.Ended, f.Err, f.Cut = w.now, err, err != nil && a.client.stopped
	w.openFlows--
	if a.patience != nil {
		w.queue.stop(a.patience)
	}
	w.queue.stop(&a.producing)
	w.queue.stop(&a.reading)
	failed := uint64(0)
	if err != nil {
		failed = 1
	}
	w.trace.add(w, f.Client, KindFlow, f.ID, failed)
	for _, c := range w.checkers {
		c.OnFlowEnd(w, f)
	}
	for _, tell := range w.onFlow {
		tell(f)
	}
	if a.done != nil {
		w.after(f.Client, 0, KindNone, func() { a.done(f) })
	}
}

// Write implements env.Conn: bytes for the application.
func (a *app) Write(p []byte) {
	if a.closed || len(p) == 0 {
		return
	}
	w, f := a.w, a.f
	w.trace.data(w, f.Client, KindData, f.ID, p)
	if f.First == 0 {
		f.First = w.now
	}
	for _, c := range w.checkers {
		c.OnFlowData(w, f, false, f.Down, p)
	}
	f.Last = w.now
	f.Down += int64(len(p))
	a.got += int64(len(p))
	if f.Spec.Read > 0 {
		a.unread += int64(len(p))
		a.readSoon()
	}
	a.touch()
	a.next()
}

// readPiece is how much a slow application reads at a time.
const readPiece = 4 << 10

func (a *app) readSoon() {
	if n := min(a.unread, readPiece); n > 0 && !a.reading.pending() && !a.over {
		a.w.queue.schedule(&a.reading, a.w.now.Add(time.Duration(mulDiv(n, int64(time.Second), a.f.Spec.Read))))
	}
}

// read is when a slow application has read a piece.
func (a *app) read() {
	a.unread -= min(a.unread, readPiece)
	a.readSoon()
	a.touch()
	a.handle.OnDrained()
}

// next begins the next exchange when one is complete.
func (a *app) next() {
	f := a.f
	if a.got < f.Spec.Down || a.sent < f.Spec.Up || a.exchange == f.Spec.Exchanges-1 {
		return
	}
	a.exchange++
	a.got, a.sent = a.got-f.Spec.Down, 0
	if f.Spec.Pause == 0 {
		a.more(0)
		return
	}
	a.waiting = true
	a.w.after(f.Client, f.Spec.Pause, KindTimer, func() {
		a.waiting = false
		a.touch()
		a.more(0)
	})
}

// Queued implements env.Conn.
func (a *app) Queued() int { return int(a.unread) }

// Pause implements env.Conn.
func (a *app) Pause(paused bool) {
	if a.paused = paused; !paused {
		a.more(0)
	}
}

// CloseWrite implements env.Conn: the server will send no more.
func (a *app) CloseWrite() {
	if !a.closed {
		a.w.trace.add(a.w, a.f.Client, KindEOF, a.f.ID, 0)
	}
}

// Close implements env.Conn: the stream is over.
func (a *app) Close(reason error) {
	if a.closed {
		return
	}
	a.closed = true
	a.finish(reason)
}

// The events of an app.
const (
	actProduce act = iota
	actRead
)

func (a *app) happen(what act) {
	if what == actRead {
		a.read()
		return
	}
	a.produce()
}

// more makes produce run.
func (a *app) more(d time.Duration) {
	may := a.f.Connected > 0 || a.f.Spec.Optimistic
	if may && !a.paused && !a.closed && !a.over && !a.ended && !a.waiting && !a.producing.pending() {
		a.w.queue.schedule(&a.producing, a.w.now.Add(d))
	}
}

// produce gives the client some of what goes up.
func (a *app) produce() {
	f := a.f
	if a.paused || a.closed || a.over || a.ended || a.waiting {
		return
	}
	left := f.Spec.Up - a.sent
	if left == 0 {
		if a.exchange == f.Spec.Exchanges-1 {
			a.ended = true
			a.handle.OnEOF()
		}
		return
	}
	buf := a.w.buffers.take(true)
	p := buf[:min(left, int64(cap(buf)))]
	rest := p
	if a.sent == 0 {
		a.request(p[:requestSize])
		rest = p[requestSize:]
	}
	pattern(rest, f.ID, true, f.Up)
	f.Up += int64(len(rest))
	a.sent += int64(len(p))
	a.w.trace.data(a.w, f.Client, KindWrite, f.ID, p)
	a.touch()
	a.handle.OnData(p)
	a.w.buffers.give(buf)
	a.next()
	a.more(0)
}

// request writes the header of an exchange.
//
//	8  "exchange"
//	8  id of the flow
//	8  bytes that follow in this exchange
//	8  bytes to be answered
//	8  offset of the first byte that follows, of all that went up
//	8  offset of the first byte of the answer
func (a *app) request(b []byte) {
	s, n := a.f.Spec, int64(a.exchange)
	copy(b, requestMagic)
	for i, v := range []int64{int64(a.f.ID), s.Up - requestSize, s.Down, n * (s.Up - requestSize), n * s.Down} {
		binary.BigEndian.PutUint64(b[8+8*i:], uint64(v))
	}
}

const requestMagic = "exchange"

// Server makes a host answer what flows ask, at a port and under a name.
func (w *World) Server(h *Host, port uint16, name string) netip.AddrPort {
	if name != "" {
		w.Name(name, h.Address)
	}
	return h.Listen(port, func(c env.Conn) env.ConnEvents {
		c.Pause(false)
		return &served{w: w, c: c}
	})
}

// served is one connection of a server.
type served struct {
	w       *World
	c       env.Conn
	head    []byte // of a request, as far as it has come
	id      uint64
	left    int64 // bytes of the request that are still to come
	at      int64 // where the next of them stands
	answer  int64 // bytes that are still to be sent
	offset  int64 // where the next of them stands
	pending int64 // bytes of the answer, once the request is whole
	eof     bool
}

const serverQueue = 64 << 10

func (s *served) OnData(p []byte) {
	for len(p) > 0 {
		if s.left == 0 {
			n := min(requestSize-len(s.head), len(p))
			s.head, p = append(s.head, p[:n]...), p[n:]
			if len(s.head) < requestSize {
				return
			}
			if !s.begin() {
				return
			}
			continue
		}
		n := min(int64(len(p)), s.left)
		if f := s.w.flowByID(s.id); f != nil {
			for _, c := range s.w.checkers {
				c.OnFlowData(s.w, f, true, s.at, p[:n])
			}
		}
		s.left -= n
		s.at += n
		p = p[n:]
		if s.left == 0 {
			s.answer, s.pending = s.answer+s.pending, 0
			s.send()
		}
	}
}

// begin reads the header of a request.
func (s *served) begin() bool {
	h := s.head
	s.head = h[:0]
	if string(h[:8]) != requestMagic {
		s.c.Close(errors.New("not a request"))
		return false
	}
	v := func(i int) int64 { return int64(binary.BigEndian.Uint64(h[8+8*i:])) }
	s.id, s.left, s.pending, s.at, s.offset = uint64(v(0)), v(1), v(2), v(3), v(4)
	if s.left == 0 {
		s.answer, s.pending = s.answer+s.pending, 0
		s.send()
	}
	return true
}

// send sends as much of the answer as the connection takes.
func (s *served) send() {
	for s.answer > 0 && s.c.Queued() < serverQueue {
		buf := s.w.buffers.take(true)
		p := buf[:min(s.answer, int64(cap(buf)))]
		pattern(p, s.id, false, s.offset)
		if s.w.defects.reply != nil {
			s.w.defects.reply(s.w.flowByID(s.id), s.offset, p)
		}
		s.offset += int64(len(p))
		s.answer -= int64(len(p))
		s.c.Write(p)
		s.w.buffers.give(buf)
	}
	if s.answer == 0 && s.eof {
		s.c.CloseWrite()
	}
}

func (s *served) OnEOF()       { s.eof = true; s.send() }
func (s *served) OnDrained()   { s.send() }
func (s *served) OnDown(error) {}

func (w *World) flowByID(id uint64) *Flow {
	// Flows are numbered in the order in which they stand.
	low, high := 0, len(w.flows)
	for low < high {
		if mid := int(uint(low+high) >> 1); w.flows[mid].ID < id {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(w.flows) && w.flows[low].ID == id {
		return w.flows[low]
	}
	return nil
}

// pattern fills p with the bytes of a flow's direction from an offset on. They are the same wherever a
// piece begins, and differ from place to place.
func pattern(p []byte, id uint64, up bool, offset int64) {
	key := patternKey(id, up)
	word, skip := uint64(offset)/8, int(offset%8)
	if skip > 0 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], patternWord(key, word))
		p = p[copy(p, b[skip:]):]
		word++
	}
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, patternWord(key, word))
		word++
	}
	if len(p) > 0 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], patternWord(key, word))
		copy(p, b[:])
	}
}

// mismatch is the index of the first byte of p that is not the pattern's, or -1.
func mismatch(p []byte, id uint64, up bool, offset int64) int {
	key := patternKey(id, up)
	for i := 0; i < len(p); {
		at := offset + int64(i)
		want := patternWord(key, uint64(at)/8)
		if at%8 == 0 && len(p)-i >= 8 {
			if got := binary.LittleEndian.Uint64(p[i:]); got != want {
				return i + bits.TrailingZeros64(got^want)/8
			}
			i += 8
			continue
		}
		if p[i] != byte(want>>(8*(at%8))) {
			return i
		}
		i++
	}
	return -1
}

func patternKey(id uint64, up bool) uint64 {
	key := id * 0xd1342543de82ef95
	if up {
		key = ^key
	}
	return key
}

// patternWord is a step of SplitMix64.
func patternWord(key, n uint64) uint64 {
	z := key + (n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	return z ^ z>>27
}
