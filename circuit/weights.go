package circuit

import (
	"slices"
	"sort"

	"cepa/env"
)

// position is the place of a relay in a circuit.
type position uint8

const (
	atGuard position = iota
	atMiddle
	atExit
	positions
)

var positionNames = [positions]string{"guard", "middle", "exit"}

func (p position) String() string { return positionNames[p] }

// class is what a relay may be besides a middle.
type class uint8

const (
	middleOnly class = iota
	guardOnly
	exitOnly
	guardAndExit
	classes
)

func (r *relayInfo) class() class {
	switch {
	case r.mayGuard() && r.mayExit():
		return guardAndExit
	case r.mayGuard():
		return guardOnly
	case r.mayExit():
		return exitOnly
	}
	return middleOnly
}

// parts is one whole in the fractions below.
const parts = 10_000

// shares says for each class how many ten-thousandths of its bandwidth serve each position. Every
// circuit needs one relay of each kind, so the network carries three times what its scarcest
// position does; the shares make the scarcest as wide as can be, then the next
// (docs/protocol.md, "Weights by position").
type shares [classes][positions]uint64

// share makes the shares for the bandwidth of each class. They depend on nothing else, so all
// clients with the same consensus choose alike.
func share(total [classes]uint64) shares {
	var s shares
	for c := range s {
		s[c][atMiddle] = parts
	}
	// In sixths, so that the halves and thirds below are whole. Weights are 32 bits and relays
	// at most 65,535, so nothing here overflows.
	m, g, e, d := 6*total[middleOnly], 6*total[guardOnly], 6*total[exitOnly], 6*total[guardAndExit]
	all := m + g + e + d
	var asGuard, asExit uint64 // of d
	guards, exits := g, e      // of those that are nothing else
	switch third := all / 3; {
	case g+d < third && g+d <= (g+e+d)/2: // guards are scarce, with all that can be one
		asGuard, exits = d, evenly(e, m)
	case e+d < third && e+d <= (g+e+d)/2: // exits are
		asExit, guards = d, evenly(g, m)
	case g+e+d < 2*third: // both are, together
		asGuard = (e + d - g) / 2
		asExit = d - asGuard
	case g < third && e < third: // neither without those that can be both
		asGuard, asExit = third-g, third-e
	case g < third:
		asGuard = third - g
		asExit = (d - asGuard) / 2
		exits = third - asExit
	case e < third:
		asExit = third - e
		asGuard = (d - asExit) / 2
		guards = third - asGuard
	default:
		asGuard, asExit = d/3, d/3
		guards, exits = third-asGuard, third-asExit
	}
	s.set(guardOnly, atGuard, guards, g)
	s.set(exitOnly, atExit, exits, e)
	s.set(guardAndExit, atGuard, asGuard, d)
	s.set(guardAndExit, atExit, asExit, d)
	return s
}

// evenly returns how much of x goes to a position of its own when the rest of it joins m elsewhere.
func evenly(x, m uint64) uint64 {
	if x <= m {
		return x
	}
	return (x + m) / 2
}

// set moves part of whole, the bandwidth of a class in sixths, from the middle to a position.
func (s *shares) set(c class, at position, part, whole uint64) {
	w := uint64(parts)
	if whole > 0 {
		w = part * parts / whole // fits: whole is below 2^16 relays × 2^32 × 6
	}
	w = min(w, s[c][atMiddle])
	s[c][at] = w
	s[c][atMiddle] -= w
}

// weightAt is the weight of r at a position.
func (n *network) weightAt(r *relayInfo, at position) uint64 {
	return r.weight * n.shares[r.class()][at]
}

// table holds the relays that may be at a position, for drawing one in logarithmic time.
type table struct {
	relays []*relayInfo
	sums   []uint64 // of the weights up to and including this relay
}

func (t *table) add(r *relayInfo, weight uint64) {
	if n := len(t.sums); n > 0 {
		weight += t.sums[n-1]
	}
	t.relays, t.sums = append(t.relays, r), append(t.sums, weight)
}

func (t *table) total() uint64 {
	if len(t.sums) == 0 {
		return 0
	}
	return t.sums[len(t.sums)-1]
}

// at returns the relay whose share of the weight x falls in; x is below total.
func (t *table) at(x uint64) *relayInfo {
	return t.relays[sort.Search(len(t.sums), func(i int) bool { return t.sums[i] > x })]
}

// weigh makes the shares and the tables of a network whose relays are known.
func (n *network) weigh() {
	var total [classes]uint64
	for _, r := range n.relays {
		total[r.class()] += r.weight
	}
	n.shares = share(total)
	for _, r := range n.relays {
		for at := range positions {
			if n.mayBe(r, at) {
				n.tables[at].add(r, n.weightAt(r, at))
			}
		}
	}
}

// mayBe says whether a relay may be at a position: by its flags, and as the user wants it.
func (n *network) mayBe(r *relayInfo, at position) bool {
	return (at != atGuard || r.mayGuard()) && (at != atExit || r.mayExit()) && n.restrict.allows(r, at)
}

// Of many relays draw tries so many before it looks at all. Its result has the same distribution
// either way.
const (
	many  = 16
	tries = 48
)

// draw chooses one of the relays for a position for which ok holds, in proportion to their weights there; to their
// plain weights when none of them has any, and uniformly when none has those. It returns nil when
// there is none. ok may be asked about a relay several times.
func (n *network) draw(rand env.Rand, at position, ok func(*relayInfo) bool) *relayInfo {
	return n.drawFrom(&n.tables[at], rand, at, ok)
}

func (n *network) drawFrom(t *table, rand env.Rand, at position, ok func(*relayInfo) bool) *relayInfo {
	if total := t.total(); total > 0 && len(t.relays) > many {
		for range tries {
			if r := t.at(below(rand, total)); ok(r) {
				return r
			}
		}
	}
	for _, weight := range []func(*relayInfo) uint64{
		func(r *relayInfo) uint64 { return n.weightAt(r, at) },
		func(r *relayInfo) uint64 { return r.weight },
		func(*relayInfo) uint64 { return 1 },
	} {
		if r := t.scan(rand, weight, ok); r != nil {
			return r
		}
	}
	return nil
}

// scan is draw by looking at every relay, twice.
func (t *table) scan(rand env.Rand, weight func(*relayInfo) uint64, ok func(*relayInfo) bool) *relayInfo {
	var total uint64
	for _, r := range t.relays {
		if ok(r) {
			total += weight(r)
		}
	}
	if total == 0 {
		return nil
	}
	x := below(rand, total)
	for _, r := range t.relays {
		if !ok(r) {
			continue
		}
		w := weight(r)
		if x < w {
			return r
		}
		x -= w
	}
	return nil // not reached: x < total
}

// exits returns the table of the exits for a destination, which it keeps for the next time.
func (n *network) exits(to destination) *table {
	if to == (destination{}) {
		return &n.tables[atExit]
	}
	t := n.byPort[to]
	if t == nil {
		t = &table{}
		for _, r := range n.tables[atExit].relays {
			if r.serves(to) {
				t.add(r, n.weightAt(r, atExit))
			}
		}
		if len(n.byPort) >= maxTables {
			clear(n.byPort)
		}
		n.byPort[to] = t
	}
	return t
}

// maxTables is how many tables exits keeps: of 8,000 relays, 16 bytes for each exit in each.
const maxTables = 64

// offers says whether any relay of a position is as wanted.
func (n *network) offers(at position, ok func(*relayInfo) bool) bool {
	return slices.ContainsFunc(n.tables[at].relays, ok)
}
