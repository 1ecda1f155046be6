package relay

import (
	"cepa/env"
	"cepa/ipaddr"
)

// buckets are token buckets by neighbour. A bucket that is full again is forgotten, so the
// table holds only who was active within burst/rate.
type buckets struct {
	rate, burst float64
	table       map[string]bucket
	swept       env.Mono
}

type bucket struct {
	tokens float64
	at     env.Mono
}

// maxBuckets bounds the table; with more active neighbours, new ones share one bucket.
const maxBuckets = 65536

func newBuckets(rate, burst float64) buckets {
	return buckets{rate: rate, burst: burst, table: make(map[string]bucket)}
}

// take spends one token of key's bucket, and says whether there was one.
func (b *buckets) take(key string, now env.Mono) bool {
	b.sweep(now)
	k, ok := b.table[key]
	if !ok && len(b.table) >= maxBuckets {
		key = ""
		k, ok = b.table[key]
	}
	if !ok {
		k = bucket{tokens: b.burst, at: now}
	}
	k.tokens = b.fill(k, now)
	k.at = now
	enough := k.tokens >= 1
	if enough {
		k.tokens--
	}
	b.table[key] = k
	return enough
}

func (b *buckets) fill(k bucket, now env.Mono) float64 {
	return min(b.burst, k.tokens+b.rate*now.Sub(k.at).Seconds())
}

// sweep drops full buckets, once every time that an empty one takes to fill. The order in
// which it visits them cannot be seen.
func (b *buckets) sweep(now env.Mono) {
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

// neighbourKey is what limits count by: the identity of a relay, the /24 or /48 of a client.
func neighbourKey(p *env.Peer) string {
	if !p.Client() {
		return string(p.Identity[:])
	}
	return ipaddr.Site(p.Address.Addr()).String()
}
