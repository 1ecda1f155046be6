package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
	"cepa/measure"
	"cepa/onion"
	"cepa/relay"
)

// RelayConfig is what a relay is made of.
type RelayConfig struct {
	Env         env.Env
	Network     *directory.Network
	Keys        *Keys
	Addresses   []netip.AddrPort // where others reach the relay
	Policy      directory.Policy // of the exit; an empty one is no exit
	IPv6        bool             // the exit reaches IPv6 destinations
	MemoryBytes int              // the one budget for queues and buffers
	MaxLinks    int              // open links; 0 is flow's default
	Bandwidth   uint64           // bytes a second that the relay claims; 0 is no statement
	Uplink      int64            // bytes a second that its way out takes, headers of IP included; 0 is not known
	UplinkBurst time.Duration    // of it that may go at once after a pause
	Nickname    string
	Contact     string
	Families    []cert.Membership // at most 4
	Software    string
	// DirectoryOnly makes an authority that is no relay: it describes itself to nobody, so no consensus lists it, and
	// circuits of others end at it. Policy, Bandwidth, Nickname and Contact then mean nothing.
	DirectoryOnly bool
	// AssumeReachable has the relay publish itself without asking others whether they reach it.
	AssumeReachable bool
	// Gossip carries rumours; nil leaves reconciliation alone to spread them.
	Gossip Gossip
	// OnConsensus is told of every consensus that comes into use; it may be nil.
	OnConsensus func(*directory.Consensus)
	// OnProgress hears how far the relay has come; it may be nil.
	OnProgress func(percent int, doing, waiting string)
	// Directory wraps who answers directory requests, in the relays of the attack suite; nil in the daemon.
	Directory  func(relay.Directory) relay.Directory
	Exit       relay.ExitLimits     // of connections; the zero value is none
	Undefended directory.Undefended // zero but in the attack suite
	Defect     Defect               // zero but in tests of checkers
	// Crypto replaces the cryptography of circuits, in a simulation; nil in the daemon.
	Crypto onion.Suite
	// Flow replaces the rules for windows, in a simulation; nil in the daemon.
	Flow *flow.Rules
}

// Gossip is the carrier of rumours, by memberlist in the daemon.
type Gossip interface {
	directory.Gossip
	// LinkUp and LinkDown tell of links with relays; packets go over them.
	LinkUp(id cert.Identity, at netip.Addr)
	LinkDown(id cert.Identity)
	// OnPacket brings a packet of a neighbour, valid until it returns.
	OnPacket(from cert.Identity, packet []byte)
}

// Relay is a node that carries circuits of others, and with them the directory. A relay whose
// identity the network file lists as an authority also carries that.
type Relay struct {
	cfg       RelayConfig
	env       env.Env
	stats     flow.Stats
	budget    *flow.Budget
	links     *flow.Links
	relay     *relay.Relay
	fetch     *circuit.Directory
	follower  *directory.Follower
	agent     *directory.Agent
	authority *directory.Authority // nil in most relays
	speed     *directory.SpeedTests
	transfers *circuit.Transfers // nil where there is no authority
	measurer  *measure.Measurer  // likewise
	percent   int                // told last
	listed    bool
	sightings sightings // what neighbours say of this node's address
	stopped   bool
	began     env.Mono
	observed  Observed
	visited   bool   // another node has come to this one
	left      bool   // the authorities have been told
	warned    bool   // of the address, in the log
	shut      string // what others say of the closed port, as it was logged last
}

// NewRelay makes a relay. It does nothing until Start.
func NewRelay(cfg RelayConfig) (*Relay, error) {
	if cfg.OnProgress == nil {
		cfg.OnProgress = func(int, string, string) {}
	}
	cfg.Network = directory.NewestNetwork(cfg.Env.Store, cfg.Env.Log, cfg.Network)
	r := &Relay{cfg: cfg, env: cfg.Env, budget: flow.NewBudget(cfg.MemoryBytes)}
	r.budget.Seed(cfg.Defect)
	r.budget.Follow(cfg.Flow)
	r.links = newLinks(cfg.Env, cfg.Network, r.budget, &r.stats, r, r.vouchedFor, cfg.MaxLinks, cfg.Uplink, cfg.UplinkBurst)
	r.fetch = circuit.NewDirectory(circuit.DirectoryConfig{
		Env: cfg.Env, Links: r.links, NetworkID: cfg.Network.ID, Budget: r.budget, FlowStats: &r.stats, Crypto: r.cfg.Crypto,
		Limits: circuit.DefaultDirectoryLimits(),
	})
	r.follower = directory.NewFollower(directory.FollowerConfig{
		Env: cfg.Env, Network: cfg.Network, Fetcher: r.fetch, Self: r.Identity(),
		OnConsensus: r.onConsensus, OnNetwork: r.onNetwork, OnProgress: r.onDirectory, Undefended: cfg.Undefended,
	})
	var gossip directory.Gossip
	if cfg.Gossip != nil {
		gossip = cfg.Gossip
	}
	describe := r.describe
	if cfg.DirectoryOnly {
		describe = nil
	}
	r.agent = directory.NewAgent(directory.AgentConfig{
		Env: cfg.Env, Network: cfg.Network, Identity: r.Identity(), Follower: r.follower, Fetcher: r.fetch,
		Gossip: gossip, Describe: describe, Signer: cfg.Keys.Signer, Undefended: cfg.Undefended,
		CheckReach: !cfg.AssumeReachable, OnReach: r.onReach, Prober: prober{cfg.Env, r.links},
	})
	if cfg.Network.IsAuthority(r.Identity()) {
		r.newMeasurer()
		var err error
		r.authority, err = directory.NewAuthority(directory.AuthorityConfig{
			Env: cfg.Env, Network: cfg.Network, Identity: r.Identity(), Signer: cfg.Keys.Signer, Agent: r.agent, Follower: r.follower, Prober: prober{cfg.Env, r.links},
			Measured: r.measured(),
		})
		if err != nil {
			return nil, err
		}
	}
	r.speed = directory.NewSpeedTests(cfg.Env, cfg.Network, r.Identity())
	rc := relay.Config{
		Env: cfg.Env, Links: func() *flow.Links { return r.links }, Budget: r.budget, FlowStats: &r.stats, Crypto: r.cfg.Crypto,
		Identity: r.Identity(), NetworkID: cfg.Network.ID, OnionKeys: cfg.Keys.OnionKeys, Directory: r.agent, SpeedTest: r.speed.Answer,
		RequestLimit: r.agent.RequestLimit,
		Addresses:    cfg.Addresses, DirectoryOnly: cfg.DirectoryOnly, Test: cfg.Network.Test, IPv6: cfg.IPv6,
		Limits: relay.DefaultLimits(),
	}
	rc.Policy, rc.Limits.Exit = r.exitPolicy(), cfg.Exit
	if cfg.Directory != nil {
		rc.Directory = cfg.Directory(rc.Directory)
	}
	if cfg.Network.Limit(directory.SiteLimits) == 0 {
		// All relays and clients of a test network share a few addresses.
		rc.Limits.CreateRate, rc.Limits.CreateBurst = 1000, 4000
		rc.Limits.ExtendRate, rc.Limits.ExtendBurst = 1000, 4000
		rc.Limits.UnknownRate, rc.Limits.UnknownBurst = 100, 1000
	}
	r.relay = relay.New(rc)
	return r, nil
}

// newMeasurer makes what an authority measures relays with.
func (r *Relay) newMeasurer() {
	r.transfers = circuit.NewTransfers(circuit.DirectoryConfig{
		Env: r.env, Links: r.links, NetworkID: r.cfg.Network.ID, Budget: r.budget, FlowStats: &r.stats, Crypto: r.cfg.Crypto,
	})
	r.measurer = measure.New(measure.Config{
		Env: r.env, Network: r.cfg.Network, Self: r.Identity(), Signer: r.cfg.Keys.Signer,
		View: r.follower.Current, Carry: r.transfers.Run,
	})
}

// measured is what the authority's votes say of the speed of relays; nil when the network measures none.
func (r *Relay) measured() func(cert.Identity) (kib uint32, ok bool) {
	if r.cfg.Network.Limit(directory.MeasureIntervals) == 0 {
		return nil
	}
	return r.measurer.Measured
}

// prober sees whether a relay answers where it says: by a link that this node dialled there
// and that is alive, or by dialling one. A link that the relay dialled proves nothing about
// its address.
type prober struct {
	env   env.Env
	links *flow.Links
}

func (p prober) Probe(to env.Target, done func(error)) {
	for _, l := range p.links.All() {
		peer := l.Peer()
		if l.Open() && peer.Dialled && peer.Identity == to.Identity && slices.Contains(to.Addresses, peer.Address) {
			p.env.Clock.AfterFunc(0, func() { done(nil) })
			return
		}
	}
	p.env.Dialer.DialLink(to, func(_ env.Link, err error) { done(err) })
}

// Identity names the relay.
func (r *Relay) Identity() cert.Identity { return r.cfg.Keys.Identity() }

func (r *Relay) describe() directory.Descriptor {
	key, until := r.cfg.Keys.OnionKey()
	return directory.Descriptor{
		OnionKey: key, OnionKeyUntil: until, Addresses: r.cfg.Addresses, Policy: r.cfg.Policy,
		Bandwidth: r.cfg.Bandwidth, Nickname: r.cfg.Nickname, Contact: r.cfg.Contact, Software: r.cfg.Software,
		Families: r.cfg.Families, Protocols: directory.OurProtocols(), IPv6Exit: r.cfg.IPv6 && !r.cfg.Policy.IsEmpty(),
	}
}

// vouchedFor says whether a neighbour is more than an identity that anybody could have made.
func (r *Relay) vouchedFor(id cert.Identity) bool {
	return r.agent.InConsensus(id) || r.cfg.Network.IsAuthority(id)
}

// KeysChanged is to be called when Keys.Rotate or Keys.Refresh has changed something: the descriptor is made anew.
func (r *Relay) KeysChanged() { r.agent.Update() }

// Start begins to bootstrap and to serve.
func (r *Relay) Start() {
	r.began = r.env.Clock.Now()
	r.agent.Start()
	r.follower.Start()
	if r.authority != nil {
		r.authority.Start()
		r.measurer.Start()
	}
	if r.cfg.DirectoryOnly {
		r.tellReached()
	}
}

// lookAgain is how often an authority without a consensus says how many relays it can reach.
const lookAgain = time.Second

// tellReached says what an authority that is no relay waits for, until there is a consensus.
func (r *Relay) tellReached() {
	if r.listed || r.stopped || r.authority == nil {
		return
	}
	least := r.cfg.Network.Param(directory.MinRelays)
	s := r.authority.Stats()
	n := s.Reachable
	if int64(n) < least {
		r.progress(20, fmt.Sprintf("no consensus yet: %d relays can be reached", n), fmt.Sprintf("%d of them", least))
	} else if s.Exits == 0 {
		r.progress(40, fmt.Sprintf("no consensus yet: %d relays can be reached, and none is an exit", n), "an exit, for a while")
	} else {
		r.progress(50, fmt.Sprintf("no consensus yet: %d relays can be reached", n), "a quorum of the authorities to agree on one")
	}
	r.env.Clock.AfterFunc(lookAgain, r.tellReached)
}

func (r *Relay) onDirectory(percent int, doing, waiting string) {
	if r.cfg.DirectoryOnly && percent < 100 {
		return // it says by itself what it waits for: see tellReached
	}
	if !r.listed {
		r.progress(percent*9/10, doing, waiting)
	}
}

// progress tells how far the relay has come; it does not go back before the relay is listed.
func (r *Relay) progress(percent int, doing, waiting string) {
	r.percent = max(r.percent, percent)
	r.cfg.OnProgress(r.percent, doing, waiting)
}

func (r *Relay) onConsensus(c *directory.Consensus) {
	if w := r.addressWarning(); w != "" && r.closedPort() == "" && !r.cfg.DirectoryOnly && !r.warned {
		r.warned = true // a status repeats it
		r.env.Log.Warn(w)
	}
	r.agent.OnConsensus(c)
	if r.cfg.OnConsensus != nil {
		r.cfg.OnConsensus(c)
	}
	if r.cfg.DirectoryOnly {
		r.listed = true
		r.cfg.OnProgress(100, fmt.Sprintf("ready: serving the directory at %s", r.cfg.Addresses[0]), "")
		return
	}
	listed := c.Lookup(r.Identity()) != nil
	switch {
	case listed && !r.listed:
		r.cfg.OnProgress(100, fmt.Sprintf("ready: serving at %s, and the consensus lists this relay", r.cfg.Addresses[0]), "")
	case !listed && r.left: // as it asked for
	case !listed && r.listed:
		r.env.Log.Warn("the consensus no longer lists this relay")
		r.cfg.OnProgress(95, "serving, but not listed", "the authorities to list this relay again")
	case !listed && r.agent.Reach().State == directory.ReachUnreached:
		r.onReach()
	case !listed:
		r.progress(95, "serving, but not listed yet", "the authorities to list this relay")
	}
	r.listed = listed
}

// onNetwork takes a newer network file into use, as far as a running node can: who must sign and who is told of the
// relay. Intervals of links and sizes of tables are those of the start.
func (r *Relay) onNetwork(n *directory.Network) {
	r.cfg.Network = n
	r.agent.SetNetwork(n)
	r.speed.SetNetwork(n)
	switch {
	case r.authority != nil:
		r.authority.SetNetwork(n)
	case n.IsAuthority(r.Identity()):
		r.env.Log.Warn("the new network file names this node as an authority: restart it", "serial", n.Serial)
	}
}

// Warnings are what a person should know of the directory and of the relay's own address, in short lines. They are asked for on the loop.
func (r *Relay) Warnings() []directory.Warning {
	list := r.follower.Warnings()
	if w := r.closedPort(); w != "" {
		list = append(list, directory.Warning{Code: directory.WarnUnreachable, Text: w})
	} else if w := r.addressWarning(); w != "" && !r.cfg.DirectoryOnly {
		list = append(list, directory.Warning{Code: directory.WarnAddress, Text: w})
	}
	return list
}

// stopGrace is how long the authorities may take to hear that the relay leaves.
const stopGrace = 500 * time.Millisecond

// Leave tells the authorities that the relay goes away, then calls done; Stop follows.
func (r *Relay) Leave(done func()) {
	if r.left {
		r.env.Clock.AfterFunc(0, done)
		return
	}
	r.left = true
	r.agent.Leave(stopGrace, done)
}

// Stop closes everything; nothing more is heard from the relay.
func (r *Relay) Stop() {
	if r.stopped {
		return
	}
	r.stopped = true
	if r.authority != nil {
		r.measurer.Stop()
		r.transfers.Close()
		r.authority.Stop()
	}
	r.agent.Stop()
	r.follower.Stop()
	r.fetch.Close()
	r.links.Close(errStopping)
}

// Counters are figures for the control API, name to value.
func (r *Relay) Counters() map[string]int64 {
	m := make(map[string]int64, 256)
	flowCounters(m, &r.stats, r.budget)
	relayNames.add(m, r.relay.Stats())
	followerNames.add(m, r.follower.Stats())
	agentNames.add(m, r.agent.Stats())
	if r.authority != nil {
		authorityNames.add(m, r.authority.Stats())
		measureNames.add(m, r.measurer.Stats())
	}
	speedNames.add(m, r.speed.Stats())
	m["directory_circuits"] = int64(r.fetch.Circuits())
	if c := r.follower.Current(); c != nil {
		m["consensus_relays"] = int64(len(c.Relays))
		m["consensus_valid_after"] = c.Head.ValidAfter.Unix()
		m["consensus_lists_this"] = 0
		if c.Lookup(r.Identity()) != nil {
			m["consensus_lists_this"] = 1
		}
	}
	m["reach"] = int64(r.agent.Reach().State)
	m["inbound_relay_links"] = int64(r.sightings.inbound)
	m["observed_here"], m["observed_elsewhere"] = r.sightings.count(r.cfg.Addresses)
	followerCounters(m, r.follower)
	return m
}

// OnRumour takes a rumour that the gossip brought, see directory.Agent.OnRumour.
func (r *Relay) OnRumour(sealed []byte, from cert.Identity) (accept, fresh bool) {
	return r.agent.OnRumour(sealed, from)
}

// Gossip sends a packet of the gossip to a neighbour with which there is a link.
func (r *Relay) Gossip(to cert.Identity, packet []byte) (sent bool) {
	l := r.links.Open(to)
	return l != nil && l.Gossip(packet)
}

// Fetch makes one directory request of another relay, see directory.Fetcher.
func (r *Relay) Fetch(to env.Target, request []byte, max int, done func(answer []byte, err error)) {
	r.fetch.Fetch(to, request, max, done)
}

// DialFor opens a link that the gossip wants; its success shows as a link.
func (r *Relay) DialFor(to env.Target) { r.links.To(to, func(*flow.Link, error) {}) }

// OnGossipViolation closes the links with a neighbour whose gossip broke the protocol.
func (r *Relay) OnGossipViolation(from cert.Identity, why error) {
	for l := r.links.Open(from); l != nil; l = r.links.Open(from) {
		r.env.Log.Debug("link closed for its gossip", "relay", from.Short(), "why", why)
		l.Close(why)
	}
}

// LinkUp implements env.LinkHandler.
func (r *Relay) LinkUp(l env.Link) env.LinkEvents { return r.links.LinkUp(l) }

// OnLink tells who needs to know that a relay is reachable.
func (r *Relay) OnLink(l *flow.Link) {
	p := l.Peer()
	if p.Client() {
		return
	}
	r.follower.OnPeerTime(p.Identity, p.Skew)
	r.sightings.add(p)
	r.observed.Note(p)
	r.visited = r.visited || !p.Dialled
	if r.authority != nil {
		r.authority.LinkUp(p)
	}
	if r.cfg.Gossip != nil {
		r.cfg.Gossip.LinkUp(p.Identity, p.Address.Addr())
	}
}

// OnLinkDown tells them of its end: the gossip, when it was the last link with that relay.
func (r *Relay) OnLinkDown(l *flow.Link, _ error) {
	p := l.Peer()
	if p.Client() {
		return
	}
	if r.authority != nil {
		r.authority.LinkDown(p)
	}
	if r.links.Open(p.Identity) != nil {
		return
	}
	if r.cfg.Gossip != nil {
		r.cfg.Gossip.LinkDown(p.Identity)
	}
}

// OnCreate is the relay's.
func (r *Relay) OnCreate(leg *flow.Leg, c cell.Create) { r.relay.OnCreate(leg, c) }

// OnGossip is the gossip's.
func (r *Relay) OnGossip(l *flow.Link, packet []byte) {
	if r.cfg.Gossip != nil {
		r.cfg.Gossip.OnPacket(l.Peer().Identity, packet)
	}
}
