package directory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/env/envtest"
)

func testSpeedTicket(audience cert.Identity) SpeedTicket {
	return SpeedTicket{Audience: audience, Bytes: 1000, Expires: testNow.Add(time.Minute), Nonce: [16]byte{1, 2, 3}}
}

func TestSpeedTicketIsForOneRelayOfAnAuthority(t *testing.T) {
	t.Parallel()
	network, relay := testNetwork(t, 2), testIdentity(7)
	good := testSpeedTicket(relay)
	sealed := must[[]byte](t)(SealSpeedTicket(network, good, testSigner(t, 1)))
	if len(sealed) > MaxSpeedTicket {
		t.Errorf("%d bytes", len(sealed))
	}
	got, err := OpenSpeedTicket(sealed, network, relay, testNow)
	if err != nil || got.Authority != testIdentity(1) || got.Bytes != 1000 || got.Nonce != good.Nonce || !got.Expires.Equal(good.Expires) {
		t.Fatalf("%+v, %v", got, err)
	}
	sign := func(change func(*SpeedTicket), signer int) []byte {
		x := good
		change(&x)
		return must[[]byte](t)(SealSpeedTicket(network, x, testSigner(t, signer)))
	}
	for _, tt := range []struct {
		name   string
		sealed []byte
		want   error
	}{
		{"of a relay", sign(func(*SpeedTicket) {}, 7), ErrSigners},
		{"for another relay", sign(func(x *SpeedTicket) { x.Audience = testIdentity(8) }, 0), ErrInvalid},
		{"too late", sign(func(x *SpeedTicket) { x.Expires = testNow }, 0), ErrExpired},
		{"good for too long", sign(func(x *SpeedTicket) { x.Expires = testNow.Add(21 * time.Minute) }, 0), ErrFromTheFuture},
		{"altered", append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), cert.ErrSignature},
		{"too long", make([]byte, MaxSpeedTicket+1), ErrTooLarge},
		{"a rumour", must[[]byte](t)(cert.Seal(cert.RumourDocument, network.ID, nil, testSigner(t, 0))), cert.ErrWrongType},
	} {
		if _, err := OpenSpeedTicket(tt.sealed, network, relay, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	for name, x := range map[string]SpeedTicket{
		"for nobody":     {Bytes: 1, Expires: testNow},
		"for nothing":    {Audience: relay, Expires: testNow},
		"for too much":   {Audience: relay, Bytes: MaxSpeedBytes + 1, Expires: testNow},
		"without an end": {Audience: relay, Bytes: 1},
	} {
		if _, err := SealSpeedTicket(network, x, testSigner(t, 0)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSpeedTestsServeAuthoritiesOnly: nobody but an authority gets bytes, through relays only, once for a ticket, and
// no more than a relay gives an authority.
func TestSpeedTestsServeAuthoritiesOnly(t *testing.T) {
	t.Parallel()
	network, self := testNetwork(t, 2), testIdentity(7)
	f := envtest.NewFake(1)
	s := NewSpeedTests(f.Node("relay").Env, network, self)
	relay, client := &env.Peer{Identity: testIdentity(8)}, &env.Peer{}
	nonce := uint64(0)
	ask := func(change func(*SpeedTicket), signer int) []byte {
		x := testSpeedTicket(self)
		x.Expires = f.Node("relay").Env.Clock.Wall().Add(SpeedTicketLifetime)
		nonce++
		binary.BigEndian.PutUint64(x.Nonce[:], nonce)
		if change != nil {
			change(&x)
		}
		ticket := must[[]byte](t)(SealSpeedTicket(network, x, testSigner(t, signer)))
		return must[[]byte](t)(Request{Kind: AskBytes, Ticket: ticket}.AppendTo(nil))
	}
	expect := func(what string, request []byte, from *env.Peer, want Status, wantZeros int) {
		t.Helper()
		answer, zeros, mine := s.Answer(request, from)
		if !mine || len(answer) != answerHeader || Status(answer[0]) != want || zeros != wantZeros ||
			binary.BigEndian.Uint32(answer[1:]) != uint32(wantZeros) {
			t.Errorf("%s: %x and %d zeros, mine %v", what, answer, zeros, mine)
		}
	}
	once := ask(nil, 0)
	expect("an authority", once, relay, StatusOK, 1000)
	expect("the same ticket again", once, relay, StatusRefused, 0)
	expect("a client", ask(nil, 0), client, StatusBadRequest, 0)
	expect("a relay's ticket", ask(nil, 8), relay, StatusRefused, 0)
	if _, _, mine := s.Answer(must[[]byte](t)(Request{Kind: AskHead}.AppendTo(nil)), relay); mine {
		t.Error("it takes a request that is the agent's")
	}
	if _, _, mine := s.Answer([]byte{0, 9}, relay); mine {
		t.Error("it takes half a request")
	}

	// 64 MiB in twice 5 s, and four times as much at once: see the parameters.
	large := func(x *SpeedTicket) { x.Bytes = MaxSpeedBytes / 2 }
	for range 4 {
		expect("within the burst", ask(large, 0), relay, StatusOK, MaxSpeedBytes/2)
	}
	expect("above the burst", ask(large, 0), relay, StatusBusy, 0)
	expect("another authority", ask(large, 1), relay, StatusOK, MaxSpeedBytes/2)
	f.Run(11 * time.Second)
	expect("ten seconds later", ask(large, 0), relay, StatusOK, MaxSpeedBytes/2)

	// Whoever sends forgeries through one relay does not keep the signatures of others from being checked.
	for range speedMost {
		s.Answer(ask(nil, 8), relay)
	}
	expect("a flooding neighbour", ask(nil, 0), relay, StatusBusy, 0)
	f.Run(time.Minute)
	for range speedMost {
		s.Answer(ask(nil, 8), relay)
	}
	expect("another neighbour", ask(nil, 1), &env.Peer{Identity: testIdentity(9)}, StatusOK, 1000)

	if st := s.Stats(); st.Given != 8 || st.Bytes != 2000+6*MaxSpeedBytes/2 || st.Refused < 80 {
		t.Errorf("%+v", st)
	}
}

// TestUsedTicketsAreBounded: the memory of tickets is as large as it is, and none is good twice because it is full.
func TestUsedTicketsAreBounded(t *testing.T) {
	t.Parallel()
	network, self := testNetwork(t, 1), testIdentity(7)
	f := envtest.NewFake(1)
	s := NewSpeedTests(f.Node("relay").Env, network, self)
	wall := f.Node("relay").Env.Clock.Wall()
	for i := range maxTicketsKnown {
		s.known[testIdentity(0)] = append(s.known[testIdentity(0)], usedTicket{[16]byte{15: byte(i), 14: byte(i >> 8), 0: 1}, wall.Add(time.Minute).UnixMilli()})
	}
	x := testSpeedTicket(self)
	x.Expires = wall.Add(SpeedTicketLifetime)
	if _, status := s.honour(must[[]byte](t)(SealSpeedTicket(network, x, testSigner(t, 0)))); status != StatusBusy {
		t.Errorf("with a full memory: %v", status)
	}
	f.Run(time.Minute)
	if _, status := s.honour(must[[]byte](t)(SealSpeedTicket(network, x, testSigner(t, 0)))); status != StatusOK || len(s.known[testIdentity(0)]) != 1 {
		t.Errorf("when they have expired: %v, %d are remembered", status, len(s.known[testIdentity(0)]))
	}
}

func FuzzDecodeSpeedTicket(f *testing.F) {
	f.Add(must[[]byte](f)(encodeMap(testSpeedTicket(testIdentity(1)).wire(), nil)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if x, err := decodeSpeedTicket(body); err == nil {
			same(t, body)(encodeMap(x.wire(), x.Extensions))
		}
	})
}
