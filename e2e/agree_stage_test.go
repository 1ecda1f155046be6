//go:build linux

package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"cepa/directory"
	"cepa/internal/netlink"
)

// stage is a small network that is built twice, of real processes and in the simulator, and what
// its users do. All that is decided here is the same for both.
type stage struct {
	relays, clients int
	rounds          int // of each user: one fetch of each size
	think           time.Duration
	hosts           []stageHost // authority, relays, server, clients
	delays          [][]time.Duration
	late            time.Duration // what the real wires add to each
}

// stageHost is a machine of a stage.
type stageHost struct {
	name     string
	part     string // authority, relay, server or client
	up, down int64  // bytes a second
	exit     bool
	x, y     float64 // ms
}

const (
	stageJitter = 100                    // thousandths of a delay that a packet may be late
	stageBuffer = 100 * time.Millisecond // that a queue downwards holds
	stagePort   = 9001
	settling    = 5 * time.Second // from when all clients are ready
	stageWait   = time.Minute     // for a fetch
	mbit        = 1_000_000 / 8
)

// fetchSizes are what users fetch: a page, a picture and a long read.
var fetchSizes = []int64{50 << 10, 1 << 20, 5 << 20}

// parameters are those of its overlay.
func (s *stage) parameters() directory.Parameters {
	return directory.Parameters{
		directory.IntervalMillis: 10_000, directory.KeepaliveMillis: 5_000, directory.MeasureIntervals: 0, directory.MinRelays: int64(s.relays),
	}
}

// newStage draws a stage: places on a plane 40 ms wide, whose distances are the delays, and rates.
func newStage(relays, clients, rounds int, think time.Duration) *stage {
	s := &stage{relays: relays, clients: clients, rounds: rounds, think: think}
	dice := rand.New(rand.NewChaCha8([32]byte{'s', 't', 'a', 'g', 'e'}))
	add := func(name, part string, up, down int64) *stageHost {
		s.hosts = append(s.hosts, stageHost{name: name, part: part, up: up, down: down, x: 40 * dice.Float64(), y: 40 * dice.Float64()})
		return &s.hosts[len(s.hosts)-1]
	}
	add("a1", "authority", 100*mbit, 100*mbit)
	for i := range relays {
		rate := int64(3+i%4) << 20 // 25 to 50 Mbit/s
		add(fmt.Sprintf("r%d", i+1), "relay", rate, rate).exit = i%2 == 1
	}
	add("server", "server", 100*mbit, 100*mbit)
	for i := range clients {
		add(fmt.Sprintf("c%d", i+1), "client", 5*mbit, []int64{10, 20, 40}[i%3]*mbit)
	}
	for i, a := range s.hosts {
		s.delays = append(s.delays, make([]time.Duration, len(s.hosts)))
		for j, b := range s.hosts {
			ms := 3 + math.Round(math.Hypot(a.x-b.x, a.y-b.y))
			if i != j {
				s.delays[i][j] = time.Duration(ms) * time.Millisecond
			}
		}
	}
	return s
}

// address is where host number i is, in both worlds.
func (s *stage) address(i int) netip.Addr { return netip.AddrFrom4([4]byte{20, byte(i), 0, 1}) }

func (s *stage) index(name string) int {
	for i := range s.hosts {
		if s.hosts[i].name == name {
			return i
		}
	}
	panic("no host " + name)
}

// wires are the links of the real one.
func (s *stage) wires(seed uint64) netlink.Config {
	c := netlink.Config{Seed: seed, Path: func(from, to int) netlink.Path {
		d := s.delays[from][to]
		return netlink.Path{Delay: d, Jitter: d * stageJitter / 1000}
	}}
	for i, h := range s.hosts {
		c.Hosts = append(c.Hosts, netlink.Host{
			Name: h.name, Address: s.address(i), Kernel: true, Congestion: "cubic",
			Up:   netlink.Direction{Rate: h.up, Queue: 1 << 20},
			Down: netlink.Direction{Rate: h.down, Queue: int64(stageBuffer) / 1000 * h.down / 1_000_000},
			Sysctl: map[string]string{
				"net/ipv4/tcp_rmem": "4096 131072 6291456", "net/ipv4/tcp_wmem": "4096 16384 4194304",
			},
		})
	}
	return c
}

// act is one thing that a user does: wait, and then fetch.
type act struct {
	wait time.Duration
	size int64
}

// script is what the user of a client does. It depends on the seed of the run.
func (s *stage) script(seed uint64, client int) (acts []act) {
	dice := rand.New(rand.NewPCG(seed, uint64(client)))
	for range s.rounds {
		for _, i := range dice.Perm(len(fetchSizes)) {
			acts = append(acts, act{time.Duration(dice.ExpFloat64() * float64(s.think)), fetchSizes[i]})
		}
	}
	return acts
}

// fetch is what became of one.
type fetch struct {
	Size    int64
	Connect time.Duration // until the stream was open
	First   time.Duration // until the first byte
	Last    time.Duration // until the last
}

// seen is what one run has shown.
type seen struct {
	Fetches []fetch
	Builds  []time.Duration // of circuits of three hops
	Failed  int
	Late    time.Duration // how much later than they should its packets came, on average
}
