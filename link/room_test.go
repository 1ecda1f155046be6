package link

import (
	"bytes"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// afterEvents is a testLoop that calls a function when it has run an event.
type afterEvents struct {
	*testLoop
	hook func()
}

func (p *afterEvents) Post(f func()) bool { return p.testLoop.Post(func() { f(); p.hook() }) }

// batching makes a node's writers wait for the end of an event.
func batching(c *Config) {
	p := &afterEvents{testLoop: c.Loop.(*testLoop)}
	c.Loop = p
	c.AfterBatch = func(f func()) { p.hook = f }
}

// sendInRoom sends c as package flow does, in an event of the link's loop, and reports whether that copied nothing.
func sendInRoom(l *link, c []byte) (inPlace bool) {
	room := l.Room(len(c) / cell.Size)
	copy(room, c)
	l.mu.Lock()
	queue, before := l.pending, len(l.pending.data)
	l.mu.Unlock()
	l.Send(room[:len(c)])
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != queue {
		return l.pending == nil // the writer was waiting for it
	}
	return len(queue.data) == before+len(c) && &queue.data[before] == &room[0]
}

func TestCellsMadeInRoomAreNotCopied(t *testing.T) {
	t.Parallel()
	near, far := newNode(t, "a", batching), newNode(t, "b", nil)
	got := make(chan []byte, 4096)
	far.onCells = func(_ env.Link, c []byte) { got <- bytes.Clone(c) }
	at, _ := connect(t, near, far)
	l := at.(*link)
	want := cells(200, 0)
	for rest, n := want, 1; len(rest) > 0; n = n%40 + 1 {
		part := rest[:min(n*cell.Size, len(rest))]
		rest = rest[len(part):]
		copied := make(chan bool, 1)
		l.t.cfg.Loop.Post(func() {
			l.mu.Lock()
			if l.pending.empty() { // in a queue that nobody has used before
				l.t.putQueue(l.pending)
				l.pending = &buffer{make([]byte, 0, smallRead+1)}
			}
			l.mu.Unlock()
			copied <- !sendInRoom(l, part)
		})
		if receive(t, "the end of an event", copied) {
			t.Errorf("%d cells were copied", len(part)/cell.Size)
		}
	}
	var all []byte
	for len(all) < len(want) {
		all = append(all, receive(t, "cells", got)...)
	}
	if !bytes.Equal(all, want) {
		t.Error("other cells have come")
	}
}

// What is lent when a link ends is not given to another one while its borrower may still write.
func TestRoomOutlivesTheLink(t *testing.T) {
	t.Parallel()
	near, far := newNode(t, "a", batching), newNode(t, "b", nil)
	at, _ := connect(t, near, far)
	l := at.(*link)
	lent := make(chan bool)
	l.t.cfg.Loop.Post(func() {
		room := l.Room(3)
		l.fail(ErrClosed)
		deadline := time.Now().Add(10 * time.Second)
		for l.exits.Load() > 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		l.mu.Lock()
		gone := l.exits.Load() == 0
		l.mu.Unlock()
		clear(room) // the race detector would see somebody else there
		l.Send(room[:cell.Size])
		lent <- gone
	})
	if !receive(t, "the end of the event", lent) {
		t.Error("a link that has failed waits for what it has lent")
	}
}

// A loan that no Send ends is over with the event.
func TestLoanEndsWithTheEvent(t *testing.T) {
	t.Parallel()
	near, far := newNode(t, "a", batching), newNode(t, "b", nil)
	got := make(chan int, 16)
	far.onCells = func(_ env.Link, c []byte) { got <- len(c) }
	at, _ := connect(t, near, far)
	l := at.(*link)
	l.t.cfg.Loop.Post(func() {
		at.Send(cells(2, 0))
		clear(at.Room(1))
	})
	if n := receive(t, "cells", got); n != 2*cell.Size {
		t.Errorf("%d bytes have come", n)
	}
	l.t.cfg.Loop.Post(func() { at.Room(1) })
	done := make(chan bool)
	l.t.cfg.Loop.Post(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		done <- !l.lent && l.pending == nil
	})
	if !receive(t, "an event", done) {
		t.Error("an empty queue is kept for a loan that is over")
	}
}
