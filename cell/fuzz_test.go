package cell

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// checkFuzzed checks the error of a decoder that was given n bytes.
func checkFuzzed(t *testing.T, n int, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Offset < 0 || e.Offset > n || e.Why == "" || e.What == "" {
		t.Fatalf("error %#v", err)
	}
}

func FuzzHeader(f *testing.F) {
	for _, b := range []string{"\x00\x00\x00\x01\x83", "\x00\x00\x00\x00\x06", "\x00\x00\x00\x01\x0a", ""} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if err != nil {
			checkFuzzed(t, len(b), err)
			return
		}
		again := make([]byte, HeaderSize)
		h.Put(again)
		if !bytes.Equal(again, b[:HeaderSize]) {
			t.Fatalf("%x became %x", b[:HeaderSize], again)
		}
	})
}

// FuzzBody pads shorter input with zeros to a whole body, so that the fuzzer need not find 2043 bytes.
func FuzzBody(f *testing.F) {
	for _, s := range []struct {
		c   Command
		hex string
	}{
		{CommandCreate, "0200 0001 0003 0000 aabbcc"},
		{CommandCreated, "0001 ffff 0001 0000 00"},
		{CommandDestroy, "04"},
		{CommandCredit, "0002 80000001 0010 00000002 ffff"},
		{CommandGossip, "0003 010203"},
		{CommandHello, "0001 07"},
		{CommandLinkDrain, ""},
	} {
		b := unhex(f, s.hex)
		f.Add(byte(s.c), b)
		f.Add(byte(s.c), append(b, 1))
		f.Add(byte(s.c), make([]byte, Size))
	}
	f.Fuzz(func(t *testing.T, command byte, b []byte) {
		decode, ok := bodyDecoders[Command(command)]
		if !ok {
			return
		}
		if len(b) < BodySize {
			b = padded(b, BodySize)
		}
		again := dirty(BodySize)
		if err := decode(b, again); err != nil {
			checkFuzzed(t, len(b), err)
			return
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%v: %x became %x", Command(command), b, again)
		}
	})
}

func FuzzMessageBody(f *testing.F) {
	for _, s := range goldenMessages {
		b := unhex(f, s.hex)
		f.Add(byte(s.command), b)
		f.Add(byte(s.command), append(b, 0))
		f.Add(byte(s.command), b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, command byte, b []byte) {
		decode, ok := decoders[MessageCommand(command)]
		if !ok || len(b) > MaxData {
			return
		}
		v, err := decode(b)
		if err != nil {
			checkFuzzed(t, len(b), err)
			return
		}
		again, err := v.AppendTo(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%v: %x became %+v and then %x, %v", MessageCommand(command), b, v, again, err)
		}
	})
}

// FuzzPayload pads shorter input with zeros to a whole payload.
func FuzzPayload(f *testing.F) {
	for _, s := range goldenMessages {
		b := unhex(f, s.hex)
		stream := byte(0)
		if checkStream(s.command, 0) != nil {
			stream = 1
		}
		m := append([]byte{byte(s.command), 0, stream, byte(len(b) >> 8), byte(len(b))}, b...)
		f.Add(m)
		f.Add(append(m, m...))
		f.Add(append(m, 6, 0, 1, 0, 2, 'h', 'i', 10, 0, 1, 0, 0))
	}
	f.Add(append([]byte{6, 0, 1, 2022 >> 8, 2022 & 0xff}, dirty(MaxData)...))
	f.Add(append([]byte{6, 0, 1, 2017 >> 8, 2017 & 0xff}, append(dirty(2017), 10, 0, 1, 0, 0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < PayloadSize {
			b = padded(b, PayloadSize)
		}
		messages, err := ParsePayload(b, nil)
		if err != nil {
			checkFuzzed(t, len(b), err)
			if messages != nil {
				t.Fatalf("%d messages beside an error", len(messages))
			}
			return
		}
		again := dirty(PayloadSize)
		p := NewPacker(again)
		for _, m := range messages {
			if !p.Add(m.Command, m.Stream, m.Data) {
				t.Fatalf("%+v does not fit any more", m)
			}
			if decode, ok := decoders[m.Command]; ok {
				if _, err := decode(m.Data); err != nil {
					t.Fatalf("parsed, but: %v", err)
				}
			}
		}
		p.Finish()
		if !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// FuzzPacker packs messages as the input says, in all ways that a Packer has, and parses them again.
func FuzzPacker(f *testing.F) {
	f.Add([]byte{0, 1, 10, 1, 2, 200, 2, 0, 0, 3, 255, 255, 0, 9, 250})
	f.Add(bytes.Repeat([]byte{0, 1, 255}, 12))
	f.Add(bytes.Repeat([]byte{1, 1, 251}, 12))
	f.Fuzz(func(t *testing.T, ops []byte) {
		payload := dirty(PayloadSize)
		p := NewPacker(payload)
		var want []Message
		for ; len(ops) >= 3; ops = ops[3:] {
			stream, n := StreamID(ops[1])+1, int(ops[2])
			data := bytes.Repeat([]byte{ops[1]}, n)
			free := p.Free()
			switch ops[0] % 4 {
			case 0: // DATA, copied
				if n == 0 {
					continue
				}
				if p.Add(MessageData, stream, data[:n/2], data[n/2:]) {
					want = append(want, Message{MessageData, stream, data})
				} else if n <= free {
					t.Fatalf("%d bytes do not fit, free are %d", n, free)
				}
			case 1: // DATA, in place
				place := p.Reserve(MessageData, stream, n)
				if len(place) != max(min(n, free), 0) {
					t.Fatalf("reserved %d of %d bytes, free are %d", len(place), n, free)
				}
				k := copy(place, data[n/2:])
				p.Commit(k)
				if k > 0 {
					want = append(want, Message{MessageData, stream, data[:k]})
				}
			case 2: // no data
				if p.Add(MessageBeginDir, stream) {
					want = append(want, Message{MessageBeginDir, stream, []byte{}})
				} else if free >= 0 {
					t.Fatalf("an empty message does not fit, free are %d", free)
				}
			case 3: // given up
				copy(p.Reserve(MessageData, stream, n), data)
			}
		}
		if p.Empty() != (len(want) == 0) {
			t.Fatalf("empty %v with %d messages", p.Empty(), len(want))
		}
		p.Finish()
		if len(want) == 0 {
			return
		}
		got, err := ParsePayload(payload, nil)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	})
}

// FuzzAddress: what ParseAddress accepts can be sent, and arrives as it was.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"example.org", "192.0.2.1", "::1", "::ffff:192.0.2.1", "fe80::1%eth0", "a b", "", "1.2.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		b, err := Begin{AllowIPv4, a, 80}.AppendTo(nil)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if m, err := DecodeBegin(b); err != nil || m.Address != a {
			t.Fatalf("%q arrived as %+v, %v", s, m.Address, err)
		}
	})
}
