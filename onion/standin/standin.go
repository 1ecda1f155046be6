// Package standin puts something without any secrecy in the place of the cryptography of circuits, for simulations that
// study anything but that. Messages and cells have the same sizes; who gets a cell recognises it or not as with real
// cryptography, also when it was altered, repeated, or left out; a handshake for another relay, key or network fails with
// the same errors. Whoever reads a cell reads what is in it.
//
// Only package simnet may import it; package rules sees to that.
package standin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"cepa/onion"
	"cepa/onion/cgo"
	"cepa/onion/ntor"
)

// Suite implements onion.Suite.
type Suite struct{}

var _ onion.Suite = Suite{}

const (
	point = 32
	hash  = sha256.Size
	// seed is the randomness of a client's handshake, as ntor reads it.
	seed = point + 64
)

// hello is a client's message:
//
//	offset  size  field
//	0       32    identity of the relay
//	32      32    its onion key
//	64      32    random
//	96      1184  zeros, where an ML-KEM key would be
//	1280    n     CM
//	1280+n  32    SHA-256 over network and all before
const hello = ntor.ClientSize - hash

// Begin implements onion.Suite.
func (Suite) Begin(rand io.Reader, id, onionKey, network [32]byte, cm []byte) (onion.Handshake, []byte, error) {
	if len(cm) > ntor.MaxExtensions {
		return nil, nil, fmt.Errorf("starting a circuit handshake: %d bytes: %w", len(cm), ntor.ErrTooLong)
	}
	var random [seed]byte
	if _, err := io.ReadFull(rand, random[:]); err != nil {
		return nil, nil, fmt.Errorf("starting a circuit handshake: reading entropy: %w", err)
	}
	message := make([]byte, hello, hello+len(cm)+hash)
	copy(message, id[:])
	copy(message[32:], onionKey[:])
	copy(message[64:], random[:point])
	message = append(message, cm...)
	mac := sum(network[:], message)
	return &handshake{mac: mac}, append(message, mac[:]...), nil
}

// Answer implements onion.Suite. The reply is:
//
//	0     32    random
//	32    1088  zeros, where an ML-KEM ciphertext would be
//	1120  32    SHA-256 over the client's and the random and SM
//	1152  n     SM
func (Suite) Answer(
	rand io.Reader, id [32]byte, onionKeys []*ntor.OnionKey, network [32]byte, message []byte, accept func(cm []byte) (sm []byte, err error),
) (keys ntor.Keys, reply []byte, err error) {
	fail := func(err error) (ntor.Keys, []byte, error) {
		return ntor.Keys{}, nil, fmt.Errorf("answering a circuit handshake: %w", err)
	}
	switch {
	case len(message) < ntor.ClientSize:
		return fail(ntor.ErrTruncated)
	case len(message) > ntor.ClientSize+ntor.MaxExtensions:
		return fail(ntor.ErrTooLong)
	case [32]byte(message) != id:
		return fail(ntor.ErrWrongIdentity)
	case !has(onionKeys, [32]byte(message[32:])):
		return fail(ntor.ErrUnknownOnionKey)
	}
	said, mac := message[:len(message)-hash], [hash]byte(message[len(message)-hash:])
	if sum(network[:], said) != mac {
		return fail(ntor.ErrAuth)
	}
	sm, err := accept(bytes.Clone(said[hello:]))
	if err != nil {
		return fail(fmt.Errorf("client's request: %w", err))
	}
	if len(sm) > ntor.MaxExtensions {
		return fail(ntor.ErrTooLong)
	}
	var random [2 * point]byte // as ntor reads it
	if _, err := io.ReadFull(rand, random[:]); err != nil {
		return fail(fmt.Errorf("reading entropy: %w", err))
	}
	reply = make([]byte, ntor.ServerSize, ntor.ServerSize+len(sm))
	copy(reply, random[:point])
	auth := sum(mac[:], reply[:point], sm)
	copy(reply[ntor.ServerSize-hash:], auth[:])
	return keysOf(auth), append(reply, sm...), nil
}

func has(keys []*ntor.OnionKey, public [32]byte) bool {
	for _, k := range keys {
		if k.Public() == public {
			return true
		}
	}
	return false
}

// handshake implements onion.Handshake.
type handshake struct {
	mac      [hash]byte
	finished bool
}

func (h *handshake) Finish(reply []byte) (keys ntor.Keys, sm []byte, err error) {
	finished := h.finished
	h.finished = true
	switch {
	case finished:
		err = ntor.ErrFinished
	case len(reply) < ntor.ServerSize:
		err = ntor.ErrTruncated
	case len(reply) > ntor.ServerSize+ntor.MaxExtensions:
		err = ntor.ErrTooLong
	case sum(h.mac[:], reply[:point], reply[ntor.ServerSize:]) != [hash]byte(reply[ntor.ServerSize-hash:]):
		err = ntor.ErrAuth
	}
	if err != nil {
		return ntor.Keys{}, nil, fmt.Errorf("finishing a circuit handshake: %w", err)
	}
	return keysOf([hash]byte(reply[ntor.ServerSize-hash:])), bytes.Clone(reply[ntor.ServerSize:]), nil
}

func sum(parts ...[]byte) (s [hash]byte) {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(s[:0])
	return s
}

// keysOf makes keys that differ for each handshake.
func keysOf(s [hash]byte) (keys ntor.Keys) {
	for i := 0; i < len(keys.Material); i += hash {
		s = sha256.Sum256(s[:])
		copy(keys.Material[i:], s[:])
	}
	keys.Binder = sha256.Sum256(s[:])
	return keys
}

// direction is one way at one hop. The tag of a cell that is for, or from, the hop is
//
//	0  8  the direction's name
//	8  8  a digest of the command, the payload, and of how many such cells came before
type direction struct {
	size  int // of a body; -1 once erased
	name  uint64
	count uint64
}

func (d *direction) init(size int, key []byte) {
	d.size, d.name = size, binary.LittleEndian.Uint64(key)
}

func (d *direction) check(body []byte) {
	if len(body) != d.size {
		panic(fmt.Sprintf("standin: a body of %d bytes for a layer of %d", len(body), d.size))
	}
}

func (d *direction) seal(cmd byte, body []byte) {
	d.check(body)
	binary.LittleEndian.PutUint64(body, d.name)
	binary.LittleEndian.PutUint64(body[8:], d.digest(cmd, body))
	d.count++
}

func (d *direction) recognise(cmd byte, body []byte) bool {
	d.check(body)
	if binary.LittleEndian.Uint64(body) != d.name || binary.LittleEndian.Uint64(body[8:]) != d.digest(cmd, body) {
		return false
	}
	d.count++
	return true
}

func (d *direction) digest(cmd byte, body []byte) uint64 {
	const k0, k1 = 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9
	a, b := d.name^uint64(cmd), d.count^k1
	p := body[cgo.TagSize:]
	for ; len(p) >= 32; p = p[32:] {
		x := (*[32]byte)(p)
		a = fold(binary.LittleEndian.Uint64(x[0:8])^k0^a, binary.LittleEndian.Uint64(x[8:16])^k1)
		b = fold(binary.LittleEndian.Uint64(x[16:24])^k1^b, binary.LittleEndian.Uint64(x[24:32])^k0)
	}
	for _, x := range p {
		a = fold(a^k0, uint64(x)^k1)
	}
	return fold(a^k1, b^k0)
}

func fold(x, y uint64) uint64 {
	high, low := bits.Mul64(x, y)
	return high ^ low
}

// layer implements onion.ClientLayer, and relayLayer onion.RelayLayer: cells that are for others pass as they are.
type layer struct{ forward, backward direction }

type relayLayer struct{ layer }

func (l *layer) init(bodySize int, keys []byte) error {
	switch {
	case bodySize < cgo.MinBodySize || bodySize > cgo.MaxBodySize:
		return fmt.Errorf("making a layer: bodies of %d bytes", bodySize)
	case len(keys) != cgo.KeyMaterialSize:
		return fmt.Errorf("making a layer: %d bytes of key material, want %d", len(keys), cgo.KeyMaterialSize)
	}
	l.forward.init(bodySize, keys)
	l.backward.init(bodySize, keys[cgo.KeyMaterialSize/2:])
	return nil
}

// ClientLayer implements onion.Suite.
func (Suite) ClientLayer(bodySize int, keys []byte) (onion.ClientLayer, error) {
	l := new(layer)
	if err := l.init(bodySize, keys); err != nil {
		return nil, err
	}
	return l, nil
}

// RelayLayer implements onion.Suite.
func (Suite) RelayLayer(bodySize int, keys []byte) (onion.RelayLayer, error) {
	l := new(relayLayer)
	if err := l.init(bodySize, keys); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *layer) Originate(cmd byte, body []byte)     { l.forward.seal(cmd, body) }
func (l *layer) Forward(_ byte, body []byte)         { l.forward.check(body) }
func (l *layer) Backward(cmd byte, body []byte) bool { return l.backward.recognise(cmd, body) }

func (l *relayLayer) Forward(cmd byte, body []byte) bool { return l.forward.recognise(cmd, body) }
func (l *relayLayer) Backward(_ byte, body []byte)       { l.backward.check(body) }
func (l *relayLayer) Originate(cmd byte, body []byte)    { l.backward.seal(cmd, body) }

// Rest does nothing: these keys are small.
func (l *relayLayer) Rest() {}

func (l *layer) Erase() { l.forward, l.backward = direction{size: -1}, direction{size: -1} }
