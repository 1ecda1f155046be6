package simnet

import (
	"fmt"
	"testing"
	"time"

	"cepa/directory"
)

// small is a network of a few relays with an authority apart, and clients with their users.
type small struct {
	*World
	t   testing.TB
	net *Network
}

// smallCPU is what things cost on a small machine.
var smallCPU = CPU{Cores: 2, Event: 2 * time.Microsecond, Cell: time.Microsecond, Send: time.Microsecond / 2, Offload: 300 * time.Microsecond, Link: time.Millisecond}

// newSmall makes a network in one of whose hosts everything costs what it does on a small machine.
func newSmall(t testing.TB, cfg Config, relays, clients int) *small {
	t.Helper()
	if cfg.Latency == nil {
		cfg.Latency = flat(t, 30*time.Millisecond, 300)
	}
	w := New(cfg)
	w.Watch(Checkers()...)
	cpu := smallCPU
	s := &small{World: w, t: t}
	authority := w.Host(HostSpec{Name: "authority-1", CPU: cpu})
	n, err := w.Found(NetworkSpec{
		Name: "small", Test: true, Authorities: []*Host{authority}, Parameters: directory.Parameters{
			directory.IntervalMillis: 5000, directory.KeepaliveMillis: 1000, directory.MinRelays: 3,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.net = n
	s.relay(authority, RelaySpec{DirectoryOnly: true})
	for i := range relays {
		h := w.Host(HostSpec{Name: fmt.Sprintf("relay-%d", i+1), Up: 12 << 20, Down: 12 << 20, CPU: cpu})
		s.relay(h, RelaySpec{Policy: []string{"none", "all"}[i%2]})
	}
	web := w.Host(HostSpec{Name: "server-1", Up: 100 << 20, Down: 100 << 20})
	w.Server(web, 80, "web.example")
	w.Server(web, 443, "web.example")
	for i := range clients {
		c, err := n.Client(w.Host(HostSpec{Name: fmt.Sprintf("client-%d", i+1), Up: 1 << 20, Down: 6 << 20, CPU: cpu}), ClientSpec{})
		if err != nil {
			t.Fatal(err)
		}
		page := Web("web.example", 200_000)
		page.Think = 2 * time.Second
		c.Use(page)
		c.Use(Bulk("web.example", 300_000))
		c.Use(Chat("web.example"))
	}
	return s
}

func (s *small) relay(h *Host, spec RelaySpec) *Relay {
	s.t.Helper()
	r, err := s.net.Relay(h, spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// finish ends a run and fails the test for what the checkers found.
func (s *small) finish() {
	s.t.Helper()
	s.net.StopClients()
	s.Run(2 * time.Minute)
	for _, v := range s.Finish() {
		s.t.Error(v)
	}
}

// results counts the flows that ended well and those that failed.
func (s *small) results() (good, bad int) {
	for _, f := range s.Flows() {
		switch {
		case f.Ended == 0:
		case f.Err == nil:
			good++
		default:
			bad++
		}
	}
	return good, bad
}

// TestNetworkOfNineRelays: a minute of a whole network with all its cryptography. It works, the
// checkers are content, and it happens again to the byte, with the same seed only.
func TestNetworkOfNineRelays(t *testing.T) {
	t.Parallel()
	length := time.Minute
	if testing.Short() {
		length = 15 * time.Second
	}
	run := func(seed uint64) string {
		s := newSmall(t, Config{Seed: seed}, 9, 3)
		if !s.RunUntil(20*time.Second, s.net.Ready) {
			for _, c := range s.net.Clients {
				t.Errorf("%s: %d%% %s (%s)", c.Host.Name, c.Percent, c.Doing, c.Waiting)
			}
			t.FailNow()
		}
		s.Run(length)
		good, bad := s.results()
		if good < 50 || bad > 0 {
			t.Errorf("%d flows went well and %d did not", good, bad)
			for _, f := range s.Flows() {
				if f.Err != nil {
					t.Log(f.Err)
				}
			}
		}
		s.finish()
		t.Logf("seed %d: %d flows, %d events, %s", seed, good, s.Events(), s.TraceHash())
		return s.TraceHash()
	}
	a, b, c := run(1), run(1), run(2)
	if a != b {
		t.Errorf("one seed, two runs: %s and %s", a, b)
	}
	if a == c {
		t.Error("two seeds, one run")
	}
}
