package scenario

import (
	"path"
	"strconv"
	"time"

	"cepa/env"
	"cepa/simnet"
)

// fits reports whether a machine's name fits a pattern.
func fits(pattern, group, name string) bool {
	if pattern == group+"-*" {
		return true
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// arrange puts all that the scenario has happen on the world's clock.
func (r *Run) arrange() {
	s, w := r.Scenario, r.World
	for _, n := range r.nodes {
		if !n.began() {
			w.At(n.start, n.begin)
		}
	}
	for i := range s.Churn {
		r.arrangeChurn(&s.Churn[i])
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		dice := w.Stream(simnet.StreamChurn, "fault", strconv.Itoa(i))
		for n := range f.times(s) {
			w.At(env.Mono(f.At+Duration(n)*f.Every), func() { r.strike(f, i, dice) })
		}
	}
	if at, ends := s.QuietFrom(); ends && at < s.Duration {
		w.At(env.Mono(at)+1, r.calm)
	}
}

// calm tells the checkers that nothing goes wrong any more, once all run that are to.
func (r *Run) calm() {
	for _, n := range r.nodes {
		if n.leaving || !n.began() || !n.host.Alive() {
			r.World.After(again, r.calm)
			return
		}
	}
	if !r.quiet {
		r.World.Calm()
	}
}

// arrangeChurn has the machines of groups come and go.
func (r *Run) arrangeChurn(c *Churn) {
	s, w := r.Scenario, r.World
	from, until := env.Mono(c.from(s)), env.Mono(c.until(s))
	if c.File != "" {
		for _, a := range s.made.churn[c.File] {
			n, at := r.byName[a.node], env.Mono(a.at)
			if at >= until {
				break
			}
			act := map[string]func(){"up": n.restart, "down": n.crash, "leave": n.leave}[a.what]
			w.At(at, act)
		}
	} else {
		for _, n := range r.nodes {
			for _, g := range c.Groups {
				if n.group == g {
					ch := &churner{n: n, c: c, until: until, dice: w.Stream(simnet.StreamChurn, "churn", n.host.Name)}
					w.At(max(from, n.start), ch.stay)
				}
			}
		}
	}
	w.At(until, func() {
		for _, n := range r.nodes {
			for _, g := range c.Groups {
				if n.group == g && n.began() {
					n.restart()
				}
			}
		}
	})
}

// churner has one machine come and go.
type churner struct {
	n     *node
	c     *Churn
	until env.Mono
	dice  simnet.Stream
}

func shape(v float64) int64 {
	if v == 0 {
		return 1000
	}
	return thousandths(v)
}

func (c *churner) stay() {
	c.after(weibull(c.dice, time.Duration(c.c.Up), shape(c.c.UpShape)), c.part)
}

func (c *churner) part() {
	if int(c.dice.Below(100)) < c.c.Leave {
		c.n.leave()
	} else {
		c.n.crash()
	}
	c.after(weibull(c.dice, time.Duration(c.c.Down), shape(c.c.DownShape)), func() {
		c.n.restart()
		c.stay()
	})
}

func (c *churner) after(d time.Duration, f func()) {
	w := c.n.r.World
	if at := w.Now().Add(d); at >= w.Now() && at < c.until {
		w.At(at, f)
	}
}

// strike is a fault that happens.
func (r *Run) strike(f *Fault, number int, dice simnet.Stream) {
	if r.quiet {
		return
	}
	nodes := r.pick(f.Nodes, f.Pick, dice)
	for _, n := range nodes {
		r.begin(f, number, n)
	}
	if d := f.lasts(); d > 0 {
		r.World.After(time.Duration(d), func() {
			for _, n := range nodes {
				f.mend(n)
			}
		})
	}
}

// begin has a fault begin at a machine.
func (r *Run) begin(f *Fault, number int, n *node) {
	h := n.host
	switch f.Kind {
	case "crash", "restart":
		n.crash()
	case "leave":
		n.leave()
	case "power-off":
		n.powerOff()
	case "silence":
		h.Silence(true)
	case "partition":
		h.Part(number + 1)
	case "clog":
		h.Clog(time.Duration(f.Delay))
	case "loss":
		h.Loss(uint64(thousandths(f.Loss)) * 10)
	case "rate":
		up, down := f.Up, f.Down
		if f.Rate != 0 {
			up, down = f.Rate, f.Rate
		}
		spec := h.Spec()
		h.Rates(or(int64(up), spec.Up), or(int64(down), spec.Down))
	case "skew":
		h.SetClock(time.Duration(f.Skew), f.Drift)
	case "slow-disk":
		h.SlowDisk(time.Duration(f.Disk))
	}
}

// mend has a fault end at a machine.
func (f *Fault) mend(n *node) {
	h := n.host
	switch f.Kind {
	case "crash", "restart", "leave", "power-off":
		n.restart()
	case "silence":
		h.Silence(false)
	case "partition":
		h.Part(0)
	case "clog":
		h.Clog(0)
	case "loss":
		h.Loss(0)
	case "rate":
		h.Rates(h.Spec().Up, h.Spec().Down)
	case "skew":
		h.SetClock(0, 0)
	case "slow-disk":
		h.SlowDisk(2 * time.Millisecond)
	}
}
