package link

import (
	"sync"
	"sync/atomic"

	"cepa/cell"
)

// Sizes in bytes. A TLS 1.3 record of ours carries at most 8 cells.
const (
	maxPlain    = 1 << 14            // content of a TLS record
	maxRecord   = 5 + maxPlain + 256 // the longest TLS 1.3 record, with its header
	recordExtra = 5 + 1 + 16         // what a record adds to its content in AES-GCM and ChaCha20-Poly1305
	batchPlain  = 4 * maxPlain       // cells in one event of the loop, and in one write
	smallRead   = 4096               // room for one record of a cell, and a bit
	largeRead   = 128 << 10          // 8 full records and less
	largeWrite  = batchPlain + 4*recordExtra + 512
	smallWrite  = maxPlain + recordExtra + 512
)

// bufferPool lends buffers of one size, at most limit of them at once. Safe for concurrent use.
type bufferPool struct {
	size  int
	limit int32
	lent  atomic.Int32
	idle  sync.Pool // of *buffer
}

type buffer struct{ data []byte }

func (b *buffer) empty() bool { return b == nil || len(b.data) == 0 }

// A queue is a buffer of whole cells that has room for one byte more behind them, for the sealer.

// room returns the memory behind a queue's cells, n cells of it or more, whole ones.
func (b *buffer) room(n int) []byte {
	if need := len(b.data) + n*cell.Size + 1; need > cap(b.data) {
		b.data = append(make([]byte, 0, max(need, 2*cap(b.data)-1)), b.data...)
	}
	free := cap(b.data) - len(b.data) - 1
	return b.data[len(b.data):][:free-free%cell.Size]
}

// ahead reports whether cells begin where those of the queue end.
func (b *buffer) ahead(cells []byte) bool {
	return b != nil && len(cells) > 0 && len(b.data) < cap(b.data) && &cells[0] == &b.data[:len(b.data)+1][len(b.data)]
}

// add appends cells to a queue.
func (b *buffer) add(cells []byte) {
	b.data = b.data[:len(b.data)+copy(b.room(len(cells)/cell.Size), cells)]
}

// tryGet returns nil when the limit is reached; the caller then makes do with less.
func (p *bufferPool) tryGet() *buffer {
	if p.lent.Add(1) > p.limit {
		p.lent.Add(-1)
		return nil
	}
	if b, ok := p.idle.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, p.size)}
}

func (p *bufferPool) put(b *buffer) {
	p.lent.Add(-1)
	p.idle.Put(b)
}
