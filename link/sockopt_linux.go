package link

import (
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cepa/limit"
)

// unsentLimit is how many bytes the kernel takes that TCP cannot send yet. What waits in the kernel can no longer be
// overtaken, so it is little: an interactive cell must not wait behind a bulk transfer's megabytes. It is about what
// a link of 10 Gbit/s sends in the time that the writer needs to wake up and encrypt more.
const unsentLimit = 128 << 10

// tune sets the options of a TCP connection that carries a link. A kernel that lacks one does without.
func tune(conn tcpConn) {
	if raw := rawConn(conn); raw != nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit)
		})
	}
}

func rawConn(conn tcpConn) syscall.RawConn {
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// sampler returns what reads TCP's figures of a connection, or nil.
func sampler(conn tcpConn) func() (have int, s limit.Sample, ok bool) {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	return func() (have int, s limit.Sample, ok bool) {
		err := raw.Control(func(fd uintptr) {
			i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil || i.Min_rtt == 0 || i.Min_rtt == math.MaxUint32 {
				ok = err == nil && i.Min_rtt != 0 // an old kernel does not tell; a new connection does not know
				return
			}
			s.Flight = int(i.Unacked) * int(i.Snd_mss)
			s.Trip, s.Least = time.Duration(i.Rtt)*time.Microsecond, time.Duration(i.Min_rtt)*time.Microsecond
			have, ok = s.Flight+int(i.Notsent_bytes), true
		})
		return have, s, ok && err == nil
	}
}
