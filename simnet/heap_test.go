package simnet

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cepa/env"
)

// TestEventsComeInOrder compares the heap with a list that is sorted anew for each event, under
// scheduling, putting off, bringing forward and stopping, and over sweeps.
func TestEventsComeInOrder(t *testing.T) {
	t.Parallel()
	type wanted struct {
		at  env.Mono
		seq int
		e   *event
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		var q events
		var list []wanted
		var all []*event
		for range 300 {
			all = append(all, new(event))
		}
		seq, now, swept := 0, env.Mono(0), 0
		for step := range 20_000 {
			e := all[r.IntN(len(all))]
			i := slices.IndexFunc(list, func(x wanted) bool { return x.e == e })
			if (i >= 0) != e.pending() {
				t.Fatalf("seed %d: pending is %v", seed, e.pending())
			}
			before := q.size()
			switch n := r.IntN(100); {
			case n < 60:
				seq++
				at := now + env.Mono(r.IntN(1000))<<(r.IntN(4)*10)
				if r.IntN(4) == 0 {
					at = now
				}
				if i >= 0 {
					list = slices.Delete(list, i, i+1)
				}
				list = append(list, wanted{at, seq, e})
				q.schedule(e, at)
			case n < 85:
				if q.stop(e) != (i >= 0) {
					t.Fatalf("seed %d: stop of an event lies about it", seed)
				}
				if i >= 0 {
					list = slices.Delete(list, i, i+1)
				}
			default:
				slices.SortFunc(list, func(a, b wanted) int {
					if a.at != b.at {
						return int(a.at - b.at)
					}
					return a.seq - b.seq
				})
				end := now + env.Mono(r.IntN(50))<<(r.IntN(4)*10)
				got := q.next(end)
				if len(list) == 0 || list[0].at > end {
					if got != nil {
						t.Fatalf("seed %d: an event that is not due", seed)
					}
					now = end
					break
				}
				if got != list[0].e {
					t.Fatalf("seed %d: the wrong event", seed)
				}
				got.seq = 0
				now = list[0].at
				list = list[1:]
			}
			if q.size() < before-500 {
				swept++
			}
			if step%500 != 0 {
				continue
			}
			dead := 0
			all := slices.Concat(slices.Concat(q.ring[:]...), q.near, q.far)
			for i := range q.soon.n {
				all = append(all, *q.soon.at(i))
			}
			for _, x := range all {
				if x.e.slot != x.seq || x.e.seq == 0 {
					dead++
				}
			}
			if dead != q.dead {
				t.Fatalf("seed %d: %d leftovers are counted as %d", seed, dead, q.dead)
			}
		}
		if swept == 0 && q.dead > q.size()/2+1024 {
			t.Errorf("seed %d: %d leftovers among %d entries and no sweep", seed, q.dead, q.size())
		}
	}
}

func TestEventsAllocateNothing(t *testing.T) {
	w := New(Config{})
	h := w.Host(HostSpec{Name: "a"})
	n := 0
	timer := h.Env().Clock.AfterFunc(1, func() { n++ })
	w.Run(10)
	if got := testing.AllocsPerRun(1000, func() {
		timer.Reset(5)
		w.Run(10)
	}); got > 0 {
		t.Errorf("%v allocations an event", got)
	}
	if n < 1000 {
		t.Errorf("%d events", n)
	}
}

func BenchmarkTimer(b *testing.B) {
	w := New(Config{})
	h := w.Host(HostSpec{Name: "a"})
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		d := r.IntN(1_000_000)
		var again func()
		timer := h.Env().Clock.AfterFunc(1, func() { again() })
		again = func() { timer.Reset(time.Duration(1_000_000 + d)) }
	}
	b.ReportAllocs()
	for b.Loop() {
		w.step(maxMono)
	}
}
