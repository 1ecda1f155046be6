package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"cepa/cell"
	"cepa/env"
)

// MuxConfig is what a Mux needs. Env.Clock, Wake and Handler must be set (Handler may be nil at
// an initiator that never extends); a MaxStreams of 0 means MaxStreamsFor the windows, a nil
// Budget none, and nil Stats that nobody reads them.
type MuxConfig struct {
	Env        env.Env
	Initiator  bool    // the client's end: it opens streams
	Granted    Windows // what this end allowed the peer to send at first
	Allowed    Windows // what the peer allowed this end
	MaxStreams int     // open streams; beyond: END(resource) at the exit, an error at the client
	Wake       func()  // there is something to send: leg.Wake
	Handler    MuxHandler
	Budget     *Budget
	Stats      *Stats
}

// MuxHandler is the circuit hearing what is not for a stream that is open.
type MuxHandler interface {
	// OnOpen: BEGIN, RESOLVE or BEGIN_DIR on a new stream (never at the initiator). Answer now or
	// later with Connected, Resolved or End. m.Data is valid until it returns.
	OnOpen(s *Stream, m cell.Message)
	// OnControl: EXTEND, EXTENDED or EXTEND_FAILED, whichever this end may get. m.Data is valid
	// until it returns. An error is a protocol error, and comes back from OnPayload.
	OnControl(m cell.Message) error
}

// Errors of Open.
var (
	ErrStreamLimit = errors.New("too many streams on the circuit")
	ErrStreamIDs   = errors.New("circuit has used up its stream ids")
	ErrMuxClosed   = errors.New("circuit is closed")
)

// Mux is one end of a circuit: the streams, their windows, and the packing of messages into
// payloads. With all its streams closed it holds no memory but its own.
type Mux struct {
	cfg     MuxConfig
	budget  *Budget
	stats   *Stats
	streams map[cell.StreamID]*Stream
	all     list[Stream] // the same, in the order in which they were opened, and those that linger
	control list[Stream] // with a message other than DATA to be sent
	turns   turns        // of streams with DATA and a window for it
	queue   []cell.Message
	lastID  cell.StreamID

	window  int           // bytes of DATA that may be sent on the circuit
	granted int           // that may still come
	unsaid  int           // consumed, not returned yet
	spare   int           // bytes of it that its streams' first windows leave over: what these may grow by
	grown   int           // and have
	rtt     time.Duration // shortest seen; 0: none yet

	closed    bool
	place     int
	told      list[Stream] // whose handlers are to hear OnEnd in an event of its own
	teller    env.Timer
	telling   bool
	lingering env.Timer
}

// NewMux returns an end of a circuit without streams.
func NewMux(cfg MuxConfig) *Mux {
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = MaxStreamsFor(cfg.Granted, cfg.Allowed)
	}
	if cfg.Budget == nil {
		cfg.Budget = NewBudget(math.MaxInt)
	}
	if cfg.Stats == nil {
		cfg.Stats = new(Stats)
	}
	m := &Mux{
		cfg: cfg, budget: cfg.Budget, stats: cfg.Stats,
		streams: make(map[cell.StreamID]*Stream),
		window:  int(cfg.Allowed.Circuit),
		granted: int(cfg.Granted.Circuit),
	}
	m.spare = max(m.granted-m.cfg.MaxStreams*int(cfg.Granted.Stream), 0)
	if b := m.budget; b.kick == nil { // a budget without links, as in a test
		b.kick = func() { cfg.Env.Clock.AfterFunc(0, func() { b.reclaim(cfg.Env.Clock.Now()) }) }
	}
	m.budget.register(m)
	return m
}

// Streams returns the number of streams that are open or closing.
func (m *Mux) Streams() int { return len(m.streams) }

// Open starts a stream with BEGIN, RESOLVE or BEGIN_DIR (initiator only; elsewhere and for other
// commands it panics). data is the message's, copied. The errors are ErrMuxClosed, ErrStreamLimit
// and ErrStreamIDs.
func (m *Mux) Open(cmd cell.MessageCommand, data []byte, h StreamHandler) (*Stream, error) {
	switch {
	case !m.cfg.Initiator || cmd != cell.MessageBegin && cmd != cell.MessageResolve && cmd != cell.MessageBeginDir:
		panic(fmt.Sprintf("flow: opening a stream with %v, initiator %v", cmd, m.cfg.Initiator))
	case m.closed:
		return nil, ErrMuxClosed
	case len(m.streams) >= m.cfg.MaxStreams:
		return nil, ErrStreamLimit
	case m.lastID == math.MaxUint16:
		return nil, ErrStreamIDs
	}
	m.lastID++
	s := m.newStream(m.lastID, cmd)
	s.h = h
	s.say(cmd, data)
	m.wake()
	return s, nil
}

// Control queues an EXTEND, EXTENDED or EXTEND_FAILED; it goes before everything else, EXTEND
// alone in its cell. data is copied; it must be one message's (at most cell.MaxData bytes).
func (m *Mux) Control(cmd cell.MessageCommand, data []byte) {
	if m.closed {
		return
	}
	if len(data) > cell.MaxData {
		panic(fmt.Sprintf("flow: %v of %d bytes", cmd, len(data)))
	}
	m.queue = append(m.queue, cell.Message{Command: cmd, Data: append([]byte(nil), data...)})
	m.wake()
}

func (m *Mux) wake() {
	if !m.closed && m.Pending() {
		m.cfg.Wake()
	}
}

// Close ends every stream with reason (their handlers hear OnEnd, attached Conns are closed with
// an error). Where both EOFs have passed, the Conn may still write what it has, for a minute.
func (m *Mux) Close(reason cell.Reason) {
	if m.closed {
		return
	}
	m.closed = true
	if m.telling {
		m.teller.Stop()
		m.tell()
	}
	var over []*Stream
	for n := m.all.first; n != nil; {
		s := n.of
		n = n.next
		delete(m.streams, s.id)
		m.stats.Streams--
		s.inControl.remove()
		s.inReady.remove()
		s.out.drop(m.budget)
		if s.flush != 0 {
			s.flushing.Stop()
		}
		if s.sentEOF && s.gotEOF && s.conn != nil && s.last == 0 {
			s.linger()
		} else {
			s.detach(&StreamError{reason})
			s.leave()
		}
		if !s.over {
			s.over = true
			over = append(over, s)
		}
	}
	m.queue = nil
	m.settle()
	for _, s := range over {
		if s.h != nil {
			s.h.OnEnd(reason)
		}
	}
}

// settle lets a closed mux go when nothing lingers.
func (m *Mux) settle() {
	if !m.closed {
		return
	}
	if m.all.empty() {
		if m.lingering != nil {
			m.lingering.Stop()
		}
		if m.place >= 0 {
			m.budget.unregister(m)
			m.place = -1
		}
		return
	}
	if m.lingering == nil {
		m.lingering = m.cfg.Env.Clock.AfterFunc(lingerTime, func() {
			for n := m.all.first; n != nil; n = m.all.first {
				n.of.detach(&StreamError{cell.ReasonTimeout})
				n.of.leave()
			}
			m.settle()
		})
	}
}

// forget drops a stream whose last messages have passed both ways.
func (m *Mux) forget(s *Stream) {
	delete(m.streams, s.id)
	s.leave()
	s.inControl.remove()
	s.inReady.remove()
	m.stats.Streams--
}

// later has s hear OnEnd(None) in an event of its own: it was found over while a payload was
// being filled, when no handler may be called.
func (m *Mux) later(s *Stream) {
	m.told.push(&s.inTold)
	if m.telling {
		return
	}
	m.telling = true
	if m.teller == nil {
		m.teller = m.cfg.Env.Clock.AfterFunc(0, m.tell)
	} else {
		m.teller.Reset(0)
	}
}

func (m *Mux) tell() {
	m.telling = false
	for !m.told.empty() {
		s := m.told.first.of
		s.inTold.remove()
		if s.h != nil {
			s.h.OnEnd(cell.ReasonNone)
		}
	}
}

// consumed returns window for n bytes of DATA that have left this end's memory.
func (m *Mux) consumed(n int) {
	m.unsaid += n
	if !m.closed && m.windowDue() {
		m.wake()
	}
}

// windowDue says whether the circuit's window is worth a WINDOW.
func (m *Mux) windowDue() bool { return m.unsaid >= worthSaying(int(m.cfg.Granted.Circuit)) }

// ---- receiving ----

func wrong(format string, args ...any) error {
	return &ProtocolError{What: fmt.Sprintf(format, args...)}
}

// OnPayload acts on one decrypted payload (2027 bytes). An error means: destroy the circuit with
// cell.ReasonProtocol; the Mux is to be closed then. It is a *cell.Error, a *ProtocolError, or
// what OnControl returned.
func (m *Mux) OnPayload(payload []byte) error {
	if m.closed {
		return nil
	}
	messages, err := cell.ParsePayload(payload, m.budget.messages[:0])
	m.budget.messages = nil // a handler may cause another Mux to need one
	for i := 0; i < len(messages) && err == nil && !m.closed; i++ {
		err = m.onMessage(messages[i])
	}
	clear(messages)
	m.budget.messages = messages[:0]
	return err
}

func (m *Mux) onMessage(msg cell.Message) error {
	switch msg.Command {
	case cell.MessageExtend:
		if m.cfg.Initiator {
			return wrong("EXTEND towards the client")
		}
		return m.cfg.Handler.OnControl(msg)
	case cell.MessageExtended, cell.MessageExtendFailed:
		if !m.cfg.Initiator {
			return wrong("%v towards a relay", msg.Command)
		}
		return m.cfg.Handler.OnControl(msg)
	case cell.MessageBegin, cell.MessageResolve, cell.MessageBeginDir:
		return m.onOpen(msg)
	case cell.MessageDrop:
		return wrong("DROP that was not negotiated")
	case cell.MessageWindow:
		if msg.Stream == 0 {
			err := widen(&m.window, m.cfg.Allowed.Circuit, binary.BigEndian.Uint32(msg.Data))
			m.wake()
			return err
		}
	}
	s := m.streams[msg.Stream]
	if s == nil || s.gotLast || m.cfg.Initiator && !s.begun {
		return wrong("%v for stream %d, which is not open", msg.Command, msg.Stream)
	}
	return s.onMessage(msg)
}

// widen adds what a WINDOW grants. It is the peer's fault when it adds too little to be worth a
// message (many of them would be a signal that nobody sees) or makes too much unused.
func widen(window *int, initial, add uint32) error {
	switch {
	case add < initial/8:
		return wrong("WINDOW of %d bytes, less than an eighth of %d", add, initial)
	case *window+int(add) > max(maxUnused, int(initial)):
		return wrong("WINDOW of %d bytes with %d unused", add, *window)
	}
	*window += int(add)
	return nil
}

func (m *Mux) onOpen(msg cell.Message) error {
	switch {
	case m.cfg.Initiator:
		return wrong("%v towards the client", msg.Command)
	case msg.Stream <= m.lastID:
		return wrong("%v on stream %d after stream %d", msg.Command, msg.Stream, m.lastID)
	case len(m.streams) >= 2*m.cfg.MaxStreams:
		return wrong("streams far beyond the limit")
	case !m.budget.takesStream():
		return ErrBudget // an END would need a stream to be kept for it
	}
	m.lastID = msg.Stream
	refuse := len(m.streams) >= m.cfg.MaxStreams
	s := m.newStream(msg.Stream, msg.Command)
	if refuse {
		s.End(cell.ReasonResource)
		return nil
	}
	m.cfg.Handler.OnOpen(s, msg)
	return nil
}

// ---- sending ----

// Pending reports whether NextPayload would fill a payload.
func (m *Mux) Pending() bool {
	return len(m.queue) > 0 || !m.control.empty() || m.windowDue() && !m.closed || m.window > 0 && !m.turns.empty()
}

// NextPayload fills one payload of 2027 bytes, control messages first, then DATA of the streams in
// turn; false if there is nothing (or no window). It calls no handler.
func (m *Mux) NextPayload(payload []byte) bool {
	if m.closed || !m.Pending() {
		return false
	}
	p := cell.NewPacker(payload)
	for m.packControl(&p) || m.packData(&p) {
	}
	p.Finish()
	return !p.Empty()
}

// packControl adds one thing that is not DATA, or returns false when there is none that fits.
func (m *Mux) packControl(p *cell.Packer) bool {
	if len(m.queue) > 0 {
		if !p.Add(m.queue[0].Command, 0, m.queue[0].Data) {
			return false
		}
		m.queue[0] = cell.Message{}
		if m.queue = m.queue[1:]; len(m.queue) == 0 {
			m.queue = nil
		}
		return true
	}
	if m.windowDue() {
		if !addWindow(p, 0, m.unsaid) {
			return false
		}
		m.granted += m.unsaid
		m.unsaid = 0
		return true
	}
	if m.control.empty() {
		return false
	}
	s := m.control.first.of
	if !s.pack(p) {
		return false
	}
	s.inControl.remove()
	if s.gotLast && s.sentLast {
		m.forget(s)
	}
	return true
}

func addWindow(p *cell.Packer, id cell.StreamID, n int) bool {
	if p.Free() < 4 {
		return false
	}
	place := p.Reserve(cell.MessageWindow, id, 4)
	binary.BigEndian.PutUint32(place, uint32(n))
	p.Commit(4)
	return true
}

// ---- accounting ----

func (m *Mux) slot() *int { return &m.place }

func (m *Mux) held() int {
	n := 0
	for at := m.all.first; at != nil; at = at.next {
		n += streamCost + at.of.held()
	}
	return n
}

func (m *Mux) victims(dst []victim, now env.Mono) []victim {
	for n := m.all.first; n != nil; n = n.next {
		if held := n.of.held(); held > 0 {
			dst = append(dst, victim{n.of, held, now.Sub(n.of.since)})
		}
	}
	return dst
}

// ExtensionWindows is the type of the extension of the circuit handshake that carries Windows
// (docs/protocol.md, "Circuit handshake").
const ExtensionWindows uint16 = 1

// EncodeWindows returns the form of w in the circuit handshake: two big-endian u32, stream first.
func EncodeWindows(w Windows) []byte {
	b := binary.BigEndian.AppendUint32(nil, w.Stream)
	return binary.BigEndian.AppendUint32(b, w.Circuit)
}

// DecodeWindows reads what EncodeWindows wrote. Windows of 0 or of more than 64 MiB are an error.
func DecodeWindows(b []byte) (Windows, error) {
	if len(b) != 8 {
		return Windows{}, wrong("windows of %d bytes instead of 8", len(b))
	}
	w := Windows{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	for _, v := range []uint32{w.Stream, w.Circuit} {
		if v == 0 || v > maxWindow {
			return Windows{}, wrong("window of %d bytes, 1 to %d are possible", v, maxWindow)
		}
	}
	return w, nil
}
