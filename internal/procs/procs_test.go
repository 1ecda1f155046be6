package procs

import "testing"

// TestProcessorsFollowTheLoad: work for more than one gets more at once, work for less leaves one after a while, and work that
// is just between two keeps what there is.
func TestProcessorsFollowTheLoad(t *testing.T) {
	t.Parallel()
	r := rule{n: 8, all: 8}
	for looks, want := 0, 8; want > 1; looks++ {
		if looks > 8*patience {
			t.Fatalf("%d processors for the load of 0.4", r.n)
		}
		want = r.next(0.4)
	}
	for i, want := range []int{2, 4, 8, 8} {
		if got := r.next(float64(r.n) * 0.95); got != want {
			t.Fatalf("look %d at full load: %d processors, want %d", i, got, want)
		}
	}
	for range 10 * patience {
		r.next(2.1)
	}
	if r.n != 4 {
		t.Errorf("%d processors for a load of 2.1, want 4", r.n)
	}
	for range 10 * patience {
		if r.next(0.9); r.n == 1 {
			r.next(0.9)
			if r.n != 2 {
				t.Fatalf("%d processors for a load of 0.9", r.n)
			}
		}
	}
}

// TestIdleProcessHasOne: a process that does nothing does not wait for long to get there.
func TestIdleProcessHasOne(t *testing.T) {
	t.Parallel()
	r := rule{n: 4, all: 4}
	for range 3 {
		r.next(0)
	}
	if r.n != 1 {
		t.Errorf("%d processors after three looks at nothing", r.n)
	}
}

// TestGovern: it can be begun and ended by several, in any order.
func TestGovern(t *testing.T) {
	a, b := Govern(), Govern()
	a()
	a()
	b()
	Govern()()
	if All() < 1 {
		t.Errorf("%d processors", All())
	}
}
