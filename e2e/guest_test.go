//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// guest is a Debian machine of its own whose first process is the real systemd: namespaces of all kinds around a
// copy of this machine's files, in memory. What is done there leaves nothing here.
type guest struct {
	pid   int
	share string // a folder that both machines see, at /share there
}

// guestSetup is the first process until systemd is. $1 is a folder to mount in, $2 the shared one, $3 a terminal for
// systemd's own messages.
const guestSetup = `set -e
mount --make-rprivate /
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
r=$1/root
mount -t proc proc "$r/proc"
mount -t sysfs sysfs "$r/sys"
mount -t cgroup2 cgroup2 "$r/sys/fs/cgroup"
mount -t tmpfs -o mode=755 none "$r/run"
mount -t tmpfs -o mode=1777 none "$r/tmp"
mount -t tmpfs -o mode=755 none "$r/dev"
for d in null zero full random urandom tty; do touch "$r/dev/$d"; mount --bind "/dev/$d" "$r/dev/$d"; done
mkdir "$r/dev/shm" "$r/dev/pts" "$r/share"
mount -t tmpfs none "$r/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$r/dev/pts"
ln -s pts/ptmx "$r/dev/ptmx"
ln -s /proc/self/fd "$r/dev/fd"
mount --bind "$2" "$r/share"
touch "$r/dev/console"
mount --bind "$3" "$r/dev/console"
echo cepa-machine >"$r/etc/hostname"
rm -rf "$r"/etc/systemd/system/*.wants "$r/usr/sbin/policy-rc.d"
echo "1: $r"
ip link set lo up
export container=lxc
# Not chroot: nobody in one may make a user namespace, as services with PrivateUsers do.
mkdir "$r/old"
cd "$r"
pivot_root . old
umount -l /old
exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no
`

// bootGuest starts a machine, and waits until its systemd answers.
func bootGuest(t *testing.T) *guest {
	t.Helper()
	if os.Getuid() != 0 {
		lacking(t, "only root can make a machine with systemd")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		lacking(t, "systemd is missing: install the Debian package systemd")
	}
	terminal, console, err := pty.Open()
	fatal(t, err)
	t.Cleanup(func() { terminal.Close(); console.Close() })
	said := make(chan string, 1)
	go func() {
		var all strings.Builder
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			all.Write(buffer[:n])
			if err != nil {
				said <- all.String()
				return
			}
		}
	}()
	m := &guest{share: t.TempDir()}
	at, err := os.MkdirTemp("", "cepa-machine-")
	fatal(t, err)
	cmd := exec.Command("bash", "-c", guestSetup, "machine", at, m.share, console.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP}
	p, err := launch(cmd)
	if err != nil {
		lacking(t, "no machine can be made: %v", err)
	}
	m.pid = p.pid()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL) // and with it all that runs there
		<-p.done
		if err := os.Remove(at); err != nil {
			t.Errorf("the machine left something: %v", err)
		}
		console.Close()
		if t.Failed() {
			t.Logf("the machine said:\n%s\n%s", p.tail(), <-said)
		}
	})
	within(t, 30*time.Second, "systemd answers", func() bool {
		if !p.running() {
			lacking(t, "no machine can be made:\n%s", p.tail())
		}
		out, _ := m.command("systemctl", "is-active", "basic.target").CombinedOutput()
		return strings.TrimSpace(string(out)) == "active"
	})
	return m
}

// command is a command that is yet to run there.
func (m *guest) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(m.pid), "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--root", "--wd=/", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// try runs a command there, and returns what it said and whether it went well.
func (m *guest) try(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	out, code := finish(t, 90*time.Second, m.command(args...))
	return strings.TrimSpace(out), code == 0
}

// run runs a command there that has to go well.
func (m *guest) run(t *testing.T, args ...string) string {
	t.Helper()
	out, ok := m.try(t, args...)
	if !ok {
		t.Fatalf("%q:\n%s", args, out)
	}
	return out
}

// exists reports whether there is a file there.
func (m *guest) exists(path string) bool {
	_, err := os.Lstat(filepath.Join("/proc", fmt.Sprint(m.pid), "root", path))
	return !errors.Is(err, os.ErrNotExist)
}

// edit changes a file there.
func (m *guest) edit(t *testing.T, path string, change func(string) string) {
	t.Helper()
	path = filepath.Join("/proc", fmt.Sprint(m.pid), "root", path)
	text, err := os.ReadFile(path)
	fatal(t, err)
	fatal(t, os.WriteFile(path, []byte(change(string(text))), 0o644))
}
