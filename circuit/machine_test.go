package circuit

import (
	"crypto/rand"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
	"cepa/flow"
	"cepa/onion/cgo"
	"cepa/onion/ntor"
)

// liar is a relay whose every answer a test writes. It knows the keys of its own hop, so all
// that it sends is authentic.
type liar struct {
	*testRelay
	leg     *flow.Leg
	crypto  *cgo.Relay
	sm      []ntor.Extension // instead of the windows
	htype   uint16
	cut     bool     // a byte of CREATED is wrong
	silent  bool     // does not answer CREATE
	send    [][]byte // payloads to be sent
	onCell  func(command cell.Command, payload []byte)
	cells   []cell.Command
	destroy []cell.Reason
}

func (l *liar) OnCreate(leg *flow.Leg, create cell.Create) {
	l.leg = leg
	leg.Bind(l)
	if l.silent {
		return
	}
	if l.sm == nil {
		l.sm = []ntor.Extension{{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(flow.ExitWindows)}}
	}
	keys, reply, err := ntor.Server(rand.Reader, l.node.Identity, []*ntor.OnionKey{l.key}, l.w.id, create.Handshake,
		func([]byte) ([]byte, error) { return ntor.AppendExtensions(nil, l.sm) })
	if err != nil {
		l.w.t.Error(err)
		return
	}
	if l.crypto, err = cgo.NewRelay(cell.BodySize, keys.Material[:]); err != nil {
		l.w.t.Error(err)
		return
	}
	if l.cut {
		reply[len(reply)/2] ^= 1
	}
	leg.Created(l.htype, reply)
	leg.Wake()
}

func (l *liar) OnCreated(cell.Create) {}
func (l *liar) OnCell(command cell.Command, body []byte) bool {
	l.cells = append(l.cells, command)
	if !l.crypto.Forward(byte(command), body) {
		l.w.t.Error("the client sent a cell that is not for the only hop")
		return false
	}
	if l.onCell != nil {
		l.onCell(command, body[cell.TagSize:])
	}
	return false
}

func (l *liar) NextCell(body []byte) (cell.Command, bool) {
	if len(l.send) == 0 {
		return 0, false
	}
	copy(body[cell.TagSize:], l.send[0])
	l.send = l.send[1:]
	l.crypto.Originate(byte(cell.CommandRelay), body)
	return cell.CommandRelay, true
}

func (l *liar) Pending() bool                  { return len(l.send) > 0 }
func (l *liar) OnDestroyed(reason cell.Reason) { l.destroy = append(l.destroy, reason) }

// say queues a payload of messages.
func (l *liar) say(messages ...cell.Message) {
	payload := make([]byte, cell.PayloadSize)
	p := cell.NewPacker(payload)
	for _, m := range messages {
		p.Add(m.Command, m.Stream, m.Data)
	}
	p.Finish()
	l.send = append(l.send, payload)
	if l.leg != nil {
		l.leg.Wake()
	}
}

// witness owns one circuit and remembers what it heard.
type witness struct {
	hops, opens, deads int
	failure            failure
}

func (w *witness) onHop(*circuit)               { w.hops++ }
func (w *witness) onOpen(*circuit)              { w.opens++ }
func (w *witness) onCell(*circuit)              {}
func (w *witness) onDead(_ *circuit, f failure) { w.deads++; w.failure = f }

// TestWhatARelayMayNotSay has the first relay break the protocol in every state of a circuit.
// The circuit dies once, with the right cause, and the relay is told no reason.
func TestWhatARelayMayNotSay(t *testing.T) {
	t.Parallel()
	extended := cell.Message{Command: cell.MessageExtended, Data: []byte{0, 1, 0, 1, 0, 0, 9}}
	failed := cell.Message{Command: cell.MessageExtendFailed, Data: []byte{byte(cell.ReasonNoSuchRelay)}}
	end := cell.Message{Command: cell.MessageEnd, Stream: 1, Data: []byte{1}}
	for name, c := range map[string]struct { // order: every case has a world of its own
		hops     int
		prepare  func(l *liar)
		onExtend func(l *liar)
		onOpen   func(l *liar, c *circuit)
		want     cause
		reason   cell.Reason
		opened   bool
	}{
		"CREATED that does not authenticate": {hops: 1, prepare: func(l *liar) { l.cut = true }, want: causeHandshake, reason: cell.ReasonBadHandshake},
		"CREATED of another handshake":       {hops: 1, prepare: func(l *liar) { l.htype = 2 }, want: causeHandshake, reason: cell.ReasonUnsupported},
		"an extension too many": {hops: 1, prepare: func(l *liar) {
			l.sm = []ntor.Extension{{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(flow.ExitWindows)}, {Type: 9}}
		}, want: causeHandshake, reason: cell.ReasonBadHandshake},
		"no windows":                          {hops: 1, prepare: func(l *liar) { l.sm = []ntor.Extension{} }, want: causeHandshake, reason: cell.ReasonBadHandshake},
		"bad windows":                         {hops: 1, prepare: func(l *liar) { l.sm = []ntor.Extension{{Type: flow.ExtensionWindows, Data: []byte{1}}} }, want: causeHandshake, reason: cell.ReasonBadHandshake},
		"a cell too early":                    {hops: 2, prepare: func(l *liar) { l.say(extended) }, want: causeProtocol, reason: cell.ReasonProtocol},
		"EXTEND_FAILED":                       {hops: 2, onExtend: func(l *liar) { l.say(failed) }, want: causeExtend, reason: cell.ReasonNoSuchRelay},
		"EXTENDED that does not authenticate": {hops: 2, onExtend: func(l *liar) { l.say(extended) }, want: causeHandshake, reason: cell.ReasonBadHandshake},
		"EXTENDED and more in one cell":       {hops: 2, onExtend: func(l *liar) { l.say(extended, failed) }, want: causeProtocol, reason: cell.ReasonProtocol},
		"EXTENDED and more in the next cell":  {hops: 2, onExtend: func(l *liar) { l.say(extended); l.say(failed) }, want: causeProtocol, reason: cell.ReasonProtocol},
		"END instead of EXTENDED":             {hops: 2, onExtend: func(l *liar) { l.say(end) }, want: causeProtocol, reason: cell.ReasonProtocol},
		"garbage instead of EXTENDED": {hops: 2, onExtend: func(l *liar) {
			l.send = append(l.send, make([]byte, cell.PayloadSize))
			l.leg.Wake()
		}, want: causeProtocol, reason: cell.ReasonProtocol},
		"DESTROY in answer to CREATE":   {hops: 1, prepare: func(l *liar) { l.silent = true }, want: causeCreate, reason: cell.ReasonHibernating},
		"DESTROY in answer to EXTEND":   {hops: 2, onExtend: func(l *liar) { l.leg.Destroy(cell.ReasonShutdown) }, want: causeLost, reason: cell.ReasonShutdown},
		"DESTROY of an open circuit":    {hops: 1, onOpen: func(l *liar, _ *circuit) { l.leg.Destroy(cell.ReasonShutdown) }, want: causeLost, reason: cell.ReasonShutdown, opened: true},
		"EXTENDED on an open circuit":   {hops: 1, onOpen: func(l *liar, _ *circuit) { l.say(extended) }, want: causeProtocol, reason: cell.ReasonProtocol, opened: true},
		"END of a stream never opened":  {hops: 1, onOpen: func(l *liar, _ *circuit) { l.say(end) }, want: causeProtocol, reason: cell.ReasonProtocol, opened: true},
		"BEGIN towards the client":      {hops: 1, onOpen: func(l *liar, _ *circuit) { l.say(cell.Message{Command: cell.MessageBeginDir, Stream: 1}) }, want: causeProtocol, reason: cell.ReasonProtocol, opened: true},
		"DROP that was not negotiated":  {hops: 1, onOpen: func(l *liar, _ *circuit) { l.say(cell.Message{Command: cell.MessageDrop}) }, want: causeProtocol, reason: cell.ReasonProtocol, opened: true},
		"closed by its owner":           {hops: 1, onOpen: func(_ *liar, c *circuit) { c.close(); c.close() }, want: causeClosed, opened: true},
		"the neighbour's link is gone":  {hops: 1, onOpen: func(l *liar, _ *circuit) { l.node.Stop() }, want: causeLost, reason: cell.ReasonDestroyed, opened: true},
		"a relay that nobody can reach": {hops: 1, prepare: func(l *liar) { l.node.Serve(nil) }, want: causeLink, reason: cell.ReasonConnectFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, 3, 1)
			x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
			l := &liar{testRelay: w.relays[0], htype: ntor.HandshakeType}
			l.links = flow.NewLinks(flow.Config{Env: l.node.Env, Self: l.node.Identity, Handler: l})
			l.onCell = func(command cell.Command, payload []byte) {
				if messages, err := cell.ParsePayload(payload, nil); err != nil || messages[0].Command != cell.MessageExtend || command != cell.CommandRelayEarly {
					t.Errorf("%v instead of EXTEND", messages)
				} else if c.onExtend != nil {
					c.onExtend(l)
				}
			}
			if c.prepare != nil {
				c.prepare(l)
			}
			w.f.Run(time.Millisecond)
			var path []hop
			for _, r := range w.relays[:c.hops] {
				path = append(path, x.c.network.find(r.node.Identity).hop)
			}
			seen := &witness{}
			var made *circuit
			w.f.Do(func() { made = newCircuit(&x.c.wiring, seen, path, false) })
			w.f.Run(time.Second)
			if l.silent {
				w.f.Do(func() { l.leg.Destroy(cell.ReasonHibernating) })
			}
			if c.onOpen != nil {
				w.f.Do(func() { c.onOpen(l, made) })
			}
			w.f.Run(time.Minute)
			if seen.deads != 1 || seen.failure.cause != c.want || seen.failure.reason != c.reason || (seen.opens == 1) != c.opened {
				t.Errorf("ended %d times: cause %d, %v (%v), opened %d times", seen.deads, seen.failure.cause, seen.failure.reason, seen.failure.err, seen.opens)
			}
			for _, reason := range l.destroy {
				if reason != cell.ReasonNone && c.want != causeLost {
					t.Errorf("the relay was told %v", reason)
				}
			}
			if err := x.links.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTheFirstEightCellsAreEarly: RELAY_EARLY is a prefix of 8, whatever the cells carry.
func TestTheFirstEightCellsAreEarly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 5, 1)
	w.echo(server)
	x := w.newClient(nil)
	seen := map[cell.CircuitID][]cell.Command{}
	for _, r := range w.relays {
		r.tamper = func(from *env.Peer, cells []byte) {
			for ; from.Client() && len(cells) > 0; cells = cells[cell.Size:] {
				h, err := cell.DecodeHeader(cells)
				if err != nil {
					t.Error(err)
				} else if h.Command == cell.CommandRelay || h.Command == cell.CommandRelayEarly {
					seen[h.Circuit] = append(seen[h.Circuit], h.Command)
				}
			}
		}
	}
	if err := x.carry(time.Minute, pattern(1, 100<<10)); err != nil {
		t.Fatal(err)
	}
	long := 0
	for id, commands := range seen { // order: each is checked by itself
		for i, c := range commands {
			if (c == cell.CommandRelayEarly) != (i < earlyCells) {
				t.Errorf("circuit %d: cell %d is %v", id, i, c)
			}
		}
		if len(commands) > 20 {
			long++
		}
	}
	if long != 1 {
		t.Errorf("%d circuits carried data", long)
	}
}
