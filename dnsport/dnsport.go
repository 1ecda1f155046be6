// Package dnsport is a client's port for the DNS: it resolves names, and finds the names of addresses, through the
// overlay. Programs that cannot leave names to a proxy use it as their resolver.
//
// It answers questions of types A, AAAA and PTR in class IN (RFC 1034, RFC 1035) over UDP and TCP at one address, from
// what an exit says; other types get NOTIMP. It keeps no cache: who asks has one, and a cache of ours would tell of one
// program to another.
//
// It does not resolve by itself, whatever happens: a question that cannot go through the overlay fails. It passes on no
// answers but addresses and names, checks no signatures (AD is never set), and logs no name.
//
// Messages are read and written by github.com/miekg/dns. The daemon calls this package. It is a shell: it has goroutines
// and sockets, and every exported method may be called from any goroutine.
package dnsport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"

	"cepa/cell"
	"cepa/socks"
)

// Resolver asks an exit, as [socks.Resolver] says.
type Resolver = socks.Resolver

const (
	// maxQueries is how many questions are asked at a time. One more over UDP is dropped, and its program asks again;
	// over TCP it fails.
	maxQueries = 512
	// maxConns bounds TCP connections at a time; maxPerConn the questions on each.
	maxConns   = 128
	maxPerConn = 128

	// queryTimeout bounds one question: a stub resolver waits 5 s and asks again, twice.
	queryTimeout = 20 * time.Second
	// idleTimeout is how long a TCP connection may be silent (RFC 7766, section 6.2.3: in the order of seconds).
	idleTimeout  = 10 * time.Second
	writeTimeout = 5 * time.Second

	// maxUDP is the largest answer over UDP in bytes, whatever the asker offers (RFC 9715).
	maxUDP = 1232
	// maxTTL bounds the time in seconds for which an answer holds.
	maxTTL = 3600
)

// Config says how a Server works.
type Config struct {
	Resolver Resolver
	Log      *slog.Logger // nil discards
}

// Stats are counters since New.
type Stats struct {
	Queries  uint64 // messages that asked something
	Answered uint64 // with an answer, or that there is none
	Failed   uint64 // with an error, or refused
	Dropped  uint64 // too many at a time
}

// Server is the port. It serves nothing until Listen.
type Server struct {
	config Config
	salt   string // of the isolation keys
	ctx    context.Context
	cancel context.CancelFunc
	places chan struct{} // one for each question being asked

	queries, answered, failed, dropped atomic.Uint64

	mu      sync.Mutex
	closed  bool
	servers []*dns.Server
	addr    netip.AddrPort
	running sync.WaitGroup
}

// New returns a server for c.
func New(c Config) (*Server, error) {
	if c.Resolver == nil {
		return nil, errors.New("configuring the DNS port: no Resolver")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c, salt: rand.Text(), places: make(chan struct{}, maxQueries)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Listen opens the port for UDP and TCP and returns when both are open. With port 0 the system chooses, one for both. It
// is called once, or again after an error.
func (s *Server) Listen(at netip.AddrPort) error {
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		return fmt.Errorf("listening for DNS over TCP: %w", err)
	}
	bound := netip.AddrPortFrom(at.Addr(), uint16(ln.Addr().(*net.TCPAddr).Port))
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(bound))
	if err != nil {
		ln.Close()
		return fmt.Errorf("listening for DNS over UDP: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ln.Close()
		pc.Close()
		return net.ErrClosed
	}
	s.addr = bound
	if !bound.Addr().IsLoopback() {
		s.config.Log.Warn("the DNS port is open beyond loopback: whoever reaches it can resolve names through this client, and "+
			"what goes to it is not encrypted; listen on 127.0.0.1 unless that is meant", "address", bound.String())
	}
	s.serve(&dns.Server{PacketConn: pc, Handler: s})
	s.serve(&dns.Server{Listener: netutil.LimitListener(ln, maxConns), Handler: s, MaxTCPQueries: maxPerConn})
	return nil
}

// serve starts one half of the port; s.mu is held.
func (s *Server) serve(d *dns.Server) {
	d.ReadTimeout, d.WriteTimeout = idleTimeout, writeTimeout
	d.IdleTimeout = func() time.Duration { return idleTimeout }
	d.MsgAcceptFunc = accept
	started := make(chan struct{})
	d.NotifyStartedFunc = func() { close(started) }
	s.servers = append(s.servers, d)
	s.running.Go(func() {
		if err := d.ActivateAndServe(); err != nil && s.ctx.Err() == nil {
			s.config.Log.Error("the DNS port has stopped serving", "error", err)
		}
	})
	<-started
}

// accept is the library's check of a message's header: what is a question is answered, what is none is left alone, since
// an answer to an answer has no end.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	if h.Bits&response != 0 {
		return dns.MsgIgnore
	}
	if opcode := int(h.Bits>>11) & 0xf; opcode != dns.OpcodeQuery {
		return dns.MsgRejectNotImplemented
	}
	if h.Qdcount != 1 || h.Ancount > 0 || h.Nscount > 0 || h.Arcount > 2 { // EDNS, TSIG
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// Addr is where the port is, after Listen.
func (s *Server) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{Queries: s.queries.Load(), Answered: s.answered.Load(), Failed: s.failed.Load(), Dropped: s.dropped.Load()}
}

// closeTimeout is how long Close waits for what it has cut.
const closeTimeout = time.Second

// Close stops serving and cancels what is being asked. It returns within 1 second. A second call does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.cancel()
	servers := s.servers
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, len(servers))
	for i, d := range servers {
		all.Go(func() { errs[i] = d.ShutdownContext(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// ServeDNS implements dns.Handler: one question.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.queries.Add(1)
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	var reply *dns.Msg
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
		reply = s.answer(q, w.RemoteAddr())
	default:
		s.dropped.Add(1)
		if udp {
			return
		}
		reply = refusal(q, dns.RcodeServerFailure, dns.ExtendedErrorCodeNotReady, "too many questions at once")
	}
	if reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError {
		s.answered.Add(1)
	} else {
		s.failed.Add(1)
	}
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
		}
	}
	reply.Truncate(size)
	_ = w.WriteMsg(reply) // who asked has gone, or asks again
}

// isolation is the key of all that a machine asks: its questions share circuits, and share none with streams.
func (s *Server) isolation(from net.Addr) string {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.Network()
	}
	return "dns " + s.salt + " " + strings.ToLower(host)
}

// answer asks the Resolver what q asks.
func (s *Server) answer(q *dns.Msg, from net.Addr) *dns.Msg {
	question := q.Question[0]
	lookup, rcode, why := toLookup(question)
	if rcode != dns.RcodeSuccess {
		code := dns.ExtendedErrorCodeNotSupported
		if rcode == dns.RcodeNameError {
			code = dns.ExtendedErrorCodeProhibited
		}
		return refusal(q, rcode, code, why)
	}
	lookup.Isolation = s.isolation(from)
	ctx, cancel := context.WithTimeout(s.ctx, queryTimeout)
	defer cancel()
	answers, ttl, err := s.config.Resolver.Resolve(ctx, lookup)
	if err != nil {
		return s.failure(q, err)
	}
	reply := base(q)
	seconds := uint32(min(max(ttl/time.Second, 0), maxTTL))
	for _, a := range answers {
		if rr := record(question, seconds, a); rr != nil {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	return reply // without an answer of the type: there is none, and the name exists
}

// failure is the reply for a question that could not be answered. What this client does not ask exits for does not exist
// (RFC 6303, RFC 6761, RFC 7686): any other code would have some programs ask another resolver, around the network.
func (s *Server) failure(q *dns.Msg, err error) *dns.Msg {
	var e *socks.Error
	if !errors.As(err, &e) || e == nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return refusal(q, dns.RcodeServerFailure, dns.ExtendedErrorCodeNetworkError, "timed out")
		}
		return refusal(q, dns.RcodeServerFailure, dns.ExtendedErrorCodeOther, "a failure of this client")
	}
	why := e.Scrubbed
	if why == "" {
		why = e.Reason.String()
	}
	switch {
	case e.Reason == cell.ReasonNoSuchHost:
		reply := base(q)
		reply.Rcode = dns.RcodeNameError
		return reply
	case e.Reason == cell.ReasonPolicy && e.Here:
		return refusal(q, dns.RcodeNameError, dns.ExtendedErrorCodeProhibited, why)
	}
	s.config.Log.Info("a look-up failed", "why", why, "protocol", "DNS")
	return refusal(q, dns.RcodeServerFailure, dns.ExtendedErrorCodeNetworkError, why)
}
