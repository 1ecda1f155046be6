package circuit

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
)

func newRand(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "test %d", seed)))
}

func nobody(_, _ cert.Identity) bool { return false }

// anyPorts allows every port.
var anyPorts = directory.PortSummary{
	IPv4: []directory.PortRange{{From: 1, To: 65535}}, IPv6: []directory.PortRange{{From: 1, To: 65535}},
}

// entry makes relay i of a synthetic consensus, in a /16 of its own.
func entry(i int, weight uint32, flags directory.Flags) directory.Relay {
	r := directory.Relay{
		Identity:  cert.Identity(sha256.Sum256(fmt.Append(nil, i))),
		OnionKey:  sha256.Sum256(fmt.Append(nil, "onion", i)),
		Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(11 + i/256), byte(i), 0, 1}), 9001)},
		Flags:     flags | directory.FlagRunning | directory.FlagValid,
		Weight:    weight,
		Protocols: directory.OurProtocols(),
	}
	if flags.Has(directory.FlagExit) {
		r.Ports = anyPorts
	}
	return r
}

func consensusOf(relays ...directory.Relay) *directory.Consensus {
	slices.SortFunc(relays, func(a, b directory.Relay) int { return a.Identity.Compare(b.Identity) })
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	return &directory.Consensus{
		Head:   &directory.Head{ValidAfter: now, FreshUntil: now.Add(interval), ValidUntil: now.Add(24 * interval)},
		Relays: relays,
	}
}

// TestDrawIsFair covers weights of zero, and the arithmetic of below.
func TestDrawIsFair(t *testing.T) {
	t.Parallel()
	n := newNetwork(consensusOf(entry(1, 0, 0), entry(2, 0, 0), entry(3, 0, 0)), nil)
	seen := map[*relayInfo]int{}
	r := newRand(2)
	for range 30_000 {
		seen[n.draw(r, atMiddle, func(*relayInfo) bool { return true })]++
	}
	for _, x := range n.relays {
		if seen[x] < 9500 || seen[x] > 10500 {
			t.Errorf("drawn %d times of 30000", seen[x])
		}
	}
	if x := n.draw(r, atMiddle, func(*relayInfo) bool { return false }); x != nil {
		t.Error("a relay out of none")
	}
	for _, most := range []uint64{1, 2, 3, 1 << 63, math.MaxUint64} {
		for range 1000 {
			if v := below(r, most); v >= most {
				t.Fatalf("%d is not below %d", v, most)
			}
		}
	}
}

// TestPathsKeepTheRules draws paths in random networks with families and crowded subnets.
func TestPathsKeepTheRules(t *testing.T) {
	t.Parallel()
	found := 0
	for seed := range uint64(200) {
		rng := rand.New(newRand(seed))
		var relays []directory.Relay
		for i := range 5 + rng.IntN(20) {
			flags := directory.FlagGuard
			for _, f := range []directory.Flags{directory.FlagExit, directory.FlagBadExit, directory.FlagMiddleOnly} {
				if rng.IntN(3) == 0 {
					flags |= f
				}
			}
			r := entry(i, uint32(rng.IntN(1000)), flags)
			if rng.IntN(4) == 0 {
				r.Flags &^= directory.FlagRunning
			}
			if rng.IntN(8) == 0 {
				r.Protocols = nil
			}
			for k := range 4 {
				if rng.IntN(6) == 0 {
					r.Families = append(r.Families, cert.FamilyID{byte(k)})
				}
			}
			r.Addresses = nil
			if rng.IntN(4) > 0 {
				r.Addresses = append(r.Addresses, netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(rng.IntN(6)), byte(i), 1}), 1))
			}
			if len(r.Addresses) == 0 || rng.IntN(3) == 0 {
				a := netip.MustParseAddr("2600::1").As16()
				a[3], a[15] = byte(rng.IntN(5)), byte(i)
				r.Addresses = append(r.Addresses, netip.AddrPortFrom(netip.AddrFrom16(a), 1))
			}
			relays = append(relays, r)
		}
		subnets := rng.IntN(2) == 0
		c := consensusOf(relays...)
		n := newNetwork(c, nil)
		entryOf := func(r *relayInfo) directory.Relay {
			i := slices.IndexFunc(c.Relays, func(e directory.Relay) bool { return e.Identity == r.identity })
			return c.Relays[i]
		}
		for _, guard := range n.relays {
			banned := []cert.Identity{relays[rng.IntN(len(relays))].Identity}
			path, err := n.choosePath(rng64{rng}, guard, wish{to: destination{port: 443, v6: true}, banned: banned, avoid: nobody}, subnets)
			if err != nil {
				continue
			}
			found++
			exit := entryOf(path[2])
			if !exit.Flags.Has(directory.FlagExit) || exit.Flags&(directory.FlagBadExit|directory.FlagMiddleOnly) != 0 || slices.Contains(banned, exit.Identity) {
				t.Errorf("seed %d: exit with flags %v", seed, exit.Flags)
			}
			for i, a := range path {
				e := entryOf(a)
				if !e.Flags.Has(directory.FlagRunning|directory.FlagValid) || len(e.Protocols) == 0 {
					t.Errorf("seed %d: an unusable relay", seed)
				}
				for _, b := range path[:i] {
					checkApart(t, e, entryOf(b), subnets)
				}
			}
		}
	}
	if found < 500 {
		t.Errorf("only %d paths: the test shows little", found)
	}
}

// rng64 makes an env.Rand of a rand.Rand.
type rng64 struct{ *rand.Rand }

func (r rng64) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.Uint64())
	}
	return len(p), nil
}

func checkApart(t *testing.T, a, b directory.Relay, subnets bool) {
	t.Helper()
	if a.Identity == b.Identity {
		t.Error("a relay twice")
	}
	for _, f := range a.Families {
		if slices.Contains(b.Families, f) {
			t.Error("two relays of a family")
		}
	}
	for _, x := range a.Addresses {
		for _, y := range b.Addresses {
			p, q := x.Addr().As16(), y.Addr().As16()
			same := x.Addr().Is4() && y.Addr().Is4() && p[12] == q[12] && p[13] == q[13] ||
				x.Addr().Is6() && y.Addr().Is6() && [4]byte(p[:4]) == [4]byte(q[:4])
			if subnets && same {
				t.Errorf("%v and %v in one subnet", x, y)
			}
		}
	}
}

// TestAvoidedRelaysAreTheLastResort: a relay that failed is used again only when there is no
// other way, middles before exits.
func TestAvoidedRelaysAreTheLastResort(t *testing.T) {
	t.Parallel()
	guard, a, b, c := entry(1, 10, directory.FlagGuard), entry(2, 10, directory.FlagExit), entry(3, 10, directory.FlagExit), entry(4, 10, 0)
	n := newNetwork(consensusOf(guard, a, b, c), nil)
	r := newRand(3)
	draw := func(shun []cert.Identity, avoid ...cert.Identity) (middles, exits map[cert.Identity]bool) {
		middles, exits = map[cert.Identity]bool{}, map[cert.Identity]bool{}
		for range 200 {
			w := wish{to: destination{port: 80, v4: true}, shun: shun, avoid: func(_, id cert.Identity) bool { return slices.Contains(avoid, id) }}
			path, err := n.choosePath(r, n.find(guard.Identity), w, true)
			if err != nil {
				t.Fatal(err)
			}
			middles[path[1].identity], exits[path[2].identity] = true, true
		}
		return middles, exits
	}
	if _, exits := draw(nil, a.Identity); exits[a.Identity] {
		t.Error("an exit that failed was used")
	}
	if middles, _ := draw(nil, a.Identity); middles[a.Identity] {
		t.Error("a middle that failed was used")
	}
	if middles, exits := draw([]cert.Identity{a.Identity, c.Identity}); exits[a.Identity] || len(middles) != 2 {
		t.Error("a relay on which the stream stalled is to be used as a middle only when there is no other")
	}
	if _, exits := draw(nil, a.Identity, b.Identity, c.Identity); len(exits) != 2 {
		t.Error("when all failed, all are to be tried")
	}
}

func TestDestinations(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2600::1")
	both := cell.AllowIPv4 | cell.AllowIPv6
	for _, c := range []struct {
		a     cell.Address
		port  uint16
		flags cell.Flags
		want  destination
	}{
		{cell.Address{IP: v4}, 80, both, destination{80, true, false}},
		{cell.Address{IP: v4}, 80, cell.AllowIPv6, destination{80, true, false}},
		{cell.Address{IP: v6}, 80, cell.AllowIPv4, destination{80, false, true}},
		{cell.Address{Host: "x.test"}, 80, both, destination{80, true, true}},
		{cell.Address{Host: "x.test"}, 80, cell.AllowIPv6, destination{80, false, true}},
		{cell.Address{Host: "x.test"}, 0, both, destination{}},
	} {
		if got := destinationOf(c.a, c.port, c.flags); got != c.want {
			t.Errorf("%v port %d flags %d: %+v", c.a, c.port, c.flags, got)
		}
	}
}
