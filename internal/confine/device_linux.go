package confine

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceName is that of the one device inside, beside lo.
const deviceName = "cepa0"

// openDevice makes the TUN device in this process's namespace, with its addresses and the default routes.
func openDevice() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening /dev/net/tun: %w: 'modprobe tun' as root, and in a container pass the device in", err)
	}
	request, err := unix.NewIfreq(deviceName)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil {
		err = configureDevice()
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("making its network device: %w", err)
	}
	return fd, nil
}

func configureDevice() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	up := func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }
	for _, step := range []struct {
		device string
		call   uint
		fill   func(*unix.Ifreq) error
	}{
		{"lo", unix.SIOCSIFFLAGS, up},
		{deviceName, unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil }},
		{deviceName, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(insideAddress.AsSlice()) }},
		{deviceName, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 255}) }},
		{deviceName, unix.SIOCSIFFLAGS, up},
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
	if err := defaultRoute(s); err != nil {
		return err
	}
	configureIPv6(s)
	return nil
}

// defaultRoute leads all IPv4 packets to the device.
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

// configureIPv6 does the same for IPv6. A machine without IPv6 is none the worse: the device stays the only way.
func configureIPv6(s4 int) {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+deviceName+"/router_solicitations", []byte("0"), 0)
	request, err := unix.NewIfreq(deviceName)
	if err != nil || unix.IoctlIfreq(s4, unix.SIOCGIFINDEX, request) != nil {
		return
	}
	index := int32(request.Uint32())
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
