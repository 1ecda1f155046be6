package directory

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// Gossip carries rumours between relays. No call blocks, and none calls back before it returns.
type Gossip interface {
	// Announce says that this is the rumour of this relay from now on.
	Announce(rumour []byte)
	// Spread says that the descriptor that a rumour tells of has come, so that the rumour may be kept and passed on:
	// OnRumour did not accept it before. from is the neighbour that told. The slice is shared and not to be modified.
	Spread(r Rumour, sealed []byte, from cert.Identity)
	// OnConsensus says that another consensus is in use; listed says whether it, or one that is still valid, lists a
	// relay, whenever it is asked on the loop.
	OnConsensus(listed func(id cert.Identity) bool)
	// Forget says that the descriptor of a relay is no longer held.
	Forget(id cert.Identity)
}

// AgentConfig is what an Agent is made of. All fields are needed unless they say otherwise.
type AgentConfig struct {
	Env      env.Env
	Network  *Network
	Identity cert.Identity
	Follower *Follower
	Fetcher  Fetcher
	Gossip   Gossip // nil without gossip: reconciliation alone still spreads everything
	// Describe returns what this relay says of itself now. Identity and Published are set by the Agent. It is nil in
	// an authority that is no relay.
	Describe func() Descriptor
	// Signer returns the signing key in use; asked whenever something is signed.
	Signer func() cert.Signer
	// CheckReach has the relay publish only when another node has reached it, see Reach. OnReach hears that this may
	// have changed; it may be nil.
	CheckReach bool
	OnReach    func()
	// Prober connects back to relays that ask for it; nil answers none.
	Prober     Prober
	Undefended Undefended // zero but in the attack suite
}

// AgentStats are counters and gauges, read on the loop.
type AgentStats struct {
	Descriptors, Candidates int // held now, candidates among them
	Pulling                 int // descriptors being fetched or queued
	Published               uint64
	Announced               uint64 // announcements that were taken
	Rumours                 uint64 // heard
	BadRumours              uint64 // that do not verify
	LateRumours             uint64 // older than what is held
	LimitedRumours          uint64 // over a budget
	Pulls                   uint64 // descriptors asked for
	PullsFailed             uint64
	BadDescriptors          uint64
	Stored                  uint64 // descriptors taken into the store
	Evicted                 uint64 // candidates that had to go
	Reconciled              uint64 // comparisons that were finished
	Symbols                 uint64 // of sketches that these took
	Served                  uint64 // requests answered with a document
	DiffsMade               uint64 // of consensuses
	DialBacks               uint64 // relays that were called back
	BadRequests             uint64
	Busy                    uint64 // requests refused by a budget
	Refused                 uint64 // announcements refused
}

// descriptorsBlob is the name under which descriptors are stored, so that a restart knows its neighbours.
const descriptorsBlob = "descriptors"

// leaveGrace is how long the rumour of a departure is good: as long as clocks may differ.
const leaveGrace = DescriptorClockSkew

// Agent is a relay's part in the directory: it publishes the relay's descriptor, keeps those of others, answers
// directory requests, and tells the relay who is who (docs/protocol.md, section "Directory").
//
// News come as rumours, which only say that a descriptor exists; descriptors are fetched by their digests. Beside the
// rumours the Agent compares what it holds with a random relay of the consensus, which repairs whatever gossip lost.
//
// An Agent is an actor: one loop calls it, and nothing in it is safe for concurrent use.
type Agent struct {
	cfg     AgentConfig
	env     env.Env
	log     *slog.Logger
	network *Network
	gripes  complaints
	stats   AgentStats

	store *descriptors
	own   struct {
		*Descriptor
		body    []byte // of the descriptor
		rumour  []byte
		issued  time.Time // of the certificate that it was signed with
		updates limit.Buckets
		leaving bool
		told    map[cert.Identity]*announcement // by authority
	}
	rumours   rumours
	pulls     pulls
	serving   serving
	listed    map[cert.Identity]time.Time // until when a consensus that lists a relay is valid
	listening map[netip.AddrPort]bool     // where relays of the consensus and the network file listen
	reach     reach
	watch     func(id cert.Identity) // the authority in this node: told of each change of an entry
	authority *Authority             // in this node, while it runs; else nil

	housekeeping, reconciling, saving env.Timer
	unsaved                           bool
	comparison                        *comparison // with another relay; nil when there is none
	running                           bool
}

// announcement is how far an authority has been told of this relay.
type announcement struct {
	to       env.Target
	digest   cert.Digest // that it has taken
	taken    env.Mono
	failures int
	open     bool
	timer    env.Timer
}

// NewAgent makes an Agent and loads the descriptors that the Store holds. It does nothing until Start.
func NewAgent(cfg AgentConfig) *Agent {
	a := &Agent{
		cfg: cfg, env: cfg.Env, log: cfg.Env.Log, network: cfg.Network,
		gripes:    newComplaints(cfg.Env),
		rumours:   newRumours(cfg.Network),
		serving:   newServing(cfg.Network),
		listed:    make(map[cert.Identity]time.Time),
		listening: make(map[netip.AddrPort]bool),
	}
	a.pulls = newPulls()
	a.store = newDescriptors(cfg.Network, cfg.Identity, a.random, a.onEvicted)
	a.own.updates = newUpdates(cfg.Network)
	a.own.told = make(map[cert.Identity]*announcement)
	a.learnAddresses(nil)
	a.load()
	return a
}

// load takes up the descriptors of the last run that are still good.
func (a *Agent) load() {
	data, err := a.env.Store.Load(descriptorsBlob)
	if err == nil {
		var parts [][]byte
		parts, err = splitDescriptors(data)
		now, c := a.env.Clock.Wall(), a.cfg.Follower.Current()
		for _, sealed := range parts {
			if d, bad := OpenDescriptor(sealed, a.network, now); bad == nil && d.Identity != a.cfg.Identity {
				a.store.put(&entry{Descriptor: d, sealed: d.keep(sealed), listed: c != nil && c.Lookup(d.Identity) != nil})
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("the stored descriptors cannot be read; they will come anew", "err", err)
	}
}

// Start publishes the descriptor and begins to compare with others.
func (a *Agent) Start() {
	if a.running {
		return
	}
	a.running = true
	if c := a.cfg.Follower.Current(); c != nil {
		a.OnConsensus(c)
	}
	a.housekeeping = a.env.Clock.AfterFunc(a.housekeepingTime(), a.onHousekeeping)
	a.reconciling = a.env.Clock.AfterFunc(a.randomTime(a.network.millis(ReconcileMillis)/4), a.onReconcile)
	a.Update()
}

// Stop ends everything that the Agent does by itself. It goes on answering.
func (a *Agent) Stop() {
	if !a.running {
		return
	}
	a.running = false
	for _, t := range []env.Timer{a.housekeeping, a.reconciling, a.saving, a.reach.timer} {
		if t != nil {
			t.Stop()
		}
	}
	for _, c := range a.network.Authorities {
		if n := a.own.told[c.Identity]; n != nil {
			n.timer.Stop()
		}
	}
	a.pulls.clear()
}

// Stats returns a copy of the counters and the gauges.
func (a *Agent) Stats() AgentStats {
	s := a.stats
	s.Descriptors, s.Candidates = len(a.store.entries), a.store.candidates.Len()
	s.Pulling = a.pulls.open + len(a.pulls.queue)
	return s
}

// OnConsensus is to be called with each consensus that the Follower takes into use.
func (a *Agent) OnConsensus(c *Consensus) {
	now := a.env.Clock.Wall()
	for id, until := range a.listed { // order: deletes only
		if !now.Before(until) {
			delete(a.listed, id)
		}
	}
	for i := range c.Relays {
		id := c.Relays[i].Identity
		if until := a.listed[id]; until.Before(c.Head.ValidUntil) {
			a.listed[id] = c.Head.ValidUntil
		}
	}
	a.learnAddresses(c)
	a.store.list(c)
	a.letGo()
	a.serving.forget()
	if a.cfg.Gossip != nil {
		a.cfg.Gossip.OnConsensus(a.InConsensus)
	}
	a.announce()
}

// learnAddresses notes where relays listen: what a descriptor claims does not count, or anybody could bar exits from
// any destination.
func (a *Agent) learnAddresses(c *Consensus) {
	clear(a.listening)
	for _, list := range [][]Contact{a.network.Authorities, a.network.Bootstrap} {
		for _, contact := range list {
			for _, addr := range contact.Addresses {
				a.listening[addr] = true
			}
		}
	}
	if c != nil {
		for i := range c.Relays {
			for _, addr := range c.Relays[i].Addresses {
				a.listening[addr] = true
			}
		}
	}
}

// InConsensus says whether the consensus in use lists a relay, or one that is still valid for those who have nothing
// newer.
func (a *Agent) InConsensus(id cert.Identity) bool {
	return a.env.Clock.Wall().Before(a.listed[id])
}

// Addresses are those of the descriptor held for id, else those in the consensus or the network file; none if there
// are none.
func (a *Agent) Addresses(id cert.Identity) []netip.AddrPort {
	if e := a.store.entries[id]; e != nil {
		return slices.Clone(e.Addresses)
	}
	return a.provedAddresses(id)
}

// provedAddresses are those in the consensus or the network file. What a descriptor or a rumour says of itself has not
// been proved: who believes it can be made to knock at anybody's door.
func (a *Agent) provedAddresses(id cert.Identity) []netip.AddrPort {
	if c := a.cfg.Follower.Current(); c != nil {
		if r := c.Lookup(id); r != nil {
			return slices.Clone(r.Addresses)
		}
	}
	for _, list := range [][]Contact{a.network.Authorities, a.network.Bootstrap} {
		for _, contact := range list {
			if contact.Identity == id {
				return slices.Clone(contact.Addresses)
			}
		}
	}
	return nil
}

// IsRelayAddress says whether a relay of the consensus or of the network file listens at addr.
func (a *Agent) IsRelayAddress(addr netip.AddrPort) bool {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	return a.listening[addr] || a.own.Descriptor != nil && slices.Contains(a.own.Addresses, addr)
}

// Descriptor returns the descriptor that is held of a relay, or nil. It is not to be modified.
func (a *Agent) Descriptor(id cert.Identity) *Descriptor {
	if e := a.store.entries[id]; e != nil {
		return e.Descriptor
	}
	return nil
}

// Rumour returns the sealed rumour of this relay, nil before it has published. It is not to be modified.
func (a *Agent) Rumour() []byte { return a.own.rumour }

func (a *Agent) onEvicted(id cert.Identity) {
	a.stats.Evicted++
	a.forget(id)
}

// forget tells those who care that a descriptor is no longer held.
func (a *Agent) forget(id cert.Identity) {
	if a.cfg.Gossip != nil && a.running { // before Start it may not be there yet, and knows nobody
		a.cfg.Gossip.Forget(id)
	}
	a.changed(id)
}

func (a *Agent) changed(id cert.Identity) {
	a.saveLater()
	if a.watch != nil {
		a.watch(id)
	}
}

// housekeepingTime is how often expiry and the own descriptor are looked at.
func (a *Agent) housekeepingTime() time.Duration { return min(a.network.Interval(), time.Minute) }

func (a *Agent) onHousekeeping() {
	a.housekeeping.Reset(a.housekeepingTime())
	for _, id := range a.store.expire(a.env.Clock.Wall()) {
		a.forget(id)
	}
	a.pulls.tidy(a.env.Clock.Now())
	a.Update()
}

// saveLater writes the descriptors down, at most once in ten reconciliations.
func (a *Agent) saveLater() {
	a.unsaved = true
	if a.saving == nil && a.running {
		a.saving = a.env.Clock.AfterFunc(10*a.network.millis(ReconcileMillis), func() {
			a.saving = nil
			a.save()
		})
	}
}

func (a *Agent) save() {
	if !a.unsaved {
		return
	}
	a.unsaved = false
	a.env.Store.Save(descriptorsBlob, a.store.appendTo(nil, maxPersisted), func(err error) {
		if err != nil {
			a.gripes.warn("descriptors cannot be stored: the next start will have to fetch them", "err", err)
		}
	})
}

// random returns a number in [0, below).
func (a *Agent) random(below int) int { return int(a.env.Rand.Uint64() % uint64(max(below, 1))) }

func (a *Agent) randomTime(below time.Duration) time.Duration {
	return time.Duration(a.random(int(below)))
}
