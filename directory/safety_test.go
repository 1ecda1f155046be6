package directory

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// TestNeverTwoConsensusesForOneTime is the promise of safety: whatever messages, clocks, crashes and f liars do, no two
// consensuses for one valid-after can have the signatures of a quorum, no honest authority signs two, and nobody sees a
// fork. Every seed is a few sessions of another kind of trouble.
func TestNeverTwoConsensusesForOneTime(t *testing.T) {
	t.Parallel()
	seeds := uint64(240)
	if testing.Short() {
		seeds = 24
	}
	for part := range uint64(4) {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			sessions, made, signed := 0, 0, 0
			for seed := part; seed < seeds; seed += 4 {
				s, m, n := trouble(t, seed)
				sessions, made, signed = sessions+s, made+m, signed+n
			}
			t.Logf("%d sessions, %d consensuses, %d signatures", sessions, made, signed)
			if made < sessions/5 || made > sessions*9/10 || signed < 2*made {
				t.Error("too little or too much trouble to be a test")
			}
		})
	}
}

// trouble runs some sessions of one kind and says how many there were, how many consensuses were made in them and how
// many signatures honest authorities gave.
func trouble(t *testing.T, seed uint64) (sessions, made, signatures int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	n := []int{4, 4, 4, 7}[rng.IntN(4)]
	c := newCouncil(t, seed, n, (n-1)/3, nil)
	g := c.agenda()
	slow := g.delta * time.Duration([]int{2, 10, 30, 100}[rng.IntN(4)]) / 40
	loss, off := []int{0, 0, 5, 20}[rng.IntN(4)], g.delta*time.Duration([]int{0, 1, 3, 8}[rng.IntN(4)])/4
	c.delay = func(_, _ *seat, _ RequestKind) (time.Duration, bool) {
		return time.Duration(c.rng.Int64N(int64(slow))), c.rng.IntN(100) < loss
	}
	c.liars.hold = func() time.Duration { return time.Duration(c.rng.Int64N(int64(2 * g.interval))) }
	c.liars.passOn = func() (time.Duration, bool) {
		return time.Duration(c.rng.Int64N(int64(2 * g.delta))), c.rng.IntN(3) == 0
	}
	for _, s := range c.seats {
		s.node.Skew = time.Duration(c.rng.Int64N(int64(2*off+1))) - off
	}
	c.startAll()
	for i := range 5 {
		at := g.slotOf(c.wall().Add(g.delta * 5)).Add(g.interval)
		c.f.Run(g.begin(at).Add(-g.delta * 5 / 4).Sub(c.wall()))
		c.liars.play(at, tactic((int(seed)+i)%int(tactics)))
		for at.Add(g.delta).After(c.wall()) {
			c.f.Run(g.delta / 4)
			c.check(seed)
			if c.rng.IntN(24) == 0 {
				c.mishap()
			}
		}
		sessions++
	}
	c.check(seed)
	for _, by := range c.signed {
		signatures += len(by)
	}
	return sessions, len(c.adopted), signatures
}

// mishap lets something happen to one of the authorities: a crash and a restart with other news, a clock that jumps, a
// cable that is pulled.
func (c *council) mishap() {
	honest := c.honest()
	s := honest[c.rng.IntN(len(honest))]
	switch c.rng.IntN(4) {
	case 0:
		s.node.Skew += time.Duration(c.rng.Int64N(int64(4*time.Second))) - 2*time.Second
	case 1:
		s.cut = !s.cut
	default:
		s.crash()
		if c.rng.IntN(2) == 0 {
			s.node.Skew -= 5 * time.Second // as a machine without a battery
		}
		odd := c.rng.IntN(len(c.relays))
		s.reaches = func(r *councilRelay) bool { return r.descriptor.Identity != c.relays[odd].descriptor.Identity }
		c.f.Run(time.Duration(c.rng.Int64N(int64(200 * time.Millisecond))))
		s.start()
	}
}

// TestClockJustWithinAndJustBeyond: an authority whose clock is off by less than the bound takes part; by more, its vote
// is refused and the cause is named, the others go on, and nothing unsafe happens.
func TestClockJustWithinAndJustBeyond(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		off   float64 // in rounds
		votes int
	}{{-0.45, 4}, {0.45, 4}, {-1.6, 3}, {1.6, 3}, {30, 3}, {-30, 3}} {
		c := newCouncil(t, 9, 4, 0, nil)
		g := c.agenda()
		c.delay = func(_, _ *seat, _ RequestKind) (time.Duration, bool) {
			return time.Duration(c.rng.Int64N(int64(g.delta / 10))), false
		}
		c.seats[0].node.Skew = time.Duration(tt.off * float64(g.delta))
		c.startAll()
		c.f.Run(8 * time.Second)
		c.sessions(3, nil, func(_ int, at time.Time) {
			if !c.all(c.seats[1:], at) {
				t.Errorf("off by %v: no consensus of %v: %+v", tt.off, at, c.seats[1].authority.Stats())
			}
			if got := c.seats[1].authority.Stats().LastVotes; got != tt.votes {
				t.Errorf("off by %v: %d votes count, want %d", tt.off, got, tt.votes)
			}
		})
		st := c.seats[1].authority.Stats()
		if named := st.ClocksOff > 0; named != (tt.votes == 3) {
			t.Errorf("off by %v: %+v", tt.off, st)
		}
		c.check(tt.off)
	}
}

// TestWhoLacksVotesTakesTheConsensusOfTheOthers: an authority that hears nothing during the rounds, and so computes
// nothing, has the consensus at its valid-after all the same.
func TestWhoLacksVotesTakesTheConsensusOfTheOthers(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 3, 4, 0, nil)
	c.startAll()
	c.f.Run(8 * time.Second)
	deaf := c.seats[2]
	c.delay = func(from, to *seat, kind RequestKind) (time.Duration, bool) {
		return time.Millisecond, to == deaf && kind == PushVote
	}
	c.sessions(2, nil, func(_ int, at time.Time) {
		if !c.all(c.seats, at) {
			t.Errorf("%v at the one that lacks votes, want %v: %+v", deaf.newest(), at, deaf.authority.Stats())
		}
	})
	if st := deaf.authority.Stats(); st.FewVotes == 0 {
		t.Errorf("nothing was missing: %+v", st)
	}
	c.check("")
}

// TestSelectiveSignatureIsShared: with one authority down all others are needed. A liar that signs, but gives its
// signature to one alone, has given it to all.
func TestSelectiveSignatureIsShared(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 4, 4, 1, nil)
	liar := c.seats[3]
	c.startAll()
	c.f.Run(8 * time.Second)
	c.seats[2].crash()
	given := 0
	c.liars.onDocument = func(document []byte) {
		e := must[cert.Endorsement](t)(cert.Endorse(cert.ConsensusDocument, testID, document, liar.signer))
		sealed := must[[]byte](t)(cert.Join(cert.ConsensusDocument, document, e))
		given++
		c.liars.request(liar, c.seats[given%2], Request{Kind: PushSignature, Document: sealed})
	}
	c.sessions(3, func(_ int, at time.Time) { c.liars.play(at, conform) }, func(_ int, at time.Time) {
		if !c.all(c.seats[:2], at) {
			t.Errorf("no consensus of %v at both: %v, %v", at, c.seats[0].newest(), c.seats[1].newest())
		}
	})
	if given < 3 {
		t.Errorf("the liar signed %d times", given)
	}
	c.check("")
}

// TestContradictionsAreKeptAsEvidence: two votes in one session, and two signatures for one time, are proof against
// their author, durable, and shown to whoever asks.
func TestContradictionsAreKeptAsEvidence(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 5, 4, 1, nil)
	liar, s := c.seats[3], c.seats[0]
	c.startAll()
	c.f.Run(8 * time.Second)
	c.sessions(1, func(_ int, at time.Time) {
		c.liars.play(at, equivocate)
		for i := range 3 {
			in := testInput(t, 3+i)
			in.ValidAfter, in.Previous = at, cert.Digest{}
			head, _ := build(t, c.network, in)
			sealed := sealHead(t, head, liar.signer)
			c.liars.later(liar, time.Second, func() { c.liars.request(liar, s, Request{Kind: PushSignature, Document: sealed}) })
		}
	}, func(_ int, at time.Time) {
		if !c.all(c.honest(), at) {
			t.Error("no consensus")
		}
		for _, h := range c.honest() {
			if st := h.authority.Stats(); st.LastVotes != 3 || st.Equivocations == 0 {
				t.Errorf("authority %d: %+v", h.number, st)
			}
		}
	})
	s.crash()
	s.start()
	asked := []byte(nil)
	wire := must[[]byte](t)(Request{Kind: AskEvidence}.AppendTo(nil))
	s.agent.Serve(wire, &env.Peer{Address: addr("45.0.0.9:1")}, func(answer []byte) { asked = bytes.Clone(answer) })
	list, err := DecodeEvidence(asked[answerHeader:])
	if err != nil || len(list) != 2 {
		t.Fatalf("%d pieces of evidence, %v", len(list), err)
	}
	for _, e := range list {
		if err := CheckEvidence(c.network, &e); err != nil || e.Author != liar.id() {
			t.Errorf("evidence against %s: %v", e.Author.Short(), err)
		}
	}
	c.check("")
}

// TestOnlyAuthoritiesVote: what is for authorities is refused to all others, and long requests are not even read.
func TestOnlyAuthoritiesVote(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 6, 4, 0, nil)
	c.startAll()
	c.f.Run(8 * time.Second)
	s := c.seats[0]
	sealed, _ := sealVote(t, c.network, testVote(t, c.network, 1, 1, 2), 1)
	long := Request{Kind: PushVote, Document: append(sealed, make([]byte, 1000)...)}
	for name, from := range map[string]*env.Peer{ // order: each on its own
		"a relay": {Identity: testIdentity(50), Address: addr("45.0.0.9:1")}, "a client": {Address: addr("45.0.0.9:1")},
	} {
		if limit := s.agent.RequestLimit(from); limit != requestHeader+MaxRequest {
			t.Errorf("%s may send %d bytes", name, limit)
		}
		for _, q := range []Request{long, {Kind: PushVote, Document: sealed[:300]}, {Kind: PushSignature, Document: sealed[:300]}, {Kind: AskVoteBody, Digest: cert.Digest{1}}} {
			wire := must[[]byte](t)(q.AppendTo(nil))
			s.agent.Serve(wire, from, func(answer []byte) {
				if got := Status(answer[0]); got != StatusBadRequest && got != StatusRefused {
					t.Errorf("%s from %s: %v", q.Kind, name, got)
				}
			})
		}
	}
	if limit := s.agent.RequestLimit(c.seats[1].peerAt(s)); limit != requestHeader+MaxAuthorityRequest {
		t.Errorf("an authority may send %d bytes", limit)
	}
}

// TestFloodOfOneLiarIsBounded: however much a liar sends, little of it is kept, and the votes of the others count.
func TestFloodOfOneLiarIsBounded(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 7, 4, 1, nil)
	liar, s := c.seats[3], c.seats[0]
	c.startAll()
	c.f.Run(8 * time.Second)
	g := c.agenda()
	most := 0
	c.sessions(2, func(_ int, at time.Time) {
		for i := range 300 {
			v := func(v *Vote) { v.Listing.Parameters = Parameters{IntervalMillis: 5000, MinRelays: int64(1 + i)} }
			digest := c.liars.vote(liar, at, 1, v, func(*seat) bool { return false })
			c.liars.later(liar, g.begin(at).Sub(c.wall())+time.Duration(i)*time.Millisecond/4, func() { c.liars.push(liar, digest, s, false) })
		}
	}, func(_ int, at time.Time) {
		if !c.all(c.honest(), at) {
			t.Errorf("no consensus of %v: %+v", at, s.authority.Stats())
		}
		most = max(most, len(s.authority.session.ballots))
	})
	if most > 3+votesPerAuthor {
		t.Errorf("%d votes kept of 4 authorities", most)
	}
	if len(s.authority.evidence) > maxEvidenceAuthor || len(s.authority.collections) > maxCollections {
		t.Errorf("%d pieces of evidence, signatures for %d times", len(s.authority.evidence), len(s.authority.collections))
	}
	c.check("")
}

// TestClockSetBackAfterARestart: an authority does not vote again in a session, nor sign again for a time, that its disk
// says it has had; honest authorities never look like liars.
func TestClockSetBackAfterARestart(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 8, 4, 0, nil)
	c.startAll()
	c.f.Run(12 * time.Second)
	for _, s := range c.seats {
		s.crash()
		s.node.Skew = -10 * time.Second
		s.reaches = func(r *councilRelay) bool { return r.descriptor.Identity != testIdentity(40) }
		s.start()
	}
	c.f.Run(9 * time.Second)
	for _, s := range c.seats {
		if st := s.authority.Stats(); st.Signed > 0 || st.VotesCast > 0 || st.Equivocations > 0 {
			t.Errorf("authority %d while its clock is behind: %+v", s.number, st)
		}
	}
	before := c.seats[0].newest()
	c.f.Run(10 * time.Second)
	if !c.all(c.seats, before.Add(c.agenda().interval)) {
		t.Error("nothing was made after the clocks had caught up")
	}
	c.check("")
}

// TestNetworkFileChangesBetweenSessions: an authority that is removed stops; the others go on by the new file, and votes
// by the old one do not count.
func TestNetworkFileChangesBetweenSessions(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 9, 4, 0, nil)
	c.startAll()
	c.f.Run(8 * time.Second)
	next := *c.network
	next.Serial, next.Authorities, next.Quorum = 2, next.Authorities[:3], 0
	renewed := must[*Network](t)(NewNetwork(next, testSigners(t, 4)...))
	text := must[[]byte](t)(renewed.AppendTOML(nil))
	swap := func(s *seat) {
		s.follower.adoptNetwork(networkText{renewed, text})
		s.agent.SetNetwork(renewed)
		s.authority.SetNetwork(renewed)
	}
	var old *seat
	for _, s := range c.seats {
		if renewed.IsAuthority(s.id()) && old == nil {
			old = s // hears of it later
			continue
		}
		c.f.Do(func() { swap(s) })
	}
	c.f.Run(time.Second)
	for _, s := range c.seats {
		if s.authority.running != renewed.IsAuthority(s.id()) {
			t.Errorf("authority %d runs: %v", s.number, s.authority.running)
		}
	}
	c.sessions(2, nil, func(_ int, at time.Time) {
		for _, s := range c.seats {
			if s != old && s.authority.running && s.newest().Before(at) {
				t.Errorf("authority %d: no consensus of %v by two of three: %+v", s.number, at, s.authority.Stats())
			}
		}
	})
	c.f.Do(func() { swap(old) })
	c.sessions(2, nil, func(_ int, at time.Time) {
		if got := old.authority.Stats().LastVotes; got != 3 {
			t.Errorf("%d votes after all have the file", got)
		}
	})
	if c.violated != "" {
		t.Error(c.violated)
	}
}

func TestAgenda(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n             int
		interval      time.Duration
		delta, period time.Duration
		rounds        int
	}{
		{3, 5 * time.Second, 250 * time.Millisecond, time.Second, 1},
		{4, 5 * time.Second, 250 * time.Millisecond, time.Second, 2},
		{7, 5 * time.Second, 250 * time.Millisecond, 1250 * time.Millisecond, 3},
		{4, time.Hour, 3 * time.Minute, 12 * time.Minute, 2},
		{9, time.Hour, 3 * time.Minute, 15 * time.Minute, 3},
		{4, time.Second, 200 * time.Millisecond, time.Second, 2},
		{7, 500 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 3},
		{3, 4999 * time.Millisecond, 249 * time.Millisecond, 4999 * time.Millisecond, 1},
		{32, 24 * time.Hour, 72 * time.Minute, 24 * time.Hour, 11},
	} {
		contents := testContents(tt.n)
		contents.Parameters = Parameters{IntervalMillis: tt.interval.Milliseconds()}
		g := newAgenda(&contents)
		if g.delta != tt.delta || g.period != tt.period || g.rounds != tt.rounds {
			t.Errorf("%d authorities, %v: %+v", tt.n, tt.interval, g)
		}
		if g.interval%g.period != 0 || time.Duration(g.rounds+2)*g.delta > g.period {
			t.Errorf("%d authorities, %v: sessions overlap: %+v", tt.n, tt.interval, g)
		}
		for i := range 200 {
			wall := testNow.Add(time.Duration(i) * g.interval / 77)
			at := g.next(wall)
			if !g.isSession(at) || !wall.Before(g.begin(at).Add(g.grace())) || wall.Before(g.begin(at.Add(-g.period)).Add(g.grace())) {
				t.Fatalf("%d authorities, %v: at %v the next session is %v", tt.n, tt.interval, wall, at)
			}
			if r := g.round(at, g.begin(at).Add(-time.Second)); r != 1 {
				t.Errorf("round %d before the first", r)
			}
			if r := g.round(at, g.end(at).Add(-time.Millisecond)); r != g.rounds {
				t.Errorf("round %d is the last of %d", r, g.rounds)
			}
		}
	}
}

// TestConsensusThatFewKnowIsNoFork: one authority alone has got all signatures, and is cut off. The others cannot know,
// and make the next after the one before it. Whoever holds the one that was passed over takes the next all the same.
func TestConsensusThatFewKnowIsNoFork(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 11, 4, 0, nil)
	c.startAll()
	c.f.Run(8 * time.Second)
	one, others := c.seats[0], c.seats[1:]
	var known time.Time
	c.delay = func(from, to *seat, kind RequestKind) (time.Duration, bool) {
		last := from.authority.last
		return time.Millisecond, kind == PushSignature && to != one && last != nil && (known.IsZero() || last.validAfter.Equal(known))
	}
	before := one.newest()
	if !c.f.RunUntil(6*time.Second, func() bool { return one.newest().After(before) }) {
		t.Fatal("not even one authority has the next consensus")
	}
	known = one.newest()
	one.cut = true
	if !c.f.RunUntil(2*c.agenda().interval, func() bool { return c.all(others, known.Add(1)) }) {
		t.Fatalf("the others make nothing more: %+v", others[0].authority.Stats())
	}
	next := others[0].follower.Current().Head
	if !next.PreviousAt.Equal(before) {
		t.Fatalf("it comes after that of %v, not of %v: nothing is tested", next.PreviousAt, before)
	}
	one.cut = false
	if !c.f.RunUntil(2*c.agenda().interval, func() bool { return c.all(c.seats, next.ValidAfter) }) {
		t.Errorf("the one that was cut off stays with that of %v", one.newest())
	}
	c.check("")
}
