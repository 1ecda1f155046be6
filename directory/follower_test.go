package directory

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/env/envtest"
)

// mirrors makes a world with so many relays in the network file, whose interval is an hour, and a client.
func mirrors(t testing.TB, seed uint64, relays int) (*world, *member) {
	t.Helper()
	w := newWorld(t, seed, relays, nil)
	contents := *w.network
	contents.Parameters = Parameters{IntervalMillis: 3_600_000}
	for i := range relays {
		if i > 0 {
			contents.Bootstrap = append(contents.Bootstrap, w.contact(i))
		}
	}
	w.network = must[*Network](t)(NewNetwork(contents, testSigner(t, 0)))
	return w, w.client()
}

func (w *world) all(answer func(Request, *env.Peer) ([]byte, error)) {
	for _, m := range w.members {
		w.serve[m.id()] = answer
	}
}

func TestBootstrapTakesTheNewestOfThree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		w, c := mirrors(t, seed, 3)
		old := w.signedConsensus(testNow.Add(-2*time.Hour), cert.Digest{}, nil)
		newer := w.signedConsensus(testNow.Add(-time.Hour), old.Head.Digest, nil)
		w.serve[testIdentity(0)] = mirror(old)
		w.serve[testIdentity(1)] = mirror(newer)
		w.serve[testIdentity(2)] = mirror(old)
		c.start()
		w.until(time.Second, "a consensus", func() bool { return c.follower.Current() != nil })
		if got := c.follower.Current().Head.Digest; got != newer.Head.Digest {
			t.Fatalf("seed %d: the consensus of %v is in use", seed, c.follower.Current().Head.ValidAfter)
		}
	}
}

// TestBootstrapSurvivesLiars protects a new client from directory sources that are stale, broken or malicious: with
// two of three lying in any way it ends with the true consensus, and soon.
func TestBootstrapSurvivesLiars(t *testing.T) {
	t.Parallel()
	altered := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	answers := func(head, body []byte) func(Request, *env.Peer) ([]byte, error) {
		return func(q Request, _ *env.Peer) ([]byte, error) {
			if q.Kind == AskHead {
				return AppendAnswer(nil, StatusOK, head), nil
			}
			return AppendAnswer(nil, StatusOK, body), nil
		}
	}
	raw := func(answer []byte) func(Request, *env.Peer) ([]byte, error) {
		return func(Request, *env.Peer) ([]byte, error) { return answer, nil }
	}
	for _, tt := range []struct {
		name  string
		blame bool // is it proof of a lie?
		liar  func(w *world, honest *held) func(Request, *env.Peer) ([]byte, error)
	}{
		{"expired", false, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return mirror(w.signedConsensus(testNow.Add(-25*time.Hour), cert.Digest{}, nil))
		}},
		{"stale but valid", false, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return mirror(w.signedConsensus(testNow.Add(-20*time.Hour), cert.Digest{}, nil))
		}},
		{"not yet valid", false, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return mirror(w.signedConsensus(testNow.Add(3*time.Hour), cert.Digest{}, nil))
		}},
		{"head cut short", true, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return answers(h.head[:len(h.head)-1], h.body)
		}},
		{"head altered", true, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return answers(altered(h.head, len(h.head)-1), h.body)
		}},
		{"body altered", false, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return answers(h.head, altered(h.body, len(h.body)/2))
		}},
		{"body cut short", false, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return answers(h.head, h.body[:len(h.body)-1])
		}},
		{"body too long", false, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return answers(h.head, append(bytes.Clone(h.body), make([]byte, 1<<20)...))
		}},
		{"head too long", true, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			return answers(make([]byte, MaxConsensusHead+1), h.body)
		}},
		{"answer announced longer than it is", true, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			a := AppendAnswer(nil, StatusOK, h.head)
			binary.BigEndian.PutUint32(a[1:], uint32(len(h.head)+100))
			return raw(a)
		}},
		{"empty answer", true, func(*world, *held) func(Request, *env.Peer) ([]byte, error) { return raw([]byte{0}) }},
		{"unknown status", true, func(*world, *held) func(Request, *env.Peer) ([]byte, error) {
			return raw([]byte{77, 0, 0, 0, 0})
		}},
		{"denies that there is a consensus", false, func(*world, *held) func(Request, *env.Peer) ([]byte, error) {
			return raw(AppendAnswer(nil, StatusNotYet, nil))
		}},
		{"busy", false, func(*world, *held) func(Request, *env.Peer) ([]byte, error) {
			return raw(AppendAnswer(nil, StatusBusy, nil))
		}},
		{"another network", true, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			head, body := build(t, w.network, ConsensusInput{ValidAfter: testNow, Relays: h.Relays, Parameters: w.network.Parameters})
			key := cert.NewSigningKey(testSeed('s', 0))
			other := cert.NetworkID(testSeed('n', 2))
			c := must[cert.Certificate](t)(cert.NewIdentityKey(testSeed('i', 0)).Certify(other, key.Public(), testNow, 0))
			sealed := must[[]byte](t)(cert.Seal(cert.ConsensusDocument, other, head, cert.Signer{Certificate: c, Key: key}))
			return answers(sealed, body)
		}},
		{"another signer", true, func(w *world, h *held) func(Request, *env.Peer) ([]byte, error) {
			head, body := build(t, w.network, ConsensusInput{ValidAfter: testNow, Relays: h.Relays, Parameters: w.network.Parameters})
			return answers(sealHead(t, head, testSigner(t, 1)), body)
		}},
		{"says nothing", false, func(*world, *held) func(Request, *env.Peer) ([]byte, error) {
			return func(Request, *env.Peer) ([]byte, error) { return nil, errSilence }
		}},
		{"refuses connections", false, func(*world, *held) func(Request, *env.Peer) ([]byte, error) {
			return func(Request, *env.Peer) ([]byte, error) { return nil, errUnreachable }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			blamed := uint64(0)
			for seed := range uint64(8) {
				w, c := mirrors(t, seed, 3)
				honest := w.signedConsensus(testNow, cert.Digest{}, nil)
				w.all(tt.liar(w, honest))
				w.serve[testIdentity(int(seed)%3)] = mirror(honest)
				c.start()
				w.until(40*time.Second, "the true consensus", func() bool {
					got := c.follower.Current()
					return got != nil && got.Head.Digest == honest.Head.Digest
				})
				for _, got := range c.consensus {
					if got.Head.Digest != honest.Head.Digest {
						t.Errorf("seed %d: the consensus of %v was in use", seed, got.Head.ValidAfter)
					}
				}
				blamed += c.follower.Stats().BadAnswers
			}
			if tt.blame && blamed == 0 {
				t.Error("nobody was blamed")
			}
		})
	}
}

func TestLiarsAreNotAskedAgainForAWhile(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 1, 6)
	honest := w.signedConsensus(testNow.Add(-4*time.Hour), cert.Digest{}, nil) // old: a newer one is looked for soon
	w.all(mirror(honest))
	asked := 0
	liar := testIdentity(4)
	w.serve[liar] = func(Request, *env.Peer) ([]byte, error) {
		asked++
		return AppendAnswer(nil, StatusOK, []byte("nonsense")), nil
	}
	c.start()
	w.f.Run(25 * time.Minute)
	if rounds := c.follower.Stats().Rounds; rounds < 5 || asked > 1 {
		t.Errorf("in %d rounds the liar was asked %d times", rounds, asked)
	}
}

func TestRollbackForkAndBrokenHistoryAreRefused(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 3, 3)
	one := w.signedConsensus(testNow.Add(-2*time.Hour), cert.Digest{}, nil)
	two := w.signedConsensus(testNow.Add(-time.Hour), one.Head.Digest, nil)
	other := w.signedConsensus(testNow.Add(-time.Hour), one.Head.Digest, func(in *ConsensusInput) { in.Relays[0].Weight++ })
	three := w.signedConsensus(testNow, other.Head.Digest, nil)
	w.all(mirror(two))
	c.start()
	w.until(time.Second, "a consensus", func() bool { return c.follower.Current() != nil })
	for _, tt := range []struct {
		name string
		next *held
	}{{"rollback", one}, {"fork", other}, {"broken history", three}} {
		name := tt.name
		w.all(mirror(tt.next))
		before := c.follower.Stats()
		w.until(2*time.Hour, name, func() bool {
			s := c.follower.Stats()
			return s.Rollbacks > before.Rollbacks || s.Forks > before.Forks
		})
		if got := c.follower.Current(); got == nil || got.Head.Digest != two.Head.Digest {
			t.Errorf("%s: it was taken", name)
		}
		if s := c.follower.Stats(); name != "rollback" && s.Forks == before.Forks {
			t.Errorf("%s: no alarm: %+v", name, s)
		}
		w.all(mirror(two))
		w.f.Run(time.Minute)
	}
	if _, err := c.node.Env.Store.Load(forkBlob); err != nil {
		t.Errorf("no evidence of the fork: %v", err)
	}
	// A later consensus that follows the one held ends it.
	good := w.signedConsensus(testNow, two.Head.Digest, nil)
	w.all(mirror(good))
	w.until(2*time.Hour, "the true successor", func() bool { return c.follower.Current().Head.Digest == good.Head.Digest })
}

func TestTwoConsensusesOfOneTimeInOneRoundAreBothRefused(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 4, 3)
	one := w.signedConsensus(testNow, cert.Digest{}, nil)
	other := w.signedConsensus(testNow, cert.Digest{}, func(in *ConsensusInput) { in.Relays[0].Weight++ })
	w.all(mirror(one))
	w.serve[testIdentity(1)] = mirror(other)
	c.start()
	w.f.Run(10 * time.Second)
	if got := c.follower.Current(); got != nil || c.follower.Stats().Forks == 0 {
		t.Errorf("in use: %v; %+v", got, c.follower.Stats())
	}
}

func TestConsensusIsUsedUntilItExpires(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 5, 3)
	only := w.signedConsensus(testNow, cert.Digest{}, nil)
	w.all(mirror(only))
	c.start()
	w.f.Run(24*time.Hour - time.Minute)
	if c.follower.Current() == nil {
		t.Error("gone before its time")
	}
	if i := slices.IndexFunc(c.progress, func(s string) bool { return strings.Contains(s, "a newer one") }); i < 0 {
		t.Errorf("nobody was told that it is old: %q", c.progress)
	}
	w.f.Run(2 * time.Minute)
	if head, _ := c.follower.Sealed(); c.follower.Current() != nil || head != nil || c.follower.SealedBody(only.Head.Digest) != nil {
		t.Error("used or served after its time")
	}
	w.f.Run(time.Hour)
	if last := c.progress[len(c.progress)-1]; !strings.Contains(last, "expired") {
		t.Errorf("the last word is %q", last)
	}
	next := w.signedConsensus(testNow.Add(25*time.Hour), only.Head.Digest, nil)
	w.all(mirror(next))
	w.until(time.Hour, "a new consensus", func() bool { return c.follower.Current() != nil })
}

// TestOldConsensusIsComplainedOfOnceAMinute: a network of seconds has two attempts a second, which all fail alike.
func TestOldConsensusIsComplainedOfOnceAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 41, 4, nil)
	w.startAll()
	var lines bytes.Buffer
	c := w.client()
	c.node.Env.Log = slog.New(slog.NewTextHandler(&lines, nil))
	c.start()
	w.until(6*time.Second, "a consensus at the client", func() bool { return c.lists(w.members...) })
	for _, m := range w.members {
		m.crash()
	}
	w.f.Run(100 * time.Second) // stale after 15 seconds, of no use after 120
	if n := strings.Count(lines.String(), "getting old"); n < 1 || n > 2 {
		t.Errorf("%d lines in 85 seconds:\n%s", n, lines.String())
	}
	if c.follower.Current() == nil {
		t.Error("the consensus is not in use any more")
	}
}

func TestRestartFromDiskAsksNobody(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 6, 3)
	h := w.signedConsensus(testNow.Add(-10*time.Minute), cert.Digest{}, nil)
	w.all(mirror(h))
	c.start()
	w.until(time.Second, "a consensus", func() bool { return c.follower.Current() != nil })
	w.f.Run(time.Second)
	c.crash()
	clear(w.asked)
	c.consensus = nil
	c.start()
	if len(c.consensus) != 1 || c.follower.Current().Head.Digest != h.Head.Digest {
		t.Fatalf("not in use at once: %d", len(c.consensus))
	}
	w.f.Run(49 * time.Minute)
	if len(w.asked) != 0 {
		t.Errorf("asked %v before it was time to refresh", w.asked)
	}
	w.f.Run(122 * time.Minute)
	if w.asked[AskHead] == 0 {
		t.Error("never refreshed")
	}
}

// TestClockThatIsSetDoesNotDelayTheNextConsensus: what was to be at a time by a clock that was behind is when the right one
// says so, also in a machine that slept.
func TestClockThatIsSetDoesNotDelayTheNextConsensus(t *testing.T) {
	t.Parallel()
	for _, set := range []time.Duration{9 * time.Minute, 8 * time.Hour} {
		w, c := mirrors(t, 6, 3)
		w.all(mirror(w.signedConsensus(testNow, cert.Digest{}, nil)))
		c.node.Skew = -9 * time.Minute
		c.start()
		w.until(time.Minute, "a consensus", func() bool { return c.follower.Current() != nil })
		left := c.follower.due.Sub(c.follower.env.Clock.Wall())
		clear(w.asked)
		w.f.Run(max(left-set, 0))
		if w.asked[AskHead] != 0 {
			t.Fatal("asked although it was not yet time")
		}
		c.node.Skew += set
		w.f.Run(2 * time.Minute)
		if w.asked[AskHead] == 0 {
			t.Errorf("clock set by %v: nothing is asked two minutes after it was time", set)
		}
	}
}

func TestDamagedDiskIsReplacedButStillBarsTheWayBack(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 7, 3)
	older := w.signedConsensus(testNow.Add(-70*time.Minute), cert.Digest{}, nil)
	h := w.signedConsensus(testNow.Add(-10*time.Minute), older.Head.Digest, nil)
	for _, tt := range []struct {
		name, blob string
		data       []byte
		bars       bool
	}{
		{"body damaged", bodyBlob, h.body[1:], true},
		{"head damaged", headBlob, h.head[1:], false},
		{"empty", headBlob, nil, false},
	} {
		c.crash()
		c.node.Env.Store.Save(headBlob, h.head, nil)
		c.node.Env.Store.Save(bodyBlob, h.body, nil)
		c.node.Env.Store.Save(tt.blob, tt.data, nil)
		w.f.Run(0)
		w.all(mirror(older))
		c.start()
		w.f.Run(20 * time.Second)
		if got := c.follower.Current(); (got == nil) != tt.bars {
			t.Errorf("%s: with only an older one about, in use is %v", tt.name, got)
		}
		w.all(mirror(h))
		w.until(time.Hour, tt.name, func() bool {
			return c.follower.Current() != nil && c.follower.Current().Head.Digest == h.Head.Digest
		})
	}
}

func TestWrongClockIsNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		skew time.Duration
		want string
	}{
		{50 * time.Hour, "this computer's clock is 50h0m0s ahead of that of 3 relays: set it right"},
		{-5 * time.Hour, "this computer's clock is 5h0m0s behind that of 3 relays: set it right"},
	} {
		w, c := mirrors(t, 8, 3)
		c.node.Skew = tt.skew
		w.all(mirror(w.signedConsensus(testNow, cert.Digest{}, nil)))
		c.start()
		for i := range 3 {
			c.follower.OnPeerTime(testIdentity(i), -tt.skew)
		}
		w.f.Run(5 * time.Second)
		if last := c.progress[len(c.progress)-1]; !strings.Contains(last, tt.want) || c.follower.Current() != nil {
			t.Errorf("skew %v: the last word is %q", tt.skew, last)
		}
	}
}

func TestSmallSkewIsForgiven(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 9, 3)
	c.node.Skew = -5 * time.Minute
	w.all(mirror(w.signedConsensus(testNow, cert.Digest{}, nil)))
	c.start()
	w.until(time.Second, "a consensus", func() bool { return c.follower.Current() != nil })
}

// TestClientsRefreshAtARandomMoment protects relays from all clients at once, and clients from being told apart: they
// look for a newer consensus when all relays have one, and before theirs counts as old.
func TestClientsRefreshAtARandomMoment(t *testing.T) {
	t.Parallel()
	w, _ := mirrors(t, 10, 3)
	first := w.signedConsensus(testNow, cert.Digest{}, nil)
	w.all(mirror(first))
	w.clients = nil
	for range 40 {
		w.client().start()
	}
	w.f.Run(59 * time.Minute)
	var at []time.Duration
	second := w.signedConsensus(testNow.Add(time.Hour), first.Head.Digest, nil)
	w.all(func(q Request, from *env.Peer) ([]byte, error) {
		if q.Kind == AskHead && q.Known == first.Head.Digest {
			at = append(at, time.Duration(w.f.Now()))
		}
		return mirror(second)(q, from)
	})
	w.f.Run(122 * time.Minute)
	quarters := make(map[int]int)
	for _, when := range at {
		if when < 90*time.Minute || when > 3*time.Hour+5*time.Second {
			t.Errorf("asked at %v", when)
		}
		quarters[int((when-90*time.Minute)/(1350*time.Second))]++
	}
	for i := range 4 {
		if quarters[i] == 0 {
			t.Errorf("nobody asked in quarter %d: %v", i, quarters)
		}
	}
	for _, c := range w.clients {
		if c.follower.Current().Head.Digest != second.Head.Digest {
			t.Error("a client missed the new consensus")
		}
	}
}

func TestPreferredSourcesComeFirstAndOthersHelpWhenTheyFail(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 11, 5)
	first := w.signedConsensus(testNow, cert.Digest{}, nil)
	second := w.signedConsensus(testNow.Add(time.Hour), first.Head.Digest, nil)
	w.all(mirror(first))
	c.sources = func() []env.Target { return targetsOf([]Contact{w.contact(3)}) }
	c.start()
	w.f.Run(50 * time.Minute)
	others := 0
	w.all(func(q Request, from *env.Peer) ([]byte, error) { others++; return mirror(second)(q, from) })
	w.serve[testIdentity(3)] = mirror(second)
	w.f.Run(135 * time.Minute)
	if others != 0 || c.follower.Current().Head.Digest != second.Head.Digest {
		t.Errorf("others were asked %d times", others)
	}
	third := w.signedConsensus(testNow.Add(3*time.Hour), second.Head.Digest, nil)
	w.all(mirror(third))
	w.serve[testIdentity(3)] = func(Request, *env.Peer) ([]byte, error) { return nil, errUnreachable }
	w.until(2*time.Hour, "help from others", func() bool { return c.follower.Current().Head.Digest == third.Head.Digest })
}

func TestNothingIsHeardAfterStop(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 12, 3)
	w.all(mirror(w.signedConsensus(testNow, cert.Digest{}, nil)))
	c.start()
	w.f.Run(worldDelay)
	w.f.Do(c.follower.Stop)
	said := len(c.progress)
	w.f.Run(2 * time.Hour)
	if len(c.consensus) != 0 || len(c.progress) != said {
		t.Errorf("heard %d consensuses and %q", len(c.consensus), c.progress[said:])
	}
}

// TestBootstrapTranscript shows every request of a bootstrap among a liar, a relay that is gone and two honest ones.
func TestBootstrapTranscript(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 2, 4)
	h := w.signedConsensus(testNow, cert.Digest{}, nil)
	w.all(mirror(h))
	w.serve[testIdentity(1)] = func(Request, *env.Peer) ([]byte, error) { return nil, errUnreachable }
	w.serve[testIdentity(2)] = func(q Request, p *env.Peer) ([]byte, error) {
		if q.Kind == AskHead {
			return AppendAnswer(nil, StatusOK, h.head), nil
		}
		return AppendAnswer(nil, StatusOK, make([]byte, len(h.body))), nil
	}
	var lines strings.Builder
	line := func(format string, args ...any) {
		fmt.Fprintf(&lines, "%7.3f  "+format+"\n", append([]any{time.Duration(w.f.Now()).Seconds()}, args...)...)
	}
	w.trace = func(_ *member, to cert.Identity, q Request, outcome string) {
		line("%s of relay %d: %s", q.Kind, w.byIdentity(to).number, outcome)
	}
	c.make()
	c.follower.cfg.OnProgress = func(percent int, doing, awaiting string) { line("-> %d %% %s [%s]", percent, doing, awaiting) }
	c.follower.cfg.OnConsensus = func(got *Consensus) { line("=> consensus with %d relays", len(got.Relays)) }
	w.f.Do(c.follower.Start)
	w.f.Run(50 * time.Minute)
	envtest.Golden(t, filepath.Join("testdata", "bootstrap.txt"), lines.String())
}
