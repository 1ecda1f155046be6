//go:build !linux

package link

// tune does nothing here: only Linux is known to bound what the kernel takes without being able to send it.
func tune(tcpConn) {}
