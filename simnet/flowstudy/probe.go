package flowstudy

import (
	"math"
	"slices"
	"time"

	"cepa/env"
	"cepa/simnet"
	"cepa/simnet/scenario"
)

// step is the time between two looks.
const step = 10 * time.Millisecond

// look is what is seen at one moment, since the loads began.
type look struct {
	sent, got int64            // bytes of streams that exits have put into cells, and that clients have
	held      map[string]int64 // bytes in queues of relays, by group
	below     int64            // and below the middle relay's scheduler
	flows     map[uint64]int64 // what each stream has; nil, when there are many, but every second
	memory    int64            // the most that a relay's budget has in use
}

// probe watches a run.
type probe struct {
	r     *scenario.Run
	sc    *Scenario
	looks []look // every step from the beginning of the loads
	began int64  // sent, then
	done  []*simnet.Flow
	over  int64 // bytes of those
}

const fewFlows = 20

func watch(r *scenario.Run, sc *Scenario) *probe {
	p := &probe{r: r, sc: sc}
	r.World.OnFlow(p.ended)
	r.World.MeterLinks()
	r.World.Sample(step, p.sample)
	return p
}

func (p *probe) ended(f *simnet.Flow) {
	p.done = append(p.done, f)
	p.over += f.Down
}

// group is the name of the group that a machine is of.
func group(h *simnet.Host) string {
	name := h.Name
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '-' {
			return name[:i]
		}
	}
	return name
}

func (p *probe) sample() {
	w := p.r.World
	if w.Now() < env.Mono(loads) {
		return
	}
	l := look{held: make(map[string]int64)}
	if len(w.Flows()) <= fewFlows || len(p.looks)%int(time.Second/step) == 0 {
		l.flows = make(map[uint64]int64, len(w.Flows()))
	}
	for _, x := range p.r.Network.Relays {
		g := group(x.Host)
		if !x.Host.Alive() || g == "authority" {
			continue
		}
		s := x.Node.Flow()
		if g == "exit" {
			l.sent += int64(s.StreamBytesOut)
		}
		l.held[g] += s.QueuedBytes
		l.memory = max(l.memory, int64(x.Node.Held()))
	}
	for _, m := range w.LinkMeters() {
		if group(m.From) == "middle" && group(m.To) != "exit" {
			l.below += m.Queued
		}
	}
	l.got = p.over
	for _, f := range w.Flows() {
		if f.Ended == 0 {
			l.got += f.Down
		}
		if l.flows != nil {
			l.flows[f.ID] = f.Down
		}
	}
	if len(p.looks) == 0 {
		p.began = l.sent
	}
	l.sent -= p.began
	p.looks = append(p.looks, l)
}

// index is that of the look at a time after the loads' beginning.
func (p *probe) index(at time.Duration) int { return min(int(at/step), len(p.looks)-1) }

// rate is what came in a time, in percent of what the bottleneck could carry of it.
func (p *probe) rate(from, until time.Duration) float64 {
	a, b := p.index(from), p.index(until)
	return p.percent(p.looks[b].got-p.looks[a].got, time.Duration(b-a)*step)
}

// percent is n bytes of payload in a time, of what the bottleneck could carry: 2022 of the 2128 bytes that a cell takes
// with the headers of TLS, TCP and IP.
func (p *probe) percent(n int64, took time.Duration) float64 {
	return 100 * float64(n) * 2128 / 2022 / float64(p.sc.line) / took.Seconds()
}

// delays are how long bytes took from the exit's cell to the client, less the propagation, at each look at which
// some came, in ms; where are the looks. They are of all circuits together: as if bytes came out in the order in which they went in.
func (p *probe) delays(from, until time.Duration) (ms []float64, where []time.Duration) {
	j := 0
	for i := max(p.index(from), 1); i <= p.index(until); i++ {
		got := p.looks[i].got
		if got == p.looks[i-1].got {
			continue
		}
		for j+1 < i && p.looks[j+1].sent < got {
			j++
		}
		a, b := p.looks[j].sent, p.looks[j+1].sent
		at := float64(j + 1)
		if b > got && b > a {
			at = float64(j) + float64(got-a)/float64(b-a)
		}
		ms = append(ms, max((float64(i)-at)*float64(step/time.Millisecond)-float64(propagation/time.Millisecond), 0))
		where = append(where, time.Duration(i)*step)
	}
	return ms, where
}

// mean is that of something over a time.
func (p *probe) mean(from, until time.Duration, f func(look) int64) float64 {
	sum, n := 0.0, 0
	for i := p.index(from); i <= p.index(until); i++ {
		sum += float64(f(p.looks[i]))
		n++
	}
	return sum / float64(n)
}

// most is the most of it.
func (p *probe) most(from, until time.Duration, f func(look) int64) float64 {
	top := int64(0)
	for i := p.index(from); i <= p.index(until); i++ {
		top = max(top, f(p.looks[i]))
	}
	return float64(top)
}

// flows are the streams of a group of clients that were opened in a time, in order.
func (p *probe) flows(name string, from, until time.Duration) []*simnet.Flow {
	var list []*simnet.Flow
	seen := make(map[uint64]bool)
	for _, f := range append(slices.Clone(p.done), p.r.World.Flows()...) {
		at := time.Duration(f.Opened) - loads
		if group(f.Client) == name && !seen[f.ID] && at >= from && at <= until {
			seen[f.ID] = true
			list = append(list, f)
		}
	}
	return list
}

// shares is what each of the group's streams got in a time, in percent of the bottleneck.
func (p *probe) shares(name string, from, until time.Duration) []float64 {
	a, b := p.index(from), p.index(until)
	var list []float64
	for _, f := range p.flows(name, 0, from) {
		if n, there := p.looks[b].flows[f.ID]; there {
			list = append(list, p.percent(n-p.looks[a].flows[f.ID], time.Duration(b-a)*step))
		}
	}
	return list
}

// filled is how long after its first byte a stream, or all, first had so many percent of the bottleneck over a quarter of a second; never is +Inf.
func (p *probe) filled(got func(look) int64, first time.Duration, percent float64) time.Duration {
	const over = 250 * time.Millisecond
	k := int(over / step)
	for i := p.index(first) + k; i < len(p.looks); i++ {
		if p.percent(got(p.looks[i])-got(p.looks[i-k]), over) >= percent {
			return time.Duration(i)*step - first
		}
	}
	return never
}

const never = time.Duration(math.MaxInt64)

// quantile is that of a list, interpolated; NaN of an empty one.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(list))
	at := q * float64(len(s)-1)
	i := int(at)
	switch {
	case i+1 == len(s):
		return s[i]
	case math.IsInf(s[i+1], 0): // nothing is between: the nearer one
		return s[int(at+0.5)]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// jain is Jain's index of fairness.
func jain(list []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, x := range list {
		sum += x
		squares += x * x
	}
	if squares == 0 {
		return math.NaN()
	}
	return sum * sum / (float64(len(list)) * squares)
}
