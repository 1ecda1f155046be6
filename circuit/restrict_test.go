package circuit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
)

func TestRelaySetsAreRead(t *testing.T) {
	t.Parallel()
	id := entry(1, 0, 0).Identity
	family := cert.FamilyID{7, 8}
	s, err := ParseRelaySet([]string{id.String(), " family:" + family.String(), "192.0.2.0/24", "2001:db8::/32", "203.0.113.9", "::ffff:203.0.113.10", "2600::1"})
	if err != nil {
		t.Fatal(err)
	}
	var prefixes []string
	for _, p := range s.Prefixes {
		prefixes = append(prefixes, p.String())
	}
	if !slices.Equal(s.Identities, []cert.Identity{id}) || !slices.Equal(s.Families, []cert.FamilyID{family}) ||
		!slices.Equal(prefixes, []string{"192.0.2.0/24", "2001:db8::/32", "203.0.113.9/32", "203.0.113.10/32", "2600::1/128"}) {
		t.Errorf("%+v", s)
	}
	for text, want := range map[string]string{ // order: each by itself
		"relay-7":                "nicknames are not unique",
		"":                       "names no relay",
		"family:12":              "names no family",
		"family:":                "names no family",
		"192.0.2.1/24":           "write 192.0.2.0/24",
		id.String()[:63]:         "64 hexadecimal digits",
		id.String() + "00":       "64 hexadecimal digits",
		"192.0.2.0/33":           "names no relay",
		family.String() + ":443": "names no relay",
	} {
		if _, err := ParseRelaySet([]string{text}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestContradictionsAreFoundAtOnce(t *testing.T) {
	t.Parallel()
	a, b := RelaySet{Identities: []cert.Identity{{1}}}, RelaySet{Identities: []cert.Identity{{1}, {2}}}
	prefix := RelaySet{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	for _, c := range []struct {
		r    Restrictions
		want string
	}{
		{Restrictions{}, ""},
		{Restrictions{Exclude: b}, ""},
		{Restrictions{Exclude: a, Exits: Restriction{Only: b}}, ""},
		{Restrictions{Exclude: b, Exits: Restriction{Only: a}}, "the exit is excluded too"},
		{Restrictions{Guards: Restriction{Only: a, Except: a}}, "the guard is excluded too"},
		{Restrictions{Exclude: b, Middles: Restriction{Only: prefix}}, ""},
	} {
		if err := c.r.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
}

// TestRestrictionsHold draws paths under random settings: nobody is used where he may not be, and the percentages that
// are said are those of the weights.
func TestRestrictionsHold(t *testing.T) {
	t.Parallel()
	c := varied(60)
	free := newNetwork(c, nil)
	found, refused := 0, 0
	for seed := range uint64(300) {
		rng := rand.New(newRand(seed))
		some := func() (s RelaySet) {
			for range rng.IntN(4) {
				r := c.Relays[rng.IntN(len(c.Relays))]
				switch rng.IntN(3) {
				case 0:
					s.Identities = append(s.Identities, r.Identity)
				case 1:
					s.Families = append(s.Families, r.Families...)
				default:
					p, _ := r.Addresses[0].Addr().Prefix(9 + rng.IntN(16))
					s.Prefixes = append(s.Prefixes, p)
				}
			}
			return s
		}
		r := &Restrictions{Exclude: some()}
		for at := range positions {
			if x := r.at(at); rng.IntN(2) == 0 {
				x.Except = some()
			} else if rng.IntN(2) == 0 {
				x.Only = some()
			}
		}
		n := newNetwork(c, r)
		for at := range positions {
			var all, left float64
			for _, x := range n.relays {
				if free.mayBe(x, at) {
					all += float64(n.weightAt(x, at))
					if n.mayBe(x, at) {
						left += float64(n.weightAt(x, at))
					}
				}
			}
			if got := float64(n.left[at]); got < 100*left/all-1e-6 || got > 100*left/all+1 || (got == 0) != (left == 0) {
				t.Errorf("seed %d: %v %% for the %v, want %v", seed, got, at, 100*left/all)
			}
			if len(n.tables[at].relays) == 0 && n.empty == nil {
				t.Errorf("seed %d: no %v is left, and nothing is said", seed, at)
			}
		}
		for range 20 {
			guard := n.draw(rng64{rng}, atGuard, func(*relayInfo) bool { return true })
			if guard == nil {
				break
			}
			path, err := n.choosePath(rng64{rng}, guard, wish{to: destination{port: 80, v4: true}, avoid: nobody}, true)
			if err != nil {
				if refused++; !errors.Is(err, errRestricted) || !strings.Contains(err.Error(), "[paths]") {
					t.Errorf("seed %d: %v", seed, err)
				}
				continue
			}
			found++
			for at, x := range path {
				want := r.at(position(at))
				if r.Exclude.has(x) || want.Except.has(x) || !want.Only.Empty() && !want.Only.has(x) {
					t.Errorf("seed %d: a relay as %v that may not be", seed, position(at))
				}
			}
		}
	}
	if found < 500 || refused < 50 {
		t.Errorf("%d paths, %d refused: the test shows little", found, refused)
	}
}

// TestASettingThatCannotBeMet: requests fail at once and name the setting, and so do the client's warnings; nothing
// goes another way.
func TestASettingThatCannotBeMet(t *testing.T) {
	t.Parallel()
	nobodyHas := RelaySet{Identities: []cert.Identity{{9}}}
	for _, c := range []struct {
		name     string
		restrict func(w *world) Restrictions
		want     string
		never    bool // not even the first consensus leaves anything
	}{
		{"no guard", func(*world) Restrictions { return Restrictions{Guards: Restriction{Only: nobodyHas}} }, "no relay for the guard", true},
		{"no exit", func(*world) Restrictions { return Restrictions{Exits: Restriction{Only: nobodyHas}} }, "no relay for the exit", true},
		{"no middle", func(*world) Restrictions { return Restrictions{Middles: Restriction{Only: nobodyHas}} }, "no relay for the middle", true},
		{"guard and exit are one", func(w *world) Restrictions {
			only := Restriction{Only: RelaySet{Identities: []cert.Identity{w.relays[6].node.Identity}}}
			return Restrictions{Guards: only, Exits: only}
		}, "no relay for the", false},
		{"all exits excluded", func(w *world) (r Restrictions) {
			for _, x := range w.relays[4:] {
				r.Exits.Except.Identities = append(r.Exits.Except.Identities, x.node.Identity)
			}
			return r
		}, "no relay for the exit", true},
	} {
		w := newWorld(t, 1, 7, 3)
		w.echo(server)
		var log bytes.Buffer
		w.f.Log = slog.New(slog.NewTextHandler(&log, nil))
		r := c.restrict(w)
		var told error
		x := w.newClient(func(cfg *Config) { cfg.Restrict, cfg.OnTrouble = &r, func(err error) { told = err } })
		began := w.f.Now()
		err := x.carry(time.Minute, []byte("hello"))
		var e *Error
		if !errors.As(err, &e) || e.Reason != cell.ReasonPolicy && c.never || !strings.Contains(e.Text, c.want) && c.never {
			t.Errorf("%s: %v", c.name, err)
		}
		if took := w.f.Now().Sub(began); took > time.Second && c.never {
			t.Errorf("%s: failed after %v", c.name, took)
		}
		if c.never && (told == nil || !strings.Contains(told.Error(), c.want)) {
			t.Errorf("%s: told %v", c.name, told)
		}
		if warnings := fmt.Sprint(x.c.Warnings()); !strings.Contains(warnings, "stand out") || c.never && !strings.Contains(warnings, c.want) {
			t.Errorf("%s: warnings %q", c.name, warnings)
		}
		if !strings.Contains(log.String(), "stand out") {
			t.Errorf("%s: nothing in the log: %s", c.name, log.String())
		}
		if n := x.c.Stats().Built; n > 0 {
			t.Errorf("%s: %d circuits were built", c.name, n)
		}
	}
}

// TestRequiredRelaysAreUsed: with settings that can be met streams go by the relays that are wanted, also when others are known
// as guards from before.
func TestRequiredRelaysAreUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 12, 4)
	w.echo(server)
	x := w.newClient(nil)
	if err := x.carry(5*time.Second, []byte("without")); err != nil {
		t.Fatal(err)
	}
	x.node.Stop()
	id := func(i int) cert.Identity { return w.relays[i].node.Identity }
	r := Restrictions{
		Exclude: RelaySet{Prefixes: []netip.Prefix{netip.PrefixFrom(w.relays[9].node.Address.Addr(), 32)}},
		Guards:  Restriction{Only: RelaySet{Identities: []cert.Identity{id(2)}}},
		Exits:   Restriction{Only: RelaySet{Identities: []cert.Identity{id(9), id(10)}}},
	}
	x = w.newClient(func(c *Config) { c.Restrict = &r })
	for i := range 5 {
		if err := x.carry(5*time.Second, []byte("with")); err != nil {
			t.Fatal(err)
		}
		for _, info := range x.c.Circuits() {
			if info.Path[0] != id(2) || info.Path[2] != id(10) || info.Path[1] == id(9) {
				t.Errorf("request %d: a circuit by other relays", i)
			}
		}
		w.f.Do(x.c.NewIdentity)
	}
	if left := x.c.network.left; left[atGuard] >= 50 || left[atExit] >= 60 || left[atMiddle] < 50 {
		t.Errorf("left %v", left)
	}
	w.agree([]*testRelay{w.relays[2]}) // the only guard leaves the network
	w.f.Run(time.Second)
	if err := x.carry(5*time.Second, []byte("no more")); err == nil || !strings.Contains(err.Error(), "for the guard") {
		t.Errorf("without the only guard: %v", err)
	}
}

// TestFamiliesAndSubnetsOfTwoAddresses: relays whose addresses are in one /16 or /32 in one of the two families are kept
// apart, whatever the other address is; an IPv4 and an IPv6 address never clash.
func TestFamiliesAndSubnetsOfTwoAddresses(t *testing.T) {
	t.Parallel()
	make := func(i int, addresses ...string) *relayInfo {
		e := entry(i, 1, directory.FlagGuard)
		e.Addresses = nil
		for _, a := range addresses {
			e.Addresses = append(e.Addresses, netip.MustParseAddrPort(a))
		}
		return newNetwork(consensusOf(e), nil).relays[0]
	}
	for _, c := range []struct {
		a, b  []string
		apart bool // may be in one circuit
	}{
		{[]string{"11.1.0.1:1"}, []string{"11.1.255.1:1"}, false},
		{[]string{"11.1.0.1:1"}, []string{"11.2.0.1:1"}, true},
		{[]string{"[2600:1::1]:1"}, []string{"[2600:1:ffff::1]:1"}, false},
		{[]string{"[2600:1::1]:1"}, []string{"[2600:2::1]:1"}, true},
		{[]string{"11.1.0.1:1"}, []string{"[2600:1::1]:1"}, true},
		{[]string{"11.1.0.1:1", "[2600:1::1]:1"}, []string{"11.2.0.1:1", "[2600:1::2]:1"}, false},
		{[]string{"11.1.0.1:1", "[2600:1::1]:1"}, []string{"[2600:2::2]:1", "11.1.0.2:1"}, false},
		{[]string{"11.1.0.1:1", "[2600:1::1]:1"}, []string{"11.2.0.1:1", "[2600:2::1]:1"}, true},
		{[]string{"[::ffff:11.1.0.1]:1"}, []string{"11.1.3.1:1"}, false},
	} {
		a, b := make(1, c.a...), make(2, c.b...)
		if together(a, b, true) != c.apart || together(b, a, true) != c.apart {
			t.Errorf("%v and %v: want %v", c.a, c.b, c.apart)
		}
		if !together(a, b, false) {
			t.Errorf("%v and %v: kept apart without the rule", c.a, c.b)
		}
	}
}
