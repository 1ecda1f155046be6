package circuit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"cepa/cert"
	"cepa/directory"
)

// TestSharesOfTor has the bandwidths of each case that Tor's dir-spec, "Computing bandwidth
// weights", tells apart, and what its formulas say. Where several splits carry as much (case 2b)
// ours keeps guards and exits where they are scarce, as its case 2b2 does.
func TestSharesOfTor(t *testing.T) {
	t.Parallel()
	type w struct{ gg, gd, ee, ed int } // the rest of each class is for the middle
	for _, c := range []struct {
		name       string
		g, m, e, d uint64
		want       w
	}{
		{"1: nothing scarce", 400, 100, 400, 100, w{7500, 3333, 7500, 3333}},
		{"1: no other middles", 500, 0, 400, 0, w{6000, 10000, 7500, 0}},
		{"2a: both scarce, exits more", 250, 700, 50, 100, w{10000, 0, 10000, 10000}},
		{"2a: both scarce, guards more", 50, 700, 250, 100, w{10000, 10000, 10000, 0}},
		{"2b: both scarce without those that are both", 200, 200, 100, 400, w{10000, 2500, 10000, 5000}},
		{"2b: too much middle", 100, 900, 200, 200, w{10000, 7500, 10000, 2500}},
		{"3a: guards scarce, exits for the middle", 50, 100, 800, 50, w{10000, 10000, 5625, 0}},
		{"3a: guards scarce, middles enough", 50, 600, 500, 50, w{10000, 10000, 10000, 0}},
		{"3a: exits scarce, guards for the middle", 800, 100, 50, 50, w{5625, 0, 10000, 10000}},
		{"3b: guards scarce without those that are both", 100, 100, 400, 300, w{10000, 6666, 6250, 1666}},
		{"3b: exits scarce without those that are both", 400, 100, 100, 300, w{6250, 1666, 10000, 6666}},
		{"all are both", 0, 0, 0, 900, w{10000, 3333, 10000, 3333}},
		{"as in a small network: all guards, some of them exits", 400, 0, 0, 300, w{5000, 1111, 10000, 7777}},
	} {
		s := share([classes]uint64{middleOnly: c.m, guardOnly: c.g, exitOnly: c.e, guardAndExit: c.d})
		got := w{int(s[guardOnly][atGuard]), int(s[guardAndExit][atGuard]), int(s[exitOnly][atExit]), int(s[guardAndExit][atExit])}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestSharesAreTheBest: whatever the bandwidths, nothing is used twice or lost, nobody serves where it may not, and
// no other split has a wider scarcest position, nor, with that, a wider second one.
func TestSharesAreTheBest(t *testing.T) {
	t.Parallel()
	rng := rand.New(newRand(11))
	for range 200_000 {
		var total [classes]uint64
		for i := range total {
			if rng.IntN(6) > 0 {
				total[i] = rng.Uint64N(1 << rng.IntN(49))
			}
		}
		s := share(total)
		var got [positions]float64
		for c := range s {
			sum := uint64(0)
			for at := range positions {
				sum += s[c][at]
				got[at] += float64(total[c]) * float64(s[c][at]) / parts
			}
			if sum != parts {
				t.Fatalf("%v: class %d has shares %v", total, c, s[c])
			}
		}
		if s[middleOnly][atMiddle] != parts || s[guardOnly][atExit]+s[exitOnly][atGuard] != 0 {
			t.Fatalf("%v: %v: a relay where it may not be", total, s)
		}
		want := widest(total)
		slices.Sort(got[:])
		all := got[0] + got[1] + got[2]
		for i := range got {
			if math.Abs(got[i]-want[i]) > all*2e-3+2 { // shares are rounded to ten-thousandths
				t.Fatalf("%v: positions of %.0f, could be %.0f", total, got, want)
			}
		}
	}
}

// widest is the best that positions can have, the scarcest first: for each set of positions, what can serve
// only these, divided by their number, bounds the scarcest of them.
func widest(total [classes]uint64) [positions]float64 {
	m, g, e, d := float64(total[middleOnly]), float64(total[guardOnly]), float64(total[exitOnly]), float64(total[guardAndExit])
	all := m + g + e + d
	first := min(g+d, e+d, (g+e+d)/2, all/3)
	var second float64
	switch first {
	case all / 3:
		second = all / 3
	case (g + e + d) / 2:
		second = first
	case g + d:
		second = min(e, (e+m)/2)
	default:
		second = min(g, (g+m)/2)
	}
	sorted := [positions]float64{first, second, all - first - second}
	slices.Sort(sorted[:])
	return sorted
}

// chiSquare returns the probability that counts of draws as far from what is expected as these, or further, come
// about by chance. Cells that expect fewer than 5 count as one.
func chiSquare[K comparable](seen map[K]int, want map[K]float64) (p float64) {
	chi, rare, rareSeen, cells := 0.0, 0.0, 0.0, 0
	add := func(got, want float64) {
		chi += (got - want) * (got - want) / want
		cells++
	}
	for k, w := range want { // order: a sum
		if w < 5 {
			rare += w
			rareSeen += float64(seen[k])
			continue
		}
		add(float64(seen[k]), w)
	}
	if rare > 0 {
		add(rareSeen, rare)
	}
	for k := range seen { // order: any one will do
		if want[k] == 0 {
			return 0
		}
	}
	return gammaQ(float64(cells-1)/2, chi/2)
}

// gammaQ is the regularised upper incomplete gamma function.
func gammaQ(a, x float64) float64 {
	lg, _ := math.Lgamma(a)
	scale := math.Exp(a*math.Log(x) - x - lg)
	if x < a+1 { // the series of the lower one
		sum, term := 1/a, 1/a
		for n := a + 1; math.Abs(term) > sum*1e-14; n++ {
			term *= x / n
			sum += term
		}
		return 1 - sum*scale
	}
	b := x + 1 - a // Lentz's continued fraction
	c, d := 1e300, 1/b
	h := d
	for i := 1.0; i < 100_000; i++ {
		an := -i * (i - a)
		b += 2
		d = 1 / (an*d + b)
		c = b + an/c
		h *= d * c
		if math.Abs(d*c-1) < 1e-14 {
			break
		}
	}
	return h * scale
}

func TestGammaQ(t *testing.T) {
	t.Parallel()
	// Known points of chi-square: 0.05 and 0.001 at 1, 10 and 100 degrees of freedom.
	for _, c := range []struct{ freedom, chi, p float64 }{
		{1, 3.841459, 0.05}, {10, 18.307038, 0.05}, {100, 124.342113, 0.05},
		{1, 10.827566, 0.001}, {10, 29.588298, 0.001}, {100, 149.449252, 0.001}, {2, 0.2, 0.904837},
	} {
		if p := gammaQ(c.freedom/2, c.chi/2); math.Abs(p-c.p) > 1e-6 {
			t.Errorf("%v degrees of freedom, %v: %v, want %v", c.freedom, c.chi, p, c.p)
		}
	}
}

type triple [3]cert.Identity

// expected is how often each path is chosen when a guard is drawn for each: the definition of the
// choice, by going through all paths.
func expected(n *network, to destination, paths float64) map[triple]float64 {
	want := map[triple]float64{}
	weigh := func(at position, ok func(*relayInfo) bool) (list []*relayInfo, share []float64) {
		sum := 0.0
		for _, r := range n.relays {
			if w := float64(r.weight * n.shares[r.class()][at]); w > 0 && ok(r) {
				list, share = append(list, r), append(share, w)
				sum += w
			}
		}
		for i := range share {
			share[i] /= sum
		}
		return list, share
	}
	guards, pg := weigh(atGuard, func(r *relayInfo) bool { return r.mayGuard() })
	for i, guard := range guards {
		exits, pe := weigh(atExit, func(r *relayInfo) bool { return r.serves(to) && together(r, guard, true) })
		for j, exit := range exits {
			middles, pm := weigh(atMiddle, func(r *relayInfo) bool { return together(r, guard, true) && together(r, exit, true) })
			for k, middle := range middles {
				want[triple{guard.identity, middle.identity, exit.identity}] += paths * pg[i] * pe[j] * pm[k]
			}
		}
	}
	return want
}

// choose draws many paths, with a guard for each.
func choose(t *testing.T, n *network, to destination, paths int) map[triple]int {
	t.Helper()
	r := newRand(1)
	seen := map[triple]int{}
	for range paths {
		guard := n.draw(r, atGuard, func(*relayInfo) bool { return true })
		path, err := n.choosePath(r, guard, wish{to: to, avoid: nobody}, true)
		if err != nil {
			t.Fatal(err)
		}
		seen[triple{path[0].identity, path[1].identity, path[2].identity}]++
	}
	return seen
}

// varied is a network of n relays of all classes, with families and exits of few ports.
func varied(n int) *directory.Consensus {
	rng := rand.New(newRand(uint64(n)))
	var relays []directory.Relay
	for i := range n {
		var flags directory.Flags
		switch i % 6 {
		case 0, 1:
			flags = directory.FlagGuard
		case 2:
			flags = directory.FlagExit
		case 3:
			flags = directory.FlagGuard | directory.FlagExit
		case 4:
			flags = directory.FlagGuard | directory.FlagExit | directory.FlagBadExit
		}
		r := entry(i, uint32(50+rng.IntN(1000)), flags)
		if i%4 == 0 {
			r.Families = []cert.FamilyID{{byte(1 + i%8)}}
		}
		relays = append(relays, r)
	}
	return consensusOf(relays...)
}

// TestPathsFollowTheWeights compares 100,000 paths with what the weights say: in a small network, where all relays are
// looked at, and in a larger one, where relays are drawn until one fits. A choice that forgets the
// weights, or the positions, fails the same comparison.
func TestPathsFollowTheWeights(t *testing.T) {
	t.Parallel()
	const paths = 100_000
	for _, relays := range []int{14, 72} {
		c := varied(relays)
		n := newNetwork(c, nil)
		to := destination{port: 80, v4: true}
		want := expected(n, to, paths)
		sum := 0.0
		for _, w := range want { // order: a sum
			sum += w
		}
		if math.Abs(sum-paths) > 1 {
			t.Fatalf("%v paths are expected", sum)
		}
		flat := newNetwork(c, nil)
		flat.tables = [positions]table{}
		for _, r := range flat.relays {
			r.weight = 1
		}
		flat.weigh()
		anywhere := newNetwork(c, nil)
		anywhere.tables = [positions]table{}
		for class := range anywhere.shares {
			anywhere.shares[class] = [positions]uint64{parts, parts, parts}
		}
		for _, r := range anywhere.relays {
			for at := range positions {
				if anywhere.mayBe(r, at) {
					anywhere.tables[at].add(r, anywhere.weightAt(r, at))
				}
			}
		}
		for _, x := range []struct {
			name  string
			n     *network
			right bool
		}{{"as it is", n, true}, {"without weights", flat, false}, {"without positions", anywhere, false}} {
			seen := choose(t, x.n, to, paths)
			for part, p := range map[string]float64{ // order: each by itself
				"whole paths": chiSquare(seen, want),
				"guards":      chiSquare(marginal(seen, 0), marginal(want, 0)),
				"middles":     chiSquare(marginal(seen, 1), marginal(want, 1)),
				"exits":       chiSquare(marginal(seen, 2), marginal(want, 2)),
			} {
				if x.right && p < 0.001 {
					t.Errorf("%d relays, %s: %s come about by chance with p = %g", relays, x.name, part, p)
				}
				if !x.right && p > 0.001 {
					t.Errorf("%d relays, %s: the comparison of %s does not notice, p = %g", relays, x.name, part, p)
				}
			}
		}
	}
}

// marginal sums over all positions but one.
func marginal[N int | float64](of map[triple]N, at int) map[cert.Identity]N {
	sums := map[cert.Identity]N{}
	for k, n := range of { // order: a sum
		sums[k[at]] += n
	}
	return sums
}

// TestScarceExitsAreSpared: where few relays are exits, these are exits and nothing else, as long
// as others can be guards and middles.
func TestScarceExitsAreSpared(t *testing.T) {
	t.Parallel()
	var relays []directory.Relay
	for i := range 60 {
		flags := directory.FlagGuard
		if i < 6 {
			flags |= directory.FlagExit
		}
		relays = append(relays, entry(i, 100, flags))
	}
	n := newNetwork(consensusOf(relays...), nil)
	for k := range choose(t, n, destination{port: 80, v4: true}, 10_000) { // order: each by itself
		if n.find(k[0]).mayExit() || n.find(k[1]).mayExit() || !n.find(k[2]).mayExit() {
			t.Fatal("an exit is used as a guard or middle")
		}
	}
	// When no other is left, they are: a consensus of exits only.
	var exits []directory.Relay
	for i := range 6 {
		exits = append(exits, entry(i, 100, directory.FlagGuard|directory.FlagExit))
	}
	few := newNetwork(consensusOf(exits...), nil)
	if len(choose(t, few, destination{}, 100)) == 0 {
		t.Error("no path")
	}
}

// large is a network of n relays as large ones are: weights over three powers of ten, a sixth of
// them exits, half of them guards.
func large(n int) *directory.Consensus {
	rng := rand.New(newRand(5))
	var relays []directory.Relay
	for i := range n {
		var flags directory.Flags
		if i%2 == 0 {
			flags |= directory.FlagGuard
		}
		if i%6 < 1 || i%6 == 3 && i%12 == 3 {
			flags |= directory.FlagExit
		}
		relays = append(relays, entry(i, uint32(math.Exp(rng.Float64()*7)*10), flags))
	}
	return consensusOf(relays...)
}

func BenchmarkPath(b *testing.B) {
	n := newNetwork(large(8000), nil)
	for _, c := range []struct {
		name string
		to   destination
		rare bool
	}{{"web", destination{port: 80, v4: true}, false}, {"rare", destination{port: 4444, v4: true}, true}} {
		b.Run(fmt.Sprintf("8000/%s", c.name), func(b *testing.B) {
			if c.rare { // one exit in two hundred serves it
				k := 0
				for _, r := range n.relays {
					if r.mayExit() {
						if k++; k%200 != 0 {
							r.ports = directory.PortSummary{IPv4: []directory.PortRange{{From: 80, To: 80}}}
						}
					}
				}
			}
			r := newRand(4)
			guard := n.tables[atGuard].relays[7]
			b.ReportAllocs()
			for b.Loop() {
				if _, err := n.choosePath(r, guard, wish{to: c.to, avoid: nobody}, true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewNetwork(b *testing.B) {
	c := large(8000)
	for b.Loop() {
		newNetwork(c, nil)
	}
}
