package ntor

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

func TestExtensionsRoundTrip(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		list []Extension
		wire string
	}{
		{"none", nil, ""},
		{"empty data", []Extension{{0, []byte{}}}, "\x00\x00\x00\x00"},
		{"two", []Extension{{1, []byte("ab")}, {0x0203, []byte("c")}}, "\x00\x01\x00\x02ab\x02\x03\x00\x01c"},
		{"last type", []Extension{{0xffff, []byte{0}}}, "\xff\xff\x00\x01\x00"},
		{"as long as allowed", []Extension{{9, make([]byte, MaxExtensions-4)}}, "\x00\x09\x01\xfc" + string(make([]byte, MaxExtensions-4))},
	} {
		wire, err := AppendExtensions([]byte("before"), c.list)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if string(wire) != "before"+c.wire {
			t.Errorf("%s: encodes to %x, want %x", c.name, wire, "before"+c.wire)
		}
		list, err := ParseExtensions([]byte(c.wire))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(list) != len(c.list) {
			t.Errorf("%s: decodes to %d extensions, want %d", c.name, len(list), len(c.list))
			continue
		}
		for i, x := range list {
			if x.Type != c.list[i].Type || !bytes.Equal(x.Data, c.list[i].Data) {
				t.Errorf("%s: extension %d is %v, want %v", c.name, i, x, c.list[i])
			}
		}
	}
}

func TestMalformedExtensionsAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		wire string
		want error
	}{
		{"half a type", "\x00", ErrExtensions},
		{"no length", "\x00\x01", ErrExtensions},
		{"half a length", "\x00\x01\x00", ErrExtensions},
		{"data cut short", "\x00\x01\x00\x02a", ErrExtensions},
		{"length beyond everything", "\x00\x01\xff\xffa", ErrExtensions},
		{"second cut short", "\x00\x01\x00\x00\x00\x02", ErrExtensions},
		{"type twice", "\x00\x01\x00\x00\x00\x01\x00\x00", ErrExtensions},
		{"types falling", "\x00\x02\x00\x00\x00\x01\x00\x00", ErrExtensions},
		{"too long", string(make([]byte, MaxExtensions+1)), ErrTooLong},
	} {
		if list, err := ParseExtensions([]byte(c.wire)); !errors.Is(err, c.want) || list != nil {
			t.Errorf("%s: %v, %v; want error %v", c.name, list, err, c.want)
		}
	}
}

func TestImpossibleExtensionsAreNotEncoded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		list []Extension
		want error
	}{
		{"type twice", []Extension{{1, nil}, {1, nil}}, ErrExtensions},
		{"types falling", []Extension{{2, nil}, {1, nil}}, ErrExtensions},
		{"one too long", []Extension{{1, make([]byte, MaxExtensions-3)}}, ErrTooLong},
		{"beyond the length field", []Extension{{1, make([]byte, 1<<16)}}, ErrTooLong},
		{"too long together", []Extension{{1, make([]byte, 300)}, {2, make([]byte, 300)}}, ErrTooLong},
	} {
		dst := []byte("before")
		if wire, err := AppendExtensions(dst, c.list); !errors.Is(err, c.want) || !reflect.DeepEqual(wire, dst) {
			t.Errorf("%s: %x, %v; want error %v and dst unchanged", c.name, wire, err, c.want)
		}
	}
}

// FuzzExtensions: what decodes encodes to the same bytes, and nothing panics.
func FuzzExtensions(f *testing.F) {
	for _, seed := range []string{"", "\x00\x01\x00\x02ab\x02\x03\x00\x01c", "\x00\x01\x00\x00\x00\x01\x00\x00", "\xff\xff\x00\x00", "\x00\x00\x02"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		list, err := ParseExtensions(wire)
		if err != nil {
			if list != nil {
				t.Error("extensions came with an error")
			}
			return
		}
		again, err := AppendExtensions(nil, list)
		if err != nil {
			t.Fatalf("%x decodes but does not encode: %v", wire, err)
		}
		if !bytes.Equal(again, wire) {
			t.Fatalf("%x encodes to %x", wire, again)
		}
	})
}
