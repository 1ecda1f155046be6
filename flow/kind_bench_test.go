package flow

import (
	"testing"

	"cepa/cell"
)

// BenchmarkCountKind is what the counters of cells by command cost a cell, in one direction: beside BenchmarkRelayHop, in
// which each cell is counted twice. The cells are as many as a link hands over at once.
func BenchmarkCountKind(b *testing.B) {
	const batch = 32
	cells := make([]byte, batch*cell.Size)
	for i := range batch {
		cells[i*cell.Size+4] = byte(i % int(cell.Commands))
	}
	var kinds [cell.Commands]uint64
	for n := 0; n < b.N; n += batch {
		for at := 0; at < len(cells); at += cell.Size {
			countKind(&kinds, cells[at:])
		}
	}
	if kinds[0] == 0 {
		b.Error("nothing was counted")
	}
}
