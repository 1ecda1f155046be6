//go:build unix

package loop

import (
	"io"
	"net"
	"os"
	"syscall"
)

// newSource gives the source that suits c.
func newSource(c net.Conn) source {
	if tcp, ok := c.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			return newSocket(tcp, raw)
		}
	}
	return &stream{c: c}
}

// socket is the source of a TCP connection. It takes a buffer only when there is something to
// read, so that a connection at rest costs none.
type socket struct {
	c    *net.TCPConn
	raw  syscall.RawConn
	try  func(fd uintptr) bool
	buf  *[readSize]byte
	n    int
	fail error
}

func newSocket(c *net.TCPConn, raw syscall.RawConn) *socket {
	s := &socket{c: c, raw: raw}
	s.try = func(fd uintptr) bool {
		s.buf = readBuffers.Get().(*[readSize]byte)
		for {
			s.n, s.fail = syscall.Read(int(fd), s.buf[:])
			if s.fail != syscall.EINTR {
				break
			}
		}
		if s.fail == syscall.EAGAIN {
			readBuffers.Put(s.buf)
			s.buf = nil
			return false // wait
		}
		return true
	}
	return s
}

func (s *socket) read() (*[readSize]byte, int, error) {
	s.buf, s.n, s.fail = nil, 0, nil
	if err := s.raw.Read(s.try); err != nil { // a deadline
		return nil, 0, err
	}
	buf := s.buf
	s.buf = nil
	switch {
	case s.fail != nil:
		return buf, 0, &net.OpError{Op: "read", Net: "tcp", Source: s.c.LocalAddr(), Addr: s.c.RemoteAddr(),
			Err: os.NewSyscallError("read", s.fail)}
	case s.n == 0:
		return buf, 0, io.EOF
	}
	return buf, s.n, nil
}
