package flow

import (
	"time"

	"cepa/cell"
	"cepa/env"
)

// LinkInfo describes one link, for people.
type LinkInfo struct {
	Peer     *env.Peer
	Age      time.Duration
	BytesIn  uint64 // of cells, without what TLS and TCP add
	BytesOut uint64
	Queued   int // bytes of cells that wait, for their turn or for the network
	Circuits int
	Draining bool // it takes no new circuits
}

// Describe describes at most so many open links, in the order in which they came up. The slice is the caller's.
func (ls *Links) Describe(most int) []LinkInfo {
	now := ls.clock.Now()
	links := ls.links[:min(len(ls.links), most)]
	list := make([]LinkInfo, 0, len(links))
	for _, l := range links {
		list = append(list, LinkInfo{
			Peer: l.peer, Age: now.Sub(l.born), BytesIn: l.cellsIn * cell.Size, BytesOut: l.cellsOut * cell.Size,
			Queued: l.held() + l.env.Queued(), Circuits: len(l.circuits), Draining: l.draining,
		})
	}
	return list
}

// Each calls f for every stream, in the order in which they began. f changes nothing of the multiplexer.
func (m *Mux) Each(f func(*Stream)) {
	for n := m.all.first; n != nil; n = n.next {
		f(n.of)
	}
}

// Handler is who hears the stream.
func (s *Stream) Handler() StreamHandler { return s.h }

// Bytes is what the stream has received and sent until now.
func (s *Stream) Bytes() (in, out uint64) { return s.bytesIn, s.bytesOut }
