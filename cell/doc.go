// Package cell is the wire format of the overlay above TLS: fixed-size cells, their headers and bodies, and the relay
// messages inside the payload of a RELAY cell (docs/protocol.md, "Cells" and "Relay messages").
//
// Everything here is strict. A decoder accepts exactly the bytes that its encoder writes: decoding and then encoding
// is the identity, and whatever else arrives is an [*Error] that says what was being decoded, at which byte, and why it
// is wrong. No decoder panics, whatever its input, and none allocates by a length that it has not checked.
//
// The package does not know circuits, keys or time: whether a message is allowed now is the business of relay and
// circuit, the content of HELLO that of link, the layers of encryption that of onion. It keeps no state between calls.
//
// Ownership: byte slices in decoded values alias the input and are valid as long as it is; encoders copy what they are
// given. Concurrency: everything is a plain value; different values may be used by different goroutines at once, one
// [Packer] by one goroutine only.
//
// Headers, DATA, CREDIT and the walk over the messages of a payload allocate nothing.
package cell
