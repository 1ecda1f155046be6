package relay

import (
	"testing"
	"time"

	"cepa/cell"
	"cepa/onion/ntor"
)

// TestExitLimits: each bound refuses the next connection, tells why, and gives room again when one ends.
func TestExitLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		limits ExitLimits
		room   int  // connections to one destination that fit
		other  bool // another destination is served nevertheless
		reason cell.Reason
	}{
		{"open", ExitLimits{Open: 2}, 2, false, cell.ReasonResource},
		{"open per circuit", ExitLimits{OpenPerCircuit: 3}, 3, false, cell.ReasonResource},
		{"open per destination", ExitLimits{OpenPerDestination: 1}, 1, true, cell.ReasonResource},
		{"rate", ExitLimits{Rate: 1}, exitBurst, false, cell.ReasonRateLimited},
		{"rate per circuit", ExitLimits{RatePerCircuit: 1}, exitBurst, false, cell.ReasonRateLimited},
		{"rate per destination", ExitLimits{RatePerDestination: 1}, exitBurst, true, cell.ReasonRateLimited},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, exit, h := exitWorld(t, nil)
			w.f.Do(func() { p := exit.relay.cfg.Policy; exit.relay.SetExit(p, c.limits) })
			w.listen("203.0.113.7:80")
			w.listen("203.0.113.8:80")
			var ids []cell.StreamID
			for i := range c.room {
				id, connected, reason := h.begin("203.0.113.7", 80, cell.AllowIPv4)
				if connected == nil {
					t.Fatalf("connection %d of %d: %v", i+1, c.room, reason)
				}
				ids = append(ids, id)
			}
			if _, connected, reason := h.begin("203.0.113.7", 80, cell.AllowIPv4); connected != nil || reason != c.reason {
				t.Fatalf("one too many: %v, %v", connected, reason)
			}
			if _, connected, _ := h.begin("203.0.113.8", 80, cell.AllowIPv4); (connected != nil) != c.other {
				t.Errorf("another destination: %v", connected)
			}
			if s := exit.relay.Stats(); s.ExitLimited == 0 || s.ExitLimited > 2 {
				t.Errorf("%d are counted", s.ExitLimited)
			}
			h.relay(end(ids[0], cell.ReasonReset))
			w.f.Run(2 * time.Second) // and a token of a rate comes back
			if _, connected, reason := h.begin("203.0.113.7", 80, cell.AllowIPv4); connected == nil {
				t.Errorf("after one ended: %v", reason)
			}
			h.destroy()
			w.f.Run(time.Second)
			if e := &exit.relay.exits; e.open != 0 || len(e.byTo) != 0 {
				t.Errorf("still counted: %d, %v", e.open, e.byTo)
			}
			w.quiet()
		})
	}
}

// TestDrainRefusesNewCircuitsAndKeepsOld: what is open goes on.
func TestDrainRefusesNewCircuitsAndKeepsOld(t *testing.T) {
	t.Parallel()
	w, exit, h := exitWorld(t, nil)
	w.listen("203.0.113.7:80")
	w.f.Do(func() { exit.relay.Drain() })
	if _, connected, reason := h.begin("203.0.113.7", 80, cell.AllowIPv4); connected == nil {
		t.Errorf("a stream of a circuit that there is: %v", reason)
	}
	other := w.client("other")
	_, message := other.offer(exit)
	other.knock(exit, ntor.HandshakeType, message)
	if reason := other.dies(); reason != cell.ReasonShutdown {
		t.Errorf("a new circuit: %v", reason)
	}
	if n := exit.relay.Carrying(); n != 1 {
		t.Errorf("the exit carries %d", n)
	}
	if n := w.relays[0].relay.Carrying(); n != 1 {
		t.Errorf("the guard carries %d", n)
	}
	h.destroy()
	w.f.Run(time.Second)
	for _, s := range w.relays {
		if n := s.relay.Carrying(); n != 0 {
			t.Errorf("%d are left", n)
		}
	}
	w.quiet()
}
