// Package plaincbor holds what all decoders of CBOR here have in common (RFC 8949): of simple values there are false, true
// and null only. By default the library takes any other, such as simple(1), for a number, so that two encodings mean the same.
package plaincbor

import "github.com/fxamacker/cbor/v2"

// Last numbers of the simple values that are not assigned (section 3.3): 24 to 31 are not well-formed.
const (
	lastShort = 23
	first     = 32
	last      = 255
)

// SimpleValues is for cbor.DecOptions.
func SimpleValues() *cbor.SimpleValueRegistry {
	var rejected []func(*cbor.SimpleValueRegistry) error
	for v := 0; v <= last; v++ {
		if v > lastShort && v < first {
			continue
		}
		switch v {
		case 20, 21, 22: // false, true, null
		default:
			rejected = append(rejected, cbor.WithRejectedSimpleValue(cbor.SimpleValue(v)))
		}
	}
	r, err := cbor.NewSimpleValueRegistryFromDefaults(rejected...)
	if err != nil {
		panic(err) // for reserved values only
	}
	return r
}
