package baseline

import (
	"slices"

	"cepa/cell"
	"cepa/env"
	"cepa/flow"
)

// Credits is the name of cepa's own rule.
const Credits = "credits"

// Names are the rules that there are, cepa's own first. The slice is the caller's.
func Names() []string {
	return []string{Credits, "doubling", "fixed", "fixed/2", "vegas", "vegas/4"}
}

// Known reports whether a rule has this name.
func Known(name string) bool { return slices.Contains(Names(), name) }

// Unbounded reports whether a rule does not bound the memory of a relay, whose budget then must not either.
func Unbounded(name string) bool { return name != Credits && name != "doubling" }

// Rules are those of a name, for all nodes of a network; nil for cepa's own, and for an unknown name.
func Rules(name string) *flow.Rules {
	switch name {
	case "doubling":
		return &flow.Rules{Client: flow.ClientWindows, Exit: flow.ExitWindows, Hop: func() flow.HopRule { return new(doubling) }}
	case "fixed":
		return endToEnd(fixedCells*4/5, func() flow.StreamRule { return fixed{fixedCells} })
	case "fixed/2":
		return endToEnd(fixedCells/2*4/5, func() flow.StreamRule { return fixed{fixedCells / 2} })
	case "vegas":
		return endToEnd(vegasStart, func() flow.StreamRule { return newVegas(1) })
	case "vegas/4":
		return endToEnd(vegasStart, func() flow.StreamRule { return newVegas(4) })
	}
	return nil
}

// torCell is what a cell of Tor's carries, in bytes of ours.
const torCell = cell.MaxData / 4

// fixedCells is Tor's window of a circuit, in its cells.
const fixedCells = 1000

// wideHop is a window that no circuit fills: the most that one grant can say.
const wideHop = 65535

// endToEnd are rules under which hops hold nothing back. A stream begins with so many cells of Tor's.
func endToEnd(first int, rule func() flow.StreamRule) *flow.Rules {
	client, exit := flow.ClientWindows, flow.ExitWindows
	client.Stream, exit.Stream = uint32(first*torCell), uint32(first*torCell)
	return &flow.Rules{
		Client: client, Exit: exit, HopWindow: wideHop, HopBatch: wideHop / 4,
		Hop: func() flow.HopRule { return wide{} }, Stream: rule,
	}
}

// wide is a hop that holds nothing back.
type wide struct{}

func (wide) Granted(env.Mono, int)          {}
func (wide) Arrived(env.Mono, int, int) int { return wideHop }

// fixed is a window of so many cells of Tor's.
type fixed struct{ cells int }

func (fixed) Arrived(env.Mono, int)    {}
func (f fixed) Worth() int             { return f.cells / 10 * torCell }
func (f fixed) Next(env.Mono, int) int { return f.cells * torCell }

// doubling is hop credits as the design had them at first.
type doubling struct {
	trips trips
	began env.Mono // of a round, which is a window of cells
	end   int      // the cell that ends it; 0 before the first
}

func (d *doubling) Granted(now env.Mono, before int) { d.trips.begin(now, before) }

func (d *doubling) Arrived(now env.Mono, n, window int) int {
	d.trips.arrived(now, n)
	if n < d.end {
		return window
	}
	if d.end > 0 && d.trips.least > 0 && now.Sub(d.began) < 2*d.trips.least {
		window *= 2
	}
	d.began, d.end = now, n+window
	return window
}
