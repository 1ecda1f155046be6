package scenario

import (
	"math"
	"slices"
	"testing"
	"time"

	"cepa/simnet"
)

// TestWeibull: what is drawn has the distribution, without floating point.
func TestWeibull(t *testing.T) {
	t.Parallel()
	dice := simnet.New(simnet.Config{Seed: 1}).Stream(simnet.StreamChurn, "test")
	const scale, n = time.Hour, 40_000
	for _, shape := range []int64{100, 500, 700, 1000, 1500, 3000, 20_000} {
		k := float64(shape) / 1000
		list := make([]time.Duration, n)
		for i := range list {
			list[i] = weibull(dice, scale, shape)
		}
		slices.Sort(list)
		for _, p := range []float64{0.1, 0.25, 0.5, 0.75, 0.9} {
			want := float64(scale) * math.Pow(-math.Log(1-p), 1/k)
			got := float64(list[int(p*n)])
			// The error of a quantile of n draws, four times its standard deviation, in shares of 1-p.
			at := 1 - math.Exp(-math.Pow(got/float64(scale), k))
			if off := 4 * math.Sqrt(p*(1-p)/n); math.Abs(at-p) > off {
				t.Errorf("shape %v: %.0f %% are below %v, want %v", k, p*100, time.Duration(got), time.Duration(want))
			}
		}
	}
}

// TestExp2: powers of two, near and far.
func TestExp2(t *testing.T) {
	t.Parallel()
	for _, y := range []float64{-70, -62.5, -20, -1, -0.5, -1e-6, 0, 1e-6, 0.25, 0.999, 1, 3.7, 9.9, 19.9} {
		got := exp2(time.Hour, int64(y*(1<<32)))
		want := float64(time.Hour) * math.Exp2(y)
		if math.Abs(float64(got)-want) > 1+want/1e8 {
			t.Errorf("2^%v hours are %v, want %v", y, got, time.Duration(want))
		}
	}
	if got := exp2(time.Hour, 50<<32); got != 1_000_000*time.Hour {
		t.Errorf("without a bound: %v", got)
	}
	if got := exp2(time.Duration(maxEnd), 19<<32); got <= 0 {
		t.Errorf("too much: %v", got)
	}
}

// TestBandwidths: however many relays there are, they have the distribution; who has which is drawn.
func TestBandwidths(t *testing.T) {
	t.Parallel()
	w := simnet.New(simnet.Config{Seed: 1})
	mean := func(list []Rate) (sum float64) {
		for _, v := range list {
			sum += float64(v) / float64(len(list))
		}
		return sum
	}
	for _, n := range []int{20, 100, 1000} {
		a := bandwidths(torQuantiles, 100, n, w.Stream(simnet.StreamLatency, "a"))
		b := bandwidths(torQuantiles, 100, n, w.Stream(simnet.StreamLatency, "b"))
		if slices.Equal(a, b) {
			t.Error("two draws are one")
		}
		if m := mean(a); m < 18e6 || m > 22e6 {
			t.Errorf("%d relays have %.0f bytes/s on average", n, m)
		}
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			t.Error("two draws are of two distributions")
		}
		if a[0] < leastBandwidth || a[n-1] > torQuantiles[len(torQuantiles)-1] || a[n/2] < 9e6 || a[n/2] > 14e6 {
			t.Errorf("%d relays: %v to %v, in the middle %v", n, a[0], a[n-1], a[n/2])
		}
	}
	if one := bandwidths([]Rate{1e6, 3e6}, 50, 1, w.Stream(simnet.StreamLatency, "a")); len(one) != 1 || one[0] != 1e6 {
		t.Errorf("half of the middle of 1 and 3 MB/s is %v", one)
	}
}

// TestUnits: quantities are read exactly and written as people do.
func TestUnits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rate{"10 Mbit/s": 1_250_000, "1.5 MB/s": 1_500_000, "1 KiB/s": 1024, "0.001 MB/s": 1000, "unlimited": 0, "8kbit/s": 1000} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%q is %d, %v", text, r, err)
		}
	}
	for text, want := range map[string]Size{"50 KiB": 51_200, "5 MB": 5_000_000, "0 B": 0, "1.25 kB": 1250} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v", text, s, err)
		}
	}
	for text, want := range map[string]time.Duration{"2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "-2s": -2 * time.Second, "250ms": 250 * time.Millisecond} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%q is %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "10", "Mbit/s", "-1 Mbit/s", "1.2345 MB/s", "1. MB/s", "9999 GiB/s", "1 mb/s", "1e3 B/s", "+1 B/s", "99999999999999999999 B/s"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("rate %q is %v", text, r)
		}
	}
	for _, text := range []string{"", "5", "d", "1dd", "-1d", "99999d", "1d5", "1y"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("duration %q is %v", text, d)
		}
	}
	for _, r := range []Rate{0, 1, 125, 1000, 12345, 1_250_000, 1 << 30} {
		var again Rate
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%d becomes %q becomes %d", r, r, again)
		}
	}
}
