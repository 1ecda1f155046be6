package socks

import (
	"errors"
	"sync"
	"time"
)

// Lines about requests that failed: so many at once, and then one in each interval.
const (
	failureBurst    = 20
	failureInterval = 5 * time.Second
)

// failureLog is a token bucket for those lines. An application can fail thousands of times a second.
type failureLog struct {
	mu      sync.Mutex
	tokens  int
	last    time.Time // that a token was added
	omitted int
}

// due says whether a line may be written now, and how many were left out before it.
func (l *failureLog) due(now time.Time) (omitted int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.IsZero() {
		l.tokens, l.last = failureBurst, now
	}
	if n := int(now.Sub(l.last) / failureInterval); n > 0 {
		l.tokens = min(l.tokens+n, failureBurst)
		l.last = l.last.Add(time.Duration(n) * failureInterval)
	}
	if l.tokens == 0 {
		l.omitted++
		return 0, false
	}
	l.tokens--
	omitted, l.omitted = l.omitted, 0
	return omitted, true
}

// logFailure says why a request failed, without its destination.
func (c *session) logFailure(err error) { c.logWhy(explain(err)) }

// logRefusal says why a request was not even tried.
func (c *session) logRefusal(why cause) { c.logWhy(refusalText(why)) }

func (c *session) logWhy(why string) {
	omitted, ok := c.server.failureLog.due(time.Now())
	if !ok {
		return
	}
	attributes := []any{"why", why, "protocol", c.protocol.String()}
	if omitted > 0 {
		attributes = append(attributes, "not_logged_before", omitted)
	}
	c.server.log.Info("a request failed", attributes...)
}

// explain is the text of a failure that names no destination.
func explain(err error) string {
	var e *Error
	if errors.As(err, &e) && e != nil && e.Scrubbed != "" {
		return e.Scrubbed
	}
	return reasonOf(err).String()
}

// refusalText says why a request was not tried, and what to do.
func refusalText(why cause) string {
	switch why {
	case causeDestination:
		return "the destination is no name or address that can be connected to, or its port is 0"
	case causeCommand:
		return "the command is not supported: only CONNECT and look-ups are; UDP and incoming connections do not go through the network"
	case causeAddressType:
		return "the type of the address is not one that SOCKS5 has"
	case causeMalformed:
		return "the request breaks the rules of its protocol"
	case causeLimit:
		return "too many connections at once; close some, or try again later"
	}
	return causeNames[why]
}
