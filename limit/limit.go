// Package limit holds token buckets by key: how often a neighbour, a client's prefix or a
// kind of log line may do something.
//
// It knows no clock and no keys of its own: packages relay and directory say what is counted
// and when. A Buckets belongs to one goroutine at a time.
package limit

import "cepa/env"

// Rate is how fast a bucket fills, in tokens a second, and how many it holds.
type Rate struct{ PerSecond, Burst float64 }

// Bucket is what is left of one budget. The zero Bucket is not full: see Rate.Full.
type Bucket struct {
	tokens float64
	at     env.Mono
}

// Full is a bucket that holds all it can at a time.
func (r Rate) Full(now env.Mono) Bucket { return Bucket{tokens: r.Burst, at: now} }

// Take spends n tokens of k if it holds at least one, and says whether it did. It may go into
// debt, since the size of an answer is known only when it is there.
func (r Rate) Take(k *Bucket, n float64, now env.Mono) bool {
	*k = Bucket{tokens: r.tokens(*k, now), at: now}
	if k.tokens < 1 {
		return false
	}
	k.tokens -= n
	return true
}

func (r Rate) tokens(k Bucket, now env.Mono) float64 {
	return min(r.Burst, k.tokens+r.PerSecond*now.Sub(k.at).Seconds())
}

// Buckets are token buckets by key, all of one Rate. A bucket that is full again is forgotten,
// so a table holds only the keys that were active within the time that an empty one takes to
// fill.
type Buckets struct {
	Rate  Rate // may be changed; what buckets hold is then counted by the new one
	most  int
	table map[string]Bucket
	swept env.Mono
}

// NewBuckets returns buckets that hold burst tokens and gain rate a second. It keeps at most
// `most` of them; when more keys are active, new ones share one bucket besides.
func NewBuckets(rate, burst float64, most int) Buckets {
	return Buckets{Rate: Rate{rate, burst}, most: most, table: make(map[string]Bucket)}
}

// Take spends n tokens of key's bucket, see Rate.Take.
func (b *Buckets) Take(key string, n float64, now env.Mono) bool {
	b.sweep(now)
	k, ok := b.table[key]
	if !ok && len(b.table) >= b.most {
		key = ""
		k, ok = b.table[key]
	}
	if !ok {
		k = b.Rate.Full(now)
	}
	enough := b.Rate.Take(&k, n, now)
	b.table[key] = k
	return enough
}

// Len is the number of keys that are remembered.
func (b *Buckets) Len() int { return len(b.table) }

// sweep drops full buckets, once in the time that an empty one takes to fill.
func (b *Buckets) sweep(now env.Mono) {
	if now.Sub(b.swept).Seconds() < b.Rate.Burst/b.Rate.PerSecond {
		return
	}
	b.swept = now
	for key, k := range b.table { // order: deletes only
		if b.Rate.tokens(k, now) >= b.Rate.Burst {
			delete(b.table, key)
		}
	}
}
