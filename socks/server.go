package socks

import (
	"bufio"
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"cepa/cell"
)

// Defaults of Config.
const (
	DefaultMaxConns          = 4096
	DefaultHandshakeTimeout  = 10 * time.Second
	DefaultDialTimeout       = 60 * time.Second
	DefaultHalfClosedTimeout = 15 * time.Minute
)

const (
	// refusalSlots is how many connections above the cap are heard out, so that they get a reply and not a bare close;
	// refusalTimeout is how long each may take. Beyond these a connection is closed at once.
	refusalSlots   = 64
	refusalTimeout = 2 * time.Second

	// closeTimeout is how long Close waits for the connections that it has cut.
	closeTimeout = time.Second

	// Pauses after failed accepts: out of descriptors is the usual cause, and it passes.
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second

	// logInterval is the least time between two log lines about one kind of trouble that others can cause.
	logInterval = time.Minute
)

// Request is what an application asks for: exactly one of Host and IP, a port that is not 0 (but in a look-up it is), and
// the isolation key.
type Request struct {
	Host string     // a name of 1 to 254 bytes for the exit to resolve, or ""
	IP   netip.Addr // IPv4, or IPv6 without zone that is not mapped IPv4; or the zero Addr
	Port uint16
	// Isolation is opaque: streams whose keys differ must never share a circuit. It is 32 bytes that need not be text,
	// or "" when nothing is kept apart.
	Isolation string
}

// Dialer opens streams through the overlay.
//
// Dial returns a stream that is open at the far end, or an error, an *Error for anything but a bug. It returns soon
// after ctx is done, which happens when the application hangs up, after Config.DialTimeout, and when the server is
// closed. It may be called from many goroutines at once.
//
// The stream has CloseWrite() error, which ends its sending direction. Read returns io.EOF for the far end's end of file
// and another error when the stream was reset. Close before both directions have ended resets the stream. Read, Write,
// CloseWrite and Close may be called at once, and Close makes the others return.
type Dialer interface {
	Dial(ctx context.Context, r Request) (net.Conn, error)
}

// Resolver asks an exit for the addresses of a name (Host) or the names of an address (IP). The Port of the request is 0.
//
// Resolve returns at least one answer, all of the kind that was asked for, and the time for which they hold; or an
// error, an *Error for anything but a bug. It keeps the promises of [Dialer] about its context.
type Resolver interface {
	Resolve(ctx context.Context, r Request) (answers []cell.Address, ttl time.Duration, err error)
}

// Config says how a Server works. Only Dialer is required; zero means the default.
type Config struct {
	Dialer   Dialer
	Resolver Resolver     // of Tor's commands RESOLVE and RESOLVE_PTR; nil: they are not supported
	Log      *slog.Logger // nil discards

	MaxConns         int           // connections at a time; DefaultMaxConns
	HandshakeTimeout time.Duration // from accept to the end of the request; DefaultHandshakeTimeout
	DialTimeout      time.Duration // for the Dialer; DefaultDialTimeout
	// IdleTimeout ends a connection that carried no byte either way for this long (up to twice this long); 0 is never,
	// because an ssh session may be silent for hours.
	IdleTimeout time.Duration
	// HalfClosedTimeout is the same for a connection of which one direction has ended; DefaultHalfClosedTimeout. Nobody
	// can see whether an application that ended its sending side has gone for good.
	HalfClosedTimeout time.Duration

	// By default streams are isolated by user and password and by the client's address. These share circuits across
	// them instead.
	ShareCredentials bool
	ShareClients     bool
	// These isolate more: by the name or address, and by the port, that is asked for; by the protocol of the
	// application (SOCKS4, SOCKS5, HTTP).
	IsolateDestination bool
	IsolatePort        bool
	IsolateProtocol    bool

	// ExtendedErrors answers SOCKS5 requests for .onion names by Tor's codes F0 and F6 instead of code 2.
	ExtendedErrors bool
}

// Server serves SOCKS5, SOCKS4 and HTTP CONNECT on any number of listeners. Streams of two servers never have the same
// isolation key, unless it is empty.
type Server struct {
	config  Config
	log     *slog.Logger
	salt    [32]byte // of the isolation keys
	ctx     context.Context
	cancel  context.CancelFunc
	count   counters
	buffers buffers

	limitLog, acceptLog, panicLog sparseLog
	failureLog                    failureLog

	mu          sync.Mutex
	closed      bool
	listeners   map[net.Listener]struct{}
	sessions    map[*session]struct{}
	refusing    int        // sessions above the cap that are being heard out, not in sessions
	negotiating *list.List // of *session, those to evict first: without a whole request, oldest first, or refused
	running     sync.WaitGroup
}

// New returns a server for c. The error says which field is wrong.
func New(c Config) (*Server, error) {
	switch {
	case c.Dialer == nil:
		return nil, errors.New("configuring socks: no Dialer")
	case c.MaxConns < 0:
		return nil, fmt.Errorf("configuring socks: MaxConns is %d", c.MaxConns)
	case c.HandshakeTimeout < 0 || c.DialTimeout < 0 || c.IdleTimeout < 0 || c.HalfClosedTimeout < 0:
		return nil, errors.New("configuring socks: a timeout is negative")
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	orDefault := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	orDefault(&c.HandshakeTimeout, DefaultHandshakeTimeout)
	orDefault(&c.DialTimeout, DefaultDialTimeout)
	orDefault(&c.HalfClosedTimeout, DefaultHalfClosedTimeout)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		config:      c,
		log:         c.Log,
		listeners:   make(map[net.Listener]struct{}),
		sessions:    make(map[*session]struct{}),
		negotiating: list.New(),
	}
	rand.Read(s.salt[:])
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve accepts connections from l until Close, which makes it return nil, or until somebody else closes l. Other
// errors of Accept do not end it: it pauses and goes on. The listener becomes the server's and is closed when Serve
// returns; its connections must support deadlines. Serve may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		s.log.Warn("the local port is open beyond loopback: whoever reaches it can use the network through this client, "+
			"and what goes to it is not encrypted; listen on 127.0.0.1 unless that is meant", "address", a.String())
	}
	var pause time.Duration
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			s.admit(conn)
			continue
		}
		if s.ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accepting socks connections: %w", err)
		}
		s.count.acceptErrs.Add(1)
		pause = min(max(2*pause, minAcceptPause), maxAcceptPause)
		if n, ok := s.acceptLog.due(); ok {
			s.log.Warn("socks port cannot accept connections for the moment; if this goes on, raise the limit of open files",
				"error", err, "failures", n)
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return nil
		}
	}
}

// Close stops accepting, resets every connection and cancels every dial. It returns within 1 second: nil when all
// connections and all calls of the Dialer have ended by then. A second call does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.cancel()
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.sessions {
		c.cut()
	}
	s.mu.Unlock()

	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(closeTimeout):
		return fmt.Errorf("closing socks: connections still open after %v", closeTimeout)
	}
}

// admit starts a session for conn, or turns it away. At the cap the oldest connection that has not finished its request
// yields: applications finish in milliseconds, so silent connections, however many, keep nobody out. When all are past
// their request the newcomer is heard out in a refusal slot and told so, or closed when those are taken too.
func (s *Server) admit(conn net.Conn) {
	s.count.accepted.Add(1)
	c := &session{server: s, conn: conn, in: bufio.NewReader(conn)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.count.refused[causeShutdown].Add(1)
		c.cut()
		return
	}
	if len(s.sessions)-s.refusing >= s.config.MaxConns {
		if oldest := s.negotiating.Front(); oldest != nil {
			c := oldest.Value.(*session)
			s.tally(c, causeLimit)
			c.evicted = true
			c.cut()
			s.forget(c)
		} else if c.over = true; s.refusing >= refusalSlots {
			s.count.refused[causeLimit].Add(1)
			c.cut()
			s.logLimit()
			return
		}
		s.logLimit()
	}
	s.sessions[c] = struct{}{}
	if c.over {
		s.refusing++
	} else {
		c.place = s.negotiating.PushBack(c)
	}
	s.running.Add(1)
	go s.run(c)
}

func (s *Server) logLimit() {
	if n, ok := s.limitLog.due(); ok {
		s.log.Warn("socks port is at its connection limit: turned away connections; raise the limit if they are all yours",
			"limit", s.config.MaxConns, "connections", n)
	}
}

// run is the life of a session.
func (s *Server) run(c *session) {
	defer s.running.Done()
	defer func() {
		s.mu.Lock()
		s.forget(c)
		s.mu.Unlock()
	}()
	defer c.conn.Close()
	defer s.survive(func() {
		c.cut()
		if c.stream != nil {
			c.stream.Close()
		}
	})
	c.serve()
}

// tally counts c as turned away, once; s.mu is held.
func (s *Server) tally(c *session, why cause) {
	if !c.counted {
		c.counted = true
		s.count.refused[why].Add(1)
	}
}

// forget takes c out of the books; s.mu is held. It may be called twice.
func (s *Server) forget(c *session) {
	if _, ok := s.sessions[c]; !ok {
		return
	}
	delete(s.sessions, c)
	if c.over {
		s.refusing--
	}
	s.settle(c)
}

// settled is called when the request of c is whole. It reports whether c may go on, or was evicted before.
func (s *Server) settled(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(c)
	return !c.evicted
}

// lingering is called when c was refused and only gives time to read that: it may be evicted again, before all others.
func (s *Server) lingering(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[c]; ok && c.place == nil && !c.over {
		c.place = s.negotiating.PushFront(c)
	}
}

// settle ends the time in which c can be evicted; s.mu is held.
func (s *Server) settle(c *session) {
	if c.place != nil {
		s.negotiating.Remove(c.place)
		c.place = nil
	}
}

// bug is a panic of this package's own.
type bug string

// survive, deferred, turns a panic into a counted, logged failure of one connection, which fail cuts. The value of the
// panic is logged only when it is the runtime's or ours: another could hold a destination.
func (s *Server) survive(fail func()) {
	v := recover()
	if v == nil {
		return
	}
	fail()
	s.count.panics.Add(1)
	if n, ok := s.panicLog.due(); ok {
		what := fmt.Sprintf("panic of type %T", v)
		switch v := v.(type) {
		case runtime.Error:
			what = v.Error()
		case bug:
			what = string(v)
		}
		s.log.Error("socks connection failed by a bug; please report this", "panic", what, "times", n,
			"stack", string(debug.Stack()))
	}
}

// sparseLog says when a line about one kind of trouble is due again, and for how many occurrences it stands.
type sparseLog struct {
	mu    sync.Mutex
	last  time.Time
	since int
}

func (l *sparseLog) due() (occurrences int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since++
	now := time.Now()
	if !l.last.IsZero() && now.Sub(l.last) < logInterval {
		return 0, false
	}
	occurrences, l.since, l.last = l.since, 0, now
	return occurrences, true
}
