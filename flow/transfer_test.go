package flow

import (
	"bytes"
	"testing"
	"time"

	"cepa/cell"
)

// exchange is one stream through a path with data both ways.
type exchange struct {
	client, exit *testConn
	clog, elog   *streamLog
	up, down     []byte
}

func (x *exchange) done() bool {
	return x.clog.ended && x.exit != nil && x.elog.ended
}

func (x *exchange) verify(t testing.TB) {
	t.Helper()
	if !bytes.Equal(x.client.got, x.down) {
		t.Errorf("client got %d bytes of %d, or wrong ones", len(x.client.got), len(x.down))
	}
	if !bytes.Equal(x.exit.got, x.up) {
		t.Errorf("exit got %d bytes of %d, or wrong ones", len(x.exit.got), len(x.up))
	}
	if x.clog.reason != cell.ReasonNone || x.elog.reason != cell.ReasonNone {
		t.Errorf("ended with %v and %v", x.clog.reason, x.elog.reason)
	}
	if x.client.closed && x.client.reason != nil || x.exit.closed && x.exit.reason != nil {
		t.Errorf("conns closed with %v and %v", x.client.reason, x.exit.reason)
	}
}

// exchanges opens a stream for each of the sizes, up and down, on c.
func (p *path) exchanges(t testing.TB, c *circuit, tune func(*exchange), sizes ...[2]int) []*exchange {
	t.Helper()
	byID := make(map[cell.StreamID]*exchange)
	outer := p.open
	exit := func(s *Stream) bool { return p.exits[c.index].mux == s.m }
	p.open = func(s *Stream, m cell.Message) {
		x := byID[s.ID()]
		if x == nil || !exit(s) {
			outer(s, m)
			return
		}
		s.Handle(x.elog)
		x.exit.s = s
		s.Connected(connected())
		s.Attach(x.exit)
	}
	var all []*exchange
	for i, size := range sizes {
		x := &exchange{
			up: pattern(size[0], uint64(2*i)), down: pattern(size[1], uint64(2*i+1)),
			clog: new(streamLog), elog: new(streamLog),
		}
		x.exit = newConn(p.w, nil, x.down, true)
		s, err := c.mux.Open(cell.MessageBegin, begin(t), x.clog)
		if err != nil {
			t.Fatal(err)
		}
		x.client = newConn(p.w, s, x.up, true)
		byID[s.ID()] = x
		if tune != nil {
			tune(x)
		}
		s.Attach(x.client)
		all = append(all, x)
	}
	return all
}

func allDone(xs []*exchange) func() bool {
	return func() bool {
		for _, x := range xs {
			if !x.done() {
				return false
			}
		}
		return true
	}
}

func TestMegabytesThroughThreeHopsBothWays(t *testing.T) {
	t.Parallel()
	for _, o := range []linkOptions{
		{},
		{delay: 20 * time.Millisecond},
		{delay: 5 * time.Millisecond, rate: 4e6},
	} {
		w := newWorld(1)
		p := newPath(w, 3, o)
		c := p.circuit(t)
		xs := p.exchanges(t, c, nil, [2]int{4 << 20, 4 << 20}, [2]int{1 << 20, 10}, [2]int{0, 3 << 20}, [2]int{1, 0})
		if !w.runUntil(time.Hour, allDone(xs)) {
			t.Fatalf("%+v: stuck; client %+v", o, c.n.stats)
		}
		for _, x := range xs {
			x.verify(t)
		}
		w.run(time.Second)
		if n := c.mux.Streams(); n != 0 {
			t.Errorf("%+v: %d streams left", o, n)
		}
		w.check(t)
		c.end(cell.ReasonNone)
		w.run(time.Second)
		w.checkEmpty(t)
		for i, n := range w.nodes {
			if n.stats.LinkErrors+n.stats.CircuitErrors != 0 {
				t.Errorf("node %d: %+v", i, n.stats)
			}
		}
	}
}
