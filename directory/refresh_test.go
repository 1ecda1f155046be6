package directory

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// TestNodesRefreshByDiffs: after the first consensus nobody fetches a whole one, and of three sources only the first
// sends all signatures.
func TestNodesRefreshByDiffs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 51, 6, nil)
	w.startAll()
	c := w.client()
	c.start()
	w.until(10*time.Second, "a consensus at the client", func() bool { return c.lists(w.members...) })
	heads := make(map[bool]int) // of the client, whole or not
	w.trace = func(from *member, _ cert.Identity, q Request, outcome string) {
		if from == c && q.Kind == AskHead {
			heads[outcome != "ok, 0 bytes"]++
		}
	}
	w.f.Run(2 * time.Minute)
	for _, m := range append([]*member{c}, w.members[1:]...) {
		s := m.follower.Stats()
		if s.Bodies > 2 || s.Patched < 8 || s.BadDiffs > 0 || s.BadAnswers > 0 {
			t.Errorf("%s: %+v", m.node.Name, s)
		}
	}
	if heads[true] == 0 || heads[false] < heads[true] {
		t.Errorf("%d whole heads for %d that were the same", heads[true], heads[false])
	}
}

// patchable answers as a relay that has two consensuses and gives this diff between them.
func patchable(from, to *held, diff []byte) func(Request, *env.Peer) ([]byte, error) {
	whole := mirror(to)
	return func(q Request, p *env.Peer) ([]byte, error) {
		if q.Kind == AskDiff && q.Known == from.Head.Digest && q.Digest == to.Head.Digest {
			return AppendAnswer(nil, StatusOK, diff), nil
		}
		return whole(q, p)
	}
}

// TestFalseDiffIsHeldAgainstItsSource: whoever gives a diff that leads elsewhere is not asked again for a while, and the
// whole consensus is fetched from another.
func TestFalseDiffIsHeldAgainstItsSource(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(good []byte, h *held) []byte{
		"another body": func([]byte, *held) []byte { return []byte{0xa0} },
		"no diff":      func([]byte, *held) []byte { return []byte("nonsense") },
		"cut short":    func(good []byte, _ *held) []byte { return good[:len(good)-1] },
		"too long":     func(_ []byte, h *held) []byte { return make([]byte, h.Head.BodyLength) },
		"one bit":      func(good []byte, _ *held) []byte { b := bytes.Clone(good); b[len(b)-1] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, c := mirrors(t, 52, 5)
			first := w.signedConsensus(testNow, cert.Digest{}, nil)
			second := w.signedConsensus(testNow.Add(time.Hour), first.Head.Digest, func(in *ConsensusInput) { in.Relays[2].Weight += 5 })
			w.all(mirror(first))
			c.start()
			w.f.Run(time.Hour)
			liars := 0
			good := must[[]byte](t)(makeDiff(first.body, second.body))
			for i, m := range w.members {
				diff := good
				if i < 2 {
					diff = lie(good, second)
				}
				answer := patchable(first, second, diff)
				w.serve[m.id()] = func(q Request, p *env.Peer) ([]byte, error) {
					if i < 2 && q.Kind == AskDiff {
						liars++
					}
					return answer(q, p)
				}
			}
			c.sources = func() []env.Target { return targetsOf([]Contact{w.contact(0), w.contact(1), w.contact(2)}) }
			c.follower.cfg.Sources = c.sources
			w.until(3*time.Hour, "the new consensus", func() bool { return c.follower.Current().Head.Digest == second.Head.Digest })
			s := c.follower.Stats()
			if liars == 0 { // the honest one was the first
				if s.Patched != 1 || s.BadAnswers != 0 {
					t.Errorf("%+v", s)
				}
				return
			}
			if s.BadAnswers == 0 || s.Patched != 0 || s.Bodies != 2 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestOlderConsensusesOutliveARestart: a relay can make diffs from what clients have of it although it was started
// anew, but not from what has expired.
func TestOlderConsensusesOutliveARestart(t *testing.T) {
	t.Parallel()
	w, _ := mirrors(t, 53, 2)
	m := w.members[1]
	m.start()
	var all []*held
	last := cert.Digest{}
	for i := range 30 {
		h := w.signedConsensus(testNow.Add(time.Duration(i-29)*time.Hour), last, func(in *ConsensusInput) { in.Relays[0].Weight += uint32(i) })
		all, last = append(all, h), h.Head.Digest
		if i < 6 {
			continue // expired
		}
		w.f.Do(func() {
			if err := m.follower.Adopt(h.head, h.body); err != nil {
				t.Fatal(err)
			}
		})
	}
	newest := all[len(all)-1]
	count := func() (n int) {
		for _, h := range all {
			if a, b := m.follower.bodiesFor(h.Head.Digest, newest.Head.Digest); a != nil {
				if !bytes.Equal(a, h.body) || !bytes.Equal(b, newest.body) {
					t.Error("another body")
				}
				n++
			}
		}
		return n
	}
	if n := count(); n != 23 {
		t.Errorf("diffs from %d consensuses", n)
	}
	w.f.Run(time.Second)
	m.crash()
	w.f.Run(3 * time.Hour) // three of them expire
	m.start()
	if n := count(); n != 20 {
		t.Errorf("after a restart, diffs from %d consensuses", n)
	}
}

// TestFreezeByAllGuards: the guards go on showing an old consensus, which is valid. The client asks others after a few
// rounds, and has the newest long before the old one expires.
func TestFreezeByAllGuards(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		w, c := mirrors(t, 54+seed, 7)
		first := w.signedConsensus(testNow, cert.Digest{}, nil)
		second := w.signedConsensus(testNow.Add(time.Hour), first.Head.Digest, nil)
		w.all(mirror(first))
		c.sources = func() []env.Target { return targetsOf([]Contact{w.contact(1), w.contact(2), w.contact(3)}) }
		c.start()
		w.f.Run(time.Hour)
		for _, i := range []int{0, 4, 5, 6} {
			w.serve[testIdentity(i)] = mirror(second)
		}
		w.until(3*time.Hour, "the newer consensus", func() bool { return c.follower.Current().Head.Digest == second.Head.Digest })
	}
}

// TestFreezeByEverybodyIsTold: when nobody has a newer one, a person hears of it after three intervals.
func TestFreezeByEverybodyIsTold(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 60, 3)
	w.all(mirror(w.signedConsensus(testNow, cert.Digest{}, nil)))
	c.start()
	w.f.Run(2 * time.Hour)
	if got := c.follower.Warnings(); len(got) != 0 {
		t.Errorf("too soon: %q", got)
	}
	w.f.Run(90 * time.Minute)
	if got := c.follower.Warnings(); len(got) != 1 || !strings.Contains(got[0].Text, "no newer one can be had") {
		t.Errorf("after three intervals: %q", got)
	}
}

// TestTooOldSoftwareStops: what the consensus requires and this version does not speak ends its use, with a word that
// says what to do; what it only recommends is a warning.
func TestTooOldSoftwareStops(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 61, 3)
	future := append(OurProtocols(), MakeProtocol(9, 1))
	first := w.signedConsensus(testNow, cert.Digest{}, func(in *ConsensusInput) { in.Recommended = future })
	second := w.signedConsensus(testNow.Add(time.Hour), first.Head.Digest, func(in *ConsensusInput) { in.Required = future })
	third := w.signedConsensus(testNow.Add(3*time.Hour), second.Head.Digest, nil)
	w.all(mirror(first))
	c.start()
	w.until(time.Second, "a consensus", func() bool { return c.follower.Current() != nil })
	if got := c.follower.Warnings(); len(got) != 1 || !strings.Contains(got[0].Text, "update cepa soon") {
		t.Errorf("recommended: %q", got)
	}
	w.all(mirror(second))
	w.until(3*time.Hour, "an end", func() bool { return c.follower.Current() == nil })
	if got := c.follower.Warnings(); len(got) != 1 || !strings.Contains(got[0].Text, "update cepa: ") {
		t.Errorf("required: %q", got)
	}
	if last := c.progress[len(c.progress)-1]; !strings.Contains(last, "update cepa") {
		t.Errorf("the last word is %q", last)
	}
	if n := len(c.consensus); n != 1 {
		t.Errorf("%d consensuses came into use", n)
	}
	w.f.Run(time.Second)
	c.crash()
	c.start()
	if c.follower.Current() != nil {
		t.Error("a restart helps")
	}
	w.all(mirror(third))
	w.until(3*time.Hour, "a consensus that this version can use", func() bool { return c.follower.Current() != nil })
	if got := c.follower.Warnings(); len(got) != 0 {
		t.Errorf("at the end: %q", got)
	}
}

// TestWhatStandsBetweenIsNamed: captive portals, no network, a wrong clock.
func TestWhatStandsBetweenIsNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"captive portal", env.ErrNotRelay, "something that is no relay answers in place of 3 of 3 relays: does this network want you to sign in first"},
		{"no network", env.ErrOffline, "this computer is not connected to a network"},
		{"clock behind", &env.ClockError{Skew: 72 * time.Hour}, "this computer's clock is 72h0m0s behind that of 3 relays: set it right"},
		{"clock ahead", &env.ClockError{Skew: -90 * 24 * time.Hour}, "this computer's clock is 2160h0m0s ahead of that of 3 relays: set it right"},
		{"nothing", errUnreachable, "none of 3 relays answered: is this computer online"},
	} {
		w, c := mirrors(t, 62, 3)
		w.all(func(Request, *env.Peer) ([]byte, error) { return nil, fmt.Errorf("opening a link: %w", tt.err) })
		c.start()
		w.f.Run(5 * time.Second)
		if !slices.ContainsFunc(c.progress, func(s string) bool { return strings.Contains(s, tt.want) }) {
			t.Errorf("%s: %q", tt.name, c.progress)
		}
		// It goes on by itself when the way is free.
		w.all(mirror(w.signedConsensus(testNow, cert.Digest{}, nil)))
		w.until(time.Minute, tt.name, func() bool { return c.follower.Current() != nil })
	}
	// One relay's word is not enough.
	w, c := mirrors(t, 63, 3)
	w.all(func(Request, *env.Peer) ([]byte, error) { return nil, errUnreachable })
	w.serve[testIdentity(1)] = func(Request, *env.Peer) ([]byte, error) { return nil, &env.ClockError{Skew: 72 * time.Hour} }
	c.start()
	w.f.Run(5 * time.Second)
	if slices.ContainsFunc(c.progress, func(s string) bool { return strings.Contains(s, "% this computer's clock") }) {
		t.Errorf("by one relay: %q", c.progress)
	}
}

// TestForkIsToldAfterARestartToo: the proof stays in the folder, and people hear of it, until somebody removes it.
func TestForkIsToldAfterARestartToo(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 64, 3)
	one := w.signedConsensus(testNow, cert.Digest{}, nil)
	other := w.signedConsensus(testNow, cert.Digest{}, func(in *ConsensusInput) { in.Relays[0].Weight++ })
	w.all(mirror(one))
	c.start()
	w.f.Run(time.Minute)
	if got := c.follower.Warnings(); len(got) != 0 {
		t.Errorf("without a fork: %q", got)
	}
	w.all(mirror(other))
	w.until(3*time.Hour, "an alarm", func() bool { return c.follower.Stats().Forks > 0 })
	w.f.Run(time.Second)
	for range 2 {
		if got := c.follower.Warnings(); !slices.ContainsFunc(got, func(w Warning) bool {
			s := w.Text
			return strings.Contains(s, one.Head.Digest.Short()) && strings.Contains(s, other.Head.Digest.Short())
		}) {
			t.Errorf("%q", got)
		}
		c.crash()
		c.start()
	}
}
