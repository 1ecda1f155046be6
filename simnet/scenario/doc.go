// Package scenario makes simulated networks of package simnet from TOML files: which machines there
// are, what they run, what users do, who comes and goes, and what goes wrong when. The schema is
// the type Scenario; docs/simulation.md has it as a table.
//
// Open or Parse reads a file and finds all that is wrong with it; Build makes a world of it; Run.Advance
// lets time pass and Run.Finish has the checkers look at what is left. What the nodes do is the
// daemon's own code, and nothing of it is here.
//
// The same scenario, seed and options give the same run, to the byte. Chance is drawn from streams
// with a name each (simnet.StreamNames), of which each can have a seed of its own (Options.Streams):
// "latency" places machines and draws their rates besides jitter and loss, "churn" draws who is away
// when and whom a fault hits, "workload" what users want.
//
// As in package simnet there is one goroutine, and it is the caller's.
package scenario
