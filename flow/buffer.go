package flow

// chunkSize is what a chunk costs in memory and in the budget.
const chunkSize = 4096

// maxFreeChunks bounds the free list: 1 MiB.
const maxFreeChunks = 256

type chunk struct {
	next *chunk
	r, w int // b[r:w] is unread
	b    [chunkSize - 24]byte
}

// buffer is a queue of bytes. Its memory is chunks, counted whole in the budget, so that many
// nearly empty buffers cannot hide. The zero value is empty; drop gives all memory back.
type buffer struct {
	first, last *chunk
	n           int // bytes
	chunks      int
}

func (q *buffer) len() int  { return q.n }
func (q *buffer) cost() int { return q.chunks * chunkSize }

func (q *buffer) write(b *Budget, p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if q.last == nil || q.last.w == len(q.last.b) {
			c := b.takeChunk()
			if q.last == nil {
				q.first = c
			} else {
				q.last.next = c
			}
			q.last = c
			q.chunks++
		}
		n := copy(q.last.b[q.last.w:], p)
		q.last.w += n
		p = p[n:]
	}
}

// read fills p, which is no longer than the buffer.
func (q *buffer) read(b *Budget, p []byte) {
	for len(p) > 0 {
		head := q.peek()
		n := copy(p, head)
		q.skip(b, n)
		p = p[n:]
	}
}

// peek returns the oldest bytes, some or all of them; nil when there are none.
func (q *buffer) peek() []byte {
	if q.first == nil {
		return nil
	}
	return q.first.b[q.first.r:q.first.w]
}

// skip drops the first n bytes of peek.
func (q *buffer) skip(b *Budget, n int) {
	c := q.first
	c.r += n
	q.n -= n
	if c.r < c.w {
		return
	}
	q.first = c.next
	if q.first == nil {
		q.last = nil
	}
	q.chunks--
	b.giveChunk(c)
}

func (q *buffer) drop(b *Budget) {
	for q.first != nil {
		q.skip(b, len(q.peek()))
	}
}

func (b *Budget) takeChunk() *chunk {
	b.add(chunkSize)
	c := b.chunks
	if c == nil {
		return new(chunk)
	}
	b.chunks = c.next
	b.freeChunks--
	c.next = nil
	return c
}

func (b *Budget) giveChunk(c *chunk) {
	b.sub(chunkSize)
	if b.freeChunks == maxFreeChunks {
		return
	}
	c.r, c.w, c.next = 0, 0, b.chunks
	b.chunks = c
	b.freeChunks++
}
