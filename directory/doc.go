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
// The formats are those of docs/protocol.md, section "Directory".
package directory
