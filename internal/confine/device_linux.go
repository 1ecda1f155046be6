package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"cepa/internal/tun"
)

// openDevice makes the TUN device in this process's namespace, with its addresses and the default routes.
func openDevice() (int, error) {
	fd, err := tun.Open(0)
	switch {
	case errors.Is(err, tun.ErrMissing) && errors.Is(err, unix.EACCES):
		return -1, fmt.Errorf("%w: it should be open to all, as systems make it: 'chmod 0666 /dev/net/tun' as root", err)
	case errors.Is(err, tun.ErrMissing):
		return -1, fmt.Errorf("%w: 'modprobe tun' as root, and in a container pass the device in", err)
	}
	if err == nil {
		if err = tun.Configure(tun.Settings{Address: insideAddress, MTU: mtu}); err == nil {
			configureIPv6()
			return fd, nil
		}
		_ = unix.Close(fd)
	}
	return -1, fmt.Errorf("making its network device: %w", err)
}

// configureIPv6 gives the device an IPv6 address, and leads all such packets to it. A machine without IPv6 is none the worse: the device stays the only way.
func configureIPv6() {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+tun.Name+"/router_solicitations", []byte("0"), 0)
	device, err := net.InterfaceByName(tun.Name)
	if err != nil {
		return
	}
	index := int32(device.Index)
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(s)
	address := struct { // struct in6_ifreq
		address [16]byte
		prefix  uint32
		index   int32
	}{inside6Address.As16(), 128, index}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&address))); errno != 0 {
		return
	}
	route := struct { // struct in6_rtmsg
		dst, src, gateway [16]byte
		kind              uint32
		dstLen, srcLen    uint16
		metric            uint32
		info              uint
		flags             uint32
		index             int32
	}{metric: 1, flags: unix.RTF_UP, index: index}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCADDRT, uintptr(unsafe.Pointer(&route)))
}
