package fuzz

import (
	"fmt"
	"slices"
	"time"

	"cepa/simnet"
	"cepa/simnet/scenario"
)

// drawer draws the parts of one scenario.
type drawer struct {
	simnet.Stream
	s *scenario.Scenario
}

func of[T any](d *drawer, list ...T) T { return list[d.Below(uint64(len(list)))] }

// chance is true in so many of a hundred cases.
func (d *drawer) chance(percent uint64) bool { return d.Below(100) < percent }

// between draws a number from low to high.
func (d *drawer) between(low, high int) int { return low + int(d.Below(uint64(high-low+1))) }

// time draws a time between two, in tenths of a second.
func (d *drawer) time(low, high time.Duration) scenario.Duration {
	const unit = 100 * time.Millisecond
	return scenario.Duration(low + unit*time.Duration(d.Below(uint64((high-low)/unit+1))))
}

// Times of all scenarios: until faultsFrom nothing goes wrong.
const (
	faultsFrom = 20 * time.Second
	afterwards = 40 * time.Second // in which all must work, when that is judged
)

// draw makes a scenario. All that checkers may object to must be a bug, so what is drawn is only what the
// protocol is made for.
func draw(dice simnet.Stream) *scenario.Scenario {
	d := &drawer{dice, new(scenario.Scenario)}
	s := d.s
	s.Crypto = of(d, simnet.Fast, simnet.Fast, simnet.Full)
	// A vote has a twentieth of an interval to arrive, over a link and a circuit that must be made first perhaps.
	interval := time.Duration(of(d, 20, 30)) * time.Second
	if d.chance(75) {
		interval = time.Duration(of(d, 5, 5, 10)) * time.Second
		s.Network.Latency, s.Network.Jitter = of(d, "0s", "1ms", "20ms", "60ms"), of(d, 0, 300, 1000)
		if s.Network.Latency == "60ms" {
			s.Network.Jitter = min(s.Network.Jitter, 300)
		}
	}
	s.Network.Authorities = of(d, 1, 1, 2, 3, 4, 5, 7)
	s.Network.Parameters = map[string]int64{
		"interval_ms": interval.Milliseconds(), "min_relays": 3, "keepalive_ms": int64(of(d, 1000, 5000)),
		"reconcile_ms": int64(of(d, 1000, 5000, 10_000)), // each second, as in other test networks, is half of all work
	}
	if d.chance(25) {
		s.Network.Parameters["full_view"] = int64(d.between(1, 6))
	}
	s.CPU.Free = d.chance(20)
	if !s.CPU.Free {
		s.CPU.Cores = of(d, 1, 2, 4)
	}
	relays := scenario.Relays{Count: of(d, 4, 5, 6, 7, 8, 9, 12)}
	relays.Exits = d.between(1, relays.Count-2)
	d.access(&relays.Access)
	if d.chance(10) { // queues that are full: streams may end for want of memory
		relays.MemoryMiB = d.between(1, 4)
		s.Unchecked = append(s.Unchecked, "liveness")
	}
	s.Relays = []scenario.Relays{relays}
	clients := scenario.Clients{Count: d.between(1, 4), Start: d.time(0, 15*time.Second)}
	d.access(&clients.Access)
	for range d.between(1, 3) {
		clients.Loads = append(clients.Loads, d.load())
	}
	s.Clients = []scenario.Clients{clients}
	length := time.Duration(d.time(10*time.Second, 60*time.Second))
	for range d.between(0, 8) {
		s.Faults = append(s.Faults, d.fault(length))
	}
	if d.chance(40) {
		s.Churn = []scenario.Churn{{
			Groups: of(d, []string{"relay"}, []string{"relay", "authority"}, []string{"relay", "client"}, []string{"client"}),
			Up:     d.time(10*time.Second, 2*time.Minute), Down: d.time(time.Second, 20*time.Second), Leave: of(d, 0, 50, 100),
			From: scenario.Duration(faultsFrom), Until: scenario.Duration(faultsFrom + length),
		}}
	}
	s.Warmup = scenario.Duration(faultsFrom)
	s.Duration = scenario.Duration(faultsFrom + length + time.Minute + 4*interval + afterwards)
	return s
}

// access draws how machines are connected.
func (d *drawer) access(a *scenario.Access) {
	if d.chance(60) {
		a.Up, a.Down = d.rate(), d.rate()
	}
	if d.chance(20) {
		a.Mile = d.time(0, 50*time.Millisecond)
	}
	if d.chance(30) {
		a.Queue = "fifo"
	}
	if d.chance(30) {
		a.Buffer = d.time(100*time.Millisecond, 2*time.Second)
	}
}

// rate draws one at which gossip and consensuses of a small network do not fill the link.
func (d *drawer) rate() scenario.Rate {
	const mbit = 1_000_000 / 8
	return scenario.Rate(of(d, 4*mbit, 10*mbit, 50*mbit, 1000*mbit))
}

func (d *drawer) load() scenario.Load {
	l := scenario.Load{Kind: of(d, "web", "web", "bulk", "chat"), Isolated: d.chance(30), Users: d.between(1, 2)}
	switch l.Kind {
	case "web":
		l.Think, l.Flows = d.time(100*time.Millisecond, 10*time.Second), d.between(1, 6)
		l.Bytes = scenario.Size(of(d, 1000, 30_000, 200_000))
	case "bulk":
		l.Bytes, l.Up = scenario.Size(of(d, 10_000, 300_000, 2_000_000)), scenario.Size(of(d, 200, 200, 500_000))
		l.Think = d.time(time.Second, 10*time.Second)
	case "chat":
		l.Exchanges, l.Pause = d.between(2, 50), d.time(100*time.Millisecond, 4*time.Second)
	}
	l.Patience = scenario.Duration(time.Duration(of(d, 5, 60, 600)) * time.Second)
	return l
}

// fault draws one that begins and ends within so long after faultsFrom.
func (d *drawer) fault(length time.Duration) scenario.Fault {
	f := scenario.Fault{Kind: of(d, scenario.FaultKinds...)}
	at := time.Duration(d.time(0, length-time.Second))
	f.At = scenario.Duration(faultsFrom + at)
	f.For = d.time(time.Second, max(time.Second, min(length-at, 45*time.Second)))
	f.Nodes = []string{of(d, "relay-*", "relay-*", "authority-*", "client-*")}
	if d.chance(15) {
		f.Nodes = []string{"relay-*", "authority-*"}
	}
	f.Pick = d.between(1, d.most(f.Nodes))
	if d.chance(10) {
		f.Pick = 0 // all
	}
	switch f.Kind {
	case "clog":
		f.Delay = d.time(100*time.Millisecond, 8*time.Second)
	case "loss":
		f.Loss = float64(d.between(1, 300)) / 10
	case "skew":
		if slices.Contains(f.Nodes, "authority-*") { // more, and they sign nothing for as long as they were ahead
			f.Skew, f.Drift = d.time(-2*time.Second, 2*time.Second), d.between(1, 500)
			break
		}
		f.Skew = scenario.Duration(time.Duration(d.between(-7200, 7200)) * of(d, time.Millisecond, time.Second, time.Minute))
		f.Drift = d.between(-1000, 1000)
		if f.Skew == 0 && f.Drift == 0 {
			f.Drift = 1
		}
	case "slow-disk":
		f.Disk = d.time(100*time.Millisecond, 20*time.Second)
	case "rate":
		f.Rate = scenario.Rate(of(d, 2000, 20_000, 200_000))
	}
	return f
}

// most is how many machines a fault may pick.
func (d *drawer) most(patterns []string) (n int) {
	for _, p := range patterns {
		switch p {
		case "relay-*":
			n += d.s.Relays[0].Count
		case "authority-*":
			n += d.s.Network.Authorities
		case "client-*":
			n += d.s.Clients[0].Count
		default:
			panic(fmt.Sprintf("fuzz: no machines are called %s", p))
		}
	}
	return n
}
