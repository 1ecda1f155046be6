// Package baseline has rules for windows that a simulation sets beside cepa's own, to compare them: the one with which
// the design began, and those of Tor. They run inside package flow (flow.Rules), so that all else is the same: cells,
// schedulers, links, ends. Package simnet alone imports it, and no program but a simulation has it.
//
//	doubling  hop credits whose window doubles whenever it was used up within two round trips of the hop, up to the
//	          bounds of package flow, and gives nothing back
//	fixed     Tor's window of 1000 cells of 498 bytes of payload, acknowledged each 100
//	fixed/2   the same of 500, as Tor has for a stream, acknowledged each 50
//	vegas     TOR_VEGAS of Tor's proposal 324, with the values that it lists for circuits to exits
//	vegas/4   the same, but alpha, beta, gamma and delta are a quarter
//
// In the latter four the windows of hops are so wide that they never bind, a budget for memory binds neither, and CREDIT
// costs next to nothing. What bounds a circuit is the window of its stream, at the end that receives. How this is
// simpler than Tor:
//
//   - Four cells of Tor's are one of ours, payload and all; an acknowledgement (WINDOW) takes a cell of 2048 bytes, where
//     Tor's takes 514. Under vegas one stands for four of Tor's when the window is 500 of its cells or more, so that both
//     cost the same; under fixed it is sent as often as Tor's and costs 4 % where that costs 1.
//   - Windows are of streams. It makes no difference while a circuit has one stream.
//   - The exit sends a cell when its link takes it. Tor's queues what the window allows on the circuit at once; its rule
//     for an exit whose own queue is long (cellq_high) has nothing to see here, and is left out.
//   - The window is moved by the end that gives it, which returns what the application has taken; in Tor the sender
//     keeps it, and counts acknowledgements. A round trip is the time from a WINDOW to the first byte that
//     it allowed, each WINDOW is measured. The window counts as full when three quarters of it come in a round trip.
//   - A window is given back by returning less: of what one WINDOW returns at most half is kept. Tor's sender waits until enough
//     was acknowledged.
//   - The fixed window begins at four fifths, until the first WINDOW.
//
// The types have the concurrency rule of the node that they are in: one goroutine. Nothing here is protocol.
package baseline
