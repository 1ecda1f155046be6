package simnet

import "cepa/node"

// inspectEvery is after how many events OnInspect is called, and again that many for each inspectHosts machines. It is a
// prime, lest it keep step with anything. What a look costs grows with the connections of the node: each beyond inspectFree puts
// the next look off by inspectEach events. So looking takes a small part of the time of a run of any size.
const (
	inspectEvery = 251
	inspectHosts = 500
	inspectFree  = 20
	inspectEach  = 31
)

// inspect has the checkers look at the host on which an event ran last.
func (w *World) inspect() {
	w.inspectAt = w.events + inspectEvery*uint64(1+len(w.hosts)/inspectHosts)
	if h := w.acted; h != nil && h.alive && h.check != nil {
		w.inspectAt += uint64(inspectEach * max(0, len(h.ends)-inspectFree))
		for _, c := range w.checkers {
			c.OnInspect(w, h)
		}
	}
}

// defect is the bug that a test has seeded in a host's node.
func (w *World) defect(h *Host) node.Defect {
	if w.defects.node != nil {
		return w.defects.node(h)
	}
	return w.cfg.Defect
}

// AccountsChecker: credits and windows are never negative, and what was granted is with the neighbour, held, or
// to be returned; no circuit stands still for want of a CREDIT that nobody sends; memory and gauges are what is
// there. Every 251st event, in small networks, the node on which it ran is looked at, and all of them in the end.
type AccountsChecker struct {
	Silent
	wrong map[*Host]uint32 // the process that has been reported
	// Looks counts how often a node was looked at.
	Looks int
}

func (*AccountsChecker) Name() string { return "accounts" }

func (c *AccountsChecker) OnInspect(w *World, h *Host) {
	if c.wrong == nil {
		c.wrong = make(map[*Host]uint32)
	}
	if c.wrong[h] == h.life {
		return
	}
	c.Looks++
	if err := h.check(); err != nil {
		c.wrong[h] = h.life
		w.Violate(c, h, "%v", err)
	}
}

func (c *AccountsChecker) Finish(w *World) {
	for _, h := range w.hosts {
		if h.alive && h.check != nil {
			c.OnInspect(w, h)
		}
	}
}
