package envtest

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// World is an implementation of env under test: a node on which the suite plays the actor, and
// what the suite needs around it. The functions serve a world in real time and one on a virtual
// clock alike: the suite never sleeps and never reads a clock of its own.
type World struct {
	// Env is the node's environment. Dialer is not used, see Links.
	Env env.Env

	// Do runs f as one event of the node and returns when it has run. The suite does not call
	// it from inside an event.
	Do func(f func())

	// Wait lets the world go on until cond holds, and reports false if it does not after limit
	// of the world's time. It may call cond at any time and on any goroutine, but must call it
	// after everything that happened in the world (polling will do).
	Wait func(limit time.Duration, cond func() bool) bool

	// Listen starts a clear-net server that Env.Network can dial, and returns its address. The
	// far ends of accepted connections are Conns too, of the same implementation: accept is
	// called for each, as an event of a node that is not the one under test. Nil in a world
	// without a clear net: tests of connections are then skipped.
	Listen func(accept func(env.Conn) env.ConnEvents) netip.AddrPort
	// DoFar is Do for the node that holds the servers' ends.
	DoFar func(f func())
	// Buffers is the most that a connection takes beyond what Queued shows, in bytes: the
	// kernels' buffers. 0 is 16 MiB, enough for any system's.
	Buffers int
	// Refusing is an address where connections are refused. Silent is one that never answers;
	// invalid where the world cannot have one.
	Refusing, Silent netip.AddrPort
	// Host is a name that resolves, Addr one of its addresses, and NoHost a name that does not
	// exist.
	Host   string
	Addr   netip.Addr
	NoHost string

	// Reopen is the node's Store as it is after a restart, when all saves are done. The Store in
	// Env is not used afterwards. Nil where nothing outlives the node.
	Reopen func() env.Store

	// Links makes the node (A) and another (B) ready for links; the handlers are told of theirs.
	// Nil where links are not part of what is tested: tests of links are then skipped.
	Links func(a, b env.LinkHandler) LinkWorld
}

// LinkWorld is two relays that can open links with each other.
type LinkWorld struct {
	// Dialer is A's.
	Dialer env.LinkDialer
	// A and B name the two; dialling B's addresses reaches B. B accepts links at once.
	A, B env.Target
	// Impostor names B's addresses with an identity that is not B's.
	Impostor env.Target
	// Refusing names an address where connections are refused.
	Refusing env.Target
	// DoB runs f as an event of B, as World.Do does on A.
	DoB func(f func())
}

// limit is how long a test waits, in the world's time, for what must happen.
const limit = 20 * time.Second

// Conformance checks the laws of package env against an implementation. Each test gets a world
// of its own from newWorld, which registers what ends it with t.Cleanup.
func Conformance(t *testing.T, newWorld func(t *testing.T) *World) {
	for _, test := range []struct {
		name string
		f    func(s *suite)
		need func(w *World) bool
	}{
		{"clock/now is frozen during an event", testFrozen, nil},
		{"clock/now never goes back", testMonotonic, nil},
		{"timer/order of instants, then of calls", testTimerOrder, nil},
		{"timer/never early and never inside AfterFunc", testTimerTime, nil},
		{"timer/silent after Stop", testTimerStop, nil},
		{"timer/Reset in every state", testTimerReset, nil},
		{"timer/zero timers do not starve the world", testTimerStarve, nil},
		{"rand/fills and does not repeat", testRand, nil},
		{"pool/work then done, as an event", testPool, nil},
		{"store/what is saved is loaded", testStore, nil},
		{"store/saves are ordered and copied", testStoreOrder, nil},
		{"store/survives a restart", testStoreReopen, func(w *World) bool { return w.Reopen != nil }},
		{"network/errors tell their reasons", testDialErrors, hasNet},
		{"network/a dial can be cancelled", testDialCancel, hasNet},
		{"network/a silent address times out", testDialTimeout, func(w *World) bool { return hasNet(w) && w.Silent.IsValid() }},
		{"network/names and addresses", testLookup, hasNet},
		{"network/a nil answer closes", testNilAnswer, hasNet},
		{"conn/bytes come back in order", testEcho, hasNet},
		{"conn/starts paused and pauses", testPause, hasNet},
		{"conn/a slow reader shows as Queued", testBackPressure, hasNet},
		{"conn/half-close from here", testHalfCloseHere, hasNet},
		{"conn/half-close from there", testHalfCloseThere, hasNet},
		{"conn/Close flushes", testCloseFlushes, hasNet},
		{"conn/Close with an error resets", testCloseResets, hasNet},
		{"conn/silent after Close", testConnSilence, hasNet},
		{"conn/silent after OnDown", testConnDown, hasNet},
		{"conn/calls after the end are harmless", testConnAfterEnd, hasNet},
		{"link/up before done", testLinkUp, hasLinks},
		{"link/dial errors", testLinkErrors, hasLinks},
		{"link/cells arrive whole, copied and in order", testLinkCells, hasLinks},
		{"link/cells made in Room arrive like others", testLinkRoom, hasLinks},
		{"link/Queued falls and OnDrained tells", testLinkDrained, hasLinks},
		{"link/Close is heard there and silent here", testLinkClose, hasLinks},
		{"link/silent after Close in a handler", testLinkSilence, hasLinks},
		{"link/a nil answer closes", testLinkNil, hasLinks},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.need != nil && !test.need(w) {
				t.Skip("not in this world")
			}
			test.f(&suite{T: t, w: w})
		})
	}
}

func hasNet(w *World) bool   { return w.Listen != nil }
func hasLinks(w *World) bool { return w.Links != nil }

// suite is one test in its world. Everything that the node hears goes through event, which
// checks the laws "serial" and "non-reentrant".
type suite struct {
	*testing.T
	w     *World
	busy  atomic.Bool
	plain int // touched by every event without a lock, for the race detector
}

// event runs f as the body of a handler of the node.
func (s *suite) event(f func()) {
	s.Helper()
	if s.busy.Swap(true) {
		s.Error("an event began before another one had ended: calls overlap or a method calls back")
	}
	s.plain++
	f()
	s.busy.Store(false)
}

// do runs f as an event of the node.
func (s *suite) do(f func()) {
	s.Helper()
	s.w.Do(func() { s.event(f) })
}

// await fails the test if cond does not come to hold.
func (s *suite) await(what string, cond func() bool) {
	s.Helper()
	if !s.w.Wait(limit, cond) {
		s.Fatalf("did not happen within %v: %s", limit, what)
	}
}

// settle lets d pass in the node's time, for things that must not happen.
func (s *suite) settle(d time.Duration) {
	s.Helper()
	var passed atomic.Bool
	s.do(func() { s.w.Env.Clock.AfterFunc(d, func() { s.event(func() { passed.Store(true) }) }) })
	s.await("a timer", passed.Load)
}

// guard makes p check the laws whenever it hears something.
func (s *suite) guard(p *ConnProbe) *ConnProbe {
	data, eof, drained, down := p.Data, p.EOF, p.Drained, p.Down
	p.Data = func(b []byte) {
		s.event(func() {
			if len(b) == 0 {
				s.Error("OnData without data")
			}
			if data != nil {
				data(b)
			}
		})
	}
	p.EOF = func() { s.event(orNothing(eof)) }
	p.Drained = func() { s.event(orNothing(drained)) }
	p.Down = func(reason error) {
		s.event(func() {
			if reason == nil {
				s.Error("OnDown without a reason")
			}
			if down != nil {
				down(reason)
			}
		})
	}
	return p
}

func (s *suite) guardLink(p *LinkProbe) *LinkProbe {
	cells, drained, down := p.Cells, p.Drained, p.Down
	p.Cells = func(b []byte) {
		s.event(func() {
			if len(b) == 0 || len(b)%cell.Size != 0 {
				s.Errorf("OnCells with %d bytes, which are not whole cells", len(b))
			}
			if cells != nil {
				cells(b)
			}
		})
	}
	p.Drained = func() { s.event(orNothing(drained)) }
	p.Down = func(reason error) {
		s.event(func() {
			if reason == nil {
				s.Error("OnDown without a reason")
			}
			if down != nil {
				down(reason)
			}
		})
	}
	return p
}

func orNothing(f func()) func() {
	if f == nil {
		return func() {}
	}
	return f
}

// pattern is n bytes that differ from place to place, from a seed.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := newRand(seed, fmt.Sprint("pattern ", n))
	_, _ = r.Read(b)
	return b
}
