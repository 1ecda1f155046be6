// Package directory holds the documents by which relays and clients know the network: descriptors and onion-key
// statements that relays sign, rumours that they gossip, the consensus that authorities sign, the network file that
// names the authorities, and the questions and answers of the directory protocol.
//
// Documents are values: they take the time and the network as arguments and keep no state; functions on them are
// safe for concurrent use, and a document must not be modified while another goroutine reads it. Every signed
// document is opened by cert.Open, and nothing in its body is decoded before the signatures hold. Bodies are
// deterministic CBOR (RFC 8949, section 4.2.1) with small integers as keys; a body that does not re-encode to its
// own bytes is refused, so that one document has one digest. Keys that this version does not know are kept as
// Extensions and otherwise ignored. Times in bodies are Unix milliseconds.
//
// Beside the documents the package has the actors that keep them: a Follower in every node, which keeps one consensus
// and refuses what would turn it back; an Agent in every relay, which publishes the relay's descriptor, keeps those of
// others, answers requests and compares what it knows with other relays; and an Authority, which makes the consensus.
// They are called by package node on one loop, and act through package env, a Fetcher (package circuit), a Gossip
// (package directory/gossip, or a simulator's) and a Prober. Nothing in an actor is safe for concurrent use.
//
// The formats are those of docs/protocol.md, section "Directory".
package directory
