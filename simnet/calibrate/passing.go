package calibrate

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/flow"
)

// quiet is a link that swallows what it is sent, as fast as it comes.
type quiet struct {
	peer env.Peer
	room [16 * cell.Size]byte
}

func (q *quiet) Peer() *env.Peer { return &q.peer }
func (q *quiet) Room(int) []byte { return q.room[:] }
func (q *quiet) Send([]byte)     {}
func (q *quiet) Queued() int     { return 0 }
func (q *quiet) Close(error)     {}

// through passes cells on from one leg of a circuit to the other.
type through struct{ to, from *flow.Leg }

func (h *through) OnCreated(cell.Create) {}
func (h *through) OnCell(cmd cell.Command, body []byte) bool {
	h.to.Relay(cmd, body, h.from)
	return true
}
func (h *through) NextCell([]byte) (cell.Command, bool) { return 0, false }
func (h *through) Pending() bool                        { return false }
func (h *through) OnDestroyed(cell.Reason)              {}

// still is a clock that moves when it is told to, and whose timers go off then.
type still struct {
	now    env.Mono
	timers []*stillTimer
}

type stillTimer struct {
	c   *still
	at  env.Mono
	set bool
	f   func()
}

func (c *still) Now() env.Mono   { return c.now }
func (c *still) Wall() time.Time { return time.Time{} }
func (c *still) AfterFunc(d time.Duration, f func()) env.Timer {
	t := &stillTimer{c: c, f: f}
	c.timers = append(c.timers, t)
	t.Reset(d)
	return t
}
func (t *stillTimer) Stop() bool            { t.set = false; return true }
func (t *stillTimer) Reset(d time.Duration) { t.at, t.set = t.c.now.Add(d), true }

func (c *still) advance(d time.Duration) {
	c.now = c.now.Add(d)
	for _, t := range c.timers {
		if t.set && t.at <= c.now {
			t.set = false
			t.f()
		}
	}
}

// relayNode is a relay with nothing but circuits that pass through.
type relayNode struct{ legs []*flow.Leg }

func (n *relayNode) OnLink(*flow.Link)                     {}
func (n *relayNode) OnLinkDown(*flow.Link, error)          {}
func (n *relayNode) OnCreate(leg *flow.Leg, _ cell.Create) { n.legs = append(n.legs, leg) }
func (n *relayNode) OnGossip(*flow.Link, []byte)           {}

// passCircuits are open at a time, and cells come so many at once.
const (
	passCircuits = 16
	passBatch    = 16
)

// passing is a relay between two links, with flow control and without ciphers.
func passing(context.Context) (sample, error) {
	clock, n := &still{now: 1e9}, &relayNode{}
	in, out := new(quiet), new(quiet)
	in.peer.Identity = cert.Identity{1}
	out.peer.Identity, out.peer.Dialled = cert.Identity{2}, true
	links := flow.NewLinks(flow.Config{
		Env: env.Env{Clock: clock, Rand: rand.NewChaCha8(seeded("passing"))}, Self: cert.Identity{3}, Handler: n, Budget: flow.NewBudget(1 << 30),
		Listed: func(cert.Identity) bool { return true },
	})
	from, ok := links.LinkUp(in).(*flow.Link)
	to, ok2 := links.LinkUp(out).(*flow.Link)
	if !ok || !ok2 {
		return sample{}, errors.New("a link was refused")
	}
	var ids []cell.CircuitID
	for i := range passCircuits {
		create, err := head(cell.CommandCreate, cell.InitiatorBit|cell.CircuitID(i+1))
		if err != nil {
			return sample{}, err
		}
		from.OnCells(create)
		if len(n.legs) != i+1 {
			return sample{}, errors.New("a circuit was refused")
		}
		onward, err := to.Create(&through{n.legs[i], nil}, 1, []byte("h"))
		if err != nil {
			return sample{}, err
		}
		n.legs[i].Bind(&through{onward, n.legs[i]})
		n.legs[i].Created(1, []byte("h"))
		ids = append(ids, onward.ID())
	}
	clock.advance(0)
	for _, id := range ids {
		created, err := head(cell.CommandCreated, id)
		if err != nil {
			return sample{}, err
		}
		to.OnCells(created)
	}
	batch, credit := make([]byte, passBatch*cell.Size), make([]byte, cell.Size)
	cell.Header{Command: cell.CommandCredit}.Put(credit)
	pairs := make([]cell.CreditPair, passBatch)
	run := func(count int) error {
		for range count {
			for i := range pairs {
				cell.Header{Circuit: cell.InitiatorBit | cell.CircuitID(i+1), Command: cell.CommandRelay}.Put(batch[i*cell.Size:])
				pairs[i] = cell.CreditPair{Circuit: ids[i], Add: 1}
			}
			from.OnCells(batch)
			if err := cell.PutCredit(credit[cell.HeaderSize:], pairs); err != nil {
				return err
			}
			to.OnCells(credit)
			clock.advance(10 * time.Millisecond) // longer than credit waits
		}
		return nil
	}
	return sample{run: run, per: passBatch}, nil
}

// head is a CREATE or CREATED cell with credit for a while.
func head(cmd cell.Command, id cell.CircuitID) ([]byte, error) {
	b := make([]byte, cell.Size)
	cell.Header{Circuit: id, Command: cmd}.Put(b)
	c := cell.Create{Credit: 1000, Type: 1, Total: 1, Handshake: []byte("h")}
	return b, c.Put(b[cell.HeaderSize:])
}
