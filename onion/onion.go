// Package onion says what circuits need of cryptography, as one thing: a handshake with a relay, and the layers of the
// hop that it yields. Suite is what relays and clients are given, and Real what they have when they are given none: the
// hybrid handshake of package ntor and the cipher of package cgo.
//
// It holds no cryptography itself, so that a simulation can put something cheaper in its place (package standin), with
// the same sizes. A node's constructor takes the Suite; the daemon gives it none.
//
// A Suite is used by many goroutines at once. What it makes belongs to one goroutine at a time.
package onion

import (
	"io"

	"cepa/onion/cgo"
	"cepa/onion/ntor"
)

// Suite is the cryptography of a hop.
type Suite interface {
	// Begin starts a handshake: see ntor.NewClient.
	Begin(rand io.Reader, id, onionKey, network [32]byte, cm []byte) (Handshake, []byte, error)
	// Answer is the relay's side of it: see ntor.Server.
	Answer(
		rand io.Reader, id [32]byte, onionKeys []*ntor.OnionKey, network [32]byte, message []byte, accept func(cm []byte) (sm []byte, err error),
	) (keys ntor.Keys, reply []byte, err error)
	// ClientLayer and RelayLayer are the two roles at one hop: see cgo.NewClient and cgo.NewRelay.
	ClientLayer(bodySize int, keys []byte) (ClientLayer, error)
	RelayLayer(bodySize int, keys []byte) (RelayLayer, error)
}

// Handshake is the client's state between its message and the relay's: see ntor.Client.
type Handshake interface {
	Finish(reply []byte) (keys ntor.Keys, sm []byte, err error)
}

// ClientLayer is a hop as the client of a circuit has it: see cgo.Client.
type ClientLayer interface {
	Originate(cmd byte, body []byte)
	Forward(cmd byte, body []byte)
	Backward(cmd byte, body []byte) (recognised bool)
	Erase()
}

// RelayLayer is a hop as its relay has it: see cgo.Relay.
type RelayLayer interface {
	Forward(cmd byte, body []byte) (recognised bool)
	Backward(cmd byte, body []byte)
	Originate(cmd byte, body []byte)
	Rest()
	Erase()
}

// Real is the cryptography of the protocol.
type Real struct{}

// Begin implements Suite.
func (Real) Begin(rand io.Reader, id, onionKey, network [32]byte, cm []byte) (Handshake, []byte, error) {
	c, message, err := ntor.NewClient(rand, id, onionKey, network, cm)
	if err != nil {
		return nil, nil, err
	}
	return c, message, nil
}

// Answer implements Suite.
func (Real) Answer(
	rand io.Reader, id [32]byte, onionKeys []*ntor.OnionKey, network [32]byte, message []byte, accept func(cm []byte) (sm []byte, err error),
) (keys ntor.Keys, reply []byte, err error) {
	return ntor.Server(rand, id, onionKeys, network, message, accept)
}

// ClientLayer implements Suite.
func (Real) ClientLayer(bodySize int, keys []byte) (ClientLayer, error) {
	c, err := cgo.NewClient(bodySize, keys)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// RelayLayer implements Suite.
func (Real) RelayLayer(bodySize int, keys []byte) (RelayLayer, error) {
	r, err := cgo.NewRelay(bodySize, keys)
	if err != nil {
		return nil, err
	}
	return r, nil
}
