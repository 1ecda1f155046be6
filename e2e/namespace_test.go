//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// namespaceVariable names the test that this copy of the test binary runs in a network
// namespace of its own.
const namespaceVariable = "CEPA_E2E_NAMESPACE"

// ownNetwork runs the calling test in a network namespace of its own, in a copy of the test
// binary: there all ports are free, every packet is ours, and packets can be made to vanish.
// It returns true in the copy. In the caller it returns false when the copy has done the
// test; what the copy said is the test's log, and its failure the test's.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceVariable) == t.Name() {
		if err := loopbackUp(); err != nil {
			t.Fatalf("the loopback interface of the namespace: %v", err)
		}
		return true
	}
	args := []string{"-test.run=^" + regexp.QuoteMeta(t.Name()) + "$", "-test.v", "-test.timeout=10m"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	if dir := t.ArtifactDir(); dir != "" {
		args = append(args, "-test.artifacts", "-test.outputdir="+dir)
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), namespaceVariable+"="+t.Name(), cepaVariable+"="+cepa)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 { // be root in a user namespace
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	p, err := launch(cmd)
	if err != nil {
		lacking(t, "no network namespace can be made: %v", err)
	}
	select {
	case <-p.done:
	case <-time.After(10 * time.Minute):
	}
	p.end()
	out := p.output()
	switch {
	case p.err != nil:
		t.Fatalf("in the namespace: %v\n%s", p.err, out)
	case strings.Contains(out, "\n--- SKIP"):
		lacking(t, "in the namespace:\n%s", out)
	default:
		t.Logf("in the namespace:\n%s", out)
	}
	return false
}

// loopbackUp makes 127.0.0.0/8 work in a new namespace.
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request struct { // struct ifreq
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("setting the interface up: %w", errno)
	}
	return nil
}
