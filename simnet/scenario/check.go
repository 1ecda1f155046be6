package scenario

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"cepa/cell"
	"cepa/directory"
	"cepa/nearest"
	"cepa/simnet"
)

// Bounds of a scenario.
const (
	maxNodes    = 200_000
	maxGroups   = 100
	maxEvents   = 100_000 // times that faults happen, repetitions counted
	maxUsers    = 1000
	maxRounds   = 1_000_000_000
	maxName     = 12
	maxEnd      = 366 * day
	defaultHost = "web.example"
)

// problems collects what is wrong; the first in the file is told.
type problems struct {
	s    *Scenario
	line int
	err  error
}

// add notes a problem at a key, in the form "relays[0].count", unless one further up is known.
func (p *problems) add(key, format string, args ...any) {
	line := p.s.lineOf(key)
	if p.err != nil && p.line <= line {
		return
	}
	text := fmt.Sprintf("%s %s", key, fmt.Sprintf(format, args...))
	p.line = line
	if line == 0 {
		p.err = fmt.Errorf("%s", text)
	} else {
		p.err = fmt.Errorf("line %d: %s", line, text)
	}
}

// lineOf is the line of a key, or of what it would be in; 0 if there is none, as when the scenario was made by a program.
func (s *Scenario) lineOf(key string) int {
	for {
		if n, ok := s.lines[key]; ok {
			return n
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

func (p *problems) within(key string, v, low, high int) {
	if v < low || v > high {
		p.add(key, "is %d; want %d to %d", v, low, high)
	}
}

func (p *problems) time(key string, v, low, high Duration) {
	if v < low || v > high {
		p.add(key, "is %v; want %v to %v", v, low, high)
	}
}

func (p *problems) rate(key string, v Rate) {
	if v != 0 && v < minRate {
		p.add(key, "is %v; want at least %v", v, Rate(minRate))
	}
}

// minRate is the smallest rate of an access link: 8 kbit/s.
const minRate = 1000

func (p *problems) oneOf(key, v string, of ...string) {
	if slices.Contains(of, v) {
		return
	}
	hint := ""
	if name := nearest.Name(v, of); name != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", name)
	}
	p.add(key, "is %q%s; want one of %s", v, hint, strings.Join(of, ", "))
}

// Check says what is wrong with a scenario, the first in the file, its files apart (see Attach). Parse calls it;
// it is for scenarios that are made by programs.
func (s *Scenario) Check() error {
	p := &problems{s: s}
	if s.Duration <= 0 {
		p.add("duration", "is missing: how long to run, such as \"60s\"")
	}
	p.time("duration", s.Duration, 0, maxEnd)
	p.time("warmup", s.Warmup, 0, s.Duration)
	if s.Settle != nil {
		p.time("settle", *s.Settle, 0, maxEnd)
	}
	if s.Crypto != "" {
		p.oneOf("crypto", s.Crypto, "full", "fast")
	}
	for i, name := range s.Unchecked {
		p.oneOf(fmt.Sprintf("unchecked[%d]", i), name, checkerNames()...)
	}
	s.checkNetwork(p)
	s.checkCPU(p)
	s.checkGroups(p)
	s.checkServers(p)
	s.checkChurn(p)
	s.checkFaults(p)
	p.time("liveness", s.Liveness, 0, s.Duration)
	return p.err
}

func checkerNames() []string {
	names := []string{livenessName}
	for _, c := range simnet.Checkers() {
		if !slices.Contains(names, c.Name()) {
			names = append(names, c.Name())
		}
	}
	return names
}

func (s *Scenario) checkNetwork(p *problems) {
	n := &s.Network
	if n.Authorities != 0 {
		p.within("network.authorities", n.Authorities, 1, 9)
	}
	for _, name := range slices.Sorted(maps.Keys(n.Parameters)) {
		key := "network.parameters." + name
		info, ok := directory.Parameter(name).Info()
		if !ok {
			var names []string
			for _, info := range directory.ParameterTable() {
				names = append(names, string(info.Name))
			}
			hint := ""
			if near := nearest.Name(name, names); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			p.add(key, "is no parameter of a network%s", hint)
			continue
		}
		if v := n.Parameters[name]; v < info.Min || v > info.Max {
			p.add(key, "is %d; want %d to %d: %s", v, info.Min, info.Max, info.Doc)
		}
	}
	if n.Unsent != 0 && (n.Unsent < 4<<10 || n.Unsent > 16<<20) {
		p.add("network.unsent", "is %v; want 4 KiB to 16 MiB", n.Unsent)
	}
	if n.Flow != "" {
		p.oneOf("network.flow", n.Flow, simnet.FlowNames()...)
	}
	p.within("network.jitter", n.Jitter, 0, 10_000)
	var trip Duration
	switch l := n.latency(); {
	case l == latencyInternet:
		if n.Jitter != 0 {
			p.add("network.jitter", "is %d, but the built-in latency has its own: leave it out", n.Jitter)
		}
	case isFile(l):
		p.file("network.latency", l)
	case trip.UnmarshalText([]byte(l)) != nil || trip < 0 || trip > Duration(60e9):
		p.add("network.latency", "is %q; want \"internet\", a round trip of up to 60s such as \"60ms\", or a file .csv or .gml", l)
	}
	s.checkRegions(p, "network.regions", n.Regions)
}

const latencyInternet = "internet"

func (n *Network) latency() string {
	if n.Latency == "" {
		return latencyInternet
	}
	return n.Latency
}

// isFile tells names of files from other words.
func isFile(name string) bool {
	return strings.HasSuffix(name, ".csv") || strings.HasSuffix(name, ".gml") || strings.HasSuffix(name, ".toml")
}

// checkRegions looks at weights. That the regions exist is only known with the latency; see Attach.
func (s *Scenario) checkRegions(p *problems, key string, weights map[string]int) {
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		p.within(key+"."+name, weights[name], 0, 1_000_000)
		sum += weights[name]
	}
	if len(weights) > 0 && sum <= 0 {
		p.add(key, "weigh nothing; want at least one of more than 0")
	}
}

func (s *Scenario) checkCPU(p *problems) {
	p.within("cpu.cores", s.CPU.Cores, 0, 1024)
	if s.CPU.File == "" {
		return
	}
	p.file("cpu.file", s.CPU.File)
	if s.CPU.Free {
		p.add("cpu.free", "is there besides file; want one of them")
	}
}

// file checks the name of a file that the scenario refers to.
func (p *problems) file(key, name string) {
	if len(name) > 200 || strings.ContainsAny(name, "\\:*?\"<>|\x00") || path.Clean(name) != name || path.IsAbs(name) || strings.HasPrefix(name, "../") || !isFile(name) {
		p.add(key, "is %q; want the name of a file .csv, .gml or .toml beside the scenario or in a folder beside it", name)
	}
}

func (s *Scenario) checkGroups(p *problems) {
	if len(s.Relays) == 0 {
		p.add("relays", "are missing: write [[relays]] and a count")
	}
	names, nodes, exits := map[string]bool{authorityGroup: true, serverGroup: true}, s.authorities(), 0
	group := func(key, name string, count int) {
		if len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) {
			p.add(key+".name", "is %q; want up to %d letters a to z, digits and \"-\"", name, maxName)
		}
		if names[name] {
			p.add(key+".name", "is %q, as another group is: give each a name of its own", name)
		}
		names[name] = true
		p.within(key+".count", count, 1, maxNodes)
		nodes += max(0, min(count, maxNodes))
	}
	for i := range s.Relays {
		r, key := &s.Relays[i], fmt.Sprintf("relays[%d]", i)
		group(key, r.name(), r.Count)
		p.within(key+".exits", r.Exits, 0, r.Count)
		exits += r.Exits
		if _, err := directory.ParsePolicy(r.policy()); err != nil {
			p.add(key+".policy", "is wrong: %v", err)
		}
		s.checkAccess(p, key, &r.Access)
		s.checkBandwidth(p, key, r)
		p.within(key+".memory_mib", r.MemoryMiB, 0, 1<<20)
		p.within(key+".cores", r.Cores, 0, 1024)
		s.checkStart(p, key, r.Start, r.Spread)
	}
	for i := range s.Clients {
		c, key := &s.Clients[i], fmt.Sprintf("clients[%d]", i)
		group(key, c.name(), c.Count)
		s.checkAccess(p, key, &c.Access)
		p.within(key+".memory_mib", c.MemoryMiB, 0, 1<<20)
		p.within(key+".cores", c.Cores, 0, 1024)
		s.checkStart(p, key, c.Start, c.Spread)
		for j := range c.Loads {
			s.checkLoad(p, fmt.Sprintf("%s.load[%d]", key, j), &c.Loads[j])
		}
		if len(c.Loads) > 0 && exits == 0 {
			p.add(key+".load", "needs an exit: set exits of a group of relays")
		}
	}
	if len(names) > maxGroups {
		p.add("relays", "and clients have %d groups, more than %d", len(names), maxGroups)
	}
	if nodes > maxNodes {
		p.add("relays", "and clients are %d machines, more than %d", nodes, maxNodes)
	}
}

func (s *Scenario) checkStart(p *problems, key string, start, spread Duration) {
	p.time(key+".start", start, 0, s.Duration)
	p.time(key+".spread", spread, 0, max(0, s.Duration-start))
}

func (s *Scenario) checkAccess(p *problems, key string, a *Access) {
	if a.Region != "" && len(a.Regions) > 0 {
		p.add(key+".region", "and regions are both there; want one of them")
	}
	s.checkRegions(p, key+".regions", a.Regions)
	if a.Rate != 0 && (a.Up != 0 || a.Down != 0) {
		p.add(key+".rate", "is for both directions; want it, or up and down")
	}
	p.rate(key+".rate", a.Rate)
	p.rate(key+".up", a.Up)
	p.rate(key+".down", a.Down)
	p.time(key+".mile", a.Mile, 0, Duration(10e9))
	p.time(key+".buffer", a.Buffer, 0, Duration(60e9))
	if a.Queue != "" {
		p.oneOf(key+".queue", a.Queue, "fair", "fifo")
	}
}

func (s *Scenario) checkBandwidth(p *problems, key string, r *Relays) {
	if r.Bandwidth != "" {
		p.oneOf(key+".bandwidth", r.Bandwidth, "tor")
	}
	drawn := r.Bandwidth != "" || len(r.Quantiles) > 0
	if r.Bandwidth != "" && len(r.Quantiles) > 0 || drawn && (r.Rate != 0 || r.Up != 0 || r.Down != 0) {
		p.add(key+".bandwidth", "is there besides other rates; want one of bandwidth, quantiles, rate, or up and down")
	}
	if n := len(r.Quantiles); n == 1 || n > 1001 {
		p.add(key+".quantiles", "are %d rates; want 2 to 1001", n)
	}
	for i, v := range r.Quantiles {
		if v <= 0 || i > 0 && v < r.Quantiles[i-1] {
			p.add(fmt.Sprintf("%s.quantiles[%d]", key, i), "is %v; want rates that do not fall, none of them unlimited", v)
		}
	}
	if r.BandwidthPercent != 0 {
		p.within(key+".bandwidth_percent", r.BandwidthPercent, 1, 10_000)
		if !drawn {
			p.add(key+".bandwidth_percent", "has nothing to scale; want bandwidth or quantiles as well")
		}
	}
	if up, _ := r.rates(); r.Shape && up == 0 && !drawn {
		p.add(key+".shape", "has no rate to tell; want up, rate, bandwidth or quantiles as well")
	}
	p.rate(key+".claim", r.Claim)
}

func (s *Scenario) checkLoad(p *problems, key string, l *Load) {
	p.oneOf(key+".kind", l.Kind, loadKinds...)
	if l.Kind == loadTrace {
		if l.File == "" {
			p.add(key+".file", "is missing: the CSV of the trace")
		} else {
			p.file(key+".file", l.File)
		}
		for name, there := range map[string]bool{ // order: which of several is named does not matter, the first in the file is told
			"bytes": l.Bytes != 0, "up": l.Up != 0, "think": l.Think != 0, "flows": l.Flows != 0, "exchanges": l.Exchanges != 0, "pause": l.Pause != 0,
			"read": l.Read != 0, "rounds": l.Rounds != 0, "host": l.Host != "", "port": l.Port != 0,
		} {
			if there {
				p.add(key+"."+name, "is in the trace's file; leave it out")
			}
		}
	} else if l.File != "" {
		p.add(key+".file", "is for traces only")
	}
	p.within(key+".users", l.Users, 0, maxUsers)
	p.within(key+".port", l.Port, 0, 65535)
	p.within(key+".flows", l.Flows, 0, 100)
	p.within(key+".exchanges", l.Exchanges, 0, 1_000_000)
	p.within(key+".rounds", l.Rounds, 0, maxRounds)
	p.time(key+".think", l.Think, 0, maxEnd)
	p.time(key+".pause", l.Pause, 0, maxEnd)
	p.time(key+".patience", l.Patience, 0, maxEnd)
	p.rate(key+".read", l.Read)
	p.time(key+".from", l.From, 0, s.Duration)
	if l.Until != 0 {
		p.time(key+".until", l.Until, l.From, s.Duration)
	}
	if l.Fixed && l.Kind != loadWeb {
		p.add(key+".fixed", "is for web only; the others are of fixed sizes")
	}
	if l.Host != "" && !s.serves(l.Host, l.port()) {
		p.add(key+".host", "is %q, and no server is called so and answers at port %d", l.Host, l.port())
	}
}

func (s *Scenario) checkServers(p *problems) {
	names := map[string]bool{}
	for i := range s.Servers {
		v, key := &s.Servers[i], fmt.Sprintf("servers[%d]", i)
		if a, err := cell.ParseAddress(v.Host); err != nil || a.IsIP() {
			p.add(key+".host", "is %q; want a host name such as %s", v.Host, defaultHost)
		}
		if names[v.Host] {
			p.add(key+".host", "is %q, as another is", v.Host)
		}
		names[v.Host] = true
		if len(v.Ports) > 100 {
			p.add(key+".ports", "are %d; want at most 100", len(v.Ports))
		}
		for j, port := range v.Ports {
			p.within(fmt.Sprintf("%s.ports[%d]", key, j), port, 1, 65535)
		}
		s.checkAccess(p, key, &v.Access)
	}
	if len(s.Servers) > maxGroups {
		p.add("servers", "are %d, more than %d", len(s.Servers), maxGroups)
	}
}

func (s *Scenario) checkChurn(p *problems) {
	if len(s.Churn) > maxGroups {
		p.add("churn", "is there %d times, more than %d", len(s.Churn), maxGroups)
	}
	taken := map[string]bool{}
	for i := range s.Churn {
		c, key := &s.Churn[i], fmt.Sprintf("churn[%d]", i)
		if len(c.Groups) == 0 {
			p.add(key+".groups", "are missing: the names of groups")
		}
		for j, name := range c.Groups {
			at := fmt.Sprintf("%s.groups[%d]", key, j)
			p.oneOf(at, name, s.groupNames()...)
			if taken[name] {
				p.add(at, "is %q, which has churn already", name)
			}
			taken[name] = true
		}
		p.time(key+".from", c.From, 0, s.Duration)
		if c.Until != 0 {
			p.time(key+".until", c.Until, c.from(s), s.Duration)
		}
		p.within(key+".leave", c.Leave, 0, 100)
		if c.File != "" {
			p.file(key+".file", c.File)
			if c.Up != 0 || c.Down != 0 || c.UpShape != 0 || c.DownShape != 0 {
				p.add(key+".file", "is there besides up and down; want one of them")
			}
			continue
		}
		p.time(key+".up", c.Up, Duration(1e9), maxEnd)
		p.time(key+".down", c.Down, Duration(1e6), maxEnd)
		p.shape(key+".up_shape", c.UpShape)
		p.shape(key+".down_shape", c.DownShape)
	}
}

func (p *problems) shape(key string, v float64) {
	if v != 0 && !(v >= 0.1 && v <= 20) {
		p.add(key, "is %v; want 0.1 to 20", v)
	}
}

func (s *Scenario) checkFaults(p *problems) {
	happen := 0
	for i := range s.Faults {
		f, key := &s.Faults[i], fmt.Sprintf("fault[%d]", i)
		p.oneOf(key+".kind", f.Kind, FaultKinds...)
		p.time(key+".at", f.At, 0, s.Duration)
		p.time(key+".for", f.For, 0, maxEnd)
		if f.Every != 0 {
			p.time(key+".every", f.Every, Duration(1e6), maxEnd)
			if f.For == 0 && f.Kind != "restart" {
				p.add(key+".every", "repeats what never ends: set for as well")
			}
		}
		if f.Until != 0 {
			p.time(key+".until", f.Until, f.At, s.Duration)
		}
		happen += f.times(s)
		if happen > maxEvents {
			p.add(key, "and those before happen more than %d times", maxEvents)
		}
		if len(f.Nodes) == 0 {
			p.add(key+".nodes", "are missing: names of machines, such as \"relay-3\" or \"relay-*\"")
		}
		matched := 0
		for j, pattern := range f.Nodes {
			n := s.match(pattern)
			if n == 0 {
				p.add(fmt.Sprintf("%s.nodes[%d]", key, j), "is %q, which names none of the machines: %s", pattern, s.examples())
			}
			matched += n
			if strings.HasPrefix(pattern, serverGroup+"-") && slices.Contains([]string{"crash", "restart", "leave", "power-off"}, f.Kind) {
				p.add(fmt.Sprintf("%s.nodes[%d]", key, j), "is %q, and a server has no process that could do this", pattern)
			}
		}
		p.within(key+".pick", f.Pick, 0, max(matched, 0))
		s.checkFigures(p, key, f)
	}
}

// checkFigures compares a fault's figures with its kind.
func (s *Scenario) checkFigures(p *problems, key string, f *Fault) {
	for _, x := range []struct {
		name, kind string
		there      bool
	}{
		{"delay", "clog", f.Delay != 0}, {"loss", "loss", f.Loss != 0}, {"skew", "skew", f.Skew != 0}, {"drift", "skew", f.Drift != 0},
		{"disk", "slow-disk", f.Disk != 0}, {"rate", "rate", f.Rate != 0}, {"up", "rate", f.Up != 0}, {"down", "rate", f.Down != 0},
	} {
		if x.there && f.Kind != x.kind {
			p.add(key+"."+x.name, "is for the kind %q only", x.kind)
		}
	}
	switch f.Kind {
	case "clog":
		p.time(key+".delay", f.Delay, 1, Duration(60e9))
	case "loss":
		if !(f.Loss > 0 && f.Loss <= 100) {
			p.add(key+".loss", "is %v; want more than 0 and at most 100 percent", f.Loss)
		}
	case "skew":
		if f.Skew == 0 && f.Drift == 0 {
			p.add(key+".skew", "is missing, and drift too")
		}
		p.time(key+".skew", f.Skew, -maxEnd, maxEnd)
		p.within(key+".drift", f.Drift, -100_000, 100_000)
	case "slow-disk":
		p.time(key+".disk", f.Disk, 1, Duration(3600e9))
	case "rate":
		if f.Rate == 0 && f.Up == 0 && f.Down == 0 {
			p.add(key+".rate", "is missing, and up and down too")
		}
		if f.Rate != 0 && (f.Up != 0 || f.Down != 0) {
			p.add(key+".rate", "is for both directions; want it, or up and down")
		}
		p.rate(key+".rate", f.Rate)
		p.rate(key+".up", f.Up)
		p.rate(key+".down", f.Down)
	}
}

// QuietFrom is when the last fault has ended, churn is over and the last node has started; ends is false when a fault
// lasts for ever.
func (s *Scenario) QuietFrom() (at Duration, ends bool) {
	at = s.Warmup
	for i := range s.Relays {
		at = max(at, s.Relays[i].Start+s.Relays[i].Spread)
	}
	for i := range s.Clients {
		at = max(at, s.Clients[i].Start+s.Clients[i].Spread)
	}
	for i := range s.Churn {
		at = max(at, s.Churn[i].until(s))
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		if f.lasts() == 0 {
			return 0, false
		}
		at = max(at, f.At+Duration(f.times(s)-1)*f.Every+f.lasts())
	}
	return at, true
}

// thousandths turns a number of a file into a whole one.
func thousandths(v float64) int64 { return int64(math.Round(v * 1000)) }
