package directory

import (
	"log/slog"
	"net/netip"

	"cepa/env"
	"cepa/limit"
)

// maxBuckets bounds a table of budgets.
const maxBuckets = 16384

func newBuckets(rate, burst float64) limit.Buckets { return limit.NewBuckets(rate, burst, maxBuckets) }

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
	lines   limit.Buckets
	dropped map[string]int
}

func newComplaints(e env.Env) complaints {
	return complaints{log: e.Log, clock: e.Clock, lines: newBuckets(0.1, 5), dropped: make(map[string]int)}
}

// warn logs a message, whose text is also its kind: it is constant.
func (c *complaints) warn(message string, args ...any) {
	if !c.lines.Take(message, 1, c.clock.Now()) {
		c.dropped[message]++
		return
	}
	if n := c.dropped[message]; n > 0 {
		args = append(args, "left_out", n)
		delete(c.dropped, message)
	}
	c.log.Warn(message, args...)
}
