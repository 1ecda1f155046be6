//go:build linux

package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// imageConfig is what of an image's configuration containers are started by.
type imageConfig struct {
	Architecture string
	Config       struct {
		User, WorkingDir, StopSignal string
		Env, Cmd, Entrypoint         []string
		ExposedPorts, Volumes        map[string]struct{}
		Healthcheck                  struct{ Test []string }
	}
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	}
}

// buildImage builds the image, and returns its archive.
func buildImage(t *testing.T, arch string) string {
	t.Helper()
	need(t, "buildah") // Debian package buildah
	to := t.TempDir()
	cmd := exec.Command("../deploy/image/build", arch)
	cmd.Env = append(os.Environ(), "OUT="+to, "BUILD_FLAGS=", "VERSION=0.1.0")
	out, code := finish(t, 170*time.Second, cmd)
	archive := filepath.Join(to, "cepa-image_0.1.0_"+arch+".tar")
	if code != 0 || strings.TrimSpace(out) != archive {
		t.Fatalf("status %d: %s", code, out)
	}
	return archive
}

// each calls f for each file of an archive.
func each(t *testing.T, archive io.Reader, f func(*tar.Header, io.Reader)) {
	t.Helper()
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		fatal(t, err)
		f(h, r)
	}
}

// unpack writes the image's files below root, and returns its configuration and what is in it.
func unpack(t *testing.T, archive, root string) (config imageConfig, content []string, size int64) {
	t.Helper()
	file, err := os.Open(archive)
	fatal(t, err)
	defer file.Close()
	each(t, file, func(h *tar.Header, r io.Reader) {
		switch {
		case h.Typeflag != tar.TypeReg || h.Name == "manifest.json":
		case strings.HasSuffix(h.Name, ".json") && !strings.Contains(h.Name, "/"):
			fatal(t, json.NewDecoder(r).Decode(&config))
		case strings.HasSuffix(h.Name, ".tar"):
			each(t, r, func(h *tar.Header, r io.Reader) {
				path := filepath.Join(root, filepath.Clean("/"+h.Name))
				content = append(content, fmt.Sprintf("%s %o %d:%d", strings.TrimSuffix(h.Name, "/"), h.Mode&0o7777, h.Uid, h.Gid))
				size += h.Size
				if h.Typeflag == tar.TypeDir {
					fatal(t, os.MkdirAll(path, 0o755))
				} else {
					out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
					fatal(t, err)
					_, err = io.Copy(out, r)
					fatal(t, errors.Join(err, out.Close()))
				}
				fatal(t, os.Lchown(path, h.Uid, h.Gid))
				fatal(t, syscall.Chmod(path, uint32(h.Mode))) // with the sticky bit as it stands there
			})
		}
	})
	slices.Sort(content)
	return config, content, size
}

// TestImage: the image has the program and nothing else, is as large as that, and runs with nothing around it: not /proc,
// not /dev, not root.
func TestImage(t *testing.T) {
	long(t)
	if os.Getuid() != 0 {
		lacking(t, "only root can build an image and look into it")
	}
	root := t.TempDir()
	fatal(t, os.Chmod(root, 0o755))
	config, content, size := unpack(t, buildImage(t, runtime.GOARCH), root)
	want := []string{
		"cepa 755 0:0", "tmp 1777 65532:65532", "var 755 65532:65532", "var/lib 755 65532:65532", "var/lib/cepa 700 65532:65532",
	}
	if !slices.Equal(content, want) || len(config.RootFS.DiffIDs) != 1 {
		t.Errorf("%d layers with %q", len(config.RootFS.DiffIDs), content)
	}
	if size > 50<<20 {
		t.Errorf("%d bytes", size)
	}
	t.Logf("the image has %.1f MiB", float64(size)/(1<<20))
	c := config.Config
	_, exposed := c.ExposedPorts["9001/tcp"]
	_, volume := c.Volumes["/var/lib/cepa"]
	if config.Architecture != runtime.GOARCH || c.User != "65532:65532" || c.StopSignal != "SIGTERM" || !exposed || !volume || !slices.Equal(c.Entrypoint, []string{"/cepa"}) {
		t.Errorf("%+v", config)
	}
	container := func(env []string, args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = c.WorkingDir, append(slices.Clone(c.Env), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		return cmd
	}
	if out, code := finish(t, 10*time.Second, container(nil, append(c.Entrypoint, c.Cmd...)...)); code != 0 || !strings.Contains(out, "COMMANDS") {
		t.Errorf("status %d: %s", code, out)
	}
	if out, code := finish(t, 60*time.Second, container(nil, "/cepa", "demo", "--self-test")); code != 0 {
		t.Errorf("the self-test: status %d: %s", code, out)
	}

	// Its health check says what is so.
	if c.Healthcheck.Test[0] != "CMD" {
		t.Fatalf("%q", c.Healthcheck.Test)
	}
	health := func() bool {
		_, code := finish(t, 10*time.Second, container(nil, c.Healthcheck.Test[1:]...))
		return code == 0
	}
	if health() {
		t.Error("healthy before anything runs")
	}
	address, err := freePort()
	fatal(t, err)
	if out, code := finish(t, 20*time.Second, container(nil, "/cepa", "network", "new", "--test", "--dir", "/tmp/net", "--authority", address)); code != 0 {
		t.Fatal(out)
	}
	for _, move := range [][2]string{{"tmp/net/network.toml", "etc/cepa/network.toml"}, {"tmp/net/authority", "var/lib/cepa"}} {
		to := filepath.Join(root, move[1])
		fatal(t, os.MkdirAll(filepath.Dir(to), 0o755))
		_ = os.Remove(to)
		fatal(t, os.Rename(filepath.Join(root, move[0]), to))
	}
	fatal(t, os.Chmod(filepath.Join(root, "etc/cepa/network.toml"), 0o644))
	authority, err := launch(container([]string{"CEPA_AUTHORITY_LISTEN=" + address}, "/cepa", "authority"))
	fatal(t, err)
	t.Cleanup(authority.end)
	within(t, 20*time.Second, "it is healthy", health)
	authority.signal(syscall.SIGTERM)
	<-authority.done
	if authority.err != nil {
		t.Errorf("it ended with %v:\n%s", authority.err, authority.tail())
	}
}

// TestImageIsReproducible: the same source gives the same image to the byte, for both architectures.
func TestImageIsReproducible(t *testing.T) {
	proof(t)
	for _, arch := range []string{"amd64", "arm64"} {
		var sums []string
		for range 2 {
			t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
			config, _, _ := unpack(t, buildImage(t, arch), t.TempDir())
			sums = append(sums, fmt.Sprint(config.Architecture, config.RootFS.DiffIDs))
		}
		if sums[0] != sums[1] || !strings.HasPrefix(sums[0], arch) {
			t.Errorf("%q", sums)
		}
	}
}
