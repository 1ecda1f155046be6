package link

import (
	"syscall"

	"cepa/env"
)

const tcpNotSentLowat = 25 // TCP_NOTSENT_LOWAT, which package syscall lacks

// tune sets the options of a TCP connection that carries a link. A kernel that lacks one does without.
func tune(conn tcpConn) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			limitUnsent(fd, env.MostAhead) // at first: see ahead
		})
	}
}

func limitUnsent(fd uintptr, n int) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, n)
}
