package link

import (
	"io"
	"net"
	"time"

	"cepa/internal/rawio"
)

// socket is a TCP connection by the shortest way, of which the kernel takes no more ahead than it should. Reading belongs to
// one goroutine, writing to another.
type socket struct {
	*rawio.Conn
	ahead ahead // of what is written
}

// direct gives c the short way to the kernel if there is one.
func direct(c net.Conn) io.ReadWriter {
	k := rawio.Wrap(c)
	if !k.Short() {
		return c
	}
	return &socket{Conn: k}
}

// Write writes a part of p, which is not empty: as much as the kernel takes at once.
func (s *socket) Write(p []byte) (int, error) {
	began := time.Now()
	n, waited, err := s.WriteSome(p)
	ended := began
	if waited {
		s.ahead.waited = true
		ended = time.Now()
	}
	if limit := s.ahead.wrote(began, ended, n); limit > 0 {
		_ = s.Control(func(fd uintptr) { limitUnsent(fd, limit) })
	}
	return n, err
}
