package flow

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// lone is one Mux whose peer is the test.
type lone struct {
	w      *world
	m      *Mux
	budget *Budget
	opened []*Stream
	logs   []*streamLog
}

var small = Windows{Stream: 8000, Circuit: 32000}

func newLone(initiator bool) *lone {
	x := &lone{w: newWorld(1), budget: NewBudget(1 << 20)}
	x.m = NewMux(MuxConfig{
		Env: env.Env{Clock: x.w}, Initiator: initiator, Granted: small, Allowed: small, Wake: func() {}, Handler: x, Budget: x.budget,
	})
	return x
}

func (x *lone) OnOpen(s *Stream, m cell.Message) {
	log := new(streamLog)
	s.Handle(log)
	x.opened, x.logs = append(x.opened, s), append(x.logs, log)
}
func (x *lone) OnControl(cell.Message) error { return nil }

// message is one to be brought to a Mux.
type message struct {
	cmd  cell.MessageCommand
	id   cell.StreamID
	data []byte
}

func dataOf(n int) []byte { return make([]byte, n) }

func windowOf(n int) []byte {
	b, _ := cell.Window{Add: uint32(n)}.AppendTo(nil)
	return b
}

func (x *lone) in(messages ...message) error {
	for _, m := range messages {
		payload := make([]byte, cell.PayloadSize)
		p := cell.NewPacker(payload)
		if !p.Add(m.cmd, m.id, m.data) {
			return fmt.Errorf("%v does not fit", m.cmd)
		}
		p.Finish()
		if err := x.m.OnPayload(payload); err != nil {
			return err
		}
		if err := x.budget.Check(); err != nil {
			return err
		}
	}
	return nil
}

// out returns the messages that the Mux sends, as "BEGIN 1", DATA with its length, WINDOW with what it adds, END with
// its reason.
func (x *lone) out(t testing.TB) string {
	t.Helper()
	var words []string
	payload := make([]byte, cell.PayloadSize)
	for x.m.NextPayload(payload) {
		messages, err := cell.ParsePayload(payload, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			word := fmt.Sprintf("%v %d", m.Command, m.Stream)
			switch m.Command {
			case cell.MessageData:
				word += fmt.Sprintf(" %d", len(m.Data))
			case cell.MessageEnd:
				word += fmt.Sprintf(" %d", m.Data[0])
			case cell.MessageWindow:
				v, _ := cell.DecodeWindow(m.Data)
				word += fmt.Sprintf(" %d", v.Add)
			}
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPeersMistakesOnStreamsAreErrors(t *testing.T) {
	t.Parallel()
	b := begin(t)
	lookup, err := cell.Resolve{Address: cell.Address{Host: "a"}}.AppendTo(nil)
	must(t, err)
	answer, err := cell.Resolved{Reason: cell.ReasonNoSuchHost}.AppendTo(nil)
	must(t, err)
	eof, abort := []byte{0}, []byte{byte(cell.ReasonReset)}
	open := message{cell.MessageBegin, 1, b}
	// exit: the Mux under test is the exit's; the stream is 1. connect has it answer.
	connect := func(x *lone) {
		x.opened[0].Connected(connected())
		x.out(nil2(t))
	}
	for name, c := range map[string]struct {
		before []message
		act    func(x *lone)
		wrong  message
	}{
		"unknown stream":            {nil, nil, message{cell.MessageData, 1, dataOf(1)}},
		"stream id again":           {[]message{open}, nil, open},
		"stream ids do not fall":    {[]message{{cell.MessageBegin, 5, b}}, nil, message{cell.MessageBegin, 4, b}},
		"CONNECTED at the exit":     {[]message{open}, nil, message{cell.MessageConnected, 1, connected()}},
		"RESOLVED at the exit":      {[]message{{cell.MessageResolve, 1, lookup}}, nil, message{cell.MessageResolved, 1, answer}},
		"EXTENDED at a relay":       {nil, nil, message{cell.MessageExtendFailed, 0, []byte{1}}},
		"DROP":                      {nil, nil, message{cell.MessageDrop, 0, nil}},
		"EOF before CONNECTED":      {[]message{open}, nil, message{cell.MessageEnd, 1, eof}},
		"DATA on RESOLVE":           {[]message{{cell.MessageResolve, 1, lookup}}, nil, message{cell.MessageData, 1, dataOf(1)}},
		"WINDOW on RESOLVE":         {[]message{{cell.MessageResolve, 1, lookup}}, nil, message{cell.MessageWindow, 1, windowOf(8000)}},
		"EOF on RESOLVE":            {[]message{{cell.MessageResolve, 1, lookup}}, nil, message{cell.MessageEnd, 1, eof}},
		"DATA after EOF":            {[]message{open}, connectThen(connect, message{cell.MessageEnd, 1, eof}), message{cell.MessageData, 1, dataOf(1)}},
		"EOF twice":                 {[]message{open}, connectThen(connect, message{cell.MessageEnd, 1, eof}), message{cell.MessageEnd, 1, eof}},
		"DATA after abort":          {[]message{open, {cell.MessageEnd, 1, abort}}, nil, message{cell.MessageData, 1, dataOf(1)}},
		"abort twice":               {[]message{open, {cell.MessageEnd, 1, abort}}, nil, message{cell.MessageEnd, 1, abort}},
		"tiny WINDOW of a stream":   {[]message{open}, nil, message{cell.MessageWindow, 1, windowOf(999)}},
		"tiny WINDOW of a circuit":  {nil, nil, message{cell.MessageWindow, 0, windowOf(3999)}},
		"too much window, stream":   {[]message{open}, nil, message{cell.MessageWindow, 1, windowOf(16<<20 - 7999)}},
		"too much window, circuit":  {nil, nil, message{cell.MessageWindow, 0, windowOf(16<<20 - 31999)}},
		"DATA beyond the window":    {append([]message{open}, data(1, 8000)...), nil, message{cell.MessageData, 1, dataOf(1)}},
		"DATA beyond the circuit's": {overCircuit(b), nil, message{cell.MessageData, 5, dataOf(1)}},
		"DATA beyond the window of a refused stream": {append([]message{open}, data(1, 7000)...), func(x *lone) {
			x.opened[0].End(cell.ReasonRefused)
			x.out(t)
			must(t, x.in(message{cell.MessageData, 1, dataOf(1000)}))
		}, message{cell.MessageData, 1, dataOf(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newLone(false)
			must(t, x.in(c.before...))
			if c.act != nil {
				c.act(x)
			}
			err := x.in(c.wrong)
			var mistake *ProtocolError
			if !errors.As(err, &mistake) {
				t.Fatalf("error %v", err)
			}
			x.m.Close(cell.ReasonDestroyed)
			if x.budget.Used() != 0 || len(x.budget.holders) != 0 {
				t.Errorf("%d bytes left", x.budget.Used())
			}
		})
	}
	for name, wrong := range map[string][]message{
		"BEGIN towards the client":  {{cell.MessageBegin, 9, b}},
		"stream never opened":       {{cell.MessageEnd, 9, abort}},
		"stream not opened yet":     {{cell.MessageConnected, 2, connected()}},
		"DATA before CONNECTED":     {{cell.MessageData, 1, dataOf(1)}},
		"EOF before CONNECTED":      {{cell.MessageEnd, 1, eof}},
		"RESOLVED to BEGIN":         {{cell.MessageResolved, 1, answer}},
		"CONNECTED twice":           {{cell.MessageConnected, 1, connected()}, {cell.MessageConnected, 1, connected()}},
		"anything after END":        {{cell.MessageEnd, 1, abort}, {cell.MessageWindow, 1, windowOf(8000)}},
		"DATA after the final EOF":  {{cell.MessageConnected, 1, connected()}, {cell.MessageEnd, 1, eof}, {cell.MessageData, 1, dataOf(1)}},
		"CONNECTED after EOF":       {{cell.MessageConnected, 1, connected()}, {cell.MessageEnd, 1, eof}, {cell.MessageConnected, 1, connected()}},
		"EXTEND towards the client": {{cell.MessageDrop, 0, nil}},
		"WINDOW on an unknown one":  {{cell.MessageWindow, 7, windowOf(8000)}},
	} {
		t.Run("client/"+name, func(t *testing.T) {
			t.Parallel()
			x := newLone(true)
			if _, err := x.m.Open(cell.MessageBegin, b, new(streamLog)); err != nil {
				t.Fatal(err)
			}
			x.out(t)
			if _, err := x.m.Open(cell.MessageBegin, b, new(streamLog)); err != nil { // not sent yet
				t.Fatal(err)
			}
			must(t, x.in(wrong[:len(wrong)-1]...))
			var mistake *ProtocolError
			if err := x.in(wrong[len(wrong)-1]); !errors.As(err, &mistake) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func nil2(t testing.TB) testing.TB { return t }

func connectThen(connect func(*lone), then ...message) func(*lone) {
	return func(x *lone) {
		connect(x)
		if err := x.in(then...); err != nil {
			panic(err)
		}
	}
}

// data is n bytes of DATA on a stream.
func data(id cell.StreamID, n int) (all []message) {
	for ; n > 0; n -= 2000 {
		all = append(all, message{cell.MessageData, id, dataOf(min(n, 2000))})
	}
	return all
}

// overCircuit fills the window of the circuit from four streams, and opens a fifth.
func overCircuit(b []byte) (all []message) {
	for id := cell.StreamID(1); id <= 4; id++ {
		all = append(all, message{cell.MessageBegin, id, b})
		all = append(all, data(id, 8000)...)
	}
	return append(all, message{cell.MessageBegin, 5, b})
}

func TestOptimisticDataBehindARefusedBegin(t *testing.T) {
	t.Parallel()
	x := newLone(false)
	must(t, x.in(message{cell.MessageBegin, 1, begin(t)}))
	x.opened[0].End(cell.ReasonRefused)
	if got := x.out(t); got != "END 1 13" {
		t.Fatalf("sent %q", got)
	}
	must(t, x.in(data(1, 8000)...))
	if x.budget.Used() != streamCost || x.m.Streams() != 1 {
		t.Errorf("%d bytes kept, %d streams", x.budget.Used(), x.m.Streams())
	}
	// What nobody reads is returned to the circuit, not to the stream.
	if got := x.out(t); got != "WINDOW 0 8000" {
		t.Errorf("sent %q", got)
	}
	must(t, x.in(message{cell.MessageEnd, 1, []byte{byte(cell.ReasonOther)}}))
	if x.m.Streams() != 0 || x.out(t) != "" || x.logs[0].ended {
		t.Errorf("%d streams left, heard %+v", x.m.Streams(), x.logs[0])
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	lookup, err := cell.Resolve{Address: cell.Address{Host: "a"}}.AppendTo(nil)
	must(t, err)
	answer, err := cell.Resolved{Reason: cell.ReasonNoSuchHost}.AppendTo(nil)
	must(t, err)
	c, e := newLone(true), newLone(false)
	log := new(streamLog)
	_, err = c.m.Open(cell.MessageResolve, lookup, log)
	must(t, err)
	if got := c.out(t); got != "RESOLVE 1" {
		t.Fatalf("sent %q", got)
	}
	must(t, e.in(message{cell.MessageResolve, 1, lookup}))
	e.opened[0].Resolved(answer)
	if got := e.out(t); got != "RESOLVED 1" || e.m.Streams() != 1 {
		t.Fatalf("sent %q, %d streams", got, e.m.Streams())
	}
	must(t, c.in(message{cell.MessageResolved, 1, answer}))
	if got := c.out(t); got != "END 1 255" || !bytes.Equal(log.resolved, answer) || log.ended || c.m.Streams() != 0 {
		t.Errorf("sent %q, heard %+v, %d streams", got, log, c.m.Streams())
	}
	must(t, e.in(message{cell.MessageEnd, 1, []byte{255}}))
	if e.m.Streams() != 0 || e.logs[0].ended {
		t.Errorf("%d streams, heard %+v", e.m.Streams(), e.logs[0])
	}
}

func TestEndOfStreamCostsTwoMessagesEach(t *testing.T) {
	t.Parallel()
	c := newLone(true)
	log := new(streamLog)
	s, err := c.m.Open(cell.MessageBegin, begin(t), log)
	must(t, err)
	conn := newConn(c.w, s, []byte("hello"), true)
	s.Attach(conn)
	c.w.run(0)
	// BEGIN and optimistic DATA share a cell; EOF waits for CONNECTED.
	if got := c.out(t); got != "BEGIN 1, DATA 1 5" {
		t.Fatalf("sent %q", got)
	}
	must(t, c.in(message{cell.MessageConnected, 1, connected()}))
	if got := c.out(t); got != "END 1 0" || !log.connected {
		t.Fatalf("sent %q", got)
	}
	must(t, c.in(message{cell.MessageData, 1, []byte("answer")}, message{cell.MessageEnd, 1, []byte{0}}))
	if got := c.out(t); got != "END 1 0" || !log.ended || log.reason != cell.ReasonNone || !conn.gotEOF || !conn.closed {
		t.Fatalf("sent %q, heard %+v", got, log)
	}
	if c.m.Streams() != 1 {
		t.Fatal("the stream was forgotten before the exit's last message")
	}
	must(t, c.in(message{cell.MessageEnd, 1, []byte{0}}))
	if c.m.Streams() != 0 || string(conn.got) != "answer" || c.out(t) != "" {
		t.Errorf("%d streams, got %q", c.m.Streams(), conn.got)
	}
}

func TestHalfCloseBothWays(t *testing.T) {
	t.Parallel()
	const n = 300 << 10 // more than a window
	for _, first := range []string{"client", "exit"} {
		for _, slow := range []bool{false, true} {
			w := newWorld(1)
			p := newPath(w, 2, linkOptions{delay: time.Millisecond})
			c := p.circuit(t)
			xs := p.exchanges(t, c, func(x *exchange) {
				one, other := x.client, x.exit
				if first == "exit" {
					one, other = other, one
				}
				one.input, other.input = pattern(n, 1), nil
				x.up, x.down = x.client.input, x.exit.input
				other.eof = false
				if slow {
					other.rate = 1e6
				}
			}, [2]int{0, 0})
			x := xs[0]
			one, other := x.client, x.exit
			if first == "exit" {
				one, other = other, one
			}
			if !w.runUntil(time.Minute, func() bool { return other.gotEOF }) {
				t.Fatalf("first %s: no EOF", first)
			}
			if len(other.got) != n || one.gotEOF || other.closed {
				t.Fatalf("first %s: got %d bytes", first, len(other.got))
			}
			// The other direction goes on, for as long as it likes.
			w.run(time.Hour)
			other.more(pattern(n, 2))
			if first == "client" {
				x.down = other.input
			} else {
				x.up = other.input
			}
			w.run(10 * time.Second)
			if len(one.got) != n || one.gotEOF {
				t.Fatalf("first %s: got %d bytes back, EOF %v", first, len(one.got), one.gotEOF)
			}
			other.eof = true
			other.pull()
			w.run(time.Second)
			if !x.done() {
				t.Fatalf("first %s: not over", first)
			}
			x.verify(t)
			c.end(cell.ReasonNone)
			w.run(time.Second)
			w.checkEmpty(t)
		}
	}
}

// The ways in which one end of a stream can go, and what the other end hears.
func TestHowAStreamEnds(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset by peer")
	for name, c := range map[string]struct {
		do   func(s *Stream, c *testConn)
		here cell.Reason // OnEnd at the end where it happens; 0 for none
		told bool
		far  cell.Reason
	}{
		"End":                {func(s *Stream, _ *testConn) { s.End(cell.ReasonTimeout) }, 0, false, cell.ReasonTimeout},
		"End without reason": {func(s *Stream, _ *testConn) { s.End(cell.ReasonNone) }, 0, false, cell.ReasonOther},
		"Conn is reset":      {func(_ *Stream, c *testConn) { c.fail(broken) }, cell.ReasonReset, true, cell.ReasonReset},
		"reset behind data": {func(_ *Stream, c *testConn) {
			c.s.OnData(pattern(30000, 9))
			c.fail(broken)
		}, cell.ReasonReset, true, cell.ReasonReset},
	} {
		for _, end := range []string{"client", "exit"} {
			t.Run(name+"/"+end, func(t *testing.T) {
				t.Parallel()
				w := newWorld(1)
				p := newPath(w, 2, linkOptions{delay: time.Millisecond})
				circ := p.circuit(t)
				x := p.exchanges(t, circ, func(x *exchange) { x.client.eof, x.exit.eof = false, false }, [2]int{100, 100})[0]
				w.run(time.Second)
				one, oneLog, other, otherLog := x.client, x.clog, x.exit, x.elog
				if end == "exit" {
					one, oneLog, other, otherLog = x.exit, x.elog, x.client, x.clog
				}
				c.do(one.s, one)
				w.run(time.Second)
				if oneLog.ended != c.told || oneLog.reason != c.here {
					t.Errorf("near end heard %+v", oneLog)
				}
				if !otherLog.ended || otherLog.reason != c.far {
					t.Errorf("far end heard %+v", otherLog)
				}
				var why *StreamError
				if !one.closed || !other.closed || !errors.As(other.reason, &why) || why.Reason != c.far {
					t.Errorf("conns closed %v %v, %v", one.closed, other.closed, other.reason)
				}
				if name == "reset behind data" && len(other.got) != 30100 {
					t.Errorf("far end got %d bytes", len(other.got))
				}
				if circ.mux.Streams() != 0 || p.exits[0].mux.Streams() != 0 {
					t.Error("the stream is left")
				}
				circ.end(cell.ReasonNone)
				w.run(time.Second)
				w.checkEmpty(t)
			})
		}
	}
}

func TestOrderlyCloseWithNothingLostIsEOF(t *testing.T) {
	t.Parallel()
	c := newLone(true)
	log := new(streamLog)
	s, err := c.m.Open(cell.MessageBegin, begin(t), log)
	must(t, err)
	conn := newConn(c.w, s, nil, false)
	s.Attach(conn)
	s.OnData([]byte("bye"))
	conn.fail(nil)
	must(t, inAfter(t, c, message{cell.MessageConnected, 1, connected()}))
	if got := c.out(t); got != "END 1 0" {
		t.Fatalf("sent %q", got)
	}
	must(t, c.in(message{cell.MessageEnd, 1, []byte{0}}))
	if got := c.out(t); got != "END 1 0" || !log.ended || log.reason != cell.ReasonNone {
		t.Errorf("sent %q, heard %+v", got, log)
	}
	// But what still comes finds nobody.
	s, err = c.m.Open(cell.MessageBegin, begin(t), log)
	must(t, err)
	*log = streamLog{}
	conn = newConn(c.w, s, nil, false)
	s.Attach(conn)
	must(t, inAfter(t, c, message{cell.MessageConnected, 2, connected()}))
	conn.fail(nil)
	c.out(t)
	must(t, c.in(message{cell.MessageData, 2, []byte("x")}))
	if got := c.out(t); got != "END 2 16" || !log.ended || log.reason != cell.ReasonReset {
		t.Errorf("sent %q, heard %+v", got, log)
	}
}

// inAfter lets the Mux send what it has, and then brings messages.
func inAfter(t testing.TB, x *lone, messages ...message) error {
	t.Helper()
	x.out(t)
	return x.in(messages...)
}

func TestBackPressure(t *testing.T) {
	t.Parallel()
	// To the Conn that is read: paused when 64 KiB wait, resumed under half.
	x := newLone(true)
	s, err := x.m.Open(cell.MessageBegin, begin(t), new(streamLog))
	must(t, err)
	conn := newConn(x.w, s, pattern(1<<20, 1), true)
	s.Attach(conn)
	x.w.run(time.Second)
	if !conn.paused || s.out.len() < pauseBytes || s.out.len() > pauseBytes+conn.piece {
		t.Fatalf("paused %v with %d bytes", conn.paused, s.out.len())
	}
	sent := 0
	payload := make([]byte, cell.PayloadSize)
	for x.m.NextPayload(payload) {
		sent++
	}
	if s.window != 0 || !conn.paused {
		t.Errorf("window %d after %d payloads", s.window, sent)
	}
	must(t, x.in(message{cell.MessageConnected, 1, connected()}, message{cell.MessageWindow, 1, windowOf(60000)}, message{cell.MessageWindow, 0, windowOf(60000)}))
	for x.m.NextPayload(payload) && conn.paused {
	}
	if conn.paused || s.out.len() >= pauseBytes/2 {
		t.Errorf("paused %v with %d bytes", conn.paused, s.out.len())
	}
	// From the Conn that is written: the window is returned as it drains.
	x = newLone(false)
	must(t, x.in(message{cell.MessageBegin, 1, begin(t)}))
	s = x.opened[0]
	s.Connected(connected())
	conn = newConn(x.w, s, nil, false)
	conn.rate = -1
	s.Attach(conn)
	x.out(t)
	must(t, x.in(data(1, 8000)...))
	if got := x.out(t); got != "" || x.budget.Used() != 8000+streamCost {
		t.Fatalf("sent %q, %d bytes held", got, x.budget.Used())
	}
	conn.queue = 6001
	s.OnDrained()
	if got := x.out(t); got != "" {
		t.Fatalf("sent %q for less than a quarter", got)
	}
	conn.queue = 5000
	s.OnDrained()
	if got := x.out(t); got != "WINDOW 1 3000" {
		t.Errorf("sent %q", got)
	}
	conn.queue = 0
	s.OnDrained()
	if got := x.out(t); got != "WINDOW 0 8000, WINDOW 1 5000" || x.budget.Used() != streamCost {
		t.Errorf("sent %q, %d bytes held", got, x.budget.Used())
	}
}

func TestStreamsShareACircuitFairly(t *testing.T) {
	t.Parallel()
	x := newLone(true)
	x.m.window = 1 << 30
	var all []*Stream
	for range 3 {
		s, err := x.m.Open(cell.MessageBegin, begin(t), new(streamLog))
		must(t, err)
		s.window = 1 << 30
		s.Attach(newConn(x.w, s, pattern(1<<20, 1), true))
		all = append(all, s)
	}
	x.w.run(time.Second)
	payload := make([]byte, cell.PayloadSize)
	for range 60 {
		if !x.m.NextPayload(payload) {
			t.Fatal("nothing to send")
		}
		if payload[cell.PayloadSize-1] == 0 && payload[cell.PayloadSize-2] == 0 && payload[cell.PayloadSize-3] == 0 {
			t.Error("a cell was not filled")
		}
	}
	sent := func(s *Stream) int { return 1<<30 - s.window }
	for _, s := range all {
		if d := sent(s) - sent(all[0]); d < -4000 || d > 4000 {
			t.Errorf("stream %d sent %d bytes, stream 1 %d", s.id, sent(s), sent(all[0]))
		}
	}
}

func TestStalledStreamsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	p := newPath(w, 2, linkOptions{delay: time.Millisecond})
	p.grantC, p.grantE = Windows{64 << 10, 256 << 10}, Windows{64 << 10, 256 << 10}
	c := p.circuit(t)
	if got := c.mux.cfg.MaxStreams; got != 4 {
		t.Fatalf("%d streams", got)
	}
	var sizes [][2]int
	for range 4 {
		sizes = append(sizes, [2]int{1 << 20, 1 << 20})
	}
	i := 0
	xs := p.exchanges(t, c, func(x *exchange) {
		if i++; i < 4 { // three of four read nothing
			x.client.rate, x.exit.rate = -1, -1
		}
	}, sizes...)
	if !w.runUntil(time.Minute, func() bool { return xs[3].done() }) {
		t.Fatalf("stalled streams stall another: %d and %d bytes", len(xs[3].client.got), len(xs[3].exit.got))
	}
	w.run(time.Second)
	if _, err := c.mux.Open(cell.MessageBegin, begin(t), new(streamLog)); err != nil {
		t.Errorf("after one was over: %v", err)
	}
	if _, err := c.mux.Open(cell.MessageBegin, begin(t), new(streamLog)); !errors.Is(err, ErrStreamLimit) {
		t.Errorf("beyond the limit: %v", err)
	}
	w.check(t)
	c.end(cell.ReasonNone)
	w.run(time.Second)
	w.checkEmpty(t)
}

func TestExitRefusesStreamsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	x := newLone(false) // 4 streams
	for id := cell.StreamID(1); id <= 4; id++ {
		must(t, x.in(message{cell.MessageBegin, id, begin(t)}))
	}
	must(t, x.in(message{cell.MessageBegin, 5, begin(t)}))
	if got := x.out(t); got != "END 5 3" || len(x.opened) != 4 {
		t.Errorf("sent %q", got)
	}
	must(t, x.in(message{cell.MessageBegin, 6, begin(t)}, message{cell.MessageBegin, 7, begin(t)}, message{cell.MessageBegin, 8, begin(t)}))
	if err := x.in(message{cell.MessageBegin, 9, begin(t)}); err == nil {
		t.Error("any number of refusals is kept")
	}
}

func TestExtendIsAloneInItsCell(t *testing.T) {
	t.Parallel()
	x := newLone(true)
	_, err := x.m.Open(cell.MessageBegin, begin(t), new(streamLog))
	must(t, err)
	body, err := cell.Extend{
		Type: 1, Total: 1, Handshake: []byte("h"),
		Specifiers: []cell.LinkSpecifier{{Type: 99, Value: []byte("x")}},
	}.AppendTo(nil)
	must(t, err)
	x.m.Control(cell.MessageExtend, body)
	if got := x.out(t); got != "EXTEND 0, BEGIN 1" {
		t.Errorf("sent %q", got)
	}
}

func TestCircuitGoneWithBothEOFsPassedStillDelivers(t *testing.T) {
	t.Parallel()
	for _, drains := range []bool{true, false} {
		x := newLone(false)
		must(t, x.in(message{cell.MessageBegin, 1, begin(t)}))
		s := x.opened[0]
		s.Connected(connected())
		conn := newConn(x.w, s, nil, true)
		conn.rate = -1
		s.Attach(conn)
		x.w.run(0)
		x.out(t)
		must(t, x.in(append(data(1, 5000), message{cell.MessageEnd, 1, []byte{0}})...))
		if !conn.gotEOF || x.m.Streams() != 1 {
			t.Fatal("no EOF")
		}
		x.m.Close(cell.ReasonDestroyed)
		if conn.closed || x.budget.Used() != 5000+streamCost || !x.logs[0].ended {
			t.Fatalf("closed %v, %d bytes held", conn.closed, x.budget.Used())
		}
		if drains {
			conn.queue = 0
			s.OnDrained()
		} else {
			x.w.run(lingerTime)
		}
		if !conn.closed || (conn.reason == nil) != drains || x.budget.Used() != 0 || len(x.budget.holders) != 0 {
			t.Errorf("closed %v with %v, %d bytes held", conn.closed, conn.reason, x.budget.Used())
		}
	}
}

func TestWindowsOfTheHandshake(t *testing.T) {
	t.Parallel()
	for _, w := range []Windows{ClientWindows, ExitWindows, {1, 1}, {64 << 20, 64 << 20}} {
		if got, err := DecodeWindows(EncodeWindows(w)); err != nil || got != w {
			t.Errorf("%v comes back as %v, %v", w, got, err)
		}
	}
	for _, b := range [][]byte{
		nil, make([]byte, 7), make([]byte, 9), EncodeWindows(Windows{0, 1}), EncodeWindows(Windows{1, 0}),
		EncodeWindows(Windows{64<<20 + 1, 1}), EncodeWindows(Windows{1, 64<<20 + 1}),
	} {
		if w, err := DecodeWindows(b); err == nil {
			t.Errorf("%x reads as %v", b, w)
		}
	}
	for _, c := range []struct {
		a, b Windows
		want int
	}{
		{ClientWindows, ExitWindows, 32}, {Windows{1, 1 << 20}, Windows{1, 1 << 20}, 32},
		{Windows{8, 1}, Windows{1, 8}, 1}, {Windows{1, 100}, Windows{1, 7}, 7},
	} {
		if got := MaxStreamsFor(c.a, c.b); got != c.want || got != MaxStreamsFor(c.b, c.a) {
			t.Errorf("%v and %v: %d streams", c.a, c.b, got)
		}
	}
}
