package circuit

import (
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/flow"
)

// StreamState says how far a request has come.
type StreamState uint8

// The states of a request. An observer hears of one when it comes to be in it.
const (
	StreamWaiting StreamState = iota // for a circuit
	StreamAsked                      // an exit, which has not answered
	StreamOpen
	StreamFailed // observed only: it had no outcome but an error
	StreamOver   // observed only
)

var streamStateNames = [...]string{"waiting", "asked", "open", "failed", "over"}

func (s StreamState) String() string { return streamStateNames[s] }

// StreamInfo describes one request of an application: a stream, or a look-up.
type StreamInfo struct {
	ID       uint64 // of this Client, from 1
	State    StreamState
	Lookup   bool
	Address  cell.Address
	Port     uint16 // 0 of a look-up
	Key      string // the isolation key
	Circuit  uint64 // that carries it, or was asked last; 0 for none
	Age      time.Duration
	BytesIn  uint64 // from the destination
	BytesOut uint64
	Err      error // of StreamFailed
}

// Streams describes the requests of applications that are not over, in the order in which they came. The client's own
// probes are not among them.
func (c *Client) Streams() []StreamInfo {
	var list []StreamInfo
	for _, h := range c.live {
		if h.visible() {
			list = append(list, h.info(StreamWaiting))
		}
	}
	for _, p := range c.circuits {
		if p.circuit.mux == nil {
			continue
		}
		p.circuit.mux.Each(func(s *flow.Stream) {
			if a, ok := s.Handler().(*attempt); ok && a.handle.carrier == a && a.handle.visible() {
				list = append(list, a.handle.info(StreamOpen))
			}
		})
	}
	slices.SortFunc(list, func(a, b StreamInfo) int { return int(a.ID) - int(b.ID) }) // ids are unique
	return list
}

// visible says whether the request is an application's.
func (h *Handle) visible() bool { return h.command != cell.MessageBeginDir }

func (h *Handle) info(state StreamState) StreamInfo {
	i := StreamInfo{
		ID: h.id, State: state, Lookup: h.command == cell.MessageResolve, Address: h.address, Port: h.to.port, Key: h.key,
		Age: h.client.env.Clock.Now().Sub(h.began),
	}
	for _, a := range h.attempts {
		if a.p != nil {
			i.Circuit = a.p.id
			if state == StreamWaiting {
				i.State = StreamAsked
			}
		}
	}
	if a := h.carrier; a != nil {
		i.Circuit = a.p.id
		if a.stream != nil {
			i.BytesIn, i.BytesOut = a.stream.Bytes()
		}
	}
	return i
}

// tell lets the observer hear.
func (h *Handle) tell(state StreamState, err error) {
	if observe := h.client.cfg.OnStream; observe != nil && h.visible() {
		i := h.info(state)
		i.Err = err
		observe(i)
	}
}

// GuardInfo describes one guard.
type GuardInfo struct {
	Identity  cert.Identity
	Primary   bool   // one of the first three, which are used
	InUse     bool   // new circuits go through it
	Confirmed bool   // it has carried a stream
	State     string // untried, up, suspect or down
	Failures  int    // in a row
	Fault     error  // the last failure, when it is down and known
	Circuits  int    // through it now, building ones too
}

// Guards describes the guards that can be used, in order of preference: at most 60.
func (c *Client) Guards() []GuardInfo {
	list := make([]GuardInfo, 0, len(c.guards.usable))
	used := false
	for _, g := range c.guards.usable {
		i := GuardInfo{Identity: g.id, Primary: g.primary, Confirmed: !g.confirmed.IsZero(), Failures: g.failures}
		switch {
		case g.state == guardUntried:
			i.State = "untried"
		case g.state == guardDown:
			i.State, i.Fault = "down", g.fault
		case g.suspect:
			i.State = "suspect"
		default:
			i.State = "up"
		}
		for _, p := range c.circuits {
			if p.guard == g {
				i.Circuits++
			}
		}
		if i.State == "up" && !used {
			i.InUse, used = true, true
		}
		list = append(list, i)
	}
	return list
}

// Describe describes the one-hop circuits, the oldest first; Streams counts the requests on each.
func (d *Directory) Describe() []Info {
	now := d.wiring.env.Clock.Now()
	list := make([]Info, 0, len(d.relays))
	for _, r := range d.relays {
		if r.circuit == nil {
			continue
		}
		list = append(list, Info{
			Path: []cert.Identity{r.id}, Hops: len(r.circuit.layers), Open: r.circuit.state == stateOpen,
			Streams: len(r.active), Age: now.Sub(r.circuit.began),
		})
	}
	return list
}
