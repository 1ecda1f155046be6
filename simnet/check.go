package simnet

import (
	"encoding/binary"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/node"
)

// Checker watches a run and calls World.Violate when something happens that must not, whatever the
// scenario. It sees what the world sees, from outside the nodes. Its methods are called inside
// events and act on nothing.
type Checker interface {
	Name() string
	// OnConsensus tells of a consensus that a host has taken into use.
	OnConsensus(w *World, h *Host, c *directory.Consensus)
	// OnFlowData tells of bytes of an application's stream that arrived at their end: up, at the
	// server; down, at the application.
	OnFlowData(w *World, f *Flow, up bool, offset int64, p []byte)
	// OnAttached tells that a stream was connected over a circuit, which is never the same for two
	// circuits.
	OnAttached(w *World, f *Flow, circuit uint64)
	// OnFlowEnd tells that a stream has its result.
	OnFlowEnd(w *World, f *Flow)
	// OnExtend tells that a client asked the first relay of a circuit to extend it: that relay is a guard of it.
	OnExtend(w *World, client, first *Host)
	// OnInspect is called now and then between two events: the accounts of the host's node can be looked at.
	OnInspect(w *World, h *Host)
	// OnCalm tells that the last fault is over: see World.Calm.
	OnCalm(w *World)
	// Finish is called when a run is over: see World.Finish.
	Finish(w *World)
}

// Silent is a Checker that does nothing, for others to embed.
type Silent struct{}

func (Silent) OnConsensus(*World, *Host, *directory.Consensus) {}
func (Silent) OnFlowData(*World, *Flow, bool, int64, []byte)   {}
func (Silent) OnAttached(w *World, f *Flow, circuit uint64)    {}
func (Silent) OnFlowEnd(*World, *Flow)                         {}
func (Silent) OnExtend(w *World, client, first *Host)          {}
func (Silent) OnInspect(*World, *Host)                         {}
func (Silent) OnCalm(*World)                                   {}
func (Silent) Finish(*World)                                   {}

// Watch adds checkers.
func (w *World) Watch(c ...Checker) { w.checkers = append(w.checkers, c...) }

// Checkers are all that this package has, new.
func Checkers() []Checker {
	return []Checker{
		&BytesChecker{}, &ResultChecker{}, &IsolationChecker{}, &ConsensusChecker{}, &AccountsChecker{}, &LivenessChecker{},
		&GuardChecker{}, &LeftoverChecker{},
	}
}

// Finish has the checkers look at what is left, and returns all violations. Who calls it has
// stopped the clients (Network.StopClients) and let the relays calm down, for two minutes.
func (w *World) Finish() []Violation {
	for _, c := range w.checkers {
		c.Finish(w)
	}
	return w.found
}

// BytesChecker: every byte of a stream arrives once, in order and unaltered.
type BytesChecker struct {
	Silent
	at    map[flowSide]int64
	wrong map[uint64]bool
}

type flowSide struct {
	id uint64
	up bool
}

func (*BytesChecker) Name() string { return "bytes" }

func (c *BytesChecker) OnFlowData(w *World, f *Flow, up bool, offset int64, p []byte) {
	if c.at == nil {
		c.at, c.wrong = make(map[flowSide]int64), make(map[uint64]bool)
	}
	if c.wrong[f.ID] || f.Ended > 0 { // what is still on its way to the server when a stream is over is nobody's
		return
	}
	side := flowSide{f.ID, up}
	if offset != c.at[side] {
		c.wrong[f.ID] = true
		w.Violate(c, f.Client, "stream %d: bytes of offset %d come where %d is next", f.ID, offset, c.at[side])
		return
	}
	if i := mismatch(p, f.ID, up, offset); i >= 0 {
		c.wrong[f.ID] = true
		w.Violate(c, f.Client, "stream %d, up %v: byte %d is not what was sent", f.ID, up, offset+int64(i))
		return
	}
	c.at[side] = offset + int64(len(p))
	if most := f.total(up); c.at[side] > most {
		c.wrong[f.ID] = true
		w.Violate(c, f.Client, "stream %d, up %v: %d bytes arrived of %d", f.ID, up, c.at[side], most)
	}
}

// OnFlowEnd: a stream that ended well has brought all that was sent.
func (c *BytesChecker) OnFlowEnd(w *World, f *Flow) {
	for _, up := range []bool{true, false} {
		if got, want := c.at[flowSide{f.ID, up}], f.total(up); f.Err == nil && got != want && !c.wrong[f.ID] {
			w.Violate(c, f.Client, "stream %d, up %v: ended well after %d bytes of %d", f.ID, up, got, want)
		}
		delete(c.at, flowSide{f.ID, up})
	}
	delete(c.wrong, f.ID)
}

// ResultChecker: every stream ends with a definite result, once.
type ResultChecker struct {
	Silent
	ended map[uint64]bool
}

func (*ResultChecker) Name() string { return "results" }

func (c *ResultChecker) OnFlowEnd(w *World, f *Flow) {
	if c.ended == nil {
		c.ended = make(map[uint64]bool)
	}
	if c.ended[f.ID] {
		w.Violate(c, f.Client, "stream %d has two results", f.ID)
	}
	c.ended[f.ID] = true
}

func (c *ResultChecker) Finish(w *World) {
	for _, f := range w.flows {
		if !c.ended[f.ID] && f.Client.life == f.life {
			w.Violate(c, f.Client, "stream %d, opened at %v, has no result", f.ID, f.Opened)
		}
	}
}

// IsolationChecker: no two isolation keys on one circuit.
type IsolationChecker struct {
	Silent
	keys map[uint64]string
	// Attached counts the streams that were seen on their circuits.
	Attached int
}

func (*IsolationChecker) Name() string { return "isolation" }

func (c *IsolationChecker) OnAttached(w *World, f *Flow, circuit uint64) {
	if c.keys == nil {
		c.keys = make(map[uint64]string)
	}
	c.Attached++
	if key, known := c.keys[circuit]; known && key != f.Isolation {
		w.Violate(c, f.Client, "stream %d with isolation %q is on the circuit of %q", f.ID, f.Isolation, key)
	}
	c.keys[circuit] = f.Isolation
}

// ConsensusChecker: there is one line of consensuses. No two of one time differ, and each follows
// one that somebody had.
type ConsensusChecker struct {
	Silent
	at     map[int64]cert.Digest
	digest map[cert.Digest]bool
	// Seen counts the consensuses.
	Seen int
}

func (*ConsensusChecker) Name() string { return "consensus" }

func (c *ConsensusChecker) OnConsensus(w *World, h *Host, x *directory.Consensus) {
	if c.at == nil {
		c.at, c.digest = make(map[int64]cert.Digest), make(map[cert.Digest]bool)
	}
	at, is := x.Head.ValidAfter.UnixMilli(), x.Head.Digest
	if w.defects.consensus != nil {
		is = w.defects.consensus(h, is)
	}
	if other, known := c.at[at]; known && other != is {
		w.Violate(c, h, "two consensuses of %v: %x and %x", x.Head.ValidAfter, other[:4], is[:4])
		return
	}
	if c.digest[is] {
		return
	}
	if previous := x.Head.Previous; !previous.IsZero() && len(c.digest) > 0 && !c.digest[previous] {
		w.Violate(c, h, "the consensus of %v follows %x, which nobody has had", x.Head.ValidAfter, previous[:4])
	}
	c.at[at], c.digest[is] = is, true
	c.Seen++
}

// LeftoverChecker: nothing is held for circuits and streams that are gone.
type LeftoverChecker struct{ Silent }

func (*LeftoverChecker) Name() string { return "leftovers" }

// leftovers are the gauges that are zero when nobody uses the network.
var leftovers = []string{"relay_exit_streams", "streams", "queued_bytes", "tombstones", "budget_used_bytes"}

// settleTime is how long Finish looks for moments at which all is well: relays do something for themselves all the
// time, such as asking another for a descriptor, and each at times of its own.
const settleTime = 30 * time.Second

// held is a relay, and which of its gauges have not been zero yet.
type held struct {
	r     *Relay
	names []string
	last  map[string]int64
}

// Finish lets the world go on a little, until each gauge of each relay has been zero once, and there was a moment
// without more circuits than relays made themselves.
func (c *LeftoverChecker) Finish(w *World) {
	var left []*held
	for _, n := range w.networks {
		for _, r := range n.Relays {
			left = append(left, &held{r: r, names: slices.Clone(leftovers)})
		}
	}
	circuits, carried, made := true, int64(0), int64(0)
	for end := w.now.Add(settleTime); ; w.Run(100 * time.Millisecond) {
		left = slices.DeleteFunc(left, (*held).clean)
		if circuits {
			carried, made = countCircuits(w)
			circuits = carried > made
		}
		if len(left) == 0 && !circuits || w.now >= end {
			break
		}
	}
	for _, x := range left {
		for _, name := range x.names {
			w.Violate(c, x.r.Host, "%s is %d, and was never 0 in %v", name, x.last[name], settleTime)
		}
	}
	if circuits {
		w.Violate(c, nil, "relays carry %d circuits and have made only %d", carried, made)
	}
}

// clean notes the gauges that are zero, and reports whether all have been.
func (x *held) clean() bool {
	if !x.r.Host.alive {
		return true
	}
	x.last = x.r.Node.Counters()
	x.names = slices.DeleteFunc(x.names, func(name string) bool { return x.last[name] == 0 })
	return len(x.names) == 0
}

// countCircuits counts those that relays carry for others, and those that relays have made: they make circuits of one
// hop for the directory, and without clients there are no others.
func countCircuits(w *World) (carried, made int64) {
	for _, n := range w.networks {
		for _, r := range n.Relays {
			if r.Host.alive {
				counters := r.Node.Counters()
				made += counters["directory_circuits"]
				carried += counters["relay_circuits"]
			}
		}
	}
	return carried, made
}

// watch sees which circuit of a client brought what.
type watch struct {
	current uint64 // circuit whose cells are being handled; 0 is none
	last    uint64 // number of the circuit that was begun last
}

// sent looks for circuits that begin, and for those that are extended.
func (x *watch) sent(l *link, cells []byte) {
	for ; len(cells) > 0; cells = cells[cell.Size:] {
		switch cell.Command(cells[4] & 0x7f) {
		case cell.CommandCreate:
			if l.circuits == nil {
				l.circuits = make(map[uint32]uint64)
			}
			x.last++
			l.circuits[circuitID(cells)] = x.last
		case cell.CommandRelayEarly: // or a circuit of one hop begins with it, for the directory
			if l.host.extends != nil && l.host.extends(l.peer.Identity) {
				for _, c := range l.w.checkers {
					c.OnExtend(l.w, l.host, l.far.host)
				}
			}
		}
	}
}

func circuitID(c []byte) uint32 { return binary.BigEndian.Uint32(c) }

// deliver gives cells to a client, those of one circuit at a time, so that it is known which
// circuit made it do what it does.
func (x *watch) deliver(l *link, cells []byte) {
	for len(cells) > 0 && !l.over {
		id, n := circuitID(cells), cell.Size
		for n < len(cells) && circuitID(cells[n:]) == id {
			n += cell.Size
		}
		x.current = l.circuits[id]
		destroyed := cell.Command(cells[n-cell.Size+4]&0x7f) == cell.CommandDestroy
		l.events.OnCells(cells[:n])
		x.current = 0
		if destroyed {
			delete(l.circuits, id)
		}
		cells = cells[n:]
	}
}

// defects are seeded bugs, for the tests that show that checkers notice.
type defects struct {
	cells     func(h *Host, cells []byte) []byte // in place of what a link sends
	consensus func(h *Host, d cert.Digest) cert.Digest
	reply     func(f *Flow, offset int64, p []byte) // spoils what a server answers
	isolation func(key string) string               // in place of what the application asks for
	deaf      func(f *Flow) bool                    // the application never hears the end
	node      func(h *Host) node.Defect             // in the code of a node
}
