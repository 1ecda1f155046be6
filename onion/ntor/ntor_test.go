package ntor

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// entropy is a reproducible source, another one for each name.
func entropy(name string) io.Reader {
	return rand.NewChaCha8(sha256.Sum256([]byte(name)))
}

func bytesOf(name string) (out [32]byte) {
	io.ReadFull(entropy(name), out[:])
	return out
}

// relayEnd is a relay with one onion key, in one network.
type relayEnd struct {
	id      [32]byte
	network [32]byte
	key     *OnionKey
}

func newRelayEnd(t testing.TB) relayEnd {
	t.Helper()
	return relayEnd{id: bytesOf("identity"), network: bytesOf("network"), key: NewOnionKey(bytesOf("onion key"))}
}

func (r relayEnd) client(t testing.TB, name string, cm []byte) (*Client, []byte) {
	t.Helper()
	c, message, err := NewClient(entropy(name), r.id, r.key.Public(), r.network, cm)
	if err != nil {
		t.Fatal(err)
	}
	return c, message
}

// answer is Server with reproducible entropy and a relay that answers sm.
func (r relayEnd) answer(message, sm []byte) (Keys, []byte, error) {
	return Server(entropies("relay", "relay"), r.id, []*OnionKey{r.key}, r.network, message,
		func([]byte) ([]byte, error) { return sm, nil })
}

func (r relayEnd) mustAnswer(t testing.TB, message, sm []byte) (Keys, []byte) {
	t.Helper()
	keys, reply, err := r.answer(message, sm)
	if err != nil {
		t.Fatal(err)
	}
	return keys, reply
}

// entropies is the entropy of Server: of one name for X25519, of another for ML-KEM.
func entropies(name, encapsulation string) io.Reader {
	random := bytesOf("encapsulation of " + encapsulation)
	return io.MultiReader(io.LimitReader(entropy(name), 32), bytes.NewReader(random[:]))
}

// wantRefused fails unless the error is want and nothing came with it.
func wantRefused(t testing.TB, what string, want error, keys Keys, out []byte, err error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
	if keys != (Keys{}) || out != nil {
		t.Fatalf("%s: refused, but keys or bytes came with the error", what)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	if ClientSize != 1312 || ServerSize != 1152 {
		t.Errorf("messages are %d and %d bytes, want 1312 and 1152", ClientSize, ServerSize)
	}
}

// TestBothEndsAgree: with extension lists of all sizes either way, both ends
// hold the same keys and each gets what the other sent.
func TestBothEndsAgree(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	full := bytes.Repeat([]byte{0x5a}, MaxExtensions)
	for _, sizes := range [][2]int{{0, 0}, {1, 0}, {0, 1}, {15, 16}, {17, 33}, {MaxExtensions, MaxExtensions}} {
		cm, sm := full[:sizes[0]], full[:sizes[1]]
		client, message := r.client(t, "client", cm)
		if len(message) != ClientSize+len(cm) {
			t.Errorf("client message of %d bytes, want %d", len(message), ClientSize+len(cm))
		}
		calls := 0
		// The default encapsulation, as in a daemon.
		relayKeys, reply, err := Server(entropy("relay"), r.id, []*OnionKey{r.key}, r.network, message,
			func(got []byte) ([]byte, error) {
				calls++
				if !bytes.Equal(got, cm) {
					t.Errorf("relay reads CM %x, want %x", got, cm)
				}
				return sm, nil
			})
		if err != nil {
			t.Fatal(err)
		}
		if calls != 1 {
			t.Errorf("accept was called %d times", calls)
		}
		if len(reply) != ServerSize+len(sm) {
			t.Errorf("relay message of %d bytes, want %d", len(reply), ServerSize+len(sm))
		}
		clientKeys, gotSM, err := client.Finish(reply)
		if err != nil {
			t.Fatal(err)
		}
		if clientKeys != relayKeys {
			t.Error("the two ends hold different keys")
		}
		if !bytes.Equal(gotSM, sm) {
			t.Errorf("client reads SM %x, want %x", gotSM, sm)
		}
		if clientKeys.Material == ([KeyMaterialSize]byte{}) || clientKeys.Binder == ([BinderSize]byte{}) {
			t.Error("keys are zero")
		}
	}
}

// TestEveryHandshakeHasItsOwnKeys: the same client message, replayed, gives
// other keys and another reply.
func TestEveryHandshakeHasItsOwnKeys(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	_, message := r.client(t, "client", nil)
	first, reply, err := r.answer(message, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, replayed, err := Server(entropies("later", "relay"), r.id, []*OnionKey{r.key}, r.network, message,
		func([]byte) ([]byte, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	third, _, err := Server(entropies("relay", "later"), r.id, []*OnionKey{r.key}, r.network, message,
		func([]byte) ([]byte, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(reply, replayed) || first == second || first == third || second == third {
		t.Error("a replayed message gave the keys of the first handshake")
	}
}

// TestDeterministic: both messages and the keys are a function of the arguments
// and the entropy alone, and stay those of version 1 of the protocol.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	transcript := func() string {
		client, message := r.client(t, "client", []byte("cm"))
		_, reply := r.mustAnswer(t, message, []byte("sm"))
		keys, _, err := client.Finish(reply)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		for _, part := range [][]byte{message, reply, keys.Material[:], keys.Binder[:]} {
			h.Write(part)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	// Recorded from this code, when TestHybridFormulas held for it: it says that
	// the bytes on the wire have not changed since.
	const recorded = "7345ccff98181d9b36c9f43440c8541814108be3b1765bdefd00efc4da5d3d67"
	for range 2 {
		if got := transcript(); got != recorded {
			t.Errorf("transcript has digest %s, want %s", got, recorded)
		}
	}
}

// TestHybridFormulas computes a whole handshake a second time, longhand and from
// the formulas of docs/protocol.md, section 4, sharing no code with the package.
func TestHybridFormulas(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	cm, sm := []byte("what the client asks"), []byte("what the relay answers")
	client, message := r.client(t, "client", cm)
	_, reply := r.mustAnswer(t, message, sm)
	keys, _, err := client.Finish(reply)
	if err != nil {
		t.Fatal(err)
	}

	const name = "cepa-ntor3-x25519-mlkem768-sha3_256-1"
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	str := func(s string) []byte { return []byte(s) }
	encap := func(s []byte) []byte { return append(binary.BigEndian.AppendUint64(nil, uint64(len(s))), s...) }
	hash := func(s []byte, suffix string) []byte {
		sum := sha3.Sum256(cat(encap(str(name+suffix)), s))
		return sum[:]
	}
	kdf := func(s []byte, suffix string, n int) []byte {
		return sha3.SumSHAKE256(cat(encap(str(name+suffix)), s), n)
	}
	ctr := func(key, text []byte) []byte {
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, len(text))
		cipher.NewCTR(block, make([]byte, 16)).XORKeyStream(out, text)
		return out
	}
	dh := func(private, public []byte) []byte {
		k, err := ecdh.X25519().NewPrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ecdh.X25519().NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		shared, err := k.ECDH(p)
		if err != nil {
			t.Fatal(err)
		}
		return shared
	}
	base := append([]byte{9}, make([]byte, 31)...)

	var seed [96]byte
	io.ReadFull(entropy("client"), seed[:])
	x, y, b := seed[:32], make([]byte, 32), bytesOf("onion key")
	io.ReadFull(entropy("relay"), y)
	X, Y, B := dh(x, base), dh(y, base), dh(b[:], base)
	decapsulation, err := mlkem.NewDecapsulationKey768(seed[32:])
	if err != nil {
		t.Fatal(err)
	}
	ek := decapsulation.EncapsulationKey().Bytes()
	random := bytesOf("encapsulation of relay")
	K, ct, err := mlkemtest.Encapsulate768(decapsulation.EncapsulationKey(), random[:])
	if err != nil {
		t.Fatal(err)
	}
	ID, network := r.id[:], r.network[:]
	VER := cat(str("cepa1 circuit"), network)

	k1 := kdf(cat(dh(x, B), ID, X, B, str(name), encap(VER)), ":kdf_phase1", 64)
	e := ctr(k1[:32], cm)
	mac := hash(cat(encap(k1[32:]), ID, B, X, ek, e), ":msg_mac")
	if want := cat(ID, B, X, ek, e, mac); !bytes.Equal(message, want) {
		t.Errorf("client message is\n%x, the formulas say\n%x", message, want)
	}
	secret := cat(dh(y, X), dh(b[:], X), K, ID, B, X, Y, ek, ct, str(name), encap(VER))
	stream := kdf(hash(secret, ":key_seed"), ":kdf_final", 32+160+32)
	sealed := ctr(stream[:32], sm)
	auth := hash(cat(hash(secret, ":verify"), ID, B, Y, X, ct, mac, encap(sealed), str(name), str("Server")), ":auth_final")
	if want := cat(Y, ct, auth, sealed); !bytes.Equal(reply, want) {
		t.Errorf("relay message is\n%x, the formulas say\n%x", reply, want)
	}
	if !bytes.Equal(keys.Material[:], stream[32:192]) || !bytes.Equal(keys.Binder[:], stream[192:]) {
		t.Error("keys are not those of the formulas")
	}
}

// TestPreviousOnionKeyIsAccepted: while a relay passes it, a client that has not
// seen the new key is served; afterwards it is refused.
func TestPreviousOnionKeyIsAccepted(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	previous := r.key
	current := NewOnionKey(bytesOf("next onion key"))
	client, message := r.client(t, "client", nil)
	nothing := func([]byte) ([]byte, error) { return nil, nil }
	want, reply, err := Server(entropy("relay"), r.id, []*OnionKey{current, previous}, r.network, message, nothing)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := client.Finish(reply)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Error("the two ends hold different keys")
	}
	for _, onionKeys := range [][]*OnionKey{{current}, {}, nil} {
		keys, reply, err := Server(entropy("relay"), r.id, onionKeys, r.network, message, nothing)
		wantRefused(t, "retired onion key", ErrUnknownOnionKey, keys, reply, err)
	}
}

// TestRefusedByRelay: the error of accept comes back, and no entropy is spent.
func TestRefusedByRelay(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	_, message := r.client(t, "client", []byte("too much"))
	refusal := errors.New("not supported")
	keys, reply, err := Server(failingReader{t}, r.id, []*OnionKey{r.key}, r.network, message,
		func([]byte) ([]byte, error) { return nil, refusal })
	wantRefused(t, "refused request", refusal, keys, reply, err)
	keys, reply, err = Server(failingReader{t}, r.id, []*OnionKey{r.key}, r.network, message,
		func([]byte) ([]byte, error) { return make([]byte, MaxExtensions+1), nil })
	wantRefused(t, "SM too long", ErrTooLong, keys, reply, err)
}

type failingReader struct{ t *testing.T }

func (f failingReader) Read([]byte) (int, error) {
	f.t.Error("entropy was read")
	return 0, io.EOF
}

// TestEntropyRunsOut: half a seed is an error, never a key.
func TestEntropyRunsOut(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	if c, message, err := NewClient(io.LimitReader(entropy("client"), 95), r.id, r.key.Public(), r.network, nil); !errors.Is(err, io.ErrUnexpectedEOF) || c != nil || message != nil {
		t.Errorf("client with 95 bytes of entropy: %v", err)
	}
	_, message := r.client(t, "client", nil)
	keys, reply, err := Server(io.LimitReader(entropy("relay"), 63), r.id, []*OnionKey{r.key}, r.network, message,
		func([]byte) ([]byte, error) { return nil, nil })
	wantRefused(t, "relay with 63 bytes of entropy", io.ErrUnexpectedEOF, keys, reply, err)
}

func TestFinishWorksOnce(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	client, message := r.client(t, "client", nil)
	_, reply := r.mustAnswer(t, message, nil)
	if _, _, err := client.Finish(reply); err != nil {
		t.Fatal(err)
	}
	keys, sm, err := client.Finish(reply)
	wantRefused(t, "second Finish", ErrFinished, keys, sm, err)

	client, message = r.client(t, "client", nil)
	_, reply = r.mustAnswer(t, message, nil)
	keys, sm, err = client.Finish(nil)
	wantRefused(t, "empty reply", ErrTruncated, keys, sm, err)
	keys, sm, err = client.Finish(reply)
	wantRefused(t, "good reply after a bad one", ErrFinished, keys, sm, err)
}

// TestSecretsAreErased: what the package can overwrite is zero after Finish,
// whether it succeeded or not.
func TestSecretsAreErased(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	for _, damage := range []byte{0, 1} {
		client, message := r.client(t, "client", nil)
		_, reply := r.mustAnswer(t, message, nil)
		reply[ServerSize-1] ^= damage
		core := client.core
		if core.exchange.static == ([32]byte{}) {
			t.Fatal("there is nothing to erase")
		}
		if _, _, err := client.Finish(reply); (err == nil) != (damage == 0) {
			t.Fatal(err)
		}
		e := &core.exchange
		if len(e.kem) != mlkem.SharedKeySize {
			t.Fatal("no ML-KEM key was made")
		}
		for _, secret := range [][]byte{e.static[:], e.ephemeral[:], e.kem} {
			if !bytes.Equal(secret, make([]byte, len(secret))) {
				t.Error("a shared secret is left in memory")
			}
		}
		if client.core != nil {
			t.Error("the private keys are still referred to")
		}
	}
}
