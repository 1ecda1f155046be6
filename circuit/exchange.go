package circuit

import (
	"fmt"
	"slices"

	"cepa/env"
	"cepa/flow"
)

// exchange is the near end of a directory stream: an env.Conn in memory that sends a request
// and EOF, and collects the answer until EOF.
type exchange struct {
	clock   env.Clock
	request []byte
	max     int                            // bytes of the answer
	moved   func()                         // bytes came
	done    func(answer []byte, err error) // called at most once, perhaps from inside the multiplexer
	stream  *flow.Stream
	answer  []byte
	sent    bool
	over    bool // set by the owner too, when it gives up
}

func (x *exchange) attach(s *flow.Stream) {
	x.stream = s
	s.Attach(x)
}

func (x *exchange) finish(answer []byte, err error) {
	if !x.over {
		x.over = true
		x.done(answer, err)
	}
}

// Write collects the answer.
func (x *exchange) Write(p []byte) {
	switch {
	case x.over:
	case len(x.answer)+len(p) > x.max:
		x.finish(nil, fmt.Errorf("%w: more than %d bytes", ErrAnswerTooLong, x.max))
	default:
		if len(x.answer)+len(p) > cap(x.answer) {
			x.answer = slices.Grow(x.answer, max(len(p), len(x.answer))) // twice as much: append alone copies four times as often
		}
		x.answer = append(x.answer, p...)
		x.moved()
	}
}

// Queued is always 0: the answer is bounded by itself.
func (x *exchange) Queued() int { return 0 }

// CloseWrite is the relay's EOF: the answer is whole.
func (x *exchange) CloseWrite() { x.finish(x.answer, nil) }

// Pause sends the request, once, as an event of its own: never back into the stream that calls.
func (x *exchange) Pause(paused bool) {
	if paused || x.sent {
		return
	}
	x.sent = true
	x.clock.AfterFunc(0, func() {
		if !x.over {
			x.stream.OnData(x.request)
		}
		if !x.over {
			x.stream.OnEOF()
		}
	})
}

// Close says that the stream is over; its handler hears why.
func (x *exchange) Close(error) {}

// again is a new exchange of the same request; x hears nothing any more.
func (x *exchange) again() *exchange {
	x.over = true
	return &exchange{clock: x.clock, request: x.request, max: x.max, moved: x.moved, done: x.done}
}
