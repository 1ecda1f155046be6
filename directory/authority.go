package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"cepa/cert"
	"cepa/env"
)

// Prober opens an authenticated link to a relay to see that it is reachable.
type Prober interface {
	// Probe connects to one of the addresses and calls done, later and once, with nil when the relay answered there
	// and proved its identity. An open link is no proof: it may have come from the relay, which says nothing of where
	// it listens. What becomes of the new link is the Prober's to decide.
	Probe(to env.Target, done func(error))
}

// AuthorityConfig is what an Authority is made of. All fields are needed.
type AuthorityConfig struct {
	Env      env.Env
	Network  *Network
	Identity cert.Identity
	Signer   func() cert.Signer // the signing key in use; asked whenever something is signed
	Agent    *Agent
	Follower *Follower
	Prober   Prober
}

// AuthorityStats are counters and gauges, read on the loop.
type AuthorityStats struct {
	Known, Reachable int // relays with a descriptor, and those of them that answer
	Probes           uint64
	ProbesFailed     uint64
	Signed           uint64 // consensuses
	SaveFailures     uint64 // signatures that could not be stored, and so were not published
}

// signedBlob is the name under which the last signed consensus is stored before anybody sees it.
const signedBlob = "authority.signed"

// Times of the first consensus after a start: it waits for relays until none has come for settleQuiet, at most
// settleLimit after there are enough.
const (
	settleQuiet = 300 * time.Millisecond
	settleLimit = 3 * time.Second
	signRetry   = 200 * time.Millisecond
	startGrace  = 15 * time.Second // before it complains of too few relays
)

// Authority makes the consensus: it looks which relays can be reached, says what they may be used for, and signs one
// consensus for each interval (docs/protocol.md, section "Directory").
//
// It signs at most one consensus for one valid-after, ever: what was signed is in the Store, durably, before it leaves
// the Authority, and after a restart that is published, and nothing else for its time.
//
//	waiting ──slot begins, enough relays──► building ──► storing ──durable──► published ─► waiting
//	   ▲                                       │ failed     │ failed: again, the same bytes
//	   └───────────────────────────────────────┘◄───────────┘ until its slot is over
//
// This version serves networks with a quorum of one.
//
// An Authority is an actor: one loop calls it, and nothing in it is safe for concurrent use.
type Authority struct {
	cfg     AuthorityConfig
	env     env.Env
	log     *slog.Logger
	network *Network
	gripes  complaints
	stats   AuthorityStats

	relays  map[cert.Identity]*standing
	links   map[cert.Identity][]proof // open links that were dialled from here
	probing struct {
		open  int
		queue []*standing
	}
	last      *signed // the last that was signed, published or not
	busy      bool    // building or storing
	settled   bool    // the first consensus after the start has been made
	started   env.Mono
	newcomer  env.Mono  // when a relay last became reachable
	enough    env.Mono  // when there were enough relays for the first time; 0 before
	historyAt time.Time // when the history was last stored
	slot      env.Timer
	running   bool
}

// NewAuthority makes an Authority and loads what it has signed. It fails when that cannot be read: an authority that
// does not know what it has signed must not sign. It does nothing until Start.
func NewAuthority(cfg AuthorityConfig) (*Authority, error) {
	if !cfg.Network.IsAuthority(cfg.Identity) {
		return nil, fmt.Errorf("starting an authority: %w: %s is none of the network's", ErrSigners, cfg.Identity.Short())
	}
	if cfg.Network.Quorum != 1 {
		return nil, fmt.Errorf("starting an authority: %w: a quorum of %d; this version can only sign alone", ErrInvalid, cfg.Network.Quorum)
	}
	a := &Authority{
		cfg: cfg, env: cfg.Env, log: cfg.Env.Log, network: cfg.Network,
		gripes: newComplaints(cfg.Env),
		relays: make(map[cert.Identity]*standing),
		links:  make(map[cert.Identity][]proof),
	}
	data, err := a.env.Store.Load(signedBlob)
	if err == nil {
		a.last, err = decodeSigned(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("starting an authority: what it has signed cannot be read, so it must not sign: %w", err)
	}
	if err := a.loadHistory(); err != nil {
		a.log.Warn("the history of relays cannot be read; they all count as new", "err", err)
	}
	return a, nil
}

// Start publishes the last signed consensus if a crash has kept it from being published, and begins to probe and sign.
// The Follower and the Agent are to be started before.
func (a *Authority) Start() {
	if a.running {
		return
	}
	a.running = true
	a.started = a.env.Clock.Now()
	if a.last != nil && a.last.validAfter.After(a.newest()) {
		if err := a.cfg.Follower.Adopt(a.last.head, a.last.body); err != nil {
			a.log.Info("the last consensus signed here is of no use any more", "valid_after", a.last.validAfter, "err", err)
		}
	}
	a.cfg.Agent.watch = a.onDescriptor
	a.slot = a.env.Clock.AfterFunc(0, a.trySign)
	for _, id := range a.cfg.Agent.store.identities() {
		a.onDescriptor(id)
	}
}

// Stop ends probing and signing. What is being stored is not published.
func (a *Authority) Stop() {
	if !a.running {
		return
	}
	a.running = false
	a.cfg.Agent.watch = nil
	a.slot.Stop()
	for _, s := range a.relays { // order: stops timers only
		if s.timer != nil {
			s.timer.Stop()
		}
	}
	a.probing.queue = nil
	a.saveHistory()
}

// Stats returns a copy of the counters and the gauges.
func (a *Authority) Stats() AuthorityStats {
	s := a.stats
	for _, r := range a.relays { // order: counts only
		if a.cfg.Agent.store.entries[r.id] != nil {
			s.Known++
			if r.up() {
				s.Reachable++
			}
		}
	}
	return s
}

// newest is the valid-after of the newest consensus that this node has seen; the zero time if it has seen none.
func (a *Authority) newest() time.Time {
	if h := a.cfg.Follower.Newest(); h != nil {
		return h.ValidAfter
	}
	return time.Time{}
}

// wake looks soon whether a consensus can be made.
func (a *Authority) wake(after time.Duration) {
	if a.running && !a.busy {
		a.slot.Reset(after)
	}
}

// slotOf returns the beginning of the interval that contains t: a multiple of the interval since 1970.
func (a *Authority) slotOf(t time.Time) time.Time {
	interval := a.network.Interval().Milliseconds()
	ms := t.UnixMilli()
	return time.UnixMilli(ms - ms%interval).UTC()
}

// trySign makes the consensus of the present slot if there is none yet and there are enough relays, and else waits for
// the next slot or for relays.
func (a *Authority) trySign() {
	if !a.running || a.busy {
		return
	}
	wall := a.env.Clock.Wall()
	slot := a.slotOf(wall)
	signed := a.newest()
	if a.last != nil && a.last.validAfter.After(signed) {
		signed = a.last.validAfter
	}
	if !slot.After(signed) {
		if ahead := signed.Sub(wall); ahead > a.network.Interval() {
			a.gripes.warn("the clock has been set back: nothing will be signed until it passes the last consensus", "valid_after", signed)
		}
		a.slot.Reset(min(slot.Add(a.network.Interval()).Sub(wall), time.Minute)) // a clock may jump
		return
	}
	listing := a.list(wall)
	if wait, ok := a.ready(len(listing)); !ok {
		a.slot.Reset(wait)
		return
	}
	in := ConsensusInput{
		ValidAfter:  slot,
		Relays:      listing,
		Parameters:  a.parameters(),
		Recommended: OurProtocols(),
		Required:    OurProtocols(),
	}
	if h := a.cfg.Follower.Newest(); h != nil {
		in.Previous = h.Digest
	}
	a.build(in)
}

// circuitRelays is the length of a circuit: with fewer relays a consensus is of no use.
const circuitRelays = 3

// ready says whether so many relays make a consensus, or when to look again. The first consensus after a start waits
// until everybody who is known had a chance to be found.
func (a *Authority) ready(relays int) (again time.Duration, ok bool) {
	now := a.env.Clock.Now()
	least := int(a.network.Param(MinRelays))
	if a.settled || a.cfg.Follower.Newest() != nil {
		least = min(least, circuitRelays) // the parameter is for the first consensus of a network
	}
	if relays < least {
		a.enough = 0
		if a.settled || a.cfg.Follower.Newest() != nil && now.Sub(a.started) > startGrace {
			a.gripes.warn("too few relays can be reached: the last consensus stays in use", "relays", relays, "wanted", least)
		}
		return max(a.network.Interval()/10, signRetry), false
	}
	if a.settled {
		return 0, true
	}
	if a.enough == 0 {
		a.enough = now
	}
	late := settleLimit - now.Sub(a.enough)
	quiet := settleQuiet - now.Sub(a.newcomer)
	if a.unprobed() {
		quiet = max(quiet, signRetry)
	}
	if wait := min(late, quiet); wait > 0 {
		return wait, false
	}
	return 0, true
}

// parameters are those of the network file, which clients see in the consensus.
func (a *Authority) parameters() Parameters {
	if len(a.network.Parameters) == 0 {
		return nil
	}
	return a.network.Parameters
}
