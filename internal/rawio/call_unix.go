//go:build unix && !linux

package rawio

import "syscall"

const short = true

var errAgain error = syscall.EAGAIN

// again makes a system call again while a signal interrupts it.
func again(call func(int, []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		if n, err := call(int(fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func read(fd uintptr, p []byte) (int, error)  { return again(syscall.Read, fd, p) }
func write(fd uintptr, p []byte) (int, error) { return again(syscall.Write, fd, p) }

// writev writes what it can of the first of bufs.
func writev(fd uintptr, bufs [][]byte) (int, error) { return write(fd, bufs[0]) }
