// Package node puts the actors of one node together: links, circuits, streams and directory,
// for a relay and for a client. The daemon and the simulator make nodes by the same
// constructors; what differs is the env.Env that they pass in.
//
// A node is one actor: its Env calls it from one loop, and nothing here is safe for
// concurrent use. There is no protocol here, only who is told what.
package node
