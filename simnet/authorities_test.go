package simnet

import (
	"fmt"
	"os"
	"testing"
	"time"

	"cepa/directory"
)

// newCouncil makes a network with several authorities, apart from its relays.
func newCouncil(t testing.TB, cfg Config, authorities, relays, clients int) *small {
	t.Helper()
	if cfg.Latency == nil {
		cfg.Latency = flat(t, 40*time.Millisecond, 300)
	}
	w := New(cfg)
	w.Watch(Checkers()...)
	s := &small{World: w, t: t}
	var hosts []*Host
	for i := range authorities {
		hosts = append(hosts, w.Host(HostSpec{Name: fmt.Sprintf("authority-%d", i+1), CPU: smallCPU}))
	}
	n, err := w.Found(NetworkSpec{
		Name: "council", Test: true, Authorities: hosts, Parameters: directory.Parameters{
			directory.IntervalMillis: 10_000, directory.KeepaliveMillis: 1000, directory.MinRelays: 3,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.net = n
	for _, h := range hosts {
		s.relay(h, RelaySpec{DirectoryOnly: true})
	}
	for i := range relays {
		h := w.Host(HostSpec{Name: fmt.Sprintf("relay-%d", i+1), Up: 12 << 20, Down: 12 << 20, CPU: smallCPU})
		s.relay(h, RelaySpec{Policy: []string{"none", "all"}[i%2]})
	}
	w.Server(w.Host(HostSpec{Name: "server-1"}), 80, "web.example")
	for i := range clients {
		c, err := n.Client(w.Host(HostSpec{Name: fmt.Sprintf("client-%d", i+1), Up: 1 << 20, Down: 6 << 20, CPU: smallCPU}), ClientSpec{})
		if err != nil {
			t.Fatal(err)
		}
		page := Web("web.example", 50_000)
		page.Think = 4 * time.Second
		c.Use(page)
	}
	return s
}

// TestAuthoritiesThroughFaults: several authorities crash and restart, are cut off from each other so that
// none, one or no part has a quorum, vanish, and have wrong clocks. There is one line of consensuses all
// along, and when it is over, it goes on.
func TestAuthoritiesThroughFaults(t *testing.T) {
	t.Parallel()
	seeds, length := uint64(1), 90*time.Second
	if os.Getenv("CEPA_LONG") != "" {
		seeds, length = 8, 5*time.Minute
	}
	for _, authorities := range []int{4, 7} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%d authorities, seed %d", authorities, seed), func(t *testing.T) {
				t.Parallel()
				s := newCouncil(t, Config{Seed: seed}, authorities, 6, 2)
				if !s.RunUntil(time.Minute, s.net.Ready) {
					t.Fatal("the clients are not ready")
				}
				s.strike(authorities, length)
				before := s.newest()
				s.Run(2*time.Minute + 4*s.net.File.Interval())
				if after := s.newest(); after.Sub(before) < 6*s.net.File.Interval() {
					t.Errorf("after the faults the consensus went from %v to %v in %v", before, after, 2*time.Minute)
				}
				for _, c := range s.checkers {
					if c, ok := c.(*LivenessChecker); ok && (c.Nodes < authorities+8 || c.Streams < 5) {
						t.Errorf("liveness judged %d nodes and %d streams", c.Nodes, c.Streams)
					}
				}
				s.finish()
			})
		}
	}
}

// newest is the time of the newest consensus that a relay has.
func (s *small) newest() (at time.Time) {
	for _, r := range s.net.Relays {
		if c := r.Node.Consensus(); c != nil && c.Head.ValidAfter.After(at) {
			at = c.Head.ValidAfter
		}
	}
	return at
}

// strike has authorities fail for a while, by lot, two at a time, and then makes all good.
func (s *small) strike(authorities int, d time.Duration) {
	dice := s.Stream(StreamChurn, "strike")
	council := s.net.Relays[:authorities]
	for end := s.Now().Add(d); s.Now() < end; {
		for range 2 {
			a := council[dice.Below(uint64(authorities))]
			switch dice.Below(7) {
			case 0:
				a.Host.Crash()
			case 1:
				a.Stop(nil)
			case 2:
				a.Host.PowerOff()
			case 3: // a part of all, which may have the quorum or not
				for _, r := range s.net.Relays {
					r.Host.Part(int(dice.Below(2)))
				}
			case 4:
				a.Host.Loss(50_000)
			case 5:
				a.Host.Clog(time.Second)
			case 6:
				a.Host.SetClock(3*time.Second, -300)
			}
		}
		s.Run(time.Duration(dice.Below(uint64(25 * time.Second))))
		s.mend(dice.Below(2) == 0)
		s.Run(time.Duration(dice.Below(uint64(15 * time.Second))))
	}
	s.Run(3 * time.Second) // for those that leave
	s.mend(true)
	s.Calm()
}

// mend ends all faults; those who are down come back if they are to.
func (s *small) mend(restart bool) {
	for _, r := range s.net.Relays {
		h := r.Host
		h.Silence(false)
		h.Part(0)
		h.Loss(0)
		h.Clog(0)
		h.SetClock(0, 0)
		if restart && !h.Alive() {
			if err := r.Start(); err != nil {
				s.t.Error(err)
			}
		}
	}
}
