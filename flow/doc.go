// Package flow moves cells and bytes: it is what relay and client have in common.
//
// [Links] is the set of open links of one node. Each [Link] demultiplexes the cells of a
// neighbour into circuits, of which it holds one [Leg] each, keeps the hop credits of both
// directions, schedules what is sent, and takes circuits down by the DESTROY handshake
// (docs/protocol.md, sections "Hop credits", "Teardown"). [Mux] is one end of a circuit:
// its streams, their windows, and the packing of relay messages into payloads (sections
// "Relay messages", "Windows"). [Budget] is the node's one memory budget, over both.
//
// What a node has, circuits and links, is shared among those who ask by who they are and where
// they come from (share.go): nobody has it all for coming first and staying.
//
// The package does not know keys or the relay crypto (packages onion and circuit, relay put
// it between Leg and Mux), paths, exits, or TLS. It is called by relay, circuit, directory
// and node, and by the shells through env.LinkHandler and env.ConnEvents.
//
// # Concurrency
//
// Everything here belongs to one actor and is not safe for concurrent use. No method calls
// a handler before it returns, except those that are events themselves: LinkUp, OnCells,
// OnDrained and OnDown of a Link, OnPayload and Close of a Mux, OnDrained and OnDown of a
// Stream. What is
// asked for elsewhere (sending, closing a link, making room in the budget) is flagged and
// done at the top of the event, or in an event of its own.
//
// # How a stream ends
//
// END{EOF} says that its sender sends no more DATA; it may still send WINDOW. The last
// message that a side sends on a stream is either END with another reason, or, when both
// EOFs have passed and what arrived was delivered, a second END{EOF}. Whoever gets the
// peer's last message answers with its own, unless that was sent already. A stream is
// forgotten when both last messages have passed; only then can nothing more come for its
// id, so every message for an unknown id is an error. RESOLVED is the exit's last message
// on its stream. (One EOF each is not enough: the side whose EOF was the second cannot know
// what the other sent before it arrived.)
package flow
