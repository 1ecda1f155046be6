// Package envtest helps to test actors and the worlds they live in.
//
//   - Conformance checks that an implementation of package env keeps its seven laws. Every
//     implementation runs it from its own tests: it describes itself as a World.
//   - Fake is a small deterministic world for unit tests of actors: a virtual clock, nodes
//     that dial each other, clear-net servers, a resolver table. It passes Conformance.
//   - Recorder writes down what happens between an actor and its world, one line an event or
//     action, and Golden compares such a transcript with a file.
//   - ConnProbe and LinkProbe hear the events of a Conn or Link and remember them.
//
// A Fake models no congestion and no loss: it is a test double, not a network simulator.
//
// Fake and Recorder are single-threaded, as actors are: a test and everything that it builds
// on a Fake stay on one goroutine. Probes may be read from any goroutine.
package envtest
