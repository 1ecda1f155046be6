package envtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cepa/cell"
	"cepa/env"
)

// pair is two nodes with the links between them that came up, in order.
type pair struct {
	LinkWorld
	mu   sync.Mutex
	atA  []env.Link
	atB  []env.Link
	a, b *LinkProbe // hear every link of their node; nil: it wants none
}

// links makes the two nodes ready. upB, if not nil, is called in LinkUp at B.
func (s *suite) links(a, b *LinkProbe, upB func(env.Link)) *pair {
	p := &pair{a: s.guardLink(a), b: b}
	p.LinkWorld = s.w.Links(
		LinkUpFunc(func(l env.Link) env.LinkEvents {
			s.event(func() {
				p.mu.Lock()
				p.atA = append(p.atA, l)
				p.mu.Unlock()
			})
			return p.a
		}),
		LinkUpFunc(func(l env.Link) env.LinkEvents {
			p.mu.Lock()
			p.atB = append(p.atB, l)
			p.mu.Unlock()
			if upB != nil {
				upB(l)
			}
			if p.b == nil {
				return nil
			}
			return p.b
		}))
	return p
}

// ups is how many links have come up at A and at B.
func (p *pair) ups() (a, b int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.atA), len(p.atB)
}

// dialLink dials and waits for done.
func (s *suite) dialLink(p *pair, to env.Target) (link env.Link, err error) {
	s.Helper()
	var done atomic.Bool
	s.do(func() {
		p.Dialer.DialLink(to, func(l env.Link, e error) {
			s.event(func() {
				link, err = l, e
				if done.Swap(true) {
					s.Error("done was called twice")
				}
			})
		})
		if done.Load() {
			s.Error("done was called inside DialLink")
		}
	})
	s.await("DialLink to end", done.Load)
	return link, err
}

// join opens a link from A to B and returns both ends. upB is as in links.
func (s *suite) join(a, b *LinkProbe, upB func(env.Link)) (p *pair, atA, atB env.Link) {
	s.Helper()
	p = s.links(a, b, upB)
	atA, err := s.dialLink(p, p.B)
	if err != nil {
		s.Fatalf("DialLink: %v", err)
	}
	s.await("the link to be up at both ends", func() bool { _, n := p.ups(); return n == 1 })
	return p, atA, p.atB[0]
}

// relayCells is n RELAY cells with a pattern for a body, on circuits that A may have opened.
func relayCells(seed uint64, n int) []byte {
	b := pattern(seed, n*cell.Size)
	for i := range n {
		binary.BigEndian.PutUint32(b[i*cell.Size:], 1<<31|uint32(i+1))
		b[i*cell.Size+4] = byte(cell.CommandRelay)
	}
	return b
}

func (s *suite) awaitCells(p *LinkProbe, want []byte) {
	s.Helper()
	s.await("cells to arrive", func() bool { return len(p.State().Received) >= len(want) })
	if got := p.State().Received; !bytes.Equal(got, want) {
		s.Fatalf("%d bytes of cells arrived, %d were sent, and they are not the same", len(got), len(want))
	}
}

func testLinkUp(s *suite) {
	p := s.links(&LinkProbe{}, &LinkProbe{}, nil)
	var done atomic.Bool
	s.do(func() {
		p.Dialer.DialLink(p.B, func(l env.Link, err error) {
			s.event(func() {
				if n, _ := p.ups(); err != nil || n != 1 || p.atA[0] != l {
					s.Errorf("done(%v, %v) after %d calls of LinkUp, want the link of one", l, err, n)
				}
				done.Store(true)
			})
		})
	})
	s.await("DialLink to end", done.Load)
	s.await("LinkUp at the far end", func() bool { _, n := p.ups(); return n == 1 })
	atA, atB := p.atA[0].Peer(), p.atB[0].Peer()
	if atA.Identity != p.B.Identity || atB.Identity != p.A.Identity {
		s.Errorf("the ends know each other as %v and %v", atA.Identity, atB.Identity)
	}
	if !atA.Dialled || atB.Dialled {
		s.Errorf("Dialled is %v at the node that dialled and %v at the other", atA.Dialled, atB.Dialled)
	}
	if atA.Client() || atA.Version == 0 || !atA.Address.IsValid() || atA.Time.IsZero() || atA.OnionKey == [32]byte{} {
		s.Errorf("the far end is known as %+v, which lacks something", *atA)
	}
	if p.atA[0].Peer() != atA {
		s.Error("Peer is not constant")
	}
}

func testLinkErrors(s *suite) {
	p := s.links(&LinkProbe{}, &LinkProbe{}, nil)
	if _, err := s.dialLink(p, p.Refusing); !errors.Is(err, syscall.ECONNREFUSED) {
		s.Errorf("dialling where nobody listens: %v, want ECONNREFUSED", err)
	}
	if l, err := s.dialLink(p, p.Impostor); !errors.Is(err, env.ErrIdentity) || l != nil {
		s.Errorf("a link to B under another identity: %v, %v; want env.ErrIdentity", l, err)
	}
	if l, err := s.dialLink(p, env.Target{Identity: p.B.Identity}); err == nil || l != nil {
		s.Errorf("a link to no address: %v, %v; want an error", l, err)
	}
	if n, _ := p.ups(); n != 0 {
		s.Errorf("LinkUp was called %d times for dials that failed", n)
	}
	both := p.B
	both.Addresses = append(p.Refusing.Addresses[:1:1], both.Addresses...)
	if _, err := s.dialLink(p, both); err != nil {
		s.Errorf("the second address answers, and yet: %v", err)
	}
}

func testLinkCells(s *suite) {
	a, b := &LinkProbe{}, &LinkProbe{}
	_, atA, _ := s.join(a, b, func(l env.Link) { b.Cells = l.Send }) // echo
	cells := relayCells(20, 700)
	for rest := cells; len(rest) > 0; {
		s.do(func() {
			for n := cell.Size; n < 100*cell.Size && len(rest) > 0; n *= 2 {
				part := bytes.Clone(rest[:min(n, len(rest))])
				atA.Send(part)
				clear(part)
				rest = rest[len(part):]
			}
		})
	}
	s.awaitCells(b, cells)
	s.awaitCells(a, cells)
}

// testLinkRoom sends cells in all the ways that Room allows, in one event and in several.
func testLinkRoom(s *suite) {
	a, b := &LinkProbe{}, &LinkProbe{}
	_, atA, _ := s.join(a, b, nil)
	cells := relayCells(24, 600)
	rest := cells
	next := func(n int) []byte {
		p := rest[:min(n*cell.Size, len(rest))]
		rest = rest[len(p):]
		return p
	}
	for n := 1; len(rest) > 0; n = n%9 + 1 {
		s.do(func() {
			room := atA.Room(n)
			if len(room) < n*cell.Size || len(room)%cell.Size != 0 {
				s.Errorf("Room(%d) lends %d bytes", n, len(room))
			}
			room = atA.Room(n) // ends the loan before
			atA.Send(room[:copy(room, next(n))])
			atA.Send(bytes.Clone(next(1))) // the room was given back
			clear(atA.Room(n))
			atA.Send(nil)
			clear(atA.Room(2))
			atA.Send(bytes.Clone(next(1))) // and nothing of the room
			room = atA.Room(1)
			clear(room)
			atA.Send(room[:copy(room, next(len(room)/cell.Size))])
			clear(atA.Room(n)) // until the event ends
		})
		if n%3 == 0 {
			s.do(func() { atA.Send(bytes.Clone(next(1))) })
		}
	}
	s.awaitCells(b, cells)
	s.do(func() {
		clear(atA.Room(3))
		atA.Close(nil)
		atA.Send(atA.Room(1)[:cell.Size])
	})
	s.await("OnDown at the far end", func() bool { return b.State().Downs == 1 })
}

func testLinkDrained(s *suite) {
	var near env.Link // touched by A's events only
	var empty atomic.Bool
	a := &LinkProbe{Drained: func() { empty.Store(near != nil && near.Queued() == 0) }}
	b := &LinkProbe{}
	_, atA, _ := s.join(a, b, nil)
	cells := relayCells(21, 4000)
	var queued int
	s.do(func() {
		near = atA
		atA.Send(cells)
		queued = atA.Queued()
	})
	if queued > len(cells) {
		s.Errorf("Queued is %d after %d bytes", queued, len(cells))
	}
	s.await("an OnDrained that finds nothing queued", empty.Load)
	s.awaitCells(b, cells)
}

func testLinkClose(s *suite) {
	for _, reason := range []error{errors.New("for a test"), nil} {
		a, b := &LinkProbe{}, &LinkProbe{}
		_, atA, _ := s.join(a, b, nil)
		cells := relayCells(22, 3)
		s.do(func() { atA.Send(cells) })
		s.awaitCells(b, cells)
		s.do(func() {
			atA.Close(reason)
			atA.Close(reason)
			atA.Send(cells)
			_ = atA.Queued()
		})
		s.await("OnDown at the far end", func() bool { return b.State().Downs == 1 })
		s.settle(20 * time.Millisecond)
		if st := b.State(); st.Downs != 1 || len(st.Received) != len(cells) {
			s.Errorf("the far end heard %d times down and %d bytes, want once and %d", st.Downs, len(st.Received), len(cells))
		}
		if st := a.State(); st.Downs != 0 {
			s.Errorf("OnDown after Close: %v", st.Reason)
		}
	}
}

func testLinkSilence(s *suite) {
	var near env.Link // touched by A's events only
	a := &LinkProbe{Cells: func([]byte) { near.Close(errors.New("for a test")) }}
	b := &LinkProbe{}
	p, atA, atB := s.join(a, b, nil)
	s.do(func() { near = atA })
	p.DoB(func() { atB.Send(relayCells(23, 2000)) })
	s.await("cells", func() bool { return a.State().Batches > 0 })
	s.settle(50 * time.Millisecond)
	if st := a.State(); st.Batches != 1 || st.Downs != 0 {
		s.Errorf("after Close in a handler: %d more batches and %d down", st.Batches-1, st.Downs)
	}
	s.await("OnDown at the far end", func() bool { return b.State().Downs == 1 })
}

func testLinkNil(s *suite) {
	a := &LinkProbe{}
	p := s.links(a, nil, nil)
	_, err := s.dialLink(p, p.B)
	if err != nil { // it may be gone before it is up here
		return
	}
	s.await("OnDown", func() bool { return a.State().Downs == 1 })
}
