package flowstudy

import (
	"fmt"
	"math"
	"time"

	"cepa/simnet"
	"cepa/simnet/scenario"
)

// Value is one figure of a run. +Inf is never, NaN that there is none.
type Value struct {
	Name, Unit string
	X          float64
}

// Result is what a run gave.
type Result struct {
	Scenario, Rule string
	Seed           uint64
	Values         []Value
	TraceHash      string
}

// Find is the scenario of a name.
func Find(name string) (Scenario, bool) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}

// Measure runs a scenario under a rule of package baseline with a seed. unsent is what kernels take of a link ahead of TCP, in
// bytes; 0 is what the daemon sets, by the link's rate. An error is of the scenario, or what a checker found.
func Measure(s Scenario, rule string, seed uint64, unsent int) (*Result, error) {
	p, err := s.run(rule, seed, false, unsent)
	if err != nil {
		return nil, err
	}
	idle := p
	if s.idle {
		if idle, err = s.run(rule, seed, true, unsent); err != nil {
			return nil, err
		}
	}
	return &Result{Scenario: s.Name, Rule: rule, Seed: seed, Values: s.measures(p, idle), TraceHash: p.r.World.TraceHash()}, nil
}

func (sc *Scenario) run(rule string, seed uint64, idle bool, unsent int) (*probe, error) {
	fail := func(err error) error {
		return fmt.Errorf("flowstudy: %s under %q, seed %d: %w", sc.Name, rule, seed, err)
	}
	s, err := sc.build(idle, unsent)
	if err != nil {
		return nil, fail(err)
	}
	alone := func(c *simnet.Config) { c.Workers = -1 } // stand-ins for handshakes are not worth a goroutine
	r, err := s.Build(seed, scenario.Options{Flow: rule, Config: alone})
	if err != nil {
		return nil, fail(err)
	}
	p := watch(r, sc)
	for !r.Advance(time.Minute) {
	}
	if err := r.Err(); err != nil {
		return nil, fail(err)
	}
	if v := r.Finish(); len(v) > 0 {
		return nil, fail(fmt.Errorf("checker %s: %s", v[0].Checker, v[0].What))
	}
	if sum := r.Summary(); sum.Ready < sum.Clients {
		return nil, fail(fmt.Errorf("%d of %d clients were ready", sum.Ready, sum.Clients))
	}
	return p, nil
}

func millis(d time.Duration) float64 {
	if d == never {
		return math.Inf(1)
	}
	return float64(d) / float64(time.Millisecond)
}

func kib(bytes float64) float64 { return bytes / 1024 }

// late are the delays of a time, at the median and the 95th percentile.
func (p *probe) late(from, until time.Duration) []Value {
	ms, _ := p.delays(from, until)
	return []Value{{"delay p50", "ms", quantile(ms, 0.5)}, {"delay p95", "ms", quantile(ms, 0.95)}}
}

// kept are what relays hold in a time.
func (p *probe) kept(from, until time.Duration) []Value {
	held := func(g string) func(look) int64 { return func(l look) int64 { return l.held[g] } }
	return []Value{
		{"guards hold", "KiB", kib(p.mean(from, until, held("guard")) + p.mean(from, until, held("busy")))},
		{"middle holds", "KiB", kib(p.mean(from, until, held("middle")))},
	}
}

// single is of two downloads, one after the other.
func single(p, _ *probe) []Value {
	var list []Value
	for i, f := range p.flows("bulk", 0, p.sc.until) {
		if i == 2 {
			break
		}
		name := []string{"cold", "warm"}[i]
		first, last := time.Duration(f.First)-loads, time.Duration(f.Last)-loads
		got := func(l look) int64 { return l.flows[f.ID] }
		half := first + (last-first)/2
		rate := p.percent(got(p.looks[p.index(last)])-got(p.looks[p.index(half)]), last-half)
		list = append(list, Value{name + ": 90 % after", "ms", millis(p.filled(got, first, 90))}, Value{name + ": rate of 2nd half", "%", rate})
		if i == 0 {
			for _, v := range p.late(half, last) {
				list = append(list, Value{name + ": " + v.Name, v.Unit, v.X})
			}
			list = append(list, p.kept(half, last)...)
			list = append(list, Value{"below the middle's scheduler", "KiB", kib(p.mean(half, last, func(l look) int64 { return l.below }))})
		}
	}
	return list
}

// shared is of downloads that share the bottleneck.
func shared(p, _ *probe) []Value {
	from, until := p.sc.from, p.sc.until
	list := []Value{{"rate", "%", p.rate(from, until)}, {"Jain", "", jain(p.shares("bulk", from, until))}}
	return append(append(list, p.late(from, until)...), p.kept(from, until)...)
}

// many is the same of many downloads.
func many(p, idle *probe) []Value {
	top := p.most(p.sc.from, p.sc.until, func(l look) int64 { return l.held["guard"] + l.held["busy"] + l.held["middle"] + l.held["exit"] })
	return append(shared(p, idle), Value{"relays hold at most", "MiB", kib(kib(top))})
}

// slowLine is of a client with a slow line.
func slowLine(p, _ *probe) []Value {
	from, until := p.sc.from, p.sc.until
	list := append([]Value{{"rate", "%", p.rate(from, until)}}, p.late(from, until)...)
	return append(list, p.kept(from, until)...)
}

// heldAlone is of an application that does not keep up.
func heldAlone(p, _ *probe) []Value {
	from, until := p.sc.from, p.sc.until
	top := p.most(0, until, func(l look) int64 { return l.held["guard"] + l.held["middle"] })
	return append(p.kept(from, until), Value{"relays hold at most", "KiB", kib(top)}, Value{"rate", "%", p.rate(from, until)})
}

// snipers is of a download beside circuits whose clients do not read.
func snipers(p, _ *probe) []Value {
	from, until := p.sc.from, p.sc.until
	honest := func(from, until time.Duration) float64 { // with what it began anew when it was cut off
		n, a, b := int64(0), p.looks[p.index(from)], p.looks[p.index(until)]
		for _, f := range p.flows("bulk", 0, until) {
			n += b.flows[f.ID] - a.flows[f.ID]
		}
		return p.percent(n, until-from)
	}
	list := []Value{
		{"honest download, 3 to 13 s after", "%", honest(8*time.Second, 18*time.Second)}, {"later", "%", honest(from, until)},
		{"a relay holds at most", "MiB", kib(kib(p.most(0, until, func(l look) int64 { return l.memory })))},
	}
	return append(list, p.kept(8*time.Second, 18*time.Second)...)
}

// changing is of a rate that falls to a tenth, and rises again.
func changing(p, _ *probe) []Value {
	const drop, rise = 8 * time.Second, 18 * time.Second
	ms, where := p.delays(drop, rise)
	peak, end := 0.0, []float64(nil)
	for i, d := range ms {
		peak = max(peak, d)
		if where[i] >= rise-2*time.Second {
			end = append(end, d)
		}
	}
	// calm is when a second begins in which no delay is longer than so many ms.
	calm := func(most float64) time.Duration {
		from := drop
		for i, d := range ms {
			if where[i]-from >= time.Second {
				return from - drop
			}
			if d > most {
				from = where[i] + step
			}
		}
		return never
	}
	all := func(l look) int64 { return l.got }
	return []Value{
		{"peak delay", "ms", peak}, {"a second below 100 ms begins after", "ms", millis(calm(100))}, {"below 200 ms", "ms", millis(calm(200))},
		{"delay at 10 Mbit/s p50", "ms", quantile(end, 0.5)}, {"p95", "ms", quantile(end, 0.95)},
		{"rate at 10 Mbit/s", "%", 10 * p.rate(drop+4*time.Second, rise)}, {"90 % of 100 Mbit/s again after", "ms", millis(p.filled(all, rise, 90))},
	}
}

// readers is of those who read pages beside downloads.
func readers(p, idle *probe) []Value {
	from, until := p.sc.from, p.sc.until
	more := func(end func(*simnet.Flow) time.Duration) float64 {
		var with, without []float64
		for _, f := range p.flows("reader", from, until-2*time.Second) {
			with = append(with, millis(end(f)))
		}
		for _, f := range idle.flows("reader", from, until-2*time.Second) {
			without = append(without, millis(end(f)))
		}
		return 100*quantile(with, 0.5)/quantile(without, 0.5) - 100
	}
	first := func(f *simnet.Flow) time.Duration {
		if f.First == 0 {
			return never
		}
		return f.First.Sub(f.Opened)
	}
	last := func(f *simnet.Flow) time.Duration {
		if f.Ended == 0 || f.Err != nil {
			return never
		}
		return f.Last.Sub(f.Opened)
	}
	return []Value{
		{"first byte", "+%", more(first)}, {"whole page", "+%", more(last)}, {"downloads", "%", sum(p.shares("bulk", from, until))},
		p.late(from, until)[0],
	}
}

func sum(list []float64) (s float64) {
	for _, x := range list {
		s += x
	}
	return s
}

// lossy is of downloads that cross a lossy hop, and of others that do not.
func lossy(p, _ *probe) []Value {
	from, until := p.sc.from, p.sc.until
	var bad, good []float64
	a, b := p.index(from), p.index(until)
	for _, f := range p.flows("bulk", 0, from) {
		x := p.percent(p.looks[b].flows[f.ID]-p.looks[a].flows[f.ID], until-from)
		if exit := p.r.Network.Find(f.Path[len(f.Path)-1]); exit.Host.Name == "exit-1" {
			bad = append(bad, x)
		} else {
			good = append(good, x)
		}
	}
	return []Value{
		{"crossing it", "%", sum(bad)}, {"not crossing it", "%", sum(good)}, {"circuits not crossing it", "", float64(len(good))},
		{"Jain among those", "", jain(good)}, p.late(from, until)[0],
	}
}
