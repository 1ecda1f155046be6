package circuit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
	"cepa/ipaddr"
)

// Request is one TCP stream that an application wants.
type Request struct {
	Address cell.Address
	Port    uint16
	Flags   cell.Flags // which addresses of a name the exit may use; 0 is both families
	// Isolation is opaque: requests with different keys never share a circuit.
	Isolation string
}

// Result is what is known of a stream that was opened.
type Result struct {
	IP      netip.Addr // that the exit connected to; the zero Addr when it does not say
	Circuit uint64     // that carries it, as in Info
}

// ResolveRequest asks for the addresses of a name or the names of an address.
type ResolveRequest struct {
	Address   cell.Address
	Flags     cell.Flags // which addresses are wanted; 0 is both families
	Isolation string
}

// Handle is a request. It implements env.ConnEvents: the owner of the Conn given to Open lets
// the Conn's events go to the Handle for all of its life.
type Handle struct {
	client  *Client
	id      uint64
	began   env.Mono
	command cell.MessageCommand
	data    []byte
	address cell.Address
	to      destination
	key     string
	anyKey  bool // serves any circuit, and leaves a clean one clean
	conn    env.Conn
	won     func(a *attempt, data []byte) // CONNECTED or RESOLVED came
	lost    func(*Error)

	attempts []*attempt // that have no outcome yet
	started  int
	losses   int
	banned   []cert.Identity // exits that refused
	shun     []cert.Identity // relays of circuits on which it stalled
	reason   cell.Reason     // of the last exit that refused
	deadline env.Timer
	over     bool // the outcome is known, or nobody wants to

	carrier   *attempt     // that succeeded; nil again when its stream is over
	stream    *flow.Stream // that conn belongs to, to the end of its life
	early     []byte       // what conn brought before
	eof       bool
	cancelled bool
}

// attempt is one try of a request: first without a circuit, then on one.
type attempt struct {
	handle *Handle
	since  env.Mono // waiting, or asked
	p      *pooled  // nil while it waits
	stream *flow.Stream
	stall  env.Timer
	number int // of the request's attempts
	over   bool
}

// Open carries conn over the overlay. conn starts paused and stays the caller's until done is
// called, exactly once and never before Open returns: with nil when the exit is connected,
// before any data is written to conn, which then is the stream's; or with an *Error, and conn
// stays as it is. After Cancel done is not called.
func (c *Client) Open(r Request, conn env.Conn, done func(Result, error)) *Handle {
	if r.Flags == 0 {
		r.Flags = cell.AllowIPv4 | cell.AllowIPv6
	}
	h := &Handle{
		client: c, command: cell.MessageBegin, address: r.Address, key: r.Isolation, conn: conn,
		to: destinationOf(r.Address, r.Port, r.Flags),
	}
	h.lost = func(e *Error) { done(Result{}, e) }
	h.won = func(a *attempt, data []byte) {
		connected, err := cell.DecodeConnected(data)
		if err != nil { // not reached: the payload was checked
			connected = cell.Connected{}
		}
		c.stats.Connected++
		c.stats.Streams++
		h.stream, h.carrier = a.stream, a
		h.tell(StreamOpen, nil)
		done(Result{IP: connected.IP, Circuit: a.p.id}, nil)
		h.join()
	}
	data, err := cell.Begin{Flags: r.Flags, Address: r.Address, Port: r.Port}.AppendTo(nil)
	h.data = data
	h.begin(c.refuse(r.Address, err))
	return h
}

// Resolve asks an exit for the addresses of a name or the names of an address. done is called
// exactly once, never before Resolve returns: with 1 or more answers and the time for which they hold, or
// with an *Error. After Cancel it is not called.
func (c *Client) Resolve(r ResolveRequest, done func(answers []cell.Address, ttl time.Duration, err error)) *Handle {
	if r.Flags == 0 {
		r.Flags = cell.AllowIPv4 | cell.AllowIPv6
	}
	h := &Handle{client: c, command: cell.MessageResolve, address: r.Address, key: r.Isolation}
	h.lost = func(e *Error) { done(nil, 0, e) }
	h.won = func(_ *attempt, data []byte) {
		m, err := cell.DecodeResolved(data)
		if err != nil { // not reached: the payload was checked
			m = cell.Resolved{Reason: cell.ReasonOther}
		}
		answers := c.believable(m.Answers, r.Address)
		if len(answers) == 0 {
			done(nil, 0, errorOf(cell.ReasonNoSuchHost, r.Address))
			return
		}
		c.stats.Resolved++
		done(answers, time.Duration(m.TTL)*time.Second, nil)
	}
	data, err := cell.Resolve{Flags: r.Flags, Address: r.Address}.AppendTo(nil)
	h.data = data
	h.begin(c.refuse(r.Address, err))
	return h
}

// believable drops what an exit must not say: addresses that are not public (they would point
// an application at its own network), names for a name, and addresses for an address.
func (c *Client) believable(answers []cell.Address, question cell.Address) []cell.Address {
	return slices.DeleteFunc(slices.Clone(answers), func(a cell.Address) bool {
		return a.IsIP() == question.IsIP() || a.IsIP() && !c.cfg.Test && !ipaddr.IsPublic(a.IP)
	})
}

// Probe shows that circuits carry data: it makes a directory request of the last relay of a
// circuit of three hops. done is called exactly once, never before Probe returns.
func (c *Client) Probe(done func(error)) *Handle {
	h := &Handle{client: c, command: cell.MessageBeginDir, anyKey: true}
	h.lost = func(e *Error) { done(e) }
	request, err := directory.Request{Kind: directory.AskHead}.AppendTo(nil)
	h.won = func(a *attempt, _ []byte) {
		h.carrier = a
		c.probe(a, request, func(err error) {
			if !h.cancelled {
				done(err)
			}
		})
	}
	h.begin(err)
	return h
}

// probe makes the request on a stream that is open.
func (c *Client) probe(a *attempt, request []byte, done func(error)) {
	var timer env.Timer
	finish := func(answer []byte, err error) {
		timer.Stop()
		if err == nil && len(answer) == 0 {
			err = errors.New("an empty answer")
		}
		c.env.Clock.AfterFunc(0, func() {
			if a.handle.carrier != nil {
				a.handle.ended(a)
				a.stream.End(cell.ReasonOther) // nothing, if it is over
			}
			if err != nil {
				a.p.suspect = true
				done(&Error{Reason: cell.ReasonTimeout, Where: AtCircuit, Text: fmt.Sprintf("a circuit does not carry data: %v; trying again helps if a relay has just failed", err)})
				return
			}
			done(nil)
		})
	}
	x := &exchange{clock: c.env.Clock, request: request, max: directory.MaxConsensusHead + 64, done: finish}
	x.moved = func() { timer.Reset(c.limits.ProbeTime) }
	timer = c.env.Clock.AfterFunc(c.limits.ProbeTime, func() { x.finish(nil, ErrFetchTimeout) })
	a.handle.lost = func(e *Error) { x.finish(nil, e) }
	x.attach(a.stream)
}

// begin starts the first attempt, or fails.
func (h *Handle) begin(err error) {
	c := h.client
	c.stats.Requests++
	c.requests++
	c.live = append(c.live, h)
	c.nextAsk++
	h.id, h.began = c.nextAsk, c.env.Clock.Now()
	h.tell(StreamWaiting, nil)
	var refused *Error
	switch {
	case c.closed:
		refused = &Error{Reason: cell.ReasonShutdown, Where: AtClient, Text: "the client is shutting down"}
	case errors.As(err, &refused):
	case err != nil:
		refused = &Error{Reason: cell.ReasonProtocol, Where: AtClient, Text: err.Error()}
	case c.requests > c.limits.Requests || len(c.waiting) >= c.limits.Waiting:
		refused = &Error{Reason: cell.ReasonResource, Where: AtClient, Text: "too many streams at once; close some, or try again later"}
	}
	if refused != nil {
		c.env.Clock.AfterFunc(0, func() { h.fail(refused) })
		return
	}
	c.use(h.to)
	h.deadline = c.env.Clock.AfterFunc(c.limits.RequestTime, func() { h.fail(h.lateError()) })
	h.try()
}

// try adds an attempt, which waits for a circuit.
func (h *Handle) try() {
	c := h.client
	h.started++
	if h.started > 1 {
		c.stats.Retries++
	}
	a := &attempt{handle: h}
	h.attempts = append(h.attempts, a)
	a.wait()
}

func (a *attempt) wait() {
	c := a.handle.client
	a.p, a.stream, a.since, a.number = nil, nil, c.env.Clock.Now(), a.handle.started
	c.waiting = append(c.waiting, a)
	c.planLater()
}

// waits says whether an attempt waits for a circuit.
func (h *Handle) waits() bool {
	return slices.ContainsFunc(h.attempts, func(a *attempt) bool { return a.p == nil })
}

// begin asks on a circuit. It reports false if the circuit takes no stream.
func (a *attempt) begin(p *pooled) bool {
	h, c := a.handle, a.handle.client
	s, err := p.circuit.mux.Open(h.command, h.data, a)
	if err != nil {
		if !errors.Is(err, flow.ErrStreamLimit) {
			p.retired = true // its stream ids are used up
		}
		return false
	}
	now := c.env.Clock.Now()
	p.live++
	p.asked++
	if !p.keyed && !h.anyKey {
		p.keyed, p.key, p.used = true, h.key, now
	}
	p.tell(StageUsed, failure{})
	a.p, a.stream, a.since = p, s, now
	h.tell(StreamAsked, nil)
	c.guards.confirm(p.guard)
	a.stall = c.env.Clock.AfterFunc(c.times.stall(), a.onStall)
	return true
}

// onStall: nobody has answered for a while. When nothing at all has come on the circuit, it is
// suspect, and so is the guard if it does not answer a CREATE. The request is then tried
// beside, at once after its first attempt, later after others; nothing of the application's
// was sent, so nothing can be sent twice.
func (a *attempt) onStall() {
	h, c := a.handle, a.handle.client
	if a.p.circuit.heard <= a.since {
		if !a.p.suspect {
			a.p.suspect = true
			c.stats.Suspects++
		}
		c.check(a.p.guard)
	}
	if a.number == 1 {
		h.tryBeside()
		return
	}
	a.stall = c.env.Clock.AfterFunc(c.limits.StallAgain-c.limits.Stall, h.tryBeside)
}

// tryBeside adds an attempt by another exit and middle, if it may.
func (h *Handle) tryBeside() {
	if h.over || h.waits() || h.started >= h.client.limits.Attempts {
		return
	}
	for _, a := range h.attempts {
		h.shun = append(h.shun, a.p.identities()...)
	}
	h.try()
}

// onGuardSuspect tries another guard if all attempts are with this one.
func (h *Handle) onGuardSuspect(g *guard) {
	for _, a := range h.attempts {
		if a.p == nil || a.p.guard != g {
			return
		}
	}
	if len(h.attempts) > 0 {
		h.tryBeside()
	}
}

// leave gives the place of the attempt on its circuit back.
func (a *attempt) leave() {
	if a.p != nil {
		a.p.live--
		a.handle.client.planLater()
	}
}

// drop ends an attempt whose outcome is of no interest.
func (a *attempt) drop() {
	if a.over {
		return
	}
	a.over = true
	if a.stall != nil {
		a.stall.Stop()
	}
	if a.stream != nil {
		a.stream.End(cell.ReasonReset)
	}
	a.leave()
}

// settle makes the outcome known: no other attempt matters any more.
func (h *Handle) settle() {
	c := h.client
	h.over = true
	if h.deadline != nil {
		h.deadline.Stop()
	}
	for _, a := range h.attempts {
		a.drop()
	}
	h.attempts = nil
	c.waiting = slices.DeleteFunc(c.waiting, func(a *attempt) bool { return a.handle == h })
	c.live = slices.DeleteFunc(c.live, func(x *Handle) bool { return x == h })
}

func (h *Handle) fail(e *Error) {
	if h.over {
		return
	}
	h.settle()
	h.client.requests--
	h.client.stats.Refused++
	h.tell(StreamFailed, e)
	h.lost(e)
}

// noExit fails a request for which no path can be found.
func (h *Handle) noExit(err error) {
	if h.reason != cell.ReasonNone {
		if len(h.attempts) == 1 {
			h.fail(errorOf(h.reason, h.address))
		}
		return // another attempt goes on
	}
	if errors.Is(err, errRestricted) {
		h.fail(&Error{Reason: cell.ReasonPolicy, Where: AtClient, Text: fmt.Sprintf("no circuit: %v", err)})
		return
	}
	h.fail(&Error{Reason: cell.ReasonPolicy, Where: AtCircuit, Text: fmt.Sprintf("no circuit: %v; another port may work", err)})
}

// lateError says what a request waited for in vain.
func (h *Handle) lateError() *Error {
	c := h.client
	e := &Error{Reason: cell.ReasonTimeout, Where: AtCircuit}
	switch {
	case !h.waits():
		e.Where = AtExit
		const text = "timed out: no answer from an exit for %s within %v; try again"
		e.Text = fmt.Sprintf(text, h.address, c.limits.RequestTime)
		e.Scrubbed = fmt.Sprintf(text, theDestination, c.limits.RequestTime)
	case c.network == nil:
		e.Text = "no consensus yet: the list of relays could not be fetched; check the network connection and the clock"
	case c.Trouble() != nil:
		e.Text = fmt.Sprintf("no circuit: %v", c.Trouble())
	case c.trouble != nil:
		e.Text = fmt.Sprintf("no circuit: %v; check the network connection", c.trouble)
	default:
		e.Text = "no circuit: too many are in use; close some streams"
	}
	return e
}

// Cancel ends the request: nothing more is heard of it. A Conn that a stream carries is
// closed; before that it stays the caller's. It may be called at any time, and twice.
func (h *Handle) Cancel() {
	h.cancelled = true
	if !h.over {
		h.settle()
		h.client.requests--
		h.tell(StreamOver, nil)
	} else if a := h.carrier; a != nil {
		h.ended(a)
		a.stream.End(cell.ReasonReset)
	}
}

// ended counts a stream that was connected as over.
func (h *Handle) ended(a *attempt) {
	h.tell(StreamOver, nil)
	h.carrier = nil
	if h.command == cell.MessageBegin {
		h.client.stats.Streams--
		h.client.requests--
	}
	a.leave()
}

// ---- what the stream says ----

// OnConnected implements flow.StreamHandler.
func (a *attempt) OnConnected(data []byte) { a.win(data) }

// OnResolved implements flow.StreamHandler.
func (a *attempt) OnResolved(data []byte) {
	if m, err := cell.DecodeResolved(data); err == nil && m.Reason != cell.ReasonNone {
		a.OnEnd(m.Reason)
		return
	}
	a.stream = nil
	a.win(data)
}

// win makes this attempt the one that counts.
func (a *attempt) win(data []byte) {
	h := a.handle
	if a.over || h.over {
		return
	}
	a.over = true
	a.stall.Stop()
	h.attempts = slices.DeleteFunc(h.attempts, func(x *attempt) bool { return x == a })
	h.doubt(a.p)
	h.settle()
	if h.command != cell.MessageBegin {
		h.client.requests--
	}
	if h.command == cell.MessageResolve {
		a.leave()
		h.tell(StreamOver, nil)
	}
	h.won(a, data)
}

// doubt blames the relays of attempts that nobody has answered, now that another circuit was
// quick: it is not the destination that is slow.
func (h *Handle) doubt(winner *pooled) {
	for _, a := range h.attempts {
		if a.p == nil || !a.p.suspect || a.p.guard.suspect {
			continue
		}
		for _, r := range a.p.path[1:] {
			if !slices.ContainsFunc(winner.path, func(w *relayInfo) bool { return w.identity == r.identity }) {
				h.client.doubt(a.p.guard.id, r.identity)
			}
		}
	}
}

// OnEnd implements flow.StreamHandler: the stream was refused, is over, or was lost.
func (a *attempt) OnEnd(reason cell.Reason) {
	h := a.handle
	if h.carrier == a {
		h.ended(a)
		if h.command == cell.MessageBeginDir {
			h.lost(errorOf(reason, h.address))
		}
		return
	}
	if a.over || h.over {
		return
	}
	a.stall.Stop()
	p := a.p
	a.leave()
	if p.circuit.state == stateDead {
		h.onLost(a)
		return
	}
	h.onRefused(a, p, reason)
}

// onLost: the circuit went before the stream was open. Nothing was sent on it but the request.
func (h *Handle) onLost(a *attempt) {
	if h.losses++; h.losses <= h.client.limits.Losses {
		a.wait()
		return
	}
	h.give(a, cell.ReasonDestroyed)
}

// onRefused: the exit answered with a reason. Some hold everywhere, others may not hold at
// another exit.
func (h *Handle) onRefused(a *attempt, p *pooled, reason cell.Reason) {
	h.reason = reason
	if final(reason) {
		a.over = true
		h.fail(errorOf(reason, h.address))
		return
	}
	h.banned = append(h.banned, p.exit.identity)
	if h.started < h.client.limits.Attempts {
		h.started++
		h.client.stats.Retries++
		a.wait()
		return
	}
	h.give(a, reason)
}

// give ends an attempt for good. When it was the last, the request fails.
func (h *Handle) give(a *attempt, reason cell.Reason) {
	a.over = true
	h.attempts = slices.DeleteFunc(h.attempts, func(x *attempt) bool { return x == a })
	if len(h.attempts) == 0 {
		h.fail(errorOf(reason, h.address))
	}
}

// ---- what the application's connection says ----

// join hands conn to the stream, with what came before.
func (h *Handle) join() {
	if h.carrier == nil { // cancelled
		return
	}
	s := h.stream
	s.Attach(h.conn)
	if len(h.early) > 0 {
		s.OnData(h.early)
		h.early = nil
	}
	if h.eof {
		s.OnEOF()
	}
}

// maxEarly is how much a Conn may bring before it is the stream's, although it is paused.
const maxEarly = 64 << 10

// OnData implements env.ConnEvents.
func (h *Handle) OnData(p []byte) {
	switch {
	case h.stream != nil:
		h.stream.OnData(p)
	case h.over:
	case len(h.early)+len(p) > maxEarly:
		h.fail(&Error{Reason: cell.ReasonInternal, Where: AtClient, Text: "the application's connection does not stay paused"})
	default:
		h.early = append(h.early, p...)
	}
}

// OnEOF implements env.ConnEvents.
func (h *Handle) OnEOF() {
	h.eof = true
	if h.stream != nil {
		h.stream.OnEOF()
	}
}

// OnDrained implements env.ConnEvents.
func (h *Handle) OnDrained() {
	if h.stream != nil {
		h.stream.OnDrained()
	}
}

// OnDown implements env.ConnEvents. Before there is a stream the request fails.
func (h *Handle) OnDown(reason error) {
	if h.stream != nil {
		h.stream.OnDown(reason)
		return
	}
	h.fail(&Error{Reason: cell.ReasonReset, Where: AtClient, Text: "the application closed the connection"})
}
