package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cepa/cell"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	d := fails(io.EOF)
	for _, c := range []Config{{}, {Dialer: d, MaxConns: -1}, {Dialer: d, HandshakeTimeout: -1}, {Dialer: d, DialTimeout: -1},
		{Dialer: d, IdleTimeout: -1}, {Dialer: d, HalfClosedTimeout: -1}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	s, err := New(Config{Dialer: d})
	if err != nil || s.config.MaxConns != 4096 || s.config.HandshakeTimeout != 10*time.Second || s.config.IdleTimeout != 0 {
		t.Errorf("defaults are %+v, %v", s.config, err)
	}
}

// waits is a Dialer that never has an answer: it tells the test when it begins and why it ended. It keeps the promise to
// end with its context unless it is deaf.
type waits struct {
	began chan struct{}
	ended chan error
	deaf  chan struct{} // closed by the test; nil in one that listens
	late  net.Conn      // what a deaf one returns in the end
}

func newWaits() *waits { return &waits{began: make(chan struct{}, 100), ended: make(chan error, 100)} }

func (w *waits) Dial(ctx context.Context, _ Request) (net.Conn, error) {
	w.began <- struct{}{}
	if w.deaf != nil {
		<-w.deaf
		return w.late, nil
	}
	<-ctx.Done()
	w.ended <- context.Cause(ctx)
	return nil, ctx.Err()
}

// An application that goes away cancels its dial, whether it closes, resets, or had sent something ahead and resets.
func TestHangUpCancelsTheDial(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		early string
		reset bool
	}{{"", false}, {"", true}, {"early", true}} {
		w := newWaits()
		s, address := start(t, Config{Dialer: w})
		c := dial(t, address)
		c.send(slices.Concat(greetNone, connectName("host.example", 80), []byte(test.early)))
		receive(t, w.began)
		if test.reset {
			c.expect([]byte{5, 0}) // nothing unread, so that the kernel's own reset is not what is tested
			c.SetLinger(0)
		}
		c.Close()
		if err := receive(t, w.ended); !errors.Is(err, errHungUp) {
			t.Errorf("%+v: the dial ended by %v", test, err)
		}
		eventually(t, "the connection ended", func() bool { return s.Stats().Open == 0 })
		if got := s.Stats().Refused; got["hung up"] != 1 || len(got) != 1 {
			t.Errorf("%+v: counted %v", test, got)
		}
	}
}

// An application that sends its request, more, and the end at once is not taken for one that hung up.
func TestHalfCloseBehindEarlyDataIsNoHangUp(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	o := newOverlay(t)
	_, address := start(t, Config{Dialer: dialFunc(func(ctx context.Context, r Request) (net.Conn, error) {
		select {
		case <-answer:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return o.Dial(ctx, r)
	})})
	c := dial(t, address)
	c.send(slices.Concat(greetNone, connectName("host.example", 80), []byte("question")))
	c.CloseWrite()
	c.expect([]byte{5, 0})
	close(answer)
	c.expect(reply(0))
	far, _ := o.next()
	if got, err := io.ReadAll(far); err != nil || string(got) != "question" {
		t.Errorf("the far end read %q, %v", got, err)
	}
	far.Write([]byte("answer"))
	far.Close()
	c.expect([]byte("answer"))
	c.expectEOF()
}

// A dial without an answer ends with code 6 when its time is up, also when the Dialer does not listen; a stream that it
// brings afterwards is closed.
func TestDialWithoutAnAnswerTimesOut(t *testing.T) {
	t.Parallel()
	w := newWaits()
	_, address := start(t, Config{Dialer: w, DialTimeout: 50 * time.Millisecond})
	c := dial(t, address)
	c.send(slices.Concat(greetNone, connectName("host.example", 80), []byte("early")))
	c.expect(append([]byte{5, 0}, reply(6)...))
	c.expectEOF()
	if err := receive(t, w.ended); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the dial ended by %v", err)
	}

	near, far, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	deaf := &waits{began: make(chan struct{}, 1), deaf: make(chan struct{}), late: near}
	_, address = start(t, Config{Dialer: deaf, DialTimeout: 50 * time.Millisecond})
	c = dial(t, address)
	c.send(slices.Concat(greetNone, connectName("host.example", 80)))
	c.expect(append([]byte{5, 0}, reply(6)...))
	close(deaf.deaf)
	far.SetDeadline(time.Now().Add(patience))
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the late stream was not closed: %v", err)
	}
}

// A Dialer that breaks its contract costs one connection, an answer and a log line, not the process.
func TestBugsOfTheDialerAreSurvived(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]dialFunc{
		"panics":             func(context.Context, Request) (net.Conn, error) { panic("for host.example") },
		"nil stream":         func(context.Context, Request) (net.Conn, error) { return nil, nil },
		"without CloseWrite": func(context.Context, Request) (net.Conn, error) { a, _ := net.Pipe(); return a, nil },
	} {
		var logged logBuffer
		s, address := start(t, Config{Dialer: broken, Log: logged.logger()})
		for range 2 {
			c := dial(t, address)
			c.send(slices.Concat(greetNone, connectName("host.example", 80)))
			c.expect(append([]byte{5, 0}, reply(1)...))
			c.expectEOF()
		}
		if n := s.Stats().Panics; n != 2 {
			t.Errorf("%s: counted %d", name, n)
		}
		if text := logged.String(); strings.Count(text, "level=ERROR") != 1 || strings.Contains(text, "host.example") {
			t.Errorf("%s: logged %s", name, text)
		}
	}
}

// A stream whose methods panic costs its connection, which is reset.
func TestPanicInATransferIsSurvived(t *testing.T) {
	t.Parallel()
	for _, inRead := range []bool{true, false} {
		s, address := start(t, Config{Dialer: dialFunc(func(context.Context, Request) (net.Conn, error) {
			near, _ := net.Pipe()
			return panicStream{pipeStream{near, nil}, inRead}, nil
		})})
		c := dial(t, address)
		c.connect("host.example", 80)
		if !inRead {
			c.send([]byte("x"))
		}
		c.expectReset()
		eventually(t, "the connection ended", func() bool { return s.Stats().Open == 0 })
		if n := s.Stats().Panics; n != 1 {
			t.Errorf("counted %d", n)
		}
	}
}

type panicStream struct {
	pipeStream
	inRead bool
}

func (p panicStream) Read(b []byte) (int, error) {
	if p.inRead {
		panic("in Read")
	}
	return p.pipeStream.Read(b)
}

func (p panicStream) Write(b []byte) (int, error) {
	if !p.inRead {
		panic("in Write")
	}
	return p.pipeStream.Write(b)
}

// At the cap an application is told so, connections that say nothing give way, and those that are open are unharmed.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	o := newOverlay(t)
	var logged logBuffer
	s, address := start(t, Config{Dialer: o, MaxConns: 2, Log: logged.logger()})
	silent := []client{dial(t, address), dial(t, address)}
	eventually(t, "both were accepted", func() bool { return s.Stats().Open == 2 })

	open := []client{dial(t, address), dial(t, address)}
	var ends []*net.TCPConn
	for _, c := range open {
		c.connect("host.example", 80)
		far, _ := o.next()
		ends = append(ends, far)
	}
	for _, c := range silent {
		c.expectReset()
	}
	for range 3 {
		c := dial(t, address)
		c.send(slices.Concat(greetNone, connectName("host.example", 80)))
		c.expect(append([]byte{5, 0}, reply(1)...))
		c.expectEOF()
	}
	var crowd []net.Conn
	for range refusalSlots + 10 { // more than are heard out; the rest may be reset before their connect returns
		if c, err := net.Dial("tcp", address); err == nil {
			defer c.Close()
			crowd = append(crowd, c)
		}
	}
	eventually(t, "the rest were closed", func() bool { return s.Stats().Refused["connection limit"] >= 2+3+10 })
	if n := s.Stats().Open; n > 2+refusalSlots {
		t.Errorf("%d connections are open", n)
	}
	for _, c := range crowd {
		c.Close()
	}
	open[0].Close()
	ends[0].Close()
	eventually(t, "there is room again", func() bool { return s.Stats().Open == 1 })
	dial(t, address).connect("host.example", 80)
	if n := strings.Count(logged.String(), "connection limit"); n != 1 {
		t.Errorf("the limit was logged %d times", n)
	}
}

// Applications that do not close after a refusal do not keep others out.
func TestRefusedConnectionsGiveWay(t *testing.T) {
	t.Parallel()
	_, address := start(t, Config{MaxConns: 1, Dialer: fails(&Error{Reason: cell.ReasonPolicy})})
	for range 20 {
		c := dial(t, address)
		c.send(slices.Concat(greetNone, connectName("host.example", 80)))
		c.expect(append([]byte{5, 0}, reply(2)...))
		c.expectEOF() // so it lingers
	}
}

// faultyListener fails some accepts.
type faultyListener struct {
	net.Listener
	mu       sync.Mutex
	failures int
}

func (l *faultyListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// A failed accept does not end the service, and is logged once, not each time.
func TestAcceptErrorsAreSurvived(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var logged logBuffer
	o := newOverlay(t)
	s := startOn(t, Config{Dialer: o, Log: logged.logger()}, &faultyListener{Listener: l, failures: 4})
	dial(t, l.Addr().String()).connect("host.example", 80)
	if n := s.Stats().AcceptErrs; n != 4 {
		t.Errorf("counted %d failed accepts", n)
	}
	if n := strings.Count(logged.String(), "level=WARN"); n != 1 {
		t.Errorf("logged %s", logged.String())
	}
}

// elsewhere is a listener that claims an address which is not loopback.
type elsewhere struct{ net.Listener }

func (elsewhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 9850} }

// Whoever opens the port to other machines is warned; whoever does not is not.
func TestPortBeyondLoopbackIsWarnedOf(t *testing.T) {
	t.Parallel()
	for _, beyond := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		if beyond {
			l = elsewhere{l}
		}
		var logged logBuffer
		o := newOverlay(t)
		startOn(t, Config{Dialer: o, Log: logged.logger()}, l)
		dial(t, address).connect("host.example", 80)
		if warned := strings.Contains(logged.String(), "beyond loopback"); warned != beyond {
			t.Errorf("beyond=%v: logged %q", beyond, logged.String())
		}
	}
}

// A listener that somebody else closed is an error that the caller must hear of.
func TestClosedListenerEndsServe(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Dialer: fails(io.EOF)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	s.Close()
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Close returned %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Close left the listener open: %v", err)
	}
}

// Close ends everything at once: silent connections, dials, transfers, several listeners.
func TestCloseIsPrompt(t *testing.T) {
	t.Parallel()
	o, w := newOverlay(t), newWaits()
	s, err := New(Config{Dialer: dialFunc(func(ctx context.Context, r Request) (net.Conn, error) {
		if r.Port == 1 {
			return w.Dial(ctx, r)
		}
		return o.Dial(ctx, r)
	})})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 2)
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, l.Addr().String())
		go func() { served <- s.Serve(l) }()
	}
	var apps []client
	for _, address := range addresses {
		halfClosed := dial(t, address)
		halfClosed.connect("host.example", 80)
		far, _ := o.next()
		halfClosed.CloseWrite()
		if _, err := io.ReadAll(far); err != nil {
			t.Fatal(err)
		}
		silent, dialling, transferring := dial(t, address), dial(t, address), dial(t, address)
		dialling.send(slices.Concat(greetNone, connectName("host.example", 1)))
		dialling.expect([]byte{5, 0})
		receive(t, w.began)
		transferring.connect("host.example", 80)
		o.next()
		apps = append(apps, halfClosed, silent, dialling, transferring)
	}
	eventually(t, "all are accepted", func() bool { return s.Stats().Open == 8 })
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("Close took %v", took)
	}
	for range addresses {
		if err := receive(t, served); err != nil {
			t.Errorf("Serve returned %v", err)
		}
		receive(t, w.ended)
	}
	for _, c := range apps {
		c.expectReset()
	}
	if s.Stats().Open != 0 || s.Close() != nil {
		t.Error("connections are left, or a second Close fails")
	}
}

// A thousand connections at once are served, and afterwards nothing is left of them: no goroutine, no descriptor. Not
// parallel, because it counts those of the whole process.
func TestThousandConnectionsLeaveNothingBehind(t *testing.T) {
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0 // not Linux: only goroutines are counted
		}
		return len(entries)
	}
	goroutinesBefore, filesBefore := runtime.NumGoroutine(), files()
	echo := dialFunc(func(context.Context, Request) (net.Conn, error) {
		near, far, err := tcpPair()
		if err == nil {
			go func() { io.Copy(far, far); far.Close() }()
		}
		return near, err
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Dialer: echo})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()

	const count = 1000
	var all, opened sync.WaitGroup
	opened.Add(count)
	for i := range count {
		all.Go(func() {
			err := echoOnce(l.Addr().String(), i, func() { opened.Done(); opened.Wait() })
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	eventually(t, "all ended", func() bool { return s.Stats().Open == 0 })
	if st := s.Stats(); st.Connected != count || st.Aborted != 0 || len(st.Refused) != 0 {
		t.Errorf("counted %+v", st)
	}
	eventually(t, "no descriptor is left", func() bool { return files() <= filesBefore+2 }) // the listener, and the poller's
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	receive(t, served)
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutinesBefore })
}

// echoOnce opens a connection, meets the others in it, and sends and receives a message with half-close.
func echoOnce(address string, i int, meet func()) error {
	meetOnce := sync.OnceFunc(meet)
	defer meetOnce()
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * patience))
	c.Write(slices.Concat(greetNone, connectName("host.example", 80)))
	if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
		return err
	}
	meetOnce()
	message := fmt.Appendf(nil, "message %d", i)
	c.Write(message)
	c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, message) {
		err = fmt.Errorf("%q came back as %q", message, got)
	}
	return err
}

// Whatever happens, no log line at any level names a destination, a user, a password or a client.
func TestLogsNameNobody(t *testing.T) {
	t.Parallel()
	var logged logBuffer
	o := newOverlay(t)
	verdict := map[uint16]error{1: &Error{Reason: cell.ReasonRefused, Text: "secret-host.example refused"}, 2: errors.New("secret-host.example failed")}
	_, address := start(t, Config{Log: logged.logger(), MaxConns: 2, Dialer: dialFunc(func(ctx context.Context, r Request) (net.Conn, error) {
		if err := verdict[r.Port]; err != nil {
			return nil, err
		}
		if r.Port == 3 {
			panic(r.Host)
		}
		return o.Dial(ctx, r)
	})})
	var secrets []string
	for port := range uint16(8) {
		c := dial(t, address)
		secrets = append(secrets, c.LocalAddr().String())
		c.send(slices.Concat([]byte{5, 1, 2}, password("secret-user", "secret-password"), connectName("secret-host.example", port)))
		c.expect([]byte{5, 2, 1, 0})
		io.ReadFull(c, make([]byte, 10))
	}
	c := dial(t, address)
	c.send([]byte("GET http://secret-host.example/ HTTP/1.1\r\n\r\n"))
	io.Copy(io.Discard, c)
	text := logged.String()
	if !strings.Contains(text, "level=INFO") || !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "level=WARN") {
		t.Fatalf("the test reached too little: %s", text)
	}
	for _, secret := range append(secrets, "secret-") {
		if strings.Contains(text, secret) {
			t.Errorf("logged %q: %s", secret, text)
		}
	}
}

// logBuffer keeps log lines of all levels.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
