package flow

import "fmt"

// Defect is a bug that a test seeds, to see that whoever is to find such bugs does: the checkers of package
// simnet. Nothing but tests sets one, which package rules checks; the zero value is what runs.
type Defect uint8

// The defects.
const (
	// DefectCredit returns the credit of each cell twice.
	DefectCredit Defect = iota + 1
	// DefectWindow takes each byte of DATA from the window of its stream twice, and so beyond its end.
	DefectWindow
	// DefectLeak forgets the cells that wait for a link which goes down, without giving their memory back.
	DefectLeak
)

// Seed sets a defect, for tests of checkers.
func (b *Budget) Seed(d Defect) { b.defect = d }

// sound verifies the windows of one end of a circuit: none is negative, and all that was granted is with the
// peer, held here, or consumed and to be returned.
func (m *Mux) sound() error {
	if m.window < 0 || m.granted < 0 || m.unsaid < 0 || m.grown < 0 {
		return fmt.Errorf("a circuit's window: %d to send, %d to come, %d to be returned, %d lent to streams", m.window, m.granted, m.unsaid, m.grown)
	}
	if m.closed {
		return nil
	}
	held, grown := 0, 0
	for n := m.all.first; n != nil; n = n.next {
		s := n.of
		if err := s.sound(); err != nil {
			return fmt.Errorf("stream %d: %w", s.id, err)
		}
		held += s.in.len() + s.flying
		grown += s.win.size - int(m.cfg.Granted.Stream)
	}
	switch {
	case m.granted+held+m.unsaid != int(m.cfg.Granted.Circuit):
		return fmt.Errorf("a circuit's window of %d bytes: %d to come, %d held, %d to be returned", m.cfg.Granted.Circuit, m.granted, held, m.unsaid)
	case grown != m.grown:
		return fmt.Errorf("windows of streams have grown by %d bytes, %d are accounted for", grown, m.grown)
	}
	return nil
}

func (s *Stream) sound() error {
	v, held := &s.win, s.in.len()+s.flying
	switch {
	case s.window < 0 || v.granted < 0 || v.unsaid < 0 || s.flying < 0:
		return fmt.Errorf("window: %d to send, %d to come, %d to be returned; %d with the application", s.window, v.granted, v.unsaid, s.flying)
	case v.granted+held+v.unsaid != v.size:
		return fmt.Errorf("window of %d bytes: %d to come, %d held, %d to be returned", v.size, v.granted, held, v.unsaid)
	}
	return nil
}
