package socks

import (
	"bufio"
	"container/list"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"time"

	socks5 "github.com/armon/go-socks5"

	"cepa/cell"
)

const (
	// replyTimeout is for writing a few bytes to an application that may not be reading.
	replyTimeout = 10 * time.Second

	// After a refusal the connection is kept for at most lingerTimeout and lingerBytes, reading what the application has
	// still sent: closing a socket with unread bytes resets it, and a reset can overtake the refusal.
	lingerTimeout = time.Second
	lingerBytes   = 64 << 10
)

// session is one connection of an application.
//
//	accepted --SOCKS5, SOCKS4, CONNECT--> request read --> dialling --stream, reply--> transfer --both ends--> closed
//	   |  |                                |                 |  |                         |
//	   |  +--other HTTP--+                 +--refused--+     |  +--answer of a look-up--+ +--error--> reset
//	   |                 v                             v     v                          v
//	   |             answer, linger, closed  <---------+-----+--------------------------+
//	   +--silence, hang-up, any other byte--> closed
//
// In SOCKS5 the library negotiates, reads the request and says when to dial and when to answer. It is kept away from all
// else:
//
//   - It reads through libraryConn, a byte at a time, so that its own buffer never swallows what an application sends
//     behind its request; that stays in the session's buffer for the stream.
//   - It does not know Tor's commands: it sees CONNECT in their place.
//   - It sees a greeting in our order of methods (readGreeting), and authenticators of ours.
//   - Its resolver is one that does not resolve. It would otherwise ask the system's before looking at any rule.
//   - Its rule is destination checking, so that its own way of joining host and port is never looked at.
//   - Its replies pass through libraryConn, which writes ours: the library would choose a code by searching the error's
//     text for words, and would panic, in a goroutine that nobody recovers, on a stream whose address is not TCP.
//   - After a success it is given end of file on both sides and returns at once. It copies through a small buffer,
//     cannot reset a connection, and ends both directions at the first error in one.
//   - It logs destinations: its log is discarded.
type session struct {
	server *Server
	conn   net.Conn
	in     *bufio.Reader // of conn; what the application sends ahead of our reply waits here
	over   bool          // accepted above the cap, to be refused

	place   *list.Element // among Server.negotiating; Server.mu
	evicted bool          // Server.mu
	counted bool          // among Server.count.refused; Server.mu

	greeting      []byte // left for the library to read
	authenticated bool
	credentials   *credentials
	protocol      protocol
	requestBytes  int  // of a SOCKS5 request, given to the library
	command       byte // of SOCKS5: connect unless it is one of Tor's
	request       Request
	verdict       *refusal // when it is ours and not the library's
	stream        net.Conn // open at the far end
	answer        []byte   // of a look-up that succeeded

	connected bool  // success was written
	served    bool  // the answer of a look-up, or a page, was written
	refused   bool  // an answer that is no success was written
	broken    error // of reading from or writing to the application; the library would turn it into text
}

// protocol is what an application speaks.
type protocol uint8

const (
	protocolSOCKS5 protocol = iota
	protocolSOCKS4
	protocolHTTP
)

func (p protocol) String() string { return [...]string{"SOCKS5", "SOCKS4", "HTTP"}[p] }

// refusal is a reply code of SOCKS5, 0 for no answer at all, and what it is counted under. Other protocols translate.
type refusal struct {
	code  uint8
	cause cause
	err   error // of the Dialer or Resolver; nil when it was not asked
}

// serve speaks to the application until the connection ends. The caller closes it.
func (c *session) serve() {
	timeout := c.server.config.HandshakeTimeout
	if c.over {
		timeout = min(timeout, refusalTimeout)
	}
	// One deadline for all of it: a byte now and then does not prolong it.
	c.conn.SetDeadline(time.Now().Add(timeout))
	first, err := c.in.Peek(1)
	switch {
	case err != nil:
		c.fail(err)
	case first[0] == version5:
		c.negotiate()
	default:
		c.serveOther(first[0])
	}
	switch {
	case c.connected:
		c.server.count.connected.Add(1)
		c.server.transfer(c)
	case c.served:
		c.server.count.served.Add(1)
		c.server.lingering(c)
		c.linger()
	case c.refused:
		c.server.lingering(c)
		c.linger()
	}
}

// negotiate runs the library from the greeting to its reply.
func (c *session) negotiate() {
	var err error
	if c.greeting, err = readGreeting(c.in); err != nil {
		c.fail(err)
		return
	}
	library, err := socks5.New(&socks5.Config{
		AuthMethods: []socks5.Authenticator{withPassword{c}, withoutPassword{c}},
		Resolver:    leaveToExit{},
		Rules:       checkDestination{c},
		Dial:        c.dial,
		Logger:      discardLog,
	})
	if err != nil {
		c.fail(err)
		return
	}
	library.ServeConn(libraryConn{c}) // its error is text; what happened is in c
	switch {
	case c.connected || c.refused || c.served:
	case c.stream != nil: // the application went away under the reply
		c.stream.Close()
		c.refuseSilently(causeHungUp)
	case c.broken != nil:
		c.fail(c.broken)
	case c.verdict != nil: // to say nothing
	case c.authenticated: // the library leaves a request that it cannot read without an answer
		c.logRefusal(causeMalformed)
		c.refuse(appendReply(nil, replyGeneralFailure), causeMalformed)
	default:
		c.refuseSilently(causeMalformed)
	}
}

// write writes an answer to the application.
func (c *session) write(p []byte) error {
	_, err := c.conn.Write(p)
	if err != nil {
		c.broken = err
	}
	return err
}

// refuse answers with p, which is no success, and counts.
func (c *session) refuse(p []byte, why cause) {
	c.refuseSilently(why)
	if c.write(p) == nil {
		c.refused = true
	}
}

// refuseSilently counts a connection that is turned away, once.
func (c *session) refuseSilently(why cause) {
	s := c.server
	if s.ctx.Err() != nil {
		why = causeShutdown
	}
	s.mu.Lock()
	s.tally(c, why)
	s.mu.Unlock()
}

// fail ends a connection that broke, by err, before its request was whole: there is nobody to answer.
func (c *session) fail(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.refuseSilently(causeSilent)
	} else {
		c.refuseSilently(causeHungUp)
	}
}

// cut resets the application's connection: it must never look like a clean end. It may be called at any time.
func (c *session) cut() {
	if conn, ok := c.conn.(interface{ SetLinger(seconds int) error }); ok {
		conn.SetLinger(0)
	}
	c.conn.Close()
}

// linger gives the application time to read a refusal.
func (c *session) linger() {
	if conn, ok := c.conn.(closeWriter); !ok || conn.CloseWrite() != nil {
		return
	}
	c.conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	io.CopyN(io.Discard, c.in, lingerBytes)
}

// accept is called when the request is whole: the deadlines are lifted, and the connection can no longer be evicted. The
// destination is host, or ip when host is empty. It returns nil when the request is one to be served.
func (c *session) accept(host string, ip net.IP, port int) *refusal {
	if !c.server.settled(c) {
		return &refusal{cause: causeLimit}
	}
	if c.over {
		return &refusal{code: replyGeneralFailure, cause: causeLimit}
	}
	var err error
	if c.looksUp() {
		err = c.request.setAddress(host, ip)
	} else {
		err = c.request.setDestination(host, ip, port)
	}
	if err == nil && c.command == commandResolvePTR && !c.request.IP.IsValid() {
		err = errors.New("names are asked for of an address only")
	}
	if err != nil {
		c.logRefusal(causeDestination)
		return &refusal{code: replyGeneralFailure, cause: causeDestination}
	}
	c.request.Isolation = c.server.isolationKey(c.conn.RemoteAddr(), c.credentials, c.protocol, &c.request)
	c.credentials = nil
	c.conn.SetDeadline(time.Time{})
	return nil
}

// connect opens the stream, or looks up, for a request that was accepted. It returns nil when the application is to be
// told of success.
func (c *session) connect() *refusal {
	var err error
	if c.looksUp() {
		err = c.lookUp()
	} else {
		c.stream, err = perform(c, c.openStream, func(stream net.Conn) { stream.Close() })
	}
	c.conn.SetWriteDeadline(time.Now().Add(replyTimeout))
	switch {
	case errors.Is(err, errHungUp):
		return &refusal{cause: causeHungUp}
	case err != nil && c.server.ctx.Err() != nil:
		return &refusal{cause: causeShutdown}
	case err != nil:
		c.logFailure(err)
		code := c.replyTo(err)
		return &refusal{code, causeOf(code), err}
	}
	return nil
}

// dial is what the library calls once the request is accepted. What it returns satisfies the library only; the stream
// stays in the session. Network and address are not looked at: the destination is in c.request.
func (c *session) dial(context.Context, string, string) (net.Conn, error) {
	if c.verdict = c.connect(); c.verdict != nil {
		return nil, errNoStream // the library need not see the text
	}
	return endedStream{}, nil
}

var (
	errHungUp   = errors.New("the application hung up")
	errNoStream = errors.New("no stream")
)

// openStream asks the Dialer.
func (c *session) openStream(ctx context.Context, r Request) (net.Conn, error) {
	stream, err := c.server.config.Dialer.Dial(ctx, r)
	if err == nil {
		if _, ok := stream.(closeWriter); !ok {
			panic(bug("the Dialer returned a stream without CloseWrite"))
		}
	}
	return stream, err
}

// perform asks the Dialer or the Resolver. It returns when there is an answer, when the time is up, when the application
// hangs up or when the server closes, even if who is asked does not keep its promise to return then; a result that comes
// too late is dropped.
func perform[T any](c *session, ask func(context.Context, Request) (T, error), drop func(T)) (none T, err error) {
	s := c.server
	limited, cancelLimited := context.WithTimeout(s.ctx, s.config.DialTimeout)
	defer cancelLimited()
	ctx, cancel := context.WithCancelCause(limited)
	defer cancel(nil)
	stopWatching := c.watch(func() { cancel(errHungUp) })
	defer stopWatching()

	type result struct {
		value T
		err   error
	}
	results := make(chan result)
	request := c.request
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		r := result{err: &Error{Reason: cell.ReasonInternal}}
		defer func() {
			select {
			case results <- r:
			case <-ctx.Done():
				if r.err == nil {
					drop(r.value)
				}
			}
		}()
		defer s.survive(func() {})
		value, err := ask(ctx, request)
		r = result{value, err}
	}()
	select {
	case r := <-results:
		if r.err != nil && errors.Is(context.Cause(ctx), errHungUp) {
			return none, errHungUp
		}
		return r.value, r.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// watch calls hungUp if the application goes away, until the function that it returns is called. Meanwhile it takes in
// what the application sends ahead of the reply, as far as the buffer goes; the rest waits in the kernel.
//
// An end of file is a hang-up unless something was sent ahead: an application that sends its request and then ends its
// sending side, without waiting, still wants the answer.
func (c *session) watch(hungUp func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.server.survive(hungUp)
		for c.in.Buffered() < c.in.Size() {
			_, err := c.in.Peek(c.in.Buffered() + 1)
			switch {
			case err == nil:
				continue
			case errors.Is(err, os.ErrDeadlineExceeded): // by stop
			case err == io.EOF && c.in.Buffered() > 0:
			default:
				hungUp()
			}
			return
		}
	}()
	return func() {
		c.conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.conn.SetReadDeadline(time.Time{})
	}
}

// libraryConn is the application's connection as the library sees it. It has no CloseWrite and no ReadFrom.
type libraryConn struct{ c *session }

// Read gives the rest of the greeting, then a byte at a time, and end of file once the request was read.
func (l libraryConn) Read(p []byte) (int, error) {
	c := l.c
	switch {
	case len(p) == 0:
		return 0, nil
	case len(c.greeting) > 0:
		n := copy(p, c.greeting)
		c.greeting = c.greeting[n:]
		return n, nil
	case c.stream != nil || c.answer != nil:
		return 0, io.EOF
	}
	b, err := c.in.ReadByte()
	if err != nil {
		c.broken = err
		return 0, err
	}
	p[0] = b
	if c.authenticated {
		if c.requestBytes++; c.requestBytes == 2 {
			c.command, p[0] = libraryCommand(b, c.server.config.Resolver != nil)
		}
	}
	return 1, nil
}

// Write is called for two things: that no method is acceptable, and a reply. The reply is replaced by ours.
func (l libraryConn) Write(p []byte) (int, error) {
	c := l.c
	if !c.authenticated {
		c.refuse(p, causeMethod)
		return len(p), c.broken
	}
	var code uint8 = replyGeneralFailure
	switch {
	case c.verdict != nil && c.verdict.code == 0:
		c.refuseSilently(c.verdict.cause)
		return 0, errHungUp
	case c.verdict != nil:
		c.refuse(appendReply(nil, c.verdict.code), c.verdict.cause)
		return len(p), c.broken
	case len(p) >= 2 && p[1] <= replyAddressUnsupported:
		code = p[1]
	}
	switch {
	case code != replySucceeded:
		c.logRefusal(causeOf(code))
		c.refuse(appendReply(nil, code), causeOf(code))
		return len(p), c.broken
	case c.answer != nil:
		if err := c.write(c.answer); err != nil {
			return 0, err
		}
		c.served = true
		return len(p), nil
	case c.stream == nil:
		panic(bug("success without a stream"))
	}
	if err := c.write(appendReply(nil, replySucceeded)); err != nil {
		return 0, err
	}
	c.connected = true
	return len(p), nil
}

func (l libraryConn) Close() error                     { return nil } // the session's to close
func (l libraryConn) LocalAddr() net.Addr              { return l.c.conn.LocalAddr() }
func (l libraryConn) RemoteAddr() net.Addr             { return l.c.conn.RemoteAddr() }
func (l libraryConn) SetDeadline(time.Time) error      { return nil }
func (l libraryConn) SetReadDeadline(time.Time) error  { return nil }
func (l libraryConn) SetWriteDeadline(time.Time) error { return nil }

// endedStream is the stream as the library sees it: at its end, with the address that the library insists on.
type endedStream struct{}

func (endedStream) Read([]byte) (int, error)         { return 0, io.EOF }
func (endedStream) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (endedStream) Close() error                     { return nil }
func (endedStream) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4zero} }
func (endedStream) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4zero} }
func (endedStream) SetDeadline(time.Time) error      { return nil }
func (endedStream) SetReadDeadline(time.Time) error  { return nil }
func (endedStream) SetWriteDeadline(time.Time) error { return nil }

// leaveToExit is the library's resolver: it leaves every name as it is.
type leaveToExit struct{}

func (leaveToExit) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// checkDestination is the library's rule. It sees every request that the library could read, so this is where the
// negotiation ends.
type checkDestination struct{ c *session }

func (r checkDestination) Allow(ctx context.Context, req *socks5.Request) (context.Context, bool) {
	if req.Command != socks5.ConnectCommand {
		return ctx, true // which the library answers with "command not supported"
	}
	r.c.verdict = r.c.accept(req.DestAddr.FQDN, req.DestAddr.IP, req.DestAddr.Port)
	return ctx, r.c.verdict == nil
}

var discardLog = log.New(io.Discard, "", 0)
