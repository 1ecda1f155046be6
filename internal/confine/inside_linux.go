package confine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Hook is the whole life of the processes that Run starts inside; in others it returns at once. main calls it first.
func Hook() {
	switch os.Args[0] {
	case initName:
		os.Exit(first())
	case stageName:
		os.Exit(stage(os.Args[1:]))
	}
}

// exitCannotRun is the status of shells for a program that is there and cannot be run.
const exitCannotRun = 126

// first is process 1 inside: it makes the network and the mounts, starts the program and waits for it. When it ends,
// the kernel ends all that is left.
func first() int {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	unix.CloseOnExec(controlFD)
	control := os.NewFile(controlFD, "control")
	reader := bufio.NewReader(control)
	var o order
	line, err := reader.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	if err != nil {
		return exitCannotRun // nobody is there to tell
	}
	if err := prepare(); err != nil {
		_, _ = control.WriteString(err.Error())
		return exitCannotRun
	}
	if err := handDevice(); err != nil {
		_, _ = control.WriteString(err.Error())
		return exitCannotRun
	}
	if _, err := reader.ReadByte(); err != nil { // the stack is there
		return exitCannotRun
	}
	go func() { // whoever holds the other end has gone: so do all
		_, _ = reader.ReadByte()
		os.Exit(exitCannotRun)
	}()
	return runStage(o)
}

// prepare makes the mounts.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making its mounts private: %w", err)
	}
	if err := replaceFiles(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting its own /proc: %w (in a container, /proc must not be masked)", err)
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger"} {
		if err := readOnly(path); err != nil {
			return fmt.Errorf("protecting %s: %w", path, err)
		}
	}
	// The devices of the machine are not the program's to see; without a /sys of its own it has none.
	if unix.Mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") != nil {
		if err := unix.Mount("tmpfs", "/sys", "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k"); err != nil {
			return fmt.Errorf("covering /sys: %w", err)
		}
	}
	return nil
}

func readOnly(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

var hostsLine = regexp.MustCompile(`(?m)^\s*hosts\s*:.*$`)

// replaceFiles puts files of its own in the place of those that say how names are resolved. They lie in a file system
// in memory that has no other place.
func replaceFiles() error {
	const place = "/sys" // covered again in a moment
	if err := unix.Mount("tmpfs", place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m,mode=755"); err != nil {
		return fmt.Errorf("making a file system in memory: %w", err)
	}
	files := []struct{ path, text string }{
		{"/etc/resolv.conf", "nameserver " + resolverAddress.String() + "\noptions timeout:5 attempts:2\n"},
		{"/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"},
	}
	if text, err := os.ReadFile("/etc/nsswitch.conf"); err == nil {
		files = append(files, struct{ path, text string }{"/etc/nsswitch.conf", hostsLine.ReplaceAllString(string(text), "hosts: files dns")})
	}
	for i, f := range files {
		if _, err := os.Stat(f.path); errors.Is(err, os.ErrNotExist) && i > 0 {
			continue
		}
		source := fmt.Sprintf("%s/%d", place, i)
		err := os.WriteFile(source, []byte(f.text), 0o644)
		if err == nil {
			err = os.Chmod(source, 0o444)
		}
		if err == nil {
			err = unix.Mount(source, f.path, "", unix.MS_BIND, "")
		}
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("there is no %s, in whose place its own could be put: make an empty one", f.path)
		}
		if err != nil {
			return fmt.Errorf("putting its own %s in place: %w", f.path, err)
		}
	}
	if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("hiding the file system in memory: %w", err)
	}
	return nil
}

// handDevice makes the network device and gives it to the process outside.
func handDevice() error {
	fd, err := openDevice()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendmsg(controlFD, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("handing out the network device: %w", err)
	}
	return nil
}

// runStage starts the program by way of stage, passes signals on, and buries what it leaves.
func runStage(o order) int {
	message, err := json.Marshal(o)
	if err != nil {
		return exitCannotRun
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passed...)
	pid, err := syscall.ForkExec("/proc/self/exe", []string{stageName, string(message)}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Fprintf(os.Stderr, "cepa: starting %s: %v\n", o.Program[1], err)
		return exitCannotRun
	}
	go func() {
		for s := range signals {
			// Of the terminal's own signals, those that come here from the process outside are meant for the program.
			_ = syscall.Kill(pid, s.(syscall.Signal))
		}
	}()
	for {
		var ws syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return exitCannotRun
		case ended == pid && ws.Signaled():
			return 128 + int(ws.Signal())
		case ended == pid:
			return ws.ExitStatus()
		}
	}
}
