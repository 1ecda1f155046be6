package circuit

import (
	"errors"
	"fmt"
	"net/netip"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/flow"
	"cepa/onion"
)

// earlyCells is how many cells of a circuit, from its first, travel as RELAY_EARLY.
const earlyCells = 8

// hop is one relay of a path.
type hop struct {
	identity  cert.Identity
	onionKey  [32]byte // B; of the first hop of a directory circuit it comes from HELLO
	addresses []netip.AddrPort
}

// state is what a circuit waits for.
type state uint8

const (
	stateDialling state = iota // a link to the first hop
	stateOffering              // the pool, for the message to the next hop
	stateAsking                // the next hop's answer
	stateKeying                // the pool, for the keys of the next hop
	stateOpen
	stateDead
)

var stateNames = [...]string{"dialling", "offering", "asking", "keying", "open", "dead"}

func (s state) String() string { return stateNames[s] }

// circuit is the client's end of one circuit.
//
//	          link              CREATE, EXTEND         CREATED, EXTENDED
//	dialling ------> offering ----------------> asking ----------------> keying --------> open
//	                    ^                                                  |  all hops
//	                    +--------------------------------------------------+
//	                                      hops are missing
//
// Every state becomes dead: when the owner closes the circuit, and by the events below. What
// each event does in each state ("-" cannot happen, flow or the state sees to it):
//
//	            CREATED            RELAY                              DESTROY, link down
//	dialling    -                  -                                  dial failed: dead (link)
//	offering    dead (protocol)    dead (protocol)                    dead (lost)
//	asking 1st  keying             dead (protocol)                    dead (create)
//	asking      dead (protocol)    EXTENDED alone: keying;            dead (lost)
//	                               EXTEND_FAILED alone: dead (extend);
//	                               anything else: dead (protocol)
//	keying      dead (protocol)    dead (protocol)                    dead (lost)
//	open        dead (protocol)    from the last hop: to the streams; dead (lost)
//	                               else dead (protocol)
//	dead        -                  ignored                            -
type circuit struct {
	cfg    *wiring
	owner  owner
	path   []hop
	state  state
	leg    *flow.Leg
	layers []onion.ClientLayer // of the hops that are open
	offer  *offer              // the handshake with hop len(layers)
	extend []byte              // an EXTEND not yet packed
	sent   int                 // cells, for RELAY_EARLY
	mux    *flow.Mux           // once open
	most   int                 // streams at once, once open
	began  env.Mono
	moved  env.Mono // when the state changed last
	heard  env.Mono // when a cell came last
}

// wiring is what all circuits of one Client or Directory share.
type wiring struct {
	env     env.Env
	links   *flow.Links
	network cert.NetworkID
	budget  *flow.Budget
	stats   *flow.Stats
	crypto  onion.Suite // nil is onion.Real
}

// owner hears of a circuit's life. Nothing is heard after onDead.
type owner interface {
	onHop(c *circuit)  // a hop was added, the last one too
	onOpen(c *circuit) // after the onHop of the last hop
	onCell(c *circuit) // an authentic cell arrived
	onDead(c *circuit, f failure)
}

// cause says in which step a circuit ended.
type cause uint8

const (
	causeClosed    cause = iota // its owner closed it
	causeLocal                  // a failure of this node's own
	causeLink                   // no link to the first hop
	causeCreate                 // the first hop answered CREATE with DESTROY, or not at all in time
	causeExtend                 // a later hop: EXTEND_FAILED, or no answer in time
	causeHandshake              // an answer that does not authenticate
	causeLost                   // DESTROY, or the link to the first hop went down
	causeProtocol               // a relay broke the protocol, or somebody altered a cell
)

// failure is why a circuit ended.
type failure struct {
	cause  cause
	hop    int // the first hop that did not become part of the circuit
	reason cell.Reason
	err    error
}

func (f failure) Error() string { return f.err.Error() }

var (
	errClosed       = errors.New("circuit closed")
	errUnasked      = errors.New("an answer that was not asked for")
	errUnrecognised = errors.New("a cell that no hop of the circuit sealed")
	errNotLast      = errors.New("a cell from a hop that is not the last")
	errEarly        = errors.New("a cell while the circuit is being extended")
	errNotAlone     = errors.New("something else than the answer to EXTEND")
	errControl      = errors.New("an answer to EXTEND on an open circuit")
	errNoOnionKey   = errors.New("the relay shows no onion key")
)

// newCircuit begins to build a circuit along path. If the last argument is set, the onion key
// of the first hop is the one in its HELLO; such a circuit has one hop.
func newCircuit(w *wiring, o owner, path []hop, helloKey bool) *circuit {
	now := w.env.Clock.Now()
	c := &circuit{cfg: w, owner: o, path: path, began: now, moved: now, heard: now}
	target := env.Target{Identity: path[0].identity, Addresses: path[0].addresses}
	w.links.To(target, func(l *flow.Link, err error) {
		if c.state != stateDialling {
			return
		}
		if err != nil {
			c.fail(causeLink, cell.ReasonConnectFailed, fmt.Errorf("opening a link: %w", err))
			return
		}
		if helloKey {
			c.path[0].onionKey = l.Peer().OnionKey
			if c.path[0].onionKey == [32]byte{} {
				c.fail(causeLink, cell.ReasonBadHandshake, errNoOnionKey)
				return
			}
		}
		c.becomeOffering(l)
	})
	return c
}

func (c *circuit) become(s state) {
	c.state = s
	c.moved = c.cfg.env.Clock.Now()
}

// becomeOffering makes the message for the next hop, in the pool, and sends it. link is that
// to the first hop, and not needed later.
func (c *circuit) becomeOffering(link *flow.Link) {
	c.become(stateOffering)
	c.offer = newOffer(c.cfg, c.path[len(c.layers)])
	c.offer.start(c.cfg.env.Pool, func(message []byte, err error) {
		switch {
		case c.state != stateOffering:
		case err != nil:
			c.fail(causeLocal, cell.ReasonInternal, err)
		case link != nil:
			c.become(stateAsking)
			c.leg, err = link.Create((*legEvents)(c), handshakeType, message)
			if err != nil {
				c.fail(causeLocal, cell.ReasonResource, err)
			}
		default:
			c.sendExtend(message)
		}
	})
}

func (c *circuit) sendExtend(message []byte) {
	next := c.path[len(c.layers)]
	e := cell.Extend{
		Identity: next.identity, Type: handshakeType, Total: uint16(len(message)), Handshake: message,
	}
	for _, a := range next.addresses[:min(len(next.addresses), cell.MaxSpecifiers)] {
		e.Specifiers = append(e.Specifiers, cell.AddrPortSpecifier(a))
	}
	data, err := e.AppendTo(nil)
	if err != nil {
		c.fail(causeLocal, cell.ReasonInternal, err)
		return
	}
	c.become(stateAsking)
	c.extend = data
	c.leg.Wake()
}

// becomeKeying checks the next hop's answer in the pool and adds its layer.
func (c *circuit) becomeKeying(reply []byte) {
	c.become(stateKeying)
	c.offer.finish(c.cfg.env.Pool, reply, func(layer onion.ClientLayer, allowed flow.Windows, err error) {
		if c.state != stateKeying {
			if layer != nil {
				layer.Erase()
			}
			return
		}
		if err != nil {
			c.fail(causeHandshake, cell.ReasonBadHandshake, err)
			return
		}
		c.offer = nil
		c.layers = append(c.layers, layer)
		if len(c.layers) == len(c.path) {
			c.becomeOpen(allowed)
			return
		}
		c.becomeOffering(nil)
		c.owner.onHop(c)
	})
}

func (c *circuit) becomeOpen(allowed flow.Windows) {
	c.become(stateOpen)
	granted := c.cfg.budget.ClientWindows()
	c.most = flow.MaxStreamsFor(granted, allowed)
	c.mux = flow.NewMux(flow.MuxConfig{
		Env:        c.cfg.env,
		Initiator:  true,
		Granted:    granted,
		Allowed:    allowed,
		MaxStreams: c.most,
		Wake:       c.leg.Wake,
		Handler:    (*muxEvents)(c),
		Budget:     c.cfg.budget,
		Stats:      c.cfg.stats,
	})
	c.owner.onHop(c)
	if c.state == stateOpen {
		c.owner.onOpen(c)
	}
}

// close ends the circuit; its streams end as destroyed. It may be called in any state.
func (c *circuit) close() { c.fail(causeClosed, cell.ReasonNone, errClosed) }

func (c *circuit) violate(err error) { c.fail(causeProtocol, cell.ReasonProtocol, err) }

// fail becomes dead. The DESTROY of a client never gives a reason: what it noticed is nobody's
// business, least of all of who altered a cell to see what happens.
func (c *circuit) fail(why cause, reason cell.Reason, err error) {
	if c.state == stateDead {
		return
	}
	f := failure{cause: why, hop: len(c.layers), reason: reason, err: err}
	c.become(stateDead)
	c.offer, c.extend = nil, nil
	if c.leg != nil {
		c.leg.Destroy(cell.ReasonNone)
		c.leg = nil
	}
	for _, l := range c.layers {
		l.Erase()
	}
	if c.mux != nil {
		c.mux.Close(cell.ReasonDestroyed)
	}
	c.owner.onDead(c, f)
}

// ---- events of the leg ----

type legEvents circuit

func (e *legEvents) OnCreated(created cell.Create) {
	c := (*circuit)(e)
	switch {
	case c.state == stateDead:
	case c.state != stateAsking || len(c.layers) > 0:
		c.violate(errUnasked)
	case created.Type != handshakeType:
		c.fail(causeHandshake, cell.ReasonUnsupported, errUnasked)
	default:
		c.heard = c.cfg.env.Clock.Now()
		c.becomeKeying(created.Handshake)
	}
}

func (e *legEvents) OnCell(command cell.Command, body []byte) (forwarded bool) {
	c := (*circuit)(e)
	switch {
	case c.state == stateDead:
		return false
	case len(c.layers) == 0 || command != cell.CommandRelay:
		c.violate(errUnasked)
		return false
	}
	last := len(c.layers) - 1
	for i, l := range c.layers {
		if !l.Backward(byte(command), body) {
			continue
		}
		if i != last {
			c.violate(errNotLast)
			return false
		}
		c.heard = c.cfg.env.Clock.Now()
		c.onPayload(body[cell.TagSize:])
		return false
	}
	c.violate(errUnrecognised)
	return false
}

// onPayload acts on an authentic payload of the last hop.
func (c *circuit) onPayload(payload []byte) {
	switch c.state {
	case stateOpen:
		c.owner.onCell(c)
		if c.state != stateOpen {
			return
		}
		if err := c.mux.OnPayload(payload); err != nil {
			c.violate(err)
		}
	case stateAsking:
		c.onExtendAnswer(payload)
	default:
		c.violate(errEarly)
	}
}

func (c *circuit) onExtendAnswer(payload []byte) {
	var room [2]cell.Message
	messages, err := cell.ParsePayload(payload, room[:0])
	switch {
	case err != nil:
		c.violate(err)
	case len(messages) != 1 || c.extend != nil:
		c.violate(errNotAlone)
	case messages[0].Command == cell.MessageExtended:
		answer, err := cell.DecodeExtended(messages[0].Data)
		if err != nil || answer.Type != handshakeType {
			c.violate(errNotAlone)
			return
		}
		c.becomeKeying(answer.Handshake)
	case messages[0].Command == cell.MessageExtendFailed:
		answer, err := cell.DecodeExtendFailed(messages[0].Data)
		if err != nil {
			c.violate(err)
			return
		}
		reason := answer.Reason.Known()
		c.fail(causeExtend, reason, fmt.Errorf("extending to hop %d: %v", len(c.layers)+1, reason))
	default:
		c.violate(errNotAlone)
	}
}

func (e *legEvents) NextCell(body []byte) (cell.Command, bool) {
	c := (*circuit)(e)
	payload := body[cell.TagSize:]
	switch {
	case c.extend != nil:
		p := cell.NewPacker(payload)
		p.Add(cell.MessageExtend, 0, c.extend)
		p.Finish()
		c.extend = nil
	case c.state != stateOpen || !c.mux.NextPayload(payload) || c.state != stateOpen:
		return 0, false
	}
	command := cell.CommandRelay
	if c.sent < earlyCells {
		command = cell.CommandRelayEarly
		c.sent++
	}
	last := len(c.layers) - 1
	c.layers[last].Originate(byte(command), body)
	for i := last - 1; i >= 0; i-- {
		c.layers[i].Forward(byte(command), body)
	}
	return command, true
}

func (e *legEvents) Pending() bool {
	return e.extend != nil || e.state == stateOpen && e.mux.Pending()
}

func (e *legEvents) OnDestroyed(reason cell.Reason) {
	c := (*circuit)(e)
	c.leg = nil
	why := causeLost
	if c.state == stateAsking && len(c.layers) == 0 {
		why = causeCreate
	}
	reason = reason.Known()
	c.fail(why, reason, fmt.Errorf("circuit destroyed while %v hop %d: %v", c.state, min(len(c.layers)+1, len(c.path)), reason))
}

// ---- events of the streams' multiplexer ----

type muxEvents circuit

// OnOpen cannot be called at the initiator's end.
func (*muxEvents) OnOpen(s *flow.Stream, _ cell.Message) { s.End(cell.ReasonProtocol) }

func (*muxEvents) OnControl(cell.Message) error { return errControl }
