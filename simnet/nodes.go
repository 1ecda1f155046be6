package simnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/env"
	"cepa/node"
)

// NetworkSpec describes an overlay.
type NetworkSpec struct {
	Name       string
	Test       bool // a test network: fewer limits on who may join
	Parameters directory.Parameters
	// Authorities are the hosts of those who make the consensus. Network.Relay makes them work.
	Authorities []*Host
	Port        uint16 // of relays; 0 is 9001
}

// Network is one overlay in a world.
type Network struct {
	File    *directory.Network // as its authorities signed it
	Relays  []*Relay           // authorities among them, in the order in which they were made
	Clients []*Client

	w          *World
	port       uint16
	byIdentity map[cert.Identity]*Relay
}

// Found makes an overlay: keys for its authorities, and the network file that they sign.
func (w *World) Found(spec NetworkSpec) (*Network, error) {
	n := &Network{w: w, port: spec.Port, byIdentity: make(map[cert.Identity]*Relay)}
	if n.port == 0 {
		n.port = 9001
	}
	var id cert.NetworkID
	_, _ = w.Stream(StreamKeys, "network", spec.Name).Read(id[:]) // never fails
	file := directory.Network{Name: spec.Name, ID: id, Created: w.Wall(), Test: spec.Test, Parameters: spec.Parameters}
	var signers []cert.Signer
	for _, h := range spec.Authorities {
		e := w.keyEnv(h)
		identity, err := node.NewIdentity(e)
		if err != nil {
			return nil, err
		}
		signer, err := node.NewSigner(e, id, identity)
		if err != nil {
			return nil, err
		}
		signers = append(signers, signer)
		contact := directory.Contact{Identity: signer.Identity(), Addresses: []netip.AddrPort{netip.AddrPortFrom(h.Address, n.port)}}
		file.Authorities = append(file.Authorities, contact)
		file.Bootstrap = append(file.Bootstrap, contact)
	}
	var err error
	if n.File, err = directory.NewNetwork(file, signers...); err != nil {
		return nil, err
	}
	if w.memo != nil {
		n.File = n.File.Remember(w.memo)
	}
	w.networks = append(w.networks, n)
	w.Flush()
	return n, nil
}

// keyEnv is the environment of a host with the randomness for long-term keys.
func (w *World) keyEnv(h *Host) env.Env {
	e := h.env
	e.Rand = w.Stream(StreamKeys, h.Name, itoa(h.life))
	return e
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// RelaySpec describes a relay.
type RelaySpec struct {
	Policy        string // of the exit, as in the settings; empty is none
	MemoryMiB     int    // 0 is 64
	Bandwidth     uint64 // that it claims, bytes a second
	Uplink        int64  // that its settings say its way out has, bytes a second; 0 is nothing
	DirectoryOnly bool   // an authority that carries no circuits
}

// Relay is a relay or an authority on a host.
type Relay struct {
	Host *Host
	Node *node.Relay // of the process that runs, or ran last
	Keys *node.Keys
	// Percent, Doing and Waiting are how far it has come.
	Percent        int
	Doing, Waiting string

	spec   RelaySpec
	n      *Network
	gossip *Epidemic
	// certified is when it took its link key, by its clock.
	certified time.Time
}

// Relay makes a relay on a host and starts it.
func (n *Network) Relay(h *Host, spec RelaySpec) (*Relay, error) {
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = 64
	}
	if spec.Policy == "" {
		spec.Policy = "none"
	}
	r := &Relay{Host: h, spec: spec, n: n}
	if err := r.Start(); err != nil {
		return nil, err
	}
	n.Relays = append(n.Relays, r)
	return r, nil
}

// Start starts the relay, again when its process has ended. It is called inside an event or outside.
func (r *Relay) Start() error {
	h, w := r.Host, r.n.w
	h.Boot()
	policy, err := directory.ParsePolicy(r.spec.Policy)
	if err != nil {
		return fmt.Errorf("starting %s: %w", h.Name, err)
	}
	keyed := w.keyEnv(h)
	if r.Keys, err = node.LoadKeys(keyed, r.n.File); err != nil {
		return fmt.Errorf("starting %s: %w", h.Name, err)
	}
	r.n.byIdentity[r.Keys.Identity()] = r
	r.gossip = newEpidemic(w, h, r.n.File, r.Keys.Identity())
	r.Node, err = node.NewRelay(node.RelayConfig{
		Env: h.env, Network: r.n.File, Keys: r.Keys, Addresses: []netip.AddrPort{netip.AddrPortFrom(h.Address, r.n.port)},
		Policy: policy, MemoryBytes: w.memory(r.spec.MemoryMiB), Bandwidth: r.spec.Bandwidth, Uplink: r.spec.Uplink, Nickname: nickname(h.Name), Software: "simnet",
		DirectoryOnly: r.spec.DirectoryOnly, Gossip: r.gossip, Crypto: w.suite, Flow: w.rules, Defect: w.defect(h),
		OnConsensus: func(c *directory.Consensus) {
			for _, x := range w.checkers {
				x.OnConsensus(w, h, c)
			}
		},
		OnProgress: func(percent int, doing, waiting string) { r.Percent, r.Doing, r.Waiting = percent, doing, waiting },
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w", h.Name, err)
	}
	h.check = r.Node.Check
	h.Links(r.Node, r.Keys.Identity(), r.n.port, func() [32]byte { key, _ := r.Keys.OnionKey(); return key })
	r.certify(r.Keys)
	started := r.Node
	w.after(h, 0, KindWorld, func() {
		r.gossip.begin(started)
		started.Start()
		r.awaitRenewal(r.Keys, h.env.Clock.Now().Add(lookAtKeys))
	})
	return nil
}

// How often a relay looks at its keys, and whether its clock has been set, as the daemon does.
const (
	lookAtKeys  = 15 * time.Minute
	lookAtClock = 20 * time.Second
)

// awaitRenewal renews keys when they are due.
func (r *Relay) awaitRenewal(keys *node.Keys, due env.Mono) {
	clock, started := r.Host.env.Clock, r.Node
	clock.AfterFunc(lookAtClock, func() {
		if clock.Now() < due && !node.LinkKeyDue(r.certified, clock.Wall()) {
			r.awaitRenewal(keys, due)
			return
		}
		before := keys.Generation()
		if err := keys.Rotate(); err != nil {
			r.Host.env.Log.Error("renewing keys failed", "err", err)
		}
		changed := keys.Generation() != before
		if changed || node.LinkKeyDue(r.certified, clock.Wall()) {
			r.certify(keys)
		}
		if changed {
			started.KeysChanged()
		}
		r.awaitRenewal(keys, clock.Now().Add(lookAtKeys))
	})
}

// certify notes for how long what a daemon would show on links from now on is valid: the certificate of
// the signing key, and one of a link key that it makes now.
func (r *Relay) certify(keys *node.Keys) {
	now, signing := r.Host.env.Clock.Wall(), keys.Signer().Certificate
	from, until := now.Add(-cert.BackDate), now.Add(cert.MaxLink)
	if from.Before(signing.From) {
		from = signing.From
	}
	if until.After(signing.Until) {
		until = signing.Until
	}
	r.certified = now
	r.Host.Certify(from, until)
}

// Stop has the relay leave the network and ends its process; done, which may be nil, is called then.
func (r *Relay) Stop(done func()) {
	h, leaving := r.Host, r.Node
	if !h.alive {
		return
	}
	life, gossip := h.life, r.gossip
	r.n.w.after(h, 0, KindWorld, func() {
		leaving.Leave(func() {
			gossip.stop()
			leaving.Stop()
			// What was sent last leaves before the process is gone.
			r.n.w.After(closeTime, func() {
				if h.life == life {
					h.Crash()
				}
				if done != nil {
					done()
				}
			})
		})
	})
}

// nickname makes a name that a descriptor may bear.
func nickname(name string) string { return name[:min(len(name), 19)] }

// ClientSpec describes a client.
type ClientSpec struct {
	MemoryMiB int // 0 is 64
}

// Client is a client on a host.
type Client struct {
	Host *Host
	Node *node.Client // of the process that runs, or ran last
	// Ready is when a circuit has carried data for the first time; 0 before.
	Ready env.Mono
	// Percent, Doing and Waiting are how far it has come.
	Percent        int
	Doing, Waiting string

	spec    ClientSpec
	n       *Network
	paths   map[uint64][]cert.Identity // of its circuits
	onReady []func()
	users   int
	stopped bool
}

// Client makes a client on a host and starts it.
func (n *Network) Client(h *Host, spec ClientSpec) (*Client, error) {
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = 64
	}
	c := &Client{Host: h, spec: spec, n: n}
	if err := c.Start(); err != nil {
		return nil, err
	}
	n.Clients = append(n.Clients, c)
	return c, nil
}

// Start starts the client, again when its process has ended.
func (c *Client) Start() (err error) {
	h, w := c.Host, c.n.w
	h.Boot()
	h.watched = true
	e := h.env
	e.Network = nil // a client has no way to the clear net
	c.Ready, c.stopped, c.paths = 0, false, make(map[uint64][]cert.Identity)
	c.Node, err = node.NewClient(node.ClientConfig{
		Env: e, Network: c.n.File, MemoryBytes: w.memory(c.spec.MemoryMiB), Crypto: w.suite, Flow: w.rules, Defect: w.defect(h),
		OnProgress: func(percent int, doing, waiting string) { c.Percent, c.Doing, c.Waiting = percent, doing, waiting },
		OnReady:    c.becomeReady,
		OnCircuit:  c.onCircuit,
		OnConsensus: func(x *directory.Consensus) {
			for _, checker := range w.checkers {
				checker.OnConsensus(w, h, x)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w", h.Name, err)
	}
	h.check, h.extends = c.Node.Check, c.extends
	h.Links(c.Node, cert.Identity{}, 0, nil)
	w.after(h, 0, KindWorld, c.Node.Start)
	return nil
}

// extends says whether a relay is the first of a circuit of several.
func (c *Client) extends(first cert.Identity) bool {
	return slices.ContainsFunc(c.Node.Circuits(), func(x circuit.Info) bool { return len(x.Path) > 1 && x.Path[0] == first })
}

func (c *Client) becomeReady() {
	c.Ready = c.n.w.now
	for _, f := range c.onReady {
		c.n.w.after(c.Host, 0, KindWorld, f)
	}
	c.onReady = nil
}

// WhenReady calls f as an event of the client when a circuit has carried data, or soon if one has.
func (c *Client) WhenReady(f func()) {
	if c.Ready > 0 {
		c.n.w.after(c.Host, 0, KindWorld, f)
		return
	}
	c.onReady = append(c.onReady, f)
}

// Stop stops the client's node. Its streams end.
func (c *Client) Stop() {
	if c.stopped || !c.Host.alive {
		return
	}
	c.stopped = true
	c.n.w.calm = false
	node := c.Node
	c.n.w.after(c.Host, 0, KindWorld, node.Stop)
}

// StopClients stops all clients, so that only what relays do for themselves goes on.
func (n *Network) StopClients() {
	for _, c := range n.Clients {
		c.Stop()
	}
}

// Ready reports whether all clients are.
func (n *Network) Ready() bool {
	for _, c := range n.Clients {
		if c.Ready == 0 && c.Host.alive {
			return false
		}
	}
	return true
}
