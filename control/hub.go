package control

import (
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what is kept and sent.
const (
	historyLength = 300       // samples
	rateOver      = 5         // samples
	logLines      = 1000      // kept, of
	logBytes      = 512 << 10 // at most
	lineBytes     = 4 << 10   // of one line
	eventQueue    = 256       // events that wait for one reader
	maxReaders    = 16        // of events
)

// The kinds of events.
const (
	EventStatus    = "status"    // Status: it has changed; the first event of a reader
	EventBandwidth = "bandwidth" // Sample, every second
	EventCircuit   = "circuit"   // Circuit, in each step of its life
	EventStream    = "stream"    // Stream, likewise
	EventLog       = "log"       // Line
	EventLost      = "lost"      // Lost; every reader gets these
)

// eventKinds are those that a reader can ask for.
var eventKinds = []string{EventStatus, EventBandwidth, EventCircuit, EventStream, EventLog}

// Event is something that happened.
type Event struct {
	Kind string
	Data any // see the kinds
}

// Hub keeps what the API tells of the past, and carries events to their readers. The node publishes to it from any
// goroutine; nothing here waits for a reader. The zero value is ready.
type Hub struct {
	wanted [5]atomic.Int32 // readers, by the place in eventKinds

	mu      sync.Mutex
	readers map[*reader]struct{}
	lines   []Line // the newest last
	kept    int    // bytes of these
	last    uint64 // number of the newest

	history        []Sample
	received, sent uint64 // totals at the last sample
	sampled        bool
	closed         bool
}

// reader is one who gets events.
type reader struct {
	kinds [5]bool
	queue chan Event
	lost  atomic.Uint64
}

func kindIndex(kind string) int {
	for i, k := range eventKinds {
		if k == kind {
			return i
		}
	}
	return -1
}

// Wanted says whether anybody reads events of a kind: making one may be saved otherwise.
func (h *Hub) Wanted(kind string) bool {
	i := kindIndex(kind)
	return i >= 0 && h.wanted[i].Load() > 0
}

// Publish gives an event to whoever wants its kind. data is not changed any more.
func (h *Hub) Publish(kind string, data any) {
	if h == nil || !h.Wanted(kind) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publish(kind, data)
}

// publish is Publish with the lock held.
func (h *Hub) publish(kind string, data any) {
	at := kindIndex(kind)
	for r := range h.readers {
		if !r.kinds[at] {
			continue
		}
		select {
		case r.queue <- Event{kind, data}:
		default:
			r.lost.Add(1)
		}
	}
}

// subscribe adds a reader of some kinds; nil when there are too many.
func (h *Hub) subscribe(kinds [5]bool) *reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.readers) >= maxReaders {
		return nil
	}
	if h.readers == nil {
		h.readers = make(map[*reader]struct{})
	}
	r := &reader{kinds: kinds, queue: make(chan Event, eventQueue)}
	h.readers[r] = struct{}{}
	for i, want := range kinds {
		if want {
			h.wanted[i].Add(1)
		}
	}
	return r
}

func (h *Hub) unsubscribe(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
	for i, want := range r.kinds {
		if want {
			h.wanted[i].Add(-1)
		}
	}
}

// Log keeps a line of the log and tells readers. A long text is cut.
func (h *Hub) Log(at time.Time, level, text string) {
	if len(text) > lineBytes {
		text = text[:lineBytes] + "…"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	line := Line{Number: h.last, Time: at.UTC().Truncate(time.Second), Level: level, Text: text}
	h.lines = append(h.lines, line)
	h.kept += len(text)
	drop := 0
	for len(h.lines)-drop > logLines || h.kept > logBytes {
		h.kept -= len(h.lines[drop].Text)
		drop++
	}
	if drop > 0 {
		h.lines = append(h.lines[:0], h.lines[drop:]...)
	}
	h.publish(EventLog, line)
}

// tail gives at most limit lines with numbers above after: the newest.
func (h *Hub) tail(after uint64, limit int) Log {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := Log{Lines: []Line{}, Last: h.last}
	if after >= h.last {
		return l
	}
	n := min(h.last-after, uint64(len(h.lines)), uint64(limit))
	l.Lines = append(l.Lines, h.lines[len(h.lines)-int(n):]...)
	l.Missed = h.last - after - n
	return l
}

// sample notes the totals of this second.
func (h *Hub) sample(at time.Time, received, sent uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sampled {
		s := Sample{At: at.UTC().Truncate(time.Second), Received: received - h.received, Sent: sent - h.sent}
		if len(h.history) == historyLength {
			h.history = append(h.history[:0], h.history[1:]...)
		}
		h.history = append(h.history, s)
		h.publish(EventBandwidth, s)
	}
	h.sampled, h.received, h.sent = true, received, sent
}

// bandwidth is what the samples say.
func (h *Hub) bandwidth() Bandwidth {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := Bandwidth{Received: h.received, Sent: h.sent, History: append([]Sample{}, h.history...)}
	recent := b.History[max(0, len(b.History)-rateOver):]
	for _, s := range recent {
		b.ReceivedRate += s.Received
		b.SentRate += s.Sent
	}
	if n := uint64(len(recent)); n > 0 {
		b.ReceivedRate, b.SentRate = b.ReceivedRate/n, b.SentRate/n
	}
	return b
}
