package loop

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// winsock says which errors of Unix the errors of Windows sockets are: the syscall package has
// the names, but its values are inventions that no system call returns.
var winsock = map[syscall.Errno]syscall.Errno{
	windows.WSAEACCES:             syscall.EACCES,
	windows.WSAEADDRNOTAVAIL:      syscall.EADDRNOTAVAIL,
	windows.WSAEAFNOSUPPORT:       syscall.EAFNOSUPPORT,
	windows.WSAECONNABORTED:       syscall.ECONNABORTED,
	windows.WSAECONNREFUSED:       syscall.ECONNREFUSED,
	windows.WSAECONNRESET:         syscall.ECONNRESET,
	windows.WSAEHOSTUNREACH:       syscall.EHOSTUNREACH,
	windows.WSAEMFILE:             syscall.EMFILE,
	windows.WSAENETUNREACH:        syscall.ENETUNREACH,
	windows.WSAENOBUFS:            syscall.ENOBUFS,
	windows.WSAETIMEDOUT:          syscall.ETIMEDOUT,
	windows.ERROR_NETNAME_DELETED: syscall.ECONNRESET,
}

// portable gives err the meaning that it has on Unix.
func portable(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if unix, ok := winsock[errno]; ok {
			return &translated{err, unix}
		}
	}
	return err
}

type translated struct {
	error
	unix syscall.Errno
}

func (e *translated) Unwrap() []error { return []error{e.error, e.unix} }
