package link

import (
	"sync"
	"time"
)

// complaints keeps warnings that a stranger can cause to one a minute each.
type complaints struct {
	mu      sync.Mutex
	last    map[string]time.Time
	skipped map[string]int
}

const complaintInterval = time.Minute

// complain logs a warning, unless the same was logged within the last minute. The messages are constants, so there
// are few. It says nothing about who caused it.
func (t *Transport) complain(message string, args ...any) {
	c := &t.complaints
	now := time.Now()
	c.mu.Lock()
	if c.last == nil {
		c.last, c.skipped = make(map[string]time.Time), make(map[string]int)
	}
	if last, ok := c.last[message]; ok && now.Sub(last) < complaintInterval {
		c.skipped[message]++
		c.mu.Unlock()
		return
	}
	skipped := c.skipped[message]
	c.last[message], c.skipped[message] = now, 0
	c.mu.Unlock()
	if skipped > 0 {
		args = append(args, "suppressed", skipped)
	}
	t.cfg.Log.Warn(message, args...)
}
