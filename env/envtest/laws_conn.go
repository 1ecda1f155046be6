package envtest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cepa/env"
)

// far is the clear-net side of one connection, as the server holds it.
type far struct {
	mu    sync.Mutex
	conn  env.Conn
	probe *ConnProbe
}

// do runs f on the server's end, once it is accepted, as an event there.
func (f *far) do(s *suite, fn func(env.Conn)) {
	s.Helper()
	get := func() env.Conn {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.conn
	}
	s.await("the server to accept", func() bool { return get() != nil })
	s.w.DoFar(func() { fn(get()) })
}

// serve starts a server for one connection. prepare, if not nil, sets up its end, which reads
// at once unless paused.
func (s *suite) serve(paused bool, prepare func(c env.Conn, p *ConnProbe)) (netip.AddrPort, *far) {
	f := &far{probe: &ConnProbe{}}
	addr := s.w.Listen(func(c env.Conn) env.ConnEvents {
		f.mu.Lock()
		f.conn = c
		f.mu.Unlock()
		if prepare != nil {
			prepare(c, f.probe)
		}
		c.Pause(paused)
		return f.probe
	})
	return addr, f
}

// dial connects to addr; the near end is guarded and starts as contracts have it: paused.
func (s *suite) dial(addr netip.AddrPort, p *ConnProbe) env.Conn {
	s.Helper()
	var conn env.Conn
	var done atomic.Bool
	s.do(func() {
		s.w.Env.Network.DialConn(addr, limit, func(c env.Conn, err error) env.ConnEvents {
			s.event(func() {
				if err != nil {
					s.Errorf("DialConn: %v", err)
				}
				conn = c
				done.Store(true)
			})
			return s.guard(p)
		})
		if done.Load() {
			s.Error("up was called inside DialConn")
		}
	})
	s.await("a connection", done.Load)
	if conn == nil {
		s.FailNow()
	}
	return conn
}

func (s *suite) awaitBytes(p *ConnProbe, want []byte) {
	s.Helper()
	s.await("data to arrive", func() bool { return len(p.State().Received) >= len(want) })
	if got := p.State().Received; !bytes.Equal(got, want) {
		s.Fatalf("%d bytes arrived, %d were sent, and they are not the same", len(got), len(want))
	}
}

func (s *suite) dialError(addr netip.AddrPort, timeout time.Duration) (err error) {
	s.Helper()
	var done atomic.Bool
	s.do(func() {
		s.w.Env.Network.DialConn(addr, timeout, func(c env.Conn, e error) env.ConnEvents {
			s.event(func() {
				if c != nil {
					s.Error("a failed dial gives a connection")
				}
				err = e
				if done.Swap(true) {
					s.Error("up was called twice")
				}
			})
			return nil
		})
	})
	s.await("a dial to fail", done.Load)
	s.settle(20 * time.Millisecond)
	return err
}

func testDialErrors(s *suite) {
	if err := s.dialError(s.w.Refusing, limit); !errors.Is(err, syscall.ECONNREFUSED) {
		s.Errorf("dialling where nobody listens: %v, want ECONNREFUSED", err)
	}
	if err := s.dialError(netip.AddrPort{}, time.Second); err == nil {
		s.Error("dialling no address at all succeeds")
	}
}

func testDialCancel(s *suite) {
	var done atomic.Bool
	var err error
	s.do(func() {
		cancel := s.w.Env.Network.DialConn(s.w.Silent, limit, func(_ env.Conn, e error) env.ConnEvents {
			s.event(func() {
				err = e
				if done.Swap(true) {
					s.Error("up was called twice")
				}
			})
			return nil
		})
		cancel()
		cancel() // harmless
		if done.Load() {
			s.Error("up was called inside cancel")
		}
	})
	s.await("a cancelled dial to end", done.Load)
	if !errors.Is(err, context.Canceled) {
		s.Errorf("a cancelled dial ended with %v, want context.Canceled", err)
	}
}

func testDialTimeout(s *suite) {
	err := s.dialError(s.w.Silent, 50*time.Millisecond)
	var timeout interface{ Timeout() bool }
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		s.Errorf("dialling a silent address: %v, want a timeout", err)
	}
}

func testLookup(s *suite) {
	var done atomic.Int32
	n := s.w.Env.Network
	s.do(func() {
		n.LookupHost(s.w.Host, limit, func(addrs []netip.Addr, err error) {
			s.event(func() {
				if err != nil || !slices.Contains(addrs, s.w.Addr) {
					s.Errorf("LookupHost(%q) = %v, %v; want %v among them", s.w.Host, addrs, err, s.w.Addr)
				}
				done.Add(1)
			})
		})
		n.LookupHost(s.w.NoHost, limit, func(addrs []netip.Addr, err error) {
			s.event(func() {
				var e *net.DNSError
				if !errors.As(err, &e) || !e.IsNotFound || len(addrs) != 0 {
					s.Errorf("LookupHost(%q) = %v, %v; want a DNSError that says not found", s.w.NoHost, addrs, err)
				}
				done.Add(1)
			})
		})
		n.LookupAddr(s.w.Addr, limit, func(names []string, err error) {
			s.event(func() {
				if (err == nil) != (len(names) > 0) {
					s.Errorf("LookupAddr(%v) = %v, %v; want names or an error", s.w.Addr, names, err)
				}
				done.Add(1)
			})
		})
		if done.Load() != 0 {
			s.Error("a look-up calls back before it returns")
		}
	})
	s.await("three look-ups", func() bool { return done.Load() == 3 })
}

func testNilAnswer(s *suite) {
	addr, far := s.serve(false, nil)
	s.do(func() {
		s.w.Env.Network.DialConn(addr, limit, func(env.Conn, error) env.ConnEvents { return nil })
	})
	s.await("the far end to hear of the end", func() bool {
		st := far.probe.State()
		return st.EOFs+st.Downs > 0
	})
}

func echo(c env.Conn, p *ConnProbe) {
	p.Data = c.Write
	p.EOF = c.CloseWrite
}

func testEcho(s *suite) {
	addr, _ := s.serve(false, echo)
	p := &ConnProbe{}
	c := s.dial(addr, p)
	s.do(func() { c.Pause(false) })
	data := pattern(4, 1<<20)
	for rest := data; len(rest) > 0; {
		s.do(func() {
			for n := 1; n < 70000 && len(rest) > 0; n = n*3 + 1 { // several writes in one event
				part := bytes.Clone(rest[:min(n, len(rest))])
				c.Write(part)
				clear(part)
				rest = rest[len(part):]
			}
			c.Write(nil)
		})
	}
	s.awaitBytes(p, data)
	s.do(func() { c.Close(nil) })
}

func testPause(s *suite) {
	data := pattern(5, 2<<20)
	addr, _ := s.serve(false, func(c env.Conn, _ *ConnProbe) { c.Write(data) })
	p := &ConnProbe{}
	c := s.dial(addr, p)
	s.settle(50 * time.Millisecond)
	if n := p.State().Datas; n != 0 {
		s.Fatalf("a new Conn delivered %d times before it was told to", n)
	}
	total := 0
	for total < len(data) {
		s.do(func() { c.Pause(false) })
		s.await("more data", func() bool { return len(p.State().Received) > total })
		var before int
		s.do(func() { c.Pause(true); before = p.State().Datas })
		s.settle(10 * time.Millisecond)
		st := p.State()
		if st.Datas > before+1 {
			s.Fatalf("%d calls of OnData after Pause, want at most one", st.Datas-before)
		}
		if total > 0 && len(st.Received) == total {
			s.Fatal("nothing came after a pause")
		}
		total = len(st.Received)
		if total > 512<<10 { // enough of pauses
			s.do(func() { c.Pause(true); c.Pause(false); c.Pause(false) })
			break
		}
	}
	s.awaitBytes(p, data)
}

func testBackPressure(s *suite) {
	addr, far := s.serve(true, nil)
	var c env.Conn
	var empty atomic.Bool
	p := &ConnProbe{Drained: func() { empty.Store(c.Queued() == 0) }}
	c = s.dial(addr, p)
	buffers := s.w.Buffers
	if buffers == 0 {
		buffers = 16 << 20
	}
	data := pattern(6, 2*buffers)
	s.do(func() {
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 100_000):] {
			c.Write(rest[:min(len(rest), 100_000)])
		}
	})
	s.settle(100 * time.Millisecond)
	s.do(func() {
		if n := c.Queued(); n < len(data)-buffers || n > len(data) {
			s.Errorf("%d of %d bytes are queued for a reader that does not read", n, len(data))
		}
	})
	far.do(s, func(c env.Conn) { c.Pause(false) })
	s.await("an OnDrained that finds nothing queued", empty.Load)
	s.awaitBytes(far.probe, data)
	s.settle(10 * time.Millisecond) // a last one may be on its way
	after := p.State().Draineds
	s.settle(20 * time.Millisecond)
	if n := p.State().Draineds; n != after {
		s.Errorf("OnDrained was called %d times while nothing was queued", n-after)
	}
}

func testHalfCloseHere(s *suite) {
	answer := pattern(7, 200_000)
	addr, far := s.serve(false, func(c env.Conn, p *ConnProbe) {
		p.EOF = func() { c.Write(answer); c.CloseWrite() }
	})
	p := &ConnProbe{}
	c := s.dial(addr, p)
	question := pattern(8, 300_000)
	s.do(func() { c.Pause(false); c.Write(question); c.CloseWrite() })
	s.awaitBytes(p, answer)
	s.await("EOF", func() bool { return p.State().EOFs == 1 })
	s.awaitBytes(far.probe, question)
	s.settle(20 * time.Millisecond)
	for _, st := range []ConnState{p.State(), far.probe.State()} {
		if st.EOFs != 1 || st.Downs != 0 {
			s.Errorf("%d times EOF and %d times down (%v) after both directions ended, want one EOF", st.EOFs, st.Downs, st.Reason)
		}
	}
	s.do(func() { c.Close(nil) })
}

func testHalfCloseThere(s *suite) {
	greeting := []byte("said before the half-close")
	addr, far := s.serve(false, func(c env.Conn, _ *ConnProbe) { c.Write(greeting); c.CloseWrite() })
	p := &ConnProbe{}
	c := s.dial(addr, p)
	s.do(func() { c.Pause(false) })
	s.await("EOF", func() bool { return p.State().EOFs == 1 })
	s.awaitBytes(p, greeting) // all of it before EOF
	data := pattern(9, 300_000)
	s.do(func() { c.Write(data) })
	s.awaitBytes(far.probe, data)
	s.do(func() { c.CloseWrite() })
	s.await("EOF there", func() bool { return far.probe.State().EOFs == 1 })
	s.do(func() { c.Close(nil) })
}

func testCloseFlushes(s *suite) {
	addr, far := s.serve(true, nil)
	p := &ConnProbe{}
	c := s.dial(addr, p)
	data := pattern(10, 4<<20)
	s.do(func() { c.Pause(false); c.Write(data); c.Close(nil) })
	s.settle(20 * time.Millisecond)
	far.do(s, func(c env.Conn) { c.Pause(false) })
	s.awaitBytes(far.probe, data)
	s.await("EOF", func() bool { return far.probe.State().EOFs == 1 })
	if st := p.State(); st.Draineds+st.Downs+st.EOFs > 0 {
		s.Errorf("after Close: %d drained, %d EOF, %d down", st.Draineds, st.EOFs, st.Downs)
	}
}

func testCloseResets(s *suite) {
	addr, far := s.serve(false, nil)
	c := s.dial(addr, &ConnProbe{})
	s.do(func() { c.Write([]byte("x")) })
	s.awaitBytes(far.probe, []byte("x"))
	s.do(func() { c.Close(errors.New("for a test")) })
	s.await("the far end to hear of the reset", func() bool { return far.probe.State().Downs == 1 })
	st := far.probe.State()
	if !errors.Is(st.Reason, syscall.ECONNRESET) || st.EOFs != 0 {
		s.Errorf("the far end heard %v and %d EOF, want ECONNRESET only", st.Reason, st.EOFs)
	}
}

func testConnSilence(s *suite) {
	for _, reason := range []error{nil, errors.New("for a test")} {
		addr, _ := s.serve(false, func(c env.Conn, p *ConnProbe) {
			c.Write(pattern(11, 1<<20))
			p.Data = c.Write
		})
		var c env.Conn
		p := &ConnProbe{Data: func([]byte) { c.Close(reason) }}
		c = s.dial(addr, p)
		s.do(func() { c.Write(pattern(12, 1<<20)); c.Pause(false) })
		s.await("data", func() bool { return p.State().Datas > 0 })
		draineds := p.State().Draineds
		s.settle(50 * time.Millisecond)
		if st := p.State(); st.Datas != 1 || st.EOFs+st.Downs > 0 || st.Draineds != draineds {
			s.Errorf("after Close(%v): %d times data, %d drained, %d EOF, %d down", reason, st.Datas-1, st.Draineds-draineds, st.EOFs, st.Downs)
		}
	}
}

func testConnDown(s *suite) {
	addr, far := s.serve(false, nil)
	p := &ConnProbe{}
	c := s.dial(addr, p)
	s.do(func() { c.Pause(false); c.Write([]byte("x")) })
	s.awaitBytes(far.probe, []byte("x"))
	far.do(s, func(c env.Conn) { c.Close(errors.New("for a test")) })
	s.await("OnDown", func() bool { return p.State().Downs == 1 })
	if st := p.State(); !errors.Is(st.Reason, syscall.ECONNRESET) || st.EOFs > 0 {
		s.Errorf("a reset is heard as %v and %d EOF", st.Reason, st.EOFs)
	}
	before := p.State()
	s.do(func() { c.Write(pattern(13, 100_000)); c.Pause(true); c.Pause(false); c.CloseWrite(); c.Close(nil) })
	s.settle(20 * time.Millisecond)
	if st := p.State(); st.Datas != before.Datas || st.Draineds != before.Draineds || st.EOFs+st.Downs != 1 {
		s.Errorf("heard after OnDown: %+v", st)
	}
}

func testConnAfterEnd(s *suite) {
	addr, far := s.serve(false, nil)
	p := &ConnProbe{}
	c := s.dial(addr, p)
	s.do(func() {
		c.Write([]byte("a"))
		c.CloseWrite()
		c.Write([]byte("b")) // dropped
		c.CloseWrite()
	})
	s.await("EOF", func() bool { return far.probe.State().EOFs == 1 })
	s.do(func() {
		c.Close(nil)
		c.Close(errors.New("again"))
		c.Write([]byte("c"))
		c.CloseWrite()
		c.Pause(false)
		_ = c.Queued()
	})
	s.settle(20 * time.Millisecond)
	if got := far.probe.State().Received; string(got) != "a" {
		s.Errorf("%q arrived, want %q", got, "a")
	}
}
