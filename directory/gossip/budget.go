package gossip

import (
	"hash/maphash"
	"time"

	"cepa/directory"
	"cepa/env"
	"cepa/limit"
)

// maxBuckets bounds a table of budgets. It is above the number of links that a relay may have; should there ever be more
// neighbours, the new ones share a bucket.
const maxBuckets = 8192

// limiter is a budget for each account of neighbours (accountOf), which a new link does not fill again. It belongs to one goroutine.
type limiter struct {
	limit.Buckets
	start time.Time
}

func newLimiter(r limit.Rate, start time.Time) limiter {
	return limiter{limit.NewBuckets(r.PerSecond, r.Burst, maxBuckets), start}
}

func (l *limiter) take(account string, now time.Time) bool {
	return l.Take(account, 1, mono(l.start, now))
}

// bucket is one budget. It belongs to one goroutine.
type bucket struct {
	limit.Bucket
	rate  limit.Rate
	start time.Time
}

func newBucket(r limit.Rate, start time.Time) bucket { return bucket{r.Full(0), r, start} }

func (b *bucket) take(now time.Time) bool { return b.rate.Take(&b.Bucket, 1, mono(b.start, now)) }

func mono(start, now time.Time) env.Mono { return env.Mono(now.Sub(start)) }

// memory remembers messages for one to two minutes, so that each costs at most one verification in that time, and the
// rumours of those that verified; nil stands for the others. It keeps keyed hashes, so nobody can make a message that is
// taken for another. It belongs to one goroutine.
type memory struct {
	seed     maphash.Seed
	new, old map[uint64]*directory.Rumour
	turned   time.Time
}

const (
	memorySize = 8192 // in each of the two halves
	memoryTime = time.Minute
)

func newMemory() memory {
	return memory{seed: maphash.MakeSeed(), new: make(map[uint64]*directory.Rumour)}
}

func (m *memory) hash(a alive) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	h.Write(a.id[:])
	h.Write(a.meta)
	return h.Sum64()
}

func (m *memory) find(h uint64, now time.Time) (r *directory.Rumour, seen bool) {
	if now.Sub(m.turned) >= memoryTime || len(m.new) >= memorySize {
		m.old, m.new, m.turned = m.new, make(map[uint64]*directory.Rumour), now
	}
	if r, seen = m.new[h]; !seen {
		r, seen = m.old[h]
	}
	return r, seen
}

func (m *memory) add(h uint64, r *directory.Rumour) { m.new[h] = r }
