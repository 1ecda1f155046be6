// Package flowstudy compares rules for windows: cepa's hop credits, and those of package simnet/baseline. It has
// scenarios (S1 to S8, see Scenarios) in which circuits meet a bottleneck in different ways, runs one of them with a rule and a
// seed (Measure), and says how fast, how late and how fair it was. Table puts many such results together.
//
// All scenarios have one path: client, guard, middle, exit and server, with round trips of 30, 60, 90 and 2 ms between
// neighbours, up to 2 % of jitter, and processors that cost no time, so that what differs is the rule. TCP, queues and losses are
// those of package simnet.
//
// Each call of Measure has a world of its own, and one goroutine: the caller's. docs/flow.md has the results.
package flowstudy
