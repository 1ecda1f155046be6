package ntor

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkClientStart(b *testing.B) {
	r := newRelayEnd(b)
	random := rand.NewChaCha8([32]byte{})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := NewClient(random, r.id, r.key.Public(), r.network, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkServer(b *testing.B) {
	r := newRelayEnd(b)
	_, message := r.client(b, "client", nil)
	random := rand.NewChaCha8([32]byte{})
	onionKeys := []*OnionKey{r.key}
	accept := func([]byte) ([]byte, error) { return nil, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Server(random, r.id, onionKeys, r.network, message, accept); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkServerRefusal is a message with a wrong mac: what a flood of forged
// handshakes costs a relay.
func BenchmarkServerRefusal(b *testing.B) {
	r := newRelayEnd(b)
	_, message := r.client(b, "client", nil)
	message[ClientSize-1] ^= 1
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.answer(message, nil); err == nil {
			b.Fatal("answered")
		}
	}
}

func BenchmarkClientFinish(b *testing.B) {
	r := newRelayEnd(b)
	client, message := r.client(b, "client", nil)
	_, reply := r.mustAnswer(b, message, nil)
	fresh := *client.core
	b.ReportAllocs()
	for b.Loop() {
		core, ephemeral := fresh, *fresh.ephemeral // they are erased
		core.ephemeral = &ephemeral
		if _, _, err := (&Client{core: &core}).Finish(reply); err != nil {
			b.Fatal(err)
		}
	}
}
