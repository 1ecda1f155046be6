// Package simnet is a world on a virtual clock: many nodes of the overlay, the machines that they
// run on and the network between them, in one process. It implements package env, so the nodes are
// the daemon's own, made by the constructors of package node, with their own cryptography; what is
// simulated is the world around them. The same seed gives the same run, to the byte.
//
// It holds no protocol: what a cell, a circuit or a consensus is, the nodes know. In place of
// TCP, TLS and HELLO a link is authenticated by the world itself, and in place of memberlist an
// epidemic driver with memberlist's parameters (Epidemic) decides to whom a rumour goes next.
//
// # What is modelled
//
//   - Time. One heap of events, ordered by time and then by the order in which they were scheduled.
//     Each host has a clock of its own, which may be wrong (Host.SetClock).
//   - Machines. A loop on which a node's events run one after the other, each with its price, and
//     cores for what is offloaded (CPU). A disk that takes a while, and forgets in a crash what it had
//     not written.
//   - Distance. Latency between regions, with jitter (Latency).
//   - Access links. A rate up and a rate down a host. Upwards, connections take turns, as the
//     kernel's queues have it; downwards, there is one queue with a bounded length.
//   - TCP. Round trips of the handshake (with TLS and HELLO on links), slow start from ten segments that
//     ends before a queue overflows (HyStart), CUBIC, a congestion window that bounds the bytes in
//     flight, a receive window that grows as the receiver reads, no growth of a window that is not used,
//     restart after idleness. A packet that is lost arrives a round trip later, or after a timeout when
//     nothing follows it, and what follows it waits for it; the window shrinks, and the rest goes on
//     meanwhile (selective acknowledgement). Single transfers take what they take on Linux, to within
//     12 % (TestTransfersTakeWhatTheyTakeOnLinux).
//   - Faults. Crash, restart, silence, partition, loss, congestion, wrong clocks, slow disks.
//
// # What is not
//
// The core of the network is never full; a region is one point; acknowledgements take no bandwidth;
// TLS handshakes take time and no bandwidth; a segment is up to 16 KiB and arrives as a whole; the
// limits of package link on how many may connect are not there; hosts do not resend what they
// received.
//
// # Use
//
// New makes a World, Host its machines, and Relay, Client and Server put something on them. Run
// lets time pass. Everything belongs to the one goroutine that calls it. What
// runs as an event (a server's handler, a function given to At) may call anything but Run.
//
// Two things make a run faster and leave it as it is. What nodes offload is made by other processors while the world goes
// on (package parallel; Config.Workers): the result is waited for in the event in which it is due. And a document that one
// node has verified or read is not verified or read again by the others (cert.Memo; Config.Forgetful): a signature over
// the same bytes is checked once, and all who hold a consensus share what was decoded of it. Config.Crypto can
// replace the cryptography of circuits by stand-ins of the same sizes: everything happens at the same times, with other
// bytes in cells. What a computation costs in virtual time is said by CPU in either case.
//
// Checkers look at a run from outside, whatever its scenario: see Checker. TraceHash tells one
// run from another.
package simnet
