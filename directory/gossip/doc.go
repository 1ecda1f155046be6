// Package gossip spreads rumours, the signed statements of relays that a descriptor exists (directory.Rumour), over the
// links that a relay has open. hashicorp/memberlist drives the epidemic: to whom next, how often, what first.
//
// It does not decide what a rumour is worth: a Handler (the directory agent) does, on the node's loop, and nothing is
// passed on before it has accepted, at once or, when it has seen the descriptor, by Spread. It opens no socket, resolves no name, and fetches no descriptor. Clients never
// gossip. A network does not depend on it: the agent reconciles with other relays beside it.
//
// # Why memberlist, and how little of it
//
// memberlist is a known driver of epidemics, and it trusts whoever may speak to it: by its own account it is not
// Byzantine fault tolerant. One forged "dead" removes a node, names belong to whoever comes first, and push/pull hands
// out everything. In an open network everybody may speak. So it is kept in a box:
//
//   - A message from the wire reaches memberlist only if it is an alive message, or a compound of a few, in the one
//     encoding that this package writes; whose metadata is a rumour that verifies; that was signed by the member that it
//     names; that is newer than what is held; and that the Handler accepted. Everything else is dropped and counted
//     by kind: suspect, dead, ping, push/pull, user, compressed, encrypted, checksummed, labelled.
//   - Nobody speaks for this relay but itself: messages that bear its own name are dropped, so memberlist never refutes.
//   - Incarnation, address, port and versions are constants on the wire. Which of two rumours is newer is said by what
//     they sign: issue of the signing certificate, publication, digest, and the earlier end (a farewell). memberlist counts incarnations of its
//     own, which start with the process and never leave it, so there is none to forge and none to overflow. The
//     address is the IPv4 dummy address 192.0.0.8, the same for all: a real one would make a relay that moves a
//     "conflict", and is in the rumour anyway.
//   - Failure detection, indirect pings, push/pull, streams, compression and encryption are off. In v0.7.0 the probe and
//     push/pull goroutines start only for an interval above zero (state.go, schedule); Join and Leave are never called. Links
//     authenticate and encrypt; package flow notices dead neighbours.
//   - What leaves is filtered too: only rumours still current, re-encoded; a death that is injected here because a
//     descriptor expired stays here.
//
// Two things follow from switching the rest off. memberlist picks the receivers of a packet among all members, and most of
// them have no link with this relay: such a packet goes to a neighbour chosen at random, so the epidemic runs along
// open links, and while there are few of them Dial is asked for more, within a budget. And memberlist forgets the dead
// only when it probes: once many names have died, it is replaced by a fresh one that learns the living again; when it may
// be told of no more names, others wait for that.
//
// The table is bounded. When it is full, or a site has as many of it as candidates may come from there, a relay that the
// consensus does not list has to go, by lot: neither a flood of names nor those who came first keep newcomers out.
//
// Instead of memberlist's Join, a new neighbour is sent this relay's own rumour and a few others at once, and more two
// seconds later; instead of its push/pull, the neighbours in turn are sent a few, one neighbour every ten seconds, or less often where
// intervals are long.
//
// # Concurrency
//
// New, Announce, OnPacket, OnConsensus, LinkUp, LinkDown, Spread and Forget are called on the node's loop; none of them
// waits. Members, Stats and Close may be called from any goroutine, the loop's included. Config's functions are called on the loop, except Post and
// Now, which are called from any goroutine. One worker goroutine reads and verifies packets; the others are memberlist's. After
// Close nothing is called any more. Every queue and table is bounded by Limits; what does not fit is dropped and counted.
//
// The format is that of docs/protocol.md, section "Gossip".
package gossip
