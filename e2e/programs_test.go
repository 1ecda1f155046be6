//go:build linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCurlDownloadsAndUploads(t *testing.T) {
	curl := need(t, "curl")
	o := shared(t)
	g := listenOrigin(t, o)
	g.serveHTTP(t, http.HandlerFunc(contentServer))
	const size = 8 * mebibyte
	dir := t.TempDir()
	before := o.exitCounters(t)

	file := filepath.Join(dir, "got")
	out, code := finish(t, time.Minute, exec.Command(curl, "-sS", "--fail", "--socks5-hostname", o.socks, "-o", file, fmt.Sprintf("http://%s/%d/7", g.addr, size)))
	if code != 0 {
		t.Fatalf("status %d: %s", code, out)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != size || sha256.Sum256(got) != digest(7, size) {
		t.Errorf("%d bytes arrived, and they are wrong", len(got))
	}
	// And the same bytes up again.
	answer := filepath.Join(dir, "answer")
	out, code = finish(t, time.Minute, exec.Command(curl, "-sS", "--fail", "--socks5-hostname", o.socks, "-o", answer, "--data-binary", "@"+file, "http://"+g.addr.String()+"/"))
	if code != 0 {
		t.Fatalf("status %d: %s", code, out)
	}
	want := digest(7, size)
	if sum, err := os.ReadFile(answer); err != nil || !bytes.Equal(sum, want[:]) {
		t.Errorf("the origin got something else: %x %v", sum, err)
	}
	o.wentThroughExits(t, before, 2, size, size)
}

// The reasons of failures reach the program.
func TestCurlLearnsWhyAStreamFailed(t *testing.T) {
	curl := need(t, "curl")
	o := shared(t)
	closed, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, url, want string }{
		{"refused by the destination", "http://" + closed + "/", "(5)"},
		{"no such host", "http://no-such-host.invalid/", "(4)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := time.Now()
			out, code := finish(t, time.Minute, exec.Command(curl, "-sS", "--socks5-hostname", o.socks, test.url))
			if code != 97 || !strings.Contains(out, test.want) {
				t.Errorf("status %d, want 97 and reply %s: %s", code, test.want, out)
			}
			t.Logf("after %v: %s", time.Since(start).Round(time.Millisecond), strings.TrimSpace(out))
		})
	}
}

// square is the picture number i of 100: one colour, that no other has.
func square(i int) color.RGBA {
	return color.RGBA{uint8(20 + 23*(i%10)), uint8(20 + 23*(i/10)), uint8(200 - i), 255}
}

// gallery serves a page with 100 pictures and remembers which were fetched.
type gallery struct {
	mu      sync.Mutex
	fetched map[int]int
}

func (g *gallery) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var i int
	if r.URL.Path == "/" {
		var b strings.Builder
		b.WriteString(`<!DOCTYPE html><title>gallery</title><style>body{margin:0;font-size:0;background:#fff;width:500px}img{width:50px;height:50px}</style>`)
		for i := range 100 {
			fmt.Fprintf(&b, `<img src="/square/%d.png">`, i)
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, b.String())
		return
	}
	if _, err := fmt.Sscanf(r.URL.Path, "/square/%d.png", &i); err != nil {
		http.NotFound(w, r)
		return
	}
	picture := image.NewRGBA(image.Rect(0, 0, 50, 50))
	for p := range 50 * 50 {
		picture.SetRGBA(p%50, p/50, square(i))
	}
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Cache-Control", "no-store")
	_ = png.Encode(w, picture)
	g.mu.Lock()
	g.fetched[i]++
	g.mu.Unlock()
}

func TestChromiumLoadsAPageWithAHundredPictures(t *testing.T) {
	notShort(t)
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if chromium, err = exec.LookPath("google-chrome"); err != nil {
			lacking(t, "the machine has no program chromium")
		}
	}
	o := shared(t)
	site := &gallery{fetched: map[int]int{}}
	g := listenOrigin(t, o)
	g.serveHTTP(t, site)
	before, start := o.exitCounters(t), time.Now()
	shot := filepath.Join(t.ArtifactDir(), "gallery.png")
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(),
		"--proxy-server=socks5://"+o.socks, "--proxy-bypass-list=<-loopback>",
		"--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=500,500", "--screenshot="+shot, "http://"+g.addr.String()+"/")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, code := finish(t, 2*time.Minute, cmd)
	t.Logf("Chromium took %v; the screenshot is %s", time.Since(start).Round(time.Millisecond), shot)
	if code != 0 {
		t.Fatalf("status %d:\n%s", code, out)
	}
	site.mu.Lock()
	for i := range 100 {
		if site.fetched[i] == 0 {
			t.Errorf("picture %d was not fetched", i)
		}
	}
	site.mu.Unlock()
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	var absent []int
	for i := range 100 {
		at := color.RGBAModel.Convert(seen.At(i%10*50+25, i/10*50+25)).(color.RGBA)
		if at != square(i) {
			absent = append(absent, i)
		}
	}
	if len(absent) > 0 {
		t.Errorf("on the screenshot these pictures are not seen: %v", absent)
	}
	o.wentThroughExits(t, before, 1, 100*100, 100*100)
}

func TestGitClonesOverHTTP(t *testing.T) {
	notShort(t)
	git := need(t, "git")
	o := shared(t)
	home, work, target := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "clone")
	run := func(dir string, args ...string) string {
		t.Helper()
		cmd := exec.Command(git, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, code := finish(t, 2*time.Minute, cmd)
		if code != 0 {
			t.Fatalf("git %v: status %d:\n%s", args, code, out)
		}
		return strings.TrimSpace(out)
	}
	const files, size = 40, 128 << 10
	run(work, "init", "-q", "-b", "main")
	for i := range uint64(files) {
		b, _ := io.ReadAll(io.LimitReader(content(i), size))
		if err := os.WriteFile(filepath.Join(work, fmt.Sprintf("file-%d", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(work, "add", ".")
	run(work, "commit", "-q", "-m", "forty files of noise")
	bare := filepath.Join(t.TempDir(), "repository.git")
	run(work, "clone", "-q", "--bare", work, bare)
	run(bare, "config", "http.receivepack", "true")

	g := listenOrigin(t, o)
	g.serveHTTP(t, &cgi.Handler{
		Path: filepath.Join(run(work, "--exec-path"), "git-http-backend"), Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(bare), "GIT_HTTP_EXPORT_ALL=1", "HOME=" + home},
	})
	proxy := "http.proxy=socks5h://" + o.socks
	url := "http://" + g.addr.String() + "/repository.git"
	before := o.exitCounters(t)
	run(home, "-c", proxy, "clone", "-q", url, target)
	if a, b := run(work, "rev-parse", "HEAD"), run(target, "rev-parse", "HEAD"); a != b {
		t.Errorf("the clone is at %s, the original at %s", b, a)
	}
	run(target, "fsck", "--strict", "--no-dangling")
	o.wentThroughExits(t, before, 1, files*size, 1)

	// And a commit back.
	before = o.exitCounters(t)
	b, _ := io.ReadAll(io.LimitReader(content(99), mebibyte))
	if err := os.WriteFile(filepath.Join(target, "more"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	run(target, "add", ".")
	run(target, "commit", "-q", "-m", "more noise")
	run(target, "-c", proxy, "-c", "http.postBuffer=8388608" /* net/http/cgi takes no chunks */, "push", "-q", "origin", "main")
	if a, b := run(bare, "rev-parse", "main"), run(target, "rev-parse", "HEAD"); a != b {
		t.Errorf("after the push the origin is at %s, want %s", a, b)
	}
	o.wentThroughExits(t, before, 1, 1, mebibyte)
}

func TestSSHAndSFTPThroughAProxyCommand(t *testing.T) {
	notShort(t)
	nc := need(t, "nc")
	if help, _ := exec.Command(nc, "-h").CombinedOutput(); !bytes.Contains(help, []byte("-X")) {
		lacking(t, "nc is not that of OpenBSD, which can speak SOCKS")
	}
	testSSH(t, nc+" -X 5 -x "+shared(t).socks)
}

// testSSH runs ssh and sftp with a ProxyCommand that gets host and port as further arguments.
func testSSH(t *testing.T, proxy string) {
	t.Helper()
	sshd, keygen, ssh, sftp := need(t, "sshd"), need(t, "ssh-keygen"), need(t, "ssh"), need(t, "sftp")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	passwd, _ := os.ReadFile("/etc/passwd")
	if regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(me.Username) + `:.*/(nologin|false)$`).Match(passwd) {
		lacking(t, "the user %s may not log in", me.Username)
	}
	if me.Uid == "0" { // sshd insists on it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			lacking(t, "sshd has no folder: %v", err)
		}
	}
	o := shared(t)
	dir := t.TempDir()
	for _, name := range []string{"host", "user"} {
		if out, code := finish(t, time.Minute, exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name))); code != 0 {
			t.Fatalf("ssh-keygen: %s", out)
		}
	}
	public, err := os.ReadFile(filepath.Join(dir, "user.pub"))
	if err != nil {
		t.Fatal(err)
	}
	hostKey, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(inner)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("authorized_keys", string(public))
	write("sshd_config", fmt.Sprintf(`ListenAddress 127.0.0.1:%s
HostKey %s/host
AuthorizedKeysFile %s/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
`, port, dir, dir))
	daemon, err := launch(exec.Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")))
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.end()
	within(t, 10*time.Second, "sshd listens", func() bool {
		c, err := net.Dial("tcp", inner)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	// The origin looks who comes, and hands on to sshd.
	g := listenOrigin(t, o)
	g.serveConns(func(c *net.TCPConn) {
		d, err := net.Dial("tcp", inner)
		if err != nil {
			return
		}
		defer d.Close()
		go func() { _, _ = io.Copy(d, c); _ = d.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(c, d)
	})
	write("known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s", g.addr.Port(), hostKey))
	write("ssh_config", fmt.Sprintf(`Host *
  ProxyCommand %s %%h %%p
  IdentityFile %s/user
  IdentitiesOnly yes
  UserKnownHostsFile %s/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 20
  User %s
  Port %d
`, proxy, dir, dir, me.Username, g.addr.Port()))

	const size = 8 * mebibyte
	data, _ := io.ReadAll(io.LimitReader(content(11), size))
	before := o.exitCounters(t)
	t.Run("ssh", func(t *testing.T) {
		cmd := exec.Command(ssh, "-F", filepath.Join(dir, "ssh_config"), "127.0.0.1", "sha256sum; echo to stderr >&2; exit 42")
		cmd.Stdin = bytes.NewReader(data)
		out, code := finish(t, time.Minute, cmd)
		if code != 42 || !strings.Contains(out, fmt.Sprintf("%x", digest(11, size))) || !strings.Contains(out, "to stderr") {
			t.Errorf("status %d, want 42 and the SHA-256 of what was sent:\n%s\n%s", code, out, daemon.output())
		}
	})
	t.Run("sftp", func(t *testing.T) {
		write("local", string(data))
		cmd := exec.Command(sftp, "-F", filepath.Join(dir, "ssh_config"), "-b", "-", "127.0.0.1")
		cmd.Stdin = strings.NewReader(fmt.Sprintf("put %s/local %s/remote\nget %s/remote %s/back\n", dir, dir, dir, dir))
		out, code := finish(t, time.Minute, cmd)
		if code != 0 {
			t.Fatalf("status %d:\n%s\n%s", code, out, daemon.output())
		}
		for _, name := range []string{"remote", "back"} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s differs from what was put: %v", name, err)
			}
		}
	})
	o.wentThroughExits(t, before, 2, size, 2*size)
}
