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
	act  act      // which of its actor's
	who  happener // what acts
}

// happener is what has events. An event names it and what it is to do, and no function of its own, which would lie
// elsewhere in memory: the simulator waits for memory more than for anything else.
type happener interface{ happen(act) }

// act is which of a happener's events happens.
type act uint8

// call is the happener of an event that is one function.
type call func()

func (f call) happen(act) { f() }

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

// events are those that are going to happen, in four places by when: a queue of what happens now; a heap of what is due
// within a moment; then a ring of slots of 66 µs, in whatever order, which become part of that heap when their
// time comes; and a heap of what is later still. So what is compared with each other is little, however many timers wait.
//
// An event that is stopped or put off leaves its entry behind, which is dropped, or put where it belongs, when its time
// comes: both cost nothing now. When most entries are such leftovers, they are swept out.
type events struct {
	now    env.Mono    // of the last event
	soon   ring[entry] // some that are due then, or at a later time that is one for all of them; in the order of their numbers
	near   entries     // all others before slot base
	ring   [ringSlots][]entry
	inRing int
	far    entries // all from slot base+ringSlots on
	base   int64
	spare  [][]entry // slots that were emptied
	seq    uint64
	dead   int // entries that stand for nothing
	seen   uint64
}

const (
	slotBits  = 16     // a slot is 66 µs,
	ringSlots = 131072 // and the ring 8.6 s: keepalives are within it
	maxSpare  = 256
)

// size is how many entries there are.
func (q *events) size() int { return q.soon.n + len(q.near) + q.inRing + len(q.far) }

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
	q.enter(e)
	if q.dead > 1024 && q.dead > q.size()/2 {
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

// enter makes an entry that stands for e.
func (q *events) enter(e *event) {
	e.slot, e.due = e.seq, e.at
	q.put(entry{e.at, e.seq, e})
}

func (q *events) put(x entry) {
	switch slot := int64(x.at) >> slotBits; {
	case x.at == q.now && (q.soon.n == 0 || q.soon.at(q.soon.n-1).at == x.at && q.soon.at(q.soon.n-1).seq < x.seq):
		q.soon.push(x)
	case slot < q.base || x.at == q.now: // which is before base, but at the beginning
		q.near.push(x)
	case slot < q.base+ringSlots:
		list := &q.ring[slot%ringSlots]
		if n := len(q.spare); *list == nil && n > 0 {
			*list, q.spare = q.spare[n-1], q.spare[:n-1]
		}
		*list = append(*list, x)
		q.inRing++
	default:
		q.far.push(x)
	}
}

// stands reports whether an entry stands for an event that is to happen when it says. One that stands for nothing is
// counted off, and one whose event was put off is put where it belongs.
func (q *events) stands(x *entry) bool {
	switch e := x.e; {
	case e.slot != x.seq:
		q.dead--
	case e.seq == 0:
		e.slot = 0
		q.dead--
	case e.seq != x.seq:
		q.enter(e)
	default:
		return true
	}
	return false
}

// next takes the first event out, if it is due by end. The event is still pending.
func (q *events) next(end env.Mono) *event {
	for {
		for q.soon.n+len(q.near) > 0 {
			var first entry
			switch soon := q.soon.n > 0 && (len(q.near) == 0 || q.soon.at(0).before(&q.near[0])); {
			case soon && q.soon.at(0).at <= end:
				first = q.soon.pop()
			case !soon && q.near[0].at <= end:
				first = q.near.pop()
			default:
				return nil
			}
			if q.stands(&first) {
				first.e.slot = 0
				q.now = first.at
				return first.e
			}
		}
		switch {
		case q.inRing > 0:
			if q.base > int64(end)>>slotBits {
				return nil
			}
			q.advance()
		case len(q.far) > 0:
			if q.far[0].at > end {
				return nil
			}
			q.base = int64(q.far[0].at) >> slotBits
			q.approach()
		default:
			return nil
		}
	}
}

// advance makes the first slot of the ring part of the near heap.
func (q *events) advance() {
	place := &q.ring[q.base%ringSlots]
	list := *place
	*place = nil
	q.base++
	q.inRing -= len(list)
	q.foresee(list)
	for i := range list {
		if q.stands(&list[i]) {
			q.near.push(list[i])
		}
	}
	if cap(list) > 0 && len(q.spare) < maxSpare {
		clear(list)
		q.spare = append(q.spare, list[:0])
	}
	q.approach()
}

// foresee reads what the events of the coming slot will need, so that it is in the processor's cache by then: all of
// one kind in a row, because reads that do not wait for each other are made at the same time. A network of thousands of
// nodes is far larger than any cache, and one event after the other would wait for memory a dozen times.
func (q *events) foresee(list []entry) {
	seen := q.seen
	for i := range list {
		seen += uint64(list[i].e.kind)
	}
	for i := range list {
		e := list[i].e
		if h := e.host; h != nil {
			seen += uint64(h.busy) + uint64(h.ready.n) + uint64(h.meter.Loop)
		}
		if o, ok := e.who.(*end); ok {
			seen += uint64(o.landed) + uint64(o.under) + uint64(o.held) + uint64(o.acks.n) + uint64(o.sent) + uint64(o.lat)
		}
	}
	for i := range list {
		o, ok := list[i].e.who.(*end)
		if !ok {
			continue
		}
		h, f := o.host, o.far
		seen += uint64(h.busy) + uint64(h.up.free) + uint64(f.held) + uint64(f.lat) + uint64(f.inbox.n)
		if o.flight.n > 0 {
			seen += uint64(o.flight.at(0).at)
		}
		if o.acks.n > 0 {
			seen += uint64(o.acks.at(0).at)
		}
	}
	for i := range list {
		o, ok := list[i].e.who.(*end)
		if !ok {
			continue
		}
		h := o.far.host
		seen += uint64(h.busy) + uint64(h.down.free) + uint64(h.ready.n)
		if o.flight.n > 0 {
			if p := o.flight.at(0).data; len(p) > 0 {
				seen += uint64(p[0])
			}
		}
	}
	q.seen = seen
}

// approach takes into the ring what is not far any more.
func (q *events) approach() {
	for len(q.far) > 0 && int64(q.far[0].at)>>slotBits < q.base+ringSlots {
		if x := q.far.pop(); q.stands(&x) {
			q.put(x)
		}
	}
}

// sweep drops the entries that stand for nothing. The order of events stays: it is in their keys, and not in where they
// lie.
func (q *events) sweep() {
	all := make([]entry, 0, q.size())
	for q.soon.n > 0 {
		all = append(all, q.soon.pop())
	}
	all = append(all, q.near...)
	for i := range q.ring {
		all = append(all, q.ring[i]...)
		q.ring[i] = nil
	}
	all = append(all, q.far...)
	q.near, q.far, q.inRing = nil, nil, 0
	for i := range all {
		if q.stands(&all[i]) {
			q.put(all[i])
		}
	}
}

// entries are a heap with four children a node.
type entries []entry

func (h *entries) push(x entry) {
	*h = append(*h, x)
	list, i := *h, len(*h)-1
	for i > 0 {
		parent := (i - 1) / 4
		if !x.before(&list[parent]) {
			break
		}
		list[i] = list[parent]
		i = parent
	}
	list[i] = x
}

func (h *entries) pop() entry {
	list := *h
	top, x := list[0], list[len(list)-1]
	list[len(list)-1] = entry{}
	list = list[:len(list)-1]
	*h = list
	if len(list) == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= len(list) {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, len(list)); c++ {
			if list[c].before(&list[least]) {
				least = c
			}
		}
		if !list[least].before(&x) {
			break
		}
		list[i] = list[least]
		i = least
	}
	list[i] = x
	return top
}
