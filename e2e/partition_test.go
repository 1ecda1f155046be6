//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
)

// line watches that there is one line of consensuses: no two for one time, at no node an older one
// after a newer one.
type line struct {
	mu      sync.Mutex
	digests map[time.Time]cert.Digest
	last    map[string]time.Time
	faults  []string
}

func (l *line) look(f *field) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range f.parts("authority", "relay", "client") {
		c := f.consensus(a)
		if c == nil {
			continue
		}
		h := c.Head
		if d, known := l.digests[h.ValidAfter]; known && d != h.Digest {
			l.faults = append(l.faults, fmt.Sprintf("%s has another consensus of %v", a.name, h.ValidAfter))
		}
		l.digests[h.ValidAfter] = h.Digest
		if h.ValidAfter.Before(l.last[a.name]) {
			l.faults = append(l.faults, fmt.Sprintf("%s went back from %v to %v", a.name, l.last[a.name], h.ValidAfter))
		}
		l.last[a.name] = h.ValidAfter
	}
}

// watch looks until the test ends.
func watch(t *testing.T, f *field) *line {
	l := &line{digests: map[time.Time]cert.Digest{}, last: map[string]time.Time{}}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				l.look(f)
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		wg.Wait()
		for _, fault := range l.faults {
			t.Error(fault)
		}
		t.Logf("%d consensuses were seen, in one line", len(l.digests))
	})
	return l
}

// The network falls into two halves that cannot reach each other, one of which has a quorum of
// authorities, and is mended.
func TestPartitionHeals(t *testing.T) {
	proof(t)
	nft := need(t, "nft")
	if !ownNetwork(t) {
		return
	}
	rules := func(text string) {
		t.Helper()
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, code := finish(t, 20*time.Second, cmd); code != 0 {
			lacking(t, "nft makes no rules here: %s", out)
		}
	}
	rules("table inet e2e { }\n")
	const interval = 10 * time.Second
	f := newField(t, plan{authorities: 4, relays: 8, parameters: directory.Parameters{directory.IntervalMillis: interval.Milliseconds()}})
	f.startAll(t)
	f.agree(t, 4*interval, f.listsAll())
	c := f.client(t, 20*time.Second)
	watch(t, f)

	authorities, relays := f.parts("authority"), f.parts("relay")
	large := slices.Concat(authorities[:3], relays[:4])
	small := slices.Concat(authorities[3:], relays[4:])
	hosts := func(nodes []*actor) string {
		var out []string
		for _, a := range nodes {
			host, _, _ := strings.Cut(a.addr, ":")
			out = append(out, host)
		}
		return "{ " + strings.Join(out, ", ") + " }"
	}
	rules(fmt.Sprintf("table inet e2e {\nchain parted {\ntype filter hook input priority 0;\nip saddr %s ip daddr %s drop;\nip saddr %s ip daddr %s drop;\n}\n}\n",
		hosts(large), hosts(small), hosts(small), hosts(large)))
	begun := time.Now()
	within(t, 12*interval, "the half with the quorum goes on alone", func() bool {
		return !slices.ContainsFunc(large, func(a *actor) bool { return f.consensus(a) == nil || lists(relays[:4])(f.consensus(a)) != nil })
	})
	t.Logf("the half with the quorum listed only its own relays %v after the partition", time.Since(begun).Round(time.Millisecond))
	time.Sleep(interval)
	for _, a := range small {
		if x := f.consensus(a); x == nil || x.Head.ValidAfter.After(begun.Add(interval)) {
			t.Errorf("%s, which is cut off from the quorum, has a consensus made after that", a.name)
		}
	}

	// At any moment: nothing is to depend on where in an interval it is mended.
	time.Sleep(rand.N(interval))
	rules("delete chain inet e2e parted\n")
	healed := time.Now()
	into := healed.Sub(healed.Truncate(interval))
	var back, same time.Duration
	within(t, 4*interval, "all relays are listed again, everywhere", func() bool {
		if back == 0 && lists(relays)(f.consensus(large[0])) == nil {
			back = time.Since(healed)
		}
		return !slices.ContainsFunc(append(large, small...), func(a *actor) bool { return lists(relays)(f.consensus(a)) != nil })
	})
	same = time.Since(healed)
	t.Logf("mended %v into an interval; all relays were listed again %v after that, and all nodes had that consensus after %v", into.Round(time.Millisecond), back.Round(time.Millisecond), same.Round(time.Millisecond))
	if back > interval {
		t.Errorf("all relays were listed again %v after healing, the limit is an interval: %v", back, interval)
	}
	took := f.agree(t, 4*interval, f.listsAll())
	t.Logf("all agreed after %v more", took.Round(time.Millisecond))
	for _, a := range f.parts("authority", "relay", "client") {
		if n := a.count("directory_forks"); n != 0 {
			t.Errorf("%s has seen %d forks", a.name, n)
		}
	}
	f.flows(t, c)
}
