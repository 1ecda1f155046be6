package link

import "syscall"

// unreachable are the errors of connect for want of a network: WSAENETDOWN, WSAENETUNREACH, WSAEHOSTUNREACH and
// WSAEADDRNOTAVAIL.
var unreachable = []syscall.Errno{10050, 10051, 10065, 10049}
