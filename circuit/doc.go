// Package circuit is the client's half of a circuit: it chooses paths, keeps guards, builds
// circuits hop by hop, adds and removes the layers of encryption, and carries the streams of
// applications over them (docs/protocol.md, "Circuits", "Streams" and "Client"). Directory makes directory
// requests over circuits of one hop, for clients and relays alike.
//
// It does not listen to applications (package socks does), keep links, credits or stream
// windows (package flow), fetch or check the consensus (package directory), or resolve names:
// names travel to the exit, and there is no path from here to a resolver.
//
// The node makes a Client and calls it with requests of applications and when the consensus
// changes. A Client and a Directory are actors: one loop calls them, nothing here is safe for
// concurrent use, and no callback runs before the call that it answers has returned.
package circuit
