//go:build !windows

package link

import "syscall"

// unreachable are the errors of connect for want of a network.
var unreachable = []syscall.Errno{syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL}
