package link

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// socket reads and writes a TCP connection by system calls of which the runtime is not told. They never wait, since the
// descriptor does not block, and so there is nothing for it to do: to give the processor to another thread and to take
// it back costs more than it brings, and keeps the runtime's monitor awake. Reading belongs to one goroutine, writing to
// another.
type socket struct {
	net.Conn
	raw           syscall.RawConn
	tryIn, tryOut func(fd uintptr) bool // made once
	in, out       transfer
	ahead         ahead // of what is written
}

// transfer is one call of Read or Write.
type transfer struct {
	p   []byte
	n   int
	err syscall.Errno
}

// direct gives c the short way to the kernel if there is one.
func direct(c net.Conn) io.ReadWriter {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	s := &socket{Conn: c, raw: raw}
	s.tryIn = func(fd uintptr) bool { return s.in.try(syscall.SYS_READ, fd) }
	s.tryOut = func(fd uintptr) bool {
		ok := s.out.try(syscall.SYS_WRITE, fd)
		s.ahead.waited = s.ahead.waited || !ok
		return ok
	}
	return s
}

// try reports false when it would have to wait.
func (t *transfer) try(call, fd uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.p))), uintptr(len(t.p)))
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		t.n, t.err = int(n), err
		return true
	}
}

// Read is as that of a net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.do(&s.in, "read", s.raw.Read, s.tryIn, p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// Write writes a part of p, which is not empty: as much as the kernel takes at once.
func (s *socket) Write(p []byte) (int, error) {
	began := time.Now()
	n, err := s.do(&s.out, "write", s.raw.Write, s.tryOut, p)
	ended := began
	if s.ahead.waited {
		ended = time.Now()
	}
	if limit := s.ahead.wrote(began, ended, n); limit > 0 {
		_ = s.raw.Control(func(fd uintptr) { limitUnsent(fd, limit) })
	}
	return n, err
}

func (s *socket) do(t *transfer, op string, wait func(func(uintptr) bool) error, try func(uintptr) bool, p []byte) (int, error) {
	t.p, t.n, t.err = p, 0, 0
	err := wait(try)
	t.p = nil
	if err == nil && t.err != 0 {
		err = &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, t.err)}
	}
	if err != nil {
		return 0, err
	}
	return t.n, nil
}
