package node

import (
	"errors"
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
	"cepa/onion"
)

// ClientConfig is what a client is made of.
type ClientConfig struct {
	Env         env.Env
	Network     *directory.Network
	MemoryBytes int // the one budget for queues and buffers
	// Restrict is what the user wants of paths; nil is nothing.
	Restrict *circuit.Restrictions
	// NoSpares has the client build a circuit only when a request waits for it.
	NoSpares bool
	// OnProgress hears how far the client has come; it may be nil.
	OnProgress func(percent int, doing, waiting string)
	// OnConsensus is told of every consensus that comes into use; it may be nil.
	OnConsensus func(*directory.Consensus)
	// OnReady is called once, when a circuit has carried data.
	OnReady func()
	// OnCircuit hears of the life of each circuit, see circuit.Config.
	OnCircuit func(circuit.Event)
	// OnStream hears of each step of each request of an application, see circuit.Config.
	OnStream func(circuit.StreamInfo)
	// Crypto replaces the cryptography of circuits, in a simulation; nil in the daemon.
	Crypto onion.Suite
	// Flow replaces the rules for windows, in a simulation; nil in the daemon.
	Flow       *flow.Rules
	Undefended directory.Undefended // zero but in the attack suite
	Defect     Defect               // zero but in tests of checkers
}

// Client is a node that uses the network and carries nothing for others.
type Client struct {
	cfg      ClientConfig
	env      env.Env
	stats    flow.Stats
	budget   *flow.Budget
	links    *flow.Links
	fetch    *circuit.Directory
	follower *directory.Follower
	circuits *circuit.Client
	percent  int // told last; it does not go back
	ready    bool
	probing  bool
	stopped  bool
	outside  []netip.Addr // where guards see this client, the latest first
}

// NewClient makes a client. It does nothing until Start.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.OnProgress == nil {
		cfg.OnProgress = func(int, string, string) {}
	}
	cfg.Network = directory.NewestNetwork(cfg.Env.Store, cfg.Env.Log, cfg.Network)
	c := &Client{cfg: cfg, env: cfg.Env, budget: flow.NewBudget(cfg.MemoryBytes)}
	c.budget.Seed(cfg.Defect)
	c.budget.Follow(cfg.Flow)
	c.links = newLinks(cfg.Env, cfg.Network, c.budget, &c.stats, c, nil, 0, 0, 0)
	c.fetch = circuit.NewDirectory(circuit.DirectoryConfig{
		Env: cfg.Env, Links: c.links, NetworkID: cfg.Network.ID, Budget: c.budget, FlowStats: &c.stats, Crypto: cfg.Crypto,
		Limits: circuit.DefaultDirectoryLimits(),
	})
	c.follower = directory.NewFollower(directory.FollowerConfig{
		Env: cfg.Env, Network: cfg.Network, Fetcher: c.fetch,
		Sources:     func() []env.Target { return c.circuits.GuardTargets() },
		OnConsensus: c.onConsensus,
		OnProgress:  c.onDirectory,
		Undefended:  cfg.Undefended,
	})
	limits := circuit.DefaultLimits()
	if cfg.NoSpares {
		limits.Spares = 0
	}
	c.circuits = circuit.New(circuit.Config{
		Env: cfg.Env, Links: c.links, NetworkID: cfg.Network.ID, Budget: c.budget, FlowStats: &c.stats, Crypto: cfg.Crypto,
		View: c.follower.Current, Test: cfg.Network.Test, Limits: limits,
		Restrict: cfg.Restrict, OnTrouble: c.onTrouble, OnCircuit: cfg.OnCircuit, OnStream: cfg.OnStream,
	})
	return c, nil
}

func (c *Client) onConsensus(consensus *directory.Consensus) {
	if c.cfg.OnConsensus != nil {
		c.cfg.OnConsensus(consensus)
	}
	c.circuits.ConsensusChanged()
	c.probe()
}

// newLinks is the set of links of a node, with the network's keepalive.
func newLinks(e env.Env, network *directory.Network, budget *flow.Budget, stats *flow.Stats, h flow.NodeHandler, listed func(cert.Identity) bool, maxLinks int, uplink int64, burst time.Duration) *flow.Links {
	keepalive := network.Keepalive()
	limits := flow.DefaultLimits()
	if maxLinks > 0 {
		limits.MaxLinks = maxLinks
	}
	limits.OneSite = network.Limit(directory.SiteLimits) == 0
	return flow.NewLinks(flow.Config{
		Env: e, Self: selfOf(h), Budget: budget, Limits: limits,
		Keepalive: keepalive, Dead: keepalive * 14 / 5, IdleKeepalive: network.IdleKeepalive(), Handler: h, Stats: stats, Listed: listed,
		Uplink: uplink, UplinkBurst: burst,
	})
}

// Start begins to bootstrap.
func (c *Client) Start() { c.follower.Start() }

// Bootstrapping in percent: the directory takes the first part, circuits the rest.
const (
	percentDirectory = 60
	percentCircuits  = 80
)

func (c *Client) onDirectory(percent int, doing, waiting string) {
	if !c.ready {
		c.progress(percent*percentDirectory/100, doing, waiting)
	}
}

func (c *Client) progress(percent int, doing, waiting string) {
	c.percent = max(c.percent, percent)
	c.cfg.OnProgress(c.percent, doing, waiting)
}

// probe sends data over a circuit, until that has worked once.
func (c *Client) probe() {
	if c.ready || c.probing || c.stopped {
		return
	}
	c.probing = true
	c.progress(percentCircuits, "building a circuit and sending data over it", "")
	c.circuits.Probe(func(err error) {
		c.probing = false
		switch {
		case c.stopped:
		case err == nil:
			c.ready = true
			c.progress(99, "a circuit has carried data", "")
			c.cfg.OnReady()
		default:
			c.progress(percentCircuits, "trying again to build a circuit", errorText(err))
			c.env.Clock.AfterFunc(probeAgain, c.probe)
		}
	})
}

// onTrouble tells at once what keeps circuits away while the client is not ready; later its warnings do.
func (c *Client) onTrouble(err error) {
	switch {
	case c.ready || c.stopped:
	case err == nil:
		c.progress(percentCircuits, "building a circuit and sending data over it", "")
	default:
		c.progress(percentCircuits, "waiting to build a circuit", err.Error())
	}
}

// probeAgain is the pause between two probes that failed.
const probeAgain = 500 * time.Millisecond

func errorText(err error) string {
	var e *circuit.Error
	if errors.As(err, &e) {
		return e.Text
	}
	return fmt.Sprint(err)
}

// Open carries one stream of an application, see circuit.Client.Open.
func (c *Client) Open(r circuit.Request, conn env.Conn, done func(circuit.Result, error)) *circuit.Handle {
	return c.circuits.Open(r, conn, done)
}

// Resolve asks an exit for addresses or names, see circuit.Client.Resolve.
func (c *Client) Resolve(r circuit.ResolveRequest, done func([]cell.Address, time.Duration, error)) *circuit.Handle {
	return c.circuits.Resolve(r, done)
}

// NewIdentity has nothing new use a circuit of before, see circuit.Client.NewIdentity.
func (c *Client) NewIdentity() { c.circuits.NewIdentity() }

// Warnings are what a person should know of the directory and of the paths, in short lines. They are asked for on
// the loop.
func (c *Client) Warnings() []directory.Warning {
	return append(c.follower.Warnings(), c.circuits.Warnings()...)
}

// Circuits are those of the client, for status and tests.
func (c *Client) Circuits() []circuit.Info { return c.circuits.Circuits() }

// Counters are figures for the control API, name to value.
func (c *Client) Counters() map[string]int64 {
	m := make(map[string]int64)
	flowCounters(m, &c.stats, c.budget)
	s := c.circuits.Stats()
	circuitNames.add(m, s)
	followerNames.add(m, c.follower.Stats())
	m["directory_circuits"] = int64(c.fetch.Circuits())
	if v := c.follower.Current(); v != nil {
		m["consensus_relays"] = int64(len(v.Relays))
		m["consensus_valid_after"] = v.Head.ValidAfter.Unix()
	}
	followerCounters(m, c.follower)
	return m
}

// Stop closes everything; nothing more is heard from the client.
func (c *Client) Stop() {
	c.stopped = true
	c.follower.Stop()
	c.fetch.Close()
	c.circuits.Close()
	c.links.Close(errStopping)
}

var errStopping = errors.New("the node is stopping")

// LinkUp implements env.LinkHandler.
func (c *Client) LinkUp(l env.Link) env.LinkEvents { return c.links.LinkUp(l) }

// OnLink tells the follower what clocks others have.
func (c *Client) OnLink(l *flow.Link) {
	c.follower.OnPeerTime(l.Peer().Identity, l.Peer().Skew)
	c.noteOutside(l.Peer().Observed)
}

// maxOutside is how many addresses a client remembers that it was seen at.
const maxOutside = 4

func (c *Client) noteOutside(a netip.Addr) {
	if !a.IsValid() {
		return
	}
	rest := slices.DeleteFunc(slices.Clone(c.outside), func(b netip.Addr) bool { return a == b })
	c.outside = append([]netip.Addr{a}, rest[:min(len(rest), maxOutside-1)]...)
}

// Outside is where relays that this client has a link to said they see it, the latest first, at most four. One of them
// alone can lie.
func (c *Client) Outside() []netip.Addr { return slices.Clone(c.outside) }

// OnLinkDown is heard by the circuits themselves.
func (c *Client) OnLinkDown(*flow.Link, error) {}

// OnCreate does not happen at a client; flow closes such a link.
func (c *Client) OnCreate(leg *flow.Leg, _ cell.Create) { leg.Destroy(cell.ReasonProtocol) }

// OnGossip does not happen at a client; flow closes such a link.
func (c *Client) OnGossip(*flow.Link, []byte) {}
