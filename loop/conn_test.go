package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cepa/env"
	"cepa/env/envtest"
)

// serve runs handle in a goroutine for each connection: a far end that is no Conn of ours.
func serve(t testing.TB, handle func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// dial connects l to addr; begin is called with the connection in up.
func dial(t testing.TB, l *Loop, addr netip.AddrPort, events env.ConnEvents, begin func(env.Conn)) {
	t.Helper()
	done := make(chan error, 1)
	do(t, l, func() {
		l.Env().Network.DialConn(addr, 10*time.Second, func(c env.Conn, err error) env.ConnEvents {
			if err == nil && begin != nil {
				begin(c)
			}
			done <- err
			return events
		})
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// descriptors is how many files the process has open, where that can be known.
func descriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// Whatever way a connection ends, its goroutines and its descriptor go. Not parallel: it counts
// what the process has.
func TestConnectionsLeaveNothingBehind(t *testing.T) {
	l := start(t, Options{})
	addr := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err != nil {
			return
		}
		switch first[0] {
		case 'r': // reset
			_ = c.SetLinger(0)
		case 'e': // echo
			_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // not with splice: it keeps pipes
		case 'h': // half-close, then wait
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	})
	reason := errors.New("for a test")
	ways := map[string]func(probe *envtest.ConnProbe) func(env.Conn){
		"never resumed, reset":  func(*envtest.ConnProbe) func(env.Conn) { return func(c env.Conn) { c.Close(reason) } },
		"never resumed, closed": func(*envtest.ConnProbe) func(env.Conn) { return func(c env.Conn) { c.Close(nil) } },
		"refused":               nil,
		"written and closed": func(*envtest.ConnProbe) func(env.Conn) {
			return func(c env.Conn) { c.Write([]byte("echo")); c.Close(nil) }
		},
		"echo, then closed": func(p *envtest.ConnProbe) func(env.Conn) {
			return func(c env.Conn) {
				p.Data = func([]byte) { c.Close(nil) }
				c.Write([]byte("echo"))
				c.Pause(false)
			}
		},
		"echo, then reset": func(p *envtest.ConnProbe) func(env.Conn) {
			return func(c env.Conn) {
				p.Data = func([]byte) { c.Close(reason) }
				c.Write(bytes.Repeat([]byte("echo"), 50_000))
				c.Pause(false)
			}
		},
		"half-close both ways": func(p *envtest.ConnProbe) func(env.Conn) {
			return func(c env.Conn) {
				p.EOF = func() { c.Close(nil) }
				c.Write([]byte("e"))
				c.CloseWrite()
				c.Pause(false)
			}
		},
		"half-closed by the far end": func(p *envtest.ConnProbe) func(env.Conn) {
			return func(c env.Conn) {
				p.EOF = func() { c.Write([]byte("answer")); c.Close(nil) }
				c.Write([]byte("h"))
				c.Pause(false)
			}
		},
		"reset by the far end": func(p *envtest.ConnProbe) func(env.Conn) {
			return func(c env.Conn) { c.Write([]byte("r")); c.Pause(false) }
		},
		"reset by the far end while writing": func(p *envtest.ConnProbe) func(env.Conn) {
			return func(c env.Conn) { c.Write(bytes.Repeat([]byte("r"), 16<<20)) } // more than kernels hold
		},
	}
	do(t, l, func() { l.Env().Pool.Offload(func() {}, func() {}) })
	goroutines, files := runtime.NumGoroutine(), descriptors()
	for name, way := range ways {
		for range 6 {
			if way == nil {
				do(t, l, func() {
					l.Env().Network.DialConn(addr, time.Second, func(env.Conn, error) env.ConnEvents { return nil })
				})
				continue
			}
			p := &envtest.ConnProbe{}
			dial(t, l, addr, p, way(p))
		}
		if !wait(10*time.Second, func() bool { s := l.Stats(); return s.Conns+s.Dials == 0 }) {
			t.Errorf("%s: %+v", name, l.Stats())
		}
	}
	if !wait(10*time.Second, func() bool { return runtime.NumGoroutine() <= goroutines+1 && descriptors() <= files }) {
		stacks := make([]byte, 1<<16)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Errorf("%d goroutines and %d files before, %d and %d after\n%s",
			goroutines, files, runtime.NumGoroutine(), descriptors(), stacks)
	}
}

// A paused connection holds a bounded amount, and TCP holds back the sender.
func TestPauseStopsReading(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	var sent atomic.Int64
	addr := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		_ = c.SetWriteBuffer(64 << 10)
		block := make([]byte, 64<<10)
		for {
			n, err := c.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	p := &envtest.ConnProbe{}
	var conn env.Conn
	dial(t, l, addr, p, func(c env.Conn) { conn = c; c.Pause(false); p.Data = func([]byte) { c.Pause(true) } })
	if !wait(10*time.Second, func() bool { return p.State().Datas == 1 }) {
		t.Fatal("nothing came")
	}
	var before int64
	wait(10*time.Second, func() bool { // the sender comes to a stop
		before = sent.Load()
		time.Sleep(100 * time.Millisecond)
		return sent.Load() == before
	})
	if p.State().Datas != 1 || before > 32<<20 {
		t.Errorf("%d batches were delivered and %d bytes taken from the sender after a pause", p.State().Datas, before)
	}
	do(t, l, func() { conn.Close(errors.New("for a test")) })
}

// What was written before Close(nil) arrives, also when the far end has sent what nobody read:
// the kernel answers the closing of such a socket with a reset that destroys data under way.
func TestCloseWithUnreadDataDoesNotLoseTheAnswer(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	answer := bytes.Repeat([]byte("answer"), 20_000)
	got := make(chan error, 1)
	addr := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = c.Write(bytes.Repeat([]byte("unread"), 10_000))
		time.Sleep(50 * time.Millisecond) // the answer and the end arrive meanwhile
		data, err := io.ReadAll(c)
		if err == nil && !bytes.Equal(data, answer) {
			err = errors.New("the answer arrived in part")
		}
		got <- err
	})
	dial(t, l, addr, &envtest.ConnProbe{}, func(c env.Conn) { c.Write(answer); c.Close(nil) })
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// An application that neither reads nor ends cannot hold the loop's end for long.
func TestStopDoesNotWaitForSlowReaders(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	block := make(chan struct{})
	defer close(block)
	addr := serve(t, func(c *net.TCPConn) { defer c.Close(); <-block })
	dial(t, l, addr, &envtest.ConnProbe{}, func(c env.Conn) { c.Pause(false) })
	dial(t, l, addr, &envtest.ConnProbe{}, func(c env.Conn) { c.Write(make([]byte, 32<<20)); c.Close(nil) })
	began := time.Now()
	stop(t, l)
	if took := time.Since(began); took > 2*abandonTime {
		t.Errorf("the loop ended after %v", took)
	}
}

// A connection of another kind than TCP, which cannot be half-closed or reset.
func TestAdoptedPipe(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	near, far := net.Pipe()
	p := &envtest.ConnProbe{}
	var conn env.Conn
	l.Adopt(near, func(c env.Conn) env.ConnEvents {
		conn = c
		c.Write([]byte("to the application"))
		c.Pause(false)
		return p
	})
	buf := make([]byte, 18)
	if _, err := io.ReadFull(far, buf); err != nil || string(buf) != "to the application" {
		t.Fatalf("%q, %v", buf, err)
	}
	data := bytes.Repeat([]byte("0123456789"), 30_000)
	if _, err := far.Write(data); err != nil {
		t.Fatal(err)
	}
	if !wait(10*time.Second, func() bool { return len(p.State().Received) == len(data) }) || !bytes.Equal(p.State().Received, data) {
		t.Errorf("%d of %d bytes arrived, or others", len(p.State().Received), len(data))
	}
	do(t, l, func() { conn.Write([]byte("last")); conn.Close(nil) })
	if rest, err := io.ReadAll(far); err != nil || string(rest) != "last" {
		t.Errorf("%q, %v", rest, err)
	}
	if !wait(time.Second, func() bool { return l.Stats().Conns == 0 }) {
		t.Error("the connection is still open")
	}
}

func TestAdoptAfterStopCloses(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	stop(t, l)
	near, far := net.Pipe()
	if l.Adopt(near, func(env.Conn) env.ConnEvents { t.Error("up is called"); return nil }) {
		t.Error("Adopt says true after Stop")
	}
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
}

// Reasons reach the actor as errors that it can tell apart.
func TestReasonsOfDown(t *testing.T) {
	t.Parallel()
	l := start(t, Options{})
	dialled := make(chan struct{})
	addr := serve(t, func(c *net.TCPConn) { <-dialled; _ = c.SetLinger(0); _ = c.Close() })
	for name, begin := range map[string]func(env.Conn){
		"reading": func(c env.Conn) { c.Pause(false) },
		"writing": func(c env.Conn) { c.Write(make([]byte, 32<<20)) },
	} {
		p := &envtest.ConnProbe{}
		dial(t, l, addr, p, begin)
		dialled <- struct{}{}
		if !wait(10*time.Second, func() bool { return p.State().Downs == 1 }) {
			t.Fatalf("%s: OnDown was not called", name)
		}
		err := p.State().Reason
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%s: %v, want ECONNRESET or EPIPE", name, err)
		}
	}
}

// BenchmarkConn moves data through the loop: in on one connection and out on another.
func BenchmarkConn(b *testing.B) {
	l := start(b, Options{})
	sink := serve(b, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c})
	})
	total := int64(b.N) * readSize
	source := serve(b, func(c *net.TCPConn) {
		defer c.Close()
		block := make([]byte, readSize)
		for sent := int64(0); sent < total; sent += readSize {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	done := make(chan struct{})
	var in, out env.Conn
	const most = 1 << 20
	eof := false
	end := func() {
		if eof && out.Queued() == 0 {
			close(done)
			eof = false
		}
	}
	pOut := &events{drained: func() {
		if out.Queued() < most {
			in.Pause(false)
		}
		end()
	}}
	pIn := &events{
		data: func(p []byte) {
			out.Write(p)
			if out.Queued() >= most {
				in.Pause(true)
			}
		},
		eof: func() { eof = true; end() },
	}
	b.SetBytes(readSize)
	b.ReportAllocs()
	dial(b, l, sink, pOut, func(c env.Conn) { out = c })
	dial(b, l, source, pIn, func(c env.Conn) { in = c; c.Pause(false) })
	<-done
}

// events are functions as env.ConnEvents.
type events struct {
	data         func([]byte)
	eof, drained func()
}

func (e *events) OnData(p []byte) {
	if e.data != nil {
		e.data(p)
	}
}
func (e *events) OnEOF() {
	if e.eof != nil {
		e.eof()
	}
}
func (e *events) OnDrained() {
	if e.drained != nil {
		e.drained()
	}
}
func (e *events) OnDown(error) {}
