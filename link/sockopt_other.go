//go:build !linux

package link

import "cepa/limit"

// tune does nothing here: only Linux is known to bound what the kernel takes without being able to send it.
func tune(tcpConn) {}

// sampler is nil here: only of Linux is it known how to ask TCP.
func sampler(tcpConn) func() (have int, s limit.Sample, ok bool) { return nil }
