// Package ntor is the circuit handshake: ntor version 3 with an ephemeral
// ML-KEM-768 key added. A client that knows a relay's identity and onion key
// sends one message, the relay answers with one, and both hold the same keys
// of one hop. The normative text is section 4 of docs/protocol.md.
//
// The package turns bytes into bytes and keys. It does not frame the messages
// into CREATE, CREATED, EXTEND and EXTENDED, does not say what an extension
// means, does not rotate or store onion keys, and does not limit how many
// handshakes a neighbour may ask for. The circuit package starts and finishes
// handshakes, the relay package answers them.
//
// # Concurrency and entropy
//
// Functions may be called from any goroutine. An [OnionKey] does not change
// and may be shared; a [Client] belongs to one goroutine at a time. Nothing
// here reads a clock or a global source of randomness, with one exception:
// [Server] with a nil encapsulate function lets crypto/mlkem draw from the
// system. All else is a function of the arguments and of what rand returns.
//
// # What it protects
//
// The relay is authenticated by its X25519 onion key and the client is
// anonymous. Keys stay secret from somebody who records the traffic and later
// has a quantum computer, because ML-KEM-768 is mixed in; somebody who has one
// today and attacks actively could pose as the relay. A client message can be
// replayed to the relay, and its extensions CM are protected by the onion key
// alone: no forward secrecy, no post-quantum secrecy. They hold nothing secret
// and nothing that must happen only once. The relay's extensions SM are as
// secret as the circuit keys.
//
// # Notation
//
// "|" concatenates. ENCAP(s) is the length of s as 8 bytes, big endian, then
// s. For a suffix ":name", t is ENCAP(PROTOID | ":name").
//
//	PROTOID        "cepa-ntor3-x25519-mlkem768-sha3_256-1"
//	VER            "cepa1 circuit" | network id (32)
//	H(s, :name)    SHA3-256(t | s), 32 bytes
//	MAC(k, m, :name) SHA3-256(t | ENCAP(k) | m), 32 bytes
//	KDF(s, :name)  SHAKE-256(t | s), a stream
//	ENC(k, m)      AES-256-CTR, key k, initial counter block zero
//	ID             the relay's Ed25519 identity, 32 bytes
//	b, B           the relay's onion key, X25519
//	x, X and y, Y  the client's and the relay's ephemeral keys, X25519
//	ek, ct, K      ML-KEM-768: the client's encapsulation key, the relay's
//	               ciphertext, the shared key of 32 bytes
//
// # Client message: ClientSize + len(CM) bytes
//
//	offset       size  field
//	0            32    ID
//	32           32    B
//	64           32    X
//	96           1184  ek
//	1280         c     e = ENC(ENC_K1, CM), 0 <= c <= MaxExtensions
//	1280 + c     32    mac
//
//	ENC_K1 (32) | MAC_K1 (32) =
//	    KDF(X25519(x,B) | ID | X | B | PROTOID | ENCAP(VER), :kdf_phase1)
//	mac = MAC(MAC_K1, ID | B | X | ek | e, :msg_mac)
//
// # Relay message: ServerSize + len(SM) bytes
//
//	offset       size  field
//	0            32    Y
//	32           1088  ct
//	1120         32    AUTH
//	1152         s     e' = ENC(ENC_KEY, SM), 0 <= s <= MaxExtensions
//
//	secret = X25519(y,X) | X25519(b,X) | K | ID | B | X | Y | ek | ct |
//	         PROTOID | ENCAP(VER)
//	seed   = H(secret, :key_seed)
//	verify = H(secret, :verify)
//	ENC_KEY (32) | cell keys (160) | binder (32) = KDF(seed, :kdf_final)
//	AUTH   = H(verify | ID | B | Y | X | ct | mac | ENCAP(e') | PROTOID |
//	         "Server", :auth_final)
//
// The first bytes of the relay's stream after ENC_KEY are the keys of the cell
// cipher, the next 32 the circuit binder, a value that only the two ends of
// the hop know and that other protocols may sign or mix in.
//
// Both ends refuse a Diffie-Hellman result of zero and compare mac and AUTH in
// constant time. Without K, ek and ct, and with the PROTOID and VER of Tor, the
// formulas are those of ntor version 3; the package is tested against the
// published vector in that form.
//
// # Extensions
//
// CM and SM are lists of extensions, each
//
//	type u16 | length u16 | data
//
// with types strictly rising and nothing after the last; see
// [ParseExtensions]. The handshake itself carries them as opaque bytes.
//
// # Erasing
//
// Shared secrets, derived keys and seeds are overwritten once used. Private
// ML-KEM keys and cipher schedules inside crypto/aes cannot be overwritten from
// outside; they are dropped at the earliest moment and left to the garbage
// collector.
//
// # Sources
//
// Tor proposal 332 (ntor version 3 with extra data), with the shape of the
// hybrid after Tor proposal 269; FIPS 203 (ML-KEM); RFC 7748 (X25519);
// FIPS 202 (SHA-3 and SHAKE).
package ntor
