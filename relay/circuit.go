package relay

import (
	"errors"
	"net/netip"
	"slices"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/flow"
	"cepa/ipaddr"
	"cepa/limit"
	"cepa/onion"
)

// circuit is one circuit through this relay.
//
//	          OnCreate          handshake done         EXTEND            CREATED
//	(nothing) --------> waiting --------------> end ---------> extending --------> middle
//	                                             ^                 | failed
//	                                             +-----------------+  (EXTEND_FAILED)
//
// From every state it becomes dead: DESTROY from either side, a link that goes down, or a
// violation of the protocol. An end serves streams; a middle only passes cells on.
type circuit struct {
	relay   *Relay
	prev    *flow.Leg // towards the client
	next    *flow.Leg // away from it; set from the CREATE that extends on
	from    string    // what limits count the previous hop by, when CREATE came
	message []byte    // the client's handshake, until the pool has it
	arrived env.Mono
	crypto  onion.RelayLayer // nil while waiting
	place   int              // in relay.open, if it has crypto
	mux     *flow.Mux        // the streams of an end, and EXTEND; nil once the circuit goes on from here
	command cell.Command
	extend  *extension // the one EXTEND outstanding
	middle  bool       // CREATED came from the next hop
	dead    bool
	dials   int          // look-ups and connection attempts under way
	exits   int          // streams of this circuit in the exit's hands
	conns   int          // of these, with a connection that is open or being opened
	begun   limit.Bucket // of new connections,
	rated   bool         // once there was one
}

// extension is one EXTEND on its way. Its callbacks compare it with circuit.extend, so that
// what comes after a timeout is recognised.
type extension struct {
	timer env.Timer
}

type (
	prevLeg circuit // the circuit hearing its leg towards the client
	nextLeg circuit // the circuit hearing its leg to the next hop
)

// maxClientStreams is how many streams a circuit that ends at its first relay may have.
const maxClientStreams = 8

func (c *circuit) becomeOpen(crypto onion.RelayLayer, allowed flow.Windows) {
	c.crypto = crypto
	granted := c.relay.cfg.Budget.ExitWindows()
	streams := flow.MaxStreamsFor(granted, allowed)
	if c.prev.Link().Peer().Client() {
		streams = min(streams, maxClientStreams) // of directory requests, since nothing else is served there
	}
	c.mux = flow.NewMux(flow.MuxConfig{
		Env:        c.relay.env,
		Granted:    granted,
		Allowed:    allowed,
		MaxStreams: streams,
		Wake:       c.prev.Wake,
		Handler:    c,
		Budget:     c.relay.cfg.Budget,
		Stats:      c.relay.cfg.FlowStats,
	})
}

// becomeDead ends the circuit: reason goes to the previous hop, DESTROYED to the next.
func (c *circuit) becomeDead(reason cell.Reason) {
	if c.dead {
		return
	}
	c.dead = true
	if c.middle {
		c.relay.middles--
	}
	if c.crypto != nil {
		c.relay.shut(c)
		c.crypto.Erase()
	}
	c.stopExtension()
	if c.mux != nil {
		c.mux.Close(cell.ReasonDestroyed)
	}
	if c.prev != nil {
		c.prev.Destroy(reason)
		c.prev = nil
	}
	if c.next != nil {
		c.next.Destroy(cell.ReasonDestroyed)
		c.next = nil
	}
}

// violate ends a circuit whose far end broke the protocol.
func (c *circuit) violate(err error) {
	if errors.Is(err, flow.ErrBudget) {
		c.becomeDead(cell.ReasonResource)
		return
	}
	c.relay.stats.Violations++
	c.relay.log.Debug("circuit destroyed", "why", err)
	c.becomeDead(cell.ReasonProtocol)
}

var (
	errNoNextHop    = errors.New("a cell that is not recognised, and no next hop")
	errNotLastHop   = errors.New("a recognised cell at a hop that has a next hop")
	errEarlyAnswer  = errors.New("a cell from the next hop before EXTENDED was sent")
	errUnasked      = errors.New("CREATED that was not asked for")
	errExtendLate   = errors.New("EXTEND not in RELAY_EARLY")
	errExtendTwice  = errors.New("EXTEND while another is outstanding")
	errExtendStream = errors.New("EXTEND on a circuit with streams")
	errStreamExtend = errors.New("a stream on a circuit that is being extended")
	errControl      = errors.New("a message that only a client receives")
)

// ---- the leg towards the client ----

func (p *prevLeg) OnCreated(cell.Create) { (*circuit)(p).violate(errUnasked) }

func (p *prevLeg) OnCell(command cell.Command, body []byte) (forwarded bool) {
	c := (*circuit)(p)
	if c.crypto == nil { // RELAY before CREATED
		c.violate(errNoNextHop)
		return false
	}
	if !c.crypto.Forward(byte(command), body) {
		if !c.middle {
			c.violate(errNoNextHop)
			return false
		}
		c.next.Relay(command, body, c.prev)
		return true
	}
	if c.next != nil {
		c.violate(errNotLastHop)
		return false
	}
	c.command = command
	if err := c.mux.OnPayload(body[cell.TagSize:]); err != nil {
		c.violate(err)
	}
	return false
}

func (p *prevLeg) NextCell(body []byte) (cell.Command, bool) {
	c := (*circuit)(p)
	if c.mux == nil || !c.mux.NextPayload(body[cell.TagSize:]) {
		return 0, false
	}
	if c.middle && !c.mux.Pending() { // that was EXTENDED, the last word of a hop in the middle
		c.mux.Close(cell.ReasonDestroyed)
		c.mux = nil
	}
	c.crypto.Originate(byte(cell.CommandRelay), body)
	return cell.CommandRelay, true
}

func (p *prevLeg) Pending() bool { return p.mux != nil && p.mux.Pending() }

func (p *prevLeg) OnDestroyed(cell.Reason) {
	c := (*circuit)(p)
	c.prev = nil
	c.becomeDead(cell.ReasonDestroyed)
}

// ---- the leg to the next hop ----

func (n *nextLeg) OnCreated(created cell.Create) {
	c := (*circuit)(n)
	if c.extend == nil || c.middle {
		c.violate(errUnasked)
		return
	}
	c.stopExtension()
	data, err := cell.Extended{
		Type: created.Type, Total: created.Total, Offset: created.Offset, Handshake: created.Handshake,
	}.AppendTo(nil)
	if err != nil { // a CREATED may be longer than an EXTENDED can be
		c.extendFailed(cell.ReasonBadHandshake)
		return
	}
	c.middle = true
	c.relay.middles++
	c.mux.Control(cell.MessageExtended, data)
}

func (n *nextLeg) OnCell(command cell.Command, body []byte) (forwarded bool) {
	c := (*circuit)(n)
	if !c.middle || c.mux != nil {
		// Honest cells follow the client's own, and those follow EXTENDED. Letting this one
		// overtake would also break the order of the tags.
		c.violate(errEarlyAnswer)
		return false
	}
	c.crypto.Backward(byte(command), body)
	c.prev.Relay(command, body, c.next)
	return true
}

func (n *nextLeg) NextCell([]byte) (cell.Command, bool) { return 0, false }
func (n *nextLeg) Pending() bool                        { return false }

func (n *nextLeg) OnDestroyed(cell.Reason) {
	c := (*circuit)(n)
	c.next = nil
	if c.extend != nil {
		c.extendFailed(cell.ReasonConnectFailed)
		return
	}
	c.becomeDead(cell.ReasonDestroyed)
}

// ---- extending ----

// OnControl hears EXTEND; the other control messages are for clients.
func (c *circuit) OnControl(m cell.Message) error {
	switch {
	case m.Command != cell.MessageExtend:
		return errControl
	case c.command != cell.CommandRelayEarly:
		return errExtendLate
	case c.extend != nil:
		return errExtendTwice
	case c.mux.Streams() > 0 || c.exits > 0:
		return errExtendStream
	}
	e, err := cell.DecodeExtend(m.Data)
	if err != nil {
		return err
	}
	c.relay.stats.Extends++
	c.onExtend(e)
	return nil
}

func (c *circuit) onExtend(e cell.Extend) {
	r := c.relay
	target, reason := r.extendTarget(e, c.prev.Link().Peer())
	x := &extension{}
	c.extend = x
	if reason != cell.ReasonNone {
		c.extendFailed(reason)
		return
	}
	handshake := slices.Clone(e.Handshake)
	x.timer = r.env.Clock.AfterFunc(r.cfg.Limits.ExtendTimeout, func() {
		if c.extend == x {
			c.extendFailed(cell.ReasonTimeout)
		}
	})
	r.cfg.Links().To(target, func(l *flow.Link, err error) {
		if c.extend != x || c.dead {
			return
		}
		if err == nil {
			c.next, err = l.Create((*nextLeg)(c), e.Type, handshake)
		}
		if err != nil {
			r.log.Debug("extending failed", "err", err)
			c.extendFailed(extendReason(err))
		}
	})
}

// extendReason translates what kept this relay from reaching the next one.
func extendReason(err error) cell.Reason {
	switch {
	case errors.Is(err, env.ErrIdentity):
		return cell.ReasonWrongIdentity
	case errors.Is(err, flow.ErrCircuitLimit), errors.Is(err, flow.ErrBudget), errors.Is(err, flow.ErrLinkLimit):
		return cell.ReasonResource
	}
	return cell.ReasonConnectFailed
}

// extendTarget decides where an EXTEND may go (docs/protocol.md, "EXTEND"): to a relay that
// this one has a link with or a descriptor of; to any other only as often as a token bucket
// allows, since relays are no port scanners; never to itself or back.
func (r *Relay) extendTarget(e cell.Extend, prev *env.Peer) (env.Target, cell.Reason) {
	id := cert.Identity(e.Identity)
	t := env.Target{Identity: id}
	if r.cfg.DirectoryOnly {
		return t, cell.ReasonPolicy
	}
	if id == r.cfg.Identity || id.IsZero() || (!prev.Client() && id == prev.Identity) {
		return t, cell.ReasonNoSuchRelay
	}
	from, listed := r.neighbour(prev)
	if !listed && !r.extends.Take(from, 1, r.env.Clock.Now()) {
		return t, cell.ReasonRateLimited
	}
	if r.cfg.Links().Open(id) != nil {
		return t, cell.ReasonNone
	}
	known := r.cfg.Directory.Addresses(id)
	if len(known) == 0 {
		if !r.unknowns.Take(from, 1, r.env.Clock.Now()) {
			return t, cell.ReasonRateLimited
		}
		for _, s := range e.Specifiers {
			if a, ok := s.AddrPort(); ok {
				known = append(known, a)
			}
		}
	}
	for _, a := range known {
		if r.mayDial(a) && len(t.Addresses) < 8 {
			t.Addresses = append(t.Addresses, a)
		}
	}
	if len(t.Addresses) == 0 {
		return t, cell.ReasonNoSuchRelay
	}
	return t, cell.ReasonNone
}

// mayDial refuses this relay's own addresses and, outside test networks, all that are not public.
func (r *Relay) mayDial(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !slices.Contains(r.cfg.Addresses, a) &&
		(r.cfg.Test || ipaddr.IsPublic(a.Addr()))
}

func (c *circuit) stopExtension() {
	if c.extend != nil && c.extend.timer != nil {
		c.extend.timer.Stop()
	}
	c.extend = nil
}

// extendFailed tells the client, which then destroys the circuit or tries another relay.
func (c *circuit) extendFailed(reason cell.Reason) {
	c.stopExtension()
	c.relay.stats.ExtendFailed++
	if c.next != nil {
		c.next.Destroy(cell.ReasonNone)
		c.next = nil
	}
	data, err := cell.ExtendFailed{Reason: reason}.AppendTo(nil)
	if err != nil {
		c.becomeDead(cell.ReasonInternal)
		return
	}
	c.mux.Control(cell.MessageExtendFailed, data)
}
