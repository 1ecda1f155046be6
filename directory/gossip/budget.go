package gossip

import (
	"hash/maphash"
	"time"

	"cepa/cert"
)

// Budget is a token bucket: so many a second, and so many at once.
type Budget struct{ Rate, Burst float64 }

// bucket is filled lazily; the zero value is full.
type bucket struct {
	spent float64 // tokens
	at    time.Time
}

func (b *bucket) refill(budget Budget, now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.spent = max(0, b.spent-budget.Rate*d.Seconds())
	}
	b.at = now
}

func (b *bucket) take(budget Budget, now time.Time) bool {
	b.refill(budget, now)
	if b.spent+1 > budget.Burst {
		return false
	}
	b.spent++
	return true
}

// maxBuckets bounds the table of a limiter. It is above the number of links that a relay may have; should there ever be
// more keys, the new ones share a bucket.
const maxBuckets = 8192

// limiter is a bucket for each neighbour, which a new link does not fill again. It belongs to one goroutine.
type limiter struct {
	budget Budget
	table  map[cert.Identity]bucket
	swept  time.Time
}

func newLimiter(b Budget) limiter { return limiter{budget: b, table: make(map[cert.Identity]bucket)} }

func (l *limiter) take(id cert.Identity, now time.Time) bool {
	if now.Sub(l.swept).Seconds() >= l.budget.Burst/l.budget.Rate { // an empty bucket is full again
		l.swept = now
		for id, b := range l.table {
			if b.refill(l.budget, now); b.spent == 0 {
				delete(l.table, id)
			}
		}
	}
	b, ok := l.table[id]
	if !ok && len(l.table) >= maxBuckets {
		id = cert.Identity{}
		b = l.table[id]
	}
	taken := b.take(l.budget, now)
	l.table[id] = b
	return taken
}

// memory remembers messages for one to two minutes, so that each costs at most one verification in that time. It keeps
// keyed hashes, so nobody can make a message that is taken for another. It belongs to one goroutine.
type memory struct {
	seed     maphash.Seed
	new, old map[uint64]struct{}
	turned   time.Time
}

const (
	memorySize = 8192 // in each of the two halves
	memoryTime = time.Minute
)

func newMemory() memory { return memory{seed: maphash.MakeSeed(), new: make(map[uint64]struct{})} }

func (m *memory) hash(a alive) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	h.Write(a.id[:])
	h.Write(a.meta)
	return h.Sum64()
}

func (m *memory) has(h uint64, now time.Time) bool {
	if now.Sub(m.turned) >= memoryTime || len(m.new) >= memorySize {
		m.old, m.new, m.turned = m.new, make(map[uint64]struct{}), now
	}
	_, in := m.new[h]
	if !in {
		_, in = m.old[h]
	}
	return in
}

func (m *memory) add(h uint64) { m.new[h] = struct{}{} }
