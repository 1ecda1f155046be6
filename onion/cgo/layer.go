package cgo

import "fmt"

const (
	blockSize    = 16
	layerKeySize = 5 * blockSize // KB | KU | K | B | N
	updateBlocks = layerKeySize / blockSize
)

// A layer is the keys and the chaining state of one direction at one hop: the
// rugged pseudorandom permutation UIV+ of the paper, with N and T'.
type layer struct {
	kern     kernel
	bodySize int // -1 once erased

	first   uint8 // keystream block at which the key update begins
	ivClear uint8 // low bits of the last byte of an IV that are cleared
	used    bool  // since rest

	key   [3]block // KB, KU and K
	b     block    // B
	nonce block    // N
	chain block    // T'

	*expanded // nil while the layer rests
}

// expanded is what the keys of a layer are expanded to, nine times as large as
// they are: a layer that rests does without.
type expanded struct {
	kb aesKey
	ku hashKey
	k  aesKey

	// Working space, here because arguments of interface methods would be
	// allocated on the heap if they were local variables.
	next block // T' after a decryption
	tag  block
	mask block
	keys [layerKeySize]byte
}

type block = [blockSize]byte

func (l *layer) init(kern kernel, bodySize int, keys *[layerKeySize]byte) {
	blocks := (bodySize - TagSize + blockSize - 1) / blockSize
	clear := 1
	for clear < blocks+updateBlocks {
		clear *= 2
	}
	l.kern = kern
	l.bodySize = bodySize
	l.first = uint8(blocks)
	l.ivClear = uint8(clear - 1)
	l.expanded = new(expanded)
	l.keys = *keys
	l.setKeys()
}

// setKeys makes l.keys the layer's keys and nonce, and wipes it.
func (l *layer) setKeys() {
	for i := range l.key {
		l.key[i] = block(l.keys[i*blockSize:])
	}
	copy(l.b[:], l.keys[48:])
	copy(l.nonce[:], l.keys[64:])
	l.keys = [layerKeySize]byte{}
	l.expand()
}

func (l *layer) expand() {
	l.kern.expandAES(&l.kb, &l.key[0])
	l.kern.expandHash(&l.ku, &l.key[1])
	l.kern.expandAES(&l.k, &l.key[2])
}

// rest gives up what the keys are expanded to, unless the layer was used since
// the last call.
func (l *layer) rest() {
	if !l.used && l.expanded != nil {
		*l.expanded = expanded{}
		l.expanded = nil
	}
	l.used = false
}

// ready panics unless body has the layer's size, and wakes the layer if it
// rests. A wrong size is a bug of the caller: cells have one size, and the
// state is not used once erased.
func (l *layer) ready(body []byte) {
	if len(body) != l.bodySize {
		if l.bodySize < 0 {
			panic("cgo: use of an erased layer")
		}
		panic(fmt.Sprintf("cgo: body of %d bytes in a layer for %d", len(body), l.bodySize))
	}
	l.used = true
	if l.expanded == nil {
		l.expanded = new(expanded)
		l.expand()
	}
}

func (l *layer) erase() {
	if l.expanded != nil {
		*l.expanded = expanded{}
	}
	*l = layer{bodySize: -1}
}

// encrypt is UIV+ encryption of body with the tweak (T', cmd). It leaves T' as
// it is.
func (l *layer) encrypt(cmd byte, body []byte) {
	l.encryptTag(cmd, body)
	l.keystream((*block)(body), 0, body[TagSize:])
}

// decrypt is the inverse of encrypt.
func (l *layer) decrypt(cmd byte, body []byte) {
	l.keystream((*block)(body), 0, body[TagSize:])
	l.decryptTag(cmd, body)
}

// update replaces the keys and the nonce by keystream made from the nonce; the
// old ones are overwritten.
func (l *layer) update() {
	l.keystream(&l.nonce, l.first, l.keys[:])
	l.setKeys()
}

// encryptTag is the tweakable block cipher: it encrypts the tag of body under
// KB and KU with the tweak (T', cmd, rest of body).
func (l *layer) encryptTag(cmd byte, body []byte) {
	l.tweak(cmd, body)
	l.kern.encrypt(&l.kb, &l.tag, &l.mask)
	*(*block)(body) = l.tag
}

// decryptTag is the inverse of encryptTag.
func (l *layer) decryptTag(cmd byte, body []byte) {
	l.tweak(cmd, body)
	l.kern.decrypt(&l.kb, &l.tag, &l.mask)
	*(*block)(body) = l.tag
}

// tweak moves the tag of body to l.tag and sets l.mask to the hash of the
// tweak. The command byte must stand in front of the rest of the body: it takes
// the place of the last byte of the tag, which saves copying the body.
func (l *layer) tweak(cmd byte, body []byte) {
	l.tag = block(body)
	body[TagSize-1] = cmd
	l.mask = l.chain
	l.kern.hash(&l.ku, &l.mask, body[TagSize-1:])
}

// keystream is the PRF: it XORs into data the keystream for x under K and B,
// starting with the given block. x may lie in front of data.
func (l *layer) keystream(x *block, first uint8, data []byte) {
	l.kern.keystream(&l.k, &l.b, x, l.ivClear, first, data)
}
