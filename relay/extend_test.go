package relay

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/flow"
	"cepa/onion/ntor"
)

func TestExtendTwoHops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b, c := w.add("a", nil), w.add("b", nil), w.add("c", nil)
	h := w.client("client").build(a, b, c)
	for _, s := range w.relays {
		if got := s.relay.Stats(); got.Circuits != 1 || got.Violations != 0 {
			t.Errorf("%s: %+v", s.node.Name, got)
		}
	}
	h.destroy()
	w.quiet()
}

// TestExtendRefused gives the reason in EXTEND_FAILED for each thing that a relay does not
// extend to, and shows that the circuit stands as it was.
func TestExtendRefused(t *testing.T) {
	t.Parallel()
	stranger := cert.Identity{7}
	for name, c := range map[string]struct {
		test   bool
		to     func(w *world, h *hand, s *station) (cert.Identity, []netip.AddrPort)
		change func(s *station)
		want   cell.Reason
	}{
		"to itself": {true, func(_ *world, _ *hand, s *station) (cert.Identity, []netip.AddrPort) {
			return s.node.Identity, []netip.AddrPort{s.node.Address}
		}, nil, cell.ReasonNoSuchRelay},
		"to nobody": {true, func(_ *world, _ *hand, s *station) (cert.Identity, []netip.AddrPort) {
			return cert.Identity{}, []netip.AddrPort{addrPort("45.0.0.9:9001")}
		}, nil, cell.ReasonNoSuchRelay},
		"to the previous hop": {true, func(_ *world, h *hand, s *station) (cert.Identity, []netip.AddrPort) {
			return h.node.Identity, []netip.AddrPort{h.node.Address}
		}, nil, cell.ReasonNoSuchRelay},
		"nobody listens": {true, func(*world, *hand, *station) (cert.Identity, []netip.AddrPort) {
			return stranger, []netip.AddrPort{addrPort("45.0.0.9:9001")}
		}, nil, cell.ReasonConnectFailed},
		"nobody answers": {true, func(w *world, _ *hand, _ *station) (cert.Identity, []netip.AddrPort) {
			w.f.Silence(addrPort("45.0.0.9:9001"))
			return stranger, []netip.AddrPort{addrPort("45.0.0.9:9001")}
		}, func(s *station) { s.limits.ExtendTimeout = 3 * time.Second }, cell.ReasonTimeout},
		"another relay answers": {true, func(w *world, _ *hand, _ *station) (cert.Identity, []netip.AddrPort) {
			return stranger, []netip.AddrPort{w.add("other", nil).node.Address}
		}, nil, cell.ReasonWrongIdentity},
		"a loopback address": {false, func(*world, *hand, *station) (cert.Identity, []netip.AddrPort) {
			return stranger, []netip.AddrPort{addrPort("127.0.0.1:22"), addrPort("[::1]:22")}
		}, nil, cell.ReasonNoSuchRelay},
		"private addresses": {false, func(*world, *hand, *station) (cert.Identity, []netip.AddrPort) {
			return stranger, []netip.AddrPort{addrPort("10.1.2.3:22"), addrPort("169.254.169.254:80"), addrPort("[fc00::1]:22"), addrPort("[64:ff9b::a00:1]:22")}
		}, nil, cell.ReasonNoSuchRelay},
		"a private address in a descriptor": {false, func(*world, *hand, *station) (cert.Identity, []netip.AddrPort) {
			return stranger, []netip.AddrPort{addrPort("45.0.0.9:9001")}
		}, func(s *station) { s.addresses[stranger] = []netip.AddrPort{addrPort("192.168.1.1:80")} }, cell.ReasonNoSuchRelay},
		"its own address under another name": {true, func(_ *world, _ *hand, s *station) (cert.Identity, []netip.AddrPort) {
			return stranger, []netip.AddrPort{s.node.Address}
		}, nil, cell.ReasonNoSuchRelay},
		"a relay that does not do this handshake": {true, func(w *world, _ *hand, _ *station) (cert.Identity, []netip.AddrPort) {
			s := w.add("refuses", func(s *station) {
				s.create = func(l *flow.Leg, _ cell.Create) { l.Destroy(cell.ReasonUnsupported) }
			})
			return s.node.Identity, []netip.AddrPort{s.node.Address}
		}, nil, cell.ReasonConnectFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			s := w.add("relay", func(s *station) {
				s.test = c.test
				if c.change != nil {
					c.change(s)
				}
			})
			h := w.rogue("previous").build(s)
			id, at := c.to(w, h, s)
			if _, reason := h.ask(h.extendTo(id, []byte("handshake"), at...)); reason != c.want {
				t.Errorf("EXTEND_FAILED with %v, want %v", reason, c.want)
			}
			if r := s.relay.Stats(); r.Extends != 1 || r.ExtendFailed != 1 || r.Circuits != 1 {
				t.Errorf("%+v", r)
			}
			next := w.add("good", nil)
			if s.addresses[next.node.Identity] = []netip.AddrPort{next.node.Address}; h.extend(next) != cell.ReasonNone {
				t.Error("the circuit cannot be extended any more")
			}
			h.destroy()
			w.quiet()
		})
	}
}

// TestCircuitsEndAtAnAuthority: one that is no relay extends nowhere, also over a link that is open, and serves no
// stream but those of the directory.
func TestCircuitsEndAtAnAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s, next := w.add("authority", func(s *station) { s.directoryOnly, s.policy = true, nil }), w.add("next", nil)
	h := w.rogue("previous").build(s)
	if got := h.extend(next); got != cell.ReasonPolicy {
		t.Errorf("EXTEND: %v", got)
	}
	w.f.Do(func() { s.links.To(next.node.Target(), func(*flow.Link, error) {}) })
	w.f.Run(time.Second)
	if s.links.Open(next.node.Identity) == nil {
		t.Fatal("there is no link")
	}
	if got := h.extend(next); got != cell.ReasonPolicy {
		t.Errorf("EXTEND over an open link: %v", got)
	}
	if _, connected, reason := h.begin("45.1.1.1", 80, cell.AllowIPv4); connected != nil || reason != cell.ReasonPolicy {
		t.Errorf("BEGIN: %v, %v", connected, reason)
	}
	h.destroy()
	w.f.Do(func() { s.links.Open(next.node.Identity).Close(nil) })
	w.quiet()
}

// TestExtendUsesDescriptor: with a descriptor at hand, the addresses that a client names are
// not dialled, and no address of a client's choice is learnt about.
func TestExtendUsesDescriptor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s, next := w.add("relay", nil), w.add("next", nil)
	s.addresses[next.node.Identity] = []netip.AddrPort{next.node.Address}
	h := w.client("client").build(s)
	c, message := h.offer(next)
	answer, reason := h.ask(h.extendTo(next.node.Identity, message, addrPort("45.9.9.9:1")))
	if reason != cell.ReasonNone {
		t.Fatal(reason)
	}
	h.finish(c, answer)
	h.destroy()
	// The other way round: the descriptor's address is dead, the client's would work.
	s.addresses[next.node.Identity] = []netip.AddrPort{addrPort("45.9.9.9:1")}
	s.links.Open(next.node.Identity).Close(nil)
	w.f.Run(time.Second)
	h = w.client("other").build(s)
	if reason := h.extend(next); reason != cell.ReasonConnectFailed {
		t.Errorf("%v: an address of the client's was dialled", reason)
	}
	h.destroy()
	w.quiet()
}

// TestExtendOverOpenLink: an open link authenticated as the identity is used whatever the
// addresses.
func TestExtendOverOpenLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s, next := w.add("relay", func(s *station) { s.test = false }), w.add("next", nil)
	w.f.Connect(next.node, s.node)
	h := w.client("client").build(s)
	c, message := h.offer(next)
	answer, reason := h.ask(h.extendTo(next.node.Identity, message, addrPort("10.0.0.1:1")))
	if reason != cell.ReasonNone {
		t.Fatal(reason)
	}
	h.finish(c, answer)
	h.destroy()
	w.quiet()
}

// TestRelaysAreNoPortScanners: EXTENDs to relays of which nothing is known come out of a
// bucket of the previous hop's.
func TestRelaysAreNoPortScanners(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", func(s *station) { s.limits.UnknownRate, s.limits.UnknownBurst = 0.1, 2 })
	h := w.client("client").build(s)
	for i, want := range []cell.Reason{cell.ReasonConnectFailed, cell.ReasonConnectFailed, cell.ReasonRateLimited} {
		_, reason := h.ask(h.extendTo(cert.Identity{9, byte(i)}, []byte("x"), addrPort("45.9.9.9:22")))
		if reason != want {
			t.Errorf("EXTEND %d: %v, want %v", i, reason, want)
		}
	}
	known := w.add("known", nil)
	s.addresses[known.node.Identity] = []netip.AddrPort{known.node.Address}
	if reason := h.extend(known); reason != cell.ReasonNone {
		t.Errorf("EXTEND to a relay with a descriptor: %v", reason)
	}
	h.destroy()
	w.quiet()
}

// TestExtendViolations are EXTENDs that end the circuit.
func TestExtendViolations(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(w *world, h *hand, extend cell.Message){
		"late": func(w *world, h *hand, extend cell.Message) {
			h.send(cell.CommandRelay, extend)
		},
		"after the eighth cell": func(w *world, h *hand, extend cell.Message) {
			for range 8 {
				h.send(cell.CommandRelayEarly, cell.Message{Command: cell.MessageBeginDir, Stream: h.next()})
			}
			h.send(cell.CommandRelayEarly, extend)
		},
		"twice": func(w *world, h *hand, extend cell.Message) {
			w.f.Silence(addrPort("45.9.9.9:9001"))
			h.send(cell.CommandRelayEarly, extend)
			h.send(cell.CommandRelayEarly, extend)
		},
		"with a stream open": func(w *world, h *hand, extend cell.Message) {
			h.open(cell.MessageBeginDir, nil)
			h.send(cell.CommandRelayEarly, extend)
		},
		"before a stream": func(w *world, h *hand, extend cell.Message) {
			w.f.Silence(addrPort("45.9.9.9:9001"))
			h.send(cell.CommandRelayEarly, extend)
			h.send(cell.CommandRelayEarly, cell.Message{Command: cell.MessageBeginDir, Stream: 1})
		},
		"not alone": func(w *world, h *hand, extend cell.Message) {
			payload := make([]byte, cell.BodySize-cell.TagSize)
			n := copy(payload, []byte{byte(extend.Command), 0, 0, byte(len(extend.Data) >> 8), byte(len(extend.Data))})
			n += copy(payload[n:], extend.Data)
			copy(payload[n:], []byte{byte(cell.MessageBeginDir), 0, 1, 0, 0})
			h.sendRaw(0, cell.CommandRelayEarly, payload)
		},
		"cut off": func(w *world, h *hand, extend cell.Message) {
			payload := make([]byte, cell.BodySize-cell.TagSize)
			copy(payload, []byte{byte(extend.Command), 0, 0, 0, 40})
			h.sendRaw(0, cell.CommandRelayEarly, payload)
		},
		"EXTENDED from the client": func(w *world, h *hand, _ cell.Message) {
			data, err := cell.Extended{Type: 1, Total: 1, Handshake: []byte{1}}.AppendTo(nil)
			if err != nil {
				w.t.Fatal(err)
			}
			h.relay(cell.Message{Command: cell.MessageExtended, Data: data})
		},
		"CONNECTED from the client": func(w *world, h *hand, _ cell.Message) {
			id, _, _ := h.open(cell.MessageBeginDir, nil)
			h.relay(cell.Message{Command: cell.MessageConnected, Stream: id, Data: []byte{0, 0}})
		},
		"DROP": func(w *world, h *hand, _ cell.Message) {
			h.relay(cell.Message{Command: cell.MessageDrop, Data: []byte("x")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			s := w.add("relay", nil)
			h := w.client("client").build(s)
			data := h.extendTo(cert.Identity{9}, []byte("handshake"), addrPort("45.9.9.9:9001"))
			do(w, h, cell.Message{Command: cell.MessageExtend, Data: data})
			if reason := h.dies(); reason != cell.ReasonProtocol {
				t.Errorf("DESTROY with %v", reason)
			}
			w.quiet()
		})
	}
}

// next is an unused stream id.
func (h *hand) next() cell.StreamID {
	h.streams++
	return h.streams
}

// slow is a relay whose CREATEs the test answers.
func (w *world) slow(name string) (s *station, legs *[]*flow.Leg) {
	legs = new([]*flow.Leg)
	s = w.add(name, func(s *station) {
		s.create = func(l *flow.Leg, _ cell.Create) { *legs = append(*legs, l); l.Bind(deaf{}) }
	})
	return s, legs
}

// deaf hears nothing and says nothing.
type deaf struct{}

func (deaf) OnCreated(cell.Create)                {}
func (deaf) OnCell(cell.Command, []byte) bool     { return false }
func (deaf) NextCell([]byte) (cell.Command, bool) { return 0, false }
func (deaf) Pending() bool                        { return false }
func (deaf) OnDestroyed(cell.Reason)              {}

// TestCreatedAfterTimeout: the answer of a hop that was given up does nothing, and another hop
// takes its place.
func TestCreatedAfterTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", func(s *station) { s.limits.ExtendTimeout = time.Second })
	slow, legs := w.slow("slow")
	h := w.client("client").build(s)
	if reason := h.extend(slow); reason != cell.ReasonTimeout {
		t.Fatal(reason)
	}
	w.f.Do(func() { (*legs)[0].Created(ntor.HandshakeType, []byte("too late")) })
	w.f.Run(time.Second)
	if h.destroyed != nil {
		t.Fatalf("the circuit died: %v", *h.destroyed)
	}
	if reason := h.extend(w.add("good", nil)); reason != cell.ReasonNone {
		t.Error(reason)
	}
	h.destroy()
	w.quiet()
}

// TestCreatedCrossesTimeout: CREATED is on its way when the relay gives up.
func TestCreatedCrossesTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.add("relay", func(s *station) { s.limits.ExtendTimeout = time.Second })
	slow, legs := w.slow("slow")
	h := w.client("client").build(s)
	_, message := h.offer(slow)
	data := h.extendTo(slow.node.Identity, message, slow.node.Address)
	h.send(cell.CommandRelayEarly, cell.Message{Command: cell.MessageExtend, Data: data})
	h.until("CREATE", func() bool { return len(*legs) == 1 })
	h.until("the end of the timeout", func() bool { return s.relay.Stats().ExtendFailed == 1 })
	w.f.Do(func() { (*legs)[0].Created(ntor.HandshakeType, []byte("just too late")) })
	h.until("EXTEND_FAILED", func() bool { return len(h.got) > 0 })
	if h.got[0].Command != cell.MessageExtendFailed || h.got[0].Data[0] != byte(cell.ReasonTimeout) {
		t.Errorf("%v", h.got)
	}
	h.destroy()
	w.quiet()
}

// TestNextHopDiesWhileExtending is told to the client, and the circuit stands.
func TestNextHopDiesWhileExtending(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(w *world, slow *station, leg *flow.Leg){
		"DESTROY": func(w *world, _ *station, leg *flow.Leg) { w.f.Do(func() { leg.Destroy(cell.ReasonShutdown) }) },
		"crash":   func(_ *world, slow *station, _ *flow.Leg) { slow.node.Stop() },
		"vanish":  func(_ *world, slow *station, _ *flow.Leg) { slow.node.Vanish(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			s := w.add("relay", func(s *station) { s.limits.ExtendTimeout = time.Minute })
			slow, legs := w.slow("slow")
			h := w.client("client").build(s)
			_, message := h.offer(slow)
			h.send(cell.CommandRelayEarly, cell.Message{Command: cell.MessageExtend, Data: h.extendTo(slow.node.Identity, message, slow.node.Address)})
			h.until("CREATE", func() bool { return len(*legs) == 1 })
			kill(w, slow, (*legs)[0])
			h.until("EXTEND_FAILED", func() bool { return len(h.got) > 0 })
			if h.got[0].Command != cell.MessageExtendFailed || h.got[0].Data[0] != byte(cell.ReasonConnectFailed) {
				t.Errorf("%v", h.got)
			}
			if name == "crash" { // nothing can be said of what a stopped node has left
				w.relays = w.relays[:1]
			}
			if reason := h.extend(w.add("good", nil)); reason != cell.ReasonNone {
				t.Error(reason)
			}
			h.destroy()
			w.quiet()
		})
	}
}

// TestClientGoesWhileExtending leaves nothing behind at any point of time.
func TestClientGoesWhileExtending(t *testing.T) {
	t.Parallel()
	for step := range 30 {
		w := newWorld(t, uint64(step))
		s, next := w.add("relay", nil), w.add("next", nil)
		h := w.client("client").build(s)
		_, message := h.offer(next)
		h.send(cell.CommandRelayEarly, cell.Message{Command: cell.MessageExtend, Data: h.extendTo(next.node.Identity, message, next.node.Address)})
		w.f.Run(time.Duration(step) * 2 * time.Millisecond)
		h.destroy()
		w.quiet()
	}
}

// TestUnaskedFromNextHop: what a next hop sends out of turn ends the circuit.
func TestUnaskedFromNextHop(t *testing.T) {
	t.Parallel()
	t.Run("RELAY before EXTENDED", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		s := w.add("relay", nil)
		eager := &chatter{}
		next := w.add("next", func(s *station) {
			s.create = func(l *flow.Leg, _ cell.Create) {
				l.Bind(eager)
				l.Created(ntor.HandshakeType, []byte("answer"))
				l.Wake()
			}
		})
		h := w.client("client").build(s)
		_, message := h.offer(next)
		h.send(cell.CommandRelayEarly, cell.Message{Command: cell.MessageExtend, Data: h.extendTo(next.node.Identity, message, next.node.Address)})
		if reason := h.dies(); reason != cell.ReasonProtocol && h.noise == 0 {
			t.Errorf("DESTROY with %v", reason)
		}
		w.quiet()
	})
	t.Run("a handshake too long for EXTENDED", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		s := w.add("relay", nil)
		next := w.add("next", func(s *station) {
			s.create = func(l *flow.Leg, _ cell.Create) {
				l.Bind(deaf{})
				l.Created(ntor.HandshakeType, make([]byte, cell.MaxCreateHandshake))
			}
		})
		h := w.client("client").build(s)
		if reason := h.extend(next); reason != cell.ReasonBadHandshake {
			t.Error(reason)
		}
		h.destroy()
		w.quiet()
	})
}

// chatter sends cells of zeros.
type chatter struct {
	deaf
	sent int
}

func (c *chatter) NextCell(body []byte) (cell.Command, bool) {
	clear(body)
	c.sent++
	return cell.CommandRelay, c.sent < 4
}
func (c *chatter) Pending() bool { return c.sent < 4 }

// TestUnrecognisedAtTheEnd: a cell that no hop takes ends the circuit, all the way.
func TestUnrecognisedAtTheEnd(t *testing.T) {
	t.Parallel()
	for hops := 1; hops <= 3; hops++ {
		w := newWorld(t, 1)
		path := []*station{w.add("a", nil), w.add("b", nil), w.add("c", nil)}[:hops]
		h := w.client("client").build(path...)
		last := path[hops-1]
		last.tap = func(_ *env.Peer, cells []byte) {
			if cell.Command(cells[4]&0x7f) == cell.CommandRelay {
				cells[cell.HeaderSize+100] ^= 1
			}
		}
		h.relay(cell.Message{Command: cell.MessageBeginDir, Stream: 1})
		want := cell.ReasonProtocol
		if hops > 1 {
			want = cell.ReasonDestroyed
		}
		if reason := h.dies(); reason != want {
			t.Errorf("%d hops: DESTROY with %v, want %v", hops, reason, want)
		}
		if n := last.relay.Stats().Violations; n != 1 {
			t.Errorf("%d hops: %d violations", hops, n)
		}
		w.quiet()
	}
}

// TestRecognisedAtAMiddle: only the last hop takes messages.
func TestRecognisedAtAMiddle(t *testing.T) {
	t.Parallel()
	for hop := range 2 {
		w := newWorld(t, 1)
		h := w.client("client").build(w.add("a", nil), w.add("b", nil), w.add("c", nil))
		h.sendTo(hop, cell.CommandRelay, cell.Message{Command: cell.MessageBeginDir, Stream: 1})
		want := cell.ReasonProtocol
		if hop > 0 {
			want = cell.ReasonDestroyed
		}
		if reason := h.dies(); reason != want {
			t.Errorf("hop %d: %v, want %v", hop, reason, want)
		}
		if got := w.relays[2].relay.Stats().DirRequests; got != 0 {
			t.Error("the message was acted on")
		}
		w.quiet()
	}
}

// TestDestroyBothWays: from either end, and from the middle, DESTROY reaches everybody and
// tells no reason that was received.
func TestDestroyBothWays(t *testing.T) {
	t.Parallel()
	build := func(t *testing.T) (*world, *hand, *target) {
		w := newWorld(t, 1)
		h := w.client("client").build(w.add("a", nil), w.add("b", nil), w.add("c", nil))
		x := w.listen("203.0.113.7:80")
		if _, c, reason := h.begin("203.0.113.7", 80, cell.AllowIPv4); c == nil {
			t.Fatal(reason)
		}
		return w, h, x
	}
	t.Run("from the client", func(t *testing.T) {
		t.Parallel()
		w, h, x := build(t)
		h.destroy()
		w.f.Run(time.Second)
		if s := x.probes[0].State(); s.Downs != 1 {
			t.Error("the connection at the exit is still open")
		}
		w.quiet()
	})
	t.Run("from the exit", func(t *testing.T) {
		t.Parallel()
		w, h, x := build(t)
		exit := w.relays[2]
		w.f.Do(func() { exit.links.All()[0].Close(nil) })
		if reason := h.dies(); reason != cell.ReasonDestroyed {
			t.Error(reason)
		}
		w.f.Run(time.Second)
		if s := x.probes[0].State(); s.Downs != 1 {
			t.Error("the connection at the exit is still open")
		}
		w.quiet()
	})
	t.Run("the middle crashes", func(t *testing.T) {
		t.Parallel()
		w, h, x := build(t)
		w.relays[1].node.Stop()
		if reason := h.dies(); reason != cell.ReasonDestroyed {
			t.Error(reason)
		}
		w.f.Run(time.Second)
		if s := x.probes[0].State(); s.Downs != 1 {
			t.Error("the connection at the exit is still open")
		}
		w.relays = []*station{w.relays[0], w.relays[2]}
		w.quiet()
	})
}

// Circuits that carry nothing hold little: after two looks at them their keys are no longer expanded, and one that goes on to
// another relay has nothing for streams. They work as before when they are used again.
func TestIdleCircuitsRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	guard, exit := w.add("guard", nil), w.add("exit", nil)
	h := w.client("c").build(guard, exit)
	x := w.listen("203.0.113.7:80")
	talk := func(what string) {
		id, connected, _ := h.begin("203.0.113.7", 80, cell.AllowIPv4)
		if connected == nil {
			t.Fatalf("%s: no stream", what)
		}
		h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: []byte(what)})
		h.until(what, func() bool { return bytes.HasSuffix(x.received(), []byte(what)) })
		h.relay(end(id, cell.ReasonNone))
		w.f.Run(time.Second)
	}
	talk("before")
	resting := func(s *station) bool {
		r, ok := s.relay.open[0].crypto.(interface{ Resting() bool })
		return ok && r.Resting()
	}
	w.f.Run(2*restEvery + time.Second)
	w.f.Do(func() {
		for _, s := range []*station{guard, exit} {
			if len(s.relay.open) != 1 || !resting(s) {
				t.Errorf("the circuit does not rest at the %s", s.node.Name)
			}
		}
		if guard.relay.open[0].mux != nil || exit.relay.open[0].mux == nil {
			t.Error("streams are possible where the circuit goes on, or not where it ends")
		}
	})
	talk("after")
	w.f.Do(func() {
		if resting(guard) || resting(exit) {
			t.Error("a circuit rests that carries cells")
		}
	})
	h.destroy()
	w.f.Run(time.Second)
	w.f.Do(func() {
		if len(guard.relay.open)+len(exit.relay.open) != 0 {
			t.Error("a circuit that has ended is kept")
		}
	})
	w.quiet()
}
