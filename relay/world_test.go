package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/env/envtest"
	"cepa/flow"
	"cepa/onion/cgo"
	"cepa/onion/ntor"
)

// world is a network of real relays on a virtual clock, and clients that are driven cell by cell.
type world struct {
	t      testing.TB
	f      *envtest.Fake
	id     cert.NetworkID
	relays []*station
}

// station is a relay under test with what its node would give it. The fields act on what is
// asked afterwards, those above the line when it is made.
type station struct {
	w      *world
	node   *envtest.Node
	key    *ntor.OnionKey
	policy *directory.Policy
	test   bool
	ipv6   bool
	limits Limits
	others []netip.AddrPort // more addresses of its own
	create func(*flow.Leg, cell.Create)

	directoryOnly bool
	speedTest     func(request []byte, from *env.Peer) (answer []byte, zeros int, mine bool)
	// ----
	relay     *Relay
	links     *flow.Links
	budget    *flow.Budget
	stats     flow.Stats
	strangers []cert.Identity // not in the consensus
	addresses map[cert.Identity][]netip.AddrPort
	listening []netip.AddrPort // of relays of the network
	serve     func(request []byte, from *env.Peer, done func([]byte))
	tap       func(from *env.Peer, cells []byte)
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, f: envtest.NewFake(seed), id: cert.NetworkID(sha256.Sum256([]byte("test network")))}
	w.f.Delay = 5 * time.Millisecond
	return w
}

// add makes a relay: an exit for everything in a test network, unless change says otherwise.
func (w *world) add(name string, change func(*station)) *station {
	w.t.Helper()
	s := &station{w: w, node: w.f.Node(name), test: true, ipv6: true, limits: DefaultLimits(), addresses: map[cert.Identity][]netip.AddrPort{}}
	s.allow("all")
	s.key = ntor.NewOnionKey(sha256.Sum256([]byte("onion " + name)))
	if change != nil {
		change(s)
	}
	s.budget = flow.NewBudget(64 << 20)
	s.relay = New(Config{
		Env: s.node.Env, Links: func() *flow.Links { return s.links }, Budget: s.budget, FlowStats: &s.stats,
		Identity: s.node.Identity, NetworkID: w.id,
		OnionKeys: func() []*ntor.OnionKey { return []*ntor.OnionKey{s.key} },
		Directory: s, Policy: s.policy, Addresses: append([]netip.AddrPort{s.node.Address}, s.others...),
		Test: s.test, IPv6: s.ipv6, Limits: s.limits, DirectoryOnly: s.directoryOnly, SpeedTest: s.speedTest,
	})
	if s.create == nil {
		s.create = s.relay.OnCreate
	}
	s.links = flow.NewLinks(flow.Config{
		Env: s.node.Env, Self: s.node.Identity, Budget: s.budget, Handler: s, Stats: &s.stats,
	})
	s.node.Serve(tapped{s.links, &s.tap})
	w.relays = append(w.relays, s)
	return s
}

func (s *station) allow(policy string) {
	p, err := directory.ParsePolicy(policy)
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.policy = &p
}

func (s *station) OnLink(*flow.Link)                           {}
func (s *station) OnLinkDown(*flow.Link, error)                {}
func (s *station) OnCreate(leg *flow.Leg, c cell.Create)       { s.create(leg, c) }
func (s *station) OnGossip(*flow.Link, []byte)                 {}
func (s *station) InConsensus(id cert.Identity) bool           { return !slices.Contains(s.strangers, id) }
func (s *station) Addresses(id cert.Identity) []netip.AddrPort { return s.addresses[id] }
func (s *station) IsRelayAddress(a netip.AddrPort) bool        { return slices.Contains(s.listening, a) }
func (s *station) Serve(q []byte, p *env.Peer, done func([]byte)) {
	if s.serve == nil {
		done([]byte("answer"))
		return
	}
	s.serve(q, p, done)
}

// tapped shows the cells that arrive to a function, which may alter them.
type tapped struct {
	env.LinkHandler
	tap *func(from *env.Peer, cells []byte)
}

func (h tapped) LinkUp(l env.Link) env.LinkEvents {
	events := h.LinkHandler.LinkUp(l)
	if events == nil {
		return nil
	}
	return tappedEvents{events, l, h.tap}
}

type tappedEvents struct {
	env.LinkEvents
	link env.Link
	tap  *func(from *env.Peer, cells []byte)
}

func (e tappedEvents) OnCells(cells []byte) {
	if *e.tap != nil {
		(*e.tap)(e.link.Peer(), cells)
	}
	e.LinkEvents.OnCells(cells)
}

// quiet fails the test unless nothing is left of any circuit, at any relay.
func (w *world) quiet() {
	w.t.Helper()
	w.f.Run(3 * time.Minute)
	for _, s := range w.relays {
		r, f := s.relay, s.stats
		if r.stats.Circuits != 0 || r.stats.ExitStreams != 0 || r.dials != 0 || r.running != 0 || len(r.waiting) != 0 {
			w.t.Errorf("%s: left over: %+v, %d dials, %d running, %d waiting", s.node.Name, r.stats, r.dials, r.running, len(r.waiting))
		}
		if f.Legs != 0 || f.Tombstones != 0 || f.QueuedBytes != 0 || f.Streams != 0 || s.budget.Used() != 0 {
			w.t.Errorf("%s: left over: %+v, budget %d", s.node.Name, f, s.budget.Used())
		}
		if err := s.links.Check(); err != nil {
			w.t.Errorf("%s: %v", s.node.Name, err)
		}
	}
}

// hand is a client whose every cell the test decides on. It can also be a relay that
// misbehaves. It has one circuit.
type hand struct {
	w     *world
	node  *envtest.Node
	links *flow.Links
	tap   func(from *env.Peer, cells []byte)

	leg       *flow.Leg
	hops      []*hop
	out       []outgoing
	got       []cell.Message // from the last hop, copied
	created   *cell.Create
	destroyed *cell.Reason
	noise     int // cells that no hop sealed
	cells     int // cells that arrived
	streams   cell.StreamID
}

// hop is a layer of the circuit, with a copy of the relay's own state for looking over its shoulder.
type hop struct {
	client *cgo.Client
	spy    *cgo.Relay
}

type outgoing struct {
	hop     int
	command cell.Command
	payload []byte
}

// client makes a client.
func (w *world) client(name string) *hand { return w.handOn(w.f.Client(name)) }

// rogue makes a relay that is driven by hand.
func (w *world) rogue(name string) *hand { return w.handOn(w.f.Node(name)) }

func (w *world) handOn(n *envtest.Node) *hand {
	h := &hand{w: w, node: n}
	h.links = flow.NewLinks(flow.Config{Env: n.Env, Self: n.Identity, Handler: h})
	n.Serve(tapped{h.links, &h.tap})
	return h
}

func (h *hand) OnLink(*flow.Link)                     {}
func (h *hand) OnLinkDown(*flow.Link, error)          {}
func (h *hand) OnCreate(leg *flow.Leg, _ cell.Create) { leg.Destroy(cell.ReasonProtocol) }
func (h *hand) OnGossip(*flow.Link, []byte)           {}

func (h *hand) OnCreated(c cell.Create) {
	c.Handshake = bytes.Clone(c.Handshake)
	h.created = &c
}

func (h *hand) OnCell(command cell.Command, body []byte) bool {
	h.cells++
	for _, p := range h.hops {
		if p.client.Backward(byte(command), body) {
			messages, err := cell.ParsePayload(body[cell.TagSize:], nil)
			if err != nil {
				h.w.t.Errorf("a relay sent a payload that does not parse: %v", err)
			}
			for _, m := range messages {
				m.Data = bytes.Clone(m.Data)
				h.got = append(h.got, m)
			}
			return false
		}
	}
	h.noise++
	h.leg.Destroy(cell.ReasonNone)
	return false
}

func (h *hand) NextCell(body []byte) (cell.Command, bool) {
	if len(h.out) == 0 {
		return 0, false
	}
	o := h.out[0]
	h.out = h.out[1:]
	copy(body[cell.TagSize:], o.payload)
	h.hops[o.hop].client.Originate(byte(o.command), body)
	for i := o.hop - 1; i >= 0; i-- {
		h.hops[i].client.Forward(byte(o.command), body)
	}
	return o.command, true
}

func (h *hand) Pending() bool { return len(h.out) > 0 }

func (h *hand) OnDestroyed(reason cell.Reason) { h.destroyed = &reason }

// offer makes the first half of a handshake with a relay.
func (h *hand) offer(s *station, extensions ...ntor.Extension) (*ntor.Client, []byte) {
	h.w.t.Helper()
	if extensions == nil {
		extensions = []ntor.Extension{{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(flow.ClientWindows)}}
	}
	cm, err := ntor.AppendExtensions(nil, extensions)
	if err != nil {
		h.w.t.Fatal(err)
	}
	c, message, err := ntor.NewClient(h.node.Env.Rand, s.node.Identity, s.key.Public(), h.w.id, cm)
	if err != nil {
		h.w.t.Fatal(err)
	}
	return c, message
}

// finish adds the layer of a hop.
func (h *hand) finish(c *ntor.Client, reply []byte) {
	h.w.t.Helper()
	keys, _, err := c.Finish(reply)
	if err != nil {
		h.w.t.Fatal(err)
	}
	p := &hop{}
	if p.client, err = cgo.NewClient(cell.BodySize, keys.Material[:]); err == nil {
		p.spy, err = cgo.NewRelay(cell.BodySize, keys.Material[:])
	}
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.hops = append(h.hops, p)
}

const patience = 20 * time.Second

var errNoAnswer = errors.New("no answer")

// knock sends CREATE and waits for the answer, which is in created or destroyed.
func (h *hand) knock(s *station, handshakeType uint16, message []byte) {
	h.w.t.Helper()
	h.created, h.destroyed = nil, nil
	var err error
	h.w.f.Do(func() {
		h.links.To(s.node.Target(), func(l *flow.Link, e error) {
			if err = e; err == nil {
				h.leg, err = l.Create(h, handshakeType, message)
			}
		})
	})
	if !h.w.f.RunUntil(patience, func() bool { return err != nil || h.created != nil || h.destroyed != nil }) {
		err = errNoAnswer
	}
	if err != nil {
		h.w.t.Fatalf("CREATE: %v", err)
	}
}

// build makes a circuit through relays.
func (h *hand) build(path ...*station) *hand {
	h.w.t.Helper()
	c, message := h.offer(path[0])
	h.knock(path[0], ntor.HandshakeType, message)
	if h.created == nil {
		h.w.t.Fatalf("CREATE: destroyed: %v", *h.destroyed)
	}
	h.finish(c, h.created.Handshake)
	for _, s := range path[1:] {
		if reason := h.extend(s); reason != cell.ReasonNone {
			h.w.t.Fatalf("EXTEND: %v", reason)
		}
	}
	return h
}

// extendTo is the data of an EXTEND.
func (h *hand) extendTo(id cert.Identity, message []byte, at ...netip.AddrPort) []byte {
	h.w.t.Helper()
	e := cell.Extend{Identity: id, Type: ntor.HandshakeType, Total: uint16(len(message)), Handshake: message}
	for _, a := range at {
		e.Specifiers = append(e.Specifiers, cell.AddrPortSpecifier(a))
	}
	data, err := e.AppendTo(nil)
	if err != nil {
		h.w.t.Fatal(err)
	}
	return data
}

// extend adds a hop, or says why not.
func (h *hand) extend(s *station) cell.Reason {
	h.w.t.Helper()
	c, message := h.offer(s)
	answer, reason := h.ask(h.extendTo(s.node.Identity, message, s.node.Address))
	if answer != nil {
		h.finish(c, answer)
	}
	return reason
}

// ask sends EXTEND and waits for the handshake in the answer, or why there is none.
func (h *hand) ask(data []byte) (handshake []byte, reason cell.Reason) {
	h.w.t.Helper()
	h.got = nil
	h.send(cell.CommandRelayEarly, cell.Message{Command: cell.MessageExtend, Data: data})
	h.until("the answer to EXTEND", func() bool { return len(h.got) > 0 || h.destroyed != nil })
	if h.destroyed != nil {
		h.w.t.Fatalf("EXTEND: the circuit was destroyed: %v", *h.destroyed)
	}
	switch m := h.got[0]; m.Command {
	case cell.MessageExtended:
		e, err := cell.DecodeExtended(m.Data)
		if err != nil {
			h.w.t.Fatal(err)
		}
		return e.Handshake, cell.ReasonNone
	case cell.MessageExtendFailed:
		e, err := cell.DecodeExtendFailed(m.Data)
		if err != nil {
			h.w.t.Fatal(err)
		}
		return nil, e.Reason
	default:
		h.w.t.Fatalf("EXTEND was answered by %v", m.Command)
		return nil, 0
	}
}

// send seals messages for the last hop in one cell.
func (h *hand) send(command cell.Command, messages ...cell.Message) {
	h.w.t.Helper()
	h.sendTo(len(h.hops)-1, command, messages...)
}

func (h *hand) sendTo(hop int, command cell.Command, messages ...cell.Message) {
	h.w.t.Helper()
	payload := make([]byte, cell.BodySize-cell.TagSize)
	p := cell.NewPacker(payload)
	for _, m := range messages {
		if !p.Add(m.Command, m.Stream, m.Data) {
			h.w.t.Fatalf("%v does not fit", m.Command)
		}
	}
	p.Finish()
	h.sendRaw(hop, command, payload)
}

func (h *hand) sendRaw(hop int, command cell.Command, payload []byte) {
	h.w.f.Do(func() {
		h.out = append(h.out, outgoing{hop, command, payload})
		h.leg.Wake()
	})
}

// relay sends messages to the last hop in a RELAY cell.
func (h *hand) relay(messages ...cell.Message) {
	h.w.t.Helper()
	h.send(cell.CommandRelay, messages...)
}

func (h *hand) until(what string, cond func() bool) {
	h.w.t.Helper()
	if !h.w.f.RunUntil(3*patience, cond) {
		h.w.t.Fatalf("waited in vain for %s; got %v, destroyed %v", what, h.got, h.destroyed != nil)
	}
}

// dies waits for the circuit's end.
func (h *hand) dies() cell.Reason {
	h.w.t.Helper()
	h.until("DESTROY", func() bool { return h.destroyed != nil })
	return *h.destroyed
}

// destroy ends the circuit.
func (h *hand) destroy() { h.w.f.Do(func() { h.leg.Destroy(cell.ReasonNone) }) }

// message returns what the far end said first with a command on a stream.
func (h *hand) message(command cell.MessageCommand, id cell.StreamID) *cell.Message {
	for i, m := range h.got {
		if m.Command == command && m.Stream == id {
			return &h.got[i]
		}
	}
	return nil
}

// data is what arrived on a stream, and whether EOF followed.
func (h *hand) data(id cell.StreamID) (data []byte, eof bool) {
	for _, m := range h.got {
		switch {
		case m.Stream != id:
		case m.Command == cell.MessageData:
			data = append(data, m.Data...)
		case m.Command == cell.MessageEnd && m.Data[0] == byte(cell.ReasonEOF):
			eof = true
		}
	}
	return data, eof
}

// begin sends BEGIN and waits for the outcome: CONNECTED, or the reason of END.
func (h *hand) begin(host string, port uint16, flags cell.Flags) (id cell.StreamID, connected *cell.Connected, reason cell.Reason) {
	h.w.t.Helper()
	data, err := cell.Begin{Flags: flags, Address: address(h.w.t, host), Port: port}.AppendTo(nil)
	if err != nil {
		h.w.t.Fatal(err)
	}
	return h.open(cell.MessageBegin, data)
}

func (h *hand) open(command cell.MessageCommand, data []byte) (id cell.StreamID, connected *cell.Connected, reason cell.Reason) {
	h.w.t.Helper()
	h.streams++
	id = h.streams
	h.relay(cell.Message{Command: command, Stream: id, Data: data})
	h.until("the answer to "+command.String(), func() bool {
		return h.destroyed != nil || h.message(cell.MessageConnected, id) != nil || h.message(cell.MessageEnd, id) != nil
	})
	if h.destroyed != nil {
		h.w.t.Fatalf("%v: the circuit was destroyed: %v", command, *h.destroyed)
	}
	if m := h.message(cell.MessageConnected, id); m != nil {
		c, err := cell.DecodeConnected(m.Data)
		if err != nil {
			h.w.t.Fatal(err)
		}
		return id, &c, 0
	}
	reason = cell.Reason(h.message(cell.MessageEnd, id).Data[0])
	h.relay(end(id, cell.ReasonOther)) // the answer
	return id, nil, reason
}

func address(t testing.TB, host string) cell.Address {
	t.Helper()
	a, err := cell.ParseAddress(host)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func end(id cell.StreamID, reason cell.Reason) cell.Message {
	return cell.Message{Command: cell.MessageEnd, Stream: id, Data: []byte{byte(reason)}}
}

// target is a server of the clear net.
type target struct {
	probes []*envtest.ConnProbe
	conn   env.Conn // the last
	echoed []byte
}

func (x *target) received() []byte {
	if len(x.probes) == 0 {
		return nil
	}
	return x.probes[len(x.probes)-1].State().Received
}

// listen puts a server that only listens into the clear net.
func (w *world) listen(at string) *target {
	x := &target{}
	w.f.Listen(netip.MustParseAddrPort(at), func(c env.Conn) env.ConnEvents {
		p := &envtest.ConnProbe{}
		x.probes, x.conn = append(x.probes, p), c
		c.Pause(false)
		return p
	})
	return x
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + i>>16)
	}
	return b
}

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
