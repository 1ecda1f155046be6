package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
)

// wsaInUse and wsaNotAvail are what Windows calls EADDRINUSE and EADDRNOTAVAIL.
const wsaInUse, wsaNotAvail = syscall.Errno(10048), syscall.Errno(10049)

// PortFault says why a port cannot be opened, and what to do: setting is the one to change.
func PortFault(what, address, setting string, err error) error {
	var why string
	switch {
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, wsaInUse):
		why = "another program has it: end that, or choose another port with " + setting
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, wsaNotAvail):
		why = "this machine has no such address: give one that it has, or 127.0.0.1, with " + setting
	case errors.Is(err, syscall.EACCES), errors.Is(err, fs.ErrPermission):
		why = "only root may open it: choose a port above 1023 with " + setting
	default:
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return fmt.Errorf("opening %s %s: %w", what, address, err)
	}
	return &explained{fmt.Sprintf("opening %s %s: %s", what, strings.TrimPrefix(address, "unix:"), why), err}
}

// explained says in words what the system says by a number or a word of its own.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }
