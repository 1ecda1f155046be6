package directory

import (
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// maxComparison is how long one relay may take before another is asked, and comparisonPause how long a comparison waits
// when as much is queued as one relay may tell of.
const (
	maxComparison   = 30 * time.Second
	comparisonPause = time.Second
)

// bucketLimit is how many digests of one bucket a relay can hold: an even share of all that a consensus may list, twice
// over for chance, and all candidates, since whoever makes those may choose their digests.
func (n *Network) bucketLimit() int {
	return min(2*(MaxRelays+1)/Buckets+int(n.Limit(Candidates)), maxBucketDigests)
}

// onReconcile compares what is held with a random relay, and fetches what is missing here.
func (a *Agent) onReconcile() {
	every := a.network.millis(ReconcileMillis)
	a.reconciling.Reset(every - every/8 + a.randomTime(every/4))
	now := a.env.Clock.Now()
	to, ok := a.partner()
	if !ok || a.comparing && now.Sub(a.compared) < maxComparison {
		return
	}
	a.comparing, a.compared = true, now
	fetch(a.cfg.Fetcher, to, Request{Kind: AskSummary}, SummarySize, func(status Status, body []byte, err error) {
		var theirs Summary
		if err == nil && status == StatusOK {
			theirs, err = DecodeSummary(body)
		}
		if err != nil || status != StatusOK || !a.running {
			a.log.Debug("no summary", "relay", to.Identity.Short(), "status", status, "err", err)
			a.endComparison(now)
			return
		}
		differing := theirs.Differing(a.store.sum())
		for i := len(differing) - 1; i > 0; i-- {
			j := a.random(i + 1)
			differing[i], differing[j] = differing[j], differing[i]
		}
		if len(a.store.entries) > Buckets { // else it is a beginner, who wants all
			differing = differing[:min(len(differing), maxRelayBuckets)]
		}
		a.compareBuckets(now, to, differing)
	})
}

// endComparison lets the next one begin.
func (a *Agent) endComparison(session env.Mono) {
	if session == a.compared {
		a.comparing = false
	}
}

// compareBuckets asks for the digests of one bucket after the other.
func (a *Agent) compareBuckets(session env.Mono, with env.Target, buckets []int) {
	if !a.running || session != a.compared || a.env.Clock.Now().Sub(session) > maxComparison {
		a.endComparison(session)
		return
	}
	if len(buckets) == 0 {
		a.stats.Reconciled++
		a.endComparison(session)
		return
	}
	bucket := buckets[0]
	fetch(a.cfg.Fetcher, with, Request{Kind: AskBucket, Bucket: bucket}, 32*a.network.bucketLimit(), func(status Status, body []byte, err error) {
		var digests []cert.Digest
		if err == nil && status == StatusOK {
			digests, err = DecodeDigests(body, bucket)
		}
		if err != nil || status != StatusOK {
			a.log.Debug("no digests", "relay", with.Identity.Short(), "status", status, "err", err)
			a.endComparison(session)
			return
		}
		for _, d := range digests {
			if a.pulls.full(with.Identity) {
				// The rest of this bucket and the others come when some of that has been fetched.
				a.env.Clock.AfterFunc(comparisonPause, func() { a.compareBuckets(session, with, buckets) })
				return
			}
			if _, held := a.store.digests[d]; !held {
				a.pull(&pull{digest: d, from: with.Identity, sources: []env.Target{with}})
			}
		}
		a.compareBuckets(session, with, buckets[1:])
	})
}

// partner draws a relay to compare with: of the consensus, or else of the network file. It never asks who is merely
// known by rumour: whoever could fill the store could then choose what a relay hears.
func (a *Agent) partner() (env.Target, bool) {
	var all []env.Target
	if c := a.cfg.Follower.Current(); c != nil {
		for range 4 { // this relay is one of them
			r := &c.Relays[a.random(len(c.Relays))]
			if r.Identity != a.cfg.Identity {
				return env.Target{Identity: r.Identity, Addresses: slices.Clone(r.Addresses)}, true
			}
		}
	}
	for _, t := range slices.Concat(targetsOf(a.network.Bootstrap), targetsOf(a.network.Authorities)) {
		if t.Identity != a.cfg.Identity {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return env.Target{}, false
	}
	return all[a.random(len(all))], true
}
