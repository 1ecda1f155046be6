package simnet

import (
	"fmt"
	"os"
	"testing"
	"time"

	"cepa/directory"
	"cepa/env"
)

// churning is a network whose relays come and go.
type churning struct {
	*small
	dice              Stream
	over              bool // nobody leaves any more
	left, crashed     int
	joined, restarted int
	parted            int
}

type churnSpec struct {
	relays, authorities, clients int
	length                       time.Duration
	interval                     time.Duration
	up, down                     time.Duration // means of how long a relay stays and is away
	think                        time.Duration // of the clients' users
}

func newChurning(t testing.TB, seed uint64, spec churnSpec) *churning {
	t.Helper()
	w := New(Config{Seed: seed, Latency: Internet()})
	w.Watch(Checkers()...)
	w.KeepFlows(false)
	c := &churning{small: &small{World: w, t: t}, dice: w.Stream(StreamChurn, "churn")}
	regions := w.latency.Regions
	region := func() string { return regions[c.dice.Below(uint64(len(regions)))] }
	var hosts []*Host
	for i := range spec.authorities {
		hosts = append(hosts, w.Host(HostSpec{Name: fmt.Sprintf("authority-%d", i+1), Region: region(), CPU: smallCPU}))
	}
	n, err := w.Found(NetworkSpec{
		Name: "churning", Test: true, Authorities: hosts, Parameters: directory.Parameters{
			directory.IntervalMillis: spec.interval.Milliseconds(), directory.KeepaliveMillis: 60_000,
			directory.MinRelays: int64(spec.relays / 2), directory.NewRelays: int64(spec.relays), directory.MeasureIntervals: 0,
			directory.ReconcileMillis: spec.interval.Milliseconds(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.net = n
	for _, h := range hosts {
		c.relay(h, RelaySpec{DirectoryOnly: true})
	}
	for i := range spec.relays {
		rate := 1<<20 + c.dice.Exponential(8<<20)
		h := w.Host(HostSpec{Name: fmt.Sprintf("relay-%d", i+1), Region: region(), Up: rate, Down: rate, CPU: smallCPU})
		r := c.relay(h, RelaySpec{Policy: []string{"none", "none", "all"}[i%3], Bandwidth: uint64(rate)})
		w.After(c.time(spec.up), func() { c.leave(r, spec) })
	}
	w.Server(w.Host(HostSpec{Name: "server-1"}), 80, "web.example")
	for i := range spec.clients {
		client, err := n.Client(w.Host(HostSpec{Name: fmt.Sprintf("client-%d", i+1), Region: region(), Up: 1 << 20, Down: 4 << 20}), ClientSpec{})
		if err != nil {
			t.Fatal(err)
		}
		page := Web("web.example", 30_000)
		page.Think = spec.think
		client.Use(page)
	}
	return c
}

// time draws how long something lasts.
func (c *churning) time(mean time.Duration) time.Duration {
	return time.Second + time.Duration(c.dice.Exponential(int64(mean)))
}

// leave has a relay go, in order or not, and come back after a while.
func (c *churning) leave(r *Relay, spec churnSpec) {
	if c.over {
		return
	}
	switch c.dice.Below(3) {
	case 0:
		c.crashed++
		r.Host.Crash()
	case 1:
		c.crashed++
		r.Host.PowerOff()
	default:
		c.left++
		r.Stop(nil)
	}
	c.After(10*time.Second+c.time(spec.down), func() { c.join(r, spec) })
}

func (c *churning) join(r *Relay, spec churnSpec) {
	if r.Host.Silence(false); !r.Host.Alive() {
		c.joined++
		if err := r.Start(); err != nil {
			c.t.Error(err)
		}
	}
	if !c.over {
		c.After(c.time(spec.up), func() { c.leave(r, spec) })
	}
}

// trouble has an authority restart, or cuts the network in two for a while, and goes on so.
func (c *churning) trouble(spec churnSpec) {
	if c.over {
		return
	}
	if c.dice.Below(2) == 0 {
		a := c.net.Relays[c.dice.Below(uint64(spec.authorities))]
		c.restarted++
		a.Host.Crash()
		c.After(c.time(spec.interval/20), func() {
			if err := a.Start(); err != nil {
				c.t.Error(err)
			}
		})
	} else {
		c.parted++
		for _, r := range c.net.Relays {
			if c.dice.Below(3) == 0 {
				r.Host.Part(1)
			}
		}
		c.After(c.time(spec.interval/4), func() {
			for _, r := range c.net.Relays {
				r.Host.Part(0)
			}
		})
	}
	c.After(c.time(spec.interval), func() { c.trouble(spec) })
}

// end lets all come back, and lets the network show that it works.
func (c *churning) end(spec churnSpec) {
	c.over = true
	c.Run(spec.interval) // more than what is under way takes, mostly
	for _, r := range c.net.Relays {
		r.Host.Part(0)
		if r.Host.Silence(false); !r.Host.Alive() {
			c.Do(nil, func() {
				if err := r.Start(); err != nil {
					c.t.Error(err)
				}
			})
		}
	}
	for _, x := range c.checkers {
		if x, ok := x.(*LivenessChecker); ok {
			x.Within = time.Minute + spec.interval
		}
	}
	c.Calm()
	c.Run(time.Minute + 3*spec.interval)
}

// TestChurn: relays leave and join, authorities restart, the network is cut in two and grows together, for hours,
// and all checkers are content. CEPA_LONG has it last 24 hours with 200 relays.
func TestChurn(t *testing.T) {
	t.Parallel()
	spec := churnSpec{relays: 20, authorities: 3, clients: 3, length: 2 * time.Hour, interval: 10 * time.Minute, up: time.Hour, down: 10 * time.Minute, think: 2 * time.Minute}
	if os.Getenv("CEPA_LONG") != "" {
		spec = churnSpec{relays: 200, authorities: 5, clients: 10, length: 24 * time.Hour, interval: time.Hour, up: 8 * time.Hour, down: time.Hour, think: 5 * time.Minute}
	}
	if _, err := fmt.Sscanf(os.Getenv("CEPA_SIMNET_CHURN"), "%dx%d", &spec.relays, &spec.clients); err == nil {
		t.Logf("%d relays, %d clients", spec.relays, spec.clients)
	}
	c := newChurning(t, 1, spec)
	good, bad := 0, 0
	reasons := map[string]int{}
	c.OnFlow(func(f *Flow) {
		if f.Err == nil {
			good++
		} else {
			bad++
			reasons[f.Err.Error()]++
		}
	})
	c.Run(2 * time.Minute)
	c.After(c.time(spec.interval), func() { c.trouble(spec) })
	for c.Now() < env.Mono(spec.length) {
		c.Run(min(4*time.Hour, time.Duration(env.Mono(spec.length)-c.Now())))
		t.Logf("%v: %d events, %d and %d streams", time.Duration(c.Now()), c.Events(), good, bad)
	}
	c.end(spec)
	c.finish()
	for _, x := range c.checkers {
		switch x := x.(type) {
		case *ConsensusChecker:
			if least := int((spec.length + 4*spec.interval) / spec.interval * 3 / 4); x.Seen < least {
				t.Errorf("%d consensuses in %v, of one every %v", x.Seen, spec.length, spec.interval)
			}
			t.Logf("%d consensuses", x.Seen)
		case *LivenessChecker:
			if x.Streams == 0 || x.Nodes < spec.relays {
				t.Errorf("liveness judged %d streams and %d nodes", x.Streams, x.Nodes)
			}
			t.Logf("liveness judged %d streams, and nodes %d times", x.Streams, x.Nodes)
		case *GuardChecker:
			t.Logf("at most %d guards a client", x.Most)
		case *AccountsChecker:
			t.Logf("accounts were looked at %d times", x.Looks)
		}
	}
	if good < 20*bad || good == 0 {
		t.Errorf("%d streams went well and %d did not: %v", good, bad, reasons)
	}
	t.Logf("%v with %d relays: %d left and %d crashed, %d came back; authorities restarted %d times, %d partitions; %d streams went well and %d did not; %d events",
		time.Duration(c.Now()), spec.relays, c.left, c.crashed, c.joined, c.restarted, c.parted, good, bad, c.Events())
	t.Log(c.TraceHash())
}
