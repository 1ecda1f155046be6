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

// crowded says whether the consensus lists so many relays that only authorities keep the descriptors of all. Others need
// none of a relay that the consensus lists: what they use of it stands there.
func (a *Agent) crowded() bool {
	c := a.cfg.Follower.Current()
	return c != nil && len(c.Relays) > int(a.network.Limit(FullView))
}

// keeps says whether this relay keeps the descriptor of a relay, and passes on its rumours.
func (a *Agent) keeps(id cert.Identity) bool {
	return id == a.cfg.Identity || a.network.IsAuthority(a.cfg.Identity) || !a.crowded() || a.cfg.Follower.Current().Lookup(id) == nil
}

// letGo forgets what is not kept any more.
func (a *Agent) letGo() {
	if !a.crowded() || a.network.IsAuthority(a.cfg.Identity) {
		return
	}
	for _, id := range a.store.identities() {
		if !a.keeps(id) {
			a.store.remove(id)
			a.forget(id)
		}
	}
}

// compared is the set of digests that two relays compare, ascending: of all that is held, or only of relays that the
// consensus does not list.
func (a *Agent) compared(all bool) []cert.Digest {
	if all {
		return slices.Clone(a.store.sorted)
	}
	c := a.cfg.Follower.Current()
	var out []cert.Digest
	for _, d := range a.store.sorted {
		if c == nil || c.Lookup(a.store.digests[d]) == nil {
			out = append(out, d)
		}
	}
	return out
}

// comparison is under way with one relay: it finds out what that one has and this one lacks.
//
//	asking for symbols ──enough──► pulling what is lacking ─► over
//	      │ too many, or unknown there
//	      └──► asking for the summary ─► asking for the buckets that differ, pulling ─► over
type comparison struct {
	with       env.Target
	since      env.Mono
	all        bool
	salt       uint64
	ours       []cert.Digest
	difference []symbol
}

// onReconcile compares what is held with a random relay, and fetches what is missing here.
func (a *Agent) onReconcile() {
	every := a.network.millis(ReconcileMillis)
	a.reconciling.Reset(every - every/8 + a.randomTime(every/4))
	now := a.env.Clock.Now()
	to, ok := a.partner()
	if !ok || a.comparison != nil && now.Sub(a.comparison.since) < maxComparison {
		return
	}
	all := !a.crowded() || a.network.IsAuthority(a.cfg.Identity) && a.network.IsAuthority(to.Identity)
	a.comparison = &comparison{with: to, since: now, all: all, salt: a.env.Rand.Uint64(), ours: a.compared(all)}
	a.askSymbols(a.comparison)
}

// goesOn says whether a comparison is still the one under way, and within its time.
func (a *Agent) goesOn(c *comparison) bool {
	if !a.running || c != a.comparison {
		return false
	}
	if a.env.Clock.Now().Sub(c.since) > maxComparison {
		a.endComparison(c)
		return false
	}
	return true
}

// endComparison lets the next one begin.
func (a *Agent) endComparison(c *comparison) {
	if c == a.comparison {
		a.comparison = nil
	}
}

// finish ends a comparison that found everything.
func (a *Agent) finish(c *comparison) {
	a.stats.Reconciled++
	a.endComparison(c)
}

// askSymbols asks for more of the other's sketch, as much again as there is, until it says what the other has.
func (a *Agent) askSymbols(c *comparison) {
	if !a.goesOn(c) {
		return
	}
	first := len(c.difference)
	if first >= maxSymbols {
		a.askSummary(c)
		return
	}
	count := symbolsAt(first)
	request := Request{Kind: AskSketch, Salt: c.salt, First: first, All: c.all}
	fetch(a.cfg.Fetcher, c.with, request, count*sketchSymbolSize, func(status Status, body []byte, err error) {
		if !a.goesOn(c) {
			return
		}
		var symbols []symbol
		switch {
		case err == nil && status == StatusBadRequest:
			a.askSummary(c)
			return
		case err == nil && status == StatusOK:
			symbols, err = decodeSymbols(body, count)
		}
		if err != nil || status != StatusOK {
			a.log.Debug("no sketch", "relay", c.with.Identity.Short(), "status", status, "err", err)
			a.endComparison(c)
			return
		}
		a.stats.Symbols += uint64(count)
		subtract(symbols, sketchOf(c.salt, c.ours, first, first+count))
		c.difference = append(c.difference, symbols...)
		if theirs, _, ok := decodeSketch(c.salt, c.difference); ok {
			slices.SortFunc(theirs, cert.Digest.Compare)
			a.pullAll(c, theirs, func() { a.finish(c) })
			return
		}
		a.askSymbols(c)
	})
}

// pullAll fetches what is lacking of these, and then goes on. It waits while as much is queued as one relay may tell of.
func (a *Agent) pullAll(c *comparison, digests []cert.Digest, then func()) {
	if !a.goesOn(c) {
		return
	}
	for i, d := range digests {
		if a.pulls.full(c.with.Identity) {
			a.env.Clock.AfterFunc(comparisonPause, func() { a.pullAll(c, digests[i:], then) })
			return
		}
		if _, held := a.store.digests[d]; !held {
			a.pull(&pull{digest: d, from: c.with.Identity, sources: []env.Target{c.with}})
		}
	}
	then()
}

// askSummary compares bucket by bucket, when too much differs for a sketch.
func (a *Agent) askSummary(c *comparison) {
	fetch(a.cfg.Fetcher, c.with, Request{Kind: AskSummary}, SummarySize, func(status Status, body []byte, err error) {
		if !a.goesOn(c) {
			return
		}
		var theirs Summary
		if err == nil && status == StatusOK {
			theirs, err = DecodeSummary(body)
		}
		if err != nil || status != StatusOK {
			a.log.Debug("no summary", "relay", c.with.Identity.Short(), "status", status, "err", err)
			a.endComparison(c)
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
		a.compareBuckets(c, differing)
	})
}

// compareBuckets asks for the digests of one bucket after the other.
func (a *Agent) compareBuckets(c *comparison, buckets []int) {
	if !a.goesOn(c) {
		return
	}
	if len(buckets) == 0 {
		a.finish(c)
		return
	}
	bucket := buckets[0]
	fetch(a.cfg.Fetcher, c.with, Request{Kind: AskBucket, Bucket: bucket}, 32*a.network.bucketLimit(), func(status Status, body []byte, err error) {
		if !a.goesOn(c) {
			return
		}
		var digests []cert.Digest
		if err == nil && status == StatusOK {
			digests, err = DecodeDigests(body, bucket)
		}
		if err != nil || status != StatusOK {
			a.log.Debug("no digests", "relay", c.with.Identity.Short(), "status", status, "err", err)
			a.endComparison(c)
			return
		}
		a.pullAll(c, digests, func() { a.compareBuckets(c, buckets[1:]) })
	})
}

// partner draws a relay to compare with: of the consensus, or else of the network file. It never asks who is merely
// known by rumour: whoever could fill the store could then choose what a relay hears. In a crowded network an authority
// asks another one half of the time: only that one has what it may lack.
func (a *Agent) partner() (env.Target, bool) {
	var all []env.Target
	if c := a.cfg.Follower.Current(); c != nil && !(a.crowded() && a.network.IsAuthority(a.cfg.Identity) && a.random(2) == 0) {
		for range 4 { // this relay is one of them
			r := &c.Relays[a.random(len(c.Relays))]
			if r.Identity != a.cfg.Identity {
				return env.Target{Identity: r.Identity, Addresses: slices.Clone(r.Addresses)}, true
			}
		}
	}
	contacts := slices.Concat(targetsOf(a.network.Bootstrap), targetsOf(a.network.Authorities))
	if a.crowded() {
		contacts = targetsOf(a.network.Authorities)
	}
	for _, t := range contacts {
		if t.Identity != a.cfg.Identity {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return env.Target{}, false
	}
	return all[a.random(len(all))], true
}
