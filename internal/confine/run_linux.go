package confine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cepa/internal/socksclient"
)

// order is what the first process inside is told.
type order struct {
	Program     []string // its path first
	UnixSockets bool
	KeepFiles   bool // the capabilities of root over files stay
}

// Names of this program inside, as its first argument.
const (
	initName  = "cepa-confined-init"
	stageName = "cepa-confined-stage"
)

// controlFD is the descriptor of the first process inside that leads to this one.
const controlFD = 3

// startTimeout bounds making the namespaces and the device.
const startTimeout = 20 * time.Second

// Run runs the program until it ends and returns its exit status, 128 and the number of the signal that ended it. All
// processes that it has started end with it.
func Run(c Config) (status int, err error) {
	path, err := exec.LookPath(c.Program[0])
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoProgram, err)
	}
	dialer := socksclient.Dialer{Address: c.Socks, User: fmt.Sprintf("cepa exec %d %d", os.Getpid(), time.Now().UnixNano())}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := dialer.Check(ctx); err != nil {
		return 0, err
	}
	terminal := openTerminal()
	defer terminal.close()
	signals := make(chan os.Signal, 16) // from now on they are the program's
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	runtime.LockOSThread() // the child dies with the thread that made it
	cmd, control, err := startInside(order{Program: append([]string{path}, c.Program...), UnixSockets: c.UnixSockets, KeepFiles: os.Geteuid() == 0})
	if err != nil {
		return 0, err
	}
	defer control.Close()
	device, err := receiveDevice(control)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 0, err
	}
	w, err := newWire(device, dialer)
	if err == nil {
		_, err = control.Write([]byte{1})
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 0, fmt.Errorf("starting the program's network: %w", err)
	}
	defer w.close()
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if !terminal.sent(s) {
					_ = cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	terminal.takeBack()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("waiting for %s: %w", c.Program[0], err)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// passed are the signals that the program gets when this process gets them.
var passed = []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH}

// startInside starts the first process in namespaces of its own.
func startInside(o order) (*exec.Cmd, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer far.Close()
	uids, gids := idMaps()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{initName}, Env: environment(os.Environ()), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{far}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: o.KeepFiles,
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP, unix.CAP_SYS_PTRACE},
		Pdeathsig:   unix.SIGKILL,
	}
	if o.KeepFiles {
		cmd.SysProcAttr.AmbientCaps = nil // root has them all, in its namespace
	}
	if err := cmd.Start(); err != nil {
		near.Close()
		return nil, nil, whyNoNamespaces(err)
	}
	message, err := json.Marshal(o)
	if err == nil {
		_, err = near.Write(append(message, '\n'))
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		near.Close()
		return nil, nil, fmt.Errorf("starting the program's namespaces: %w", err)
	}
	return cmd, near, nil
}

// idMaps are the users and groups inside: those outside, as far as this process may pass them on. Root passes on all
// that it has; others themselves.
func idMaps() (uids, gids []syscall.SysProcIDMap) {
	if os.Geteuid() != 0 {
		u, g := os.Getuid(), os.Getgid()
		return []syscall.SysProcIDMap{{ContainerID: u, HostID: u, Size: 1}}, []syscall.SysProcIDMap{{ContainerID: g, HostID: g, Size: 1}}
	}
	read := func(path string) (m []syscall.SysProcIDMap) {
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			var inside, outside, size int
			if n, _ := fmt.Sscan(line, &inside, &outside, &size); n == 3 {
				m = append(m, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
			}
		}
		return m
	}
	return read("/proc/self/uid_map"), read("/proc/self/gid_map")
}

// whyNoNamespaces adds what to do to the error of making namespaces.
func whyNoNamespaces(err error) error {
	advice := "its kernel or a sandbox around it (a container's seccomp filter?) does not permit user namespaces"
	number := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	switch {
	case number("/proc/sys/user/max_user_namespaces") == "0":
		advice = "user namespaces are switched off: 'sysctl -w user.max_user_namespaces=10000' as root"
	case number("/proc/sys/kernel/unprivileged_userns_clone") == "0" && os.Geteuid() != 0:
		advice = "user namespaces are for root alone: 'sysctl -w kernel.unprivileged_userns_clone=1' as root"
	case number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" && os.Geteuid() != 0:
		advice = "AppArmor keeps user namespaces from unknown programs: 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0' as root, or a profile with 'userns,' for cepa"
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS):
		advice = "there are too many user namespaces, or they are nested too deep"
	}
	return fmt.Errorf("%w: making its namespaces: %w; %s. Nothing was run", ErrUnsupported, err, advice)
}

// environment leaves out what leads programs to proxies, resolvers and agents that they cannot reach, or must not.
func environment(list []string) (kept []string) {
	for _, v := range list {
		name, _, _ := strings.Cut(v, "=")
		switch upper := strings.ToUpper(name); {
		case strings.HasSuffix(upper, "_PROXY"), upper == "RES_OPTIONS", upper == "LOCALDOMAIN", upper == "HOSTALIASES",
			upper == "DBUS_SESSION_BUS_ADDRESS", upper == "DBUS_SYSTEM_BUS_ADDRESS", upper == "SSH_AUTH_SOCK":
			continue
		}
		kept = append(kept, v)
	}
	return kept
}

// maxReport bounds what the first process inside says when it fails.
const maxReport = 4096

// receiveDevice gets the TUN device, or the reason why there is none.
func receiveDevice(control *os.File) (*os.File, error) {
	_ = control.SetReadDeadline(time.Now().Add(startTimeout))
	raw, err := control.SyscallConn()
	if err != nil {
		return nil, err
	}
	data, oob := make([]byte, maxReport), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, failed = unix.Recvmsg(int(fd), data, oob, unix.MSG_CMSG_CLOEXEC)
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed); err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the first process inside has ended: %w", ErrUnsupported, err)
	}
	if data[0] != 0 {
		return nil, fmt.Errorf("%w: %s. Nothing was run", ErrUnsupported, data[:n])
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%d messages", len(list))
	}
	var fds []int
	if err == nil {
		fds, err = unix.ParseUnixRights(&list[0])
	}
	if err == nil && len(fds) != 1 {
		err = fmt.Errorf("%d descriptors", len(fds))
	}
	if err != nil {
		return nil, fmt.Errorf("receiving the network device: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "tun"), nil
}

// terminal is the terminal of this process, if it has one.
type terminal struct {
	file  *os.File
	front bool // this process's group was the one in front at the start
}

func openTerminal() *terminal {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return &terminal{}
	}
	t := &terminal{file: f}
	t.front = t.inFront()
	return t
}

func (t *terminal) inFront() bool {
	if t.file == nil {
		return false
	}
	group, err := unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// sent says whether a signal will have come from the terminal: then the program, which is in the same group, has it too.
func (t *terminal) sent(s os.Signal) bool {
	return (s == unix.SIGINT || s == unix.SIGQUIT || s == unix.SIGWINCH) && t.inFront()
}

// takeBack makes this process's group the one in front again, when a shell inside has not.
func (t *terminal) takeBack() {
	if !t.front || t.inFront() {
		return
	}
	signal.Ignore(unix.SIGTTOU)
	_ = unix.IoctlSetPointerInt(int(t.file.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
}

func (t *terminal) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}
