package netlink

import (
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceName is that of the one device of each namespace, beside lo.
const deviceName = "cepa0"

// queueLength is how many packets the device holds until they are read.
const queueLength = 4096

// openTUN makes the device in the namespace of the calling thread.
func openTUN() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: /dev/net/tun: %w", ErrUnsupported, err)
	}
	request, err := unix.NewIfreq(deviceName)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%w: a TUN device: %w", ErrUnsupported, err)
	}
	return fd, nil
}

// configure brings up the loopback device and ours, with its address and the default route.
func configure(address netip.Addr) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for _, step := range []struct {
		device string
		call   uint
		fill   func(*unix.Ifreq) error
	}{
		{"lo", unix.SIOCSIFFLAGS, flags},
		{deviceName, unix.SIOCSIFTXQLEN, number(queueLength)},
		{deviceName, unix.SIOCSIFMTU, number(mtu)},
		{deviceName, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(address.AsSlice()) }},
		{deviceName, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 255}) }},
		{deviceName, unix.SIOCSIFFLAGS, flags},
	} {
		request, err := unix.NewIfreq(step.device)
		if err == nil {
			err = step.fill(request)
		}
		if err == nil {
			err = unix.IoctlIfreq(s, step.call, request)
		}
		if err != nil {
			return fmt.Errorf("setting up %s, call %#x: %w", step.device, step.call, err)
		}
	}
	return defaultRoute(s)
}

func flags(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }

func number(n uint32) func(*unix.Ifreq) error {
	return func(r *unix.Ifreq) error { r.SetUint32(n); return nil }
}

// defaultRoute leads all packets to our device.
func defaultRoute(s int) error {
	name := append([]byte(deviceName), 0)
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
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCADDRT, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(name)
	if errno != 0 {
		return fmt.Errorf("setting the default route: %w", errno)
	}
	return nil
}
