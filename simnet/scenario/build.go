package scenario

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"cepa/directory"
	"cepa/env"
	"cepa/simnet"
)

// Options are what a run has besides its scenario and seed.
type Options struct {
	// Streams have seeds of their own for streams of randomness, by their names (simnet.StreamNames).
	Streams map[string]uint64
	// Crypto is in place of the scenario's, when it is not empty.
	Crypto string
	// Flow is in place of the scenario's rule for windows, when it is not empty.
	Flow string
	// KeepGoing has Advance go on after a violation.
	KeepGoing bool
	// Log gives the log of a machine; nil discards everything.
	Log func(host string) *slog.Logger
	// Config, which may be nil, may change what the world begins with in ways that do not change the run: who
	// computes, what is remembered.
	Config func(*simnet.Config)
}

// Run is a scenario that runs.
type Run struct {
	World    *simnet.World
	Network  *simnet.Network
	Scenario *Scenario
	Seed     uint64
	Options  Options

	nodes  []*node          // with a process, in the order of their groups
	byName map[string]*node // them and the servers
	end    env.Mono         // clients are stopped
	last   env.Mono         // and all is over
	quiet  bool             // they have been
	over   bool
	err    error
	tally  tally
}

// Build makes the world of a scenario, at its beginning. Its error is one of Check, or of options.
func (s *Scenario) Build(seed uint64, o Options) (*Run, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.name, err)
	}
	if err := s.attached(); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Streams)) {
		if !slices.Contains(simnet.StreamNames, name) {
			return nil, fmt.Errorf("building scenario %s: no stream of randomness is called %q; there are %v", s.name, name, simnet.StreamNames)
		}
	}
	cfg := simnet.Config{Seed: seed, Streams: o.Streams, Latency: s.made.latency, Unsent: int(s.Network.Unsent), Log: o.Log}
	if err := setCrypto(&cfg, s.crypto(o)); err != nil {
		return nil, fmt.Errorf("building scenario %s: %w", s.name, err)
	}
	if err := setFlow(&cfg, s.flow(o)); err != nil {
		return nil, fmt.Errorf("building scenario %s: %w", s.name, err)
	}
	if o.Config != nil {
		o.Config(&cfg)
	}
	w := simnet.New(cfg)
	r := &Run{World: w, Scenario: s, Seed: seed, Options: o, byName: make(map[string]*node)}
	r.tally.from = env.Mono(s.Warmup)
	r.end = env.Mono(s.Duration)
	r.last = r.end.Add(time.Duration(s.settle()))
	w.KeepFlows(false)
	w.Watch(s.checkers()...)
	w.Watch(&r.tally)
	if err := r.populate(); err != nil {
		return nil, fmt.Errorf("building scenario %s: %w", s.name, err)
	}
	r.arrange()
	return r, nil
}

func (s *Scenario) crypto(o Options) string {
	switch {
	case o.Crypto != "":
		return o.Crypto
	case s.Crypto != "":
		return s.Crypto
	}
	return "full"
}

func (s *Scenario) flow(o Options) string {
	switch {
	case o.Flow != "":
		return o.Flow
	case s.Network.Flow != "":
		return s.Network.Flow
	}
	return simnet.FlowNames()[0]
}

const defaultSettle = Duration(2 * time.Minute)

func (s *Scenario) settle() Duration {
	if s.Settle == nil {
		return defaultSettle
	}
	return *s.Settle
}

// checkers are those that are not switched off.
func (s *Scenario) checkers() []simnet.Checker {
	var list []simnet.Checker
	for _, c := range simnet.Checkers() {
		if slices.Contains(s.Unchecked, c.Name()) {
			continue
		}
		if l, ok := c.(*simnet.LivenessChecker); ok {
			l.Within = time.Duration(s.Liveness)
		}
		list = append(list, c)
	}
	return list
}

// populate makes all machines, founds the network and begins what is there from the beginning.
func (r *Run) populate() error {
	s, w := r.Scenario, r.World
	var authorities []*simnet.Host
	for i := range s.authorities() {
		n := &node{r: r, group: authorityGroup}
		n.host = w.Host(r.hostSpec(nodeName(authorityGroup, i), authorityGroup, &Access{}, 0, isAuthority))
		r.add(n)
		authorities = append(authorities, n.host)
	}
	var err error
	r.Network, err = w.Found(simnet.NetworkSpec{Name: "scenario", Test: !s.Network.Public, Parameters: s.parameters(), Authorities: authorities})
	if err != nil {
		return err
	}
	for _, n := range r.nodes {
		n.relayAs = &simnet.RelaySpec{DirectoryOnly: true}
		if n.begin(); r.err != nil {
			return r.err
		}
	}
	for i := range s.Relays {
		r.populateRelays(&s.Relays[i])
	}
	for i, v := range s.servers() {
		h := w.Host(r.hostSpec(nodeName(serverGroup, i), serverGroup, &v.Access, 0, isServer))
		r.byName[h.Name] = &node{r: r, group: serverGroup, host: h}
		w.Name(v.Host, h.Address)
		for _, port := range v.ports() {
			w.Server(h, uint16(port), "")
		}
	}
	for i := range s.Clients {
		c := &s.Clients[i]
		dice := w.Stream(simnet.StreamChurn, "start", c.name())
		for j := range c.Count {
			n := &node{r: r, group: c.name(), clientAs: &simnet.ClientSpec{MemoryMiB: c.MemoryMiB}, loads: c.Loads}
			n.host = w.Host(r.hostSpec(nodeName(c.name(), j), c.name(), &c.Access, c.Cores, isClient))
			n.start = startOf(c.Start, c.Spread, dice)
			r.add(n)
		}
	}
	return nil
}

func (r *Run) populateRelays(g *Relays) {
	w := r.World
	dice := w.Stream(simnet.StreamChurn, "start", g.name())
	var rates []Rate
	if q := g.quantiles(); q != nil {
		percent := g.BandwidthPercent
		if percent == 0 {
			percent = 100
		}
		rates = bandwidths(q, percent, g.Count, w.Stream(simnet.StreamLatency, "bandwidth", g.name()))
	}
	for i := range g.Count {
		access := g.Access
		if rates != nil {
			access.Rate = rates[i]
		}
		spec := simnet.RelaySpec{MemoryMiB: g.MemoryMiB, Bandwidth: uint64(g.Claim)}
		if g.Claim == 0 {
			up, down := access.rates()
			spec.Bandwidth = uint64(min(nonzero(up), nonzero(down)))
			if spec.Bandwidth == noRate {
				spec.Bandwidth = 0
			}
		}
		if up, _ := access.rates(); g.Shape {
			spec.Uplink = int64(up)
		}
		if (i+1)*g.Exits/g.Count > i*g.Exits/g.Count {
			spec.Policy = g.policy()
		}
		n := &node{r: r, group: g.name(), relayAs: &spec}
		n.host = w.Host(r.hostSpec(nodeName(g.name(), i), g.name(), &access, g.Cores, isRelay))
		n.start = startOf(g.Start, g.Spread, dice)
		r.add(n)
	}
}

const noRate = maxQuantity + 1

func nonzero(r Rate) Rate {
	if r == 0 {
		return noRate
	}
	return r
}

func (r *Run) add(n *node) {
	r.nodes = append(r.nodes, n)
	r.byName[n.host.Name] = n
}

func startOf(start, spread Duration, dice simnet.Stream) env.Mono {
	at := env.Mono(start)
	if spread > 0 {
		at += env.Mono(dice.Below(uint64(spread)))
	}
	return at
}

func (a *Access) rates() (up, down Rate) {
	if a.Rate != 0 {
		return a.Rate, a.Rate
	}
	return a.Up, a.Down
}

const defaultCores = 4

// hostSpec describes a machine of a group.
func (r *Run) hostSpec(name, group string, a *Access, cores int, what kind) simnet.HostSpec {
	s := r.Scenario
	up, down := a.rates()
	spec := simnet.HostSpec{
		Name: name, Region: r.region(name, a), Up: int64(up), Down: int64(down), Mile: time.Duration(a.Mile), Buffer: time.Duration(a.Buffer),
		FIFO: a.Queue == "fifo",
	}
	if cores == 0 {
		cores = s.CPU.Cores
	}
	if cores == 0 {
		cores = defaultCores
	}
	if s.CPU.Free {
		return spec
	}
	switch cal := s.Calibration(); what {
	case isAuthority:
		spec.CPU = cal.Authority(cores)
	case isRelay:
		spec.CPU = cal.Relay(cores)
	case isClient:
		spec.CPU = cal.Client(cores)
	}
	return spec
}

// region draws where a machine is, each with a stream of its own.
func (r *Run) region(name string, a *Access) string {
	if a.Region != "" {
		return a.Region
	}
	weights := a.Regions
	if len(weights) == 0 {
		weights = r.Scenario.Network.Regions
	}
	regions := r.Scenario.made.latency.Regions
	sum := uint64(0)
	for _, region := range regions {
		sum += regionWeight(weights, region)
	}
	at := r.World.Stream(simnet.StreamLatency, "region", name).Below(sum)
	for _, region := range regions {
		v := regionWeight(weights, region)
		if at < v {
			return region
		}
		at -= v
	}
	panic("scenario: a draw beyond the weights")
}

func regionWeight(weights map[string]int, region string) uint64 {
	if len(weights) == 0 {
		return 1
	}
	return uint64(weights[region])
}

// parameters are those of the network, and for a test network of many relays those without which they could not all join
// at once.
func (s *Scenario) parameters() directory.Parameters {
	p := make(directory.Parameters)
	for _, name := range slices.Sorted(maps.Keys(s.Network.Parameters)) {
		p[directory.Parameter(name)] = s.Network.Parameters[name]
	}
	return p
}
