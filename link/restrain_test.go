package link

import (
	"sync/atomic"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
	"cepa/limit"
)

// queueing is what TCP says of a path with a queue that is too long.
var queueing = limit.Sample{Flight: 64 << 10, Trip: 60 * time.Millisecond, Least: 20 * time.Millisecond}

// held is a link whose TCP has enough until the test says otherwise; asked hears of each look.
func held(t *testing.T) (near *testNode, at *link, has *atomic.Int64, asked chan struct{}, got chan int) {
	t.Helper()
	near, far := newNode(t, "a", nil), newNode(t, "b", nil)
	got = make(chan int, 1000) // bytes that have arrived, after each event
	sum := 0
	far.onCells = func(_ env.Link, c []byte) { sum += len(c); got <- sum }
	l, _ := connect(t, near, far)
	at = l.(*link)
	has = new(atomic.Int64)
	has.Store(1 << 20)
	asked = make(chan struct{}, 1000)
	at.restraint.sample = func() (int, limit.Sample, bool) { // nothing has been sent: the writer does not look yet
		select {
		case asked <- struct{}{}:
		default:
		}
		return int(has.Load()), queueing, true
	}
	return near, at, has, asked, got
}

// TestWriterHoldsBackWhileTCPHasEnough: cells stay in the node as long as too many wait on the path, and go on then.
func TestWriterHoldsBackWhileTCPHasEnough(t *testing.T) {
	t.Parallel()
	near, at, has, asked, got := held(t)
	const n = 100
	near.loop.do(func() { at.Send(cells(n, 0)) })
	for range 20 { // looks, each at least a millisecond after the other
		<-asked
	}
	if len(got) != 0 || at.Queued() != n*cell.Size {
		t.Errorf("%d events at the far end, %d bytes are queued", len(got), at.Queued())
	}
	has.Store(0)
	for receive(t, "cells", got) < n*cell.Size {
	}
}

// TestWriterThatHoldsBackEnds: a link that is closed does not wait for TCP, and none waits for ever.
func TestWriterThatHoldsBackEnds(t *testing.T) {
	t.Parallel()
	near, at, _, asked, got := held(t)
	near.loop.do(func() { at.Send(cells(1, 0)) })
	<-asked
	receive(t, "the cell although TCP has enough", got)
	near.loop.do(func() { at.Send(cells(2, 0)) })
	began := time.Now()
	near.loop.do(func() { at.Close(nil) })
	for receive(t, "the rest", got) < 3*cell.Size {
	}
	if took := time.Since(began); took > holdLimit*3/4 {
		t.Errorf("closing took %v", took)
	}
}
