package envtest

import (
	"slices"
	"sync"

	"cepa/env"
)

// ConnProbe hears the events of one Conn and remembers them. Its functions, where not nil, are
// called after that, without any lock. The methods that read it may be called from any
// goroutine; the zero value is ready for use.
type ConnProbe struct {
	Data    func(p []byte)
	EOF     func()
	Drained func()
	Down    func(reason error)

	mu    sync.Mutex
	state ConnState
}

// ConnState is what a ConnProbe has heard.
type ConnState struct {
	Received []byte // all data
	Datas    int    // calls of OnData
	EOFs     int
	Draineds int
	Downs    int
	Reason   error // of the last OnDown
}

// State is what was heard until now; Received is not to be modified.
func (p *ConnProbe) State() ConnState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state
	s.Received = slices.Clip(s.Received)
	return s
}

func (p *ConnProbe) update(f func(s *ConnState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.state)
}

// OnData implements env.ConnEvents. It spoils its argument, as it may.
func (p *ConnProbe) OnData(data []byte) {
	p.update(func(s *ConnState) { s.Received = append(s.Received, data...); s.Datas++ })
	if p.Data != nil {
		p.Data(data)
	}
	clear(data)
}

// OnEOF implements env.ConnEvents.
func (p *ConnProbe) OnEOF() {
	p.update(func(s *ConnState) { s.EOFs++ })
	if p.EOF != nil {
		p.EOF()
	}
}

// OnDrained implements env.ConnEvents.
func (p *ConnProbe) OnDrained() {
	p.update(func(s *ConnState) { s.Draineds++ })
	if p.Drained != nil {
		p.Drained()
	}
}

// OnDown implements env.ConnEvents.
func (p *ConnProbe) OnDown(reason error) {
	p.update(func(s *ConnState) { s.Downs++; s.Reason = reason })
	if p.Down != nil {
		p.Down(reason)
	}
}

// LinkProbe hears the events of one Link as ConnProbe does those of a Conn.
type LinkProbe struct {
	Cells   func(cells []byte)
	Drained func()
	Down    func(reason error)

	mu    sync.Mutex
	state LinkState
}

// LinkState is what a LinkProbe has heard.
type LinkState struct {
	Received []byte // all cells
	Batches  int    // calls of OnCells
	Draineds int
	Downs    int
	Reason   error // of the last OnDown
}

// State is what was heard until now; Received is not to be modified.
func (p *LinkProbe) State() LinkState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state
	s.Received = slices.Clip(s.Received)
	return s
}

func (p *LinkProbe) update(f func(s *LinkState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.state)
}

// OnCells implements env.LinkEvents. It spoils its argument, as it may.
func (p *LinkProbe) OnCells(cells []byte) {
	p.update(func(s *LinkState) { s.Received = append(s.Received, cells...); s.Batches++ })
	if p.Cells != nil {
		p.Cells(cells)
	}
	clear(cells)
}

// OnDrained implements env.LinkEvents.
func (p *LinkProbe) OnDrained() {
	p.update(func(s *LinkState) { s.Draineds++ })
	if p.Drained != nil {
		p.Drained()
	}
}

// OnDown implements env.LinkEvents.
func (p *LinkProbe) OnDown(reason error) {
	p.update(func(s *LinkState) { s.Downs++; s.Reason = reason })
	if p.Down != nil {
		p.Down(reason)
	}
}

// LinkUpFunc is an env.LinkHandler that is a function.
type LinkUpFunc func(env.Link) env.LinkEvents

// LinkUp calls f.
func (f LinkUpFunc) LinkUp(l env.Link) env.LinkEvents { return f(l) }
