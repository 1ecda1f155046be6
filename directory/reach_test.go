package directory

import (
	"net/netip"
	"testing"
	"time"

	"cepa/env"
)

// TestClosedRelayDoesNotPublish: as long as nobody reaches a relay it tells nobody of itself, asks ever more seldom, and
// says what is closed; when the port opens it publishes within one pause.
func TestClosedRelayDoesNotPublish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 40, 5, nil)
	shut := w.members[4]
	shut.tested, shut.unlistened = true, true
	w.startAll()
	w.f.Run(time.Minute)
	if s := shut.agent.Stats(); s.Published > 0 || s.Announced > 0 || shut.agent.Rumour() != nil {
		t.Fatalf("published %d, announced %d", s.Published, s.Announced)
	}
	r := shut.agent.Reach()
	if r.State != ReachUnreached || r.Address != shut.node.Address || r.Verdict != VerdictClosed || r.Asked == 0 {
		t.Errorf("%+v", r)
	}
	before := w.asked[AskReach]
	w.f.Run(time.Minute)
	if n := w.asked[AskReach] - before; n < 12 || n > reachAsked*26 {
		t.Errorf("%d questions in a minute: with pauses of up to 5 s it should be about 50", n)
	}
	shut.unlistened = false
	w.until(6*time.Second, "it publishes", func() bool { return shut.agent.Stats().Published == 1 })
	w.until(20*time.Second, "it is listed", func() bool { return shut.agent.isListed() })
	if s := shut.agent.Reach().State; s != ReachProved {
		t.Errorf("state %d", s)
	}
}

// TestReachWithOldDescriptor: that others hold what a relay said before it moved keeps it from nothing.
func TestReachWithOldDescriptor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 41, 4, nil)
	moves := w.members[3]
	moves.tested = true
	w.startAll()
	w.until(20*time.Second, "it is listed", func() bool { return moves.agent.isListed() })
	before := moves.node.Address
	moves.crash()
	if moves.node.Address == before {
		moves.node.Address = netip.AddrPortFrom(before.Addr().Next(), before.Port())
	}
	moves.start()
	w.until(2*time.Second, "it publishes the new address", func() bool {
		return moves.agent.own.Descriptor != nil && moves.agent.own.Addresses[0] == moves.node.Address
	})
}

// TestReachWhenNobodyCanTell: a network whose nodes do not know the question keeps no relay out.
func TestReachWhenNobodyCanTell(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 42, 4, nil)
	for _, m := range w.members {
		m.helpless = true
	}
	w.members[3].tested = true
	w.startAll()
	w.until(10*time.Second, "it publishes", func() bool { return w.members[3].agent.Stats().Published == 1 })
	if s := w.members[3].agent.Reach().State; s != ReachUntested {
		t.Errorf("state %d", s)
	}
}

// TestReachOfTheFirstRelays: a young network has nobody but its authorities, which do not test themselves; a relay that
// comes before them waits for them.
func TestReachOfTheFirstRelays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 43, 4, nil)
	for _, m := range w.members {
		m.tested = true
	}
	for _, m := range w.members[1:] {
		m.start()
	}
	w.f.Run(30 * time.Second)
	for _, m := range w.members[1:] {
		if s := m.agent.Reach().State; m.agent.Stats().Published > 0 || s != ReachTesting {
			t.Errorf("relay %d has published or state %d while nobody answers", m.number, s)
		}
	}
	w.members[0].start()
	w.until(20*time.Second, "all are listed", func() bool {
		for _, m := range w.members {
			if !m.agent.isListed() {
				return false
			}
		}
		return true
	})
}

// TestConnectingBackIsBounded: nobody can have a relay knock at doors in private networks, more often than the budget
// has it, or at more than a few at a time; and what it says is what it found.
func TestConnectingBackIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 44, 2, func(n *Network) {
		n.Test = false
		n.Authorities[0].Addresses = []netip.AddrPort{netip.MustParseAddrPort("8.8.4.4:9001")}
		n.Bootstrap = nil
	})
	m := w.members[0]
	m.make()
	var outcome error
	var stuck bool
	probes := 0
	m.agent.cfg.Prober = proberFunc(func(to env.Target, done func(error)) {
		probes++
		if to.Identity != testIdentity(1) {
			t.Errorf("called for %v", to.Identity)
		}
		if !stuck {
			m.node.Env.Clock.AfterFunc(0, func() { done(outcome) })
		}
	})
	m.agent.running = true
	from := &env.Peer{Identity: testIdentity(1), Address: netip.MustParseAddrPort("9.9.9.9:1234")}
	ask := func(at string, from *env.Peer) (status Status, verdict Verdict, answered bool) {
		request := must[[]byte](t)(Request{Kind: AskReach, Address: netip.MustParseAddrPort(at)}.AppendTo(nil))
		w.f.Do(func() {
			m.agent.Serve(request, from, func(answer []byte) {
				answered, status = true, Status(answer[0])
				if status == StatusOK {
					verdict = Verdict(answer[answerHeader])
				}
			})
		})
		w.f.Run(reachTime + time.Second)
		return status, verdict, answered
	}
	for _, at := range []string{"10.0.0.1:9001", "127.0.0.1:22", "169.254.169.254:80", "[fe80::1]:9001", "[::1]:1", "0.0.0.0:1"} {
		if status, _, ok := ask(at, from); !ok || status != StatusRefused || probes > 0 {
			t.Errorf("%s: %v, %d probes", at, status, probes)
		}
	}
	if status, _, _ := ask("9.9.9.9:9001", &env.Peer{Address: from.Address}); status != StatusBadRequest {
		t.Errorf("a client: %v", status)
	}
	for want, err := range map[Verdict]error{VerdictReached: nil, VerdictClosed: errUnreachable, VerdictStranger: env.ErrIdentity} {
		outcome = err
		if status, v, _ := ask("9.9.9.9:9001", from); status != StatusOK || v != want {
			t.Errorf("%v: %v %v", want, status, v)
		}
	}
	stuck = true
	if status, v, _ := ask("9.9.9.9:9001", from); status != StatusOK || v != VerdictSilent {
		t.Errorf("silence: %v %v", status, v)
	}
	w.f.Run(time.Minute)
	probes = 0
	request := must[[]byte](t)(Request{Kind: AskReach, Address: netip.MustParseAddrPort("9.9.9.9:9001")}.AppendTo(nil))
	w.f.Do(func() {
		for range 100 {
			m.agent.Serve(request, from, func([]byte) {})
		}
	})
	if probes != 20 {
		t.Errorf("%d calls for one neighbour at once", probes)
	}
	w.f.Do(func() {
		for i := range 100 {
			m.agent.Serve(request, &env.Peer{Identity: testIdentity(1), Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, 9, byte(i), 1}), 9)}, func([]byte) {})
		}
	})
	if probes != maxDialBacks {
		t.Errorf("%d calls at once, want %d", probes, maxDialBacks)
	}
	w.f.Run(time.Minute)
	if n := m.agent.serving.dialling; n != 0 {
		t.Errorf("%d are still under way", n)
	}
}
