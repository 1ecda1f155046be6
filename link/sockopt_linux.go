package link

import "syscall"

// unsentLimit is how many bytes the kernel takes that TCP cannot send yet, at most and at first. What waits in the kernel
// can no longer be overtaken, so it is little: an interactive cell must not wait behind a bulk transfer's megabytes. It is
// about what a link of 10 Gbit/s sends in the time that the writer needs to wake up and encrypt more. On a slow link it is
// less: see ahead.
const unsentLimit = 128 << 10

const tcpNotSentLowat = 25 // TCP_NOTSENT_LOWAT, which package syscall lacks

// tune sets the options of a TCP connection that carries a link. A kernel that lacks one does without.
func tune(conn tcpConn) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			limitUnsent(fd, unsentLimit)
		})
	}
}

func limitUnsent(fd uintptr, n int) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, n)
}
