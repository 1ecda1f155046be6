package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// One message, whatever its values, is written at most repeatsMost times in repeatsWindow; then it is counted, and at
// the end of the window one line says how many were left out. repeatsKinds bounds the messages that are told apart;
// more of them share one count.
const (
	repeatsMost   = 30
	repeatsWindow = time.Minute
	repeatsKinds  = 512
)

// repeats is a slog.Handler that leaves out what comes too often.
type repeats struct {
	slog.Handler
	node  string // the attributes of With: nodes of one process are told apart
	state *repeatsState
}

type repeatsState struct {
	after func(time.Duration, func())

	mu    sync.Mutex
	kinds map[repeatsKind]*repeated
}

type repeatsKind struct {
	node, message string
	level         slog.Level
}

// repeated is what is known of a message in its window.
type repeated struct{ written, left int }

// limitRepeats wraps h. after calls a function later, as time.AfterFunc.
func limitRepeats(h slog.Handler, after func(time.Duration, func())) slog.Handler {
	return repeats{h, "", &repeatsState{after: after, kinds: make(map[repeatsKind]*repeated)}}
}

// Handle implements slog.Handler.
func (h repeats) Handle(ctx context.Context, r slog.Record) error {
	if !h.state.take(h, repeatsKind{h.node, r.Message, r.Level}) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// take says whether a message may be written, and counts it.
func (s *repeatsState) take(h repeats, k repeatsKind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.kinds[k]
	if seen == nil && len(s.kinds) >= repeatsKinds {
		k = repeatsKind{message: "messages of many kinds", level: slog.LevelWarn}
		seen = s.kinds[k]
	}
	if seen == nil {
		seen = new(repeated)
		s.kinds[k] = seen
		s.after(repeatsWindow, func() { s.end(h, k) })
	}
	if seen.written >= repeatsMost {
		seen.left++
		return false
	}
	seen.written++
	return true
}

// end closes the window of a message and says what was left out.
func (s *repeatsState) end(h repeats, k repeatsKind) {
	s.mu.Lock()
	left := s.kinds[k].left
	delete(s.kinds, k)
	s.mu.Unlock()
	if left == 0 || !h.Enabled(context.Background(), k.level) {
		return
	}
	r := slog.NewRecord(time.Now(), k.level, "left out repeats of a message", 0)
	r.AddAttrs(slog.String("message", k.message), slog.Int("times", left), slog.Int("seconds", int(repeatsWindow/time.Second)))
	_ = h.Handler.Handle(context.Background(), r)
}

// WithAttrs implements slog.Handler.
func (h repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	node := h.node
	for _, a := range attrs {
		node += " " + a.String()
	}
	return repeats{h.Handler.WithAttrs(attrs), node, h.state}
}

// WithGroup implements slog.Handler.
func (h repeats) WithGroup(name string) slog.Handler {
	return repeats{h.Handler.WithGroup(name), h.node + " " + name, h.state}
}
