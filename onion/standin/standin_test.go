package standin

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"cepa/onion"
	"cepa/onion/ntor"
)

const (
	bodySize = 2043
	command  = 4
)

// source is randomness that counts what is read of it.
type source struct {
	*rand.ChaCha8
	read int
}

func (s *source) Read(p []byte) (int, error) { s.read += len(p); return s.ChaCha8.Read(p) }

// hop is a handshake with one relay, done.
type hop struct {
	client onion.ClientLayer
	relay  onion.RelayLayer
}

// TestSizesAreThoseOfTheProtocol: both suites read as much randomness, and make messages of one size, and both ends have
// the same keys.
func TestSizesAreThoseOfTheProtocol(t *testing.T) {
	t.Parallel()
	id, network := [32]byte{1}, [32]byte{2}
	key := ntor.NewOnionKey([32]byte{3})
	for _, cm := range [][]byte{nil, bytes.Repeat([]byte{7}, 20), make([]byte, ntor.MaxExtensions)} {
		var sizes [2][4]int
		for i, s := range []onion.Suite{onion.Real{}, Suite{}} {
			a, b := &source{ChaCha8: rand.NewChaCha8([32]byte{4})}, &source{ChaCha8: rand.NewChaCha8([32]byte{5})}
			h, message, err := s.Begin(a, id, key.Public(), network, cm)
			if err != nil {
				t.Fatal(err)
			}
			keys, reply, err := s.Answer(b, id, []*ntor.OnionKey{key}, network, message, func(got []byte) ([]byte, error) {
				if !bytes.Equal(got, cm) {
					t.Errorf("CM is %x", got)
				}
				return []byte("sm"), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			same, sm, err := h.Finish(reply)
			if err != nil || same != keys || string(sm) != "sm" {
				t.Errorf("%v, SM %q, equal keys: %v", err, sm, same == keys)
			}
			if _, _, err := h.Finish(reply); !errors.Is(err, ntor.ErrFinished) {
				t.Errorf("a second reply: %v", err)
			}
			sizes[i] = [4]int{a.read, b.read, len(message), len(reply)}
		}
		if sizes[0] != sizes[1] {
			t.Errorf("randomness and messages: %v, stand-ins: %v", sizes[0], sizes[1])
		}
	}
}

// TestHandshakesFailAlike: what is not for the relay, or was altered, is refused with the protocol's errors.
func TestHandshakesFailAlike(t *testing.T) {
	t.Parallel()
	id, network := [32]byte{1}, [32]byte{2}
	key := ntor.NewOnionKey([32]byte{3})
	other := ntor.NewOnionKey([32]byte{3, 9})
	refusal := errors.New("no")
	for name, x := range map[string]struct {
		id, network [32]byte
		keys        []*ntor.OnionKey
		alter       func(message []byte) []byte
		accept      error
		reply       func(reply []byte) []byte
		want        error
	}{
		"another relay":    {id: [32]byte{9}, network: network, keys: []*ntor.OnionKey{key}, want: ntor.ErrWrongIdentity},
		"another key":      {id: id, network: network, keys: []*ntor.OnionKey{other}, want: ntor.ErrUnknownOnionKey},
		"an older key":     {id: id, network: network, keys: []*ntor.OnionKey{other, key}},
		"another network":  {id: id, network: [32]byte{9}, keys: []*ntor.OnionKey{key}, want: ntor.ErrAuth},
		"altered":          {id: id, network: network, keys: []*ntor.OnionKey{key}, alter: func(m []byte) []byte { m[len(m)-40] ^= 1; return m }, want: ntor.ErrAuth},
		"cut short":        {id: id, network: network, keys: []*ntor.OnionKey{key}, alter: func(m []byte) []byte { return m[:100] }, want: ntor.ErrTruncated},
		"too long":         {id: id, network: network, keys: []*ntor.OnionKey{key}, alter: func(m []byte) []byte { return append(m, make([]byte, 600)...) }, want: ntor.ErrTooLong},
		"refused":          {id: id, network: network, keys: []*ntor.OnionKey{key}, accept: refusal, want: refusal},
		"an altered reply": {id: id, network: network, keys: []*ntor.OnionKey{key}, reply: func(r []byte) []byte { r[3] ^= 1; return r }, want: ntor.ErrAuth},
		"a short reply":    {id: id, network: network, keys: []*ntor.OnionKey{key}, reply: func(r []byte) []byte { return r[:50] }, want: ntor.ErrTruncated},
		"a long reply":     {id: id, network: network, keys: []*ntor.OnionKey{key}, reply: func(r []byte) []byte { return append(r, make([]byte, 600)...) }, want: ntor.ErrTooLong},
	} {
		for _, s := range []onion.Suite{onion.Real{}, Suite{}} {
			h, message, err := s.Begin(rand.NewChaCha8([32]byte{4}), id, key.Public(), network, make([]byte, 20))
			if err != nil {
				t.Fatal(err)
			}
			if x.alter != nil {
				message = x.alter(message)
			}
			keys, reply, err := s.Answer(rand.NewChaCha8([32]byte{5}), x.id, x.keys, x.network, message, func([]byte) ([]byte, error) { return nil, x.accept })
			if err != nil && (keys != ntor.Keys{} || reply != nil) {
				t.Errorf("%s, %T: an error with keys", name, s)
			}
			if err == nil {
				if x.reply != nil {
					reply = x.reply(reply)
				}
				_, _, err = h.Finish(reply)
			}
			if !errors.Is(err, x.want) {
				t.Errorf("%s, %T: %v, want %v", name, s, err, x.want)
			}
		}
	}
}

func circuit(t testing.TB, s onion.Suite, hops int) (all []hop) {
	t.Helper()
	material := make([]byte, ntor.KeyMaterialSize)
	r := rand.NewChaCha8([32]byte{8})
	for range hops {
		_, _ = r.Read(material)
		c, err := s.ClientLayer(bodySize, material)
		if err != nil {
			t.Fatal(err)
		}
		relay, err := s.RelayLayer(bodySize, material)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, hop{c, relay})
	}
	return all
}

// send sends a cell to the hop numbered to, and returns which one took it, or -1. alter, if not nil, is what somebody does
// to it behind the hop numbered after.
func send(hops []hop, to int, payload byte, after int, alter func([]byte)) (at int, got byte) {
	body := bytes.Repeat([]byte{payload}, bodySize)
	hops[to].client.Originate(command, body)
	for i := to - 1; i >= 0; i-- {
		hops[i].client.Forward(command, body)
	}
	for i := range hops {
		if hops[i].relay.Forward(command, body) {
			return i, body[100]
		}
		if alter != nil && i == after {
			alter(body)
		}
	}
	return -1, 0
}

// answer is send the other way.
func answer(hops []hop, from int, payload byte, alter func([]byte)) (at int, got byte) {
	body := bytes.Repeat([]byte{payload}, bodySize)
	hops[from].relay.Originate(command, body)
	for i := from - 1; i >= 0; i-- {
		hops[i].relay.Backward(command, body)
	}
	if alter != nil {
		alter(body)
	}
	for i := range hops {
		if hops[i].client.Backward(command, body) {
			return i, body[100]
		}
	}
	return -1, 0
}

// TestCellsAreRecognisedAlike: by whom they are for, in order, and by nobody once they were altered.
func TestCellsAreRecognisedAlike(t *testing.T) {
	t.Parallel()
	flip := func(body []byte) { body[1000] ^= 4 }
	tag := func(body []byte) { body[5] ^= 4 }
	for _, s := range []onion.Suite{onion.Real{}, Suite{}} {
		hops := circuit(t, s, 3)
		for i := range 60 {
			if at, got := send(hops, i%3, byte(i), 0, nil); at != i%3 || got != byte(i) {
				t.Errorf("%T: cell %d to hop %d came out at %d as %d", s, i, i%3, at, got)
			}
			if at, got := answer(hops, i*7%3, byte(i), nil); at != i*7%3 || got != byte(i) {
				t.Errorf("%T: cell %d from hop %d is of hop %d and %d", s, i, i*7%3, at, got)
			}
		}
		for _, alter := range []func([]byte){flip, tag} {
			hops := circuit(t, s, 3)
			if at, _ := send(hops, 2, 1, 0, alter); at != -1 {
				t.Errorf("%T: hop %d takes an altered cell", s, at)
			}
			if at, _ := send(hops, 2, 1, 0, nil); at != -1 {
				t.Errorf("%T: hop %d takes the cell after one that was lost", s, at)
			}
			if at, _ := answer(hops, 2, 1, alter); at != -1 {
				t.Errorf("%T: an altered answer is of hop %d", s, at)
			}
			if at, _ := answer(hops, 2, 1, nil); at != -1 {
				t.Errorf("%T: the answer after one that was lost is of hop %d", s, at)
			}
		}
		hops[0].client.Erase()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T: an erased layer goes on", s)
				}
			}()
			send(hops, 0, 1, 0, nil)
		}()
		if _, err := s.ClientLayer(bodySize, nil); err == nil {
			t.Errorf("%T: a layer without keys", s)
		}
		if _, err := s.RelayLayer(3, make([]byte, ntor.KeyMaterialSize)); err == nil {
			t.Errorf("%T: a layer for bodies of 3 bytes", s)
		}
	}
}

func BenchmarkCell(b *testing.B) {
	for name, s := range map[string]onion.Suite{"real": onion.Real{}, "stand-in": Suite{}} {
		b.Run(name, func(b *testing.B) {
			hops := circuit(b, s, 3)
			b.ReportAllocs()
			for b.Loop() {
				answer(hops, 2, 1, nil)
			}
		})
	}
}
