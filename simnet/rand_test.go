package simnet

import (
	"testing"
)

// TestStreamsAreApart: each kind, name and seed has numbers of its own, and one kind can get another
// seed while the others stay.
func TestStreamsAreApart(t *testing.T) {
	t.Parallel()
	a, b := New(Config{Seed: 1}), New(Config{Seed: 1, Streams: map[string]uint64{StreamChurn: 2}})
	seen := map[uint64]string{}
	for _, kind := range StreamNames {
		for _, name := range []string{"", "x", "y"} {
			x, y := a.Stream(kind, name).Uint64(), b.Stream(kind, name).Uint64()
			if (x == y) != (kind != StreamChurn) {
				t.Errorf("%s of %q with another seed for churn: %d and %d", kind, name, x, y)
			}
			if other, twice := seen[x]; twice {
				t.Errorf("%s of %q is %s", kind, name, other)
			}
			seen[x] = kind + " of " + name
		}
	}
	if a.Stream(StreamChurn, "ab", "c").Uint64() == a.Stream(StreamChurn, "a", "bc").Uint64() {
		t.Error("names run together")
	}
}

// TestDrawsAreExact: integers only, so that each machine draws the same.
func TestDrawsAreExact(t *testing.T) {
	t.Parallel()
	s := New(Config{Seed: 1}).Stream(StreamWorkload)
	var sum, most int64
	const n, mean = 200_000, 1_000_000_000
	for range n {
		x := s.Exponential(mean)
		if x < 0 {
			t.Fatalf("%d", x)
		}
		sum, most = sum+x/n, max(most, x)
	}
	if sum < mean*99/100 || sum > mean*101/100 || most < 9*mean || most > 23*mean {
		t.Errorf("exponential: mean %d, largest %d", sum, most)
	}
	for u, want := range map[uint64]uint64{1: 0, 2: ln2, 3: 4718503851, 1 << 32: 32 * ln2, 1_000_000_007: 89005749066} {
		if got := log2of(u); got > want+40 || got+40 < want {
			t.Errorf("ln %d is %d, want %d", u, got, want)
		}
	}
	counts := [5]int{}
	for range 50_000 {
		counts[s.Below(5)]++
	}
	for i, c := range counts {
		if c < 9_500 || c > 10_500 {
			t.Errorf("%d was drawn %d times of 50,000", i, c)
		}
	}
}

func TestMulDiv(t *testing.T) {
	t.Parallel()
	for _, x := range [][4]int64{{7, 3, 2, 10}, {1 << 60, 1_000_000, 1_000_000, 1 << 60}, {100, -5, 10, -50}, {0, 5, 3, 0}} {
		if got := mulDiv(x[0], x[1], x[2]); got != x[3] {
			t.Errorf("%d·%d/%d = %d, want %d", x[0], x[1], x[2], got, x[3])
		}
	}
}
