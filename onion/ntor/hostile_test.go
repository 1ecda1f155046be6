package ntor

import (
	"bytes"
	"crypto/mlkem"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
)

// Offsets in the two messages, from the byte tables of the package comment.
const (
	offsetB    = 32
	offsetX    = 64
	offsetEK   = 96
	offsetE    = 1280
	offsetCT   = 32
	offsetAUTH = 1120
)

// lowOrderPoints are the encodings of all points of small order on Curve25519
// and its twist, with those that are not reduced modulo 2^255-19.
func lowOrderPoints(t testing.TB) [][32]byte {
	t.Helper()
	var points [][32]byte
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000", // 0
		"0100000000000000000000000000000000000000000000000000000000000000", // 1
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", // order 8
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", // order 8
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p-1
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+1
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		point := [32]byte(b)
		points = append(points, point)
		point[31] |= 0x80 // the top bit is ignored by X25519
		points = append(points, point)
	}
	return points
}

// step is the distance between the bits that a test flips: each, or one a byte
// in short mode (another one in every byte).
func step() int {
	if testing.Short() {
		return 9
	}
	return 1
}

// TestEveryFlippedBitOfClientMessage: the relay refuses it with the error that
// belongs to the field, and accept never sees it.
func TestEveryFlippedBitOfClientMessage(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	cm := []byte("twenty bytes of cm..")
	_, message := r.client(t, "client", cm)
	r.mustAnswer(t, message, nil)
	for bit := 0; bit < len(message)*8; bit += step() {
		var want error
		switch {
		case bit/8 < offsetB:
			want = ErrWrongIdentity
		case bit/8 < offsetX:
			want = ErrUnknownOnionKey
		default:
			want = ErrAuth
		}
		altered := bytes.Clone(message)
		altered[bit/8] ^= 1 << (bit % 8)
		keys, reply, err := Server(entropies("relay", "relay"), r.id, []*OnionKey{r.key}, r.network, altered,
			func([]byte) ([]byte, error) {
				t.Errorf("bit %d: accept was called", bit)
				return nil, nil
			})
		wantRefused(t, fmt.Sprintf("bit %d", bit), want, keys, reply, err)
	}
}

// TestEveryFlippedBitOfRelayMessage: the client refuses it.
func TestEveryFlippedBitOfRelayMessage(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	client, message := r.client(t, "client", nil)
	_, reply := r.mustAnswer(t, message, []byte("twenty bytes of sm.."))
	if _, _, err := client.Finish(bytes.Clone(reply)); err != nil {
		t.Fatal(err)
	}
	for bit := 0; bit < len(reply)*8; bit += step() {
		client, _ := r.client(t, "client", nil)
		altered := bytes.Clone(reply)
		altered[bit/8] ^= 1 << (bit % 8)
		keys, sm, err := client.Finish(altered)
		wantRefused(t, fmt.Sprintf("bit %d", bit), ErrAuth, keys, sm, err)
	}
}

// TestTruncatedAndExtendedMessages: of every other length, made by cutting or by
// adding bytes, both messages are refused. Where the length could be right, with
// fewer or more extensions, authentication fails.
func TestTruncatedAndExtendedMessages(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	extensions := bytes.Repeat([]byte{7}, 20)
	_, message := r.client(t, "client", extensions)
	_, reply := r.mustAnswer(t, message, extensions)

	want := func(n, fixed int) error {
		switch {
		case n < fixed:
			return ErrTruncated
		case n > fixed+MaxExtensions:
			return ErrTooLong
		default:
			return ErrAuth
		}
	}
	longMessage := append(bytes.Clone(message), make([]byte, MaxExtensions)...)
	for n := range longMessage {
		if n == len(message) {
			continue
		}
		keys, out, err := r.answer(longMessage[:n], nil)
		wantRefused(t, fmt.Sprintf("client message of %d bytes", n), want(n, ClientSize), keys, out, err)
	}
	longReply := append(bytes.Clone(reply), make([]byte, MaxExtensions)...)
	for n := range longReply {
		if n == len(reply) {
			continue
		}
		client, _ := r.client(t, "client", extensions)
		keys, out, err := client.Finish(longReply[:n])
		wantRefused(t, fmt.Sprintf("relay message of %d bytes", n), want(n, ServerSize), keys, out, err)
	}
	// Bytes taken from the middle, so that the last fields are whole.
	for _, at := range []int{offsetB, offsetX, offsetEK, offsetE} {
		keys, out, err := r.answer(append(bytes.Clone(message[:at]), message[at+1:]...), nil)
		if err == nil || out != nil || keys != (Keys{}) {
			t.Errorf("client message without byte %d was answered", at)
		}
	}
	for _, at := range []int{0, offsetCT, offsetAUTH, ServerSize} {
		client, _ := r.client(t, "client", extensions)
		keys, out, err := client.Finish(append(bytes.Clone(reply[:at]), reply[at+1:]...))
		wantRefused(t, fmt.Sprintf("relay message without byte %d", at), ErrAuth, keys, out, err)
	}
}

func TestTooLongExtensionsAreNotSent(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	client, message, err := NewClient(entropy("client"), r.id, r.key.Public(), r.network, make([]byte, MaxExtensions+1))
	if !errors.Is(err, ErrTooLong) || client != nil || message != nil {
		t.Errorf("error %v, want %v", err, ErrTooLong)
	}
}

// TestWrongRelay: a message for another identity, onion key or network is
// refused, and a relay that pretends to be another cannot finish.
func TestWrongRelay(t *testing.T) {
	t.Parallel()
	right := newRelayEnd(t)
	otherKey := NewOnionKey(bytesOf("other onion key"))
	identity, key, network := right, right, right
	identity.id[0] ^= 1
	key.key = otherKey
	network.network[31] ^= 0x80

	for _, c := range []struct {
		name  string
		relay relayEnd
		want  error
	}{
		{"identity", identity, ErrWrongIdentity},
		{"onion key", key, ErrUnknownOnionKey},
		{"network", network, ErrAuth},
	} {
		client, message := right.client(t, "client", nil)
		keys, out, err := c.relay.answer(message, nil)
		wantRefused(t, "message for another "+c.name, c.want, keys, out, err)

		// The relay that answers is given a message that it takes for its own,
		// which is the best that a man in the middle can arrange.
		_, forged := c.relay.client(t, "client", nil)
		_, reply := c.relay.mustAnswer(t, forged, nil)
		keys, out, err = client.Finish(reply)
		wantRefused(t, "answer of a relay of another "+c.name, ErrAuth, keys, out, err)
	}
}

// TestRepliesOfTwoClientsSwapped: each reply works for its own client only.
func TestRepliesOfTwoClientsSwapped(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	alice, fromAlice := r.client(t, "alice", nil)
	bob, fromBob := r.client(t, "bob", nil)
	_, toAlice := r.mustAnswer(t, fromAlice, nil)
	_, toBob := r.mustAnswer(t, fromBob, nil)
	keys, sm, err := alice.Finish(toBob)
	wantRefused(t, "Alice with Bob's reply", ErrAuth, keys, sm, err)
	keys, sm, err = bob.Finish(toAlice)
	wantRefused(t, "Bob with Alice's reply", ErrAuth, keys, sm, err)
}

// TestFieldsOfTwoHandshakesMixed: no field of one reply can stand in another,
// so that neither the classical nor the post-quantum half can be exchanged.
func TestFieldsOfTwoHandshakesMixed(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	_, message := r.client(t, "client", nil)
	_, first := r.mustAnswer(t, message, []byte("first"))
	_, second, err := Server(entropies("later", "later"), r.id, []*OnionKey{r.key}, r.network, message,
		func([]byte) ([]byte, error) { return []byte("other"), nil })
	if err != nil {
		t.Fatal(err)
	}
	fields := []int{0, offsetCT, offsetAUTH, ServerSize, len(first)}
	for mask := 1; mask < 1<<4-1; mask++ {
		mixed := bytes.Clone(first)
		for field := range 4 {
			if mask&(1<<field) != 0 {
				copy(mixed[fields[field]:fields[field+1]], second[fields[field]:])
			}
		}
		client, _ := r.client(t, "client", nil)
		keys, sm, err := client.Finish(mixed)
		wantRefused(t, fmt.Sprintf("mix %04b", mask), ErrAuth, keys, sm, err)
	}
}

// TestLowOrderPoints: in the place of B, X or Y they are refused as such, before
// any mac is looked at.
func TestLowOrderPoints(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	_, message := r.client(t, "client", nil)
	_, reply := r.mustAnswer(t, message, nil)
	for _, point := range lowOrderPoints(t) {
		client, out, err := NewClient(entropy("client"), r.id, point, r.network, nil)
		if !errors.Is(err, ErrLowOrder) || client != nil || out != nil {
			t.Errorf("B %x: error %v, want %v", point, err, ErrLowOrder)
		}

		altered := bytes.Clone(message)
		copy(altered[offsetX:], point[:])
		keys, out, err := r.answer(altered, nil)
		wantRefused(t, fmt.Sprintf("X %x", point), ErrLowOrder, keys, out, err)

		// The same with the mac that anybody can compute, since the shared secret
		// of such an X is zero.
		p := hybrid(r.network)
		forged := &exchange{id: r.id, onionKey: r.key.Public(), x: point, ek: message[offsetEK:offsetE]}
		keys, out, err = r.answer(p.sealOffer(forged, nil), nil)
		wantRefused(t, fmt.Sprintf("X %x with its mac", point), ErrLowOrder, keys, out, err)

		finishing, _ := r.client(t, "client", nil)
		altered = bytes.Clone(reply)
		copy(altered, point[:])
		keys, out, err = finishing.Finish(altered)
		wantRefused(t, fmt.Sprintf("Y %x", point), ErrLowOrder, keys, out, err)

		// B in the message is compared, never computed with.
		altered = bytes.Clone(message)
		copy(altered[offsetB:], point[:])
		keys, out, err = r.answer(altered, nil)
		wantRefused(t, fmt.Sprintf("B %x in the message", point), ErrUnknownOnionKey, keys, out, err)
	}
}

// TestForgedReplyWithLowOrderPoint: even with AUTH computed for it, a Y of low
// order is refused, though the holder of b could answer with one.
func TestForgedReplyWithLowOrderPoint(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	_, message := r.client(t, "client", nil)
	p := hybrid(r.network)
	for _, point := range lowOrderPoints(t) {
		e, _, err := p.openOffer(r.id, []*OnionKey{r.key}, message)
		if err != nil {
			t.Fatal(err)
		}
		ek, err := mlkem.NewEncapsulationKey768(e.ek)
		if err != nil {
			t.Fatal(err)
		}
		e.kem, e.ct = ek.Encapsulate()
		e.y = point
		_, verify := p.secrets(e) // with an ephemeral secret of zero
		auth := p.auth(&verify, e, nil)
		reply := bytes.Join([][]byte{e.y[:], e.ct, auth[:]}, nil)

		client, _ := r.client(t, "client", nil)
		keys, sm, err := client.Finish(reply)
		wantRefused(t, fmt.Sprintf("Y %x", point), ErrLowOrder, keys, sm, err)
	}
}

// TestInvalidEncapsulationKey: a client that knows how to make a mac still
// cannot give a key with coefficients out of range (FIPS 203, section 7.2).
func TestInvalidEncapsulationKey(t *testing.T) {
	t.Parallel()
	r := newRelayEnd(t)
	_, message := r.client(t, "client", nil)
	valid := message[offsetEK:offsetE]
	p := hybrid(r.network)
	offer := func(ek []byte) []byte {
		e := &exchange{id: r.id, onionKey: r.key.Public(), ek: ek}
		x := newPrivateKey(bytes.Repeat([]byte{3}, pointSize))
		e.x = x.public
		if err := diffieHellman(&e.static, x, e.onionKey, "B"); err != nil {
			t.Fatal(err)
		}
		return p.sealOffer(e, nil)
	}
	r.mustAnswer(t, offer(valid), nil)
	// The 12-bit coefficients fill all but the last 32 bytes.
	for at := 0; at+3 <= len(valid)-32; at += 3 {
		for _, pair := range [][3]byte{{0x01, 0x0d, 0x00}, {0xff, 0x0f, 0x00}, {0x00, 0x10, 0xd0}, {0x00, 0xf0, 0xff}} {
			ek := bytes.Clone(valid)
			copy(ek[at:], pair[:]) // 3329 or 4095, first or second of two
			keys, reply, err := r.answer(offer(ek), nil)
			wantRefused(t, fmt.Sprintf("coefficients at %d", at), ErrEncapsulationKey, keys, reply, err)
		}
	}
}
