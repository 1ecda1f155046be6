// Package socks is the application's door to the overlay: a SOCKS5 server (RFC 1928, RFC 1929) whose CONNECT requests
// become streams of a [Dialer].
//
// It does: accept connections, cap them and put deadlines on them, read the greeting, the credentials and the request,
// derive the isolation key, ask the Dialer for a stream, answer with the exact reply code, and then copy
// bytes both ways with half-close. BIND and UDP ASSOCIATE are answered "command not supported"; SOCKS4 and HTTP get an
// answer in their own language that says what this port is; anything else is closed.
//
// It does not: resolve names (a host name travels to the exit as it is, and nothing here can reach a resolver), choose
// circuits, decide which destinations are allowed, or log a destination or a client's address at any level.
//
// The negotiation is run by github.com/armon/go-socks5, one small instance for each connection (file session.go says
// how its traps are avoided); the accept loop, the replies and the copying are ours.
//
// The daemon calls it. It is a shell: it has goroutines and sockets, and every exported method may be called from any
// goroutine. See docs/protocol.md, section "Client", for isolation and docs/architecture.md for its place.
package socks
