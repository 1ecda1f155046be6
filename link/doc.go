// Package link carries cells between neighbours over TCP and TLS 1.3.
//
// A Transport dials and accepts links for one node. It does everything up to the point where two nodes know who the
// other is: TLS 1.3 with X25519MLKEM768 and nothing else, then one HELLO cell each way in which a relay proves that
// the key of this TLS session belongs to its identity (docs/protocol.md, section "Link"). From there on a link is an
// ordered, reliable channel of whole 2048-byte cells, and the package does not look into them: commands, circuits,
// credits, keepalives and the choice among several links to one neighbour are the business of package flow.
//
// It is called by the daemon, which gives it listeners and the node's event loop, and it calls the node through
// env.LinkHandler and env.LinkEvents. All such calls are events of the loop, so they never overlap and never happen
// inside a call into this package (the laws of package env).
//
// After HELLO the package opens and seals TLS records itself (record.go); crypto/tls does the handshake only.
//
// Every link has one reader and one writer goroutine. Under the records lies a buffer each way, so that one system call
// carries many of them: the writer seals whatever has been sent since it last looked and hands it to the kernel at
// once; the reader opens all whole records that one read brought and posts them to the loop as one event. The
// reader stops reading when the loop has not dealt with its last batches, never for any other reason. Buffers belong
// to pools of the Transport with a bound, and an idle link holds none of them.
//
// All methods of Transport are safe for concurrent use. The methods of a link are too, but its events are only
// ordered with respect to calls made on the loop.
package link
