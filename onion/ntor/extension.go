package ntor

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Extension is one request of a client or answer of a relay inside the
// handshake.
type Extension struct {
	Type uint16
	Data []byte
}

// AppendExtensions appends the wire form of the list to dst and returns the
// longer slice. Data is copied.
//
// Errors: ErrExtensions if the types do not strictly rise, ErrTooLong if the
// list takes more than MaxExtensions bytes; dst is returned unchanged then.
func AppendExtensions(dst []byte, extensions []Extension) ([]byte, error) {
	size := 0
	for i, x := range extensions {
		if i > 0 && x.Type <= extensions[i-1].Type {
			return dst, fmt.Errorf("encoding extensions: type %d after %d: %w", x.Type, extensions[i-1].Type, ErrExtensions)
		}
		if size += 4 + len(x.Data); size > MaxExtensions {
			return dst, fmt.Errorf("encoding extensions: %w", ErrTooLong)
		}
	}
	b := cryptobyte.NewBuilder(dst)
	for _, x := range extensions {
		b.AddUint16(x.Type)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(x.Data) })
	}
	out, err := b.Bytes()
	if err != nil {
		return dst, fmt.Errorf("encoding extensions: %w", err)
	}
	return out, nil
}

// ParseExtensions reads a whole extension list:
//
//	offset  size  field
//	0       2     type, big endian
//	2       2     length n of the data
//	4       n     data
//
// repeated to the end of list, types strictly rising. What it accepts encodes to
// the same bytes. Data is a part of list, not a copy. An empty list gives nil.
//
// Errors: ErrTooLong for more than MaxExtensions bytes, else ErrExtensions.
func ParseExtensions(list []byte) ([]Extension, error) {
	if len(list) > MaxExtensions {
		return nil, fmt.Errorf("decoding extensions: %d bytes: %w", len(list), ErrTooLong)
	}
	var extensions []Extension
	for s := cryptobyte.String(list); !s.Empty(); {
		offset := len(list) - len(s)
		var (
			x    Extension
			data cryptobyte.String
		)
		if !s.ReadUint16(&x.Type) || !s.ReadUint16LengthPrefixed(&data) {
			return nil, fmt.Errorf("decoding extensions: cut short in the one at offset %d: %w", offset, ErrExtensions)
		}
		if n := len(extensions); n > 0 && x.Type <= extensions[n-1].Type {
			return nil, fmt.Errorf("decoding extensions: type %d after %d at offset %d: %w", x.Type, extensions[n-1].Type, offset, ErrExtensions)
		}
		x.Data = data
		extensions = append(extensions, x)
	}
	return extensions, nil
}
