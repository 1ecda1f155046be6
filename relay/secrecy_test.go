package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// sight is what one relay gets to see of a circuit: who its neighbours are, and every cell that
// arrives, as it stands after the relay's own layer was taken off or put on.
type sight struct {
	clients  []netip.AddrPort
	relays   []cert.Identity
	raw      [][]byte // cells as they came
	forward  [][]byte // bodies under the relay's keys
	payloads [][]byte // those that it recognised
	spy      func() *hop
}

// watch shows a relay's cells to the test, decoded with that relay's keys.
func (s *station) watch(spy func() *hop) *sight {
	v := &sight{spy: spy}
	s.tap = func(from *env.Peer, cells []byte) {
		if from.Client() {
			if !slices.Contains(v.clients, from.Address) {
				v.clients = append(v.clients, from.Address)
			}
		} else if !slices.Contains(v.relays, from.Identity) {
			v.relays = append(v.relays, from.Identity)
		}
		for c := range slices.Chunk(bytes.Clone(cells), cell.Size) {
			header, err := cell.DecodeHeader(c)
			if err != nil {
				s.w.t.Error(err)
				continue
			}
			v.raw = append(v.raw, bytes.Clone(c))
			forward := from.Client() || header.Circuit&cell.InitiatorBit != 0 // dialled by the one before
			if header.Command != cell.CommandRelay && header.Command != cell.CommandRelayEarly || !forward {
				continue
			}
			body := c[cell.HeaderSize:]
			if v.spy().spy.Forward(byte(header.Command), body) {
				v.payloads = append(v.payloads, bytes.Clone(body[cell.TagSize:]))
			}
			v.forward = append(v.forward, bytes.Clone(body))
		}
	}
	return v
}

// sees says whether a secret is in anything that the relay saw, encrypted or decoded.
func (v *sight) sees(secret []byte) bool {
	for _, list := range [][][]byte{v.raw, v.forward, v.payloads} {
		for _, b := range list {
			if bytes.Contains(b, secret) {
				return true
			}
		}
	}
	return false
}

// TestWhoSeesWhat is what onion routing is for. A cell is decoded at each hop with that hop's
// keys: the destination and what is said to it stand in the clear at the exit alone; the guard
// knows the client and the middle, the middle its two neighbours, the exit the middle.
func TestWhoSeesWhat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	guard, middle, exit := w.add("guard", nil), w.add("middle", nil), w.add("exit", nil)
	h := w.client("client")
	views := make([]*sight, 3)
	for i, s := range []*station{guard, middle, exit} {
		views[i] = s.watch(func() *hop { return h.hops[i] })
	}
	h.build(guard, middle, exit)
	const name = "secret-destination.example"
	x := w.listen("93.184.216.34:8443")
	w.f.Hosts[name] = []netip.Addr{addr("93.184.216.34")}
	id, c, reason := h.begin(name, 8443, anyIP)
	if c == nil {
		t.Fatal(reason)
	}
	question, answer := []byte("what the client asks the destination"), []byte("what the destination answers")
	h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: question})
	h.until("the question", func() bool { return bytes.Equal(x.received(), question) })
	w.f.Do(func() { x.conn.Write(answer) })
	h.until("the answer", func() bool { d, _ := h.data(id); return bytes.Equal(d, answer) })

	port := binary.BigEndian.AppendUint16([]byte(name), 8443)
	identities := [][]byte{guard.node.Identity[:], middle.node.Identity[:], exit.node.Identity[:]}
	clientIP := h.node.Address.Addr().As4()
	for i, v := range views {
		if len(v.payloads) == 0 || len(v.raw) < 3 {
			t.Fatalf("hop %d: %d cells, %d for it; the test sees nothing", i+1, len(v.raw), len(v.payloads))
		}
		for what, secret := range map[string][]byte{"destination": []byte(name), "destination and port": port, "question": question} {
			if got := v.sees(secret); got != (i == 2) {
				t.Errorf("hop %d sees the %s: %v", i+1, what, got)
			}
		}
		if v.sees(answer) { // it never arrives at a relay in the clear: the exit seals it
			t.Errorf("hop %d sees the answer", i+1)
		}
		for j, identity := range identities {
			neighbour := j == i+1 // named by EXTEND; the one before shows itself on the link
			if got := v.sees(identity); got != neighbour && j != i {
				t.Errorf("hop %d sees the identity of hop %d in a cell: %v", i+1, j+1, got)
			}
			if got, want := slices.Contains(v.relays, cert.Identity(identity)), j == i+1 || j == i-1; got != want {
				t.Errorf("hop %d has a link with hop %d: %v", i+1, j+1, got)
			}
		}
		for _, p := range v.payloads {
			if bytes.Contains(p, clientIP[:]) {
				t.Errorf("hop %d is told the client's address", i+1)
			}
		}
		if got := slices.Contains(v.clients, h.node.Address); got != (i == 0) || len(v.clients) > 1 {
			t.Errorf("hop %d sees the client's address: %v", i+1, v.clients)
		}
	}
	h.destroy()
	w.quiet()
}

// TestCellsLookUnrelated: what a relay passes on has nothing in common with what came, in
// either direction, so that neighbours cannot match cells by content.
func TestCellsLookUnrelated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	path := []*station{w.add("guard", nil), w.add("middle", nil), w.add("exit", nil)}
	h := w.client("client")
	seen := make(map[string]string)
	note := func(where string) func(*env.Peer, []byte) {
		return func(_ *env.Peer, cells []byte) {
			for c := range slices.Chunk(cells, cell.Size) {
				if command := cell.Command(c[4] & 0x7f); command != cell.CommandRelay && command != cell.CommandRelayEarly {
					continue
				}
				for at := cell.HeaderSize; at+16 <= cell.Size; at += 16 {
					if before, ok := seen[string(c[at:at+16])]; ok {
						t.Errorf("%s: a block that was seen at %s", where, before)
					}
					seen[string(c[at:at+16])] = where
				}
			}
		}
	}
	for _, s := range path {
		s.tap = note(s.node.Name)
	}
	h.tap = note("client")
	h.build(path...)
	w.echo("93.0.0.1:80")
	id, _, _ := h.begin("93.0.0.1", 80, anyIP)
	for range 20 {
		h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: make([]byte, 2000)})
	}
	h.until("the echo", func() bool { d, _ := h.data(id); return len(d) == 40_000 })
	if len(seen) < 1000 {
		t.Errorf("only %d blocks were looked at", len(seen))
	}
	h.destroy()
	w.quiet()
}

// echo is a server that sends back what it gets.
func (w *world) echo(at string) *target {
	x := w.listen(at)
	w.f.Listen(addrPort(at), func(c env.Conn) env.ConnEvents {
		e := &echo{c: c, x: x}
		x.conn = c
		c.Pause(false)
		return e
	})
	return x
}

type echo struct {
	c   env.Conn
	x   *target
	got []byte
}

func (e *echo) OnData(p []byte) { e.got = append(e.got, p...); e.x.echoed = e.got; e.c.Write(p) }
func (e *echo) OnEOF()          { e.c.CloseWrite() }
func (e *echo) OnDrained()      {}
func (e *echo) OnDown(error)    {}

// TestFlippedBit alters one bit of one cell, at every hop, in both directions, at every kind of
// place: the circuit dies, and nothing of that cell or a later one is delivered to the
// application at either end. (Less may arrive than came before: a circuit that dies resets its
// connections.)
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	const cells, size = 24, 1900
	for _, towards := range []bool{true, false} { // towards the exit, towards the client
		for position := range 3 {
			t.Run(fmt.Sprintf("towards exit %v, position %d", towards, position), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(uint64(position), 7))
				places := []int{ // bits: of the header but the flag "dry", the tag, and the payload
					0, 31, 33, 34, 35, 36, 37, 38, 39,
					40, 40 + 127, 40 + 128, 40 + 128 + 40, cell.Size*8 - 1,
				}
				for range 30 {
					places = append(places, 40+rng.IntN(cell.BodySize*8))
				}
				for _, bit := range places {
					flipOne(t, towards, position, rng.IntN(cells), bit, cells, size)
				}
			})
		}
	}
}

func flipOne(t *testing.T, towards bool, position, victim, bit, cells, size int) {
	t.Helper()
	w := newWorld(t, uint64(bit))
	path := []*station{w.add("guard", nil), w.add("middle", nil), w.add("exit", nil)}
	h := w.client("client").build(path...)
	x := w.echo("93.0.0.1:80")
	id, c, reason := h.begin("93.0.0.1", 80, anyIP)
	if c == nil {
		t.Fatal(reason)
	}
	w.f.Run(time.Second)
	// Towards the exit a relay's input is altered, towards the client that of the hop before.
	count, flipped, before := 0, false, 0
	tap := func(from *env.Peer, b []byte) {
		for c := range slices.Chunk(b, cell.Size) {
			header, err := cell.DecodeHeader(c)
			if err != nil || flipped || header.Command != cell.CommandRelay || !comesFrom(path, position, towards, from) {
				continue
			}
			if count == victim {
				c[bit/8] ^= 0x80 >> (bit % 8)
				flipped = true
			}
			count++
		}
	}
	switch {
	case towards:
		path[position].tap = tap
	case position == 0:
		h.tap = tap
	default:
		path[position-1].tap = tap
	}
	sent := []byte{}
	for i := range cells {
		data := bytes.Repeat([]byte{byte(i + 1)}, size)
		sent = append(sent, data...)
		if h.leg.Alive() {
			h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: data})
		}
		if i%5 == 4 {
			w.f.Run(time.Duration(i) * time.Millisecond)
		}
	}
	w.f.Run(5 * time.Second)
	what := fmt.Sprintf("towards exit %v, position %d, cell %d, bit %d", towards, position, victim, bit)
	got, _ := h.data(id)
	if !flipped {
		if towards || len(got) != len(sent) { // the echo may come in fewer cells
			t.Errorf("%s: nothing was flipped", what)
		}
		h.destroy()
		w.quiet()
		return
	}
	if h.destroyed == nil && h.noise == 0 {
		t.Errorf("%s: the circuit lives", what)
	}
	if towards {
		before = victim * size
	} else { // nothing is known of how the echo was packed, but no cell holds more than this
		before = victim * cell.MaxData
	}
	if !bytes.HasPrefix(sent, x.echoed) || !bytes.HasPrefix(sent, got) {
		t.Errorf("%s: wrong bytes were delivered", what)
	}
	if towards && len(x.echoed) > before || len(got) > before {
		t.Errorf("%s: %d bytes at the exit, %d at the client, only %d came before", what, len(x.echoed), len(got), before)
	}
	w.quiet()
}

// comesFrom says whether the tap of a position hears a cell of the direction that is meant.
func comesFrom(path []*station, position int, towards bool, from *env.Peer) bool {
	switch {
	case towards && position == 0:
		return from.Client()
	case towards:
		return from.Identity == path[position-1].node.Identity
	default:
		return from.Identity == path[position].node.Identity
	}
}
