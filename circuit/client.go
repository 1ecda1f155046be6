package circuit

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
	"cepa/onion"
)

// Config is what a Client is made of. All fields are needed unless they say otherwise.
type Config struct {
	Env       env.Env
	Links     *flow.Links
	NetworkID cert.NetworkID
	Budget    *flow.Budget
	FlowStats *flow.Stats
	// View is the consensus in force and valid now; nil when there is none.
	View func() *directory.Consensus
	// Test says that the network is a test network: private destinations are allowed.
	Test bool
	// DistinctSubnets says whether no two relays of a circuit may be in one IPv4 /16 or IPv6
	// /32. Nil asks the consensus.
	DistinctSubnets func() bool
	// Restrict is what the user wants of paths; nil is nothing.
	Restrict *Restrictions
	// OnTrouble is told, as an event of its own, what keeps circuits from being built although it
	// is nobody's fault beyond this machine and its settings, and nil when it is over. It may be nil.
	OnTrouble func(error)
	// OnCircuit hears of each step in the life of each circuit, inside the event in which it happens: it
	// calls nothing of the Client. It may be nil.
	OnCircuit func(Event)
	// OnStream hears of each step of each request of an application, as OnCircuit does of circuits. It may be nil.
	OnStream func(StreamInfo)
	// Crypto is the cryptography of circuits; nil is onion.Real.
	Crypto onion.Suite
	Limits Limits
}

// Limits are the bounds of a Client, in one place (docs/protocol.md, "Bounds").
type Limits struct {
	Requests int // streams and look-ups, waiting or open; more fail at once
	Waiting  int // of those, how many may wait for a circuit
	Circuits int // in all, building and open
	Builds   int // circuits being built at once, those that stall not counted
	Stalled  int // circuits being built that stall
	Spares   int // clean circuits kept for each port used lately
	MaxClean int // clean circuits for all ports
	Ports    int // ports remembered for spare circuits

	Reuse       time.Duration // for which a circuit takes new streams, from its first one
	CleanAge    time.Duration // after which an unused circuit is replaced
	PortAge     time.Duration // for which a port counts as used lately
	BuildTime   time.Duration // for the first hop of a circuit, at least …
	HopTime     time.Duration // … and this much more for each hop for the whole, while nothing is learned
	LateLeast   time.Duration // a circuit is not late before …
	GiveUpMost  time.Duration // … and never waited for longer, whatever was learned
	Stall       time.Duration // without progress, before another circuit or stream is tried beside …
	StallMost   time.Duration // … and at most, in a slow network
	StallAgain  time.Duration // before the one after that
	Attempts    int           // at one request, side by side or in turn
	Losses      int           // circuits that may be lost under one request besides
	RequestTime time.Duration // for a request to be answered
	ProbeTime   time.Duration // without progress of a probe
	AvoidTime   time.Duration // for which a relay that failed is avoided at first, behind the same hop; doubles
	AvoidMost   time.Duration
	DoubtTime   time.Duration // for which a relay that may be silent is avoided
	Avoided     int           // failures remembered, and doubts
	AvoidShare  int           // percent of the network's weight that are avoided at once behind one hop …
	AvoidLeast  int           // … or so many relays, if these weigh more
}

// DefaultLimits fit a client of one person.
func DefaultLimits() Limits {
	return Limits{
		Requests:    4096,
		Waiting:     1024,
		Circuits:    160, // a guard grants 256 on a link, those that are still being torn down included
		Builds:      16,
		Stalled:     16,
		Spares:      2,
		MaxClean:    6,
		Ports:       8,
		Reuse:       10 * time.Minute,
		CleanAge:    time.Hour,
		PortAge:     time.Hour,
		BuildTime:   5 * time.Second,
		HopTime:     2 * time.Second,
		LateLeast:   time.Second,
		GiveUpMost:  time.Minute,
		StallMost:   15 * time.Second,
		Stall:       1500 * time.Millisecond,
		StallAgain:  4 * time.Second,
		Attempts:    3,
		Losses:      5,
		RequestTime: 55 * time.Second, // less than applications and SOCKS servers wait, who do not know why
		ProbeTime:   10 * time.Second,
		AvoidTime:   30 * time.Second,
		AvoidMost:   10 * time.Minute,
		DoubtTime:   15 * time.Second, // until the links have noticed, if it is so
		Avoided:     256,
		AvoidShare:  20,
		AvoidLeast:  4,
	}
}

// Stats are counters and gauges, read on the loop.
type Stats struct {
	Circuits int64 // open now
	Building int64 // now
	Waiting  int64 // requests waiting for a circuit now
	Streams  int64 // connected now

	LateMillis   int64 // after which a circuit being built is late, and …
	GiveUpMillis int64 // … after which it fails, as learned

	Built     uint64
	Failed    uint64 // circuits that were never whole
	Lost      uint64 // open circuits that relays or links ended
	Tampered  uint64 // circuits ended because a cell was not what a relay may send
	Requests  uint64
	Connected uint64
	Resolved  uint64
	Refused   uint64 // requests that failed
	Late      uint64 // circuits that took longer than most
	Retries   uint64 // attempts beyond a request's first
	Suspects  uint64 // circuits on which a stream stalled and nothing else came
}

// Client is the client's half of all circuits of one node. See the package comment for the
// concurrency rule.
type Client struct {
	cfg      Config
	env      env.Env
	log      *slog.Logger
	limits   Limits
	wiring   wiring
	stats    Stats
	network  *network
	guards   *guards
	times    *buildTimes
	circuits []*pooled  // in order of creation
	waiting  []*attempt // without a circuit, the oldest first
	requests int
	live     []*Handle // requests without an outcome, in order
	ports    []usedPort
	failed   []avoidance
	doubts   []doubt    // in order of their ends
	outlooks []*outlook // of the guards in use, until something changes
	nextID   uint64
	nextAsk  uint64         // of a request
	failures int            // builds in a row
	pause    env.Mono       // no build before
	trouble  error          // the last that kept a circuit from being built
	told     error          // what OnTrouble was told last
	left     [positions]int // percent of the bandwidth that Restrict leaves, as logged last
	due      bool           // plan is scheduled
	alarm    env.Timer
	closed   bool
}

// usedPort is a kind of exit that was wanted lately.
type usedPort struct {
	to   destination
	last env.Mono
}

// New makes a Client and reads its guards. It builds the first circuits when ConsensusChanged
// is called, or with the first request.
func New(cfg Config) *Client {
	c := &Client{
		cfg: cfg, env: cfg.Env, log: cfg.Env.Log, limits: cfg.Limits,
		wiring: wiring{env: cfg.Env, links: cfg.Links, network: cfg.NetworkID, budget: cfg.Budget, stats: cfg.FlowStats, crypto: cfg.Crypto},
		guards: newGuards(cfg.Env, cfg.NetworkID),
		times:  newBuildTimes(cfg.Env, cfg.NetworkID, cfg.Limits),
	}
	now := c.env.Clock.Now()
	for _, port := range []uint16{443, 80} {
		c.ports = append(c.ports, usedPort{destination{port: port, v4: true}, now})
	}
	return c
}

// Stats returns a copy of the counters.
func (c *Client) Stats() Stats {
	s := c.stats
	s.Waiting = int64(len(c.waiting))
	s.LateMillis, s.GiveUpMillis = c.times.late.Milliseconds(), c.times.giveUp.Milliseconds()
	for _, p := range c.circuits {
		if p.open {
			s.Circuits++
		} else {
			s.Building++
		}
	}
	return s
}

// ConsensusChanged says that View returns something else, or a consensus at last.
func (c *Client) ConsensusChanged() { c.planLater() }

// GuardTargets are the guards in use, the preferred first: whoever else sees this client's
// address learns that it exists, so it asks them for the consensus too. None before the first
// consensus.
func (c *Client) GuardTargets() []env.Target { return c.guards.targets() }

// NewIdentity makes sure that nothing new uses a circuit that exists now, or is being built.
// Streams that are open stay.
func (c *Client) NewIdentity() {
	for _, p := range c.circuits {
		p.retired = true
	}
	c.planLater()
}

// Info describes one circuit.
type Info struct {
	ID      uint64
	Path    []cert.Identity // guard first
	Hops    int             // that are part of it yet
	Open    bool
	Clean   bool   // no stream has used it yet
	Retired bool   // takes no new streams
	Suspect bool   // takes none until it is heard of again
	Key     string // the isolation key, unless Clean
	Streams int
	Age     time.Duration
}

// Circuits describes all circuits, the oldest first.
func (c *Client) Circuits() []Info {
	list := make([]Info, 0, len(c.circuits))
	now := c.env.Clock.Now()
	for _, p := range c.circuits {
		info := Info{
			ID: p.id, Hops: len(p.circuit.layers), Open: p.open, Clean: !p.keyed, Retired: p.retired,
			Suspect: p.suspect, Key: p.key, Streams: p.live, Age: now.Sub(p.circuit.began),
		}
		for _, r := range p.path {
			info.Path = append(info.Path, r.identity)
		}
		list = append(list, info)
	}
	return list
}

// Close ends all circuits and requests: requests without an outcome fail.
func (c *Client) Close() {
	if c.closed {
		return
	}
	c.closed = true
	if c.alarm != nil {
		c.alarm.Stop()
	}
	for _, h := range slices.Clone(c.live) {
		h.fail(&Error{Reason: cell.ReasonShutdown, Where: AtClient, Text: "the client is shutting down"})
	}
	for _, p := range slices.Clone(c.circuits) {
		p.circuit.close()
	}
}

// subnets is the path rule in force.
func (c *Client) subnets() bool {
	if c.cfg.DistinctSubnets != nil {
		return c.cfg.DistinctSubnets()
	}
	return c.network == nil || c.network.consensus.Parameters.Value(directory.DistinctSubnets) != 0
}

// refresh reads the consensus again if it is another.
func (c *Client) refresh() {
	view := c.cfg.View()
	switch {
	case view == nil:
		c.network, c.outlooks = nil, nil
	case c.network == nil || c.network.consensus != view:
		c.network, c.outlooks = networkOf(view, c.cfg.Restrict), nil
		c.guards.update(c.network, c.subnets())
		c.sayWhatIsLeft()
		for _, p := range c.circuits {
			for _, r := range p.path {
				p.retired = p.retired || c.network.find(r.identity) == nil
			}
		}
	}
}

// use remembers a kind of exit, the latest first.
func (c *Client) use(to destination) {
	if to.port == 0 {
		return
	}
	c.ports = slices.DeleteFunc(c.ports, func(u usedPort) bool { return u.to == to })
	c.ports = slices.Insert(c.ports, 0, usedPort{to, c.env.Clock.Now()})
	c.ports = c.ports[:min(len(c.ports), c.limits.Ports)]
}

// sayWhatIsLeft warns of what the user's settings for paths cost, at first and when it changes much.
func (c *Client) sayWhatIsLeft() {
	if c.cfg.Restrict.Empty() {
		return
	}
	left := c.network.left
	if c.network.empty != nil {
		c.trouble = c.network.empty
	}
	same := true
	for at := range positions {
		same = same && left[at]/10 == c.left[at]/10 && (left[at] == 0) == (c.left[at] == 0)
	}
	if same {
		return
	}
	c.left = left
	c.log.Warn("the settings for paths leave a part of the network: circuits are slower, and stand out from those of others",
		"guards_percent", left[atGuard], "middles_percent", left[atMiddle], "exits_percent", left[atExit])
}

// Warnings are what a person should know of the paths: what the settings cost, and what keeps
// circuits from being built.
func (c *Client) Warnings() (list []directory.Warning) {
	if c.network != nil && !c.cfg.Restrict.Empty() {
		left := c.network.left
		list = append(list, directory.Warning{Code: directory.WarnPaths, Text: fmt.Sprintf("the settings for paths leave %d %% of the bandwidth for guards, %d %% for middles, %d %% for exits: "+
			"circuits are slower, and stand out from those of others", left[atGuard], left[atMiddle], left[atExit])})
	}
	if err := c.Trouble(); err != nil {
		list = append(list, directory.Warning{Code: directory.WarnNoCircuit, Text: "no circuit can be built: " + err.Error()})
	}
	return list
}

// Trouble says what keeps circuits from being built now although no relay is to blame: this
// machine's network or clock, or the user's settings; nil when nothing does.
func (c *Client) Trouble() error {
	if c.network == nil {
		return nil
	}
	if c.network.empty != nil {
		return c.network.empty
	}
	if !c.guards.offline() {
		return nil
	}
	if err := c.guards.obstacle(); err != nil {
		return err
	}
	if c.guards.full() {
		return errGuardLimit
	}
	return nil
}

// tellTrouble tells OnTrouble when that has changed.
func (c *Client) tellTrouble() {
	now := c.Trouble()
	if c.cfg.OnTrouble == nil || (now == nil) == (c.told == nil) && (now == nil || now.Error() == c.told.Error()) {
		return
	}
	c.told = now
	c.env.Clock.AfterFunc(0, func() { c.cfg.OnTrouble(now) })
}
