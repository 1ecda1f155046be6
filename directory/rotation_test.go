package directory

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// lineage are network files of which each replaces the one before: with an authority that is replaced, one added, one
// removed.
type lineage struct {
	w     *world
	files []*Network
}

// lineages makes a world whose first file names the authorities 0 to 3.
func lineages(t testing.TB, seed uint64) *lineage {
	t.Helper()
	w := newWorld(t, seed, 12, nil)
	l := &lineage{w: w}
	contents := *w.network
	contents.Parameters = Parameters{IntervalMillis: 3_600_000}
	contents.Bootstrap = []Contact{w.contact(9), w.contact(10), w.contact(11)}
	contents.Authorities, contents.Quorum = l.contacts(0, 1, 2, 3), 0
	first := must[*Network](t)(NewNetwork(contents, signersOf(t, 0, 1, 2)...))
	l.files = []*Network{first}
	w.network = first
	return l
}

func (l *lineage) contacts(numbers ...int) (out []Contact) {
	for _, i := range numbers {
		out = append(out, l.w.contact(i))
	}
	return out
}

func signersOf(t testing.TB, numbers ...int) (out []cert.Signer) {
	for _, i := range numbers {
		out = append(out, testSigner(t, i))
	}
	return out
}

// next makes the draft of the file after the last, with these authorities.
func (l *lineage) draft(authorities ...int) *Network {
	last := *l.files[len(l.files)-1]
	last.Serial++
	last.Created = last.Created.Add(time.Minute)
	last.Authorities, last.Quorum = l.contacts(authorities...), 0
	return must[*Network](l.w.t)(DraftNetwork(last))
}

func (l *lineage) next(authorities []int, signers ...int) *Network {
	n := l.draft(authorities...)
	for _, s := range signersOf(l.w.t, signers...) {
		n = must[*Network](l.w.t)(n.Sign(s))
	}
	if err := n.Complete(l.files[len(l.files)-1]); err != nil {
		l.w.t.Fatal(err)
	}
	l.files = append(l.files, n)
	return n
}

// replaceAll makes files until none of the first authorities is left, one at a time.
func (l *lineage) replaceAll() {
	l.next([]int{1, 2, 3, 4}, 1, 2, 3)
	l.next([]int{2, 3, 4, 5}, 2, 3, 4)
	l.next([]int{3, 4, 5, 6}, 3, 4, 5)
	l.next([]int{4, 5, 6, 7}, 4, 5, 6)
}

// consensus is one that the authorities of a file have signed.
func (l *lineage) consensus(n *Network, at time.Time, previous cert.Digest, signers ...int) *held {
	t := l.w.t
	in := ConsensusInput{ValidAfter: at, Previous: previous, Parameters: n.Parameters, NetworkSerial: n.Serial,
		Recommended: OurProtocols(), Required: OurProtocols()}
	for _, i := range []int{9, 10, 11} {
		m := l.w.members[i]
		in.Relays = append(in.Relays, Relay{Identity: m.id(), OnionKey: testSeed('b', i), Weight: 1000,
			Addresses: l.w.contact(i).Addresses, Flags: FlagRunning | FlagValid | FlagGuard, Protocols: OurProtocols()})
	}
	head, body := build(t, n, in)
	sealed := sealHead(t, head, signersOf(t, signers...)...)
	h := must[*Head](t)(OpenHead(sealed, n, testNow))
	return &held{must[*Consensus](t)(OpenBody(h, body, n)), sealed, body}
}

// relays starts the three relays with these files and a consensus.
func (l *lineage) relays(h *held, files ...*Network) {
	l.w.network = files[len(files)-1]
	for _, i := range []int{9, 10, 11} {
		m := l.w.members[i]
		m.crash()
		m.node.Env.Store.Save(networkBlob, storedNetworks(l.w.t, files...), nil)
		l.w.f.Run(0)
		m.start()
		l.w.f.Do(func() {
			if err := m.follower.Adopt(h.head, h.body); err != nil {
				l.w.t.Fatal(err)
			}
		})
	}
}

func storedNetworks(t testing.TB, files ...*Network) []byte {
	var texts []networkText
	for _, n := range files {
		texts = append(texts, networkText{n, must[[]byte](t)(n.AppendTOML(nil))})
	}
	return joinNetworks(texts)
}

// clientOf starts a client that was given this file.
func (l *lineage) clientOf(n *Network) *member {
	l.w.network = n
	c := l.w.client()
	c.start()
	return c
}

func TestNetworkFileIsSignedInSteps(t *testing.T) {
	t.Parallel()
	l := lineages(t, 1)
	old := l.files[0]
	draft := l.draft(1, 2, 3, 4)
	if _, err := draft.AppendTOML(nil); !errors.Is(err, ErrSigners) {
		t.Errorf("a draft was written as a network file: %v", err)
	}
	if err := draft.Complete(old); !errors.Is(err, ErrSigners) {
		t.Errorf("a draft is complete: %v", err)
	}
	carry := func(n *Network) *Network { // to another machine
		text := must[[]byte](t)(n.AppendDraft(nil))
		return must[*Network](t)(ParseNetworkDraft(text))
	}
	one := must[*Network](t)(carry(draft).Sign(testSigner(t, 1)))
	if _, err := ParseNetworkFile(must[[]byte](t)(one.AppendDraft(nil))); !errors.Is(err, ErrSigners) {
		t.Errorf("a draft was read as a network file: %v", err)
	}
	two := must[*Network](t)(carry(one).Sign(testSigner(t, 2)))
	again := must[*Network](t)(two.Sign(testSigner(t, 2)))
	if len(again.Signers()) != 2 {
		t.Errorf("signed twice by one: %d signers", len(again.Signers()))
	}
	// At the same time, elsewhere; the newcomer signs too, which does not count for the old file.
	other := must[*Network](t)(carry(draft).Sign(testSigner(t, 4)))
	merged := must[*Network](t)(carry(two).Merge(carry(other)))
	if err := merged.Complete(nil); err != nil {
		t.Errorf("by three of its own: %v", err)
	}
	if err := merged.Complete(old); !errors.Is(err, ErrNoReplacement) || !errors.Is(err, ErrSigners) || !strings.Contains(err.Error(), "2 of the present authorities, want 3") {
		t.Errorf("by two of the old: %v", err)
	}
	whole := must[*Network](t)(merged.Sign(testSigner(t, 3)))
	if err := whole.Complete(old); err != nil {
		t.Error(err)
	}
	read := must[*Network](t)(ParseNetworkFile(must[[]byte](t)(whole.AppendTOML(nil))))
	if read.Replaces(old) != nil || read.Serial != 2 || len(read.Signers()) != 4 {
		t.Errorf("came back as %+v", read)
	}
	if _, err := whole.Merge(l.draft(1, 2, 3, 5)); !errors.Is(err, ErrInvalid) {
		t.Errorf("two different files were merged: %v", err)
	}
	// A signature over other contents.
	text := string(must[[]byte](t)(one.AppendDraft(nil)))
	if _, err := ParseNetworkDraft([]byte(strings.Replace(text, "serial = 2", "serial = 3", 1))); !errors.Is(err, cert.ErrSignature) {
		t.Errorf("an altered draft: %v", err)
	}
}

func TestClientFollowsAReplacedAuthority(t *testing.T) {
	t.Parallel()
	l := lineages(t, 2)
	one := l.files[0]
	first := l.consensus(one, testNow, cert.Digest{}, 0, 1, 2)
	l.relays(first, one)
	c := l.clientOf(one)
	l.w.until(time.Minute, "a consensus", func() bool { return c.follower.Current() != nil })

	two := l.next([]int{1, 2, 3, 4}, 1, 2, 3)
	l.w.f.Run(time.Hour)
	second := l.consensus(two, testNow.Add(time.Hour), first.Head.Digest, 1, 2, 3)
	var told []*Network
	c.follower.cfg.OnNetwork = func(n *Network) { told = append(told, n) }
	l.relays(second, one, two)
	l.w.until(3*time.Hour, "the new file", func() bool { return c.follower.Network().Serial == 2 })
	if len(told) != 1 || told[0].Serial != 2 || c.follower.Stats().BadAnswers != 0 {
		t.Errorf("told of %d files; %+v", len(told), c.follower.Stats())
	}
	// Now the newcomer's signature counts.
	third := l.consensus(two, testNow.Add(4*time.Hour), second.Head.Digest, 1, 2, 4)
	l.w.f.Run(time.Minute)
	l.w.f.Run(testNow.Add(4 * time.Hour).Sub(c.node.Env.Clock.Wall()))
	l.relays(third, one, two)
	l.w.until(4*time.Hour, "a consensus with its signature", func() bool {
		got := c.follower.Current()
		return got != nil && got.Head.Digest == third.Head.Digest
	})
	// After a restart with the old file from the command line.
	c.crash()
	l.w.network = one
	c.start()
	if c.follower.Network().Serial != 2 || c.follower.Current() == nil {
		t.Errorf("after a restart: serial %d", c.follower.Network().Serial)
	}
}

func TestClientThatWasAwayFollowsAllFiles(t *testing.T) {
	t.Parallel()
	l := lineages(t, 3)
	l.replaceAll()
	last := l.files[len(l.files)-1]
	h := l.consensus(last, testNow, cert.Digest{}, 5, 6, 7)
	l.relays(h, l.files...)
	for i, n := range l.files {
		c := l.clientOf(n)
		l.w.until(time.Minute, "the consensus of other authorities", func() bool { return c.follower.Current() != nil })
		if s := c.follower.Stats(); s.NetworkFiles == 0 && i < len(l.files)-1 || s.BadAnswers != 0 {
			t.Errorf("from file %d: %+v", i+1, s)
		}
		if got := c.follower.Network(); got.Serial != last.Serial {
			t.Errorf("from file %d: serial %d", i+1, got.Serial)
		}
	}
	// Relays that have only the last file cannot show by what right to one who has the first.
	l.relays(h, last)
	c := l.clientOf(l.files[0])
	l.w.f.Run(time.Minute)
	if c.follower.Current() != nil || c.follower.Network().Serial != 1 {
		t.Error("a file that does not follow was taken")
	}
	if got := c.follower.Warnings(); len(got) != 1 || !strings.Contains(got[0].Text, "get the present network file") {
		t.Errorf("nobody was told: %q", got)
	}
}

func TestAuthoritiesAreAddedAndRemoved(t *testing.T) {
	t.Parallel()
	l := lineages(t, 4)
	l.next([]int{0, 1, 2, 3, 4, 5, 6}, 0, 1, 2, 4, 5) // 7: five must sign
	l.next([]int{0, 1, 2, 4, 5, 6}, 0, 1, 2, 4, 5)
	last := l.next([]int{0, 1, 4, 5}, 0, 1, 2, 4, 5) // n = 6: four of the old
	l.relays(l.consensus(last, testNow, cert.Digest{}, 1, 4, 5), l.files...)
	c := l.clientOf(l.files[0])
	l.w.until(time.Minute, "a consensus", func() bool { return c.follower.Current() != nil })
	if c.follower.Network().Serial != 4 {
		t.Errorf("serial %d", c.follower.Network().Serial)
	}
}

// TestForeignNetworkFilesAreRefused: what too few have signed, is older, or is another network's changes nothing, and is
// held against who gave it when it is no network file at all.
func TestForeignNetworkFilesAreRefused(t *testing.T) {
	t.Parallel()
	l := lineages(t, 5)
	one := l.files[0]
	// Four strangers, with two of the old authorities.
	few := l.draft(0, 1, 6, 7)
	for _, s := range signersOf(t, 0, 1, 6, 7) {
		few = must[*Network](t)(few.Sign(s))
	}
	foreign := *l.draft(0, 1, 2, 3)
	foreign.ID = cert.NetworkID{7}
	h := l.consensus(few, testNow, cert.Digest{}, 1, 6, 7)
	for name, tt := range map[string]struct {
		text  []byte
		blame bool
	}{
		"signed by too few": {must[[]byte](t)(few.AppendTOML(nil)), false},
		"an unsigned draft": {must[[]byte](t)(l.draft(0, 1, 2, 3).AppendDraft(nil)), true},
		"nonsense":          {[]byte("nonsense"), true},
		"too long":          {bytes.Repeat([]byte("#"), MaxNetworkFile+1), true},
		"nothing":           {nil, true},
	} {
		l.w.all(func(q Request, _ *env.Peer) ([]byte, error) {
			switch {
			case q.Kind == AskNetworkFile && tt.text == nil:
				return AppendAnswer(nil, StatusNotFound, nil), nil
			case q.Kind == AskNetworkFile:
				return AppendAnswer(nil, StatusOK, tt.text), nil
			}
			return mirror(h)(q, nil)
		})
		c := l.clientOf(one)
		l.w.f.Run(time.Minute)
		s := c.follower.Stats()
		if c.follower.Network() != one || c.follower.Current() != nil || s.NetworkFiles != 0 || s.Strange == 0 {
			t.Errorf("%s: %+v", name, s)
		}
		if (s.BadAnswers > 0) != tt.blame {
			t.Errorf("%s: %d bad answers", name, s.BadAnswers)
		}
		if !slices.ContainsFunc(c.progress, func(p string) bool { return strings.Contains(p, "other authorities than the network file here names") }) {
			t.Errorf("%s: %q", name, c.progress)
		}
		c.crash()
	}
}

// TestStrangersDoNotStopAClient: liars with heads of their own authorities cost a few requests, and the honest head wins.
func TestStrangersDoNotStopAClient(t *testing.T) {
	t.Parallel()
	l := lineages(t, 6)
	one := l.files[0]
	few := l.draft(0, 1, 6, 7)
	honest := l.consensus(one, testNow, cert.Digest{}, 0, 1, 2)
	l.relays(honest, one)
	lie := mirror(l.consensus(few, testNow.Add(time.Minute), cert.Digest{}, 1, 6, 7))
	for _, i := range []int{9, 10} {
		l.w.serve[testIdentity(i)] = lie
	}
	c := l.clientOf(one)
	l.w.until(time.Minute, "the honest consensus", func() bool { return c.follower.Current() != nil })
	if c.follower.Current().Head.Digest != honest.Head.Digest || c.follower.Network() != one {
		t.Error("another one is in use")
	}
}

func TestGivenNetworkFileWinsWhenItIsNewer(t *testing.T) {
	t.Parallel()
	l := lineages(t, 7)
	one, two := l.files[0], l.next([]int{1, 2, 3, 4}, 1, 2, 3)
	c := l.clientOf(one)
	for _, tt := range []struct {
		name   string
		stored []byte
		given  *Network
		want   uint64
	}{
		{"nothing stored", nil, one, 1},
		{"an older one stored", storedNetworks(t, one), two, 2},
		{"a newer one stored", storedNetworks(t, one, two), one, 2},
		{"damaged", []byte("nonsense"), one, 1},
	} {
		store := c.node.Env.Store
		if tt.stored != nil {
			store.Save(networkBlob, tt.stored, nil)
			l.w.f.Run(0)
		}
		if got := NewestNetwork(store, c.node.Env.Log, tt.given); got.Serial != tt.want {
			t.Errorf("%s: serial %d", tt.name, got.Serial)
		}
	}
}
