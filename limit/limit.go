// Package limit holds token buckets by key: how often a neighbour, a client's prefix or a
// kind of log line may do something.
//
// It knows no clock and no keys of its own: packages relay and directory say what is counted
// and when. A Buckets belongs to one goroutine at a time.
package limit

import "cepa/env"

// Buckets are token buckets by key, all with one rate and one size. A bucket that is full
// again is forgotten, so a table holds only the keys that were active within burst/rate.
type Buckets struct {
	rate, burst float64
	most        int
	table       map[string]bucket
	swept       env.Mono
}

type bucket struct {
	tokens float64
	at     env.Mono
}

// NewBuckets returns buckets that hold burst tokens and gain rate a second. It keeps at most
// `most` of them; when more keys are active, new ones share one bucket besides.
func NewBuckets(rate, burst float64, most int) Buckets {
	return Buckets{rate: rate, burst: burst, most: most, table: make(map[string]bucket)}
}

// Take spends n tokens of key's bucket if it holds at least one, and says whether it did. It
// may go into debt, since the size of an answer is known only when it is there.
func (b *Buckets) Take(key string, n float64, now env.Mono) bool {
	b.sweep(now)
	k, ok := b.table[key]
	if !ok && len(b.table) >= b.most {
		key = ""
		k, ok = b.table[key]
	}
	if !ok {
		k = bucket{tokens: b.burst, at: now}
	}
	k.tokens, k.at = b.fill(k, now), now
	enough := k.tokens >= 1
	if enough {
		k.tokens -= n
	}
	b.table[key] = k
	return enough
}

// Len is the number of keys that are remembered.
func (b *Buckets) Len() int { return len(b.table) }

func (b *Buckets) fill(k bucket, now env.Mono) float64 {
	return min(b.burst, k.tokens+b.rate*now.Sub(k.at).Seconds())
}

// sweep drops full buckets, once in the time that an empty one takes to fill.
func (b *Buckets) sweep(now env.Mono) {
	if now.Sub(b.swept).Seconds() < b.burst/b.rate {
		return
	}
	b.swept = now
	for key, k := range b.table { // order: deletes only
		if b.fill(k, now) >= b.burst {
			delete(b.table, key)
		}
	}
}
