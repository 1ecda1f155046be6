package directory

import (
	"math/rand/v2"
	"slices"
	"testing"

	"cepa/cert"
)

func randomDigests(rng *rand.Rand, n int) []cert.Digest {
	out := make([]cert.Digest, n)
	for i := range out {
		for j := range out[i] {
			out[i][j] = byte(rng.Uint32())
		}
	}
	return out
}

// reconcileBySketch does what two relays do: it asks for more symbols until the difference is found.
func reconcileBySketch(salt uint64, ours, theirs []cert.Digest) (found []cert.Digest, symbols int, ok bool) {
	var difference []symbol
	for at := 0; at < maxSymbols; at = len(difference) {
		part := sketchOf(salt, theirs, at, at+symbolsAt(at))
		wire := appendSketch(nil, part)
		part, err := decodeSymbols(wire, symbolsAt(at))
		if err != nil {
			return nil, at, false
		}
		subtract(part, sketchOf(salt, ours, at, at+symbolsAt(at)))
		difference = append(difference, part...)
		if found, _, ok = decodeSketch(salt, difference); ok {
			return found, len(difference), true
		}
	}
	return nil, len(difference), false
}

// TestSketchFindsTheDifference, of sets of any size, by a number of symbols that depends on the difference only.
func TestSketchFindsTheDifference(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ both, ours, theirs, symbols int }{
		{0, 0, 0, 32}, {5, 0, 0, 32}, {0, 1, 0, 32}, {0, 0, 1, 32}, {100, 3, 4, 32}, {8000, 0, 1, 32}, {8000, 6, 6, 64},
		{4000, 30, 30, 256}, {500, 0, 500, 2048}, {0, 0, 1000, 2048}, {100, 1000, 0, 2048},
	} {
		for range 20 {
			both := randomDigests(rng, c.both)
			ours := append(randomDigests(rng, c.ours), both...)
			extra := randomDigests(rng, c.theirs)
			theirs := append(slices.Clone(extra), both...)
			found, symbols, ok := reconcileBySketch(rng.Uint64(), ours, theirs)
			slices.SortFunc(found, cert.Digest.Compare)
			slices.SortFunc(extra, cert.Digest.Compare)
			if !ok || !slices.Equal(found, extra) {
				t.Errorf("%+v: found %d of %d, %v", c, len(found), len(extra), ok)
			}
			if symbols > c.symbols {
				t.Errorf("%+v: took %d symbols", c, symbols)
			}
		}
	}
}

// TestSketchOfTooMuchEnds: without an answer, and without endless work.
func TestSketchOfTooMuchEnds(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	if _, symbols, ok := reconcileBySketch(7, nil, randomDigests(rng, 2*maxSymbols)); ok || symbols != maxSymbols {
		t.Errorf("%d symbols, %v", symbols, ok)
	}
}

// TestSketchStarts: requests ask for symbols at few places only, and for all of them in turn.
func TestSketchStarts(t *testing.T) {
	t.Parallel()
	var starts []int
	for first := -1; first <= 2*maxSymbols; first++ {
		if isSketchStart(first) {
			starts = append(starts, first)
		}
	}
	if want := []int{0, 32, 64, 128, 256, 512, 1024, 2048}; !slices.Equal(starts, want) {
		t.Errorf("%v, want %v", starts, want)
	}
}

// FuzzDecodeSketch: symbols that no set has must neither crash nor hang.
func FuzzDecodeSketch(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	good := appendSketch(nil, sketchOf(9, randomDigests(rng, 5), 0, 32))
	f.Add(uint64(9), good)
	f.Add(uint64(10), good)
	f.Fuzz(func(t *testing.T, salt uint64, data []byte) {
		count := min(len(data)/sketchSymbolSize, 256)
		data = data[:count*sketchSymbolSize]
		symbols, err := decodeSymbols(data, count)
		if err != nil {
			t.Fatal(err)
		}
		if again := appendSketch(nil, symbols); !slices.Equal(again, data) {
			t.Fatal("a sketch does not re-encode to the same bytes")
		}
		found, total, ok := decodeSketch(salt, symbols)
		if len(found) > total || total > count+1 {
			t.Fatalf("%d found of %d in %d symbols, %v", len(found), total, count, ok)
		}
	})
}

func BenchmarkSketch(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 8))
	set := randomDigests(rng, 8000)
	for b.Loop() {
		sketchOf(1, set, 0, firstSymbols)
	}
}
