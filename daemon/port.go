package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// errBound ends a trial of a port before it listens.
var errBound = errors.New("bound")

// FreePort tells whether a TCP address can be bound, and with port 0 which port the system gave.
// It never listens: an open SOCKS port means that the client is ready, so not even an instant of
// it may be seen before. Somebody else can take the port afterwards.
func FreePort(address netip.AddrPort) (netip.AddrPort, error) {
	bound := address
	config := net.ListenConfig{Control: func(_, _ string, socket syscall.RawConn) error {
		var err error
		if e := socket.Control(func(fd uintptr) { bound, err = bind(fd, address) }); e != nil {
			return e
		}
		if err != nil {
			return err
		}
		return errBound
	}}
	family := "tcp6"
	if address.Addr().Unmap().Is4() {
		family = "tcp4" // else net takes an IPv6 socket for 0.0.0.0
	}
	ln, err := config.Listen(context.Background(), family, address.String())
	if errors.Is(err, errBound) {
		return bound, nil
	}
	if err == nil { // not reached: Control always fails
		ln.Close()
	}
	return address, err
}

// socketAddress is the address as the system writes it.
func socketAddress(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Unmap().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func boundPort(a netip.AddrPort, bound syscall.Sockaddr) netip.AddrPort {
	switch b := bound.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(a.Addr(), uint16(b.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(a.Addr(), uint16(b.Port))
	}
	return a
}
