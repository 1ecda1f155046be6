package flow

import (
	"encoding/binary"
	"errors"

	"cepa/cell"
	"cepa/env"
)

// StreamHandler hears what is not bytes.
type StreamHandler interface {
	// OnConnected brings CONNECTED's body, valid until it returns (initiator only).
	OnConnected(data []byte)
	// OnResolved brings RESOLVED's body, valid until it returns; the stream is over and OnEnd is
	// not called (initiator only).
	OnResolved(data []byte)
	// OnEnd: the stream is over: None after both EOFs, else why: the peer's END, Reset when the Conn
	// went down, Resource for the budget, or what Mux.Close was given when the circuit went.
	OnEnd(reason cell.Reason)
}

// Stream is one end of a byte stream. It implements env.ConnEvents for the Conn attached to it.
//
// What each side sends on a stream, in this order: the opening message (BEGIN, BEGIN_DIR, RESOLVE;
// CONNECTED, RESOLVED); DATA, with WINDOWs between; END{EOF}; WINDOWs; and the last message, END.
// The package comment says how the two sides come apart.
type Stream struct {
	m    *Mux
	id   cell.StreamID
	kind cell.MessageCommand // that opened it
	h    StreamHandler
	conn env.Conn

	opening     cell.MessageCommand // to be sent: the opening message; 0 when it was sent or is not known
	openingData []byte
	connected   bool // CONNECTED has come (initiator) or is sent or queued (exit)
	begun       bool // the initiator's opening message was sent

	out      buffer // from the Conn, to be sent
	window   int    // bytes that may be sent
	paused   bool   // the Conn is
	connEOF  bool   // it will bring no more
	sentEOF  bool
	gotEOF   bool
	passed   bool        // the peer's EOF was given to the Conn
	gone     bool        // the Conn is down
	flush    cell.Reason // abort for this reason once out is empty, or when flushing fires
	flushing env.Timer
	last     cell.Reason // of the last message
	ending   bool        // the last message is to be sent or was
	sentLast bool
	gotLast  bool
	over     bool // the handler has heard so, or asked for it

	in     buffer // arrived before there was a Conn
	win    inflow
	flying int // given to the Conn, still queued there
	since  env.Mono

	bytesIn, bytesOut uint64
	lastOut           env.Mono // when DATA was sent
	sparse            int      // bytes of DATA that go before those of other streams

	inAll, inControl, inReady, inTold node[Stream]
}

// answer is the reason in an END that only answers the peer's.
const answer = cell.ReasonOther

var errEnded = errors.New("stream has ended")

func (m *Mux) newStream(id cell.StreamID, kind cell.MessageCommand) *Stream {
	s := &Stream{
		m: m, id: id, kind: kind,
		window: int(m.cfg.Allowed.Stream),
		win:    inflow{size: int(m.cfg.Granted.Stream), granted: int(m.cfg.Granted.Stream), rule: m.budget.streamRule()},
	}
	s.inAll.of, s.inControl.of, s.inReady.of, s.inTold.of = s, s, s, s
	m.streams[id] = s
	m.all.push(&s.inAll)
	m.budget.addStream()
	m.stats.Streams++
	return s
}

// leave takes the stream out of the mux's list and the budget, once.
func (s *Stream) leave() {
	if s.inAll.on != nil {
		s.inAll.remove()
		s.grow(int(s.m.cfg.Granted.Stream) - s.win.size)
		s.m.budget.subStream()
	}
}

// ID is the stream id, unique on its circuit for ever.
func (s *Stream) ID() cell.StreamID { return s.id }

// Handle sets who hears the stream; at the exit, in OnOpen.
func (s *Stream) Handle(h StreamHandler) { s.h = h }

// say queues the opening message.
func (s *Stream) say(cmd cell.MessageCommand, data []byte) {
	if len(data) > cell.MaxData {
		panic("flow: " + cmd.String() + " longer than a message")
	}
	s.opening = cmd
	s.openingData = append([]byte(nil), data...)
	s.touch()
}

// Connected answers BEGIN or BEGIN_DIR; data is CONNECTED's body, copied. On a stream that is over
// or answered it does nothing.
func (s *Stream) Connected(data []byte) {
	if s.m.cfg.Initiator || s.kind == cell.MessageResolve || s.connected || s.over || s.m.closed {
		return
	}
	s.connected = true
	s.say(cell.MessageConnected, data)
	s.m.wake()
}

// Resolved answers RESOLVE with RESOLVED's body, copied, and ends the stream; OnEnd is not called.
// On a stream that is over it does nothing.
func (s *Stream) Resolved(data []byte) {
	if s.m.cfg.Initiator || s.kind != cell.MessageResolve || s.over || s.m.closed {
		return
	}
	s.over = true
	s.ending = true
	s.say(cell.MessageResolved, data)
	s.m.wake()
}

// Attach joins the stream with a byte stream in both directions, half-close included; the stream
// unpauses it. c is the stream's from here on; its events must go to the stream. On a stream that
// is over c is closed.
func (s *Stream) Attach(c env.Conn) {
	if s.over || s.m.closed || s.conn != nil || s.gone || s.kind == cell.MessageResolve {
		c.Close(errEnded)
		return
	}
	s.conn = c
	s.touchSince()
	for s.in.len() > 0 {
		p := s.in.peek()
		s.deliver(p)
		s.in.skip(s.m.budget, len(p))
	}
	s.passEOF()
	if s.conn != nil {
		c.Pause(false)
	}
	s.m.wake()
}

// End aborts: END(reason) to the peer, the Conn is closed with an error. Nothing more is heard. A
// reason of 0, which would be EOF, goes out as "other".
func (s *Stream) End(reason cell.Reason) {
	if s.over || s.m.closed {
		return
	}
	s.over = true
	s.abort(reason)
	s.m.wake()
}

// abort ends both directions: what waits in either is dropped, and END is the last message.
func (s *Stream) abort(reason cell.Reason) {
	if reason == cell.ReasonNone {
		reason = cell.ReasonOther
	}
	s.detach(&StreamError{reason})
	s.out.drop(s.m.budget)
	s.inReady.remove()
	if s.flush != 0 {
		s.flush = 0
		s.flushing.Stop()
	}
	if s.m.closed || s.ending {
		return
	}
	if s.m.cfg.Initiator && !s.begun {
		s.m.forget(s) // the peer never heard of it
		return
	}
	s.opening, s.openingData = 0, nil
	s.ending, s.last = true, reason
	s.touch()
}

// detach closes the Conn, if there is one, and drops what arrived for it.
func (s *Stream) detach(reason error) {
	if c := s.conn; c != nil {
		s.conn = nil
		c.Close(reason)
	}
	s.lose()
}

// lose consumes what arrived and nobody will read. It reports whether there was anything.
func (s *Stream) lose() bool {
	n := s.in.len() + s.flying
	s.in.drop(s.m.budget)
	s.m.budget.sub(s.flying)
	s.flying = 0
	s.consumed(n)
	return n > 0
}

// consumed returns the window for n bytes of DATA.
func (s *Stream) consumed(n int) {
	if n == 0 {
		return
	}
	s.win.unsaid += n
	s.touch()
	s.m.consumed(n)
}

// ---- the Conn's events ----

// OnData, OnEOF, OnDrained and OnDown make a Stream env.ConnEvents. Bytes that come before OnEOF
// or OnDown are sent before the END that these cause.
func (s *Stream) OnData(p []byte) {
	if s.conn == nil || s.connEOF || s.m.closed || len(p) == 0 {
		return
	}
	if s.out.len() == 0 {
		s.touchSince()
	}
	s.out.write(s.m.budget, p)
	if !s.paused && s.out.len() >= pauseBytes {
		s.paused = true
		s.conn.Pause(true)
	}
	s.schedule()
	s.m.wake()
}

// OnEOF is described at OnData.
func (s *Stream) OnEOF() {
	if s.conn == nil || s.connEOF || s.m.closed {
		return
	}
	s.connEOF = true
	s.touch()
	s.m.wake()
}

// OnDrained is described at OnData.
func (s *Stream) OnDrained() {
	if s.conn == nil {
		return
	}
	s.drained()
	if s.m.closed {
		s.lingered()
		return
	}
	s.finish(false)
	s.m.wake()
}

// OnDown is described at OnData. With a nil reason the Conn was closed in an orderly way: that is an
// EOF, but like TCP the stream is reset when something was not read or still comes.
func (s *Stream) OnDown(reason error) {
	if s.conn == nil {
		return
	}
	s.conn = nil
	s.gone = true
	lost := s.lose()
	switch {
	case s.m.closed:
		s.lingered()
		return
	case reason != nil || lost:
		s.reset()
	case !s.connEOF:
		s.connEOF = true
		s.touch()
	}
	s.passEOF()
	s.m.wake()
}

// reset ends a stream whose Conn is down: END(Reset) goes out when what the Conn brought before was
// sent, for which there is a minute. Until then DATA from the peer is consumed: were it not, two
// ends that do this at once would wait for each other's window.
func (s *Stream) reset() {
	tell := !s.over
	s.over = true
	if s.out.len() == 0 || s.ending {
		s.abort(cell.ReasonReset)
	} else {
		s.flush = cell.ReasonReset
		s.connEOF = true
		s.flushing = s.m.cfg.Env.Clock.AfterFunc(lingerTime, func() {
			s.abort(cell.ReasonReset)
			s.m.wake()
		})
	}
	if tell && s.h != nil {
		s.h.OnEnd(cell.ReasonReset)
	}
}

// drained counts what has left the Conn's queue.
func (s *Stream) drained() {
	left := min(s.conn.Queued(), s.flying)
	n := s.flying - left
	if n == 0 {
		return
	}
	s.flying = left
	s.m.budget.sub(n)
	s.touchSince()
	s.consumed(n)
}

func (s *Stream) deliver(p []byte) {
	if s.flying == 0 {
		s.touchSince()
	}
	s.conn.Write(p)
	s.flying += len(p)
	s.m.budget.add(len(p))
	s.drained()
}

func (s *Stream) windowDue() bool {
	return s.win.unsaid >= s.win.worth() && !s.gotEOF && !s.gotLast && !s.ending
}

// linger keeps a Conn of a closed Mux until it has written what it has.
func (s *Stream) linger() {
	s.drained()
	s.lingered()
}

func (s *Stream) lingered() {
	if s.conn != nil && s.flying == 0 {
		c := s.conn
		s.conn = nil
		c.Close(nil)
	}
	if s.conn == nil {
		s.leave()
		s.m.settle()
	}
}

// ---- the peer's messages ----

func (s *Stream) onMessage(msg cell.Message) error {
	switch msg.Command {
	case cell.MessageData:
		return s.onData(msg.Data)
	case cell.MessageWindow:
		return s.onWindow(binary.BigEndian.Uint32(msg.Data))
	case cell.MessageEnd:
		return s.onEnd(cell.Reason(msg.Data[0]))
	case cell.MessageConnected:
		return s.onConnected(msg.Data)
	default:
		return s.onResolved(msg.Data)
	}
}

func (s *Stream) onData(p []byte) error {
	m := s.m
	switch {
	case s.kind == cell.MessageResolve:
		return wrong("DATA on a stream that resolves")
	case m.cfg.Initiator && !s.connected:
		return wrong("DATA before CONNECTED")
	case s.gotEOF:
		return wrong("DATA after EOF")
	case len(p) > s.win.granted:
		return wrong("DATA beyond the window of stream %d", s.id)
	case len(p) > m.granted:
		return wrong("DATA beyond the window of the circuit")
	}
	s.arrived(len(p))
	m.granted -= len(p)
	switch {
	case s.ending || s.flush != 0: // crossed our END, or will
		s.consumed(len(p))
	case s.gone: // and nobody there to read it
		s.consumed(len(p))
		s.reset()
	case s.conn != nil:
		m.stats.StreamBytesIn += uint64(len(p))
		s.bytesIn += uint64(len(p))
		s.deliver(p)
	default:
		m.stats.StreamBytesIn += uint64(len(p))
		s.bytesIn += uint64(len(p))
		if s.in.len() == 0 {
			s.touchSince()
		}
		s.in.write(m.budget, p)
	}
	m.wake()
	return nil
}

func (s *Stream) onWindow(add uint32) error {
	if s.kind == cell.MessageResolve {
		return wrong("WINDOW on a stream that resolves")
	}
	if err := widen(&s.window, s.m.cfg.Allowed.Stream, add); err != nil {
		return err
	}
	s.schedule()
	s.m.wake()
	return nil
}

func (s *Stream) onConnected(data []byte) error {
	if !s.m.cfg.Initiator || s.kind == cell.MessageResolve || s.connected {
		return wrong("CONNECTED that nobody asked for")
	}
	s.connected = true
	s.touch() // an EOF may have waited for it
	if !s.over && s.h != nil {
		s.h.OnConnected(data)
	}
	s.m.wake()
	return nil
}

func (s *Stream) onResolved(data []byte) error {
	if !s.m.cfg.Initiator || s.kind != cell.MessageResolve {
		return wrong("RESOLVED that nobody asked for")
	}
	s.gotLast = true
	tell := !s.over
	s.over = true
	s.answerLast()
	if tell && s.h != nil {
		s.h.OnResolved(data)
	}
	return nil
}

func (s *Stream) onEnd(reason cell.Reason) error {
	if reason != cell.ReasonEOF {
		return s.onLast(reason)
	}
	switch {
	case s.kind == cell.MessageResolve:
		return wrong("EOF on a stream that resolves")
	case !s.connected || s.opening != 0:
		return wrong("EOF before CONNECTED")
	case s.gotEOF && !s.sentEOF:
		return wrong("EOF for the second time")
	case s.gotEOF:
		return s.onLast(cell.ReasonNone)
	}
	s.gotEOF = true
	s.passEOF()
	s.m.wake()
	return nil
}

// onLast acts on the last message that the peer sends on the stream.
func (s *Stream) onLast(reason cell.Reason) error {
	s.gotLast = true
	tell := !s.over && reason != cell.ReasonNone
	if reason != cell.ReasonNone {
		s.over = true
		s.detach(&StreamError{reason.Known()})
		s.abort(answer)
	}
	s.answerLast()
	if tell && s.h != nil {
		s.h.OnEnd(reason.Known())
	}
	return nil
}

// answerLast sends this side's last message if it is the only thing missing.
func (s *Stream) answerLast() {
	switch {
	case s.sentLast:
		s.m.forget(s)
	case s.ending:
		s.touch()
	case s.over:
		s.abort(answer)
	}
	s.m.wake()
}

// passEOF gives the peer's EOF to the Conn, after all data.
func (s *Stream) passEOF() {
	if s.gotEOF && !s.passed && s.in.len() == 0 && (s.conn != nil || s.gone) {
		s.passed = true
		if s.conn != nil {
			s.conn.CloseWrite()
		}
	}
	s.finish(false)
}

// finish begins the end of a stream on which both EOFs have passed and everything was delivered:
// until then the stream, and with it its place among the circuit's, is not given up. quiet says
// that no handler may be called now.
func (s *Stream) finish(quiet bool) {
	if !s.sentEOF || !s.passed || s.flying > 0 || s.ending || s.m.closed {
		return
	}
	s.ending = true
	s.touch()
	if c := s.conn; c != nil {
		s.conn = nil
		c.Close(nil)
	}
	if s.over {
		return
	}
	s.over = true
	switch {
	case s.h == nil:
	case quiet:
		s.m.later(s)
	default:
		s.h.OnEnd(cell.ReasonNone)
	}
}
