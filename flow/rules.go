package flow

import "cepa/env"

// Rules take the place of this package's rules for windows, so that a simulation can compare them with others: package
// simnet/baseline has some. Only simulations set them, which package rules checks; a nil *Rules is what runs.
type Rules struct {
	// Client and Exit are what ends grant at first, in place of ClientWindows and ExitWindows.
	Client, Exit Windows
	// HopWindow is the first window of a hop in cells, in place of Limits.InitialWindow, and HopBatch the least that is
	// worth a CREDIT. 0 leaves either as it is.
	HopWindow, HopBatch int
	// Hop and Stream make the rule for a leg, and for what a stream receives. Nil leaves this package's.
	Hop    func() HopRule
	Stream func() StreamRule
}

// HopRule decides about the window of one leg, in the direction towards this node. Cells are counted since the circuit
// began.
type HopRule interface {
	// Granted tells of a CREDIT that goes out: without it the neighbour could send so many cells in all.
	Granted(now env.Mono, before int)
	// Arrived is told of the n-th cell, and returns the window from now on.
	Arrived(now env.Mono, n, window int) int
}

// StreamRule decides about the window of what one stream receives, in bytes.
type StreamRule interface {
	// Arrived is told of n bytes that have come.
	Arrived(now env.Mono, n int)
	// Worth is how much must have been consumed for a WINDOW: no less than an eighth of the first window.
	Worth() int
	// Next returns the window from now on, when a WINDOW goes out. unused bytes may come before the first that it allows.
	Next(now env.Mono, unused int) int
}

// Follow has the node of this budget go by other rules, for simulations. It is called before anything else.
func (b *Budget) Follow(r *Rules) { b.rules = r }

// ClientWindows are what a client of this budget grants, which may be nil.
func (b *Budget) ClientWindows() Windows {
	if b == nil || b.rules == nil {
		return ClientWindows
	}
	return b.rules.Client
}

// ExitWindows are what an exit of this budget grants, which may be nil.
func (b *Budget) ExitWindows() Windows {
	if b == nil || b.rules == nil {
		return ExitWindows
	}
	return b.rules.Exit
}

// follow puts what the rules say in place of limits.
func (ls *Links) follow(r *Rules) {
	if r == nil {
		return
	}
	if r.HopWindow > 0 {
		ls.cfg.Limits.InitialWindow = r.HopWindow
	}
	ls.leastBatch = r.HopBatch
}

// otherHop and otherStream are the rules that legs and streams have, in one word of their memory.
type (
	otherHop    struct{ HopRule }
	otherStream struct{ StreamRule }
)

// hopRule is the rule of a new leg; nil is this package's.
func (b *Budget) hopRule() *otherHop {
	if b.rules == nil || b.rules.Hop == nil {
		return nil
	}
	return &otherHop{b.rules.Hop()}
}

// streamRule is the rule of a new stream; nil is this package's.
func (b *Budget) streamRule() *otherStream {
	if b.rules == nil || b.rules.Stream == nil {
		return nil
	}
	return &otherStream{b.rules.Stream()}
}

// obey is arrived under another rule.
func (g *Leg) obey() {
	v, now := &g.in, g.link.lastIn
	v.received++
	g.lastIn = now
	if g.inDue.on != nil {
		g.hasten()
	}
	if v.received >= v.window.end {
		v.window.perTick = cellsIn(creditTick, v.received-v.window.from, now.Sub(v.window.began))
		g.newRound(now)
	}
	g.setWindow(g.rule.Arrived(now, v.received, v.window.size))
}
