package metrics

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
)

// Refresh is how old a value may become before a request renews it: nothing is told more finely.
const Refresh = time.Second

// askTimeout is how long the node's loop may take to answer. Beyond it the node counts as not answering.
const askTimeout = 2 * time.Second

// State is what a node tells of itself besides its counters.
type State struct {
	Role, Network, Version string
	Percent                int    // of bootstrapping; 100 is ready
	Doing, Waiting         string // for people
	// The times of the consensus in use; zero when there is none.
	ValidAfter, FreshUntil, ValidUntil time.Time
}

// Source is the node. Its methods are called from many goroutines and return when ctx ends at the latest.
type Source interface {
	// Counters are those of the control API; an error says that the node's loop does not answer. The map is the
	// caller's.
	Counters(ctx context.Context) (map[string]int64, error)
	// State must not wait for the loop.
	State() State
}

// collector turns a Source into metrics. It implements prometheus.Collector.
type collector struct {
	source   Source
	families []described
	up       *prometheus.Desc
	info     *prometheus.Desc
	ready    *prometheus.Desc
	percent  *prometheus.Desc
	times    [3]*prometheus.Desc
}

type described struct {
	family
	desc *prometheus.Desc
}

func newCollector(source Source) *collector {
	c := &collector{
		source:  source,
		up:      prometheus.NewDesc("cepa_up", "1 when the node's event loop answered, 0 when it did not: the node's counters are then left out.", nil, nil),
		info:    prometheus.NewDesc("cepa_node_info", "Always 1; what the node is.", []string{"role", "network", "version"}, nil),
		ready:   prometheus.NewDesc("cepa_ready", "1 when /readyz says that the node is ready, 0 when not.", nil, nil),
		percent: prometheus.NewDesc("cepa_bootstrap_ratio", "How far the node has come in joining the network, from 0 to 1.", nil, nil),
	}
	for i, name := range []string{"valid_after", "fresh_until", "valid_until"} {
		c.times[i] = prometheus.NewDesc("cepa_consensus_"+name+"_timestamp_seconds", "The time "+name+" of the consensus in use, in Unix time; left out when there is none.", nil, nil)
	}
	for _, f := range families() {
		c.families = append(c.families, described{f, prometheus.NewDesc(f.name, f.help, f.labels, nil)})
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.info, c.ready, c.percent, c.times[0], c.times[1], c.times[2]} {
		to <- d
	}
	for i := range c.families {
		to <- c.families[i].desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	give := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	flag := func(d *prometheus.Desc, b bool) {
		v := 0.0
		if b {
			v = 1
		}
		give(d, prometheus.GaugeValue, v)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	counters, err := c.source.Counters(ctx)
	s := c.source.State()
	flag(c.up, err == nil)
	give(c.info, prometheus.GaugeValue, 1, clean(s.Role), clean(s.Network), clean(s.Version))
	ready, _ := s.ready(time.Now())
	flag(c.ready, ready && err == nil)
	give(c.percent, prometheus.GaugeValue, float64(s.Percent)/100)
	for i, at := range []time.Time{s.ValidAfter, s.FreshUntil, s.ValidUntil} {
		if !at.IsZero() {
			give(c.times[i], prometheus.GaugeValue, float64(at.Unix()))
		}
	}
	for i := range c.families {
		f := &c.families[i]
		f.values(counters, func(v float64, labels []string) { give(f.desc, f.kind, v, labels...) })
	}
}

// values calls give for each sample of the family that counters hold.
func (f *family) values(counters map[string]int64, give func(v float64, labels []string)) {
	scale := f.scale
	if scale == 0 {
		scale = 1
	}
	for _, s := range f.from {
		if prefix, ok := strings.CutSuffix(s.counter, "*"); ok {
			for name, n := range counters { // the registry sorts
				if rest, ok := strings.CutPrefix(name, prefix); ok {
					give(float64(n)*scale, []string{clean(rest)})
				}
			}
			continue
		}
		n, ok := counters[s.counter]
		if !ok {
			continue // another role has it
		}
		if s.minus != "" {
			n = max(n-counters[s.minus], 0)
		}
		give(float64(n)*scale, s.values)
	}
}

// clean makes a label of what may come from a file.
func clean(s string) string { return strings.ToValidUTF8(s, "?") }

// ready says whether the node can be used, and why.
func (s State) ready(now time.Time) (bool, string) {
	why := s.Doing
	if s.Waiting != "" {
		why += ", waiting for " + s.Waiting
	}
	switch {
	case s.Percent < 100:
		return false, why
	case s.ValidUntil.IsZero():
		return false, "no consensus"
	case now.After(s.ValidUntil):
		return false, "the consensus ended at " + s.ValidUntil.UTC().Format(time.RFC3339) + ": see 'cepa doctor'"
	}
	return true, why
}

// Unexported lists those of the counters that no metric shows and that are not left out on purpose either.
func Unexported(counters map[string]int64) []string {
	known := func(name string) bool {
		if _, ok := leftOut[name]; ok {
			return true
		}
		for _, f := range families() {
			for _, s := range f.from {
				prefix, many := strings.CutSuffix(s.counter, "*")
				if s.counter == name || s.minus == name || many && strings.HasPrefix(name, prefix) {
					return true
				}
			}
		}
		return false
	}
	var missing []string
	for name := range counters { // sorted by who prints it
		if !known(name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// Stale lists counters that the table names and counters lack: none has them any more, when counters are those of all
// roles together.
func Stale(counters map[string]int64) []string {
	var stale []string
	for _, f := range families() {
		for _, s := range f.from {
			if _, ok := counters[s.counter]; !ok && !strings.HasSuffix(s.counter, "*") {
				stale = append(stale, s.counter)
			}
		}
	}
	for name := range leftOut { // sorted by who prints it
		if _, ok := counters[name]; !ok {
			stale = append(stale, name)
		}
	}
	return stale
}

// cached renews what a registry gathers at most once in Refresh, whoever asks how often.
type cached struct {
	registry prometheus.Gatherer
	now      func() time.Time

	mu   sync.Mutex
	at   time.Time
	last []*dto.MetricFamily
	err  error
}

// Gather implements prometheus.Gatherer. Who gets the result only reads it.
func (c *cached) Gather() ([]*dto.MetricFamily, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.at.IsZero() || now.Sub(c.at) >= Refresh {
		c.last, c.err = c.registry.Gather()
		c.at = c.now() // a slow answer counts from its end
	}
	return c.last, c.err
}

// newGatherer is all that /metrics shows.
func newGatherer(source Source, now func() time.Time) (*cached, error) {
	registry := prometheus.NewPedanticRegistry()
	err := errors.Join(
		registry.Register(newCollector(source)),
		registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	)
	return &cached{registry: registry, now: now}, err
}
