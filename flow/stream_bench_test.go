package flow

import (
	"testing"
	"time"

	"cepa/cell"
)

// BenchmarkStream is a mebibyte that a stream brings through three nodes, all that this package does for it at both ends and
// between, in a world without time.
func BenchmarkStream(b *testing.B) {
	const size = 1 << 20
	w := newWorld(1)
	p := newPath(w, 3, linkOptions{})
	c := p.circuit(b)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		xs := p.exchanges(b, c, nil, [2]int{0, size})
		if !w.runUntil(time.Hour, allDone(xs)) {
			b.Fatal("stuck")
		}
	}
	c.end(cell.ReasonNone)
}
