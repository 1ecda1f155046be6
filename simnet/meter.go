package simnet

import (
	"maps"
	"time"

	"cepa/cert"
	"cepa/circuit"
	"cepa/env"
)

// What follows is for who watches a run and writes down what happens. Nothing of it changes the run:
// its trace is the same with and without.

// Meter is what a host has done since the beginning, whatever process ran on it.
type Meter struct {
	Up, Down  int64         // bytes on its access link, with the headers of TCP and IP
	Loop      time.Duration // for which the loop of its process was busy
	Pool      time.Duration // of its cores, for what was offloaded
	Offloaded uint64        // computations
}

// Meter reads the host's meter.
func (h *Host) Meter() Meter { return h.meter }

// Region is the name of the region that the host is in.
func (h *Host) Region() string { return h.w.latency.Regions[h.region] }

// Spec is what the host was made of.
func (h *Host) Spec() HostSpec { return h.spec }

// LinkMeter is what goes over all links from one host to another, in this direction.
type LinkMeter struct {
	From, To *Host
	Bytes    int64 // that TCP has sent since the beginning, headers apart
	// As of the last call of World.LinkMeters: links that are open, bytes that wait at From, and those
	// that were sent and not acknowledged.
	Links          int
	Queued, Flight int64
}

// MeterLinks begins to meter links, those that are open too.
func (w *World) MeterLinks() {
	if w.meters != nil {
		return
	}
	w.meters = make(map[[2]int32]*LinkMeter)
	for _, h := range w.hosts {
		for _, e := range h.ends {
			e.meter = w.meterOf(h, e.far.host, e.link)
		}
	}
}

// meterOf is the meter of a link from a to b; nil when there is none.
func (w *World) meterOf(a, b *Host, link bool) *LinkMeter {
	if w.meters == nil || !link {
		return nil
	}
	pair := [2]int32{a.index, b.index}
	m := w.meters[pair]
	if m == nil {
		m = &LinkMeter{From: a, To: b}
		w.meters[pair] = m
		w.metered = append(w.metered, m)
	}
	return m
}

// LinkMeters are the meters of all links there have been since MeterLinks, in the order in which they were
// first dialled. The slice is not to be modified.
func (w *World) LinkMeters() []*LinkMeter {
	for _, m := range w.metered {
		m.Links, m.Queued, m.Flight = 0, 0, 0
	}
	for _, h := range w.hosts {
		for _, e := range h.ends {
			if m := e.meter; m != nil {
				m.Links++
				m.Queued += int64(e.queue.size + e.kernel.size)
				m.Flight += int64(e.under)
			}
		}
	}
	return w.metered
}

// sampler is told of the time.
type sampler struct {
	every time.Duration
	next  env.Mono
	f     func()
}

// Sample has f called whenever so much time has passed since the beginning, with Now a multiple of it and
// before the events of that instant. It is called between events, and only looks.
func (w *World) Sample(every time.Duration, f func()) {
	if every <= 0 {
		panic("simnet: samples without time between them")
	}
	s := &sampler{every: every, f: f, next: env.Mono(every) * (w.now/env.Mono(every) + 1)}
	w.samplers = append(w.samplers, s)
	w.sampleNext()
}

func (w *World) sampleNext() {
	w.sampleAt = maxMono
	for _, s := range w.samplers {
		w.sampleAt = min(w.sampleAt, s.next)
	}
}

// pass lets time pass until the next event, or the end of a run.
func (w *World) pass(to env.Mono) {
	for w.sampleAt <= to {
		w.now = w.sampleAt
		for _, s := range w.samplers {
			if s.next == w.now {
				s.next = s.next.Add(s.every)
				s.f()
			}
		}
		w.sampleNext()
	}
	w.now = to
}

// OnCircuit has f told of each step in the life of each circuit that a client builds for its users,
// inside the event in which it happens.
func (w *World) OnCircuit(f func(*Client, circuit.Event)) { w.onCircuit = append(w.onCircuit, f) }

// onCircuit is what the client's node tells of its circuits.
func (c *Client) onCircuit(e circuit.Event) {
	switch e.Stage {
	case circuit.StageBegun:
		c.paths[e.ID] = e.Path
	case circuit.StageOver:
		delete(c.paths, e.ID)
	}
	for _, f := range c.n.w.onCircuit {
		f(c, e)
	}
}

// Lost says that a stream has no result because the process of its client ended.
func (f *Flow) Lost() bool { return f.Ended == 0 && f.Client.life != f.life }

// Seed is the seed of the world.
func (w *World) Seed() uint64 { return w.cfg.Seed }

// StreamSeeds are the seeds of single streams of randomness, by their names, as Config had them.
func (w *World) StreamSeeds() map[string]uint64 { return maps.Clone(w.cfg.Streams) }

// Spec is what the relay was made of.
func (r *Relay) Spec() RelaySpec { return r.spec }

// Find is the relay or authority of an identity; nil when there is none.
func (n *Network) Find(id cert.Identity) *Relay { return n.byIdentity[id] }
