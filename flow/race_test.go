package flow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"cepa/cell"
)

// seeds is how many worlds a randomised test runs: CEPA_LONG=1 asks for ten times as many,
// -short, as with the race detector, for a tenth.
func seeds(n int) uint64 {
	switch {
	case os.Getenv("CEPA_LONG") != "":
		n *= 10
	case testing.Short():
		n /= 10
	}
	return uint64(n)
}

// player owns circuits on one end of a link and does random things to them.
type player struct {
	w    *world
	n    *testNode
	l    *Link
	legs []*playerLeg
	bad  error
}

type playerLeg struct {
	p        *player
	g        *Leg
	opened   bool
	answered bool
	over     bool
	send     int
}

func (p *player) complain(format string, args ...any) {
	if p.bad == nil {
		p.bad = fmt.Errorf(format, args...)
	}
}

func (x *playerLeg) silence(what string) {
	if x.over {
		x.p.complain("%s after the end of circuit %#x", what, x.g.id)
	}
}

func (x *playerLeg) OnCreated(cell.Create) { x.silence("OnCreated"); x.answered = true }
func (x *playerLeg) OnCell(cmd cell.Command, body []byte) bool {
	x.silence("OnCell")
	if x.p.w.rng.IntN(8) == 0 {
		x.destroy()
	}
	return false
}
func (x *playerLeg) NextCell(body []byte) (cell.Command, bool) {
	x.silence("NextCell")
	if x.p.w.rng.IntN(40) == 0 {
		x.destroy()
		return cell.CommandRelay, true // and must not be sent
	}
	if x.send == 0 {
		return 0, false
	}
	x.send--
	return cell.CommandRelay, true
}
func (x *playerLeg) Pending() bool { return x.send > 0 }
func (x *playerLeg) OnDestroyed(cell.Reason) {
	x.silence("OnDestroyed")
	x.over = true
}

func (x *playerLeg) destroy() {
	x.over = true
	x.g.Destroy(cell.ReasonOther)
}

func (p *player) onCreate(g *Leg, c cell.Create) {
	x := &playerLeg{p: p, g: g}
	p.legs = append(p.legs, x)
	g.Bind(x)
	switch p.w.rng.IntN(4) {
	case 0: // later
	case 1:
		x.destroy()
	default:
		x.answered = true
		g.Created(c.Type, c.Handshake)
	}
}

func (p *player) act() {
	r := p.w.rng
	live := p.legs[:0]
	for _, x := range p.legs {
		if !x.over {
			live = append(live, x)
		}
	}
	p.legs = live
	if len(live) == 0 || r.IntN(4) == 0 {
		x := &playerLeg{p: p, opened: true}
		g, err := p.l.Create(x, 1, []byte("h"))
		if err == nil {
			x.g = g
			p.legs = append(p.legs, x)
		} else if !errors.Is(err, ErrCircuitLimit) {
			p.complain("Create: %v", err)
		}
		return
	}
	x := live[r.IntN(len(live))]
	switch k := r.IntN(6); {
	case k == 0:
		x.destroy()
	case !x.opened && !x.answered:
		x.answered = true
		x.g.Created(1, []byte("h"))
	default:
		x.send += r.IntN(20)
		x.g.Wake()
	}
}

func TestDestroyCrossingEverythingWithIDsReused(t *testing.T) {
	t.Parallel()
	for seed := range seeds(10000) {
		if err := destroyRace(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func destroyRace(seed uint64) error {
	w := newWorld(seed)
	w.fewIDs = true
	limits := Limits{InitialWindow: 2 + w.rng.IntN(7), Reserve: 2, LinkQueue: cell.Size * (1 + w.rng.IntN(3)), CircuitsPerLink: 3, MaxLinks: 2}
	if w.rng.IntN(2) == 0 {
		limits.MaxWindow = w.rng.IntN(100)
	}
	o := linkOptions{delay: time.Duration(w.rng.IntN(10)) * time.Millisecond}
	if w.rng.IntN(2) == 0 {
		o.rate = 1e6
	}
	var players [2]*player
	for i := range players {
		n := w.node(nodeOptions{limits: limits})
		players[i] = &player{w: w, n: n}
		n.onCreate = players[i].onCreate
	}
	players[0].l, players[1].l = w.connect(players[0].n, players[1].n, o)
	for range 60 {
		players[w.rng.IntN(2)].act()
		w.run(time.Duration(w.rng.IntN(4000)) * time.Microsecond)
	}
	for _, p := range players {
		for _, x := range p.legs {
			if !x.over && w.rng.IntN(2) == 0 {
				x.destroy()
			}
		}
	}
	w.run(time.Second)
	for _, p := range players {
		if err := p.n.links.Check(); err != nil {
			return err
		}
		for _, x := range p.legs {
			if !x.over {
				x.destroy()
			}
		}
	}
	w.run(time.Second)
	for _, p := range players {
		s := p.n.stats
		switch {
		case p.bad != nil:
			return p.bad
		case !p.l.up:
			return fmt.Errorf("link went down: %v", p.l.reason)
		case s.LinkErrors+s.CircuitErrors+s.Refused != 0:
			return fmt.Errorf("errors: %+v", *s)
		case s.Legs != 0 || s.Tombstones != 0 || s.QueuedBytes != 0 || p.n.budget.Used() != 0 || p.l.theirs != 0:
			return fmt.Errorf("left: %+v, budget %d, %d ids", *s, p.n.budget.Used(), p.l.theirs)
		}
	}
	return nil
}

// wire joins two muxes without links: payloads pass in order, late, at random times.
type wire struct {
	w       *world
	ends    [2]*Mux
	budgets [2]*Budget
	err     error
	busy    [2]bool
	onOpen  func(*Stream, cell.Message)
	lag     func() time.Duration
	arrives [2]int64
	carried int
}

func newWire(w *world, client, exit Windows) *wire {
	x := &wire{w: w, lag: func() time.Duration { return time.Duration(w.rng.IntN(3000)) * time.Microsecond }}
	for i := range x.ends {
		x.budgets[i] = NewBudget(1 << 30)
		cfg := MuxConfig{
			Env: (&testNode{w: w}).env(), Initiator: i == 0, Granted: client, Allowed: exit,
			Wake: func() { x.wake(i) }, Handler: x, Budget: x.budgets[i], Stats: new(Stats),
		}
		if i == 1 {
			cfg.Granted, cfg.Allowed = exit, client
		}
		x.ends[i] = NewMux(cfg)
	}
	return x
}

func (x *wire) OnOpen(s *Stream, m cell.Message) { x.onOpen(s, m) }
func (x *wire) OnControl(m cell.Message) error   { return wrong("no control here") }

// wake has end i asked for payloads after a while.
func (x *wire) wake(i int) {
	if x.busy[i] {
		return
	}
	x.busy[i] = true
	x.w.at(x.lag(), func() {
		x.busy[i] = false
		payload := make([]byte, cell.PayloadSize)
		if !x.ends[i].NextPayload(payload) {
			return
		}
		x.carried++
		at := max(int64(x.w.now.Add(x.lag())), x.arrives[i])
		x.arrives[i] = at
		x.w.at(time.Duration(at-int64(x.w.now)), func() {
			if err := x.ends[1-i].OnPayload(payload); err != nil && x.err == nil {
				x.err = fmt.Errorf("end %d: %w", 1-i, err)
			}
			x.check()
		})
		if x.ends[i].Pending() {
			x.wake(i)
		}
		x.check()
	})
}

func (x *wire) check() {
	for i, b := range x.budgets {
		if err := b.Check(); err != nil && x.err == nil {
			x.err = fmt.Errorf("end %d: %w", i, err)
		}
		m := x.ends[i]
		if m.window < 0 || m.granted < 0 {
			x.err = fmt.Errorf("end %d: window %d, granted %d", i, m.window, m.granted)
		}
	}
}

// side is one end of a stream in a race.
type side struct {
	streamLog
	x      *wire
	s      *Stream
	conn   *testConn
	end    int
	silent bool // End was called
	bad    string
	failed bool
}

func (y *side) hear(what string) {
	if y.silent || y.ended || y.resolved != nil {
		y.bad = what + " after the end"
	}
}
func (y *side) OnConnected(p []byte)     { y.hear("OnConnected"); y.streamLog.OnConnected(p) }
func (y *side) OnResolved(p []byte)      { y.hear("OnResolved"); y.streamLog.OnResolved(p) }
func (y *side) OnEnd(reason cell.Reason) { y.hear("OnEnd"); y.streamLog.OnEnd(reason) }

func (y *side) attach(data []byte, eof bool) {
	c := newConn(y.x.w, y.s, data, eof)
	c.piece = 1 + y.x.w.rng.IntN(3000)
	c.every = time.Duration(y.x.w.rng.IntN(2000)) * time.Microsecond
	if y.x.w.rng.IntN(2) == 0 {
		c.rate = float64(1 + y.x.w.rng.IntN(3000000))
	}
	y.conn = c
	y.s.Attach(c)
}

// act does something to one end of a stream.
func (y *side) act() {
	r := y.x.w.rng
	if y.ended || y.silent || y.resolved != nil {
		return
	}
	m := y.s.m
	switch k := r.IntN(24); {
	case k == 0:
		y.silent = true
		y.s.End(cell.ReasonTimeout)
	case k == 1 && y.conn != nil:
		y.failed = true
		y.conn.fail(errors.New("reset"))
	case k == 2 && y.conn != nil:
		y.failed = true
		y.conn.fail(nil)
	case y.end == 1 && y.s.kind == cell.MessageResolve && k > 12:
		b, err := cell.Resolved{Reason: cell.ReasonNoSuchHost}.AppendTo(nil)
		if err != nil {
			panic(err)
		}
		y.silent = true
		y.s.Resolved(b)
	case y.end == 1 && k > 6 && !y.s.connected:
		y.s.Connected(connected())
	case y.conn == nil && k > 9 && y.s.kind != cell.MessageResolve && !m.closed:
		y.attach(pattern(r.IntN(20000), uint64(y.s.id)*2+uint64(y.end)), r.IntN(4) > 0)
	case y.conn != nil && k > 18:
		y.conn.eof = true
		y.conn.pull()
	}
}

func TestEndCrossingEverything(t *testing.T) {
	t.Parallel()
	for seed := range seeds(10000) {
		if err := endRace(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func endRace(seed uint64) error {
	w := newWorld(seed)
	r := w.rng
	stream := uint32(1 + r.IntN(8000))
	windows := Windows{Stream: stream, Circuit: stream * uint32(3+r.IntN(3))}
	x := newWire(w, windows, windows)
	var sides [2][]*side
	x.onOpen = func(s *Stream, m cell.Message) {
		y := &side{x: x, s: s, end: 1}
		s.Handle(y)
		sides[1] = append(sides[1], y)
		y.act()
	}
	b, err := cell.Begin{Address: cell.Address{Host: "a"}, Port: 1}.AppendTo(nil)
	if err != nil {
		return err
	}
	lookup, err := cell.Resolve{Address: cell.Address{Host: "a"}}.AppendTo(nil)
	if err != nil {
		return err
	}
	for range 80 {
		if r.IntN(6) == 0 {
			y := &side{x: x}
			cmd, body := cell.MessageBegin, b
			if r.IntN(5) == 0 {
				cmd, body = cell.MessageResolve, lookup
			}
			if y.s, err = x.ends[0].Open(cmd, body, y); err == nil {
				sides[0] = append(sides[0], y)
			} else if !errors.Is(err, ErrStreamLimit) {
				return err
			}
		} else if i := r.IntN(2); len(sides[i]) > 0 {
			sides[i][r.IntN(len(sides[i]))].act()
		}
		w.run(time.Duration(r.IntN(2000)) * time.Microsecond)
		if x.err != nil {
			return x.err
		}
	}
	// Half of what is left ends by itself, the rest is aborted; either way nothing may remain.
	for i := range sides {
		for _, y := range sides[i] {
			if y.conn != nil && !y.conn.closed {
				y.conn.eof = true
				y.conn.rate = 0
				y.conn.queue = 0
				y.s.OnDrained()
				y.conn.pull()
			}
		}
	}
	w.run(5 * time.Second)
	for i := range sides {
		for _, y := range sides[i] {
			if !y.ended && !y.silent && y.resolved == nil {
				y.silent = true
				y.s.End(cell.ReasonOther)
			}
		}
	}
	w.run(lingerTime + 5*time.Second) // for those whose Conn is down and whose peer's window is tiny
	if x.err != nil {
		return x.err
	}
	for i, m := range x.ends {
		for _, y := range sides[i] {
			if y.bad != "" {
				return fmt.Errorf("end %d, stream %d: %s", i, y.s.id, y.bad)
			}
			if y.conn != nil && !y.conn.closed {
				return fmt.Errorf("end %d, stream %d: conn left open", i, y.s.id)
			}
		}
		if m.Streams() != 0 || x.budgets[i].Used() != 0 || !m.control.empty() || !m.turns.empty() || !m.all.empty() {
			return fmt.Errorf("end %d is left with %d streams and %d bytes", i, m.Streams(), x.budgets[i].Used())
		}
	}
	// With every stream gone, both circuit windows are whole but for what is not worth a WINDOW.
	for i, m := range x.ends {
		if sum := m.granted + m.unsaid; sum != int(windows.Circuit) {
			return fmt.Errorf("end %d: window of the circuit is %d of %d", i, sum, windows.Circuit)
		}
		if m.granted != x.ends[1-i].window {
			return fmt.Errorf("end %d granted %d, the other has %d", i, m.granted, x.ends[1-i].window)
		}
	}
	for _, y := range sides[0] {
		for _, z := range sides[1] {
			if z.s.id == y.s.id {
				if err := compare(y, z); err != nil {
					return fmt.Errorf("stream %d, client to exit: %w", y.s.id, err)
				}
				if err := compare(z, y); err != nil {
					return fmt.Errorf("stream %d, exit to client: %w", y.s.id, err)
				}
			}
		}
	}
	for _, m := range x.ends {
		m.Close(cell.ReasonDestroyed)
	}
	for i, b := range x.budgets {
		if len(b.holders) != 0 {
			return fmt.Errorf("end %d is still registered", i)
		}
	}
	return nil
}

// compare verifies what passed from one end of a stream to the other.
func compare(from, to *side) error {
	if from.conn == nil || to.conn == nil {
		return nil
	}
	sent, got := from.conn.input[:from.conn.read], to.conn.got
	if !bytes.HasPrefix(sent, got) {
		return fmt.Errorf("%d bytes sent, %d other bytes came", len(sent), len(got))
	}
	whole := from.ended && to.ended && from.reason == cell.ReasonNone && to.reason == cell.ReasonNone
	if whole && len(sent) != len(got) && !to.failed {
		return fmt.Errorf("ended in order, but of %d bytes %d came", len(sent), len(got))
	}
	return nil
}
