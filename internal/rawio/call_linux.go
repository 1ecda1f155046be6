package rawio

import (
	"syscall"
	"unsafe"
)

const short = true

var errAgain error = syscall.EAGAIN

// call makes a system call, again while a signal interrupts it.
func call(number, fd uintptr, p unsafe.Pointer, size int) (int, error) {
	for {
		n, _, err := syscall.RawSyscall(number, fd, uintptr(p), uintptr(size))
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, errAgain
		default:
			return 0, err
		}
	}
}

func read(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p))
}

func write(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p))
}

// writev writes what it can of the first few of bufs.
func writev(fd uintptr, bufs [][]byte) (int, error) {
	var v [16]syscall.Iovec
	n := min(len(bufs), len(v))
	for i, b := range bufs[:n] {
		v[i].Base = unsafe.SliceData(b)
		v[i].SetLen(len(b))
	}
	return call(syscall.SYS_WRITEV, fd, unsafe.Pointer(&v), n)
}
