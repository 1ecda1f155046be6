package directory

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// faultyStore is a Store that fails, or ends the program, when something is saved.
type faultyStore struct {
	env.Store
	m       *member
	fault   func(name string) fault
	crashed bool
}

type fault int

const (
	noFault        fault = iota
	crashBefore          // the program ends, nothing is written
	crashAfter           // it is written, and the program ends before it knows
	crashAtOnce          // it is written, the program knows, and ends as soon as it has acted on it
	failUnwritten        // an error, nothing written
	failYetWritten       // an error, but it is written
	faults
)

func (s *faultyStore) Save(name string, data []byte, done func(error)) {
	crash := func() {
		s.m.node.Stop()
		s.crashed = true
	}
	if done == nil {
		done = func(error) {}
	}
	switch s.fault(name) {
	case crashBefore:
		crash()
	case crashAfter:
		s.Store.Save(name, data, func(error) { crash() })
	case crashAtOnce:
		s.Store.Save(name, data, func(err error) { done(err); crash() })
	case failUnwritten:
		s.m.node.Env.Clock.AfterFunc(0, func() { done(errors.New("disk full")) })
	case failYetWritten:
		s.Store.Save(name, data, func(error) { done(errors.New("disk full?")) })
	default:
		s.Store.Save(name, data, done)
	}
}

// TestAuthorityNeverSignsTwice protects the promise on which all agreement rests: whatever ends the authority, and
// whenever, nobody ever sees two consensuses for one valid-after. The relays change between, so that a second
// signature would differ.
func TestAuthorityNeverSignsTwice(t *testing.T) {
	t.Parallel()
	total := 0
	for seed := range uint64(12) {
		w := newWorld(t, seed, 5, func(n *Network) { n.Parameters[IntervalMillis] = 2000 })
		authority := w.members[0]
		store := &faultyStore{m: authority}
		state := seed
		store.fault = func(name string) fault {
			if !strings.HasPrefix(name, "authority.signed") && !strings.HasPrefix(name, "consensus") {
				return noFault
			}
			state = state*6364136223846793005 + 1442695040888963407
			if kind := fault(state >> 40 % uint64(3*faults)); kind < faults {
				return kind
			}
			return noFault
		}
		authority.store = store
		for i, m := range w.members[1:] {
			m.describe = func(d *Descriptor) { // another weight every second
				d.Bandwidth = uint64(1<<20 + int(w.f.Now().Sub(0)/time.Second)<<14 + i)
			}
		}
		restart := func() {
			authority.crash()
			store.crashed = false
			store.Store = authority.node.Env.Store
			authority.start()
		}
		store.Store = authority.node.Env.Store
		w.startAll()
		seen := make(map[time.Time]cert.Digest)
		crashes := 0
		for range 400 {
			w.f.RunUntil(50*time.Millisecond, func() bool { return store.crashed })
			if store.crashed {
				crashes++
				w.f.Run(time.Duration(state%300) * time.Millisecond)
				restart()
			}
			for _, m := range w.members {
				for _, c := range m.consensus {
					if had, ok := seen[c.Head.ValidAfter]; ok && had != c.Head.Digest {
						t.Fatalf("seed %d: two consensuses for %v", seed, c.Head.ValidAfter)
					}
					seen[c.Head.ValidAfter] = c.Head.Digest
				}
				if m.follower.Stats().Forks > 0 {
					t.Fatalf("seed %d: a relay saw a fork", seed)
				}
			}
		}
		if crashes == 0 || len(seen) < 4 {
			t.Errorf("seed %d: %d crashes and %d consensuses in 20 s: nothing was tested", seed, crashes, len(seen))
		}
		total += crashes
	}
	t.Logf("%d crashes", total)
}

func TestAuthorityThatCannotReadWhatItSignedDoesNotStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1, nil)
	m := w.members[0]
	m.make()
	config := m.authority.cfg
	for name, data := range map[string][]byte{ // order: each on its own
		"empty": {}, "no time": make([]byte, 12), "cut short": {0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1},
	} {
		m.node.Env.Store.Save(signedBlob, data, nil)
		w.f.Run(0)
		if _, err := NewAuthority(config); err == nil {
			t.Errorf("%s: it started", name)
		}
	}
	config.Identity = testIdentity(7)
	if _, err := NewAuthority(config); !errors.Is(err, ErrSigners) {
		t.Errorf("of another network: %v", err)
	}
}

func TestWhatWasSignedIsPublishedAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 4, nil)
	store := &faultyStore{m: w.members[0], Store: w.members[0].node.Env.Store}
	store.fault = func(name string) fault {
		if name == signedBlob {
			return crashAfter
		}
		return noFault
	}
	w.members[0].store = store
	w.startAll()
	w.until(10*time.Second, "the crash", func() bool { return store.crashed })
	data := must[[]byte](t)(w.members[0].node.Env.Store.Load(signedBlob))
	stored := must[*signed](t)(decodeSigned(data))
	w.members[0].store = nil
	w.members[0].crash()
	w.members[0].start()
	if got := w.members[0].follower.Current(); got == nil || !got.Head.ValidAfter.Equal(stored.validAfter) {
		t.Fatalf("after the restart in use is %v, not what was signed", got)
	}
	head, _ := w.members[0].follower.Sealed()
	if string(head) != string(stored.head) {
		t.Error("other bytes than those stored")
	}
}

func TestNothingIsSignedWithTooFewRelays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 5, nil)
	w.members[0].start()
	w.members[1].start()
	w.f.Run(20 * time.Second)
	if w.members[0].follower.Current() != nil {
		t.Fatal("a consensus of two")
	}
	w.members[2].start()
	began := w.f.Now()
	w.until(2*time.Second, "the first consensus", func() bool { return w.members[0].follower.Current() != nil })
	if took := w.f.Now().Sub(began); took < settleQuiet {
		t.Errorf("signed after %v, before others could come", took)
	}
	w.members[1].crash()
	w.members[2].crash()
	first := w.members[0].follower.Current()
	w.f.Run(3 * w.network.Interval())
	if c := w.members[0].follower.Current(); len(c.Relays) < 3 || c.Head.ValidAfter.Sub(first.Head.ValidAfter) > 2*w.network.Interval() {
		t.Errorf("with one relay left, a consensus of %v with %d relays was made", c.Head.ValidAfter, len(c.Relays))
	}
	w.members[3].start()
	w.members[4].start()
	w.until(2*w.network.Interval(), "a consensus of those who came", func() bool {
		return w.members[0].lists(w.members[0], w.members[3], w.members[4])
	})
}

// TestFirstConsensusWaitsForAnExit: relays that are no exits are enough in number, but clients can do nothing with them
// until the next interval. So the first consensus of a network waits for an exit, though not for ever.
func TestFirstConsensusWaitsForAnExit(t *testing.T) {
	t.Parallel()
	for _, comes := range []bool{true, false} {
		w := newWorld(t, 6, 4, nil)
		for _, m := range w.members[:3] {
			m.describe = func(d *Descriptor) { d.Policy = parsePolicy(t, "none") }
			m.start()
		}
		w.f.Run(settleLimit + time.Second)
		if w.members[0].follower.Current() != nil {
			t.Fatal("a consensus without an exit")
		}
		if !comes {
			w.until(exitTest, "a consensus without an exit, after a while", func() bool { return w.members[0].follower.Current() != nil })
			continue
		}
		w.members[3].start()
		w.until(2*time.Second, "the first consensus", func() bool { return w.members[0].follower.Current() != nil })
		if !w.members[0].lists(w.members...) {
			t.Error("the exit is not in it")
		}
	}
}

func TestClockSetBackSignsNothingTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4, nil)
	w.startAll()
	w.f.Run(12 * time.Second)
	newest := w.members[0].follower.Current().Head.ValidAfter
	signed := w.members[0].authority.Stats().Signed
	w.members[0].node.Skew = -10 * time.Second
	w.f.Run(9 * time.Second)
	if got := w.members[0].authority.Stats().Signed; got != signed {
		t.Errorf("%d consensuses signed while the clock was behind the last one, %v", got-signed, newest)
	}
	w.f.Run(15 * time.Second)
	if !w.members[0].follower.Current().Head.ValidAfter.After(newest) {
		t.Error("nothing was signed after the clock had caught up")
	}
}

// listingWorld has an authority with so many relays that can be reached, which are not nodes.
func listingWorld(t *testing.T, change func(*Network)) (*world, *Authority) {
	t.Helper()
	w := newWorld(t, 1, 1, change)
	m := w.members[0]
	m.make()
	return w, m.authority
}

// listing is what the consensus of a network with this authority alone would list.
func (a *Authority) listing(t *testing.T, wall time.Time) []Relay {
	t.Helper()
	return must[ConsensusInput](t)(CountVotes(a.network, wall, []*Vote{a.vote(wall, wall)})).Relays
}

func (w *world) reachable(a *Authority, n int, host netip.Addr, seen time.Time, change func(*Descriptor)) cert.Identity {
	w.t.Helper()
	sealed, _, d := rumourOf(w.t, w.network, n, testNow, func(d *Descriptor) {
		d.Addresses = []netip.AddrPort{netip.AddrPortFrom(host, uint16(9000+n%1000))}
		if change != nil {
			change(d)
		}
	})
	a.cfg.Agent.store.put(&entry{Descriptor: d, sealed: sealed, listed: true})
	a.relays[d.Identity] = &standing{id: d.Identity, firstSeen: seen, upSince: seen, lastSeen: testNow, reached: d.Addresses}
	return d.Identity
}

func TestGuardsHaveAged(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		network, relay time.Duration // ages
		guard          bool
	}{
		{365 * day, 9 * day, true},
		{365 * day, 7 * day, false},
		{10 * day, 6 * day, true},
		{10 * day, 4 * day, false},
		{time.Hour, 40 * time.Minute, true},
		{time.Hour, 20 * time.Minute, false},
	} {
		w, a := listingWorld(t, func(n *Network) { n.Test = false })
		w.network.Created = testNow.Add(-tt.network)
		w.reachable(a, 20, netip.MustParseAddr("30.0.0.1"), testNow.Add(-tt.relay), nil)
		got := a.listing(t, testNow)
		if len(got) != 1 || got[0].Flags.Has(FlagGuard) != tt.guard {
			t.Errorf("a relay of %v in a network of %v: %v", tt.relay, tt.network, got)
		}
	}
}

func TestFlagsAndWeightsComeFromWhatIsKnown(t *testing.T) {
	t.Parallel()
	w, a := listingWorld(t, func(n *Network) {
		n.Parameters[WeightCap] = 5000
		n.Parameters[GuardMinAge] = 3600
		n.Created = testNow.Add(-9 * time.Hour)
	})
	long := testNow.Add(-8 * time.Hour)
	host := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{30, i, 0, 1}) }
	for i := range 8 { // the rest of the network
		w.reachable(a, 40+i, host(byte(40+i)), long, func(d *Descriptor) { d.Bandwidth = 200 << 10 })
	}
	w.reachable(a, 20, host(1), long, func(d *Descriptor) { d.Bandwidth = 1 << 40 })
	w.reachable(a, 21, host(2), long, func(d *Descriptor) { d.Bandwidth = 1; d.Policy = parsePolicy(t, "all"); d.IPv6Exit = true })
	w.reachable(a, 22, host(3), testNow, func(d *Descriptor) { d.Bandwidth = 300 << 10; d.Policy = parsePolicy(t, "accept *4:22") })
	w.reachable(a, 23, host(4), long, func(d *Descriptor) { d.OnionKeyUntil = testNow.Add(time.Minute) })
	w.reachable(a, 24, host(5), long, func(d *Descriptor) { d.Protocols = nil })
	got := make(map[cert.Identity]Relay)
	for _, r := range a.listing(t, testNow.Add(2*time.Minute)) {
		got[r.Identity] = r
	}
	for _, tt := range []struct {
		n      int
		weight uint32
		flags  Flags
	}{
		{20, 5000, FlagRunning | FlagValid | FlagFast | FlagStable | FlagGuard},
		{21, 1, FlagRunning | FlagValid | FlagStable | FlagExit | FlagIPv6Exit},
		{22, uint32(roundWeight(300)), FlagRunning | FlagValid | FlagFast | FlagExit},
	} {
		if r := got[testIdentity(tt.n)]; r.Weight != tt.weight || r.Flags != tt.flags {
			t.Errorf("relay %d: weight %d, flags %q; want %d, %q", tt.n, r.Weight, r.Flags, tt.weight, tt.flags)
		}
	}
	if len(got) != 11 {
		t.Errorf("%d relays: those with an old onion key or without a required protocol must not be listed", len(got))
	}
}

func TestListingIsCappedByPlace(t *testing.T) {
	t.Parallel()
	w, a := listingWorld(t, func(n *Network) { n.Test = false; n.Parameters[RelaysPerSite] = 5 })
	for i := range 10 {
		w.reachable(a, 20+i, netip.MustParseAddr("30.0.0.1"), testNow, nil)
	}
	for i := range 10 {
		w.reachable(a, 40+i, netip.AddrFrom4([4]byte{30, 1, 1, byte(1 + i)}), testNow, nil)
	}
	var one, site24 int
	for _, r := range a.listing(t, testNow) {
		if r.Addresses[0].Addr() == netip.MustParseAddr("30.0.0.1") {
			one++
		} else {
			site24++
		}
	}
	if one != 2 || site24 != 5 {
		t.Errorf("%d on one address, %d in one /24", one, site24)
	}
}

// TestNewcomersAreDrawnByLot protects the network from a flood of new relays: few are listed at a time, whoever is
// listed stays, and one newcomer among many from one place gets in as fast as if he were alone with them.
func TestNewcomersAreDrawnByLot(t *testing.T) {
	t.Parallel()
	w, a := listingWorld(t, func(n *Network) { n.Test = false; n.Parameters[NewRelays] = 4 })
	var old []cert.Identity
	for i := range 8 {
		old = append(old, w.reachable(a, 20+i, netip.AddrFrom4([4]byte{31, byte(i), 0, 1}), testNow, nil))
	}
	for i := range 60 {
		w.reachable(a, 100+i, netip.AddrFrom4([4]byte{66, 0, byte(i / 10), byte(i)}), testNow, nil)
	}
	honest := w.reachable(a, 200, netip.MustParseAddr("99.0.0.1"), testNow.Add(time.Minute), nil)
	firsts := 0
	for i := range 100 {
		last := w.signedConsensus(testNow, cert.Digest(testSeed('p', i)), func(in *ConsensusInput) {
			in.Relays = nil
			for j, id := range old {
				in.Relays = append(in.Relays, Relay{Identity: id, OnionKey: testSeed('b', j), Addresses: []netip.AddrPort{addr("31.0.0.1:9001")}, Protocols: OurProtocols()})
			}
		})
		a.cfg.Follower.current = last
		listing := a.listing(t, testNow)
		if len(listing) != len(old)+4 {
			t.Fatalf("%d relays listed, want the %d old ones and 4 new ones", len(listing), len(old))
		}
		for _, id := range old {
			if !slices.ContainsFunc(listing, func(r Relay) bool { return r.Identity == id }) {
				t.Fatal("one that was listed has to make room")
			}
		}
		if slices.ContainsFunc(listing, func(r Relay) bool { return r.Identity == honest }) {
			firsts++
		}
	}
	// Seven places, the first of which fill the four slots: by lot every seventh time.
	if firsts < 5 || firsts > 30 {
		t.Errorf("the honest newcomer was drawn %d times in 100", firsts)
	}
}

func TestHistorySurvivesARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, 4, nil)
	w.startAll()
	w.f.Run(70 * time.Second)
	before := *w.members[0].authority.relays[testIdentity(2)]
	w.members[0].crash()
	w.f.Run(2 * time.Second)
	w.members[0].start()
	after := *w.members[0].authority.relays[testIdentity(2)]
	if before.firstSeen.IsZero() || !after.firstSeen.Equal(before.firstSeen.Truncate(time.Millisecond)) || !after.upSince.Equal(before.upSince.Truncate(time.Millisecond)) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	w.f.Run(time.Second)
	if s := w.members[0].authority.Stats(); s.Known != 4 || s.Reachable != 4 {
		t.Errorf("%+v", s)
	}
}

// TestOpenLinkIsProofUntilItBreaks: a link that was dialled to a relay saves probing it, an accepted one proves
// nothing, and the end of any is a reason to look.
func TestOpenLinkIsProofUntilItBreaks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 6, 4, nil)
	for _, m := range w.members {
		m.start()
	}
	a := w.members[0].authority
	w.until(4*time.Second, "a consensus", func() bool { return w.members[0].lists(w.members...) })
	dialled, accepted := w.members[1].peer(), w.members[2].peer()
	dialled.Dialled = true
	w.f.Do(func() { a.LinkUp(dialled); a.LinkUp(dialled); a.LinkUp(accepted) })
	w.members[1].unlistened, w.members[2].unlistened = true, true // a probe would fail
	w.f.Run(2*w.network.Interval() + time.Second)
	if !w.members[0].lists(w.members[0], w.members[1], w.members[3]) {
		t.Error("want all but the one whose link was accepted")
	}
	// A link between the two stays, but not that one.
	w.f.Do(func() {
		a.LinkUp(&env.Peer{Identity: dialled.Identity, Address: addr("127.0.0.1:40000")})
		a.LinkDown(dialled)
	})
	w.f.Run(w.network.Interval())
	if up := a.relays[w.members[1].id()].up(); up {
		t.Error("still counted as reachable after its link broke")
	}
}

// TestOpenLinkProvesForAWhile: a relay that was once where it says stays listed there only as long as it can be found
// there, however long its links last.
func TestOpenLinkProvesForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7, 4, nil)
	w.startAll()
	a, m := w.members[0].authority, w.members[3]
	w.until(4*time.Second, "a consensus", func() bool { return w.members[0].lists(w.members...) })
	dialled := m.peer()
	dialled.Dialled = true
	w.f.Do(func() { a.LinkUp(dialled) })
	m.unlistened = true // nobody says that the link went down
	w.f.Run(a.proofLife() + 2*a.probeEvery() + w.network.Interval())
	if !w.members[0].lists(w.members[:3]...) {
		t.Error("a relay is listed where nobody listens, for a link that was once dialled")
	}
}

// TestCrossedLinksDoNotMakeMoreProbes: each probe makes a link, which is closed at once when there is another.
func TestCrossedLinksDoNotMakeMoreProbes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, 4, nil)
	w.startAll()
	a := w.members[0].authority
	w.until(4*time.Second, "a consensus", func() bool { return w.members[0].lists(w.members...) })
	probes := 0
	a.cfg.Prober = proberFunc(func(to env.Target, done func(error)) {
		probes++
		link := &env.Peer{Identity: to.Identity, Address: to.Addresses[0], Dialled: true}
		a.LinkUp(link)
		done(nil)
		w.members[0].node.Env.Clock.AfterFunc(50*time.Millisecond, func() { a.LinkDown(link) })
	})
	w.f.Run(time.Minute)
	if most := 3 * int(time.Minute/(a.probeEvery()*3/4)); probes > most+3 || probes < most/2 {
		t.Errorf("%d probes in a minute, want at most %d", probes, most+3)
	}
	if !w.members[0].lists(w.members...) {
		t.Error("somebody is no longer listed")
	}
}

func TestProbesAreBounded(t *testing.T) {
	t.Parallel()
	w, a := listingWorld(t, nil)
	open, most := 0, 0
	a.cfg.Prober = proberFunc(func(_ env.Target, done func(error)) {
		open++
		most = max(most, open)
		w.members[0].node.Env.Clock.AfterFunc(time.Second, func() { open--; done(errUnreachable) })
	})
	for i := range 200 {
		sealed, _, d := rumourOf(t, w.network, 20+i, testNow, nil)
		a.cfg.Agent.store.put(&entry{Descriptor: d, sealed: sealed})
	}
	w.f.Do(func() {
		w.members[0].follower.Start()
		w.members[0].agent.Start()
		a.Start()
	})
	w.f.Run(7500 * time.Millisecond)
	if most != maxProbes {
		t.Errorf("%d probes at once", most)
	}
	if a.unprobed() {
		t.Error("some were never probed")
	}
	if s := a.Stats(); s.Reachable != 1 { // itself
		t.Errorf("%+v", s)
	}
}

type proberFunc func(env.Target, func(error))

func (p proberFunc) Probe(to env.Target, done func(error)) { p(to, done) }
