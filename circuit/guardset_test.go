package circuit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/env/envtest"
)

// guardWorld is a client's guards alone: nobody is there, and what comes of each attempt is the test's.
type guardWorld struct {
	f *envtest.Fake
	g *guards
	c *directory.Consensus
	n *network
}

// newGuardWorld has a consensus of n guards, a third of them exits.
func newGuardWorld(seed uint64, n int) *guardWorld {
	w := &guardWorld{f: envtest.NewFake(seed)}
	var relays []directory.Relay
	for i := range n {
		flags := directory.FlagGuard
		if i%3 == 0 {
			flags |= directory.FlagExit
		}
		relays = append(relays, entry(i, uint32(100+i%7*100), flags))
	}
	w.c = consensusOf(relays...)
	w.list(nil)
	w.g = newGuards(w.f.Client("client").Env, cert.NetworkID{7})
	w.g.update(w.n, true)
	return w
}

// list has the consensus list all but some.
func (w *guardWorld) list(without map[cert.Identity]bool) {
	c := *w.c
	c.Relays = nil
	for _, r := range w.c.Relays {
		if !without[r.Identity] {
			c.Relays = append(c.Relays, r)
		}
	}
	w.n = newNetwork(&c, nil)
}

func (w *guardWorld) restart() {
	w.f.Run(time.Millisecond) // the save
	w.f.Client("client").Stop()
	w.g = newGuards(w.f.Client("client").Env, cert.NetworkID{7})
	w.g.update(w.n, true)
}

// attempt builds a circuit, as far as guards see it: to the guard of choice, with this outcome. It
// returns the guard, or nil if there is none to be asked now.
func (w *guardWorld) attempt(outcome func(*guard) error) *guard {
	x, _ := w.g.choose(true)
	if x == nil {
		return nil
	}
	began := w.f.Now()
	w.f.Run(time.Millisecond)
	if err := outcome(x); err != nil {
		w.g.onFailure(x, began, err)
	} else {
		w.g.onSuccess(x)
	}
	return x
}

var errSilent = errors.New("no answer")

func fails(*guard) error { return errSilent }
func works(*guard) error { return nil }

func TestGuardsAreConfirmedInOrderOfUse(t *testing.T) {
	t.Parallel()
	w := newGuardWorld(1, 60)
	g := w.g
	if len(g.sample) != leastSample || len(g.primary) != primaries || len(g.confirmed) != 0 {
		t.Fatalf("%d sampled, %d primary, %d confirmed", len(g.sample), len(g.primary), len(g.confirmed))
	}
	a, b, c := g.primary[0], g.primary[1], g.primary[2]
	if !slices.Equal(g.primary, g.sample[:3]) {
		t.Error("the primaries are not the first of the sample")
	}
	// The first two are away at first, the third works, then the second does.
	w.attempt(func(x *guard) error {
		if x == a || x == b {
			return errSilent
		}
		return nil
	})
	w.attempt(fails)
	w.attempt(works)
	if !slices.Equal(g.confirmed, []*guard{c}) || g.primary[0] != c {
		t.Fatalf("%d confirmed; the one that worked comes first: %v", len(g.confirmed), g.primary[0] == c)
	}
	g.onSuccess(b)
	g.onSuccess(a)
	if !slices.Equal(g.primary, []*guard{c, b, a}) {
		t.Error("not in order of first use")
	}
	ids := func() (list []cert.Identity) {
		for _, x := range w.g.primary {
			list = append(list, x.id)
		}
		return list
	}
	before := ids()
	w.restart()
	if !slices.Equal(before, ids()) || len(w.g.sample) != leastSample {
		t.Errorf("guards %v, after a restart %v", before, ids())
	}
	// A confirmed one that comes back into the consensus takes its place again.
	gone := map[cert.Identity]bool{before[0]: true}
	w.list(gone)
	w.g.update(w.n, true)
	if now := ids(); now[0] != before[1] || now[1] != before[2] || len(now) != primaries {
		t.Errorf("guards %v, without the first %v", before, now)
	}
	w.list(nil)
	w.g.update(w.n, true)
	if now := ids(); !slices.Equal(now, before) {
		t.Errorf("guards %v, listed again %v", before, now)
	}
}

// TestGuardsGrowOld: an unused guard is replaced after 54 to 60 days, a used one after 108 to 120,
// one that is not listed after 16 to 20; the dates of several differ.
func TestGuardsGrowOld(t *testing.T) {
	t.Parallel()
	var unused, used, unlisted []float64
	for seed := range uint64(40) {
		w := newGuardWorld(seed, 200)
		a, b, c := w.g.primary[0], w.g.primary[1], w.g.sample[4]
		w.g.onSuccess(a)
		w.list(map[cert.Identity]bool{b.id: true})
		gone := map[*guard]float64{}
		for d := 0.0; d < 130; d += 0.25 {
			w.f.Run(6 * time.Hour)
			w.g.update(w.n, true)
			for _, x := range []*guard{a, b, c} {
				if gone[x] == 0 && !slices.Contains(w.g.sample, x) {
					gone[x] = d + 0.25
				}
			}
			if len(w.g.sample) > w.g.limit {
				t.Fatalf("%d guards, at most %d", len(w.g.sample), w.g.limit)
			}
		}
		used, unlisted, unused = append(used, gone[a]), append(unlisted, gone[b]), append(unused, gone[c])
	}
	for name, x := range map[string]struct { // order: each by itself
		days        []float64
		least, most float64
	}{"used": {used, 108, 120.25}, "not listed": {unlisted, 16, 20.25}, "unused": {unused, 54, 60.25}} {
		least, most := slices.Min(x.days), slices.Max(x.days)
		if least < x.least || most > x.most || most-least < (x.most-x.least)/2 {
			t.Errorf("%s: gone after %v to %v days", name, least, most)
		}
	}
}

// TestNobodyLeadsAClientThroughManyGuards has somebody who can make any guard fail, or leave the consensus, do so , at any time and whatever the client tries, with restarts in between. In no 30 days does it ask more guards than
// docs/protocol.md, "Guards", says. The rule is what does it: without, it asks many more.
func TestNobodyLeadsAClientThroughManyGuards(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		guards, limit int
		free          bool // of the rule
	}{{40, 20, false}, {100, 20, false}, {200, 40, false}, {600, 60, false}, {600, 60, true}} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%d/free=%v/%d", c.guards, c.free, seed), func(t *testing.T) {
				t.Parallel()
				worst := walkClient(t, seed, c.guards, c.limit, c.free)
				t.Logf("%d guards within 30 days", worst)
				if !c.free && worst > c.limit {
					t.Errorf("%d of %d guards were asked within 30 days, at most %d may be", worst, c.guards, c.limit)
				}
				if c.free && worst <= c.limit {
					t.Errorf("without the rule no more than %d guards are asked: the test shows nothing", worst)
				}
			})
		}
	}
}

func walkClient(t *testing.T, seed uint64, guards, limit int, free bool) (worst int) {
	w := newGuardWorld(seed, guards)
	rng := rand.New(newRand(seed))
	asked := map[cert.Identity]time.Time{}
	ask := func(id cert.Identity) { asked[id] = w.g.env.Clock.Wall() }
	hidden := map[cert.Identity]time.Time{}
	var spared cert.Identity
	for range 75 * 4 {
		if w.g.limit > limit && !free {
			t.Fatalf("the limit is %d", w.g.limit)
		}
		w.f.Run(6 * time.Hour)
		now := w.g.env.Clock.Wall()
		without := map[cert.Identity]bool{}
		for id, until := range hidden { // order: a set
			if now.Before(until) {
				without[id] = true
			}
		}
		if rng.IntN(3) == 0 { // those in use leave the consensus for a while
			for _, x := range w.g.sample {
				if !x.contacted.IsZero() && rng.IntN(2) == 0 {
					hidden[x.id] = now.Add(time.Duration(rng.IntN(40*24)) * time.Hour)
					without[x.id] = true
				}
			}
		}
		w.list(without)
		if free {
			w.g.former = nil
			for _, x := range w.g.sample {
				x.contacted = time.Time{}
			}
		}
		w.g.update(w.n, true)
		for _, target := range w.g.targets() {
			ask(target.Identity)
		}
		if rng.IntN(60) == 0 { // from time to time one of them is let alone, for weeks perhaps
			spared = w.g.sample[rng.IntN(len(w.g.sample))].id
		} else if rng.IntN(60) == 0 {
			spared = cert.Identity{}
		}
		for range 60 {
			w.f.Run(time.Second)
			x := w.attempt(func(x *guard) error {
				if x.id == spared {
					return nil
				}
				return errSilent
			})
			if x != nil {
				ask(x.id)
			}
		}
		if rng.IntN(50) == 0 {
			w.restart()
		}
		n := 0
		now = w.g.env.Clock.Wall()
		for _, at := range asked { // order: a count
			if now.Sub(at) < guardContact {
				n++
			}
		}
		worst = max(worst, n)
	}
	// When it ends, the client has a guard again.
	w.list(nil)
	w.g.update(w.n, true)
	for range 60 {
		w.f.Run(time.Second)
		if x := w.attempt(works); x != nil && x.state == guardUp {
			return worst
		}
	}
	t.Error("no guard works after the attack")
	return worst
}

// TestAFullListIsSaid: who has asked all the guards it may says so, and what to do.
func TestAFullListIsSaid(t *testing.T) {
	t.Parallel()
	w := newGuardWorld(3, 100)
	for range 20_000 {
		w.f.Run(time.Minute)
		w.attempt(fails)
	}
	if !w.g.full() || !w.g.offline() || w.g.obstacle() != nil {
		t.Errorf("full %v, offline %v, obstacle %v", w.g.full(), w.g.offline(), w.g.obstacle())
	}
}

// TestNobodyIsBlamedForTheNetwork: when all primaries fail for a reason that is this machine's, no other guard is
// tried, and the reason is said; when only some do, it is theirs.
func TestNobodyIsBlamedForTheNetwork(t *testing.T) {
	t.Parallel()
	skew := &env.ClockError{Skew: 50 * time.Hour}
	for _, c := range []struct {
		name   string
		errors [primaries]error
		want   string
	}{
		{"no network", [3]error{env.ErrOffline, env.ErrOffline, env.ErrOffline}, "not connected to a network"},
		{"a login page", [3]error{env.ErrNotRelay, env.ErrNotRelay, env.ErrNotRelay}, "login page"},
		{"a wrong clock", [3]error{skew, skew, skew}, "2 days behind"},
		{"one lies", [3]error{env.ErrNotRelay, errSilent, errSilent}, ""},
		{"two lie", [3]error{env.ErrNotRelay, env.ErrNotRelay, errSilent}, ""},
		{"different reasons", [3]error{env.ErrNotRelay, env.ErrOffline, skew}, ""},
		{"silence", [3]error{errSilent, errSilent, errSilent}, ""},
	} {
		w := newGuardWorld(4, 60)
		fail := func(x *guard) error {
			if i := slices.Index(w.g.primary, x); i >= 0 {
				return fmt.Errorf("opening a link: %w", c.errors[i])
			}
			return errSilent
		}
		beyond := 0
		for range 600 {
			w.f.Run(time.Second)
			if x := w.attempt(fail); x != nil && !x.primary {
				beyond++
			}
		}
		why := w.g.obstacle()
		if (why == nil) != (c.want == "") || why != nil && !strings.Contains(why.Error(), c.want) {
			t.Errorf("%s: %v", c.name, why)
		}
		if (beyond > 0) != (c.want == "") {
			t.Errorf("%s: %d attempts at guards beyond the primaries", c.name, beyond)
		}
		for _, x := range w.g.primary {
			if x.failures > 1 {
				t.Errorf("%s: a primary counts %d failures", c.name, x.failures)
			}
		}
		w.f.Run(offlineRetry)
		first := w.g.primary[0]
		if x := w.attempt(works); x != first {
			t.Errorf("%s: when it is over another guard than the first is used", c.name)
		}
		if why := w.g.obstacle(); why != nil {
			t.Errorf("%s: over, but still %v", c.name, why)
		}
	}
}

// TestGuardsBeyondThePrimaries: when all three primaries are gone, another guard serves within seconds; once a primary is back
// it is used again, and nothing new goes by the other.
func TestGuardsBeyondThePrimaries(t *testing.T) {
	t.Parallel()
	for _, vanish := range []bool{false, true} {
		w := newWorld(t, 12, 10, 3)
		w.echo(server)
		x := w.newClient(nil)
		if err := x.carry(5*time.Second, []byte("first")); err != nil {
			t.Fatal(err)
		}
		var away []*testRelay
		for _, g := range x.c.guards.primary {
			away = append(away, w.find(g.id))
		}
		for _, r := range away {
			if vanish {
				r.node.Vanish(true)
			} else {
				r.node.Stop()
			}
		}
		began := w.f.Now()
		if err := x.carry(50*time.Second, []byte("by a fourth")); err != nil {
			t.Fatalf("vanish %v: %v", vanish, err)
		}
		t.Logf("vanish %v: served after %v", vanish, w.f.Now().Sub(began))
		if x.c.nextID > 100 {
			t.Errorf("vanish %v: %d circuits were begun", vanish, x.c.nextID)
		}
		p := x.newest()
		if slices.ContainsFunc(away, func(r *testRelay) bool { return r.node.Identity == p.guard.id }) || p.guard.confirmed.IsZero() {
			t.Error("the guard in use is one of those that are gone, or not confirmed")
		}
		for _, r := range away {
			if vanish {
				r.node.Vanish(false)
			} else {
				r.start()
			}
		}
		w.f.Run(20 * time.Minute)
		if err := x.carry(5*time.Second, []byte("by a primary")); err != nil {
			t.Fatal(err)
		}
		if q := x.newest(); w.find(q.guard.id) != away[0] {
			t.Errorf("vanish %v: not by the first guard", vanish)
		}
		for _, q := range x.c.circuits {
			if w.find(q.guard.id) != away[0] && !q.retired {
				t.Errorf("vanish %v: a circuit through another guard takes streams", vanish)
			}
		}
	}
}

// newest is the circuit that has carried a stream last.
func (x *testClient) newest() (newest *pooled) {
	for _, p := range x.c.circuits {
		if p.keyed && (newest == nil || p.circuit.heard >= newest.circuit.heard) {
			newest = p
		}
	}
	return newest
}

// TestALoginPageIsSaid: requests that fail for a login page say so, OnTrouble does within seconds, and all goes on by
// itself afterwards with the same guards.
func TestALoginPageIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 13, 12, 3)
	w.echo(server)
	var told []error
	x := w.newClient(func(c *Config) { c.OnTrouble = func(err error) { told = append(told, err) } })
	w.f.Run(time.Second)
	before := x.guardNames()
	x.bar = fmt.Errorf("handshake: %w", env.ErrNotRelay)
	x.node.Stop()
	x = w.newClient(func(c *Config) { c.OnTrouble = func(err error) { told = append(told, err) } })
	x.bar = fmt.Errorf("handshake: %w", env.ErrNotRelay)
	a := x.open(web(server, ""), []byte("early"))
	w.f.Run(2 * time.Minute)
	if a.err == nil || !strings.Contains(a.err.Error(), "login page") {
		t.Errorf("the request fails with %v", a.err)
	}
	if len(told) != 1 || !errors.Is(told[0], errPortal) {
		t.Errorf("told %v", told)
	}
	if len(x.dialled) != primaries {
		t.Errorf("%d guards were dialled", len(x.dialled))
	}
	x.bar = nil
	if err := x.carry(10*time.Second, []byte("logged in")); err != nil {
		t.Error(err)
	}
	if len(told) != 2 || told[1] != nil {
		t.Errorf("told %v", told)
	}
	if after := x.guardNames(); !slices.Equal(before, after) {
		t.Errorf("guards %v, then %v", before, after)
	}
}

// TestGuardsOfAnEarlierVersion: the file of version 1 is read, its guards stay, in their order.
func TestGuardsOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	network := cert.NetworkID{7}
	one, two := cert.Identity{1}, cert.Identity{2}
	old := "a3" + "0101" + "025820" + hex.EncodeToString(network[:]) + "0382" +
		"a2" + "015820" + hex.EncodeToString(two[:]) + "021a69a00000" +
		"a3" + "015820" + hex.EncodeToString(one[:]) + "021a69a00001" + "031a69a10000"
	data, err := hex.DecodeString(old)
	if err != nil {
		t.Fatal(err)
	}
	f, err := decodeGuards(data, network)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.sample) != 2 || f.sample[0].id != two || f.sample[1].id != one || f.sample[0].sampled.Unix() != 0x69a00000 ||
		f.sample[1].unlisted.Unix() != 0x69a10000 || len(f.confirmed)+len(f.former) != 0 {
		t.Errorf("read as %+v", f)
	}
	data, err = encodeGuards(f, network)
	if err != nil || !bytes.HasPrefix(data, []byte{0xa3, 1, 2}) {
		t.Errorf("written as %x, %v", data, err)
	}
}

func TestGuardFilesThatAreWrong(t *testing.T) {
	t.Parallel()
	network := cert.NetworkID{7}
	at := time.Unix(1_700_000_000, 0)
	x := func(i byte) *guard {
		return &guard{id: cert.Identity{i}, sampled: at, confirmed: at, contacted: at}
	}
	a, b := x(1), x(2)
	for name, f := range map[string]guardFile{ // order: each by itself
		"a rank twice":          {sample: []*guard{a, {id: cert.Identity{3}, sampled: at, confirmed: at}}, confirmed: []*guard{a}},
		"the same guard twice":  {sample: []*guard{a, a}, confirmed: []*guard{a}},
		"confirmed but no rank": {sample: []*guard{a, b}, confirmed: []*guard{a}},
		"too many":              {sample: slices.Repeat([]*guard{a}, maxSample+1)},
	} {
		data, err := encodeGuards(f, network)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeGuards(data, network); !errors.Is(err, errGuards) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := guardFile{sample: []*guard{a, b}, confirmed: []*guard{b, a}, former: []time.Time{at, at}}
	data, err := encodeGuards(good, network)
	if err != nil {
		t.Fatal(err)
	}
	f, err := decodeGuards(data, network)
	if err != nil || len(f.confirmed) != 2 || f.confirmed[0].id != b.id || len(f.former) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := decodeGuards(data, cert.NetworkID{8}); !errors.Is(err, errGuards) {
		t.Errorf("of another network: %v", err)
	}
}

func FuzzDecodeGuards(f *testing.F) {
	network := cert.NetworkID{7}
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	a, b := &guard{id: cert.Identity{1}, sampled: at(1)}, &guard{id: cert.Identity{2}, sampled: at(9e8), unlisted: at(9e8 + 1), confirmed: at(9e8), contacted: at(86400)}
	for _, file := range []guardFile{{}, {sample: []*guard{a}}, {sample: []*guard{a, b}, confirmed: []*guard{b}, former: []time.Time{at(86400)}}} {
		data, err := encodeGuards(file, network)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(bytes.Replace(data, []byte{1, 2, 2}, []byte{1, 1, 2}, 1)) // version 1
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decodeGuards(data, network)
		if err != nil {
			return
		}
		again, err := encodeGuards(file, network)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(data, []byte{0xa3, 1, 1}) { // version 1 becomes version 2
			if _, err := decodeGuards(again, network); err != nil {
				t.Fatalf("%x became %x: %v", data, again, err)
			}
			return
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%x became %x", data, again)
		}
	})
}
