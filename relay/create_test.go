package relay

import (
	"net/netip"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/flow"
	"cepa/onion/ntor"
)

func TestCreateOpensACircuit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", nil)
	h := w.client("client").build(s)
	if h.created.Type != ntor.HandshakeType || s.relay.Stats().Circuits != 1 || s.relay.Stats().Handshakes != 1 {
		t.Errorf("answer of type %d, %+v", h.created.Type, s.relay.Stats())
	}
	h.destroy()
	w.quiet()
}

// TestCreateRefused gives the reason that each kind of bad CREATE is answered with.
func TestCreateRefused(t *testing.T) {
	t.Parallel()
	windows := ntor.Extension{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(flow.ClientWindows)}
	for name, c := range map[string]struct {
		extensions []ntor.Extension
		htype      uint16
		alter      func(message []byte) []byte
		want       cell.Reason
	}{
		"unknown handshake type":   {htype: 77, want: cell.ReasonUnsupported},
		"no extension":             {extensions: []ntor.Extension{}, want: cell.ReasonUnsupported},
		"unknown extension":        {extensions: []ntor.Extension{windows, {Type: 99, Data: []byte("x")}}, want: cell.ReasonUnsupported},
		"another extension":        {extensions: []ntor.Extension{{Type: 99}}, want: cell.ReasonUnsupported},
		"windows of a wrong size":  {extensions: []ntor.Extension{{Type: flow.ExtensionWindows, Data: make([]byte, 7)}}, want: cell.ReasonProtocol},
		"windows of nothing":       {extensions: []ntor.Extension{{Type: flow.ExtensionWindows, Data: make([]byte, 8)}}, want: cell.ReasonProtocol},
		"a flipped bit":            {alter: func(m []byte) []byte { m[len(m)-1] ^= 1; return m }, want: cell.ReasonBadHandshake},
		"the identity of another":  {alter: func(m []byte) []byte { m[0] ^= 1; return m }, want: cell.ReasonBadHandshake},
		"an onion key of the past": {alter: func(m []byte) []byte { m[32] ^= 1; return m }, want: cell.ReasonBadHandshake},
		"a truncated handshake":    {alter: func(m []byte) []byte { return m[:100] }, want: cell.ReasonBadHandshake},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			s := w.add("relay", nil)
			h := w.client("client")
			_, message := h.offer(s, c.extensions...)
			if c.extensions != nil && len(c.extensions) == 0 {
				var err error
				if _, message, err = ntor.NewClient(h.node.Env.Rand, s.node.Identity, s.key.Public(), w.id, nil); err != nil {
					t.Fatal(err)
				}
			}
			if c.alter != nil {
				message = c.alter(message)
			}
			htype := ntor.HandshakeType
			if c.htype != 0 {
				htype = c.htype
			}
			h.knock(s, htype, message)
			if h.created != nil || *h.destroyed != c.want {
				t.Errorf("created %v, destroyed %v, want %v", h.created != nil, h.destroyed, c.want)
			}
			if r := s.relay.Stats(); r.Refused+r.BadHandshakes != 1 || r.Circuits != 0 {
				t.Errorf("%+v", r)
			}
			w.quiet()
		})
	}
}

// TestExtensionTwice: asking for the same thing twice is not less than asking for the unknown.
func TestExtensionTwice(t *testing.T) {
	t.Parallel()
	windows := ntor.Extension{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(flow.ClientWindows)}
	cm, err := ntor.AppendExtensions(nil, []ntor.Extension{windows})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := negotiate(append(cm, cm...), flow.ExitWindows); err == nil {
		t.Error("the windows were taken twice")
	}
	if _, _, err := negotiate(cm[:len(cm)-1], flow.ExitWindows); err == nil {
		t.Error("truncated extensions were taken")
	}
}

// TestCreateRate: a neighbour that asks too often is told so, and does not harm another.
func TestCreateRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", func(s *station) {
		s.limits.CreateRate, s.limits.CreateBurst = 1, 3
		s.limits.ListedRate, s.limits.ListedBurst = 1, 3
	})
	mallory := w.rogue("mallory")
	_, message := mallory.offer(s)
	message[len(message)-1] ^= 1 // a bad one counts too
	for i, want := range []cell.Reason{cell.ReasonBadHandshake, cell.ReasonBadHandshake, cell.ReasonBadHandshake, cell.ReasonRateLimited} {
		mallory.knock(s, ntor.HandshakeType, message)
		if *mallory.destroyed != want {
			t.Fatalf("CREATE %d: %v, want %v", i, *mallory.destroyed, want)
		}
	}
	other := w.rogue("other").build(s)
	other.destroy()
	w.f.Run(1100 * time.Millisecond)
	mallory.build(s)
	mallory.destroy()
	w.quiet()
}

// TestClientsOfOneSiteShareARate: whoever has one address of a /24 has them all.
func TestClientsOfOneSiteShareARate(t *testing.T) {
	t.Parallel()
	one := &env.Peer{Address: addrPort("198.51.100.7:1000")}
	two := &env.Peer{Address: addrPort("198.51.100.200:2000")}
	far := &env.Peer{Address: addrPort("198.51.101.7:1000")}
	six := &env.Peer{Address: addrPort("[2a00:1:2:3::7]:1000")}
	six2 := &env.Peer{Address: addrPort("[2a00:1:2:4::8]:1000")}
	mapped := &env.Peer{Address: addrPort("[::ffff:198.51.100.9]:1000")}
	known := &env.Peer{Address: one.Address, Identity: [32]byte{1}}
	unknown := &env.Peer{Address: one.Address, Identity: [32]byte{2}}
	r := New(Config{Directory: listing{known.Identity}})
	key := func(p *env.Peer) string { k, _ := r.neighbour(p); return k }
	if key(one) != key(two) || key(six) != key(six2) || key(one) != key(mapped) {
		t.Error("addresses of one site count apart")
	}
	if key(one) == key(far) || key(one) == key(six) {
		t.Error("addresses of two sites count together")
	}
	if _, listed := r.neighbour(known); !listed || key(known) == key(one) {
		t.Error("a relay of the consensus counts with the clients of its site")
	}
	if _, listed := r.neighbour(unknown); listed || key(unknown) != key(one) {
		t.Error("an identity that anybody can make counts by itself")
	}
}

// listing is a Directory of which only the relay in it is known.
type listing struct{ id cert.Identity }

func (l listing) InConsensus(id cert.Identity) bool            { return id == l.id }
func (l listing) Addresses(cert.Identity) []netip.AddrPort     { return nil }
func (l listing) IsRelayAddress(netip.AddrPort) bool           { return false }
func (l listing) Serve([]byte, *env.Peer, func(answer []byte)) {}

// heldPool keeps computations until the test lets them go.
type heldPool struct {
	env.Pool
	held []func()
}

func (p *heldPool) Offload(work, done func()) {
	p.held = append(p.held, func() { p.Pool.Offload(work, done) })
}

// TestHandshakeQueue: CREATEs wait in a bounded queue for a bounded time, and one that was
// destroyed while it waited costs nothing.
func TestHandshakeQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	pool := &heldPool{}
	s := w.add("relay", func(s *station) {
		pool.Pool = s.node.Env.Pool
		s.node.Env.Pool = pool
		s.limits.HandshakesRunning, s.limits.HandshakesWaiting, s.limits.HandshakeAge = 1, 2, time.Second
	})
	var hands []*hand
	for i := range 5 {
		h := w.client(string(rune('a' + i)))
		_, message := h.offer(s)
		w.f.Do(func() {
			h.links.To(s.node.Target(), func(l *flow.Link, err error) {
				if err != nil {
					t.Error(err)
					return
				}
				h.leg, _ = l.Create(h, ntor.HandshakeType, message)
			})
		})
		w.f.Run(100 * time.Millisecond)
		hands = append(hands, h)
	}
	// One runs, two wait, two were refused.
	if len(pool.held) != 1 || len(s.relay.waiting) != 2 {
		t.Fatalf("%d running, %d waiting", len(pool.held), len(s.relay.waiting))
	}
	for i, h := range hands {
		if refused := h.destroyed != nil; refused != (i >= 3) || refused && *h.destroyed != cell.ReasonResource {
			t.Errorf("CREATE %d: destroyed %v", i, h.destroyed)
		}
	}
	hands[1].destroy()
	w.f.Run(time.Second) // hands[2] is too old now
	release := func() {
		work := pool.held[0]
		pool.held = pool.held[1:]
		w.f.Do(work)
		w.f.Run(100 * time.Millisecond)
	}
	release()
	if hands[0].created == nil {
		t.Error("the CREATE in the pool was not answered")
	}
	if hands[2].destroyed == nil || *hands[2].destroyed != cell.ReasonResource || len(pool.held) != 0 {
		t.Errorf("the CREATE that waited too long: %v, %d in the pool", hands[2].destroyed, len(pool.held))
	}
	if r := s.relay.Stats(); r.Refused != 3 || r.Handshakes != 1 {
		t.Errorf("%+v", r)
	}
	// Destroyed while in the pool: nothing comes of it.
	hands[3].hops, hands[3].destroyed = nil, nil
	_, message := hands[3].offer(s)
	w.f.Do(func() {
		hands[3].leg, _ = hands[3].links.Open(s.node.Identity).Create(hands[3], ntor.HandshakeType, message)
	})
	w.f.Run(100 * time.Millisecond)
	hands[3].destroy()
	w.f.Run(100 * time.Millisecond)
	release()
	if hands[3].created != nil || s.relay.Stats().Circuits != 1 {
		t.Error("a circuit that was destroyed was opened")
	}
	hands[0].destroy()
	w.quiet()
}

// TestRelayBeforeCreated: cells for a circuit whose handshake is not answered end it.
func TestRelayBeforeCreated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", nil)
	c := &circuit{relay: s.relay}
	(*prevLeg)(c).OnCell(cell.CommandRelay, make([]byte, cell.BodySize))
	if !c.dead || s.relay.Stats().Violations != 1 {
		t.Error("a cell before CREATED was taken")
	}
	if (*prevLeg)(&circuit{relay: s.relay}).Pending() {
		t.Error("a circuit without keys has something to send")
	}
}
