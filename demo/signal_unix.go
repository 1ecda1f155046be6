//go:build unix

package demo

import (
	"os/exec"
	"syscall"
)

// signalOf is the signal that ended a program, as shells count it into the exit status.
func signalOf(e *exec.ExitError) syscall.Signal {
	if w, ok := e.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return w.Signal()
	}
	return 0
}
