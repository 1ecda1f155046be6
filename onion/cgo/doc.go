// Package cgo is the relay crypto of a circuit: Counter Galois Onion (CGO) with
// AES-128, one layer of encryption a hop, applied in place to the body of a
// RELAY cell (docs/protocol.md, "Relay crypto").
//
// It does not know cells, circuits or relay messages: it takes the one command
// byte of the link cell and a body of a fixed size, and says whether the cell
// ends here. It draws no randomness, keeps no clock and starts no goroutine.
// Packages relay and circuit call it, once for each cell and hop.
//
// # Roles
//
// A [Relay] encrypts in both directions and a [Client] decrypts in both; this
// is what makes tagging useless, because encryption, unlike decryption, spreads
// a change of any bit over the whole output. The names are roles: a service
// that receives calls through its own circuit plays the relay.
//
// # Algorithm
//
// A body is a tag T of 16 bytes and a rest R. A layer of one direction holds
// two AES keys (KB, K), two POLYVAL keys (KU, B), a secret nonce N and the tag
// T' that the last cell had on the relay's outer side (zero at first).
//
//	encrypt:  U  = POLYVAL(KU; T' | command | R)     zero-padded
//	          T  = AES(KB; T ^ U) ^ U                a tweakable block cipher (LRW2)
//	          IV = POLYVAL(B; T), its low bits cleared
//	          R  = R ^ AES-CTR(K; IV)
//	          T' = T
//	decrypt:  the same steps in reverse order; T' is the tag as it arrived
//	update:   KB | KU | K | B | N = the next 80 bytes of keystream of IV(N)
//
// A sender that addresses a cell to this layer's far end writes N where the tag
// goes, and whoever finds T = N after its own step knows three things at once:
// the cell is for it, nobody altered it, and none before it was lost, added or
// moved (T' and N chain over all cells). Both ends then update, which destroys
// the keys that protected the cell. Towards the client, N is first replaced by
// the tag as sent.
//
// A cell altered on its way becomes noise at the next honest hop, and so does
// every later cell of that direction in that layer.
//
// The counter lives in the last byte of the block, so a body has at most
// [MaxBodySize] bytes. POLYVAL runs without a length block: the size of a body
// is a parameter of the state and never varies under one key.
//
// # Kernels
//
// AES, counter mode and POLYVAL come from a kernel, chosen once at program
// start from the features of the processor: assembly for amd64 and arm64, and a
// portable one in Go whose POLYVAL is constant-time integer arithmetic and
// whose AES is crypto/aes. The build tag purego leaves only the portable one.
// All give the same bytes.
//
// No kernel allocates for a cell, with one exception: the portable one builds
// new crypto/aes ciphers when the keys change. Those also cannot be wiped, only
// dropped; the assembly kernels overwrite every old key.
//
// # Concurrency
//
// A Relay or Client belongs to one goroutine at a time and keeps no reference
// to a body after a call. Different values are independent.
//
// # Sources
//
// J. P. Degabriele, A. Melloni, J.-P. Münch, M. Stam, "Counter Galois Onion",
// https://eprint.iacr.org/2025/583; Tor proposal 359 ("cgo-redux"); POLYVAL:
// RFC 8452. The test vectors in testdata are those of Tor.
package cgo
