package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h). The machine is little-endian: the low half of an argument is first.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// Answers of the filter.
const (
	answerAllow = unix.SECCOMP_RET_ALLOW
	answerKill  = unix.SECCOMP_RET_KILL_PROCESS
)

func answerErrno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// architecture is the one whose system calls the filter knows.
var architecture = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]

// x32Bit marks system calls of amd64's second interface, which has other numbers for some.
const x32Bit = 0x40000000

// denied are system calls that lead out of the namespaces by another way than a packet.
var denied = []struct {
	number uint32
	answer unix.Errno
}{
	{unix.SYS_IO_URING_SETUP, unix.ENOSYS}, // makes sockets that this filter does not see
	{unix.SYS_ADD_KEY, unix.ENOSYS},        // the kernel may ask a resolver outside for a key
	{unix.SYS_REQUEST_KEY, unix.ENOSYS},
	{unix.SYS_KEYCTL, unix.ENOSYS},
	{unix.SYS_SETNS, unix.EPERM},
	{unix.SYS_BPF, unix.EPERM},
	{unix.SYS_PIDFD_GETFD, unix.EPERM}, // takes descriptors of other processes
}

// filter is the program of the system call filter. Everything is allowed but: sockets of families that have other ways
// out than the network namespace (vsock, Bluetooth, ...), Unix sockets unless asked for, netlink but for routes and
// sockets; what denied lists; writing into a terminal's input; system calls of other architectures.
func filter(unixSockets bool) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: architecture, SkipTrue: 1},
		bpf.RetConstant{Val: answerKill},
		bpf.LoadAbsolute{Off: dataNumber, Size: 4},
	}
	if runtime.GOARCH == "amd64" {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1}, bpf.RetConstant{Val: answerErrno(unix.ENOSYS)})
	}
	for _, d := range denied {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: d.number, SkipTrue: 1}, bpf.RetConstant{Val: answerErrno(d.answer)})
	}
	// call adds a part that only one system call runs, and that ends with an answer.
	call := func(number uint32, part ...bpf.Instruction) {
		p = append(append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: uint8(len(part))}), part...)
	}
	refused := bpf.RetConstant{Val: answerErrno(unix.EAFNOSUPPORT)}
	allowed := bpf.RetConstant{Val: answerAllow}
	argument := func(i uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: dataArgs + 8*i, Size: 4} }
	is := func(v uint32, skip uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: skip}
	}
	local := refused
	if unixSockets {
		local = allowed
	}
	call(unix.SYS_SOCKET,
		argument(0),
		is(unix.AF_INET, 1), allowed,
		is(unix.AF_INET6, 1), allowed,
		is(unix.AF_UNIX, 1), local,
		is(unix.AF_NETLINK, 5),
		argument(2),
		is(unix.NETLINK_ROUTE, 1), allowed,
		is(unix.NETLINK_SOCK_DIAG, 1), allowed,
		refused)
	pair := []bpf.Instruction{
		argument(0),
		is(unix.AF_UNIX, 5),
		argument(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf},
		is(unix.SOCK_STREAM, 1), allowed,
		is(unix.SOCK_SEQPACKET, 1), allowed,
		refused, // a datagram socket of a pair can send to any address
	}
	pair[1] = is(unix.AF_UNIX, uint8(len(pair)-3))
	if unixSockets {
		pair = []bpf.Instruction{argument(0), is(unix.AF_UNIX, 1), allowed, refused}
	}
	call(unix.SYS_SOCKETPAIR, pair...)
	forbidden := bpf.RetConstant{Val: answerErrno(unix.EPERM)}
	call(unix.SYS_IOCTL, argument(1), is(unix.TIOCSTI, 1), forbidden, is(tioclinux, 1), forbidden, allowed)
	return append(p, allowed)
}

// tioclinux is the request of a Linux console that can paste into its input (tty_ioctl(4)).
const tioclinux = 0x541C

// installFilter puts the filter on the calling thread and all that it will start.
func installFilter(unixSockets bool) error {
	if architecture == 0 {
		return fmt.Errorf("none is written for %s", runtime.GOARCH)
	}
	raw, err := bpf.Assemble(filter(unixSockets))
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return errno
	}
	return nil
}
