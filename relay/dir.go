package relay

import (
	"cepa/cell"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
)

// MaxDirectoryRequest is the longest directory request with its length in front, in bytes, of those who may send no
// longer one.
const MaxDirectoryRequest = 2 + directory.MaxRequest

// onBeginDir serves one directory request: the client sends it and EOF, the answer and EOF follow.
func (c *circuit) onBeginDir(s *flow.Stream) {
	d := &dirConn{c: c, s: s}
	c.exits++
	s.Handle(d)
	d.deadline = c.relay.env.Clock.AfterFunc(c.relay.cfg.Limits.RequestTime, func() { d.abort(cell.ReasonTimeout) })
	data, err := cell.Connected{}.AppendTo(nil)
	if err != nil {
		s.End(cell.ReasonInternal)
		return
	}
	s.Connected(data)
	s.Attach(d)
}

// dirConn is the relay's own end of a directory stream: an env.Conn whose far end is the
// directory instead of a socket.
type dirConn struct {
	c       *circuit
	s       *flow.Stream
	request []byte
	answer  []byte // what the stream has not taken yet
	zeros   int    // that follow it
	asked   bool   // the request is complete and with the directory
	ready   bool   // answer is complete
	paused  bool
	feeding bool
	over    bool
	sentEOF bool
	// deadline is when the request must be there, and then when the client must have taken
	// more of the answer.
	deadline env.Timer
}

// Write collects the request; more than one can be is an abort.
func (d *dirConn) Write(p []byte) {
	if d.over || d.asked {
		return
	}
	most := MaxDirectoryRequest
	if limit := d.c.relay.cfg.RequestLimit; limit != nil {
		most = limit(d.c.prev.Link().Peer())
	}
	if len(d.request)+len(p) > most {
		d.finish()
		d.c.relay.env.Clock.AfterFunc(0, func() { d.s.End(cell.ReasonProtocol) }) // as in Pause
		return
	}
	d.request = append(d.request, p...)
}

// Queued is always 0: the request is small and kept apart from the stream's window.
func (d *dirConn) Queued() int { return 0 }

// CloseWrite is the client's EOF: the request is complete.
func (d *dirConn) CloseWrite() {
	if d.over || d.asked {
		return
	}
	d.asked = true
	r := d.c.relay
	r.stats.DirRequests++
	request := d.request
	d.request = nil
	d.deadline.Reset(r.cfg.Limits.AnswerTime)
	from := d.c.prev.Link().Peer()
	if r.cfg.SpeedTest != nil {
		if answer, zeros, mine := r.cfg.SpeedTest(request, from); mine {
			d.zeros = zeros
			d.onAnswer(answer)
			return
		}
	}
	r.cfg.Directory.Serve(request, from, d.onAnswer)
}

func (d *dirConn) onAnswer(answer []byte) {
	if d.over {
		return
	}
	d.answer, d.ready = answer, true
	d.c.relay.env.Clock.AfterFunc(0, d.feed)
}

func (d *dirConn) Pause(paused bool) {
	d.paused = paused
	if !paused && d.ready && !d.feeding {
		d.c.relay.env.Clock.AfterFunc(0, d.feed) // never back into the stream that calls
	}
}

// dirChunk is how much of an answer the stream is given at a time.
const dirChunk = 32 << 10

func (d *dirConn) feed() {
	if d.feeding || d.over {
		return
	}
	d.feeding = true
	defer func() { d.feeding = false }()
	if !d.paused {
		d.deadline.Reset(d.c.relay.cfg.Limits.AnswerTime)
	}
	for !d.paused && !d.over && len(d.answer) > 0 {
		n := min(dirChunk, len(d.answer))
		chunk := append([]byte(nil), d.answer[:n]...) // a handler may modify what it gets
		d.answer = d.answer[n:]
		d.s.OnData(chunk)
	}
	for !d.paused && !d.over && d.zeros > 0 {
		chunk := make([]byte, min(dirChunk, d.zeros))
		d.zeros -= len(chunk)
		d.s.OnData(chunk)
	}
	if !d.over && len(d.answer) == 0 && d.zeros == 0 && !d.sentEOF {
		d.sentEOF = true
		d.answer = nil
		d.s.OnEOF()
	}
}

// abort ends a stream whose client does not do its part.
func (d *dirConn) abort(reason cell.Reason) {
	if !d.over {
		d.finish()
		d.s.End(reason)
	}
}

func (d *dirConn) Close(error) { d.finish() }

func (d *dirConn) OnConnected([]byte) {}
func (d *dirConn) OnResolved([]byte)  {}
func (d *dirConn) OnEnd(cell.Reason)  { d.finish() }

func (d *dirConn) finish() {
	if !d.over {
		d.over = true
		d.deadline.Stop()
		d.c.exits--
		d.request, d.answer = nil, nil
	}
}
