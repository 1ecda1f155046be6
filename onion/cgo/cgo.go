package cgo

import (
	"crypto/subtle"
	"fmt"
)

const (
	// TagSize is the number of bytes at the front of a body that belong to the
	// layer crypto; the payload follows.
	TagSize = 16

	// KeyMaterialSize is the number of bytes of key material for one hop: the
	// forward direction (away from the client), then the backward one. Each is
	// KB | KU | K | B | N, of 16 bytes.
	KeyMaterialSize = 2 * layerKeySize

	// MinBodySize is the smallest body: a tag and one byte.
	MinBodySize = TagSize + 1

	// MaxBodySize is the largest body whose counter, together with that of the
	// key update, stays within one byte.
	MaxBodySize = TagSize + (256-updateBlocks)*blockSize
)

// Relay is the encrypting role at one hop, both directions. The zero value is
// not usable. A Relay belongs to one goroutine at a time.
type Relay struct {
	forward, backward layer
}

// NewRelay returns the relay's state for one hop whose bodies have bodySize
// bytes, tag included (MinBodySize to MaxBodySize). keys holds KeyMaterialSize
// bytes and is copied; it is an error if either has another size.
func NewRelay(bodySize int, keys []byte) (*Relay, error) {
	return newRelay(best, bodySize, keys)
}

func newRelay(kern kernel, bodySize int, keys []byte) (*Relay, error) {
	r := new(Relay)
	if err := initHop(kern, bodySize, keys, &r.forward, &r.backward); err != nil {
		return nil, fmt.Errorf("making a relay's layer: %w", err)
	}
	return r, nil
}

// Forward processes one cell that travels away from the client, in place. cmd
// is the command of the link cell that carried it. recognised reports that the
// cell ends here: it is authentic, in order, and its payload is body[TagSize:].
// Otherwise body is what the next hop must get, with the same command.
//
// It panics if body has not the size given to NewRelay, or after Erase.
func (r *Relay) Forward(cmd byte, body []byte) (recognised bool) {
	l := &r.forward
	l.ready(body)
	l.encrypt(cmd, body)
	l.chain = block(body)
	if subtle.ConstantTimeCompare(body[:TagSize], l.nonce[:]) != 1 {
		return false
	}
	l.update()
	return true
}

// Backward encrypts one cell passed on from the next hop towards the client, in
// place. It panics as Forward does.
func (r *Relay) Backward(cmd byte, body []byte) {
	l := &r.backward
	l.ready(body)
	l.encrypt(cmd, body)
	l.chain = block(body)
}

// Originate seals, in place, a cell that this hop sends towards the client.
// body[TagSize:] holds the payload; the tag is overwritten. It panics as
// Forward does.
func (r *Relay) Originate(cmd byte, body []byte) {
	l := &r.backward
	l.ready(body)
	*(*block)(body) = l.nonce
	l.encrypt(cmd, body)
	l.chain = block(body)
	l.nonce = block(body)
	l.update()
}

// Rest gives up what the keys of a direction are expanded to, 1.25 KiB, if the
// direction was not used since the last call of Rest. Its next cell takes 0.2 µs
// longer.
func (r *Relay) Rest() {
	r.forward.rest()
	r.backward.rest()
}

// Resting reports whether both directions have given that up.
func (r *Relay) Resting() bool { return r.forward.expanded == nil && r.backward.expanded == nil }

// Erase wipes the keys of both directions. Every later call of another method
// panics; a second Erase does nothing.
func (r *Relay) Erase() {
	r.forward.erase()
	r.backward.erase()
}

// Client is the decrypting role for one hop, both directions; a circuit has one
// for each of its hops. The zero value is not usable. A Client belongs to one
// goroutine at a time.
type Client struct {
	forward, backward layer
}

// NewClient returns the client's state for one hop; its arguments and errors
// are those of NewRelay.
func NewClient(bodySize int, keys []byte) (*Client, error) {
	return newClient(best, bodySize, keys)
}

func newClient(kern kernel, bodySize int, keys []byte) (*Client, error) {
	c := new(Client)
	if err := initHop(kern, bodySize, keys, &c.forward, &c.backward); err != nil {
		return nil, fmt.Errorf("making a client's layer: %w", err)
	}
	return c, nil
}

// Originate seals, in place, a cell addressed to this hop: body[TagSize:] holds
// the payload, the tag is overwritten. The caller then applies Forward of each
// hop before this one, the nearest to the client last, and sends. It panics if
// body has not the size given to NewClient, or after Erase.
func (c *Client) Originate(cmd byte, body []byte) {
	l := &c.forward
	l.ready(body)
	*(*block)(body) = l.nonce
	l.next = block(body)
	l.decrypt(cmd, body)
	l.chain = l.next
	l.update()
}

// Forward applies, in place, the layer of a hop that only passes the cell on.
// It panics as Originate does.
func (c *Client) Forward(cmd byte, body []byte) {
	l := &c.forward
	l.ready(body)
	l.next = block(body)
	l.decrypt(cmd, body)
	l.chain = l.next
}

// Backward takes this hop's layer off a cell that travels towards the client,
// in place. recognised reports that the cell is from this hop, authentic and in
// order, and that its payload is body[TagSize:]. Otherwise the caller goes on
// with the next hop; a cell that no hop recognises has been tampered with and
// the circuit must be destroyed. It panics as Originate does.
func (c *Client) Backward(cmd byte, body []byte) (recognised bool) {
	l := &c.backward
	l.ready(body)
	l.next = block(body)
	l.decrypt(cmd, body)
	l.chain = l.next
	if subtle.ConstantTimeCompare(body[:TagSize], l.nonce[:]) != 1 {
		return false
	}
	l.nonce = l.next
	l.update()
	return true
}

// Erase wipes the keys of both directions, as Relay.Erase does.
func (c *Client) Erase() {
	c.forward.erase()
	c.backward.erase()
}

func initHop(kern kernel, bodySize int, keys []byte, forward, backward *layer) error {
	if bodySize < MinBodySize || bodySize > MaxBodySize {
		return fmt.Errorf("body of %d bytes, want %d to %d", bodySize, MinBodySize, MaxBodySize)
	}
	if len(keys) != KeyMaterialSize {
		return fmt.Errorf("key material of %d bytes, want %d", len(keys), KeyMaterialSize)
	}
	forward.init(kern, bodySize, (*[layerKeySize]byte)(keys))
	backward.init(kern, bodySize, (*[layerKeySize]byte)(keys[layerKeySize:]))
	return nil
}
