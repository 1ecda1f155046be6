//go:build unix

package demo

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps a terminal's Ctrl-C from the children: the parent ends them in order.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
