package simnet

import "cepa/cell"

// Sizes of the pieces in which bytes travel.
const (
	smallBuffer = 2048      // a cell
	largeBuffer = 8 * 2048  // a TLS record
	keepBuffers = 64 << 20  // bytes of buffers that are kept for use again
	segmentMTU  = 1500      // of which
	segmentMSS  = 1448      // are payload, with TCP's time stamps
	windowStart = 10 * 1448 // bytes that TCP sends at first
	windowLeast = 2 * 1448
	windowMost  = 16 << 20
	readerStart = 128 << 10 // bytes that a receiver holds at first for an application that does not read
	readerMost  = 4 << 20   // and for one that has read much
	unsentConns = 64 << 10  // the same of other connections
)

// buffers are those that can be used again.
type buffers struct {
	small, large [][]byte
	rooms        [][]byte
}

// keepRooms is how many of what Room of a link lends are kept for use again: as many as are lent at once.
const keepRooms = 64

func (b *buffers) takeRoom() []byte {
	n := len(b.rooms)
	if n == 0 {
		return make([]byte, roomCells*cell.Size)
	}
	x := b.rooms[n-1]
	b.rooms = b.rooms[:n-1]
	return x
}

func (b *buffers) giveRoom(x []byte) {
	if len(x) == roomCells*cell.Size && len(b.rooms) < keepRooms {
		b.rooms = append(b.rooms, x)
	}
}

func (b *buffers) take(large bool) []byte {
	list, size := &b.small, smallBuffer
	if large {
		list, size = &b.large, largeBuffer
	}
	if n := len(*list); n > 0 {
		x := (*list)[n-1]
		*list = (*list)[:n-1]
		return x[:0]
	}
	return make([]byte, 0, size)
}

func (b *buffers) give(x []byte) {
	switch {
	case cap(x) == smallBuffer && len(b.small) < keepBuffers/4/smallBuffer:
		b.small = append(b.small, x)
	case cap(x) == largeBuffer && len(b.large) < keepBuffers*3/4/largeBuffer:
		b.large = append(b.large, x)
	}
}

// pieces is a queue of bytes in buffers.
type pieces struct {
	list  ring[[]byte]
	taken int // of the first
	size  int
}

// write appends p, copying it. Buffers hold whole cells, so that a link's cells are never torn.
func (q *pieces) write(b *buffers, p []byte) {
	q.size += len(p)
	if q.list.n > 0 {
		last := q.list.at(q.list.n - 1)
		n := min(len(p), cap(*last)-len(*last))
		*last = append(*last, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		x := b.take(len(p) > smallBuffer || q.list.n > 0)
		n := min(len(p), cap(x))
		q.list.push(append(x, p[:n]...))
		p = p[n:]
	}
}

// first is at most n bytes from the front, all in one buffer; buffer is that buffer when nothing of
// it is left then.
func (q *pieces) first(n int) (p, buffer []byte) {
	x := *q.list.at(0)
	p = x[q.taken:]
	if len(p) > n {
		q.taken += n
		q.size -= n
		return p[:n:n], nil
	}
	q.size -= len(p)
	q.taken = 0
	return p, q.list.pop()
}

// move puts the first buffer of q at the end of to.
func (q *pieces) move(to *pieces) {
	x := q.list.pop()
	q.size -= len(x)
	to.size += len(x)
	to.list.push(x)
}

func (q *pieces) clear(b *buffers) {
	for q.list.n > 0 {
		b.give(q.list.pop())
	}
	*q = pieces{}
}
