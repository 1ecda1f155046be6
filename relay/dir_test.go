package relay

import (
	"bytes"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// request sends a directory request in one cell and returns its stream.
func (h *hand) request(q []byte) cell.StreamID {
	h.w.t.Helper()
	id := h.next()
	messages := []cell.Message{{Command: cell.MessageBeginDir, Stream: id}}
	if len(q) > 0 {
		messages = append(messages, cell.Message{Command: cell.MessageData, Stream: id, Data: q})
	}
	h.relay(messages...)
	h.until("CONNECTED", func() bool {
		return h.destroyed != nil || h.message(cell.MessageConnected, id) != nil || h.message(cell.MessageEnd, id) != nil
	})
	return id
}

func TestDirectoryRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", nil)
	var asked []byte
	var from *env.Peer
	s.serve = func(q []byte, p *env.Peer, done func([]byte)) {
		asked, from = bytes.Clone(q), p
		done([]byte("the answer"))
	}
	h := w.client("client").build(s)
	id := h.request([]byte("the que"))
	h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: []byte("stion")})
	w.f.Run(time.Second)
	if asked != nil {
		t.Error("the request was served before it was complete")
	}
	h.relay(end(id, cell.ReasonEOF))
	h.until("the answer", func() bool { _, eof := h.data(id); return eof })
	if d, _ := h.data(id); string(d) != "the answer" || string(asked) != "the question" || !from.Client() {
		t.Errorf("%q for %q from %v", d, asked, from)
	}
	h.relay(end(id, cell.ReasonEOF))
	w.f.Run(time.Second)
	if s.stats.Streams != 0 || s.relay.Stats().DirRequests != 1 {
		t.Errorf("%+v", s.relay.Stats())
	}
	h.destroy()
	w.quiet()
}

// TestDirectoryRequestTooLong ends the stream, whether it comes in one message or in many, and
// nobody is asked.
func TestDirectoryRequestTooLong(t *testing.T) {
	t.Parallel()
	for name, parts := range map[string][]int{"one message": {MaxDirectoryRequest + 1}, "two": {MaxDirectoryRequest, 1}, "and more": {MaxDirectoryRequest, 1, 1, 2000}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			s := w.add("relay", nil)
			s.serve = func([]byte, *env.Peer, func([]byte)) { t.Error("the request was served") }
			h := w.client("client").build(s)
			id := h.request(nil)
			for _, n := range parts {
				h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: make([]byte, n)})
			}
			h.until("END", func() bool { return h.message(cell.MessageEnd, id) != nil })
			if r := cell.Reason(h.message(cell.MessageEnd, id).Data[0]); r != cell.ReasonProtocol {
				t.Error(r)
			}
			if h.destroyed != nil {
				t.Error("the circuit went too")
			}
			h.destroy()
			w.quiet()
		})
	}
	t.Run("exactly as long", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		s := w.add("relay", nil)
		h := w.client("client").build(s)
		id := h.request(make([]byte, MaxDirectoryRequest))
		h.relay(end(id, cell.ReasonEOF))
		h.until("the answer", func() bool { _, eof := h.data(id); return eof })
		h.destroy()
		w.quiet()
	})
}

// TestBigDirectoryAnswer: the relay holds little of an answer that a client is slow to take.
func TestBigDirectoryAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", nil)
	answer := pattern(3 << 20)
	s.serve = func(_ []byte, _ *env.Peer, done func([]byte)) { done(answer) }
	h := w.client("client").build(s)
	id := h.request([]byte("q"))
	h.relay(end(id, cell.ReasonEOF))
	w.f.Run(10 * time.Second)
	d, eof := h.data(id)
	if eof || len(d) != 512<<10 { // the client's window of a stream, which the hand does not widen
		t.Fatalf("%d bytes came, EOF %v", len(d), eof)
	}
	if used := s.budget.Used(); used > 128<<10 {
		t.Errorf("the relay holds %d bytes", used)
	}
	for !eof {
		h.relay(cell.Message{Command: cell.MessageWindow, Stream: id, Data: []byte{0, 4, 0, 0}})
		w.f.Run(time.Second)
		if d, eof = h.data(id); h.destroyed != nil {
			t.Fatal(*h.destroyed)
		}
	}
	if !bytes.Equal(d, answer) || !bytes.Equal(answer, pattern(3<<20)) {
		t.Error("the answer was altered")
	}
	h.destroy()
	w.quiet()
}

// TestDirectoryStreamAborted at every point of time.
func TestDirectoryStreamAborted(t *testing.T) {
	t.Parallel()
	for step := range 30 {
		for _, how := range []string{"END", "DESTROY", "late answer"} {
			w := newWorld(t, 1)
			s := w.add("relay", nil)
			var answer func([]byte)
			s.serve = func(_ []byte, _ *env.Peer, done func([]byte)) {
				if how == "late answer" {
					answer = done
				} else {
					done(pattern(200 << 10))
				}
			}
			h := w.client("client").build(s)
			id := h.request([]byte("q"))
			h.relay(end(id, cell.ReasonEOF))
			w.f.Run(time.Duration(step) * time.Millisecond)
			switch how {
			case "END":
				h.relay(end(id, cell.ReasonOther))
				w.f.Run(time.Second)
			case "late answer":
				w.f.Run(time.Second)
			}
			h.destroy()
			w.f.Run(time.Second)
			if answer != nil {
				w.f.Do(func() { answer(pattern(1000)) })
			}
			w.quiet()
		}
	}
}

// TestSpeedTest: what SpeedTest calls its own gets its answer and the zeros behind it; the rest is for the directory.
func TestSpeedTest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	const zeros = 200_000 // more than a chunk, and less than the stream's window
	s := w.add("relay", func(s *station) {
		s.speedTest = func(q []byte, from *env.Peer) ([]byte, int, bool) {
			return []byte("head"), zeros, string(q) == "how fast?"
		}
	})
	s.serve = func(_ []byte, _ *env.Peer, done func([]byte)) { done([]byte("the answer")) }
	h := w.client("client").build(s)
	for q, want := range map[string][]byte{
		"how fast?": append([]byte("head"), make([]byte, zeros)...),
		"question":  []byte("the answer"),
	} {
		id := h.request([]byte(q))
		h.relay(end(id, cell.ReasonEOF))
		h.until("the answer", func() bool { _, eof := h.data(id); return eof })
		if d, _ := h.data(id); !bytes.Equal(d, want) {
			t.Errorf("%q: %d bytes, want %d", q, len(d), len(want))
		}
		h.relay(end(id, cell.ReasonEOF))
	}
	w.f.Run(time.Second)
	if s.stats.Streams != 0 {
		t.Errorf("%d streams are left", s.stats.Streams)
	}
	h.destroy()
	w.quiet()
}
