package flowstudy

import (
	"embed"
	"time"

	"cepa/simnet/scenario"
)

//go:embed trips.csv
var files embed.FS

// When things begin in all scenarios. The middle relay and the exit begin so late that they are no guards yet, and what they
// claim keeps guards from other positions: so every circuit has the same path.
const (
	lateRelays = 120 * time.Second
	clients    = 132 * time.Second
	loads      = 146 * time.Second
)

// propagation is the time from exit to client without any queue.
const propagation = 90 * time.Millisecond

// Scenario is one of the study.
type Scenario struct {
	Name  string
	About string
	// Costly scenarios take minutes of a processor for each run.
	Costly bool

	make     func(b *builder)
	line     scenario.Rate // of the bottleneck
	last     time.Duration // of the loads
	from     time.Duration // after the loads' beginning: what is measured begins,
	until    time.Duration // and ends; 0 is the end
	measures func(p, idle *probe) []Value
	idle     bool // the same without downloads is run too, to compare with
}

func mbit(n float64) scenario.Rate { return scenario.Rate(n * 1e6 / 8) }

// builder puts a scenario together.
type builder struct {
	s    *scenario.Scenario
	sc   *Scenario
	idle bool
}

// build is the scenario as package scenario has it; idle is without downloads.
func (sc *Scenario) build(idle bool, unsent int) (*scenario.Scenario, error) {
	settle := scenario.Duration(5 * time.Second)
	s := &scenario.Scenario{
		About: sc.About, Duration: scenario.Duration(loads + sc.last), Warmup: scenario.Duration(loads), Settle: &settle, Crypto: "fast",
		Unchecked: []string{"leftovers", "liveness"}, // it ends amid downloads
	}
	s.CPU.Free = true
	s.Network = scenario.Network{
		Latency: "trips.csv", Jitter: 20, Unsent: scenario.Size(unsent), Regions: map[string]int{"middle": 1},
		Parameters: map[string]int64{
			"interval_ms": 10_000, "update_ms": 10_000, "reconcile_ms": 3_600_000, "measure_intervals": 0, "guard_min_age_s": 31_536_000,
		},
	}
	s.Servers = []scenario.Servers{{Host: "web.example", Access: scenario.Access{Region: "server"}}}
	sc.make(&builder{s: s, sc: sc, idle: idle})
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s, s.Attach(files)
}

// relays adds guards, one middle relay and exits. The middle one sends up and receives down.
func (b *builder) relays(guards, exits int, up, down scenario.Rate) *scenario.Relays {
	fast := mbit(10_000)
	share := func(n int) scenario.Rate { return mbit(100) / scenario.Rate(n) }
	b.s.Relays = []scenario.Relays{
		{Name: "guard", Count: guards, Claim: share(guards), Access: scenario.Access{Region: "guard", Rate: fast}},
		{
			Name: "middle", Count: 1, Claim: fast, Start: scenario.Duration(lateRelays),
			Access: scenario.Access{Region: "middle", Up: up, Down: down, Buffer: scenario.Duration(50 * time.Millisecond)},
		},
		{Name: "exit", Count: exits, Exits: exits, Claim: share(exits), Start: scenario.Duration(lateRelays), Access: scenario.Access{Region: "exit", Rate: fast}},
	}
	return &b.s.Relays[1]
}

// clients adds a group of them.
func (b *builder) clients(name string, n int, rate scenario.Rate, l ...scenario.Load) *scenario.Clients {
	for i := range l {
		l[i].From += scenario.Duration(loads)
	}
	b.s.Clients = append(b.s.Clients, scenario.Clients{
		Name: name, Count: n, Access: scenario.Access{Region: "client", Rate: rate}, MemoryMiB: 1024,
		Start: scenario.Duration(clients), Spread: scenario.Duration(time.Second), Loads: l,
	})
	return &b.s.Clients[len(b.s.Clients)-1]
}

// bulk is a download without end.
func bulk() scenario.Load {
	return scenario.Load{Kind: "bulk", Bytes: 100_000_000_000, Patience: scenario.Duration(time.Hour)}
}

// downloads are clients with a download each, all at once.
func (b *builder) downloads(n int) {
	if !b.idle {
		b.clients("bulk", n, mbit(1000), bulk())
	}
}

// readers are clients who read pages of 100 kB.
func (b *builder) readers(n int) {
	b.clients("reader", n, mbit(1000), scenario.Load{
		Kind: "web", Bytes: 100_000, Fixed: true, Think: scenario.Duration(500 * time.Millisecond),
	})
}

func (b *builder) fault(f scenario.Fault) {
	f.At += scenario.Duration(loads)
	b.s.Faults = append(b.s.Faults, f)
}

const gbit = 1000

// Scenarios are all there are.
func Scenarios() []Scenario {
	narrow := mbit(100)
	sec := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	at := func(n float64) scenario.Duration { return scenario.Duration(sec(n)) }
	list := []Scenario{
		{
			Name: "S1-egress", About: "One download of 100 MB, and another after it; the middle relay sends 100 Mbit/s and receives 1 Gbit/s.",
			last: sec(45), measures: single, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)); b.twice() },
		},
		{
			Name: "S1-known", About: "The same, and the relay knows its rate.",
			last: sec(45), measures: single, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)).Shape = true; b.twice() },
		},
		{
			Name: "S1-symm", About: "Two downloads, one after the other; the middle relay sends and receives 100 Mbit/s: the queue is at its provider.",
			last: sec(45), measures: single, make: func(b *builder) { b.relays(1, 1, narrow, narrow); b.twice() },
		},
		{
			Name: "S2", About: "Ten downloads share a relay that sends 100 Mbit/s.",
			last: sec(16), from: sec(6), measures: shared, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)); b.downloads(10) },
		},
		{
			Name: "S2-known", About: "The same, and the relay knows its rate.",
			last: sec(16), from: sec(6), measures: shared, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)).Shape = true; b.downloads(10) },
		},
		{
			Name: "S2-symm", About: "Ten downloads; the queue is at the provider of the relay.",
			last: sec(20), from: sec(6), measures: shared, make: func(b *builder) { b.relays(1, 1, narrow, narrow); b.downloads(10) },
		},
		{
			Name: "S2-guards", About: "Ten downloads over four guards.",
			last: sec(16), from: sec(6), measures: shared, make: func(b *builder) { b.relays(4, 1, narrow, mbit(gbit)); b.downloads(10) },
		},
		{
			Name: "S2-guards-known", About: "The same, and the relay knows its rate.",
			last: sec(16), from: sec(6), measures: shared, make: func(b *builder) { b.relays(4, 1, narrow, mbit(gbit)).Shape = true; b.downloads(10) },
		},
		{
			Name: "S4-1M", About: "One download by a client whose line has 1 Mbit/s, and a queue of 200 ms at the provider.", line: mbit(1),
			last: sec(40), from: sec(15), measures: slowLine, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)); b.line(1) },
		},
		{
			Name: "S4-10M", About: "The same with 10 Mbit/s.", line: mbit(10),
			last: sec(25), from: sec(10), measures: slowLine, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)); b.line(10) },
		},
		{
			Name: "S4-app", About: "One download by an application that reads 1 Mbit/s.", line: mbit(1),
			last: sec(25), from: sec(10), measures: heldAlone, make: func(b *builder) {
				b.relays(1, 1, narrow, mbit(gbit))
				l := bulk()
				l.Read = mbit(1)
				b.clients("bulk", 1, mbit(gbit), l)
			},
		},
		{
			Name: "S5-1G", About: "200 downloads over 20 guards through a relay with 1 Gbit/s.", Costly: true, line: mbit(gbit),
			last: sec(10), from: sec(6), measures: many, make: func(b *builder) { b.relays(20, 10, mbit(gbit), mbit(10*gbit)); b.downloads(200) },
		},
		{
			Name: "S5-100M", About: "200 downloads over 20 guards, some of which have many more circuits than others, through a relay that sends 100 Mbit/s.", Costly: true,
			last: sec(20), from: sec(10), measures: many, make: func(b *builder) { b.relays(20, 1, narrow, mbit(gbit)); b.uneven(); b.downloads(200) },
		},
		{
			Name: "S5-100M-known", About: "The same, and the relay knows its rate.", Costly: true,
			last: sec(20), from: sec(10), measures: many, make: func(b *builder) {
				b.relays(20, 1, narrow, mbit(gbit)).Shape = true
				b.uneven()
				b.downloads(200)
			},
		},
		{
			Name: "S6-100", About: "100 circuits of clients that stop reading after 5 s, and one that does not.",
			last: sec(40), from: sec(28), measures: snipers, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)); b.snipers(10, 10) },
		},
		{
			Name: "S6-2000", About: "2,000 such circuits, with a budget of 64 MiB where the rule knows one.", Costly: true,
			last: sec(40), from: sec(28), measures: snipers, make: func(b *builder) { b.relays(1, 1, narrow, mbit(gbit)); b.snipers(20, 100) },
		},
		{
			Name: "S6-2000-256", About: "The same with 256 MiB, the daemon's default.", Costly: true,
			last: sec(40), from: sec(28), measures: snipers, make: func(b *builder) {
				b.relays(1, 1, narrow, mbit(gbit))
				b.snipers(20, 100)
				for i := range b.s.Relays {
					b.s.Relays[i].MemoryMiB = 256
				}
			},
		},
		{
			Name: "S7", About: "One download; the middle relay sends 100 Mbit/s, after 8 s 10, after 18 s 100 again.",
			last: sec(26), measures: changing, make: func(b *builder) {
				b.relays(1, 1, narrow, mbit(gbit))
				b.downloads(1)
				b.fault(scenario.Fault{Kind: "rate", At: at(8), For: at(10), Nodes: []string{"middle-1"}, Up: mbit(10)})
			},
		},
		{
			Name: "S8", About: "Five downloads, and five clients who download 2.5 MB and pause for 2 s on average, again and again.",
			last: sec(26), from: sec(6), measures: shared, make: func(b *builder) {
				b.relays(1, 1, narrow, mbit(gbit))
				b.downloads(5)
				b.clients("onoff", 5, mbit(gbit), scenario.Load{Kind: "bulk", Bytes: 2_500_000, Think: at(2)})
			},
		},
		{
			Name: "loss", About: "Five downloads from an exit whose way out loses 1 % of the packets, and five from one whose does not.",
			last: sec(20), from: sec(8), measures: lossy, make: func(b *builder) {
				b.relays(1, 2, narrow, mbit(gbit))
				b.downloads(10)
				b.fault(scenario.Fault{Kind: "loss", Nodes: []string{"exit-1"}, Loss: 1})
			},
		},
	}
	for _, n := range []int{10, 40} {
		for _, kind := range []string{"", "-known", "-symm"} {
			if n == 40 && kind == "-symm" {
				continue
			}
			name := map[int]string{10: "S3-10", 40: "S3-40"}[n] + kind
			about := map[string]string{
				"": "Readers of pages beside downloads.", "-known": "The same, and the relay knows its rate.", "-symm": "Readers beside downloads; the queue is at the relay's provider.",
			}[kind]
			list = append(list, Scenario{
				Name: name, About: about, idle: true, last: sec(20), from: sec(5), measures: readers, make: func(b *builder) {
					down := mbit(gbit)
					if kind == "-symm" {
						down = narrow
					}
					b.relays(1, 1, narrow, down).Shape = kind == "-known"
					b.downloads(n)
					b.readers(5)
				},
			})
		}
	}
	for i := range list {
		if list[i].line == 0 {
			list[i].line = narrow
		}
		if list[i].until == 0 {
			list[i].until = list[i].last
		}
	}
	return list
}

// twice is two downloads, one after the other, each over a circuit of its own: TCP has not carried anything before the
// first, and has before the second.
func (b *builder) twice() {
	l := bulk()
	l.Bytes, l.Rounds, l.Isolated = 100_000_000, 2, true
	b.clients("bulk", 1, mbit(gbit), l)
}

// line is one download of a client whose line has so many Mbit/s.
func (b *builder) line(rate float64) {
	b.clients("bulk", 1, mbit(rate), bulk()).Buffer = scenario.Duration(200 * time.Millisecond)
}

// uneven has four of twenty guards chosen more often than the others.
func (b *builder) uneven() {
	g := &b.s.Relays[0]
	big := *g
	big.Name, big.Count, big.Claim = "busy", 4, 6*g.Claim
	g.Count -= 4
	b.s.Relays = append(b.s.Relays, big)
	for i := range b.s.Relays {
		if b.s.Relays[i].Name == "exit" {
			b.s.Relays[i].Claim = mbit(50)
		}
	}
}

// snipers are clients with so many circuits each, of whom all but one stop reading: their lines have 64 kbit/s after 5 s, which is
// enough for their links not to count as dead.
func (b *builder) snipers(count, circuits int) {
	l := bulk()
	l.Users = circuits
	b.clients("sniper", count, mbit(gbit), l)
	b.downloads(1)
	b.fault(scenario.Fault{Kind: "rate", At: scenario.Duration(5 * time.Second), Nodes: []string{"sniper-*"}, Rate: mbit(0.064)})
}
