package circuit

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
	"cepa/env/envtest"
)

var seeds = flag.Int("seeds", 8, "runs of each test with random faults")

// keyed returns a circuit that carries streams.
func (x *testClient) keyed() *pooled {
	for _, p := range x.c.circuits {
		if p.keyed && p.open && p.live > 0 {
			return p
		}
	}
	return nil
}

// TestOneRelayFails takes away the guard, the middle or the exit of a circuit in use, in two
// ways, at any moment. Streams get exactly one definite end and never wrong bytes, and whoever
// asks after the failure is served within 5 seconds.
func TestOneRelayFails(t *testing.T) {
	t.Parallel()
	for position, name := range []string{"guard", "middle", "exit"} {
		for _, vanish := range []bool{false, true} {
			for seed := range *seeds {
				t.Run(fmt.Sprintf("%s/vanish=%v/%d", name, vanish, seed), func(t *testing.T) {
					t.Parallel()
					failOne(t, uint64(seed), position, vanish)
				})
			}
		}
	}
}

func failOne(t *testing.T, seed uint64, position int, vanish bool) {
	rng := rand.New(rand.NewPCG(seed, uint64(position)))
	w := newWorld(t, seed, 7, 3)
	w.f.Rate = 4 << 20
	w.echo(server)
	x := w.newClient(nil)
	if rng.IntN(2) == 0 {
		w.f.Run(time.Second) // spare circuits are there
	}
	var old []*app
	for i := range 6 {
		old = append(old, x.open(web(server, fmt.Sprint(i%3)), pattern(seed, 200<<10+i)))
	}
	if !w.f.RunUntil(10*time.Second, func() bool { return x.keyed() != nil }) {
		t.Fatal("no circuit came to be used")
	}
	w.f.Run(time.Duration(rng.IntN(800)) * time.Millisecond)
	victim := w.relays[rng.IntN(7)]
	if p := x.keyed(); p != nil {
		victim = w.find(p.path[position].identity)
	}
	if vanish {
		victim.node.Vanish(true)
	} else {
		victim.node.Stop()
	}
	failed := w.f.Now()
	var young []*app
	for i := range 8 {
		young = append(young, x.open(web(server, fmt.Sprint(i%4)), pattern(seed, 3000)))
		w.f.Run(time.Duration(rng.IntN(1000)) * time.Millisecond)
	}
	w.f.RunUntil(5*time.Second, func() bool {
		for _, a := range young {
			if !a.over() {
				return false
			}
		}
		return true
	})
	for i, a := range young {
		if a.dones != 1 || a.err != nil {
			t.Errorf("request %d after the failure: %d outcomes, %v", i, a.dones, a.err)
		} else if took := a.at.Sub(failed); a.near == nil || took > 12*time.Second {
			t.Errorf("request %d after the failure: connected after %v", i, took)
		}
		if s := a.probe.State(); s.Downs == 0 && !bytes.Equal(s.Received, a.send) {
			t.Errorf("request %d after the failure: %d of %d bytes", i, len(s.Received), len(a.send))
		}
	}
	w.f.Run(30 * time.Second)
	for i, a := range old {
		s := a.probe.State()
		if a.dones != 1 || !a.over() {
			t.Errorf("stream %d before the failure: %d outcomes, over %v", i, a.dones, a.over())
		}
		if !bytes.HasPrefix(a.send, s.Received) || s.EOFs > 0 && s.Downs == 0 && a.err == nil && len(s.Received) != len(a.send) {
			t.Errorf("stream %d before the failure: wrong bytes, or an end that looks right too early", i)
		}
	}
	x.quiet(t)
}

// quiet checks that nothing is left of streams that have ended.
func (x *testClient) quiet(t *testing.T) {
	t.Helper()
	if s := x.c.Stats(); s.Streams != 0 || s.Waiting != 0 || x.c.requests != 0 || len(x.c.live) != 0 {
		t.Errorf("left over: %+v, %d requests, %d live", s, x.c.requests, len(x.c.live))
	}
	for _, p := range x.c.circuits {
		if p.live != 0 {
			t.Errorf("circuit %d counts %d streams", p.id, p.live)
		}
	}
	for _, g := range x.c.guards.sample {
		n := 0
		for _, p := range x.c.circuits {
			if p.guard == g && len(p.circuit.layers) == 0 {
				n++
			}
		}
		if n != g.trying {
			t.Errorf("a guard counts %d circuits instead of %d", g.trying, n)
		}
	}
	if err := x.links.Check(); err != nil {
		t.Error(err)
	}
}

// TestEachRequestIsServedSoon measures how long requests wait while one relay has failed and
// the links have not noticed yet.
func TestEachRequestIsServedSoon(t *testing.T) {
	t.Parallel()
	for position, name := range []string{"guard", "middle", "exit"} {
		for _, vanish := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/vanish=%v", name, vanish), func(t *testing.T) {
				t.Parallel()
				var worst time.Duration
				for seed := range uint64(*seeds) {
					w := newWorld(t, seed, 7, 3)
					w.echo(server)
					x := w.newClient(nil)
					if err := x.carry(10*time.Second, []byte("first")); err != nil {
						t.Fatal(err)
					}
					var victim *testRelay
					for _, p := range x.c.circuits {
						if p.keyed {
							victim = w.find(p.path[position].identity)
						}
					}
					if vanish {
						victim.node.Vanish(true)
					} else {
						victim.node.Stop()
					}
					for i := range 6 {
						from := w.f.Now()
						a := x.open(web(server, ""), []byte("more"))
						if !w.f.RunUntil(20*time.Second, a.over) || a.err != nil {
							t.Fatalf("seed %d: request %d: %v", seed, i, a.err)
						}
						took := w.f.Now().Sub(from)
						if took > 5*time.Second {
							t.Logf("seed %d request %d: %v; %+v", seed, i, took, x.c.Stats())
						}
						worst = max(worst, took)
						w.f.Run(300 * time.Millisecond)
					}
				}
				t.Logf("longest wait %v", worst)
				if worst > 5*time.Second {
					t.Errorf("a request waited %v", worst)
				}
			})
		}
	}
}

// TestOneFlippedBit alters one bit of one cell at one relay: the circuit ends, nothing wrong
// reaches the application, and the next request is served.
func TestOneFlippedBit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*seeds) {
		rng := rand.New(rand.NewPCG(seed, 9))
		w := newWorld(t, seed, 7, 3)
		w.echo(server)
		x := w.newClient(func(c *Config) { c.Limits.Spares = 0 }) // no circuit but the one that is meant
		a := x.open(web(server, ""), pattern(seed, 3<<20))
		if !w.f.RunUntil(10*time.Second, func() bool { return len(a.probe.State().Received) > 20<<10 }) {
			t.Fatal("no transfer")
		}
		p := x.keyed()
		position := rng.IntN(3)
		r := w.find(p.path[position].identity)
		flipped := false
		towards := rng.IntN(2) == 0 // cells that come from the side of the client
		r.tamper = func(from *env.Peer, cells []byte) {
			if flipped || towards != x.isBefore(p, position, from) {
				return
			}
			for at := 0; at < len(cells); at += cell.Size {
				if h, err := cell.DecodeHeader(cells[at:]); err == nil && (h.Command == cell.CommandRelay || h.Command == cell.CommandRelayEarly) {
					bit := rng.IntN(cell.BodySize * 8)
					cells[at+cell.HeaderSize+bit/8] ^= 1 << (bit % 8)
					flipped = true
					return
				}
			}
		}
		w.f.RunUntil(10*time.Second, func() bool { return flipped && a.over() })
		s := a.probe.State()
		if towards || position < 2 { // the exit has nothing behind it that sends cells
			if !flipped || s.Downs != 1 || !bytes.HasPrefix(a.send, s.Received) || len(s.Received) == len(a.send) {
				t.Errorf("seed %d, position %d, towards %v: flipped %v, %d bytes, down %d", seed, position, towards, flipped, len(s.Received), s.Downs)
			}
		}
		if err := x.carry(10*time.Second, []byte("again")); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		w.f.Run(time.Minute)
		x.quiet(t)
	}
}

// isBefore says whether a neighbour of the relay at a position is on the client's side of it.
func (x *testClient) isBefore(p *pooled, position int, from *env.Peer) bool {
	if position == 0 {
		return from.Client()
	}
	return from.Identity == p.path[position-1].identity
}

// TestOnlyOneConnectionGetsBytes: attempts beside each other may reach the destination several
// times, when a relay that was stopped goes on. Only one connection carries bytes, and no
// other stays.
func TestOnlyOneConnectionGetsBytes(t *testing.T) {
	t.Parallel()
	several := 0
	for seed := range uint64(*seeds) {
		w := newWorld(t, seed, 7, 3)
		x := w.newClient(nil)
		var conns []*envtest.ConnProbe
		w.f.Listen(server, func(c env.Conn) env.ConnEvents {
			p := &envtest.ConnProbe{}
			p.EOF = func() { c.CloseWrite() }
			conns = append(conns, p)
			c.Pause(false)
			return p
		})
		w.f.Run(time.Second)
		var stopped []*testRelay
		for _, p := range x.c.circuits {
			if r := w.find(p.exit.identity); p.open && len(stopped) == 0 {
				r.node.Vanish(true)
				stopped = append(stopped, r)
			}
		}
		a := x.open(web(server, ""), pattern(seed, 5000))
		w.f.Run(6 * time.Second)
		for _, r := range stopped {
			r.node.Vanish(false)
		}
		w.f.Run(2 * time.Minute)
		if a.dones != 1 || a.err != nil {
			t.Fatalf("seed %d: %d outcomes, %v", seed, a.dones, a.err)
		}
		full := 0
		for _, p := range conns {
			s := p.State()
			if bytes.Equal(s.Received, a.send) {
				full++
			} else if len(s.Received) > 0 || s.Downs+s.EOFs == 0 {
				t.Errorf("seed %d: another connection got %d bytes, and ended %d times", seed, len(s.Received), s.Downs+s.EOFs)
			}
		}
		if full != 1 {
			t.Errorf("seed %d: %d connections got the bytes", seed, full)
		}
		several += len(conns) - 1
		x.quiet(t)
	}
	if several == 0 {
		t.Error("no second connection: the test shows nothing")
	}
}
