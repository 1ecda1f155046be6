package socks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// opened returns an application and the far end of its stream.
func opened(t *testing.T, c Config) (*Server, client, *net.TCPConn) {
	t.Helper()
	o := newOverlay(t)
	c.Dialer = o
	s, address := start(t, c)
	app := dial(t, address)
	app.connect("host.example", 80)
	far, _ := o.next()
	return s, app, far
}

// Both directions carry everything at once, through the large buffers, and all buffers come back.
func TestBytesArriveBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	s, app, far := opened(t, Config{})
	const size = 24 << 20
	source := func(seed byte) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size) }
	sum := func(r io.Reader) string {
		h := sha256.New()
		n, err := io.Copy(h, r)
		return fmt.Sprintf("%d %v %x", n, err, h.Sum(nil))
	}
	var wg sync.WaitGroup
	send := func(c *net.TCPConn, seed byte) {
		if _, err := io.Copy(c, source(seed)); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
	}
	check := func(c *net.TCPConn, seed byte) {
		if got, want := sum(c), sum(source(seed)); got != want {
			t.Errorf("received %s, want %s", got, want)
		}
	}
	wg.Go(func() { send(app.TCPConn, 1) })
	wg.Go(func() { send(far, 2) })
	wg.Go(func() { check(far, 1) })
	wg.Go(func() { check(app.TCPConn, 2) })
	wg.Wait()
	eventually(t, "the connection ended", func() bool { return s.Stats().Open == 0 })
	if st := s.Stats(); st.Sent != size || st.Received != size || st.Aborted != 0 || st.Connected != 1 {
		t.Errorf("counted %+v", st)
	}
	if n := s.buffers.largeOut.Load(); n != 0 {
		t.Errorf("%d large buffers were not given back", n)
	}
}

// An application that has ended its sending side still gets the answer.
func TestHalfCloseByTheApplication(t *testing.T) {
	t.Parallel()
	s, app, far := opened(t, Config{})
	app.send([]byte("question"))
	app.CloseWrite()
	question, err := io.ReadAll(far)
	if err != nil || string(question) != "question" {
		t.Fatalf("the far end read %q, %v", question, err)
	}
	far.Write([]byte("answer"))
	far.Close()
	app.expect([]byte("answer"))
	app.expectEOF()
	eventually(t, "the connection ended", func() bool { return s.Stats().Open == 0 })
}

// An application can go on sending after the far end has ended.
func TestHalfCloseByTheFarEnd(t *testing.T) {
	t.Parallel()
	s, app, far := opened(t, Config{})
	far.Write([]byte("banner"))
	far.CloseWrite()
	app.expect([]byte("banner"))
	app.expectEOF()
	app.send([]byte("still here"))
	app.CloseWrite()
	got, err := io.ReadAll(far)
	if err != nil || string(got) != "still here" {
		t.Fatalf("the far end read %q, %v", got, err)
	}
	eventually(t, "the connection ended", func() bool { return s.Stats().Open == 0 })
	if n := s.Stats().Aborted; n != 0 {
		t.Errorf("counted %d as aborted", n)
	}
}

// A stream that breaks must not look like one that ended, also when the application has ended its side.
func TestBrokenStreamResetsTheApplication(t *testing.T) {
	t.Parallel()
	for _, halfClosed := range []bool{false, true} {
		s, app, far := opened(t, Config{})
		far.Write([]byte("part"))
		app.expect([]byte("part"))
		if halfClosed {
			app.CloseWrite()
			if _, err := io.ReadAll(far); err != nil {
				t.Fatal(err)
			}
		}
		far.SetLinger(0)
		far.Close()
		app.expectReset()
		eventually(t, "the connection ended", func() bool { s := s.Stats(); return s.Open == 0 && s.Aborted == 1 })
	}
}

// An application that resets its connection, or dies, must not look to the far end like one that ended its side.
func TestBrokenApplicationClosesTheStream(t *testing.T) {
	t.Parallel()
	closes := make(chan bool, 1) // whether CloseWrite came first
	near, far, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	_, address := start(t, Config{Dialer: dialFunc(func(context.Context, Request) (net.Conn, error) {
		return &watchedStream{TCPConn: near, closes: closes}, nil
	})})
	app := dial(t, address)
	app.connect("host.example", 80)
	app.SetLinger(0)
	app.Close()
	if receive(t, closes) {
		t.Error("a reset was passed on as an end of file")
	}
}

// watchedStream reports its first Close, and whether its sending side was ended before.
type watchedStream struct {
	*net.TCPConn
	mu     sync.Mutex
	ended  bool
	closed bool
	closes chan<- bool
}

func (w *watchedStream) CloseWrite() error {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	return w.TCPConn.CloseWrite()
}

func (w *watchedStream) Close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		w.closes <- w.ended
	}
	w.mu.Unlock()
	return w.TCPConn.Close()
}

// pipeStream is a stream in memory whose writes fail when told.
type pipeStream struct {
	net.Conn
	writeErr error
}

func (p pipeStream) Write(b []byte) (int, error) {
	if p.writeErr != nil {
		return 0, p.writeErr
	}
	return p.Conn.Write(b)
}

func (p pipeStream) CloseWrite() error { return p.writeErr }

// When the stream takes no more, what had come from it is still delivered; then the connection is reset, not ended. Both
// when the stream says so at once and when it says nothing more.
func TestDataBeforeABreakIsDelivered(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		near, far := net.Pipe()
		defer far.Close()
		_, address := start(t, Config{Dialer: dialFunc(func(context.Context, Request) (net.Conn, error) {
			return pipeStream{near, errors.New("reset")}, nil
		})})
		app := dial(t, address)
		app.connect("host.example", 80)
		app.send([]byte("request"))
		far.Write([]byte("answer"))
		app.expect([]byte("answer"))
		if !silent {
			far.Close() // end of file to the transfer, which knows better
		}
		// The reset may be behind an end of file on the wire, but must be there.
		_, err := io.ReadAll(app)
		for end := time.Now().Add(patience); err == nil && time.Now().Before(end); {
			_, err = app.Write([]byte("x"))
		}
		if err == nil {
			t.Errorf("silent=%v: the connection was never reset", silent)
		}
	}
}

// Connections without traffic end by a reset when they are to: never by default, soon when one side has ended.
func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	const short = 50 * time.Millisecond
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		_, app, far := opened(t, Config{IdleTimeout: short})
		app.expectReset()
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("the stream stayed open")
		}
	})
	t.Run("application ended", func(t *testing.T) {
		t.Parallel()
		_, app, _ := opened(t, Config{HalfClosedTimeout: short})
		app.CloseWrite()
		app.expectReset()
	})
	t.Run("far end ended", func(t *testing.T) {
		t.Parallel()
		s, app, far := opened(t, Config{HalfClosedTimeout: short})
		far.CloseWrite()
		app.expectEOF()
		eventually(t, "the connection ended", func() bool { return s.Stats().Open == 0 })
	})
	t.Run("traffic keeps it", func(t *testing.T) {
		t.Parallel()
		_, app, far := opened(t, Config{IdleTimeout: 500 * time.Millisecond})
		go io.Copy(far, far)
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			app.send([]byte("ping"))
			app.expect([]byte("ping"))
		}
	})
	t.Run("not by default", func(t *testing.T) {
		t.Parallel()
		_, app, far := opened(t, Config{HalfClosedTimeout: short})
		time.Sleep(4 * short)
		app.send([]byte("ping"))
		if _, err := io.ReadFull(far, make([]byte, 4)); err != nil {
			t.Error(err)
		}
	})
}

// A slow reader holds back the sender: nothing in between keeps more than its buffers.
func TestSlowReaderHoldsBackTheSender(t *testing.T) {
	t.Parallel()
	s, app, far := opened(t, Config{})
	blocked := func() uint64 {
		chunk := make([]byte, 64<<10)
		for {
			far.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := far.Write(chunk); err != nil {
				return s.Stats().Received
			}
		}
	}()
	if blocked > 32<<20 {
		t.Errorf("%d bytes went to an application that reads nothing", blocked)
	}
	far.Close()
	n, _ := io.Copy(io.Discard, app)
	if uint64(n) < blocked {
		t.Errorf("%d bytes came out of %d", n, blocked)
	}
}

// Small reads hold small buffers, full ones grow to large ones up to the limit, and all are given back.
func TestBuffersAdaptWithinTheirLimit(t *testing.T) {
	t.Parallel()
	var p buffers
	var held [][]byte
	for i := range maxLargeBuffers + 10 {
		b := p.small()
		if b = p.fit(b, smallBuffer-1); len(b) != smallBuffer {
			t.Fatal("a read that did not fill the buffer made it grow")
		}
		want := largeBuffer
		if i >= maxLargeBuffers {
			want = smallBuffer
		}
		if b = p.fit(b, smallBuffer); len(b) != want {
			t.Fatalf("buffer %d has %d bytes, want %d", i, len(b), want)
		}
		held = append(held, b)
	}
	if b := p.fit(held[0], smallBuffer+1); len(b) != largeBuffer {
		t.Error("a buffer shrank while it was in use")
	}
	held[0] = p.fit(held[0], 1)
	if len(held[0]) != smallBuffer {
		t.Error("a buffer did not shrink")
	}
	for _, b := range held {
		p.put(b)
	}
	if n := p.largeOut.Load(); n != 0 {
		t.Errorf("%d large buffers are out", n)
	}
}

// BenchmarkTransfer measures one download through the server: MB/s of application bytes.
func BenchmarkTransfer(b *testing.B) {
	near, far, err := tcpPair()
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s, _ := New(Config{Dialer: dialFunc(func(context.Context, Request) (net.Conn, error) { return near, nil })})
	go s.Serve(l)
	defer s.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer app.Close()
	app.Write(append(bytes.Clone(greetNone), connectName("host.example", 80)...))
	if _, err := io.ReadFull(app, make([]byte, 12)); err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	b.ResetTimer()
	go func() {
		for range b.N {
			far.Write(chunk)
		}
	}()
	if _, err := io.CopyN(io.Discard, app, int64(b.N)*int64(len(chunk))); err != nil {
		b.Fatal(err)
	}
}
