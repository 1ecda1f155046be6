package circuit

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"cepa/cell"
	"cepa/env"
	"cepa/flow"
	"cepa/onion"
	"cepa/onion/ntor"
)

const handshakeType = ntor.HandshakeType

// seedSize is how much randomness a handshake takes.
const seedSize = 96

// offer is one circuit handshake (docs/protocol.md, "Circuit handshake"). Its public-key work
// runs in the pool; what that work touches belongs to the offer alone, and the loop reads it
// only when the work is done.
type offer struct {
	identity, onionKey, network [32]byte
	seed                        [seedSize]byte

	crypto  onion.Suite
	client  onion.Handshake
	message []byte
	layer   onion.ClientLayer
	granted flow.Windows
	allowed flow.Windows
	err     error
}

// newOffer reads the randomness for a handshake with h on the loop, so that the order in which
// a pool works cannot be seen.
func newOffer(w *wiring, h hop) *offer {
	o := &offer{crypto: w.crypto, identity: h.identity, onionKey: h.onionKey, network: w.network, granted: w.budget.ClientWindows()}
	if o.crypto == nil {
		o.crypto = onion.Real{}
	}
	_, _ = io.ReadFull(w.env.Rand, o.seed[:]) // law: never fails
	return o
}

// start makes the client's message.
func (o *offer) start(pool env.Pool, done func(message []byte, err error)) {
	pool.Offload(func() {
		request, err := ntor.AppendExtensions(nil, []ntor.Extension{
			{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(o.granted)},
		})
		if err == nil {
			o.client, o.message, err = o.crypto.Begin(bytes.NewReader(o.seed[:]), o.identity, o.onionKey, o.network, request)
		}
		clear(o.seed[:])
		o.err = err
	}, func() { done(o.message, o.err) })
}

var errExtensions = errors.New("the relay answered with other extensions than it was asked for")

// finish checks the relay's reply, which is copied, and makes the layer of the new hop.
// allowed are the windows that the relay grants.
func (o *offer) finish(pool env.Pool, reply []byte, done func(layer onion.ClientLayer, allowed flow.Windows, err error)) {
	reply = bytes.Clone(reply)
	pool.Offload(func() { o.err = o.key(reply) }, func() { done(o.layer, o.allowed, o.err) })
}

func (o *offer) key(reply []byte) error {
	keys, sm, err := o.client.Finish(reply)
	if err != nil {
		return err
	}
	defer func() { clear(keys.Material[:]); clear(keys.Binder[:]) }()
	list, err := ntor.ParseExtensions(sm)
	if err != nil {
		return fmt.Errorf("finishing a circuit handshake: %w", err)
	}
	if len(list) != 1 || list[0].Type != flow.ExtensionWindows {
		return fmt.Errorf("finishing a circuit handshake: %w", errExtensions)
	}
	if o.allowed, err = flow.DecodeWindows(list[0].Data); err != nil {
		return fmt.Errorf("finishing a circuit handshake: %w", err)
	}
	o.layer, err = o.crypto.ClientLayer(cell.BodySize, keys.Material[:])
	return err
}
