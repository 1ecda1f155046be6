package cgo

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

const (
	cmdRelay      = 3
	cmdRelayEarly = 9
)

// A circuit is both ends of a path: the client's and the relays' state for each
// hop.
type circuit struct {
	t      *testing.T
	r      *rand.ChaCha8
	size   int
	client []*Client
	relay  []*Relay
}

func newCircuit(t *testing.T, client, relay kernel, hops, size int, seed byte) *circuit {
	t.Helper()
	c := &circuit{t: t, r: newRand(seed), size: size}
	for range hops {
		keys := randomBytes(c.r, KeyMaterialSize)
		cl, err1 := newClient(client, size, keys)
		re, err2 := newRelay(relay, size, keys)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		c.client = append(c.client, cl)
		c.relay = append(c.relay, re)
	}
	return c
}

// seal returns a cell from the client to hop number to, as it leaves the
// client, and its payload.
func (c *circuit) seal(cmd byte, to int) (body, payload []byte) {
	body = randomBytes(c.r, c.size)
	payload = bytes.Clone(body[TagSize:])
	c.client[to].Originate(cmd, body)
	for i := to - 1; i >= 0; i-- {
		c.client[i].Forward(cmd, body)
	}
	return body, payload
}

// forward carries body along the path and returns the hop that recognised it,
// or -1.
func (c *circuit) forward(cmd byte, body []byte) int {
	for i, r := range c.relay {
		if r.Forward(cmd, body) {
			return i
		}
	}
	return -1
}

// reply returns a cell from hop number from as it reaches the client, and its
// payload.
func (c *circuit) reply(cmd byte, from int) (body, payload []byte) {
	body = randomBytes(c.r, c.size)
	payload = bytes.Clone(body[TagSize:])
	c.relay[from].Originate(cmd, body)
	for i := from - 1; i >= 0; i-- {
		c.relay[i].Backward(cmd, body)
	}
	return body, payload
}

// open takes the layers off body and returns the hop that it is from, or -1.
func (c *circuit) open(cmd byte, body []byte) int {
	for i, cl := range c.client {
		if cl.Backward(cmd, body) {
			return i
		}
	}
	return -1
}

// exchange sends one cell each way between the client and a hop and checks that
// they arrive.
func (c *circuit) exchange(cmd byte, hop int) {
	c.t.Helper()
	body, payload := c.seal(cmd, hop)
	if at := c.forward(cmd, body); at != hop {
		c.t.Fatalf("a cell for hop %d was recognised by hop %d", hop, at)
	}
	if !bytes.Equal(body[TagSize:], payload) {
		c.t.Fatalf("hop %d got another payload", hop)
	}
	body, payload = c.reply(cmd, hop)
	if from := c.open(cmd, body); from != hop {
		c.t.Fatalf("a cell from hop %d was recognised as from hop %d", hop, from)
	}
	if !bytes.Equal(body[TagSize:], payload) {
		c.t.Fatalf("the client got another payload from hop %d", hop)
	}
}

// TestConversation sends random cells both ways between a client and the hops
// of a path, in random order, for kernels on both ends and several body sizes.
func TestConversation(t *testing.T) {
	t.Parallel()
	for _, client := range kernels() {
		for _, relay := range kernels() {
			t.Run(client.name()+" and "+relay.name(), func(t *testing.T) {
				t.Parallel()
				for _, size := range []int{MinBodySize, 31, 32, 33, 509, 1024, cellBodySize, MaxBodySize} {
					c := newCircuit(t, client, relay, 3, size, byte(size))
					for range 30 {
						cmd := byte(cmdRelay)
						if c.r.Uint64()%2 == 0 {
							cmd = cmdRelayEarly
						}
						c.exchange(cmd, int(c.r.Uint64()%3))
					}
				}
			})
		}
	}
}

// A layer that rests between cells, at any time and in any direction, carries the same as one that never does, and what it
// gives up is given up: only after a second call without a cell in between, and until the next cell.
func TestRest(t *testing.T) {
	t.Parallel()
	for _, kern := range kernels() {
		c := newCircuit(t, kern, kern, 3, cellBodySize, 1)
		for range 60 {
			for range c.r.Uint64() % 3 {
				for _, r := range c.relay {
					r.Rest()
				}
			}
			c.exchange(cmdRelay, int(c.r.Uint64()%3))
		}
		r := c.relay[0]
		body, _ := c.seal(cmdRelay, 0)
		r.Rest()
		r.Rest()
		if c.forward(cmdRelay, body) != 0 {
			t.Fatalf("%s: a cell was not recognised", kern.name())
		}
		if r.backward.expanded != nil || r.forward.expanded == nil {
			t.Errorf("%s: the direction that carried a cell rests, or the other does not", kern.name())
		}
		old := r.forward.expanded
		r.Rest()
		if r.forward.expanded != old {
			t.Errorf("%s: a direction rests that carried a cell since the last time", kern.name())
		}
		r.Rest()
		if r.forward.expanded != nil || *old != (expanded{}) {
			t.Errorf("%s: the keys were not wiped", kern.name())
		}
		r.Rest()
		r.Erase()
		r.Rest()
	}
}

// TestCellsLookRandom checks that equal payloads never look alike on the wire,
// and that each layer changes the whole body.
func TestCellsLookRandom(t *testing.T) {
	t.Parallel()
	c := newCircuit(t, best, best, 3, cellBodySize, 1)
	seen := make(map[string]bool)
	zeros := make([]byte, 16)
	note := func(body []byte) {
		for i := 0; i+16 <= len(body); i += 16 {
			chunk := string(body[i : i+16])
			if seen[chunk] || chunk == string(zeros) {
				t.Fatal("a block was seen twice")
			}
			seen[chunk] = true
		}
	}
	for range 10 {
		body := make([]byte, cellBodySize)
		c.client[2].Originate(cmdRelay, body)
		note(body)
		c.client[1].Forward(cmdRelay, body)
		note(body)
		c.client[0].Forward(cmdRelay, body)
		note(body)
		if c.forward(cmdRelay, body) != 2 {
			t.Fatal("not recognised")
		}
		if !bytes.Equal(body[TagSize:], make([]byte, cellBodySize-TagSize)) {
			t.Fatal("the payload changed")
		}
	}
}

// isNoise reports that a and b have no more in common than random bytes: of n
// bytes a 256th is expected to be equal.
func isNoise(a, b []byte) bool {
	same := 0
	for i := range a {
		if a[i] == b[i] {
			same++
		}
	}
	return same <= 8+len(a)/64
}

// TestFlippedBit flips one bit of a cell, at each place, in each direction,
// before an honest hop: the cell and all after it must be noise, and never be
// recognised.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			const size = 77
			for bit := range size * 8 {
				c := newCircuit(t, kern, kern, 3, size, byte(bit))
				c.exchange(cmdRelay, 2)
				body, payload := c.seal(cmdRelay, 2)
				body[bit/8] ^= 1 << (bit % 8)
				for range 4 {
					if at := c.forward(cmdRelay, body); at >= 0 {
						t.Fatalf("bit %d flipped, but hop %d recognised the cell or one after it", bit, at)
					}
					if !isNoise(body[TagSize:], payload) {
						t.Fatalf("bit %d flipped, but the payload shows", bit)
					}
					body, payload = c.seal(cmdRelay, 2)
				}

				c = newCircuit(t, kern, kern, 3, size, byte(bit))
				c.exchange(cmdRelay, 2)
				// The guard is honest; the flip is on the link before it.
				body = randomBytes(c.r, size)
				payload = bytes.Clone(body[TagSize:])
				c.relay[2].Originate(cmdRelay, body)
				c.relay[1].Backward(cmdRelay, body)
				body[bit/8] ^= 1 << (bit % 8)
				c.relay[0].Backward(cmdRelay, body)
				for range 4 {
					if from := c.open(cmdRelay, body); from >= 0 {
						t.Fatalf("bit %d flipped, but the client took the cell or one after it as from hop %d", bit, from)
					}
					if !isNoise(body[TagSize:], payload) {
						t.Fatalf("bit %d flipped, but the payload shows", bit)
					}
					body, payload = c.reply(cmdRelay, 2)
				}
			}
		})
	}
}

// TestBackwardFlipOnTheLastLink alters a cell where no honest hop is left: the
// payload may show, but the client refuses it and all later ones.
func TestBackwardFlipOnTheLastLink(t *testing.T) {
	t.Parallel()
	for _, bit := range []int{0, 127, 128, 8*cellBodySize - 1} {
		c := newCircuit(t, best, best, 3, cellBodySize, 1)
		body, _ := c.reply(cmdRelay, 2)
		body[bit/8] ^= 1 << (bit % 8)
		for range 4 {
			if from := c.open(cmdRelay, body); from >= 0 {
				t.Fatalf("bit %d flipped, but the client took a cell as from hop %d", bit, from)
			}
			body, _ = c.reply(cmdRelay, 2)
		}
	}
}

// TestReplayDropReorder checks that each of them is noticed with the first cell
// concerned, in both directions, and that the direction does not recover.
func TestReplayDropReorder(t *testing.T) {
	t.Parallel()
	faults := map[string]func(cells [][]byte) [][]byte{
		"replay":     func(c [][]byte) [][]byte { return [][]byte{c[0], c[1], c[1], c[2], c[3], c[4]} },
		"old replay": func(c [][]byte) [][]byte { return [][]byte{c[0], c[1], c[0], c[2], c[3], c[4]} },
		"drop":       func(c [][]byte) [][]byte { return [][]byte{c[0], c[1], c[3], c[4]} },
		"reorder":    func(c [][]byte) [][]byte { return [][]byte{c[0], c[1], c[3], c[2], c[4]} },
	}
	directions := map[string]struct {
		send    func(c *circuit) ([]byte, []byte)
		receive func(c *circuit, body []byte) int
	}{
		"forward": {
			func(c *circuit) ([]byte, []byte) { return c.seal(cmdRelay, 2) },
			func(c *circuit, body []byte) int { return c.forward(cmdRelay, body) },
		},
		"backward": {
			func(c *circuit) ([]byte, []byte) { return c.reply(cmdRelay, 2) },
			func(c *circuit, body []byte) int { return c.open(cmdRelay, body) },
		},
	}
	for name, fault := range faults {
		for direction, d := range directions {
			t.Run(name+" "+direction, func(t *testing.T) {
				t.Parallel()
				c := newCircuit(t, best, best, 3, cellBodySize, 1)
				var cells [][]byte
				for range 5 {
					body, _ := d.send(c)
					cells = append(cells, body)
				}
				for i, cell := range fault(cells) {
					at := d.receive(c, bytes.Clone(cell))
					if i < 2 && at != 2 {
						t.Fatalf("cell %d, before the fault, was not recognised", i)
					}
					if i >= 2 && at >= 0 {
						t.Fatalf("cell %d, after the fault, was recognised by hop %d", i, at)
					}
				}
			})
		}
	}
}

// TestCommandIsAuthenticated checks that a relay that changes the command of a
// link cell breaks the circuit, and that the same one for all works.
func TestCommandIsAuthenticated(t *testing.T) {
	t.Parallel()
	c := newCircuit(t, best, best, 3, cellBodySize, 1)
	c.exchange(cmdRelayEarly, 2)
	c.exchange(cmdRelay, 1)

	body, payload := c.seal(cmdRelayEarly, 2)
	if c.relay[0].Forward(cmdRelayEarly, body) || c.relay[1].Forward(cmdRelay, body) || c.relay[2].Forward(cmdRelay, body) {
		t.Error("a cell whose command changed on its way was recognised")
	}
	if !isNoise(body[TagSize:], payload) {
		t.Error("the payload of a cell whose command changed shows")
	}
	body, _ = c.seal(cmdRelay, 2)
	if c.forward(cmdRelay, body) >= 0 {
		t.Error("a cell after one whose command changed was recognised")
	}

	body, _ = c.reply(cmdRelay, 2)
	if c.open(cmdRelayEarly, body) >= 0 {
		t.Error("the client took a cell whose command changed")
	}
}

// TestDirectionsAreSeparate checks that cells do not pass in the other
// direction, and that a broken direction leaves the other alone.
func TestDirectionsAreSeparate(t *testing.T) {
	t.Parallel()
	c := newCircuit(t, best, best, 1, cellBodySize, 1)
	body, _ := c.seal(cmdRelay, 0)
	if c.open(cmdRelay, body) >= 0 {
		t.Error("the client took its own cell")
	}
	for range 3 {
		body, _ = c.seal(cmdRelay, 0)
		c.forward(cmdRelay, body)
	}
	c = newCircuit(t, best, best, 3, cellBodySize, 1)
	if c.forward(cmdRelay, randomBytes(c.r, cellBodySize)) >= 0 {
		t.Error("noise was recognised")
	}
	body, _ = c.reply(cmdRelay, 2)
	if c.open(cmdRelay, body) != 2 {
		t.Error("noise forward broke the backward direction")
	}
}

// TestForwardSecrecy checks that the state after a cell does not open it again:
// keys and nonce of the direction have all changed.
func TestForwardSecrecy(t *testing.T) {
	t.Parallel()
	for _, kern := range kernels() {
		c := newCircuit(t, kern, kern, 1, cellBodySize, 1)
		r, cl := c.relay[0], c.client[0]
		layers := map[string]*layer{"relay": &r.forward, "client": &cl.forward}
		before := map[string]layer{"relay": r.forward, "client": cl.forward}
		for role, l := range before {
			x := *l.expanded
			l.expanded = &x
			before[role] = l
		}
		body, _ := c.seal(cmdRelay, 0)
		if c.forward(cmdRelay, body) != 0 {
			t.Fatal("not recognised")
		}
		for role, l := range layers {
			old := before[role]
			if kern != (portable{}) && (l.kb.enc == old.kb.enc || l.k.enc == old.k.enc || l.kb.dec == old.kb.dec) ||
				l.ku.powers[hashPowers-1] == old.ku.powers[hashPowers-1] || l.b == old.b || l.nonce == old.nonce {
				t.Errorf("%s, %s: a key survived the update", kern.name(), role)
			}
			if l.keys != [layerKeySize]byte{} {
				t.Errorf("%s, %s: the new keys were left in the working space", kern.name(), role)
			}
		}
		if !sameKeys(&r.forward, &cl.forward) || r.forward.nonce != cl.forward.nonce || r.forward.chain != cl.forward.chain {
			t.Errorf("%s: the two ends have different states", kern.name())
		}
	}
}

// TestConstructorsCheckSizes covers the errors of the constructors.
func TestConstructorsCheckSizes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name           string
		bodySize, keys int
		ok             bool
	}{
		{"cell", cellBodySize, KeyMaterialSize, true},
		{"smallest", MinBodySize, KeyMaterialSize, true},
		{"largest", MaxBodySize, KeyMaterialSize, true},
		{"no keys", cellBodySize, 0, false},
		{"one key byte missing", cellBodySize, KeyMaterialSize - 1, false},
		{"one key byte too many", cellBodySize, KeyMaterialSize + 1, false},
		{"no payload", TagSize, KeyMaterialSize, false},
		{"negative", -1, KeyMaterialSize, false},
		{"counter too long", MaxBodySize + 1, KeyMaterialSize, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, err := NewRelay(test.bodySize, make([]byte, test.keys))
			if (err == nil) != test.ok || (r != nil) != test.ok {
				t.Errorf("NewRelay: %v, %v", r, err)
			}
			c, err := NewClient(test.bodySize, make([]byte, test.keys))
			if (err == nil) != test.ok || (c != nil) != test.ok {
				t.Errorf("NewClient: %v, %v", c, err)
			}
		})
	}
}

// TestKeysAreCopied checks that the caller may wipe its key material.
func TestKeysAreCopied(t *testing.T) {
	t.Parallel()
	keys := randomBytes(newRand(1), KeyMaterialSize)
	r, err1 := NewRelay(cellBodySize, keys)
	c, err2 := NewClient(cellBodySize, keys)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	clear(keys)
	body := make([]byte, cellBodySize)
	c.Originate(cmdRelay, body)
	if !r.Forward(cmdRelay, body) {
		t.Error("not recognised")
	}
	other, err := NewRelay(cellBodySize, keys)
	if err != nil {
		t.Fatal(err)
	}
	if other.Forward(cmdRelay, make([]byte, cellBodySize)) {
		t.Error("a relay with the wiped keys recognised a cell")
	}
}

// panics reports whether f does.
func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// operations lists every method that takes a body.
func operations(r *Relay, c *Client) map[string]func(body []byte) {
	return map[string]func(body []byte){
		"Relay.Forward":    func(b []byte) { r.Forward(cmdRelay, b) },
		"Relay.Backward":   func(b []byte) { r.Backward(cmdRelay, b) },
		"Relay.Originate":  func(b []byte) { r.Originate(cmdRelay, b) },
		"Client.Forward":   func(b []byte) { c.Forward(cmdRelay, b) },
		"Client.Backward":  func(b []byte) { c.Backward(cmdRelay, b) },
		"Client.Originate": func(b []byte) { c.Originate(cmdRelay, b) },
	}
}

// TestMisusePanics checks that a body of the wrong size, and any use after
// Erase, panic before anything is written.
func TestMisusePanics(t *testing.T) {
	t.Parallel()
	keys := make([]byte, KeyMaterialSize)
	r, err1 := NewRelay(cellBodySize, keys)
	c, err2 := NewClient(cellBodySize, keys)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for name, op := range operations(r, c) {
		for _, n := range []int{0, TagSize, cellBodySize - 1, cellBodySize + 1} {
			body := make([]byte, n)
			if !panics(func() { op(body) }) {
				t.Errorf("%s took a body of %d bytes", name, n)
			}
			if !bytes.Equal(body, make([]byte, n)) {
				t.Errorf("%s wrote to a body that it refused", name)
			}
		}
		if panics(func() { op(make([]byte, cellBodySize)) }) {
			t.Errorf("%s refused a body of the right size", name)
		}
	}
	r.Erase()
	c.Erase()
	r.Erase()
	c.Erase()
	for name, op := range operations(r, c) {
		for _, n := range []int{0, cellBodySize} {
			if !panics(func() { op(make([]byte, n)) }) {
				t.Errorf("%s worked after Erase", name)
			}
		}
	}
	for i, l := range []*layer{&r.forward, &r.backward, &c.forward, &c.backward} {
		if *l != (layer{bodySize: -1}) {
			t.Errorf("layer %d keeps something after Erase", i)
		}
	}
}

// TestNoAllocation holds the forward path to no allocation a cell. The portable
// kernel may allocate only where keys change.
func TestNoAllocation(t *testing.T) {
	for _, kern := range kernels() {
		keys := randomBytes(newRand(1), KeyMaterialSize)
		r, err1 := newRelay(kern, cellBodySize, keys)
		c, err2 := newClient(kern, cellBodySize, keys)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, cellBodySize)
		const recognised = "Client.Originate and Relay.Forward"
		ops := operations(r, c)
		r2, err1 := newRelay(kern, cellBodySize, keys)
		c2, err2 := newClient(kern, cellBodySize, keys)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		ops[recognised] = func(b []byte) {
			c2.Originate(cmdRelay, b)
			if !r2.Forward(cmdRelay, b) {
				t.Error("not recognised")
			}
		}
		for name, op := range ops {
			switch name {
			case "Relay.Originate", "Client.Originate", recognised:
				if kern == (portable{}) {
					continue
				}
			}
			if n := testing.AllocsPerRun(100, func() { op(body) }); n != 0 {
				t.Errorf("%s, %s: %v allocations a cell, want none", kern.name(), name, n)
			}
		}
	}
}

// FuzzForward feeds a relay what a hostile neighbour may send: it must never
// panic and never recognise it, and a later cell of the client must not get
// through.
func FuzzForward(f *testing.F) {
	f.Add(byte(cmdRelay), []byte{})
	f.Add(byte(cmdRelayEarly), make([]byte, cellBodySize))
	f.Fuzz(func(t *testing.T, cmd byte, data []byte) {
		c := newCircuit(t, best, best, 3, cellBodySize, 1)
		body := make([]byte, cellBodySize)
		copy(body, data)
		if at := c.forward(cmd, body); at >= 0 {
			t.Fatalf("hop %d recognised a forged cell", at)
		}
		body, _ = c.seal(cmdRelay, 2)
		if at := c.forward(cmdRelay, body); at >= 0 {
			t.Fatalf("hop %d recognised a cell after a forged one", at)
		}
	})
}

// FuzzBackward feeds a client what a hostile guard may send.
func FuzzBackward(f *testing.F) {
	f.Add(byte(cmdRelay), []byte{})
	f.Add(byte(cmdRelayEarly), make([]byte, cellBodySize))
	f.Fuzz(func(t *testing.T, cmd byte, data []byte) {
		c := newCircuit(t, best, best, 3, cellBodySize, 1)
		body := make([]byte, cellBodySize)
		copy(body, data)
		for _, r := range c.relay[:2] {
			r.Backward(cmd, bytes.Clone(body))
		}
		if from := c.open(cmd, body); from >= 0 {
			t.Fatalf("a forged cell was taken as from hop %d", from)
		}
		body, _ = c.reply(cmdRelay, 2)
		if from := c.open(cmdRelay, body); from >= 0 {
			t.Fatalf("a cell after a forged one was taken as from hop %d", from)
		}
	})
}

// FuzzKernels compares the kernels on whole layers.
func FuzzKernels(f *testing.F) {
	f.Add(make([]byte, 80), make([]byte, 40), byte(0))
	f.Add([]byte{1}, bytes.Repeat([]byte{0xff}, 600), byte(255))
	f.Fuzz(func(t *testing.T, seed, body []byte, cmd byte) {
		if len(body) < MinBodySize || len(body) > MaxBodySize {
			return
		}
		var keys [layerKeySize]byte
		copy(keys[:], seed)
		var want []byte
		for _, kern := range kernels() {
			var l layer
			l.init(kern, len(body), &keys)
			got := bytes.Clone(body)
			l.encrypt(cmd, got)
			got = append(got, l.chain[:]...)
			l.update()
			l.decrypt(cmd, got[:len(body)])
			if want == nil {
				want = got
			} else if !bytes.Equal(got, want) {
				t.Fatalf("kernel %s differs from %s", kern.name(), kernels()[0].name())
			}
		}
	})
}
