package simnet

import "cepa/env"

// event is something that is going to happen. It is part of what it belongs to, so that scheduling
// it allocates nothing.
type event struct {
	at   env.Mono
	seq  uint64   // its place among events of one instant; 0 when it is not pending
	slot uint64   // number of the heap's entry that stands for it; 0 when there is none
	due  env.Mono // the time in that entry, never later than at
	host *Host    // whose loop it runs on; nil when it is of the network
	life uint32   // of that host, when it was scheduled
	kind Kind
	fire func()
}

// pending reports whether the event is going to happen.
func (e *event) pending() bool { return e.seq != 0 }

// entry is an event's place in the heap. It holds what is compared, so that moving it about
// touches no event.
type entry struct {
	at  env.Mono
	seq uint64
	e   *event
}

func (a *entry) before(b *entry) bool {
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

// events is a heap with four children a node. An event that is stopped or put off leaves its entry
// behind, which is dropped, or put where it belongs, when it comes to the top: both cost nothing
// now. When most entries are such leftovers, they are swept out.
type events struct {
	heap []entry
	seq  uint64
	dead int // entries that stand for nothing
}

// schedule makes e happen at a time, after all events that were scheduled for it before.
func (q *events) schedule(e *event, at env.Mono) {
	q.seq++
	stopped := e.seq == 0
	e.at, e.seq = at, q.seq
	if e.slot != 0 {
		if e.due <= at {
			if stopped {
				q.dead--
			}
			return
		}
		if !stopped {
			q.dead++
		}
	}
	e.slot, e.due = e.seq, at
	q.push(entry{at, e.seq, e})
	if q.dead > 1024 && q.dead > len(q.heap)/2 {
		q.sweep()
	}
}

// stop makes e not happen, and reports whether it would have.
func (q *events) stop(e *event) bool {
	if e.seq == 0 {
		return false
	}
	e.seq = 0
	if e.slot != 0 {
		q.dead++
	}
	return true
}

// next takes the first event out of the heap, if it is due by end. The event is still pending.
func (q *events) next(end env.Mono) *event {
	for len(q.heap) > 0 && q.heap[0].at <= end {
		top := q.pop()
		e := top.e
		switch {
		case e.slot != top.seq:
			q.dead--
		case e.seq == 0:
			e.slot = 0
			q.dead--
		case e.seq != top.seq:
			e.slot, e.due = e.seq, e.at
			q.push(entry{e.at, e.seq, e})
		default:
			e.slot = 0
			return e
		}
	}
	return nil
}

func (q *events) push(x entry) {
	q.heap = append(q.heap, x)
	h, i := q.heap, len(q.heap)-1
	for i > 0 {
		parent := (i - 1) / 4
		if !x.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = x
}

func (q *events) pop() entry {
	h := q.heap
	top, last := h[0], h[len(h)-1]
	h[len(h)-1] = entry{}
	h = h[:len(h)-1]
	q.heap = h
	if len(h) > 0 {
		q.down(0, last)
	}
	return top
}

// down puts x at i or below it.
func (q *events) down(i int, x entry) {
	h := q.heap
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, len(h)); c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if !h[least].before(&x) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = x
}

// sweep drops the entries that stand for nothing. The order of events stays: it is in their
// keys, and not in where they lie.
func (q *events) sweep() {
	kept := q.heap[:0]
	for _, x := range q.heap {
		switch e := x.e; {
		case e.slot != x.seq:
		case e.seq == 0:
			e.slot = 0
		default:
			e.slot, e.due = e.seq, e.at
			kept = append(kept, entry{e.at, e.seq, e})
		}
	}
	clear(q.heap[len(kept):])
	q.heap, q.dead = kept, 0
	for i := (len(kept) - 2) / 4; i >= 0 && len(kept) > 1; i-- {
		q.down(i, kept[i])
	}
}
