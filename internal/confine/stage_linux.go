package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// fileCapabilities are those of root that stay root's inside: over files and users, not over networks or mounts.
var fileCapabilities = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
}

// stage gives up what the program must not have and becomes the program.
func stage(args []string) int {
	runtime.LockOSThread() // rights are the thread's, and this one becomes the program
	var o order
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &o) != nil || len(o.Program) < 2 {
		return exitCannotRun
	}
	err := restrict(o)
	if err == nil {
		err = unix.Exec(o.Program[0], o.Program[1:], os.Environ())
	}
	if errors.Is(err, unix.ENOEXEC) {
		err = fmt.Errorf("%w: it is no program, and no script that names its interpreter", err)
	}
	fmt.Fprintf(os.Stderr, "cepa: starting %s: %v\n", o.Program[1], err)
	return exitCannotRun
}

func restrict(o order) error {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("closing descriptors: %w", err)
	}
	if err := dropCapabilities(o.KeepFiles); err != nil {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	if err := installFilter(o.UnixSockets); err != nil {
		return fmt.Errorf("installing the system call filter: %w", err)
	}
	return nil
}

// dropCapabilities leaves none, or those over files.
func dropCapabilities(files bool) error {
	var keep []int
	if files {
		keep = fileCapabilities
	}
	for c := 0; ; c++ {
		if slices.Contains(keep, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // the kernel has no more
		} else if err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	var data [2]unix.CapUserData
	for _, c := range keep {
		data[c/32].Permitted |= 1 << (c % 32)
	}
	data[0].Effective, data[1].Effective = data[0].Permitted, data[1].Permitted
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
}
