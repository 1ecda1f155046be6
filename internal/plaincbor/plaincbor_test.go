package plaincbor

import (
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// TestOnlyAssignedSimpleValuesDecode: a simple value is no number.
func TestOnlyAssignedSimpleValuesDecode(t *testing.T) {
	t.Parallel()
	mode, err := cbor.DecOptions{SimpleValues: SimpleValues()}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	for b := 0xe0; b <= 0xf7; b++ {
		var n uint64
		var v any
		if err := mode.Unmarshal([]byte{byte(b)}, &n); err == nil && b != 0xf6 {
			t.Errorf("%#x is the number %d", b, n)
		}
		if err := mode.Unmarshal([]byte{byte(b)}, &v); (err == nil) != (b >= 0xf4 && b <= 0xf6) {
			t.Errorf("%#x: %v, %v", b, v, err)
		}
	}
	var n uint64
	if err := mode.Unmarshal([]byte{0xf8, 0x20}, &n); err == nil {
		t.Error("simple(32) is a number")
	}
}
