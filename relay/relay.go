// Package relay is the relay's half of a circuit: it answers CREATE, extends to the next
// hop, switches cells between two links, and at the end of a circuit serves streams: exit
// connections, name look-ups and directory requests (docs/protocol.md, "Circuits" and
// "Streams").
//
// It does not choose paths (package circuit), keep links, credits or stream windows (package
// flow), or know what a directory request means: the node gives it a Directory for that.
//
// A Relay is an actor: one loop calls it, nothing here is safe for concurrent use.
package relay

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
	"cepa/ipaddr"
	"cepa/limit"
	"cepa/onion"
	"cepa/onion/ntor"
)

// Directory is what a relay needs to know of the network and does not find out itself.
type Directory interface {
	// InConsensus says whether the consensus in force lists id.
	InConsensus(id cert.Identity) bool
	// Addresses are those of a descriptor or consensus entry held for id; none if there is none.
	Addresses(id cert.Identity) []netip.AddrPort
	// IsRelayAddress says whether a relay of the network is known to listen at a: exits refuse
	// such destinations, so that nobody re-enters the network through an exit.
	IsRelayAddress(a netip.AddrPort) bool
	// Serve answers one directory request (at most MaxDirectoryRequest bytes). from is the
	// neighbour that the circuit comes from: the budgets are by neighbour. done may run at
	// once or later, on the loop; it gets the whole answer.
	Serve(request []byte, from *env.Peer, done func(answer []byte))
}

// Config is what a Relay is made of. All fields are needed unless they say otherwise.
type Config struct {
	Env       env.Env
	Links     func() *flow.Links // asked when the first EXTEND comes, after construction
	Budget    *flow.Budget
	FlowStats *flow.Stats
	Identity  cert.Identity
	NetworkID cert.NetworkID
	// OnionKeys are the keys that the relay accepts now, the newest first.
	OnionKeys func() []*ntor.OnionKey
	Directory Directory
	// SpeedTest is asked about each directory request before Directory is; it may be nil. If the request is its own
	// (mine), the answer is what it gives and so many zeros, which are made as the client takes them.
	SpeedTest func(request []byte, from *env.Peer) (answer []byte, zeros int, mine bool)
	// RequestLimit is the longest directory request, with its length, that comes from a neighbour; nil for
	// MaxDirectoryRequest.
	RequestLimit func(from *env.Peer) int
	// Policy decides which destinations the exit serves; a nil Policy serves none.
	Policy *directory.Policy
	// DirectoryOnly says that circuits may end here and go no further: an authority that is no relay.
	DirectoryOnly bool
	// Addresses are where this relay listens; it never extends or exits to them.
	Addresses []netip.AddrPort
	// Test says that the network is a test network: loopback and private addresses are
	// allowed as next hops and destinations.
	Test bool
	// IPv6 says that the exit can reach IPv6 destinations.
	IPv6 bool
	// Crypto is the cryptography of circuits; nil is onion.Real.
	Crypto onion.Suite
	Limits Limits
}

// Limits are the bounds of this package, in one place (docs/protocol.md, "Bounds").
type Limits struct {
	HandshakesRunning int           // public-key handshakes in the pool at once
	HandshakesWaiting int           // CREATEs waiting for the pool; beyond, DESTROY(resource); one neighbour gets an eighth
	HandshakeAge      time.Duration // a CREATE that waited longer is refused
	CreateRate        float64       // CREATEs a second from the clients and unlisted relays of one /24 or /48
	CreateBurst       float64
	ListedRate        float64 // the same from one relay of the consensus, which carries those of its clients
	ListedBurst       float64
	ExtendRate        float64 // EXTENDs a second for the clients of one /24 or /48: less than the next relay takes from here
	ExtendBurst       float64
	UnknownRate       float64 // EXTENDs a second from one previous hop to relays without a descriptor
	UnknownBurst      float64
	ExtendTimeout     time.Duration // link and CREATED of the next hop
	ConnectTimeout    time.Duration // one address of a destination
	StreamTimeout     time.Duration // look-up and all addresses together
	ResolveTimeout    time.Duration
	RequestTime       time.Duration // from BEGIN_DIR to the end of the request
	AnswerTime        time.Duration // without the client taking any of the answer
	Dials             int           // look-ups and connection attempts of the exit at once; a previous hop gets a quarter
	CircuitDials      int           // of these, for one circuit
	Exit              ExitLimits    // of connections; the zero value is none
}

// DefaultLimits fit a relay on one or two cores.
func DefaultLimits() Limits {
	return Limits{
		HandshakesRunning: 32,
		HandshakesWaiting: 1024,
		HandshakeAge:      1750 * time.Millisecond, // as C Tor's MaxOnionQueueDelay
		CreateRate:        100,
		CreateBurst:       400,
		ListedRate:        1000,
		ListedBurst:       4000,
		ExtendRate:        100,
		ExtendBurst:       400,
		UnknownRate:       1,
		UnknownBurst:      20,
		ExtendTimeout:     10 * time.Second,
		ConnectTimeout:    15 * time.Second,
		StreamTimeout:     30 * time.Second,
		ResolveTimeout:    10 * time.Second,
		RequestTime:       10 * time.Second,
		AnswerTime:        time.Minute,
		Dials:             1024,
		CircuitDials:      32,
	}
}

// Stats are counters and gauges, read on the loop.
type Stats struct {
	Circuits      int64 // open now
	Handshakes    uint64
	BadHandshakes uint64
	Refused       uint64 // CREATEs refused: type, rate, queue or age
	RefusedType   uint64 // of these, for a type of handshake that the relay does not have
	RefusedRate   uint64 // of these, too many from one neighbour
	RefusedQueue  uint64 // of these, since too many waited
	RefusedAge    uint64 // of these, after waiting too long
	Extends       uint64
	ExtendFailed  uint64
	Violations    uint64 // circuits destroyed for breaking the protocol
	ExitStreams   int64  // open now
	ExitConnects  uint64
	ExitFailed    uint64
	// These are ExitFailed by what came of it.
	ExitPolicy      uint64 // the exit policy or the neighbour forbids it
	ExitResolve     uint64 // the name could not be resolved
	ExitRefused     uint64 // the destination refused the connection
	ExitUnreachable uint64 // no way to the destination
	ExitTimeout     uint64
	ExitResource    uint64 // a limit of the relay
	ExitOther       uint64
	ExitLimited     uint64 // streams refused by a limit of the settings; of ExitResource
	Resolves        uint64
	DirRequests     uint64
	DialsGivenUp    uint64 // connection attempts that made room for others
	ExitBytesIn     uint64 // from destinations
	ExitBytesOut    uint64 // to destinations
}

// Relay is the relay's half of all circuits through one node.
type Relay struct {
	cfg       Config
	env       env.Env
	log       *slog.Logger
	stats     Stats
	waiting   []*circuit     // CREATEs in order of arrival, not yet in the pool
	waitFrom  map[string]int // of these, by neighbour
	running   int
	creates   limit.Buckets
	listed    limit.Buckets // CREATEs of relays of the consensus
	extends   limit.Buckets
	unknowns  limit.Buckets
	dials     int            // look-ups and connection attempts under way
	dialsFrom map[string]int // of these, by previous hop
	attempts  []*attempt     // of these, the connection attempts that can be given up, oldest first
	exits     exitCounts
	open      []*circuit // those with keys
	rester    env.Timer
	resting   bool  // rester runs
	draining  bool  // no new circuits
	middles   int64 // circuits that go on from here to another relay
}

// New makes a Relay. It does nothing until OnCreate is called.
func New(cfg Config) *Relay {
	l := cfg.Limits
	if cfg.Crypto == nil {
		cfg.Crypto = onion.Real{}
	}
	return &Relay{
		cfg:       cfg,
		env:       cfg.Env,
		log:       cfg.Env.Log,
		creates:   limit.NewBuckets(l.CreateRate, l.CreateBurst, maxBuckets),
		listed:    limit.NewBuckets(l.ListedRate, l.ListedBurst, maxBuckets),
		extends:   limit.NewBuckets(l.ExtendRate, l.ExtendBurst, maxBuckets),
		waitFrom:  make(map[string]int),
		unknowns:  limit.NewBuckets(l.UnknownRate, l.UnknownBurst, maxBuckets),
		dialsFrom: make(map[string]int),
		exits:     newExitCounts(l.Exit),
	}
}

// maxBuckets bounds each table of token buckets; with more active neighbours, new ones share
// one bucket.
const maxBuckets = 65536

// neighbour is what limits count by: a relay by its identity once the consensus lists it;
// all others, since identities are free, by the /24 or /48 that they come from.
func (r *Relay) neighbour(p *env.Peer) (key string, listed bool) {
	if !p.Client() && r.cfg.Directory.InConsensus(p.Identity) {
		return string(p.Identity[:]), true
	}
	return ipaddr.Site(p.Address.Addr()).String(), false
}

// mayCreate spends one CREATE of a neighbour's.
func (r *Relay) mayCreate(from string, listed bool) bool {
	now := r.env.Clock.Now()
	if listed {
		return r.listed.Take(from, 1, now)
	}
	return r.creates.Take(from, 1, now)
}

// Stats returns a copy of the counters.
func (r *Relay) Stats() Stats { return r.stats }

// OnCreate takes a CREATE from the node: the handshake runs in the pool, CREATED or DESTROY
// follows.
func (r *Relay) OnCreate(leg *flow.Leg, create cell.Create) {
	from, listed := r.neighbour(leg.Link().Peer())
	switch {
	case r.draining:
		r.stats.Refused++
		leg.Destroy(cell.ReasonShutdown)
		return
	case create.Type != ntor.HandshakeType:
		r.stats.Refused++
		r.stats.RefusedType++
		leg.Destroy(cell.ReasonUnsupported)
		return
	case !r.mayCreate(from, listed):
		r.stats.Refused++
		r.stats.RefusedRate++
		leg.Destroy(cell.ReasonRateLimited)
		return
	case len(r.waiting) >= r.cfg.Limits.HandshakesWaiting || r.waitFrom[from] >= max(r.cfg.Limits.HandshakesWaiting/8, 1):
		r.stats.Refused++
		r.stats.RefusedQueue++
		leg.Destroy(cell.ReasonResource)
		return
	}
	c := &circuit{relay: r, prev: leg, from: from, message: bytes.Clone(create.Handshake), arrived: r.env.Clock.Now()}
	leg.Bind((*prevLeg)(c))
	r.waiting = append(r.waiting, c)
	r.waitFrom[from]++
	r.startHandshakes()
}

// startHandshakes moves waiting CREATEs into the pool, oldest first, while there is room.
func (r *Relay) startHandshakes() {
	now := r.env.Clock.Now()
	for r.running < r.cfg.Limits.HandshakesRunning && len(r.waiting) > 0 {
		c := r.waiting[0]
		r.waiting[0] = nil
		r.waiting = r.waiting[1:]
		if r.waitFrom[c.from]--; r.waitFrom[c.from] == 0 {
			delete(r.waitFrom, c.from)
		}
		if c.dead {
			continue
		}
		if now.Sub(c.arrived) > r.cfg.Limits.HandshakeAge {
			r.stats.Refused++
			r.stats.RefusedAge++
			c.becomeDead(cell.ReasonResource)
			continue
		}
		r.handshake(c)
	}
	if len(r.waiting) == 0 {
		r.waiting = nil
	}
}

// errRefused carries the reason of a DESTROY out of the handshake's accept function.
type errRefused struct{ reason cell.Reason }

func (e errRefused) Error() string { return "refused: " + e.reason.String() }

// handshake runs the relay's side of ntor for c in the pool. Everything that the work needs
// is copied before it starts; it touches nothing of the actor's.
func (r *Relay) handshake(c *circuit) {
	var seed [64]byte
	_, _ = io.ReadFull(r.env.Rand, seed[:]) // law: never fails
	var (
		keys    ntor.Keys
		reply   []byte
		err     error
		allowed flow.Windows
		granted = r.cfg.Budget.ExitWindows()
		message = c.message
		accepts = r.cfg.OnionKeys()
		suite   = r.cfg.Crypto
		id      = [32]byte(r.cfg.Identity)
		network = [32]byte(r.cfg.NetworkID)
	)
	c.message = nil
	r.running++
	r.env.Pool.Offload(func() {
		accept := func(cm []byte) ([]byte, error) {
			var sm []byte
			var err error
			allowed, sm, err = negotiate(cm, granted)
			return sm, err
		}
		keys, reply, err = suite.Answer(bytes.NewReader(seed[:]), id, accepts, network, message, accept)
		clear(seed[:])
	}, func() {
		r.running--
		c.onHandshake(&keys, reply, allowed, err)
		clear(keys.Material[:])
		clear(keys.Binder[:])
		r.startHandshakes()
	})
}

// negotiate reads the client's extensions and answers them with the windows of the upload direction. Extensions that are unknown are
// refused: a relay never answers with less than was asked.
func negotiate(cm []byte, granted flow.Windows) (allowed flow.Windows, sm []byte, err error) {
	list, err := ntor.ParseExtensions(cm)
	if err != nil {
		return allowed, nil, errRefused{cell.ReasonProtocol}
	}
	if len(list) != 1 || list[0].Type != flow.ExtensionWindows {
		return allowed, nil, errRefused{cell.ReasonUnsupported}
	}
	if allowed, err = flow.DecodeWindows(list[0].Data); err != nil {
		return allowed, nil, errRefused{cell.ReasonProtocol}
	}
	sm, err = ntor.AppendExtensions(nil, []ntor.Extension{{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(granted)}})
	return allowed, sm, err
}

// restEvery is how often the circuits are looked through for those that carried nothing since: what their keys are
// expanded to, 2.5 KiB, is given up.
const restEvery = 10 * time.Second

// opened and shut count the circuits that have keys.
func (r *Relay) opened(c *circuit) {
	r.stats.Circuits++
	c.place = len(r.open)
	r.open = append(r.open, c)
	r.restLater()
}

// shut is described at opened.
func (r *Relay) shut(c *circuit) {
	r.stats.Circuits--
	last := len(r.open) - 1
	r.open[c.place] = r.open[last]
	r.open[c.place].place = c.place
	r.open[last] = nil
	r.open = r.open[:last]
}

func (r *Relay) restLater() {
	switch {
	case r.resting || len(r.open) == 0:
		return
	case r.rester == nil:
		r.rester = r.env.Clock.AfterFunc(restEvery, r.onRest)
	default:
		r.rester.Reset(restEvery)
	}
	r.resting = true
}

func (r *Relay) onRest() {
	r.resting = false
	for _, c := range r.open {
		c.crypto.Rest()
	}
	r.restLater()
}

// onHandshake opens the circuit with what the pool computed.
func (c *circuit) onHandshake(keys *ntor.Keys, reply []byte, allowed flow.Windows, err error) {
	r := c.relay
	if c.dead {
		return
	}
	if err != nil {
		r.stats.BadHandshakes++
		var refused errRefused
		reason := cell.ReasonBadHandshake
		if errors.As(err, &refused) {
			reason = refused.reason
		}
		r.log.Debug("circuit handshake refused", "err", err)
		c.becomeDead(reason)
		return
	}
	crypto, err := r.cfg.Crypto.RelayLayer(cell.BodySize, keys.Material[:])
	if err != nil {
		c.becomeDead(cell.ReasonInternal)
		return
	}
	r.stats.Handshakes++
	c.becomeOpen(crypto, allowed)
	r.opened(c)
	c.prev.Created(ntor.HandshakeType, reply)
}
