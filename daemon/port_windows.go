package daemon

import (
	"net/netip"
	"os"
	"syscall"
)

func bind(fd uintptr, a netip.AddrPort) (netip.AddrPort, error) {
	if err := syscall.Bind(syscall.Handle(fd), socketAddress(a)); err != nil {
		return a, os.NewSyscallError("bind", err)
	}
	bound, err := syscall.Getsockname(syscall.Handle(fd))
	return boundPort(a, bound), os.NewSyscallError("getsockname", err)
}
