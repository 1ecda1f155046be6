package flow

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"cepa/cell"
	"cepa/env"
)

// Budget is the one memory budget of a node, in bytes: queued cells, stream buffers, bytes
// waiting in exit connections. It belongs to the node's actor.
//
// What is over the limit stays where it is until the event that put it there is done; then
// the holders of the most bytes for the longest time lose them, down to three quarters.
type Budget struct {
	limit, used int
	streams     int // bytes of used that streams cost by being there; nobody can take these back
	in, out     int // live legs opened by neighbours and by this node
	reserve     int // bytes that a leg's queue can always take
	grown       int // bytes that windows of streams have beyond their first size
	over        bool
	kick        func() // has reclaim called, in an event or at the top of this one
	holders     []holder
	chunks      *chunk
	freeChunks  int
	messages    []cell.Message // scratch of OnPayload
	defect      Defect
	rules       *Rules // nil but in simulations
}

// holder is a part of the node that holds bytes of the budget.
type holder interface {
	held() int
	// victims appends what could be taken from the holder.
	victims(dst []victim, now env.Mono) []victim
	slot() *int // where the holder keeps its place in Budget.holders
	// sound verifies windows, beyond what is held.
	sound() error
}

// victim is one circuit's queue or one stream.
type victim struct {
	of    interface{ evict() }
	bytes int
	age   time.Duration // for how long its oldest byte has waited: as long as it takes to drain
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int) *Budget { return &Budget{limit: limit} }

// Used returns the bytes held now. It exceeds Limit at most until the end of an event.
func (b *Budget) Used() int { return b.used }

// Limit returns the limit in bytes.
func (b *Budget) Limit() int { return b.limit }

func (b *Budget) add(n int) {
	b.used += n
	if b.used > b.limit && !b.over {
		b.over = true
		if b.kick != nil {
			b.kick()
		}
	}
}

func (b *Budget) sub(n int) { b.used -= n }

// addStream and subStream count what one stream costs by being there.
func (b *Budget) addStream() { b.streams += streamCost; b.add(streamCost) }
func (b *Budget) subStream() { b.streams -= streamCost; b.sub(streamCost) }

// takesStream reports whether there is room for one more stream that a neighbour opens. All
// streams get a quarter of the budget, so that those who open many and send nothing cannot
// push out what others have in queues.
func (b *Budget) takesStream() bool { return b.streams+streamCost <= b.limit/4 }

// free returns the bytes that are neither used nor promised to the reserve of a live leg.
func (b *Budget) free() int { return max(b.limit-b.used-b.reserved(b.in, b.out), 0) }

// reserved returns the bytes of reserve that so many legs need. A circuit through a relay
// has one leg that a neighbour opened and, once extended, one that the relay opened; each
// leg has a queue filled from it.
func (b *Budget) reserved(in, out int) int { return 2*max(in, out)*b.reserve + in*legCost }

// admits reports whether the reserve of so many more legs fits.
func (b *Budget) admits(in, out int) bool { return b.reserved(b.in+in, b.out+out) <= b.limit }

// most returns how many legs that neighbours open it can admit.
func (b *Budget) most() int { return b.limit / max(b.reserved(1, 0), 1) }

func (b *Budget) register(h holder) {
	*h.slot() = len(b.holders)
	b.holders = append(b.holders, h)
}

func (b *Budget) unregister(h holder) {
	i, last := *h.slot(), len(b.holders)-1
	b.holders[i] = b.holders[last]
	*b.holders[i].slot() = i
	b.holders[last] = nil
	b.holders = b.holders[:last]
}

// reclaim takes bytes from those who hold the most for the longest, until a quarter of what
// queues and buffers may have is free: less would leave the pressure on for good. Called at the top of an event only.
func (b *Budget) reclaim(now env.Mono) {
	if !b.over {
		return
	}
	if b.used > b.limit {
		var all []victim
		for _, h := range b.holders {
			all = h.victims(all, now)
		}
		slices.SortStableFunc(all, func(x, y victim) int { return cmp.Compare(y.cost(), x.cost()) })
		for _, v := range all {
			if b.used-b.streams <= (b.limit-b.streams)/4*3 {
				break
			}
			v.of.evict()
		}
	}
	b.over = false
}

func (v victim) cost() uint64 { return uint64(v.bytes) * uint64(max(v.age.Milliseconds(), 0)+1) }

// Check verifies that the bytes that all parts of the node hold add up to Used, and that every
// window of a stream or circuit is with the peer, in what this end holds, or to be returned. It is for
// tests, and takes time proportional to all that is held.
func (b *Budget) Check() error {
	sum := 0
	for _, h := range b.holders {
		sum += h.held()
		if err := h.sound(); err != nil {
			return err
		}
	}
	if sum != b.used {
		return fmt.Errorf("budget: %d bytes are held, %d are accounted for", sum, b.used)
	}
	return nil
}
