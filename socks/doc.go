// Package socks is the application's door to the overlay: a port that speaks SOCKS5 (RFC 1928, RFC 1929), SOCKS4, SOCKS4a
// and HTTP CONNECT, told apart by the first bytes. Requests become streams of a [Dialer], and Tor's RESOLVE and
// RESOLVE_PTR (socks-extensions.txt) questions of a [Resolver].
//
// It does: accept connections, cap them and put deadlines on them, read the greeting, the credentials and the request,
// derive the isolation key, ask the Dialer for a stream, answer with the exact reply code, and then copy
// bytes both ways with half-close. A browser that asks the port itself gets a page and a proxy.pac that say how to use
// it. BIND and UDP ASSOCIATE are answered "command not supported"; anything unknown is closed.
//
// It does not: resolve names (a host name travels to the exit as it is, and nothing here can reach a resolver), choose
// circuits, decide which destinations are allowed, fetch pages for HTTP clients, or log a destination or a client's
// address at any level.
//
// The SOCKS5 negotiation is run by github.com/armon/go-socks5, one small instance for each connection (file session.go says
// how its traps are avoided); the accept loop, the replies and the copying are ours.
//
// The daemon calls it. It is a shell: it has goroutines and sockets, and every exported method may be called from any
// goroutine. See docs/protocol.md, section "Client", for isolation and docs/architecture.md for its place.
package socks
