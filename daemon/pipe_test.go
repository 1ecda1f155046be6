package daemon

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"cepa/env"
)

// turns runs what is posted, one after the other, as a loop does.
type turns struct {
	mu      sync.Mutex
	queue   []func()
	wake    sync.Cond
	stopped bool
	done    chan struct{}
}

func newTurns(t *testing.T) *turns {
	l := &turns{done: make(chan struct{})}
	l.wake.L = &l.mu
	go l.run()
	t.Cleanup(l.stop)
	return l
}

func (l *turns) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.queue = append(l.queue, f)
	l.wake.Signal()
	return true
}

func (l *turns) run() {
	defer close(l.done)
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && !l.stopped {
			l.wake.Wait()
		}
		if len(l.queue) == 0 {
			l.mu.Unlock()
			return
		}
		f := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		f()
	}
}

func (l *turns) stop() {
	l.mu.Lock()
	l.stopped = true
	l.wake.Signal()
	l.mu.Unlock()
	<-l.done
}

// do runs f on the loop and waits for it.
func (l *turns) do(f func()) {
	done := make(chan struct{})
	if l.post(func() { f(); close(done) }) {
		<-done
	}
}

// far is the stream's end of a pipe, on the loop.
type far struct {
	conn    env.Conn
	got     []byte
	eof     bool
	down    bool
	reason  error
	drained int
	onData  func([]byte)
	heard   chan struct{} // something happened
}

func (f *far) note() {
	select {
	case f.heard <- struct{}{}:
	default:
	}
}
func (f *far) OnData(p []byte) {
	if f.eof || f.down {
		panic("OnData after the end")
	}
	f.got = append(f.got, p...)
	if f.onData != nil {
		f.onData(p)
	}
	clear(p) // it is the handler's
	f.note()
}
func (f *far) OnEOF() {
	if f.eof || f.down {
		panic("OnEOF after the end")
	}
	f.eof = true
	f.note()
}
func (f *far) OnDrained() { f.drained++; f.note() }
func (f *far) OnDown(e error) {
	if f.down {
		panic("OnDown twice")
	}
	f.down, f.reason = true, e
	f.note()
}

// joined is a pipe with both its ends.
func joined(t *testing.T) (*turns, appConn, *far) {
	l := newTurns(t)
	p := newPipe(l.post, nil)
	f := &far{conn: p, heard: make(chan struct{}, 1)}
	l.do(func() { p.up(f) })
	return l, appConn{pipe: p}, f
}

// await waits until cond holds on the loop.
func (f *far) await(t *testing.T, l *turns, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		ok := false
		l.do(func() { ok = cond() })
		if ok {
			return
		}
		select {
		case <-f.heard:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// TestPipeLosesNothing sends both ways at once, with pauses and odd sizes, and half-closes both
// ways.
func TestPipeLosesNothing(t *testing.T) {
	t.Parallel()
	l, app, f := joined(t)
	up, down := randomBytes(3<<20+17), randomBytes(2<<20+5)
	n := 0
	f.onData = func(p []byte) {
		if n++; n%7 == 0 { // hold the application up for a while
			f.conn.Pause(true)
			l.post(func() { f.conn.Pause(false) })
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		rest := up
		for i := 0; len(rest) > 0; i++ {
			k := min(len(rest), 1+(i*7919)%200_000)
			if _, err := app.Write(rest[:k]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[k:]
		}
		if err := app.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		rest := down
		var feed func()
		feed = func() {
			for len(rest) > 0 && f.conn.Queued() < 100_000 {
				k := min(len(rest), 1+len(rest)%30_000)
				f.conn.Write(rest[:k])
				rest = rest[k:]
			}
			if len(rest) == 0 {
				f.conn.CloseWrite()
				return
			}
			l.post(feed)
		}
		l.post(feed)
	})
	var got []byte
	wg.Go(func() {
		var err error
		if got, err = io.ReadAll(app); err != nil {
			t.Error(err)
		}
	})
	l.do(func() { f.conn.Pause(false) })
	wg.Wait()
	f.await(t, l, func() bool { return f.eof })
	if !bytes.Equal(got, down) || !bytes.Equal(f.got, up) {
		t.Errorf("%d of %d bytes down, %d of %d up", len(got), len(down), len(f.got), len(up))
	}
	if q := f.conn.Queued(); q != 0 {
		t.Errorf("%d bytes are still counted as queued", q)
	}
	if f.drained == 0 {
		t.Error("the stream was not told that the application reads")
	}
}

// TestPipeStartsPaused, and holds up an application whose bytes nobody takes.
func TestPipeHoldsUpTheApplication(t *testing.T) {
	t.Parallel()
	l, app, f := joined(t)
	wrote := make(chan int, 1)
	go func() {
		n, _ := app.Write(make([]byte, 10<<20))
		wrote <- n
	}()
	for range 100 {
		l.do(func() {})
		runtime.Gosched()
	}
	select {
	case n := <-wrote:
		t.Fatalf("%d bytes were taken while the pipe is paused", n)
	default:
	}
	l.do(func() {
		if len(f.got) != 0 || len(app.pipe.held) > pipeBuffers {
			t.Errorf("%d bytes delivered, %d chunks held", len(f.got), len(app.pipe.held))
		}
		f.conn.Pause(false)
	})
	if n := <-wrote; n != 10<<20 {
		t.Errorf("%d bytes were written", n)
	}
}

// TestPipeQueuedFallsByReading: what the application does not read stays counted, which holds
// the far end of the stream up.
func TestPipeQueuedFallsByReading(t *testing.T) {
	t.Parallel()
	l, app, f := joined(t)
	l.do(func() { f.conn.Write(make([]byte, 50_000)); f.conn.Write(make([]byte, 50_000)) })
	if q := f.conn.Queued(); q != 100_000 {
		t.Errorf("%d bytes queued", q)
	}
	if _, err := io.ReadFull(app, make([]byte, 60_000)); err != nil {
		t.Fatal(err)
	}
	f.await(t, l, func() bool { return f.drained > 0 && f.conn.Queued() == 40_000 })
}

// TestPipeWriteCopies: both sides may reuse their buffers at once.
func TestPipeWriteCopies(t *testing.T) {
	t.Parallel()
	l, app, f := joined(t)
	b := []byte("down")
	l.do(func() { f.conn.Write(b); copy(b, "XXXX"); f.conn.Pause(false) })
	got := make([]byte, 4)
	if _, err := io.ReadFull(app, got); err != nil || string(got) != "down" {
		t.Errorf("%q, %v", got, err)
	}
	up := []byte("up")
	if _, err := app.Write(up); err != nil {
		t.Fatal(err)
	}
	copy(up, "XX")
	f.await(t, l, func() bool { return len(f.got) == 2 })
	if string(f.got) != "up" {
		t.Errorf("%q", f.got)
	}
}

var errTest = errors.New("circuit lost")

// TestPipeEnds gives what each side sees of the other's end.
func TestPipeEnds(t *testing.T) {
	t.Parallel()
	read := func(app appConn) (string, error) {
		b, err := io.ReadAll(app)
		return string(b), err
	}
	t.Run("EOF after the data", func(t *testing.T) {
		t.Parallel()
		l, app, f := joined(t)
		l.do(func() { f.conn.Write([]byte("abc")); f.conn.CloseWrite() })
		if s, err := read(app); s != "abc" || err != nil {
			t.Errorf("%q, %v", s, err)
		}
	})
	t.Run("an error drops what was not read", func(t *testing.T) {
		t.Parallel()
		l, app, f := joined(t)
		l.do(func() { f.conn.Write([]byte("abc")); f.conn.Close(errTest) })
		if s, err := read(app); s != "" || !errors.Is(err, errTest) {
			t.Errorf("%q, %v", s, err)
		}
		if _, err := app.Write([]byte("x")); !errors.Is(err, errTest) {
			t.Errorf("writing: %v", err)
		}
	})
	t.Run("an error after EOF is not an orderly end", func(t *testing.T) {
		t.Parallel()
		l, app, f := joined(t)
		l.do(func() { f.conn.Write([]byte("abc")); f.conn.CloseWrite(); f.conn.Close(errTest) })
		if s, err := read(app); s != "" || !errors.Is(err, errTest) {
			t.Errorf("%q, %v", s, err)
		}
	})
	t.Run("an orderly close keeps what was not read", func(t *testing.T) {
		t.Parallel()
		l, app, f := joined(t)
		l.do(func() { f.conn.Write([]byte("abc")); f.conn.CloseWrite(); f.conn.Close(nil); f.conn.Close(errTest) })
		if s, err := read(app); s != "abc" || err != nil {
			t.Errorf("%q, %v", s, err)
		}
	})
	t.Run("a close without EOF is never taken for one", func(t *testing.T) {
		t.Parallel()
		l, app, f := joined(t)
		l.do(func() { f.conn.Write([]byte("abc")); f.conn.Close(nil) })
		if s, err := read(app); s != "abc" || err == nil {
			t.Errorf("%q, %v", s, err)
		}
	})
	t.Run("a reader and a writer that wait are woken", func(t *testing.T) {
		t.Parallel()
		l, app, f := joined(t)
		errs := make(chan error, 2)
		go func() { _, err := app.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := app.Write(make([]byte, 1<<20)); errs <- err }()
		l.do(func() { f.conn.Close(errTest) })
		for range 2 {
			if err := <-errs; !errors.Is(err, errTest) {
				t.Error(err)
			}
		}
	})
	t.Run("the application's own close wakes them too", func(t *testing.T) {
		t.Parallel()
		l, app, f := joined(t)
		errs := make(chan error, 2)
		go func() { _, err := app.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := app.Write(make([]byte, 1<<20)); errs <- err }()
		if err := app.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		f.await(t, l, func() bool { return f.down })
		if f.reason == nil || f.eof {
			t.Errorf("the abort looks like an end: %v, EOF %v", f.reason, f.eof)
		}
		for _, err := range []error{app.Close(), app.CloseWrite()} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
	t.Run("nothing is written after CloseWrite", func(t *testing.T) {
		t.Parallel()
		_, app, _ := joined(t)
		if err := app.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := app.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := app.CloseWrite(); err != nil {
			t.Error("CloseWrite twice:", err)
		}
	})
}

// TestPipeCloseKeepsItsWord: what was written before CloseWrite reaches the stream although the
// application closes and the stream is paused.
func TestPipeCloseAfterCloseWrite(t *testing.T) {
	t.Parallel()
	data := randomBytes(200_000)
	for _, c := range []struct {
		name             string
		farEOF, readIt   bool
		wantEOF, wantEnd bool
	}{
		{"both ended, all read", true, true, true, false},
		{"the far end has not ended", false, true, false, true},
		{"both ended, not all read", true, false, false, true}, // the stream must not wait for a reader
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, app, f := joined(t)
			if _, err := app.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := app.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			l.do(func() {
				f.conn.Write([]byte("answer"))
				if c.farEOF {
					f.conn.CloseWrite()
				}
			})
			if c.readIt {
				if _, err := io.ReadFull(app, make([]byte, 6)); err != nil {
					t.Fatal(err)
				}
			}
			if err := app.Close(); err != nil {
				t.Fatal(err)
			}
			l.do(func() {})
			l.do(func() { f.conn.Pause(false) })
			f.await(t, l, func() bool { return len(f.got) == len(data) && (f.eof || f.down) })
			if !bytes.Equal(f.got, data) || f.eof != c.wantEOF || f.down != c.wantEnd {
				t.Errorf("%d bytes, EOF %v, down %v", len(f.got), f.eof, f.down)
			}
			l.do(func() { f.conn.Close(nil) })
		})
	}
}

// TestPipeOnAStoppedLoop: nobody waits for a loop that is gone.
func TestPipeOnAStoppedLoop(t *testing.T) {
	t.Parallel()
	l, app, _ := joined(t)
	l.stop()
	if _, err := app.Write(make([]byte, 1<<20)); err == nil {
		t.Error("bytes were taken by a loop that has stopped")
	}
	if err := app.Close(); err != nil {
		t.Error(err)
	}
}

// TestPipeClosedInFlight closes either side at any moment with data in flight both ways; under
// the race detector this is the test of the pipe's lock.
func TestPipeClosedInFlight(t *testing.T) {
	t.Parallel()
	for i := range 200 {
		l, app, f := joined(t)
		l.do(func() { f.conn.Pause(false) })
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := app.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		})
		wg.Go(func() { _, _ = io.Copy(io.Discard, app) })
		var feed func()
		feed = func() {
			if f.conn.Queued() < 1<<20 {
				f.conn.Write(make([]byte, 5000))
			}
			if !f.down {
				l.post(feed)
			}
		}
		l.post(feed)
		for range i % 20 {
			runtime.Gosched()
		}
		if i%2 == 0 {
			_ = app.Close()
		} else {
			l.do(func() { f.conn.Close(errTest); f.down = true })
		}
		wg.Wait()
		l.do(func() { f.down = true })
		l.stop()
	}
}
