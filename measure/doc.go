// Package measure finds out how fast relays are, for the votes of an authority: what a relay claims does not decide
// how much traffic it gets.
//
// A Measurer carries data through one relay at a time, over circuits of three hops as a client has them: an
// unsuspicious relay, the measured one in the middle, and a third one that sends bytes on the word of a signed ticket.
// The measured relay sees neighbours that are relays, and no address or identity of an authority. Now and then it is
// measured openly too, as the first hop: one that is fast only for those whom it knows is found by the difference.
// The rules and numbers are in docs/protocol.md, section "Measurement".
//
// The package chooses whom to measure, when and through whom, keeps what came out, and makes an estimate of it. It
// does not build circuits (package circuit) or say what a weight is (package directory); package node joins them.
//
// A Measurer is an actor: one loop calls it, and nothing in it is safe for concurrent use.
package measure
