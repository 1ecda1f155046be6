package simnet

import (
	"time"

	"cepa/directory"
	"cepa/env"
)

// Calm says that the last fault is over, and that from now on nobody crashes or leaves. It lasts until the
// next fault, and until clients are stopped. LivenessChecker judges only while it lasts.
func (w *World) Calm() {
	w.calm = true
	for _, c := range w.checkers {
		c.OnCalm(w)
	}
}

// disturb ends Calm when something is a fault.
func (w *World) disturb(fault bool) {
	if fault {
		w.calm = false
	}
}

// LivenessChecker: when faults are over the network works again within a stated time (Within). From then on
// each stream that an application opens is connected and ends well, unless the application gives up on one
// that was connected, and each node has a consensus that is at most four intervals old. It judges streams that
// begin after the stated time, and nodes every interval after it.
type LivenessChecker struct {
	Silent
	// Within is the stated time; 0 is a minute and four intervals of the network, the longest if there are several.
	Within time.Duration
	// Streams and Nodes count what was judged.
	Streams, Nodes int

	due   env.Mono // from when on all must work
	epoch int      // of calm
	said  map[*Host]bool
}

func (*LivenessChecker) Name() string { return "liveness" }

// mostBehind is how many intervals old the consensus of a node may be. A client asks for the next between half
// an interval and two after the end of its own, which lasts one.
const mostBehind = 4

func (c *LivenessChecker) OnCalm(w *World) {
	within := c.Within
	if within == 0 {
		for _, n := range w.networks {
			within = max(within, time.Minute+4*n.File.Interval())
		}
	}
	c.due = w.now.Add(within)
	c.epoch++
	c.said = make(map[*Host]bool)
	epoch := c.epoch
	for _, n := range w.networks {
		c.later(w, within, func() { c.judge(w, n, epoch) })
	}
}

// later calls f without a trace of it.
func (c *LivenessChecker) later(w *World, d time.Duration, f func()) { w.after(nil, d, KindNone, f) }

// judge looks at all nodes of a network.
func (c *LivenessChecker) judge(w *World, n *Network, epoch int) {
	if !w.calm || epoch != c.epoch {
		return
	}
	interval, now := n.File.Interval(), w.Wall()
	look := func(h *Host, have *directory.Consensus) {
		c.Nodes++
		switch {
		case have == nil:
			c.say(w, h, "has no consensus")
		case now.Sub(have.Head.ValidAfter) > mostBehind*interval:
			c.say(w, h, "has only the consensus of %v, %v ago", have.Head.ValidAfter, now.Sub(have.Head.ValidAfter))
		}
	}
	for _, r := range n.Relays {
		if r.Host.alive {
			look(r.Host, r.Node.Consensus())
		}
	}
	for _, x := range n.Clients {
		if x.Host.alive {
			look(x.Host, x.Node.Consensus())
		}
	}
	// A stream that has waited for a minute, when all should work, is as good as one that failed.
	for _, f := range w.flows {
		if f.Ended == 0 && f.Connected == 0 && f.Opened >= c.due && w.now.Sub(f.Opened) > time.Minute && f.Client.life == f.life {
			c.say(w, f.Client, "stream %d, opened at %v, is not connected", f.ID, time.Duration(f.Opened))
		}
	}
	c.later(w, interval, func() { c.judge(w, n, epoch) })
}

// say reports a host once.
func (c *LivenessChecker) say(w *World, h *Host, format string, args ...any) {
	if !c.said[h] {
		c.said[h] = true
		w.Violate(c, h, format, args...)
	}
}

func (c *LivenessChecker) OnFlowEnd(w *World, f *Flow) {
	if !w.calm || c.due == 0 || f.Opened < c.due || f.Client.life != f.life {
		return
	}
	c.Streams++
	if f.Err != nil && (f.Connected == 0 || f.Err != ErrPatience) {
		c.say(w, f.Client, "stream %d, opened at %v: %v", f.ID, time.Duration(f.Opened), f.Err)
	}
}
