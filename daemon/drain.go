package daemon

import (
	"context"
	"time"
)

// defaultDrain is how long a relay waits for its circuits, outside of test networks.
const defaultDrain = 30 * time.Second

// drainTime is how long the relay waits for its circuits.
func (r *Relay) drainTime() time.Duration {
	r.mu.Lock()
	text := r.config.Drain
	r.mu.Unlock()
	switch d, err := time.ParseDuration(text); {
	case r.only:
		return 0 // nobody's traffic goes through it
	case text != "" && err == nil:
		return d
	case r.network.Test:
		return 0
	}
	return defaultDrain
}

// Drain tells the network that the relay leaves, takes no new circuits, and waits until the last has gone, until the
// time of the settings is over, or ctx ends. Stop follows.
func (r *Relay) Drain(ctx context.Context) {
	limit := r.drainTime()
	if limit <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	circuits := int64(0)
	if r.loop.Do(ctx, func() { r.node.Drain(); circuits = r.node.Carrying() }) != nil {
		return
	}
	if circuits > 0 {
		r.options.Log.Info("leaving: no new circuits, waiting for circuits and streams to end", "left", circuits, "at_most", limit)
		r.onProgress(0, "leaving", "its circuits to end, at most "+limit.String())
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for circuits > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.options.Log.Info("leaving: circuits and streams are cut", "left", circuits)
			return
		case <-r.loop.Done():
			return
		}
		if r.loop.Do(ctx, func() { circuits = r.node.Carrying() }) != nil {
			return
		}
	}
}
