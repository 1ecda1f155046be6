package directory

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// TestCouncilAgrees: authorities that are up make one consensus for each interval, the first one soon after the start,
// and each names the one before it.
func TestCouncilAgrees(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 4, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			c := newCouncil(t, uint64(n), n, 0, nil)
			c.startAll()
			if !c.f.RunUntil(3*time.Second, func() bool { return c.all(c.seats, testNow) }) {
				t.Fatalf("no consensus; %+v", c.seats[0].authority.Stats())
			}
			first := c.seats[0].newest()
			if at := c.wall(); first.After(at) {
				t.Errorf("in use at %v, before its time", at)
			}
			c.f.Run(21 * time.Second)
			heads := c.seats[0].heads
			if len(heads) < 5 || len(heads) > 6 {
				t.Fatalf("%d consensuses in 20 s", len(heads))
			}
			for i, h := range heads {
				if len(h.Signers) != n {
					t.Errorf("consensus %d has %d signatures", i, len(h.Signers))
				}
				if i > 0 && (h.Previous != heads[i-1].Digest || !h.PreviousAt.Equal(heads[i-1].ValidAfter)) {
					t.Errorf("consensus %d does not name the one before it", i)
				}
				if i > 0 && !c.agenda().isRegular(h.ValidAfter) {
					t.Errorf("a consensus of %v although there was a fresh one", h.ValidAfter)
				}
			}
			for _, s := range c.seats {
				st := s.authority.Stats()
				if st.FewVotes+st.NotMade+st.FewSignatures+st.VotesLate+st.VotesEarly+st.VotesRefused+st.Equivocations+st.SignaturesRefused > 0 || st.LastVotes != n {
					t.Errorf("authority %d: %+v", s.number, st)
				}
			}
			c.check(n)
		})
	}
}

// within sets clocks and messages as the promise of liveness has them: clocks differ by at most half a round, and what
// one authority asks of another is there in less than the other half.
func (c *council) within() {
	g := c.agenda()
	for i, s := range c.seats {
		s.node.Skew = []time.Duration{-g.delta / 4, g.delta / 4, 0}[i%3]
	}
	c.delay = func(_, _ *seat, _ RequestKind) (time.Duration, bool) {
		return time.Duration(c.rng.Int64N(int64(g.delta / 10))), false
	}
}

// sessions runs regular sessions one after the other; play is called before each.
func (c *council) sessions(n int, play func(i int, at time.Time), after func(i int, at time.Time)) {
	g := c.agenda()
	for i := range n {
		at := g.slotOf(c.wall()).Add(g.interval)
		if c.wall().After(g.begin(at).Add(-g.delta * 5 / 4)) {
			at = at.Add(g.interval)
		}
		c.f.Run(g.begin(at).Add(-g.delta * 5 / 4).Sub(c.wall()))
		if play != nil {
			play(i, at)
		}
		c.f.Run(at.Add(g.delta).Sub(c.wall()))
		after(i, at)
	}
}

// TestLiarsDoNotKeepHonestAuthoritiesApart is the promise of liveness: q honest authorities, at most f liars, clocks and
// messages in their bounds: every session ends with one consensus at all that are honest, whatever the liars do.
func TestLiarsDoNotKeepHonestAuthoritiesApart(t *testing.T) {
	t.Parallel()
	for _, n := range []int{4, 7} {
		for how := range tactics {
			t.Run(fmt.Sprintf("%d %v", n, how), func(t *testing.T) {
				t.Parallel()
				f := (n - 1) / 3
				c := newCouncil(t, uint64(100*n)+uint64(how), n, f, nil)
				c.within()
				c.liars.hold = func() time.Duration { return time.Duration(c.rng.Int64N(int64(3 * time.Second))) }
				c.liars.passOn = func() (time.Duration, bool) {
					return time.Duration(c.rng.Int64N(int64(c.agenda().delta))), c.rng.IntN(3) == 0
				}
				c.startAll()
				sessions := 7
				if testing.Short() {
					sessions = 2
				}
				c.sessions(sessions, func(_ int, at time.Time) { c.liars.play(at, how) }, func(i int, at time.Time) {
					c.check(i)
					if d := c.disagreement(); !d.IsZero() {
						t.Fatalf("session %d: honest authorities have signed different consensuses of %v", i, d)
					}
					if !c.all(c.honest(), at) {
						for _, s := range c.honest() {
							t.Logf("authority %d has that of %v: %+v", s.number, s.newest(), s.authority.Stats())
						}
						t.Fatalf("session %d: no consensus of %v at all that are honest", i, at)
					}
				})
			})
		}
	}
}

// TestOneRoundLessIsNotEnough shows that the liars of the tests here are strong enough to be worth defending against:
// with f rounds instead of f+1 they make honest authorities count different votes.
func TestOneRoundLessIsNotEnough(t *testing.T) {
	t.Parallel()
	for _, n := range []int{4, 7} {
		c := newCouncil(t, uint64(n), n, (n-1)/3, nil)
		c.fewerRounds = 1
		c.within()
		c.startAll()
		apart := 0
		c.sessions(10, func(_ int, at time.Time) { c.liars.play(at, boundary) }, func(i int, at time.Time) {
			c.check(i) // that is safe all the same
			apart += b2i(!c.all(c.honest(), at))
		})
		if apart == 0 || c.disagreement().IsZero() {
			t.Errorf("%d authorities, one round less: %d sessions failed", n, apart)
		}
	}
}

// TestAuthorityThatDoesNotForwardBreaksAgreement is the other half: an authority that counts the first vote it hears,
// as the attack suite can have it, is split from the others by an equivocation.
func TestCountingTheFirstVoteIsNotEnough(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 5, 4, 1, nil)
	for _, s := range c.seats {
		s.undefended.Votes = true
	}
	c.startAll()
	apart := 0
	c.sessions(8, func(_ int, at time.Time) { c.liars.play(at, equivocate) }, func(i int, at time.Time) {
		c.check(i)
		apart += b2i(!c.all(c.honest(), at))
	})
	if apart == 0 || c.disagreement().IsZero() {
		t.Errorf("%d sessions failed", apart)
	}
}

// TestMinorityDownAndBack: as long as a quorum is up there is a consensus in each session, and who comes back has the
// newest at once and votes in the next.
func TestMinorityDownAndBack(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 4, 7} {
		c := newCouncil(t, uint64(n), n, 0, nil)
		c.startAll()
		c.f.Run(8 * time.Second)
		down := c.seats[:n-c.network.Quorum]
		up := c.seats[len(down):]
		for _, s := range down {
			s.crash()
		}
		c.sessions(3, nil, func(i int, at time.Time) {
			if !c.all(up, at) {
				t.Fatalf("%d authorities, %d down: no consensus of %v: %+v", n, len(down), at, up[0].authority.Stats())
			}
		})
		for _, s := range down {
			s.start()
		}
		newest := up[0].newest()
		if !c.f.RunUntil(time.Second, func() bool { return c.all(c.seats, newest) }) {
			t.Errorf("%d authorities: those who came back do not have the consensus of the others", n)
		}
		c.sessions(1, nil, func(i int, at time.Time) {
			for _, s := range c.seats {
				if st := s.authority.Stats(); st.LastVotes != n {
					t.Errorf("%d authorities: %d votes after all are back", n, st.LastVotes)
				}
			}
			if h := c.seats[0].heads; len(h[len(h)-1].Signers) != n {
				t.Errorf("%d authorities: not all have signed: %d", n, len(h[len(h)-1].Signers))
			}
		})
		// One less than a quorum makes nothing.
		for _, s := range c.seats[:n-c.network.Quorum+1] {
			s.crash()
		}
		last := c.seats[n-1].newest()
		c.f.Run(11 * time.Second)
		if !c.seats[n-1].newest().Equal(last) {
			t.Errorf("%d authorities: %d made a consensus", n, c.network.Quorum-1)
		}
		c.seats[0].start()
		if !c.f.RunUntil(3*c.agenda().period, func() bool { return c.seats[n-1].newest().After(last) }) {
			t.Errorf("%d authorities: no consensus soon after a quorum is back", n)
		}
		c.check(n)
	}
}

// TestRelaysThatAreBackAreListedWithinAnInterval: relays that were gone for a while, as behind a partition, run again in
// a consensus in use one interval after they can be reached again, whenever in an interval that is; and one consensus
// more than usual is made for it, not more.
func TestRelaysThatAreBackAreListedWithinAnInterval(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 4, 7} {
		for seed := range uint64(4) {
			c := newCouncil(t, seed, n, 0, func(n *Network) { n.Parameters[UnreachableSeconds] = int64(seed%2) * 86400 })
			c.startAll()
			c.f.Run(8 * time.Second)
			gone := c.relays[0].descriptor.Identity
			c.dark = map[cert.Identity]bool{gone: true}
			running := func(s *seat) bool {
				r := s.follower.Current().Lookup(gone)
				return r != nil && r.Flags.Has(FlagRunning)
			}
			g := c.agenda()
			if !c.f.RunUntil(4*g.interval, func() bool { return !slices.ContainsFunc(c.seats, running) }) {
				t.Fatalf("%d authorities, seed %d: a relay that is gone still runs", n, seed)
			}
			next := g.slotOf(c.wall()).Add(2 * g.interval)
			heals := g.begin(next).Add(g.delta / 8) // when the votes have just been cast
			if seed%2 == 1 {
				heals = next.Add(-time.Duration(c.rng.Int64N(int64(g.interval))))
			}
			c.f.Run(heals.Sub(c.wall()))
			clear(c.dark)
			healed, before := c.wall(), len(c.seats[0].heads)
			lacks := func(s *seat) bool { return !running(s) }
			if !c.f.RunUntil(g.interval, func() bool { return !slices.ContainsFunc(c.seats, lacks) }) {
				t.Errorf("%d authorities, seed %d, healed %v into an interval: a relay is not back after another", n, seed, healed.Sub(g.slotOf(healed)))
			}
			c.f.Run(healed.Add(4 * g.interval).Sub(c.wall()))
			if made := len(c.seats[0].heads) - before; made > 5 {
				t.Errorf("%d authorities, seed %d: %d consensuses in 4 intervals", n, seed, made)
			}
			c.check(n)
		}
	}
}

// crashingStore ends its authority when something is saved: after it was written, and before anybody knows.
type crashingStore struct {
	env.Store
	seat  *seat
	name  string
	lies  bool // it says so before it has written anything, and loses it
	armed bool
}

func (s *crashingStore) Save(name string, data []byte, done func(error)) {
	switch {
	case name != s.name || !s.armed:
		s.Store.Save(name, data, done)
	case s.lies:
		clock := s.seat.node.Env.Clock
		clock.AfterFunc(0, func() { done(nil) })
		clock.AfterFunc(5*time.Millisecond, func() { s.seat.crash(); s.armed = false })
	default:
		s.Store.Save(name, data, func(error) { s.seat.crash(); s.armed = false })
	}
}

func (s *seat) crashing(name string) *crashingStore {
	k := &crashingStore{Store: s.node.Env.Store, seat: s, name: name}
	s.store = k
	return k
}

// restart brings a crashed authority back with the store of its node.
func (s *seat) restart() {
	if k, ok := s.store.(*crashingStore); ok {
		k.Store = s.node.Env.Store
	}
	s.start()
}

// TestCrashBetweenSigningAndSending: what was stored is what is sent after the restart, and completes the consensus
// for which it was needed, although all have gone on meanwhile or would decide otherwise now.
func TestCrashBetweenSigningAndSending(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		c := newCouncil(t, seed, 4, 0, nil)
		s := c.seats[0]
		store := s.crashing(signedBlob)
		c.startAll()
		c.f.Run(8 * time.Second)
		c.seats[3].crash() // so that all others are needed
		c.sessions(1, func(int, time.Time) { store.armed = true }, func(int, time.Time) {})
		if !s.down {
			t.Fatal("it did not crash")
		}
		last := c.seats[1].newest()
		c.f.Run(time.Duration(seed) * 200 * time.Millisecond)
		s.reaches = func(r *councilRelay) bool { return r.descriptor.Identity != testIdentity(40) } // another vote than before
		s.restart()
		stored := must[*signed](t)(decodeSigned(must[[]byte](t)(s.node.Env.Store.Load(signedBlob))))
		if !c.f.RunUntil(time.Second, func() bool { return c.all(c.seats[:3], stored.validAfter) }) {
			t.Fatalf("seed %d: the signature that was stored does not complete the consensus of %v: %v", seed, stored.validAfter, c.seats[1].newest())
		}
		if !stored.validAfter.After(last) {
			t.Errorf("seed %d: nothing was missing", seed)
		}
		c.sessions(2, nil, func(i int, at time.Time) {
			if !c.all(c.seats[:3], at) {
				t.Errorf("seed %d: no consensus of %v afterwards", seed, at)
			}
		})
		c.check(seed)
	}
}

// TestDiskThatLiesIsNoticed shows that the check for two signatures can fail: a disk that forgets what it has promised
// to keep makes an honest authority sign twice.
func TestDiskThatLiesIsNoticed(t *testing.T) {
	t.Parallel()
	violations := 0
	for seed := range uint64(12) {
		c := newCouncil(t, seed, 4, 0, func(n *Network) { n.Parameters[IntervalMillis] = 5000 })
		s := c.seats[0]
		store := s.crashing(signedBlob)
		store.lies = true
		c.startAll()
		c.f.Run(8 * time.Second)
		c.sessions(1, func(int, time.Time) { store.armed = true }, func(int, time.Time) {})
		if !s.down {
			t.Fatal("it did not crash")
		}
		// The clock is set back to before the session, which the others hold again since they were cut off from all.
		for _, o := range c.seats[1:] {
			o.crash()
			o.node = c.f.Node(fmt.Sprintf("%s after %d", o.node.Name, seed))
			o.node.Identity = o.id()
		}
		for _, o := range c.seats {
			o.node.Skew = -c.agenda().interval
			o.reaches = func(r *councilRelay) bool { return r.descriptor.Identity != testIdentity(40) }
			o.restart()
		}
		c.f.Run(2 * c.agenda().interval)
		violations += b2i(c.violated != "")
	}
	if violations == 0 {
		t.Error("nobody noticed")
	}
}

// slowStore is a disk that takes a while to write.
type slowStore struct {
	env.Store
	clock env.Clock
}

func (s *slowStore) Save(name string, data []byte, done func(error)) {
	s.Store.Save(name, data, func(err error) {
		s.clock.AfterFunc(60*time.Millisecond, func() {
			if done != nil {
				done(err)
			}
		})
	})
}

// TestSlowDiskSignsToo: the signature of an authority that comes after a quorum of others is in the consensus as well.
func TestSlowDiskSignsToo(t *testing.T) {
	t.Parallel()
	c := newCouncil(t, 12, 3, 0, nil)
	s := c.seats[1]
	s.store = &slowStore{s.node.Env.Store, s.node.Env.Clock}
	c.startAll()
	c.f.Run(8 * time.Second)
	c.sessions(2, nil, func(_ int, at time.Time) {
		for _, o := range c.seats {
			if h := o.follower.Current().Head; !h.ValidAfter.Equal(at) || len(h.Signers) != 3 {
				t.Errorf("authority %d has that of %v with %d signatures", o.number, h.ValidAfter, len(h.Signers))
			}
		}
	})
	c.check("")
}
