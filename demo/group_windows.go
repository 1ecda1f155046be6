package demo

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps a console's Ctrl-C from the children: the parent ends them in order.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
