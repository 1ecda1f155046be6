package simnet

import (
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// reads is a node that counts what comes over its link, and one that sends more than its link takes.
type reads struct {
	got  int
	send env.Link
	left int // cells still to be sent
}

func (r *reads) LinkUp(l env.Link) env.LinkEvents { r.send = l; return r }
func (r *reads) OnCells(cells []byte)             { r.got += len(cells) }
func (r *reads) OnDown(error)                     {}
func (r *reads) OnDrained() {
	for r.left > 0 && r.send.Queued() < 64<<10 {
		r.left--
		r.send.Send(make([]byte, cell.Size))
	}
}

// A link through a provider's queue of 100 ms fills the path, and leaves little standing in that queue.
func TestLinksKeepTheProvidersQueueShort(t *testing.T) {
	t.Parallel()
	for _, round := range []time.Duration{5 * time.Millisecond, 60 * time.Millisecond, 200 * time.Millisecond} {
		w := New(Config{Seed: 1})
		a := w.Host(HostSpec{Name: "a", Mile: round / 2})
		b := w.Host(HostSpec{Name: "b", Down: 1_250_000})
		from, to := &reads{left: 1 << 20}, new(reads)
		a.Links(from, cert.Identity{1}, 1, func() [32]byte { return [32]byte{} })
		b.Links(to, cert.Identity{2}, 1, func() [32]byte { return [32]byte{} })
		w.After(0, func() { a.Env().Dialer.DialLink(b.Target(), func(env.Link, error) { from.OnDrained() }) })
		w.Run(20 * time.Second)
		before := to.got
		var queue time.Duration
		for range 1000 {
			w.Run(10 * time.Millisecond)
			queue += max(b.down.free.Sub(w.now), 0) / 1000
		}
		if rate := (to.got - before) / 10; rate < 1_250_000*9/10 {
			t.Errorf("%v: %d bytes a second of 1250000", round, rate)
		}
		if queue > 35*time.Millisecond { // 15, and two records of 13
			t.Errorf("%v: %v stand in the queue", round, queue)
		}
		for from.left > 1<<18 { // what is left all arrives, although it is held back
			from.left -= 1 << 18
		}
		left := from.left
		w.Run(time.Duration(left) * 2 * time.Millisecond)
		if from.left != 0 || to.got%cell.Size != 0 || from.send.Queued() != 0 {
			t.Errorf("%v: %d cells and %d bytes were not sent", round, from.left, from.send.Queued())
		}
	}
}
