//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// buildPackage builds the Debian package with a version, quickly.
func buildPackage(t *testing.T, to, version string) string {
	t.Helper()
	need(t, "dpkg-deb")
	cmd := exec.Command("../deploy/debian/build")
	cmd.Env = append(os.Environ(), "OUT="+to, "VERSION="+version, "BUILD_FLAGS=", "DPKG_DEB_FLAGS=-Zgzip -z1")
	if out, code := finish(t, 170*time.Second, cmd); code != 0 {
		t.Fatalf("status %d: %s", code, out)
	}
	return fmt.Sprintf("cepa_%s_%s.deb", version, runtime.GOARCH)
}

// renumber makes another version of a package, with the same content.
func renumber(t *testing.T, dir, from, version string) string {
	t.Helper()
	to := "newer.deb"
	cmd := exec.Command("sh", "-ec", `dpkg-deb -R "$1" newer; sed -i "s/^Version: .*/Version: $2/" newer/DEBIAN/control; dpkg-deb --root-owner-group -Zgzip -z1 -b newer "$3"`, "sh", from, version, to)
	cmd.Dir = dir
	if out, code := finish(t, 60*time.Second, cmd); code != 0 {
		t.Fatal(out)
	}
	return to
}

// TestDebianPackage installs the package on a machine with systemd, makes a network of its services there, with which a
// page is fetched, upgrades it while they run, and purges it.
func TestDebianPackage(t *testing.T) {
	long(t)
	m := bootGuest(t)
	first := buildPackage(t, m.share, "0.1.0")
	second := renumber(t, m.share, first, "0.1.1")
	if lintian, err := exec.LookPath("lintian"); err == nil {
		if out, err := exec.Command(lintian, "--allow-root", "--fail-on", "error,warning", filepath.Join(m.share, first)).CombinedOutput(); err != nil {
			t.Errorf("lintian: %v\n%s", err, out)
		}
	} else {
		lacking(t, "lintian is missing: install the Debian package lintian")
	}

	m.run(t, "dpkg", "-i", "/share/"+first)
	m.run(t, "systemctl", "start", "systemd-journald")
	if out := m.run(t, "cepa", "--version"); !strings.HasSuffix(out, "0.1.0") {
		t.Errorf("%s", out)
	}
	if out := m.run(t, "getent", "passwd", "cepa"); !strings.Contains(out, "nologin") {
		t.Errorf("%s", out)
	}
	services := []string{"cepa-authority", "cepa-relay", "cepa-relay@two", "cepa-relay@three", "cepa-client"}
	for _, s := range services {
		enabled, _ := m.try(t, "systemctl", "is-enabled", s)
		active, _ := m.try(t, "systemctl", "is-active", s)
		if enabled != "disabled" || active != "inactive" {
			t.Errorf("%s is %s and %s after the package was installed", s, enabled, active)
		}
	}
	for _, page := range []string{"cepa", "cepa-relay", "cepa-relay.toml"} {
		m.run(t, "man", "-w", page)
	}

	t.Run("without a network", func(t *testing.T) {
		m.try(t, "systemctl", "start", "cepa-relay")
		within(t, 10*time.Second, "the journal says what to do", func() bool {
			out, _ := m.try(t, "journalctl", "--no-pager", "-u", "cepa-relay")
			return strings.Contains(out, "reading the network file") && strings.Contains(out, "/etc/cepa/network.toml")
		})
		m.run(t, "systemctl", "stop", "cepa-relay")
	})

	m.run(t, "cepa", "network", "new", "--test", "--dir", "/srv/net", "--authority", "127.41.0.1:9001", "--param", "interval_ms=2000")
	m.run(t, "install", "-m", "644", "/srv/net/network.toml", "/etc/cepa/network.toml")
	m.run(t, "install", "-d", "-o", "cepa", "-g", "cepa", "-m", "700", "/var/lib/cepa", "/var/lib/cepa/authority")
	m.run(t, "sh", "-c", "cp -r /srv/net/authority/. /var/lib/cepa/authority && chown -R cepa:cepa /var/lib/cepa/authority")
	m.run(t, "sh", "-c", "for n in two three; do sed s:/var/lib/cepa/relay:/var/lib/cepa/relay-$n: /etc/cepa/relay.toml >/etc/cepa/relay-$n.toml; done")
	for i, file := range []string{"authority", "relay", "relay-two", "relay-three"} {
		m.edit(t, "/etc/cepa/"+file+".toml", func(text string) string {
			text = strings.Replace(text, `#listen = "0.0.0.0:9001"`, fmt.Sprintf("listen = %q", fmt.Sprintf("127.4%d.0.1:9001", i+1)), 1)
			text = strings.Replace(text, `#exit_policy = "none"`, `exit_policy = "full"`, 1)
			return strings.Replace(text, `#drain = ""`, `drain = "1s"`, 1)
		})
	}
	m.edit(t, "/etc/cepa/relay-two.toml", func(text string) string {
		return strings.Replace(text, `#exit_notice = ""`, `exit_notice = "127.42.0.9:8080"`, 1)
	})
	for _, s := range services {
		m.run(t, "systemctl", "start", s)
	}
	fetch := func(t *testing.T) {
		t.Helper()
		defer func() {
			if t.Failed() {
				out, _ := m.try(t, "journalctl", "--no-pager", "-o", "cat", "-n", "60")
				t.Log(out)
			}
		}()
		within(t, 60*time.Second, "a page comes through three relays", func() bool {
			out, ok := m.try(t, "curl", "-sS", "--max-time", "10", "--socks5-hostname", "127.0.0.1:9850", "http://127.42.0.9:8080/")
			return ok && strings.Contains(out, "exit")
		})
	}
	fetch(t)
	if out := m.run(t, "cepa", "status", "--wait", "60s", "/var/lib/cepa/relay"); !strings.Contains(out, "127.42.0.1:9001") {
		t.Errorf("%s", out)
	}

	t.Run("sandbox", func(t *testing.T) {
		user := m.run(t, "id", "-u", "cepa")
		for _, s := range services {
			pid := m.run(t, "systemctl", "show", "-P", "MainPID", s)
			text := m.run(t, "cat", "/proc/"+pid+"/status")
			for _, want := range []string{`Uid:\s` + user + `\s`, `CapEff:\s0+\n`, `CapBnd:\s0+\n`, `CapAmb:\s0+\n`, `NoNewPrivs:\s1\n`, `Seccomp:\s2\n`} {
				if !regexp.MustCompile(want).MatchString(text) {
					t.Errorf("%s: no %s in\n%s", s, want, text)
				}
			}
			if out := m.run(t, "systemctl", "show", "-P", "NRestarts", s); out != "0" && s != "cepa-relay" {
				t.Errorf("%s was started again: %s", s, out)
			}
			for _, c := range []string{"echo x >/etc/cepa/x", "echo x >/var/lib/x", "ls /root", "echo x >/usr/bin/cepa"} {
				if out, ok := m.try(t, "nsenter", "-t", pid, "--mount", "--setuid", user, "--", "sh", "-c", c); ok {
					t.Errorf("%s can %s: %s", s, c, out)
				}
			}
		}
		if out, ok := m.try(t, "sh", "-c", "journalctl --no-pager -o cat | grep -i 'operation not permitted'"); ok {
			t.Errorf("a node wants more than it may:\n%s", out)
		}
	})

	t.Run("reload", func(t *testing.T) {
		m.edit(t, "/etc/cepa/relay.toml", func(text string) string {
			return strings.Replace(text, `#nickname = ""`, `nickname = "renamed"`, 1)
		})
		m.run(t, "systemctl", "reload", "cepa-relay")
		within(t, 10*time.Second, "the new settings are in force", func() bool {
			out, _ := m.try(t, "journalctl", "--no-pager", "-o", "cat", "-u", "cepa-relay")
			return strings.Contains(out, "nickname is in force") || strings.Contains(out, "nickname are in force")
		})
	})

	identity := func() string {
		return m.run(t, "cepa", "keys", "show", "--network", "/etc/cepa/network.toml", "--dir", "/var/lib/cepa/relay")
	}
	before := identity()
	pid := func(s string) string { return m.run(t, "systemctl", "show", "-P", "MainPID", s) }
	t.Run("upgrade", func(t *testing.T) {
		m.run(t, "systemctl", "stop", "cepa-authority")
		old := pid("cepa-relay@two")
		m.run(t, "dpkg", "-i", "/share/"+second)
		if out := m.run(t, "dpkg-query", "-f", "${Version}", "-W", "cepa"); out != "0.1.1" {
			t.Errorf("%s", out)
		}
		if out := m.run(t, "grep", "nickname =", "/etc/cepa/relay.toml"); out != `nickname = "renamed"` {
			t.Errorf("the changed settings were replaced: %s", out)
		}
		if now := pid("cepa-relay@two"); now == old || now == "0" {
			t.Errorf("cepa-relay@two was process %s and is %s", old, now)
		}
		if active, _ := m.try(t, "systemctl", "is-active", "cepa-authority"); active != "inactive" {
			t.Errorf("what was stopped is %s after the upgrade", active)
		}
		m.run(t, "systemctl", "start", "cepa-authority")
		fetch(t)
		if identity() != before {
			t.Errorf("the relay was\n%s\nand is\n%s", before, identity())
		}
	})

	t.Run("stop", func(t *testing.T) {
		m.run(t, "systemctl", "stop", "cepa-relay")
		if out := m.run(t, "systemctl", "show", "-P", "Result", "cepa-relay"); out != "success" {
			t.Errorf("it ended with %s", out)
		}
		m.run(t, "systemctl", "enable", "--now", "cepa-relay")
	})

	t.Run("remove and purge", func(t *testing.T) {
		m.run(t, "dpkg", "-r", "cepa")
		for _, s := range services {
			if active, _ := m.try(t, "systemctl", "is-active", s); active != "inactive" && active != "unknown" && active != "failed" {
				t.Errorf("%s is %s after the package was removed", s, active)
			}
		}
		if out, ok := m.try(t, "pgrep", "-x", "cepa"); ok {
			t.Errorf("something runs on: %s", out)
		}
		if !m.exists("/var/lib/cepa/relay") || !m.exists("/etc/cepa/relay.toml") || m.exists("/usr/bin/cepa") {
			t.Error("removing keeps identity and settings, and nothing else")
		}
		m.run(t, "dpkg", "-P", "cepa")
		for _, path := range []string{"/var/lib/cepa", "/etc/cepa/relay.toml", "/etc/systemd/system/multi-user.target.wants/cepa-relay.service", "/usr/share/doc/cepa", "/usr/lib/sysusers.d/cepa.conf"} {
			if m.exists(path) {
				t.Errorf("%s is still there", path)
			}
		}
	})
}

// TestPackageIsReproducible: the same source gives the same packages to the byte, for both architectures.
func TestPackageIsReproducible(t *testing.T) {
	proof(t)
	var sums []string
	for range 2 {
		to := t.TempDir()
		cmd := exec.Command("../deploy/debian/build", "amd64", "arm64")
		cmd.Env = append(os.Environ(), "OUT="+to, "SOURCE_DATE_EPOCH=1700000000", "DPKG_DEB_FLAGS=-Zgzip")
		if out, code := finish(t, 10*time.Minute, cmd); code != 0 {
			t.Fatalf("status %d: %s", code, out)
		}
		sum := exec.Command("sh", "-c", "sha256sum *.deb")
		sum.Dir = to
		out, err := sum.Output()
		fatal(t, err)
		sums = append(sums, string(out))
	}
	if strings.Count(sums[0], ".deb") != 2 || sums[0] != sums[1] {
		t.Errorf("%s\n%s", sums[0], sums[1])
	}
}
