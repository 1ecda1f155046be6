package circuit

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/flow"
)

// pooled is one circuit of the client's. It is clean until a stream uses it; from then on it
// serves the isolation key of that stream only. Retired, it takes no new streams, and is
// closed when it has none.
//
//	building --> clean --> keyed --> retired --> (closed)
//
// Every state can become retired, and ends when the circuit does.
type pooled struct {
	client  *Client
	id      uint64
	circuit *circuit
	guard   *guard
	path    []*relayInfo
	exit    *relayInfo
	open    bool
	keyed   bool
	key     string // once keyed; never changes
	used    env.Mono
	retired bool
	stalled bool            // building, without progress
	late    bool            // not whole after the time that most take: others are built beside it
	suspect bool            // a stream stalled, and nothing has come since
	live    int             // streams that are asked for or connected
	asked   int             // streams ever
	told    []cert.Identity // the path, as an observer has it
	claimed bool            // by the plan being made: what waits for it while it is built
	claim   string
	room    int
	timer   env.Timer // of building
}

// streamsPerCircuit is how many streams a circuit is expected to take while it is being built.
var streamsPerCircuit = flow.MaxStreamsFor(flow.ClientWindows, flow.ExitWindows)

// planLater has plan run as an event of its own: never inside a call of a multiplexer.
func (c *Client) planLater() {
	if !c.due && !c.closed {
		c.due = true
		c.env.Clock.AfterFunc(0, c.plan)
	}
}

// plan gives circuits to those who wait, builds what is missing, and closes what is not needed. It
// runs whenever something has changed, and decides from what there is, not from what happened.
func (c *Client) plan() {
	c.due = false
	if c.closed {
		return
	}
	c.refresh()
	wake := c.retire()
	c.assign()
	if c.network != nil {
		wake = sooner(wake, c.buildAll())
		if left := c.guards.regrouping(); left > 0 {
			wake = sooner(wake, left)
		}
		c.tellTrouble()
	}
	if wake >= 0 {
		if c.alarm == nil {
			c.alarm = c.env.Clock.AfterFunc(wake, c.planLater)
		} else {
			c.alarm.Reset(wake)
		}
	}
}

// sooner is the shorter of two waits; a negative one is none.
func sooner(a, b time.Duration) time.Duration {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

// retire retires circuits by age and closes those that are not needed any more. It returns the time until
// the next one is due.
func (c *Client) retire() (wake time.Duration) {
	wake = -1
	now := c.env.Clock.Now()
	clean := 0
	for _, p := range slices.Backward(slices.Clone(c.circuits)) {
		if !p.keyed && p.open && !p.retired {
			if clean++; clean > c.limits.MaxClean {
				p.retired = true
			}
		}
		since, age := p.used, c.limits.Reuse
		if !p.keyed {
			since, age = p.circuit.began, c.limits.CleanAge
		}
		if left := age - now.Sub(since); left <= 0 {
			p.retired = true
		} else if p.open && !p.retired {
			wake = sooner(wake, left)
		}
		if p.retired && p.live == 0 {
			p.circuit.close()
		}
	}
	return wake
}

// fits says whether the attempt could use the circuit once it is open.
func (p *pooled) fits(a *attempt) bool {
	h := a.handle
	return !p.retired && !p.suspect && !p.stalled && !p.late && p.circuit.state != stateDead && !h.client.doubtful(p) &&
		(p.guard.primary || h.client.guards.regrouping() == 0) &&
		(!p.guard.suspect || p.circuit.began >= p.guard.suspected) &&
		p.exit.serves(h.to) && !slices.Contains(h.banned, p.exit.identity) &&
		(p.circuit.began >= a.since || !slices.ContainsFunc(p.path[1:], func(r *relayInfo) bool { return slices.Contains(h.shun, r.identity) }))
}

// full says whether the circuit can take no more streams.
func (p *pooled) full() bool { return p.circuit.mux.Streams() >= p.circuit.most }

// assign gives circuits to attempts, the oldest first: one that serves their key already, else
// a clean one.
func (c *Client) assign() {
	waiting := c.waiting
	c.waiting = nil
	for _, a := range waiting {
		if a.over {
			continue
		}
		if p := c.findCircuit(a); p == nil || !a.begin(p) {
			c.waiting = append(c.waiting, a)
		}
	}
}

func (c *Client) findCircuit(a *attempt) *pooled {
	var clean *pooled
	for _, p := range c.circuits {
		if !p.open || !p.fits(a) || p.full() {
			continue
		}
		if a.handle.anyKey || p.keyed && p.key == a.handle.key {
			return p
		}
		if !p.keyed && clean == nil {
			clean = p
		}
	}
	return clean
}

// buildAll starts the circuits that are missing: for those who wait, for guards on trial, and
// spare ones. It returns how long to wait before trying again, if that is necessary.
func (c *Client) buildAll() (wake time.Duration) {
	wake = -1
	now := c.env.Clock.Now()
	if left := c.pause.Sub(now); left > 0 && (len(c.waiting) > 0 || c.spareNeeded() != nil) {
		wake = left
	} else {
		wake = c.buildWaiting()
		if wake < 0 && len(c.waiting) == 0 {
			wake = c.buildSpares()
		}
	}
	for {
		g, left := c.guards.trial()
		if g == nil {
			return sooner(wake, left)
		}
		if err := c.build(g, wish{}); err != nil {
			return sooner(wake, time.Second)
		}
	}
}

// buildWaiting lays the attempts that wait over the circuits being built, and starts more
// where these do not suffice.
func (c *Client) buildWaiting() (wake time.Duration) {
	for _, p := range c.circuits {
		p.claimed, p.room = p.keyed, streamsPerCircuit
		p.claim = p.key
	}
	for _, a := range slices.Clone(c.waiting) {
		if a.over || c.claim(a) {
			continue
		}
		err := c.build(nil, wish{to: a.handle.to, banned: a.handle.banned, shun: a.handle.shun})
		switch {
		case err == nil:
			p := c.circuits[len(c.circuits)-1]
			p.claimed, p.claim, p.room = !a.handle.anyKey, a.handle.key, streamsPerCircuit-1
		case errors.Is(err, errNoExit), errors.Is(err, errExits), errors.Is(err, errRestricted):
			a.handle.noExit(err)
		default:
			var w *waitError
			if errors.As(err, &w) {
				return w.wait
			}
			return -1 // something will change: the consensus, or one of the circuits being built
		}
	}
	return -1
}

// claim reserves a place for a on a circuit that is being built.
func (c *Client) claim(a *attempt) bool {
	for _, p := range c.circuits {
		h := a.handle
		if p.open || p.room == 0 || p.claimed && p.claim != h.key && !h.anyKey || !p.fits(a) {
			continue
		}
		if !h.anyKey {
			p.claimed, p.claim = true, h.key
		}
		p.room--
		return true
	}
	return false
}

// spareNeeded returns a kind of exit that too few clean circuits serve, or nil.
func (c *Client) spareNeeded() *destination {
	now := c.env.Clock.Now()
	clean := make([]*pooled, 0, c.limits.MaxClean)
	for _, p := range c.circuits {
		if !p.keyed && !p.claimed && !p.retired && !p.stalled && !p.late && !p.suspect && !p.guard.suspect && !c.doubtful(p) {
			clean = append(clean, p)
		}
	}
	if len(clean) >= c.limits.MaxClean {
		return nil
	}
	for i := range c.ports {
		u := &c.ports[i]
		if now.Sub(u.last) > c.limits.PortAge {
			continue
		}
		n := 0
		for _, p := range clean {
			if p.exit.serves(u.to) {
				n++
			}
		}
		if n < c.limits.Spares && len(c.network.exits(u.to).relays) > 0 {
			return &u.to
		}
	}
	return nil
}

func (c *Client) buildSpares() (wake time.Duration) {
	for range c.limits.MaxClean {
		to := c.spareNeeded()
		if to == nil {
			return -1
		}
		if err := c.build(nil, wish{to: *to}); err != nil {
			var w *waitError
			if errors.As(err, &w) {
				return w.wait
			}
			return -1
		}
	}
	return -1
}

// waitError says that building is possible again in a while.
type waitError struct {
	wait time.Duration
	why  error
}

func (e *waitError) Error() string { return e.why.Error() }

var (
	errBuilds    = errors.New("enough circuits are being built")
	errCircuits  = errors.New("all circuits are in use")
	errUnguarded = errors.New("the consensus lists no guard that circuits can be built through")
	errOffline   = errors.New("no guard reachable")
	errCaptured  = errors.New("too many circuits through the guard fail")
)

// build starts one circuit, through g or, if that is nil, the guard of choice.
func (c *Client) build(g *guard, w wish) error {
	running, stalled := 0, 0
	for _, p := range c.circuits {
		switch {
		case p.stalled, p.late && !p.open:
			stalled++
		case !p.open:
			running++
		}
	}
	switch {
	case running >= c.limits.Builds || stalled >= c.limits.Stalled:
		return errBuilds
	case len(c.circuits) >= c.limits.Circuits && !c.evict():
		return errCircuits
	}
	if g == nil {
		var wait time.Duration
		if g, wait = c.guards.choose(len(c.waiting) > 0); g == nil {
			return c.unguarded(wait)
		}
		if wait = c.guards.regrouping(); wait > 0 && !g.primary {
			return &waitError{wait, errOffline}
		}
	}
	if wait := c.guards.mayBuild(g); wait > 0 {
		return &waitError{wait, errCaptured}
	}
	w.avoid = c.avoids(g.id)
	path, err := c.network.choosePath(c.env.Rand, g.relay, w, c.subnets())
	switch {
	case err == nil:
		c.start(g, path)
	case errors.Is(err, errNoMiddle):
		c.trouble = err
	case errors.Is(err, errExits) && (len(c.guards.primary) == 0 || g != c.guards.primary[0]):
		c.trouble = err
		return &waitError{time.Second, err} // the first guard may be back soon
	}
	return err
}

// evict closes the oldest circuit that nobody uses.
func (c *Client) evict() bool {
	for _, p := range c.circuits {
		if p.open && p.live == 0 {
			p.circuit.close()
			return true
		}
	}
	return false
}

func (c *Client) start(g *guard, path []*relayInfo) {
	c.nextID++
	p := &pooled{client: c, id: c.nextID, guard: g, path: path, exit: path[len(path)-1]}
	hops := make([]hop, len(path))
	for i, r := range path {
		hops[i] = r.hop
	}
	g.trying++
	g.last = c.env.Clock.Now()
	c.circuits = append(c.circuits, p)
	p.circuit = newCircuit(&c.wiring, p, hops, false)
	p.tell(StageBegun, failure{})
	p.timer = c.env.Clock.AfterFunc(min(c.times.stall(), c.times.late), p.onTimer)
}

// unguarded says why there is no guard to build through, and until when.
func (c *Client) unguarded(wait time.Duration) error {
	switch {
	case wait >= 0:
		if c.trouble == nil {
			c.trouble = errOffline
		}
		return &waitError{wait, errOffline}
	case len(c.guards.primary) > 0 || c.guards.full():
		return &waitError{time.Second, errOffline} // others are being tried
	}
	if c.trouble = c.network.empty; c.trouble == nil {
		c.trouble = errUnguarded
	}
	return c.trouble
}

// onTimer watches a circuit that is being built: it stalls when nothing has moved for a while, and
// fails when its time is over.
func (p *pooled) onTimer() {
	c := p.client
	now := c.env.Clock.Now()
	hops := len(p.circuit.layers)
	age, still, limit := now.Sub(p.circuit.began), now.Sub(p.circuit.moved), c.times.firstHop()
	if hops > 0 {
		limit = c.times.giveUp
	}
	if age >= limit {
		if !c.guards.offline() {
			c.times.abandoned(age, still)
		}
		why := causeExtend
		if hops == 0 {
			why = causeCreate
		}
		p.circuit.fail(why, cell.ReasonTimeout, fmt.Errorf("no answer from hop %d within %v", hops+1, limit))
		return
	}
	left := limit - age
	if until := c.times.late - age; until > 0 {
		left = min(left, until)
	} else if !p.late {
		p.late = true
		c.stats.Late++
		c.planLater()
	}
	if until := c.times.stall() - still; until > 0 {
		left = min(left, until)
	} else if !p.stalled {
		p.becomeStalled()
	}
	p.timer.Reset(left)
}

// becomeStalled has others try beside this circuit. Which relay is silent cannot be told, so all
// that could be are avoided: the guard only when nobody else has been asked yet.
func (p *pooled) becomeStalled() {
	c := p.client
	p.stalled = true
	hops := len(p.circuit.layers)
	if hops == 0 {
		c.suspectGuard(p.guard)
	}
	for i := 1; i <= hops && hops > 0; i++ {
		c.doubt(p.guard.id, p.path[i].identity)
	}
	c.planLater()
}

// trust takes back what becomeStalled held against the relays beyond the guard.
func (p *pooled) trust() {
	for _, r := range p.path[1:] {
		p.client.trust(r.identity)
	}
}

// suspectGuard stops preferring a guard until it is heard of again, and has the requests that
// wait for answers through it alone try another way.
func (c *Client) suspectGuard(g *guard) {
	if g.suspect {
		return
	}
	g.suspect, g.suspected = true, c.env.Clock.Now()
	for _, p := range c.circuits {
		if p.guard == g && p.stalled { // so it was not the relays behind it
			p.trust()
		}
	}
	c.planLater()
	for _, h := range slices.Clone(c.live) {
		h.onGuardSuspect(g)
	}
}

// check has a circuit built through a guard, unless one is: its CREATED shows that the guard lives.
func (c *Client) check(g *guard) {
	if g.trying == 0 && g.relay != nil && c.network != nil && g.state != guardDown {
		// A failure to choose a path has nothing to say about the guard.
		_ = c.build(g, wish{})
	}
}

// ---- what the circuit says ----

func (p *pooled) onHop(circuit *circuit) {
	c := p.client
	hops := len(circuit.layers)
	if hops == 1 {
		p.guard.trying--
		if c.guards.onSuccess(p.guard) {
			c.returnTo(p.guard)
		}
		c.trouble = nil
	} else {
		c.forgive(p.path[hops-2].identity, p.path[hops-1].identity)
	}
	if p.stalled {
		p.stalled = false
		p.trust()
	}
	c.planLater()
}

// returnTo has new streams use a guard that works again rather than those that come after it.
func (c *Client) returnTo(g *guard) {
	at := slices.Index(c.guards.usable, g)
	for _, p := range c.circuits {
		if at < slices.Index(c.guards.usable, p.guard) && (!p.keyed || !p.guard.primary) {
			p.retired = true
		}
	}
}

func (p *pooled) onOpen(*circuit) {
	c := p.client
	p.open = true
	p.timer.Stop()
	c.stats.Built++
	c.failures = 0
	took := c.env.Clock.Now().Sub(p.circuit.began)
	c.log.Debug("a circuit is open", "hops", len(p.circuit.layers), "took", took)
	c.times.whole(took, p.late)
	if p.late { // it is there, so it may serve if somebody waits; else it was for measuring
		p.late, p.retired = false, p.retired || len(c.waiting) == 0
	}
	c.guards.onExtended(p.guard, true)
	p.tell(StageOpen, failure{})
	c.planLater()
}

func (p *pooled) onCell(*circuit) {
	if len(p.client.doubts) > 0 {
		p.trust()
	}
	if p.suspect {
		p.suspect = false
		p.client.planLater()
	}
	if p.guard.suspect {
		p.guard.suspect = false
		p.client.planLater()
	}
}

func (p *pooled) onDead(_ *circuit, f failure) {
	c := p.client
	p.tell(StageOver, f)
	p.timer.Stop()
	c.circuits = slices.DeleteFunc(c.circuits, func(x *pooled) bool { return x == p })
	c.planLater()
	if f.cause == causeProtocol {
		c.stats.Tampered++
		c.log.Debug("a circuit was destroyed for a violation of the protocol", "why", f.err)
	}
	if p.open {
		if f.cause != causeClosed {
			c.stats.Lost++
		}
		return
	}
	if f.hop == 0 {
		p.guard.trying--
	}
	if f.cause == causeClosed {
		return
	}
	c.stats.Failed++
	c.trouble = f.err
	c.log.Debug("building a circuit failed", "hop", f.hop+1, "why", f.err)
	switch {
	case f.cause == causeLocal:
		c.backOff()
	case f.hop == 0:
		c.guards.onFailure(p.guard, p.circuit.began, f.err)
		switch why := c.guards.obstacle(); {
		case why != nil:
			c.trouble = why
		case c.guards.offline() && c.guards.full():
			c.trouble = errGuardLimit
		case c.guards.offline():
			c.trouble = fmt.Errorf("%w: %w", errOffline, f.err)
		}
	default:
		c.guards.onExtended(p.guard, false)
		c.avoid(p, f.hop)
		c.backOff()
	}
}

// backOff keeps a client whose circuits all fail from building without end: the first failures
// cost nothing, then pauses grow to 5 seconds.
func (c *Client) backOff() {
	c.failures++
	if c.failures <= 4 {
		return
	}
	pause := 100 * time.Millisecond << min(c.failures-5, 6)
	c.pause = c.env.Clock.Now().Add(min(pause, 5*time.Second))
}

// identities are those of the relays beyond the guard.
func (p *pooled) identities() []cert.Identity {
	var ids []cert.Identity
	for _, r := range p.path[1:] {
		ids = append(ids, r.identity)
	}
	return ids
}
