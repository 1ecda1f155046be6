package directory

import (
	"log/slog"
	"net/netip"

	"cepa/env"
)

// buckets are token buckets by key. A bucket that is full again is forgotten, so the table holds only those who were
// active within burst/rate.
type buckets struct {
	rate, burst float64 // tokens a second, tokens
	table       map[string]bucket
	swept       env.Mono
}

type bucket struct {
	tokens float64
	at     env.Mono
}

// maxBuckets bounds a table; with more active keys, new ones share one bucket.
const maxBuckets = 16384

func newBuckets(rate, burst float64) buckets {
	return buckets{rate: rate, burst: burst, table: make(map[string]bucket)}
}

// take spends n tokens of key's bucket if there is at least one, and says whether there was. It may go into debt: the
// size of an answer is known only when it is there.
func (b *buckets) take(key string, n float64, now env.Mono) bool {
	b.sweep(now)
	k, ok := b.table[key]
	if !ok && len(b.table) >= maxBuckets {
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

func (b *buckets) fill(k bucket, now env.Mono) float64 {
	return min(b.burst, k.tokens+b.rate*now.Sub(k.at).Seconds())
}

// sweep drops full buckets, once every time that an empty one takes to fill.
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

// site is what usually belongs to one customer: the /24 of an IPv4 address, the /48 of an IPv6 one.
func site(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // fails for the zero address only, which then shares a site with its like
	return p
}

// provider is the /32 of an IPv6 address, which usually belongs to one provider and is easily had; invalid for IPv4.
func provider(a netip.Addr) netip.Prefix {
	if a.Unmap().Is4() {
		return netip.Prefix{}
	}
	p, _ := a.WithZone("").Prefix(32)
	return p
}

// complaints is a log for what others do wrong: a line of one kind every ten seconds, with a burst of five, and the
// number of those that were left out.
type complaints struct {
	log     *slog.Logger
	clock   env.Clock
	lines   buckets
	dropped map[string]int
}

func newComplaints(e env.Env) complaints {
	return complaints{log: e.Log, clock: e.Clock, lines: newBuckets(0.1, 5), dropped: make(map[string]int)}
}

// warn logs a message, whose text is also its kind: it is constant.
func (c *complaints) warn(message string, args ...any) {
	if !c.lines.take(message, 1, c.clock.Now()) {
		c.dropped[message]++
		return
	}
	if n := c.dropped[message]; n > 0 {
		args = append(args, "left_out", n)
		delete(c.dropped, message)
	}
	c.log.Warn(message, args...)
}
