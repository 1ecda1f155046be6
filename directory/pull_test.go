package directory

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// checkPulls checks that the indices of the pulls agree with the queue.
func checkPulls(t *testing.T, q *pulls) {
	t.Helper()
	told := make(map[cert.Identity]int)
	known := 0
	for i, p := range q.queue {
		if p.at != i || q.wanted[p.digest] != p {
			t.Fatalf("the pull at %d is not where the index says", i)
		}
		told[p.from]++
		if q.news[p.identity] == p {
			known++
		}
	}
	if fmt.Sprint(told) != fmt.Sprint(q.told) || known != len(q.news) || len(q.wanted) != len(q.queue)+q.open {
		t.Fatalf("%d queued, %d running: %d wanted, %d of known relays, counted by source %v, want %v",
			len(q.queue), q.open, len(q.wanted), len(q.news), q.told, told)
	}
}

// strangeDigests are digests of nothing, in one bucket, ascending.
func strangeDigests(bucket, n int) (b []byte) {
	for i := range n {
		var d cert.Digest
		d[0] = byte(bucket << 2)
		binary.BigEndian.PutUint32(d[1:], uint32(i+1))
		b = append(b, d[:]...)
	}
	return b
}

// compareWith makes relay 1 of a world of two compare itself with relay 0, which answers as a test says, and not at all
// where that says nil.
func compareWith(t *testing.T, serve func(q Request) []byte) *world {
	w := newWorld(t, 21, 2, func(n *Network) { n.Parameters[MinRelays] = 2 })
	w.startAll()
	w.until(4*time.Second, "a consensus", func() bool { return w.members[1].lists(w.members...) })
	w.serve[testIdentity(0)] = func(q Request, from *env.Peer) ([]byte, error) {
		if answer := serve(q); answer != nil {
			return answer, nil
		}
		return nil, errSilence
	}
	return w
}

// TestHostileBucketsCostLittle protects the loop from a partner that claims to hold what does not exist: it queues no more
// than one relay may, and looks at no more once that is full.
func TestHostileBucketsCostLittle(t *testing.T) {
	t.Parallel()
	const claimed = 5000
	asked := 0
	w := compareWith(t, func(q Request) []byte {
		switch q.Kind {
		case AskSketch: // a relay that does not know sketches
			return AppendAnswer(nil, StatusBadRequest, nil)
		case AskSummary:
			return AppendAnswer(nil, StatusOK, make([]byte, SummarySize))
		case AskBucket:
			asked++
			return AppendAnswer(nil, StatusOK, strangeDigests(q.Bucket, claimed))
		}
		return nil // no descriptor ever comes
	})
	a := w.members[1].agent
	limited := a.stats.LimitedRumours
	w.f.Run(20 * time.Second)
	if asked == 0 || asked > 25 {
		t.Errorf("asked for %d buckets in 20 seconds", asked)
	}
	if n := len(a.pulls.queue); n > maxPullsFrom || n < maxPullsFrom/2 {
		t.Errorf("%d queued that one relay told of", n)
	}
	if n := a.stats.LimitedRumours - limited; n > 0 {
		t.Errorf("%d digests were looked at in vain", n)
	}
	checkPulls(t, &a.pulls)
	best := time.Hour       // of several: others use the machine as well
	for bucket := range 8 { // the costliest event: the queue fills
		a.pulls.clear()
		partner := testIdentity(0)
		digests := must[[]cert.Digest](t)(DecodeDigests(strangeDigests(bucket, claimed), bucket))
		w.f.Do(func() {
			began := time.Now()
			for _, d := range digests {
				a.pull(&pull{digest: d, from: partner})
			}
			best = min(best, time.Since(began))
		})
	}
	t.Logf("%d digests: %v", claimed, best)
	if best > 50*time.Millisecond { // 1 ms; scans of the queue took hundreds
		t.Errorf("%d digests hold the loop for %v", claimed, best)
	}
}

func TestLargerBucketThanCanBeIsRefused(t *testing.T) {
	t.Parallel()
	w := compareWith(t, func(q Request) []byte {
		switch q.Kind {
		case AskSketch: // a relay that does not know sketches
			return AppendAnswer(nil, StatusBadRequest, nil)
		case AskSummary:
			return AppendAnswer(nil, StatusOK, make([]byte, SummarySize))
		case AskBucket:
			return AppendAnswer(nil, StatusOK, strangeDigests(q.Bucket, 2*(MaxRelays+1)/Buckets+4096+1))
		}
		return nil
	})
	pulls := w.members[1].agent.stats.Pulls
	w.f.Run(10 * time.Second)
	if s := w.members[1].agent.Stats(); s.Pulling > 0 || s.Pulls > pulls {
		t.Errorf("%d descriptors are wanted, %d were asked for", s.Pulling, s.Pulls-pulls)
	}
}

// TestBeginnerLearnsMoreThanTheQueueHolds: the bound on what one relay may tell of delays a comparison, but does not end it.
func TestBeginnerLearnsMoreThanTheQueueHolds(t *testing.T) {
	t.Parallel()
	const relays = 3 * maxPullsFrom
	w := newWorld(t, 22, 2, func(n *Network) { n.Parameters[ReconcileMillis] = 60_000 })
	w.members[0].start()
	for i := range relays {
		sealed, _, d := rumourOf(t, w.network, 100+i, testNow, nil)
		w.members[0].agent.take(&entry{Descriptor: d, sealed: sealed})
	}
	w.members[1].start()
	w.until(50*time.Second, "all descriptors within one comparison", func() bool { return len(w.members[1].agent.store.entries) >= relays })
	if n := w.asked[AskSketch]; n > 16 || n < 3 {
		t.Errorf("it took %d requests for symbols", n)
	}
}

// TestPullsKeepTheirIndices mixes all ways in and out of the queue.
func TestPullsKeepTheirIndices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 23, 2, nil)
	w.members[1].start()
	w.f.Run(time.Second)
	a := w.members[1].agent
	host := []netip.AddrPort{addr("60.0.0.1:443")}
	for i := range 4000 {
		p := &pull{digest: cert.Digest{1, byte(i >> 5), byte(i % 97)}, from: testIdentity(10 + i%7),
			sources: []env.Target{{Identity: testIdentity(500 + i%3), Addresses: host}}}
		if i%2 == 0 {
			p.identity = cert.Identity{2, byte(i % 251)}
		}
		w.f.Do(func() { a.pull(p) })
		if i%50 == 0 {
			checkPulls(t, &a.pulls)
			w.f.Run(3 * time.Millisecond)
		}
	}
	if len(a.pulls.queue) < 100 {
		t.Errorf("only %d in the queue", len(a.pulls.queue))
	}
	w.until(time.Minute, "the end of all", func() bool { return a.Stats().Pulling == 0 })
	checkPulls(t, &a.pulls)
	w.f.Do(func() {
		for i := range 40 {
			a.pull(&pull{digest: cert.Digest{9, byte(i)}, from: testIdentity(10), sources: []env.Target{{Identity: testIdentity(500), Addresses: host}}})
		}
		a.Stop()
	})
	w.f.Run(time.Second)
	checkPulls(t, &a.pulls)
	if n := a.Stats().Pulling; n > 0 {
		t.Errorf("%d after the end", n)
	}
}
