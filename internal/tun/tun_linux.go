package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Name is that of the device, beside lo.
const Name = "cepa0"

// ErrMissing says that the system has no /dev/net/tun, or does not let this program open it.
var ErrMissing = errors.New("opening /dev/net/tun")

// Open makes the device and returns its descriptor, which is closed on exec; flags are more flags of open(2). A read or
// write of it is one IP packet. It needs CAP_NET_ADMIN in the namespace.
func Open(flags int) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	request, err := unix.NewIfreq(Name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("making a TUN device: %w", err)
	}
	return fd, nil
}

// Settings are those of the device.
type Settings struct {
	Address netip.Addr // IPv4
	MTU     int        // bytes of a packet
	Queue   int        // packets that it holds until they are read; 0 is the system's default
}

// Configure brings lo and the device up, and leads all IPv4 packets to the device.
func Configure(s Settings) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	type step struct {
		device string
		call   uint
		fill   func(*unix.Ifreq) error
	}
	up := func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }
	number := func(n int) func(*unix.Ifreq) error {
		return func(r *unix.Ifreq) error { r.SetUint32(uint32(n)); return nil }
	}
	steps := []step{
		{"lo", unix.SIOCSIFFLAGS, up},
		{Name, unix.SIOCSIFMTU, number(s.MTU)},
		{Name, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(s.Address.AsSlice()) }},
		{Name, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 255}) }},
		{Name, unix.SIOCSIFFLAGS, up},
	}
	if s.Queue > 0 {
		steps = append([]step{{Name, unix.SIOCSIFTXQLEN, number(s.Queue)}}, steps...)
	}
	for _, step := range steps {
		request, err := unix.NewIfreq(step.device)
		if err == nil {
			err = step.fill(request)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, step.call, request)
		}
		if err != nil {
			return fmt.Errorf("setting up %s, call %#x: %w", step.device, step.call, err)
		}
	}
	return defaultRoute(fd)
}

// defaultRoute leads all IPv4 packets to the device.
func defaultRoute(fd int) error {
	name := append([]byte(Name), 0)
	var request struct { // struct rtentry
		_                  uintptr
		dst, gateway, mask unix.RawSockaddrInet4
		flags              uint16
		_                  int16
		_, _               uintptr
		metric             int16
		device             *byte
		mtu, window        uintptr
		irtt               uint16
	}
	request.dst.Family, request.gateway.Family, request.mask.Family = unix.AF_INET, unix.AF_INET, unix.AF_INET
	request.flags, request.device = unix.RTF_UP, &name[0]
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(name)
	if errno != 0 {
		return fmt.Errorf("setting the default route: %w", errno)
	}
	return nil
}
