package flow

import (
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// hopSpy is a HopRule that has windows of so many cells, and counts.
type hopSpy struct{ window, arrived, granted int }

func (h *hopSpy) Granted(env.Mono, int) { h.granted++ }
func (h *hopSpy) Arrived(_ env.Mono, n, _ int) int {
	h.arrived = max(h.arrived, n)
	return h.window
}

// streamSpy is a StreamRule that has windows of so many bytes, and counts.
type streamSpy struct{ window, arrived int }

func (s *streamSpy) Arrived(_ env.Mono, n int) { s.arrived += n }
func (s *streamSpy) Worth() int                { return s.window / 4 }
func (s *streamSpy) Next(env.Mono, int) int    { return s.window }

// Rules of a simulation decide about windows in place of this package's, hop by hop and stream by stream; without them nothing
// is asked.
func TestOtherRulesAreObeyed(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	x := newPath(w, 3, linkOptions{}, nodeOptions{budget: 64 << 20, limits: DefaultLimits()})
	for _, l := range x.links {
		e := l.env.(*pipeEnd)
		e.delay, e.other.delay = 5*time.Millisecond, 5*time.Millisecond
		e.rate, e.other.rate = mbit100, mbit100
	}
	var hops []*hopSpy
	var streams []*streamSpy
	rules := &Rules{
		Hop:    func() HopRule { h := &hopSpy{window: 40}; hops = append(hops, h); return h },
		Stream: func() StreamRule { s := &streamSpy{window: 1 << 20}; streams = append(streams, s); return s },
	}
	for _, n := range append(x.relays, x.client) {
		n.budget.Follow(rules)
	}
	x.open = func(s *Stream, _ cell.Message) {
		s.Handle(new(streamLog))
		s.Connected(connected())
		s.Attach(&source{w: w, s: s, sends: true, paused: true})
	}
	c := x.circuit(t)
	if !w.runUntil(10*time.Second, func() bool { return c.created }) {
		t.Fatal("the circuit was not built")
	}
	s, err := c.mux.Open(cell.MessageBegin, begin(t), new(streamLog))
	if err != nil {
		t.Fatal(err)
	}
	sink := &source{w: w, s: s, paused: true}
	s.Attach(sink)
	w.run(500 * time.Millisecond)
	if sink.got == 0 || s.win.size != 1<<20 {
		t.Errorf("%d bytes came, the window is %d", sink.got, s.win.size)
	}
	arrived, granted, bytes := 0, 0, 0
	for _, h := range hops {
		arrived, granted = max(arrived, h.arrived), granted+h.granted
	}
	for _, v := range streams {
		bytes += v.arrived
	}
	if granted == 0 || arrived*cell.MaxData < sink.got || bytes < sink.got {
		t.Errorf("rules were told of %d cells, %d CREDITs, %d bytes; %d bytes came", arrived, granted, bytes, sink.got)
	}
	for _, l := range x.links {
		for n := l.legs.first; n != nil; n = n.next {
			if g := n.of; g.in.received > 40 && g.in.window.size != 40 {
				t.Errorf("a window of %d cells after %d", g.in.window.size, g.in.received)
			}
		}
	}
	w.check(t)
}

// What ends grant comes from the rules, and without rules, or a budget, from the protocol.
func TestRulesHaveFirstWindows(t *testing.T) {
	t.Parallel()
	b := NewBudget(1 << 20)
	for _, b := range []*Budget{nil, b} {
		if b.ClientWindows() != ClientWindows || b.ExitWindows() != ExitWindows {
			t.Errorf("%+v, %+v", b.ClientWindows(), b.ExitWindows())
		}
	}
	client, exit := Windows{1, 2}, Windows{3, 4}
	b.Follow(&Rules{Client: client, Exit: exit, HopWindow: 99, HopBatch: 7})
	if b.ClientWindows() != client || b.ExitWindows() != exit {
		t.Errorf("%+v, %+v", b.ClientWindows(), b.ExitWindows())
	}
	w := newWorld(1)
	ls := NewLinks(Config{Env: w.node(nodeOptions{}).env(), Budget: b})
	if ls.cfg.Limits.InitialWindow != 99 || ls.leastBatch != 7 {
		t.Errorf("a first window of %d cells, a CREDIT for %d", ls.cfg.Limits.InitialWindow, ls.leastBatch)
	}
}
