package flow

import "cepa/cell"

// opened reports whether the opening message is out of the way: at the initiator BEGIN was sent,
// which optimistic DATA may follow, at the exit CONNECTED.
func (s *Stream) opened() bool {
	if s.m.cfg.Initiator {
		return s.begun
	}
	return s.connected && s.opening == 0
}

// moved acts on bytes having left out.
func (s *Stream) moved() {
	s.touchSince()
	if s.paused && s.out.len() < pauseBytes/2 {
		s.paused = false
		if s.conn != nil {
			s.conn.Pause(false)
		}
	}
	if s.out.len() == 0 {
		if s.flush != 0 {
			s.abort(s.flush)
		}
		s.touch()
	}
}

// eofDue reports whether EOF can be sent: the initiator waits for CONNECTED with it.
func (s *Stream) eofDue() bool {
	return s.connEOF && !s.sentEOF && !s.ending && s.flush == 0 && s.out.len() == 0 && s.opened() && s.connected
}

// touch puts the stream among those with a message to send other than DATA, if it has one.
func (s *Stream) touch() {
	if s.inControl.on == nil && (s.opening != 0 || s.windowDue() || s.eofDue() || s.ending && !s.sentLast) {
		s.m.control.push(&s.inControl)
	}
}

// pack adds what the stream has to say to a payload. False means that it did not all fit.
func (s *Stream) pack(p *cell.Packer) bool {
	if s.opening != 0 {
		if !p.Add(s.opening, s.id, s.openingData) {
			return false
		}
		s.sentLast = s.opening == cell.MessageResolved
		s.opening, s.openingData = 0, nil
		s.begun = true
		s.schedule()
	}
	if s.windowDue() {
		if p.Free() < 4 {
			return false
		}
		addWindow(p, s.id, s.nextWindow())
	}
	if s.eofDue() {
		if !addEnd(p, s.id, cell.ReasonEOF) {
			return false
		}
		s.sentEOF = true
		s.finish(true)
	}
	if s.ending && !s.sentLast {
		if !addEnd(p, s.id, s.last) {
			return false
		}
		s.sentLast = true
	}
	return true
}

func addEnd(p *cell.Packer, id cell.StreamID, reason cell.Reason) bool {
	if p.Free() < 1 {
		return false
	}
	p.Reserve(cell.MessageEnd, id, 1)[0] = byte(reason)
	p.Commit(1)
	return true
}

// ---- accounting ----

// touchSince notes that bytes have moved, or begun to wait.
func (s *Stream) touchSince() { s.since = s.m.cfg.Env.Clock.Now() }

func (s *Stream) held() int { return s.out.cost() + s.in.cost() + s.flying }

// evict makes room in the budget.
func (s *Stream) evict() {
	if s.held() == 0 {
		return
	}
	s.m.stats.BudgetVictims++
	if s.m.closed {
		s.detach(&StreamError{cell.ReasonResource})
		s.lingered()
		return
	}
	tell := !s.over
	s.over = true
	s.abort(cell.ReasonResource)
	if tell && s.h != nil {
		s.h.OnEnd(cell.ReasonResource)
	}
	s.m.wake()
}
