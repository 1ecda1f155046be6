package ntor

import (
	"bytes"
	"testing"
)

// FuzzServer: arbitrary bytes never make a relay panic, and none but the
// messages of clients that know it are answered.
func FuzzServer(f *testing.F) {
	r := newRelayEnd(f)
	_, plain := r.client(f, "client", nil)
	_, extended := r.client(f, "client", []byte("\x00\x01\x00\x00"))
	f.Add(plain)
	f.Add(extended)
	f.Add(plain[:ClientSize-1])
	f.Add([]byte{})
	f.Add(make([]byte, ClientSize+MaxExtensions+1))
	f.Fuzz(func(t *testing.T, message []byte) {
		before := bytes.Clone(message)
		keys, reply, err := r.answer(message, nil)
		if !bytes.Equal(message, before) {
			t.Fatal("the message was changed")
		}
		genuine := bytes.Equal(message, plain) || bytes.Equal(message, extended)
		switch {
		case genuine && err != nil:
			t.Fatalf("a client's message was refused: %v", err)
		case !genuine && err == nil:
			t.Fatal("a forged message was answered")
		case err != nil && (reply != nil || keys != (Keys{})):
			t.Fatal("refused, but keys or bytes came with the error")
		}
	})
}

// FuzzFinish: arbitrary bytes never make a client panic, and nothing but the
// relay's own message is accepted.
func FuzzFinish(f *testing.F) {
	r := newRelayEnd(f)
	_, message := r.client(f, "client", nil)
	_, plain := r.mustAnswer(f, message, nil)
	_, extended := r.mustAnswer(f, message, []byte("\x00\x01\x00\x00"))
	f.Add(plain)
	f.Add(extended)
	f.Add(plain[:ServerSize-1])
	f.Add([]byte{})
	f.Add(make([]byte, ServerSize+MaxExtensions+1))
	f.Fuzz(func(t *testing.T, reply []byte) {
		client, _ := r.client(t, "client", nil)
		before := bytes.Clone(reply)
		keys, sm, err := client.Finish(reply)
		if !bytes.Equal(reply, before) {
			t.Fatal("the reply was changed")
		}
		genuine := bytes.Equal(reply, plain) || bytes.Equal(reply, extended)
		switch {
		case genuine && err != nil:
			t.Fatalf("the relay's message was refused: %v", err)
		case !genuine && err == nil:
			t.Fatal("a forged message was accepted")
		case err != nil && (sm != nil || keys != (Keys{})):
			t.Fatal("refused, but keys or bytes came with the error")
		}
	})
}
