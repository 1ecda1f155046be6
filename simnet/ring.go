package simnet

// ring is a queue in a slice that is used round and round.
type ring[T any] struct {
	items []T
	head  int
	n     int
}

func (r *ring[T]) push(x T) {
	if r.n == len(r.items) {
		grown := make([]T, max(4, 2*r.n))
		for i := range r.n {
			grown[i] = *r.at(i)
		}
		r.items, r.head = grown, 0
	}
	r.items[(r.head+r.n)&(len(r.items)-1)] = x
	r.n++
}

// at is the item with i items before it.
func (r *ring[T]) at(i int) *T { return &r.items[(r.head+i)&(len(r.items)-1)] }

func (r *ring[T]) pop() T {
	p := r.at(0)
	x := *p
	var zero T
	*p = zero
	r.head = (r.head + 1) & (len(r.items) - 1)
	r.n--
	if r.n == 0 && len(r.items) > 64 {
		r.items, r.head = nil, 0
	}
	return x
}

func (r *ring[T]) clear() { *r = ring[T]{} }
