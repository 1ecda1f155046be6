package simnet

import (
	"time"

	"cepa/env"
)

// congestion is TCP's judgement of how much may be under way: slow start that ends before it overflows
// a queue (HyStart), and CUBIC (RFC 9438), with the constants of Linux. All of it is in integers,
// so that it is the same on every machine.
type congestion struct {
	window int // bytes
	limit  int // of slow start

	// Slow start. A round is what was under way when it began.
	least    time.Duration // round trip so far; 0 before the first
	lowest   time.Duration // of this round
	roundAt  env.Mono
	roundEnd int64 // of all bytes sent, those whose acknowledgement ends it
	samples  int   // bytes acknowledged in it
	lastAck  env.Mono
	acked    int64 // of all bytes sent
	mended   int64 // of these, those that were under way when something was lost

	// CUBIC.
	most   int           // the window in which something was lost last; 0 before
	epoch  env.Mono      // since when it grows on this curve; 0 when it has not begun
	origin int           // the plateau of the curve, and …
	rise   time.Duration // … when it is reached
	friend int           // the window that Reno would have
}

const (
	trainGap     = 2 * time.Millisecond // between acknowledgements of two segments each that follow each other
	trainSlack   = time.Millisecond
	delayLeast   = 4 * time.Millisecond // growth of a round trip that ends slow start: an eighth of it, …
	delayMost    = 16 * time.Millisecond
	delaySamples = 8 * segmentMSS
	hystartFrom  = 16 * segmentMSS
	curveMost    = 100 * time.Second // of a curve; so late that nothing is as it was
)

// begin is a connection's beginning.
func (c *congestion) begin() { c.window, c.limit = windowStart, windowMost }

// onAck is n more bytes that have arrived; sent is how many were sent in all, and trip what the first packet
// of these took there and back. limited says that the window was what held the sender back.
func (c *congestion) onAck(now env.Mono, n int, sent int64, trip time.Duration, limited bool) {
	c.acked += int64(n)
	if c.least == 0 || trip < c.least {
		c.least = trip
	}
	if c.acked > c.roundEnd {
		c.roundAt, c.lastAck, c.roundEnd, c.lowest, c.samples = now, now, sent, trip, 0
	}
	if c.acked <= c.mended {
		return // what was lost is being sent again
	}
	if c.window < c.limit {
		if c.window >= hystartFrom {
			c.judge(now, n, trip)
		}
		if limited && c.window < c.limit {
			c.window = min(c.window+n, c.limit, windowMost)
		}
		return
	}
	if limited {
		c.window = min(c.window+c.growth(now, n), windowMost)
	}
}

// judge ends slow start when acknowledgements that follow each other take half a round trip, which says that so
// much fills the path, or when the round trips of a round have all become longer, which says that a queue does.
func (c *congestion) judge(now env.Mono, n int, trip time.Duration) {
	// A segment stands for many packets, of which every second is acknowledged.
	pairs := max(1, (n+2*segmentMSS-1)/(2*segmentMSS))
	if now.Sub(c.lastAck) <= time.Duration(pairs)*trainGap {
		c.lastAck = now
		if now.Sub(c.roundAt) > (c.least+trainSlack)/2 {
			c.limit = c.window
			return
		}
	}
	c.lowest = min(c.lowest, trip)
	if c.samples += n; c.samples >= delaySamples && c.lowest > c.least+min(max(c.least/8, delayLeast), delayMost) {
		c.limit = c.window
	}
}

// growth is by how much the window grows for n bytes.
func (c *congestion) growth(now env.Mono, n int) int {
	if c.epoch == 0 {
		c.epoch, c.friend, c.origin, c.rise = now, c.window, c.window, 0
		if c.window < c.most {
			// 0.4 segments times the third power of the seconds.
			c.origin, c.rise = c.most, time.Duration(cubeRoot(int64(c.most-c.window)*2_500_000_000/segmentMSS))*time.Millisecond
		}
	}
	off := (min(now.Sub(c.epoch), curveMost) + c.least - c.rise).Milliseconds()
	target := c.origin + int(segmentMSS*off*off/100_000*off/25_000)
	grown := n * segmentMSS / (100 * c.window)
	if target > c.window {
		grown = n * min(target-c.window, c.window/2) / c.window
	}
	if c.most == 0 {
		grown = max(grown, n/20)
	}
	c.friend += n * 8 * segmentMSS / (15 * c.window)
	if c.friend > c.window {
		grown = max(grown, n*min(c.friend-c.window, c.window/2)/c.window)
	}
	return grown
}

// onLoss is n bytes of which some were lost. The window shrinks once for all that was under way then.
func (c *congestion) onLoss(n int, sent int64) {
	if c.acked += int64(n); c.acked <= c.mended {
		return
	}
	c.mended, c.epoch = sent, 0
	if c.window < c.most { // it makes room for others
		c.most = c.window * 1741 / 2048
	} else {
		c.most = c.window
	}
	c.window = max(c.window*717/1024, windowLeast)
	c.limit = c.window
}

// onTimeout is when nothing came back for long.
func (c *congestion) onTimeout() { c.window, c.epoch = windowStart, 0 }

// onIdle is a pause in which nothing was under way: what the window has grown is taken back, half of it each
// timeout.
func (c *congestion) onIdle(idle, timeout time.Duration) {
	if c.epoch > 0 {
		c.epoch = c.epoch.Add(idle)
	}
	for ; idle > timeout && c.window > windowStart; idle -= timeout {
		c.limit = max(c.limit, c.window*3/4)
		c.window = max(c.window/2, windowStart)
	}
}

// cubeRoot is the largest number whose third power is at most n.
func cubeRoot(n int64) int64 {
	low, high := int64(0), int64(2_000_000)
	for low < high {
		if mid := (low + high + 1) / 2; mid*mid*mid <= n {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}
