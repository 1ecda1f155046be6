package flow

// list is a doubly linked list of things that hold their own links, so that adding to it
// allocates nothing and removing takes no search. A thing is on at most one list per node.
type list[T any] struct {
	first, last *node[T]
	n           int // things
}

// node is embedded in a T by value, once for each list it can be on at a time.
type node[T any] struct {
	prev, next *node[T]
	on         *list[T] // nil when on none
	of         *T
}

func (l *list[T]) empty() bool { return l.first == nil }

// push puts n, which is on no list, at the end.
func (l *list[T]) push(n *node[T]) {
	l.n++
	n.on, n.prev = l, l.last
	if l.last != nil {
		l.last.next = n
	} else {
		l.first = n
	}
	l.last = n
}

// remove takes n off whatever list it is on, if any.
func (n *node[T]) remove() {
	l := n.on
	if l == nil {
		return
	}
	l.n--
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.last = n.prev
	}
	n.on, n.prev, n.next = nil, nil, nil
}
