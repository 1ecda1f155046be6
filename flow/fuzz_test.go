package flow

import (
	"encoding/binary"
	"testing"
	"time"

	"cepa/cell"
)

// FuzzLink brings cells that the input describes, four bytes each, to a relay that answers, forwards and destroys in
// between. It never panics, its accounts always add up, and nothing is left when the link is gone.
func FuzzLink(f *testing.F) {
	f.Add([]byte{1, 1, 5, 0, 3, 1, 0, 0, 9, 1, 0, 0, 6, 1, 9, 0, 4, 1, 0, 0}, false)
	f.Add([]byte{1, 1, 5, 0, 1, 2, 5, 1, 32, 1, 0, 0, 3, 2, 0, 0, 4, 2, 0, 0, 33, 1, 0, 0, 1, 1, 1, 1}, true)
	f.Add([]byte{34, 0, 0, 0, 2, 128, 5, 0, 3, 128, 0, 0, 35, 0, 0, 0, 3, 128, 0, 0, 2, 128, 0, 0, 4, 128, 0, 0}, false)
	f.Add([]byte{0, 0, 0, 0, 8, 0, 0, 0, 7, 0, 9, 0, 5, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, in []byte, client bool) {
		in = in[:min(len(in), 2000)]
		b := newBench(t, benchOptions{peerClient: client, dialled: true, budget: 100 * cell.Size})
		b.w.fewIDs = true
		b.n.links.cfg.Limits.CircuitsPerLink = 3
		b.tap.slow = true
		var legs []*Leg
		for ; len(in) >= 4 && !b.tap.closed; in = in[4:] {
			op, id, x, y := in[0], cell.CircuitID(in[1]), in[2], in[3]
			if id >= 128 {
				id = id - 128 | cell.InitiatorBit
			}
			c := raw(cell.Command(op%64), id)
			c[4] = op % 64
			body := c[cell.HeaderSize:]
			switch op % 64 {
			case byte(cell.CommandCreate), byte(cell.CommandCreated):
				copy(body, []byte{0, x, 0, 1, 0, 1, 0, 0, y})
			case byte(cell.CommandCredit):
				binary.BigEndian.PutUint32(c, 0)
				copy(body, []byte{0, 1, byte(id >> 24), 0, 0, byte(id), x, y})
			case byte(cell.CommandGossip):
				copy(body, []byte{0, x, y})
			case byte(cell.CommandDestroy):
				body[0] = x
				body[1000] = y / 255
			case 32, 33: // forward on the oldest circuit
				if all := append(legs, b.legs...); len(all) > 1 {
					from, to := all[int(x)%len(all)], all[int(y)%len(all)]
					if from.Alive() && from.in.outstanding() > 0 {
						from.in.received++
						to.Relay(cell.CommandRelay, body, from)
					}
				}
				b.w.run(0)
				continue
			case 34:
				h := new(hearing)
				if g, err := b.l.Create(h, 1, []byte("h")); err == nil {
					legs = append(legs, g)
					h.send = int(x)
				}
				continue
			case 35:
				if all := append(legs, b.legs...); len(all) > 0 {
					g := all[int(x)%len(all)]
					if y%2 == 0 {
						g.Destroy(cell.Reason(y))
					} else {
						g.Wake()
					}
				}
				continue
			case 36:
				b.tap.queued = 0
				b.l.OnDrained()
				continue
			case 37:
				b.w.run(time.Duration(x) * time.Second / 10)
				continue
			}
			b.in(c)
			b.tap.sent = nil
			b.check(t)
		}
		b.check(t)
		b.l.Close(nil)
		b.w.run(time.Second)
		b.w.checkEmpty(t)
	})
}

// FuzzMux brings messages that the input describes to both kinds of ends, whose streams do things in between. It
// never panics, its accounts always add up, and nothing is left when it is closed.
func FuzzMux(f *testing.F) {
	f.Add([]byte{4, 1, 0, 0, 6, 1, 9, 0, 32, 1, 0, 0, 7, 1, 0, 0}, false)
	f.Add([]byte{33, 1, 0, 0, 5, 1, 0, 0, 6, 1, 9, 9, 11, 1, 9, 0, 7, 1, 0, 0, 7, 1, 0, 0}, true)
	f.Add([]byte{8, 1, 0, 0, 34, 0, 0, 0, 7, 1, 5, 0}, false)
	b, err := cell.Begin{Address: cell.Address{Host: "a"}, Port: 1}.AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	lookup, err := cell.Resolve{Address: cell.Address{Host: "a"}}.AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	answer, err := cell.Resolved{Reason: cell.ReasonNoSuchHost}.AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte, initiator bool) {
		in = in[:min(len(in), 2000)]
		x := newLone(initiator)
		all := func() []*Stream { return x.opened }
		var conns []*testConn
		for ; len(in) >= 4; in = in[4:] {
			op, id, u, v := in[0]%64, cell.StreamID(in[1]%16), in[2], in[3]
			m := message{cell.MessageCommand(op), id, nil}
			if id == 0 && op < 32 {
				m.cmd = cell.MessageWindow // the only one that needs no stream
			}
			switch m.cmd {
			case cell.MessageBegin:
				m.data = b
			case cell.MessageResolve:
				m.data = lookup
			case cell.MessageConnected:
				m.data = connected()
			case cell.MessageResolved:
				m.data = answer
			case cell.MessageData:
				m.data = dataOf(1 + int(u)<<3)
			case cell.MessageEnd:
				m.data = []byte{u}
			case cell.MessageWindow:
				m.data = windowOf(1 + int(u)<<16 + int(v)<<5)
			case 32, 33, 34, 35, 36, 37, 38:
				switch streams := all(); {
				case op == 33 && initiator:
					cmd, body := cell.MessageBegin, b
					if u%4 == 0 {
						cmd, body = cell.MessageResolve, lookup
					}
					log := new(streamLog)
					if s, err := x.m.Open(cmd, body, log); err == nil {
						x.opened, x.logs = append(x.opened, s), append(x.logs, log)
					}
				case op == 38:
					x.out(t)
				case len(streams) == 0:
				default:
					s := streams[int(id)%len(streams)]
					switch op {
					case 32:
						s.Connected(connected())
					case 34:
						s.Resolved(answer)
					case 35:
						s.End(cell.Reason(u))
					case 36:
						if s.conn == nil {
							c := newConn(x.w, s, dataOf(int(u)<<8), v%2 == 0)
							c.rate = float64(v%3)*100000 - 1
							conns = append(conns, c)
							s.Attach(c)
						}
					case 37:
						for _, c := range conns {
							if c.s == s && v%4 == 0 {
								c.fail(nil)
							} else if c.s == s && v%4 == 1 {
								c.fail(errEnded)
							}
						}
					}
				}
				x.w.run(time.Duration(v) * time.Millisecond)
				continue
			default:
				continue
			}
			if x.in(m) != nil {
				break
			}
			if u%2 == 0 {
				x.out(t)
			}
		}
		x.m.Close(cell.ReasonDestroyed)
		x.w.run(2 * lingerTime)
		if x.budget.Used() != 0 || len(x.budget.holders) != 0 || x.m.Streams() != 0 || x.m.stats.Streams != 0 {
			t.Fatalf("%d bytes and %d streams are left", x.budget.Used(), x.m.Streams())
		}
		for _, c := range conns {
			if !c.closed {
				t.Fatal("a conn was left open")
			}
		}
	})
}
