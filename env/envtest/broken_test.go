package envtest

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// brokenWorld, in the environment, names the world that TestBrokenWorld is to run.
const brokenWorld = "CEPA_BROKEN_WORLD"

// Each of these worlds breaks one promise, and the suite must notice: a check that cannot fail
// is none.
func TestConformanceNoticesBrokenWorlds(t *testing.T) {
	t.Parallel()
	for name, broken := range brokenWorlds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestBrokenWorld$/"+pattern4(broken.where), "-test.timeout=60s")
			cmd.Env = append(os.Environ(), brokenWorld+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestBrokenWorld/"+broken.where) {
				t.Errorf("the suite did not notice (%v):\n%s", err, out)
			}
		})
	}
}

// pattern4 is the pattern of -test.run for the test of that name.
func pattern4(name string) string {
	return "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
}

// TestBrokenWorld is what TestConformanceNoticesBrokenWorlds runs, and fails.
func TestBrokenWorld(t *testing.T) {
	broken, ok := brokenWorlds[os.Getenv(brokenWorld)]
	if !ok {
		t.Skip("run by TestConformanceNoticesBrokenWorlds")
	}
	Conformance(t, func(*testing.T) *World {
		w := fakeWorld(func(*Fake) {})
		broken.breakIt(w)
		return w
	})
}

var brokenWorlds = map[string]struct {
	where   string // the test that must fail
	breakIt func(w *World)
}{
	"the clock moves during an event": {"clock/now_is_frozen_during_an_event", func(w *World) {
		w.Env.Clock = &brokenClock{Clock: w.Env.Clock, moves: true}
	}},
	"the clock goes back": {"clock/now_never_goes_back", func(w *World) {
		w.Env.Clock = &brokenClock{Clock: w.Env.Clock, backwards: true}
	}},
	"timers of one instant in any order": {"timer/order_of_instants,_then_of_calls", func(w *World) {
		w.Env.Clock = &brokenClock{Clock: w.Env.Clock, blur: time.Nanosecond}
	}},
	"timers run early": {"timer/never_early_and_never_inside_AfterFunc", func(w *World) {
		w.Env.Clock = &brokenClock{Clock: w.Env.Clock, early: time.Nanosecond}
	}},
	"timers run inside AfterFunc": {"timer/never_early_and_never_inside_AfterFunc", func(w *World) {
		w.Env.Clock = &brokenClock{Clock: w.Env.Clock, inside: true}
	}},
	"stopped timers run": {"timer/silent_after_Stop", func(w *World) {
		w.Env.Clock = &brokenClock{Clock: w.Env.Clock, noStop: true}
	}},
	"timers cannot be reset": {"timer/Reset_in_every_state", func(w *World) {
		w.Env.Clock = &brokenClock{Clock: w.Env.Clock, noReset: true}
	}},
	"random bytes are few": {"rand/fills_and_does_not_repeat", func(w *World) {
		w.Env.Rand = brokenRand{w.Env.Rand}
	}},
	"Offload calls back": {"pool/work_then_done,_as_an_event", func(w *World) { w.Env.Pool = inlinePool{} }},
	"Save keeps the caller's slice": {"store/saves_are_ordered_and_copied", func(w *World) {
		w.Env.Store = brokenStore{w.Env, false}
	}},
	"Save calls back": {"store/what_is_saved_is_loaded", func(w *World) { w.Env.Store = brokenStore{w.Env, true} }},
	"nothing survives": {"store/survives_a_restart", func(w *World) {
		w.Reopen = func() env.Store { return NewFake(1).Node("new").Env.Store }
	}},
	"refused dials say something else": {"network/errors_tell_their_reasons", withConn(func(n *brokenNetwork) {
		n.err = errors.New("it did not work")
	})},
	"dials cannot be cancelled": {"network/a_dial_can_be_cancelled", withConn(func(n *brokenNetwork) { n.noCancel = true })},
	"dials never time out":      {"network/a_silent_address_times_out", withConn(func(n *brokenNetwork) { n.noTimeout = true })},
	"any name resolves":         {"network/names_and_addresses", withConn(func(n *brokenNetwork) { n.anyName = true })},
	"a nil answer leaves the connection open": {"network/a_nil_answer_closes", withConn(func(n *brokenNetwork) {
		n.keepNil = true
	})},
	"Write loses bytes": {"conn/bytes_come_back_in_order", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return lossyConn{c} }
	})},
	"Write keeps the caller's slice": {"conn/bytes_come_back_in_order", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return keepingConn{c, n.clock} }
	})},
	"connections start reading": {"conn/starts_paused_and_pauses", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { c.Pause(false); return c }
	})},
	"Pause does nothing": {"conn/starts_paused_and_pauses", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return unpausedConn{c} }
	})},
	"Queued is always nothing": {"conn/a_slow_reader_shows_as_Queued", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return unqueuedConn{c} }
	})},
	"OnDrained is not called": {"conn/a_slow_reader_shows_as_Queued", withConn(func(n *brokenNetwork) {
		n.hear = func(e env.ConnEvents) env.ConnEvents { return neverDrained{e} }
	})},
	"CloseWrite closes both ways": {"conn/half-close_from_here", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return fullCloseConn{c} }
	})},
	"EOF is the end": {"conn/half-close_from_there", withConn(func(n *brokenNetwork) {
		n.hear = func(e env.ConnEvents) env.ConnEvents { return eofIsDown{e} }
	})},
	"Close drops what is queued": {"conn/Close_flushes", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return hastyConn{c} }
	})},
	"Close never resets": {"conn/Close_with_an_error_resets", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return politeConn{c} }
	})},
	"connections are heard after Close": {"conn/silent_after_Close", withConn(func(n *brokenNetwork) {
		n.wrap = func(c env.Conn) env.Conn { return deafConn{c} }
	})},
	"OnDown comes twice": {"conn/silent_after_OnDown", withConn(func(n *brokenNetwork) {
		n.hear = func(e env.ConnEvents) env.ConnEvents { return twiceDown{e} }
	})},
	"links come up after done": {"link/up_before_done", withLinks(func(d *brokenDialer) { d.early = true })},
	"links lie about who dialled": {"link/up_before_done", withLinks(func(d *brokenDialer) {
		d.wrap = func(l env.Link) env.Link { l.Peer().Dialled = false; return l }
	})},
	"anybody may answer": {"link/dial_errors", withLinks(func(d *brokenDialer) { d.anybody = true })},
	"Send keeps the caller's slice": {"link/cells_arrive_whole,_copied_and_in_order", withLinks(func(d *brokenDialer) {
		d.wrap = func(l env.Link) env.Link { return keepingLink{l, d.w.Env.Clock} }
	})},
	"Room lends what is on its way": {"link/cells_made_in_Room_arrive_like_others", withLinks(func(d *brokenDialer) {
		d.wrap = func(l env.Link) env.Link { return &crampedLink{l, make([]byte, 16*cell.Size), d.w.Env.Clock} }
	})},
	"cells are torn": {"link/cells_arrive_whole,_copied_and_in_order", withLinks(func(d *brokenDialer) {
		d.hear = func(e env.LinkEvents) env.LinkEvents { return tornCells{e} }
	})},
	"links do not tell that they drained": {"link/Queued_falls_and_OnDrained_tells", withLinks(func(d *brokenDialer) {
		d.hear = func(e env.LinkEvents) env.LinkEvents { return undrainedLink{e} }
	})},
	"Close of a link does nothing": {"link/Close_is_heard_there_and_silent_here", withLinks(func(d *brokenDialer) {
		d.wrap = func(l env.Link) env.Link { return openLink{l} }
	})},
	"links are heard after Close": {"link/silent_after_Close_in_a_handler", withLinks(func(d *brokenDialer) {
		d.wrap = func(l env.Link) env.Link { return openLink{l} }
	})},
}

type brokenClock struct {
	env.Clock
	moves, backwards, inside, noStop, noReset bool
	blur, early                               time.Duration
	calls                                     int
}

func (c *brokenClock) Now() env.Mono {
	c.calls++
	switch {
	case c.moves:
		return c.Clock.Now().Add(time.Duration(c.calls))
	case c.backwards:
		return c.Clock.Now().Add(-time.Duration(c.calls) * time.Second)
	case c.early > 0:
		return c.Clock.Now().Add(-time.Duration(c.calls))
	}
	return c.Clock.Now()
}

func (c *brokenClock) AfterFunc(d time.Duration, f func()) env.Timer {
	c.calls++
	if c.inside && d <= 0 {
		f()
		return c.Clock.AfterFunc(time.Hour, func() {})
	}
	d += time.Duration(100-c.calls) * c.blur
	return brokenTimer{c.Clock.AfterFunc(d, f), c}
}

type brokenTimer struct {
	env.Timer
	c *brokenClock
}

func (t brokenTimer) Stop() bool {
	if t.c.noStop {
		return true
	}
	return t.Timer.Stop()
}

func (t brokenTimer) Reset(d time.Duration) {
	if !t.c.noReset {
		t.Timer.Reset(d)
	}
}

type brokenRand struct{ env.Rand }

func (r brokenRand) Read(p []byte) (int, error) {
	n, err := r.Rand.Read(p)
	if len(p) > 2000 {
		copy(p[1600:], p[:16])
	}
	return n, err
}

type inlinePool struct{}

func (inlinePool) Offload(work, done func()) { work(); done() }

type brokenStore struct {
	env    env.Env
	inside bool
}

func (s brokenStore) Load(name string) ([]byte, error) { return s.env.Store.Load(name) }
func (s brokenStore) Save(name string, data []byte, done func(error)) {
	if s.inside {
		s.env.Store.Save(name, data, nil)
		done(nil)
		return
	}
	s.env.Clock.AfterFunc(0, func() { s.env.Store.Save(name, data, done) })
}

// brokenNetwork breaks what is seen of connections.
type brokenNetwork struct {
	env.Network
	clock                        env.Clock
	err                          error
	noTimeout, anyName, noCancel bool
	keepNil                      bool
	wrap                         func(env.Conn) env.Conn
	hear                         func(env.ConnEvents) env.ConnEvents
}

func withConn(f func(n *brokenNetwork)) func(w *World) {
	return func(w *World) {
		n := &brokenNetwork{Network: w.Env.Network, clock: w.Env.Clock}
		f(n)
		w.Env.Network = n
	}
}

func (n *brokenNetwork) DialConn(to netip.AddrPort, timeout time.Duration, up func(env.Conn, error) env.ConnEvents) (cancel func()) {
	if n.noTimeout {
		timeout = time.Hour
	}
	cancel = n.Network.DialConn(to, timeout, func(c env.Conn, err error) env.ConnEvents {
		if err != nil && n.err != nil {
			err = n.err
		}
		if c != nil && n.wrap != nil {
			c = n.wrap(c)
		}
		events := up(c, err)
		if events == nil && n.keepNil {
			events = &ConnProbe{}
		}
		if events != nil && n.hear != nil {
			events = n.hear(events)
		}
		return events
	})
	if n.noCancel {
		return func() {}
	}
	return cancel
}

func (n *brokenNetwork) LookupHost(name string, timeout time.Duration, done func([]netip.Addr, error)) {
	n.Network.LookupHost(name, timeout, func(addrs []netip.Addr, err error) {
		if n.anyName {
			addrs, err = []netip.Addr{netip.IPv6Loopback()}, nil
		}
		done(addrs, err)
	})
}

type (
	lossyConn   struct{ env.Conn }
	keepingConn struct {
		env.Conn
		clock env.Clock
	}
	unpausedConn  struct{ env.Conn }
	unqueuedConn  struct{ env.Conn }
	fullCloseConn struct{ env.Conn }
	hastyConn     struct{ env.Conn }
	politeConn    struct{ env.Conn }
	deafConn      struct{ env.Conn }
	neverDrained  struct{ env.ConnEvents }
	eofIsDown     struct{ env.ConnEvents }
	twiceDown     struct{ env.ConnEvents }
)

func (c lossyConn) Write(p []byte) {
	if len(p) < 20_000 {
		c.Conn.Write(p)
	} else {
		c.Conn.Write(append(slices.Clone(p[1:]), 0))
	}
}
func (c keepingConn) Write(p []byte)     { c.clock.AfterFunc(0, func() { c.Conn.Write(p) }) }
func (c unpausedConn) Pause(paused bool) { c.Conn.Pause(false) }
func (c unqueuedConn) Queued() int       { return 0 }
func (c fullCloseConn) CloseWrite()      { c.Close(nil) }
func (c hastyConn) Close(reason error)   { c.Conn.Close(errors.New("at once")) }
func (c politeConn) Close(reason error)  { c.Conn.Close(nil) }
func (c deafConn) Close(reason error)    {}
func (e neverDrained) OnDrained()        {}
func (e eofIsDown) OnEOF()               { e.OnDown(errors.New("EOF")) }
func (e twiceDown) OnDown(reason error)  { e.ConnEvents.OnDown(reason); e.ConnEvents.OnDown(reason) }

// brokenDialer breaks what is seen of links at A.
type brokenDialer struct {
	w       *World
	inner   env.LinkDialer
	links   LinkWorld
	early   bool // done without waiting for LinkUp
	anybody bool // the identity is not checked
	wrap    func(env.Link) env.Link
	hear    func(env.LinkEvents) env.LinkEvents
	wrapped map[env.Link]env.Link
}

func withLinks(f func(d *brokenDialer)) func(w *World) {
	return func(w *World) {
		d := &brokenDialer{w: w, wrapped: map[env.Link]env.Link{}}
		f(d)
		links := w.Links
		w.Links = func(a, b env.LinkHandler) LinkWorld {
			d.links = links(LinkUpFunc(func(l env.Link) env.LinkEvents {
				d.wrapped[l] = l
				if d.wrap != nil {
					d.wrapped[l] = d.wrap(l)
				}
				events := a.LinkUp(d.wrapped[l])
				if events != nil && d.hear != nil {
					events = d.hear(events)
				}
				return events
			}), b)
			d.inner = d.links.Dialer
			l := d.links
			l.Dialer = d
			return l
		}
	}
}

func (d *brokenDialer) DialLink(to env.Target, done func(env.Link, error)) {
	if d.early {
		d.w.Env.Clock.AfterFunc(0, func() { done(nil, nil) })
		done = func(env.Link, error) {}
	}
	if d.anybody {
		to.Identity = d.links.B.Identity
	}
	d.inner.DialLink(to, func(l env.Link, err error) { done(d.wrapped[l], err) })
}

type (
	keepingLink struct {
		env.Link
		clock env.Clock
	}
	crampedLink struct {
		env.Link
		room  []byte
		clock env.Clock
	}
	openLink      struct{ env.Link }
	tornCells     struct{ env.LinkEvents }
	undrainedLink struct{ env.LinkEvents }
)

func (l keepingLink) Send(cells []byte) { l.clock.AfterFunc(0, func() { l.Link.Send(cells) }) }
func (l *crampedLink) Room(int) []byte  { return l.room }
func (l *crampedLink) Send(cells []byte) {
	l.clock.AfterFunc(0, func() { l.Link.Send(cells) })
}
func (l openLink) Close(reason error) {}
func (e undrainedLink) OnDrained()    {}
func (e tornCells) OnCells(cells []byte) {
	e.LinkEvents.OnCells(cells[:1])
	e.LinkEvents.OnCells(cells[1:])
}
