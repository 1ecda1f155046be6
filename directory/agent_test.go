package directory

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// TestRelaysThatKnowOneAddressFindEachOther protects the promise that one address is enough: twenty relays that know
// only the authority's end with the descriptors of all, and a consensus that lists all.
func TestRelaysThatKnowOneAddressFindEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 20, nil)
	w.startAll()
	w.until(4*time.Second, "a consensus of all at all", func() bool {
		return !slices.ContainsFunc(w.members, func(m *member) bool { return !m.lists(w.members...) })
	})
	w.until(10*time.Second, "all descriptors at all", func() bool {
		return !slices.ContainsFunc(w.members, func(m *member) bool { return len(m.agent.store.entries) < 20 })
	})
	for _, m := range w.members {
		for _, o := range w.members {
			if !m.agent.InConsensus(o.id()) || !slices.Equal(m.agent.Addresses(o.id()), []netip.AddrPort{o.node.Address}) ||
				!m.agent.IsRelayAddress(o.node.Address) {
				t.Errorf("relay %d does not know relay %d", m.number, o.number)
			}
		}
		if s := m.agent.Stats(); s.Candidates != 0 {
			t.Errorf("relay %d holds %d candidates", m.number, s.Candidates)
		}
	}
	c := w.client()
	c.start()
	w.until(time.Second, "a consensus at a client", func() bool { return c.lists(w.members...) })
	for _, r := range c.follower.Current().Relays {
		want := FlagRunning | FlagValid | FlagExit | FlagFast | FlagStable | FlagGuard
		if r.Identity == testIdentity(0) {
			want |= FlagAuthority
		}
		if r.Flags != want || r.Weight != 1024 {
			t.Errorf("relay %s has flags %q and weight %d", r.Identity.Short(), r.Flags, r.Weight)
		}
	}
}

// TestConsensusTravelsWithinASecond protects networks with short intervals: relays have a new consensus a moment after
// it was made, and clients a little later.
func TestConsensusTravelsWithinASecond(t *testing.T) {
	t.Parallel()
	for _, interval := range []int64{500, 1000, 2000, 10_000} {
		w := newWorld(t, uint64(interval), 8, func(n *Network) { n.Parameters[IntervalMillis] = interval })
		w.startAll()
		for range 5 {
			w.client().start()
		}
		everybody := slices.Concat(w.members, w.clients)
		w.f.Run(4 * time.Second)
		for range 10 {
			w.f.Run(w.network.Interval())
			newest := w.members[0].follower.Current().Head.ValidAfter
			for _, m := range everybody {
				allowed := w.network.Interval()
				if m.number < 0 {
					allowed *= 2 // clients come later, within half an interval, and retry
				}
				c := m.follower.Current()
				if c == nil || newest.Sub(c.Head.ValidAfter) > allowed {
					t.Fatalf("interval %d ms: %s is behind", interval, m.node.Name)
				}
			}
		}
		began := w.members[0].follower.Current()
		w.until(w.network.Interval()+time.Second, "a new consensus", func() bool { return w.members[0].follower.Current() != began })
		made := w.f.Now()
		next := w.members[0].follower.Current().Head.Digest
		for _, m := range w.members {
			w.until(time.Second, "the new consensus at every relay", func() bool {
				return m.follower.Current().Head.Digest == next || m.follower.Current().Head.ValidAfter.After(w.members[0].follower.Current().Head.ValidAfter)
			})
		}
		t.Logf("interval %d ms: at all relays %v after it was made", interval, w.f.Now().Sub(made))
	}
}

func TestLateJoinerIsListedByTheNextConsensus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 6, nil)
	for _, m := range w.members[:5] {
		m.start()
	}
	w.until(4*time.Second, "a consensus", func() bool { return w.members[0].lists(w.members[:5]...) })
	w.f.Run(7 * time.Second)
	late := w.members[5]
	late.start()
	w.f.Run(w.network.Interval())
	if !w.members[0].lists(w.members...) {
		t.Error("not listed one interval later")
	}
	w.until(time.Second, "its own listing", func() bool { return late.lists(w.members...) })
}

func TestLeaverAndDeadRelaysDisappearFromTheNextConsensus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 6, nil)
	w.startAll()
	w.until(4*time.Second, "a consensus", func() bool { return w.members[3].lists(w.members...) })

	said := false
	w.f.Do(func() { w.members[5].agent.Leave(time.Second, func() { said = true }) })
	w.until(time.Second, "the end of leaving", func() bool { return said })
	if w.members[5].dead {
		t.Fatal("it is still there, and reachable: only its word counts")
	}
	w.f.Run(w.network.Interval())
	if !w.members[0].lists(w.members[:5]...) {
		t.Error("the leaver is still listed")
	}
	w.members[5].crash()

	w.members[4].crash()
	w.f.Do(func() { w.members[0].authority.LinkDown(w.members[4].peer()) })
	w.f.Run(w.network.Interval())
	if !w.members[0].lists(w.members[:4]...) {
		t.Error("a dead relay is still listed, although a link to it broke")
	}
	w.members[3].crash() // nobody has a link to this one
	w.f.Run(2 * w.network.Interval())
	if !w.members[0].lists(w.members[:3]...) {
		t.Error("a dead relay is still listed")
	}
	for _, m := range w.members[3:] {
		m.start()
	}
	w.f.Run(w.network.Interval() + time.Second)
	if !w.members[1].lists(w.members...) {
		t.Error("those who came back are not listed")
	}
}

func TestUnreachableAddressesAreNotListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 5, nil)
	victim := addr("8.8.8.8:443")
	w.members[4].describe = func(d *Descriptor) { d.Addresses = append(d.Addresses, victim) }
	w.members[3].unlistened = true
	w.startAll()
	listed := slices.Delete(slices.Clone(w.members), 3, 4)
	w.until(6*time.Second, "a consensus", func() bool { return w.members[1].lists(listed...) })
	w.f.Run(time.Second)
	if got := w.members[1].follower.Current().Lookup(w.members[4].id()).Addresses; !slices.Equal(got, []netip.AddrPort{w.members[4].node.Address}) {
		t.Errorf("listed at %v", got)
	}
	if w.members[1].agent.IsRelayAddress(victim) {
		t.Error("a relay can bar exits from any address that it claims")
	}
}

func TestChangedAddressAndKeyReachTheConsensus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, 4, nil)
	w.startAll()
	w.until(4*time.Second, "a consensus", func() bool { return w.members[1].lists(w.members...) })
	w.f.Run(20 * time.Second)
	published := w.members[2].agent.Stats().Published
	if published != 1 {
		t.Errorf("published %d descriptors, though nothing changed", published)
	}
	w.members[2].describe = func(d *Descriptor) { d.OnionKey = testSeed('x', 1) }
	w.f.Do(w.members[2].agent.Update)
	w.f.Run(w.network.Interval() + time.Second)
	if got := w.members[1].follower.Current().Lookup(w.members[2].id()); got == nil || got.OnionKey != testSeed('x', 1) {
		t.Error("the new onion key is not listed")
	}
}

func TestRestartKnowsItsNeighbours(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 6, 10, nil)
	w.startAll()
	w.until(15*time.Second, "all descriptors", func() bool { return len(w.members[5].agent.store.entries) == 10 })
	w.f.Run(12 * time.Second)
	w.members[5].crash()
	w.members[5].start()
	if got := len(w.members[5].agent.store.entries); got != 10 {
		t.Errorf("%d descriptors after a restart", got)
	}
	if !w.members[5].lists(w.members...) {
		t.Error("no consensus after a restart")
	}
}

// rumourOf returns the sealed descriptor and rumour of an identity that no member has.
func rumourOf(t testing.TB, network *Network, n int, at time.Time, change func(*Descriptor)) (sealed, rumour []byte, d *Descriptor) {
	t.Helper()
	in := Descriptor{
		Identity: testIdentity(n), OnionKey: testSeed('b', n), OnionKeyUntil: at.Add(24 * time.Hour), Published: at, Bandwidth: 1000,
		Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{60, byte(n >> 8), byte(n), 1}), 9001)}, Protocols: OurProtocols(),
	}
	if change != nil {
		change(&in)
	}
	sealed = must[[]byte](t)(SealDescriptor(network, in, testSigner(t, n)))
	d = must[*Descriptor](t)(OpenDescriptor(sealed, network, at))
	return sealed, must[[]byte](t)(SealRumour(network, RumourOf(d), testSigner(t, n))), d
}

func TestRumoursAreJudged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7, 3, func(n *Network) { n.Parameters[UpdateMillis] = 3_600_000; n.Parameters[IntervalMillis] = 3_600_000 })
	w.members[1].start()
	a := w.members[1].agent
	w.f.Run(time.Second)
	neighbour := testIdentity(2)
	hear := func(what string, sealed []byte, accept, fresh bool) {
		t.Helper()
		var gotAccept, gotFresh bool
		w.f.Do(func() { gotAccept, gotFresh = a.OnRumour(sealed, neighbour) })
		if gotAccept != accept || gotFresh != fresh {
			t.Errorf("%s: accepted %v, fresh %v; want %v, %v", what, gotAccept, gotFresh, accept, fresh)
		}
		w.f.Run(100 * time.Millisecond)
	}
	descriptors := make(map[cert.Digest][]byte)
	w.serve[neighbour] = func(q Request, _ *env.Peer) ([]byte, error) {
		if sealed, ok := descriptors[q.Digest]; ok && q.Kind == AskDescriptor {
			return AppendAnswer(nil, StatusOK, sealed), nil
		}
		return AppendAnswer(nil, StatusNotFound, nil), nil
	}
	var rumours [][]byte
	for i := range 6 {
		sealed, rumour, d := rumourOf(t, w.network, 50, testNow.Add(time.Duration(i)*time.Second), nil)
		descriptors[d.Digest] = sealed
		rumours = append(rumours, rumour)
	}
	hear("news", rumours[1], false, true)
	if a.Descriptor(testIdentity(50)) == nil || a.InConsensus(testIdentity(50)) {
		t.Error("the descriptor was not fetched, or counts as listed")
	}
	hear("the same again", rumours[1], true, false)
	hear("an older one", rumours[0], false, false)
	hear("a newer one", rumours[2], false, true)
	hear("the newer one again", rumours[2], true, false)
	hear("the first again: a replay", rumours[1], false, false)
	if got := a.Descriptor(testIdentity(50)).Published; !got.Equal(testNow.Add(2 * time.Second)) {
		t.Errorf("held is the one of %v", got)
	}
	hear("the third in an hour", rumours[3], false, true)
	hear("the fourth in an hour", rumours[4], false, false)
	w.f.Run(61 * time.Minute)
	hear("the fourth, an hour later", rumours[4], false, true)

	forged := bytes.Clone(rumours[5])
	forged[len(forged)-1] ^= 1
	hear("a forged one", forged, false, false)
	hear("garbage", []byte("rumour"), false, false)
	hear("too long", make([]byte, 4096), false, false)
	own := a.Rumour()
	hear("its own", own, true, false)
	if s := a.Stats(); s.BadRumours < 3 || s.LateRumours != 2 || s.LimitedRumours != 1 {
		t.Errorf("counters: %+v", s)
	}
}

// TestDescriptorFromALiarIsHeldAgainstTheLiar: the neighbour that was the first to pass a rumour on gives a false
// descriptor; another that did has the true one.
func TestDescriptorFromALiarIsHeldAgainstTheLiar(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, 4, nil)
	w.members[1].start()
	w.f.Run(time.Second)
	sealed, rumour, d := rumourOf(t, w.network, 50, testNow, nil)
	_, _, other := rumourOf(t, w.network, 51, testNow, nil)
	wrong, _, _ := rumourOf(t, w.network, 50, testNow.Add(time.Second), nil)
	for name, answer := range map[string][]byte{ // order: each with a world's member of its own
		"altered": append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), "another": wrong, "nothing": nil,
	} {
		a := w.members[1].agent
		a.store.remove(testIdentity(50))
		clear(a.rumours.seen)
		clear(a.pulls.refused)
		w.serve[testIdentity(2)] = func(Request, *env.Peer) ([]byte, error) { return AppendAnswer(nil, StatusOK, answer), nil }
		w.serve[testIdentity(3)] = func(q Request, _ *env.Peer) ([]byte, error) { return AppendAnswer(nil, StatusOK, sealed), nil }
		w.f.Do(func() { a.OnRumour(rumour, testIdentity(2)) })
		w.f.Do(func() { a.OnRumour(rumour, testIdentity(3)) })
		w.f.Run(time.Second)
		if got := a.Descriptor(d.Identity); got == nil || got.Digest != d.Digest {
			t.Errorf("%s: the true descriptor was not fetched", name)
		}
	}
	if w.members[1].agent.Stats().BadDescriptors != 3 || w.members[1].agent.Descriptor(other.Identity) != nil {
		t.Errorf("counters: %+v", w.members[1].agent.Stats())
	}
}

// TestSilentNewcomersDelayOthersButDoNotStopThem protects honest newcomers from many who announce themselves and then
// do not give their descriptors.
func TestSilentNewcomersDelayOthersButDoNotStopThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 12, 3, nil)
	a := w.members[0]
	a.start()
	announce := func(n int) {
		_, rumour, _ := rumourOf(t, w.network, n, testNow, nil)
		request := must[[]byte](t)(Request{Kind: Announce, Rumour: rumour}.AppendTo(nil))
		w.f.Do(func() {
			a.agent.Serve(request, &env.Peer{Identity: testIdentity(n), Address: addr("60.0.0.1:1234")}, func([]byte) {})
		})
	}
	for i := range 300 {
		w.serve[testIdentity(1000+i)] = func(Request, *env.Peer) ([]byte, error) { return nil, errSilence }
		announce(1000 + i)
	}
	if s := a.agent.Stats(); s.Pulling != 300 {
		t.Fatalf("%d descriptors wanted", s.Pulling)
	}
	for _, m := range w.members[1:] {
		m.start()
	}
	w.until(3*time.Minute, "the descriptors of the others", func() bool {
		return a.agent.Descriptor(testIdentity(1)) != nil && a.agent.Descriptor(testIdentity(2)) != nil
	})
}

func TestAnnouncementMustComeFromTheRelayItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 9, 3, nil)
	w.members[0].start()
	sealed, rumour, d := rumourOf(t, w.network, 50, testNow, nil)
	w.serve[testIdentity(50)] = func(q Request, _ *env.Peer) ([]byte, error) { return AppendAnswer(nil, StatusOK, sealed), nil }
	request := must[[]byte](t)(Request{Kind: Announce, Rumour: rumour}.AppendTo(nil))
	from := func(id cert.Identity) Status {
		var status Status
		w.f.Do(func() {
			w.members[0].agent.Serve(request, &env.Peer{Identity: id, Address: addr("60.0.50.1:1234")}, func(a []byte) { status = Status(a[0]) })
		})
		w.f.Run(100 * time.Millisecond)
		return status
	}
	if got := from(testIdentity(51)); got != StatusRefused {
		t.Errorf("from another: %v", got)
	}
	if got := from(cert.Identity{}); got != StatusBadRequest {
		t.Errorf("from a client: %v", got)
	}
	if w.members[0].agent.Descriptor(d.Identity) != nil {
		t.Error("it was fetched all the same")
	}
	if got := from(testIdentity(50)); got != StatusOK || w.members[0].agent.Descriptor(d.Identity) == nil {
		t.Errorf("from itself: %v", got)
	}
}

// TestCandidateFloodStaysBoundedAndFair protects honest newcomers from a flood of identities: the store keeps its
// bounds, a flood from one place stays in its place, and a flood from everywhere leaves newcomers their chance.
func TestCandidateFloodStaysBoundedAndFair(t *testing.T) {
	t.Parallel()
	network := newWorld(t, 1, 1, func(n *Network) {
		n.Test = false
		n.Parameters[Candidates] = 256
	}).network
	state := uint64(1)
	random := func(below int) int {
		state = state*6364136223846793005 + 1442695040888963407
		return int(state>>33) % below
	}
	s := newDescriptors(network, cert.Identity{}, random, func(cert.Identity) {})
	add := func(n int, host [4]byte) cert.Identity {
		var id cert.Identity
		binary.BigEndian.PutUint32(id[:], uint32(n))
		s.put(&entry{Descriptor: &Descriptor{Identity: id, Digest: cert.DigestOf(cert.DescriptorDocument, testID, id[:]),
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4(host), 9001)}}})
		return id
	}
	var honest []cert.Identity
	for i := range 100 {
		honest = append(honest, add(1+i, [4]byte{20, byte(i), 0, 1}))
	}
	for i := range 5000 { // from one /24
		add(1000+i, [4]byte{66, 66, 66, byte(i)})
	}
	if n := len(s.candidates.sites[netip.MustParsePrefix("66.66.66.0/24")]); n != 16 || s.candidates.Len() != 116 {
		t.Errorf("%d of one /24, %d in all", n, s.candidates.Len())
	}
	for i := range 5000 { // from a hundred
		add(10_000+i, [4]byte{66, 1, byte(i % 100), byte(i / 100)})
	}
	kept := 0
	for _, id := range honest {
		if s.entries[id] != nil {
			kept++
		}
	}
	if s.candidates.Len() != 256 || kept < 60 {
		t.Errorf("%d candidates, %d of 100 honest ones among them", s.candidates.Len(), kept)
	}
	checkStore(t, s)
}

// checkStore checks that the indices of a store agree with what it holds.
func checkStore(t *testing.T, s *descriptors) {
	t.Helper()
	candidates := 0
	sites := make(map[netip.Prefix]int)
	for id, e := range s.entries { // order: counts only
		if e.Identity != id || s.digests[e.Digest] != id {
			t.Fatal("an entry under a wrong name")
		}
		if e.listed != (e.ticket == nil) {
			t.Fatal("a listed candidate")
		}
		if !e.listed {
			candidates++
			for i, p := range sitesOf(e.Addresses) {
				sites[p]++
				if at := e.ticket.places[i]; at.site != p || s.candidates.sites[p][at.at] != e.ticket {
					t.Fatal("a candidate at a wrong place in its site")
				}
			}
			if s.candidates.all[e.ticket.at] != e.ticket || e.ticket.Identity != id {
				t.Fatal("a candidate at a wrong place")
			}
		}
	}
	if candidates != s.candidates.Len() || len(s.digests) != len(s.entries) || len(s.sorted) != len(s.entries) ||
		!slices.IsSortedFunc(s.sorted, cert.Digest.Compare) || len(sites) != len(s.candidates.sites) {
		t.Fatal("indices of different sizes, or out of order")
	}
	for p, n := range sites { // order: compares only
		if len(s.candidates.sites[p]) != n {
			t.Fatalf("%d candidates in %v, want %d", len(s.candidates.sites[p]), p, n)
		}
	}
}

// TestUnlistedRelaysShareTheBudgetOfTheirSite: an identity costs nothing, so it alone buys nothing.
func TestUnlistedRelaysShareTheBudgetOfTheirSite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 13, 2, func(n *Network) { n.Test = false })
	w.members[1].start()
	request := must[[]byte](t)(Request{Kind: AskSummary}.AppendTo(nil))
	answered := 0
	for i := range 2 * relayBurst {
		p := &env.Peer{Identity: cert.Identity(testSeed('z', i)), Address: netip.AddrPortFrom(netip.MustParseAddr("30.0.0.9"), uint16(1+i))}
		w.f.Do(func() {
			w.members[1].agent.Serve(request, p, func(a []byte) { answered += b2i(Status(a[0]) == StatusOK) })
		})
	}
	if answered > relayBurst || answered < relayBurst/2 {
		t.Errorf("%d answers to as many identities of one /24", answered)
	}
}

func TestServingStaysWithinItsBudgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 3, func(n *Network) { n.Parameters[IntervalMillis] = 3_600_000 })
	w.startAll()
	w.until(5*time.Second, "a consensus", func() bool { return w.members[1].follower.Current() != nil })
	request := must[[]byte](t)(Request{Kind: AskHead}.AppendTo(nil))
	ask := func(port uint16, host string) Status {
		var status Status
		p := &env.Peer{Address: netip.AddrPortFrom(netip.MustParseAddr(host), port)}
		w.f.Do(func() { w.members[1].agent.Serve(request, p, func(a []byte) { status = Status(a[0]) }) })
		return status
	}
	answered := 0
	for range 1000 {
		if ask(1, "30.0.0.1") == StatusOK {
			answered++
		}
	}
	if answered != clientBurst {
		t.Errorf("one link got %d answers at once", answered)
	}
	for port := range uint16(1000) {
		if ask(port+2, "30.0.0.2") == StatusOK {
			answered++
		}
	}
	if answered > siteBurst {
		t.Errorf("one /24 got %d answers at once", answered)
	}
	if ask(1, "30.0.1.1") != StatusOK {
		t.Error("others have to suffer")
	}
	w.f.Run(2 * time.Second)
	if ask(1, "30.0.0.1") != StatusOK {
		t.Error("a budget does not fill again")
	}
	if s := w.members[1].agent.Stats(); s.Busy == 0 {
		t.Errorf("counters: %+v", s)
	}
}

// FuzzServe: whatever comes on a directory stream gets one whole answer with a status.
func FuzzServe(f *testing.F) {
	w := newWorld(f, 11, 4, nil)
	w.startAll()
	w.until(5*time.Second, "a consensus", func() bool { return w.members[1].follower.Current() != nil })
	for _, q := range testRequests() {
		f.Add(must[[]byte](f)(q.AppendTo(nil)), true)
	}
	digest := w.members[1].follower.Current().Head.Digest
	f.Add(must[[]byte](f)(Request{Kind: AskBody, Digest: digest}.AppendTo(nil)), false)
	f.Add(must[[]byte](f)(Request{Kind: Announce, Rumour: w.members[2].agent.Rumour()}.AppendTo(nil)), true)
	f.Fuzz(func(t *testing.T, request []byte, relay bool) {
		peer := &env.Peer{Address: addr("30.0.0.1:1")}
		if relay {
			peer.Identity = testIdentity(2)
		}
		w.t = t
		w.members[1].agent.serving = newServing(w.network) // budgets have tests of their own
		answers := 0
		w.f.Do(func() {
			w.members[1].agent.Serve(request, peer, func(answer []byte) {
				answers++
				whole, err := NewAnswerReader(MaxAnswer).Read(answer)
				if err != nil || !whole || answer[0] > byte(StatusRefused) {
					t.Errorf("answer %x: %v", answer[:min(len(answer), 50)], err)
				}
			})
		})
		w.f.Run(time.Millisecond)
		if answers != 1 {
			t.Errorf("%d answers", answers)
		}
	})
}
