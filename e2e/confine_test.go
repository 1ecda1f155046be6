//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// allowedLeaks may seem to work inside: what they send ends in the program's own device, or in processes that die with it.
var allowedLeaks = map[string]bool{
	"UDP": true, "UDP far away": true, "DNS to a fixed server": true, "broadcast": true, "multicast": true, "IPv6 UDP": true,
	"IPv6 multicast": true, "ping socket": true, "UDP-Lite": true, "a child that stays": true,
}

// A hostile program in `cepa exec` sends nothing past the SOCKS port: the capture of all devices outside shows SOCKS
// connections only. The same program without it shows that the capture would see more.
func TestExecLetsNothingOut(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	o := newOverlay(t)
	c := newCorner(t, o)
	dir := t.TempDir()
	abstract, path := "cepa-e2e-"+filepath.Base(dir)+fmt.Sprint(os.Getpid()), filepath.Join(dir, "s")
	reached := make(chan string, 100)
	err := inNamespaceOf(c.pid, func() error { // abstract names are those of a network namespace
		for _, name := range []string{"@" + abstract, path} {
			ln, err := net.Listen("unix", name)
			if err != nil {
				return err
			}
			t.Cleanup(func() { ln.Close() })
			go func() {
				for {
					s, err := ln.Accept()
					if err != nil {
						return
					}
					s.Close()
					reached <- name
				}
			}()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path + ".d", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	go func() {
		b := make([]byte, 100)
		for {
			if _, _, err := datagrams.ReadFrom(b); err != nil {
				return
			}
			reached <- path + ".d"
		}
	}()
	leaker := []string{os.Args[0], abstract, path}
	run := func(args []string) (string, [][]byte) {
		t.Helper()
		s := c.sniff(t)
		cmd := c.command(t, args...)
		cmd.Env = append(os.Environ(), partVariable+"=leaker", "ALL_PROXY=socks5://"+cableOuter+":9")
		cmd.ExtraFiles = []*os.File{c.passFile(t)}
		out, code := finish(t, 2*time.Minute, cmd)
		if code != 0 {
			t.Fatalf("status %d:\n%s", code, out)
		}
		return out, s.end(t)
	}
	out, packets := run(c.execArgs(leaker...))
	t.Logf("%d packets outside; the program said:\n%s", len(packets), out)
	for _, s := range c.strangers(packets) {
		t.Errorf("outside was seen: %s", s)
	}
	for _, p := range packets {
		if strings.Contains(string(p), leakMark) {
			t.Errorf("the mark got out: %.80q", p)
		}
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "sent "); ok && !allowedLeaks[name] {
			t.Errorf("inside there is a way: %s", name)
		}
	}
	if want := len(leaks("", "")); strings.Count(out, "\n") != want {
		t.Errorf("%d attempts were reported, want %d", strings.Count(out, "\n"), want)
	}
	select {
	case name := <-reached:
		t.Errorf("the Unix socket %s was reached", name)
	default:
	}
	if n := stayers(path); n != 0 {
		t.Errorf("%d children have outlived it", n)
	}

	// The control.
	out, packets = run(leaker)
	t.Cleanup(func() { endStayers(path) })
	seen := c.strangers(packets)
	t.Logf("without it %d packets were seen; the program said:\n%s", len(seen), out)
	for _, want := range []string{cableOuter + ":9:", cableOuter + ":53:", cableOuter + ":7:", "192.0.2.9:443:", "255.255.255.255:67:"} {
		if !strings.Contains(strings.Join(seen, "\n"), "to "+want) {
			t.Errorf("the capture missed what went to %s without it: it proves nothing", want)
		}
	}
	for range 3 {
		select {
		case <-reached:
		case <-time.After(5 * time.Second):
			t.Error("a Unix socket was not reached without it: that proves nothing")
		}
	}
	if stayers(path) == 0 {
		t.Error("no child outlived the leaker alone: that proves nothing")
	}
}

func eachStayer(mark string, f func(pid int)) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		text, err := os.ReadFile(l)
		var pid int
		if _, e := fmt.Sscanf(l, "/proc/%d/", &pid); err == nil && e == nil && strings.Contains(string(text), "stayer") && strings.Contains(string(text), mark) {
			f(pid)
		}
	}
}

func stayers(mark string) (n int) { eachStayer(mark, func(int) { n++ }); return n }

func endStayers(mark string) {
	eachStayer(mark, func(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) })
}

// Real programs that know nothing of proxies work in `cepa exec`, and only SOCKS connections are seen outside.
func TestExecCarriesRealPrograms(t *testing.T) {
	curl, git, nc, getent := need(t, "curl"), need(t, "git"), need(t, "nc"), need(t, "getent")
	if !ownNetwork(t) {
		return
	}
	o := newOverlay(t)
	c := newCorner(t, o)
	dir := t.TempDir()
	tool := func(args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		if out, code := finish(t, time.Minute, cmd); code != 0 {
			t.Fatalf("%v: %s", args, out)
		}
	}
	tool(git, "init", "-q", "-b", "main", dir+"/source")
	if err := os.WriteFile(dir+"/source/file", []byte("content\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(git, "-C", dir+"/source", "add", ".")
	tool(git, "-C", dir+"/source", "commit", "-q", "-m", "one file")
	tool(git, "clone", "-q", "--bare", dir+"/source", dir+"/web/r.git")
	tool(git, "-C", dir+"/web/r.git", "update-server-info")
	site := cornerOrigin(t, c)
	const size = 4 * mebibyte
	mux := http.NewServeMux()
	mux.Handle("/r.git/", http.FileServer(http.Dir(dir+"/web")))
	mux.HandleFunc("/", contentServer)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(site) }()
	t.Cleanup(func() { server.Close() })
	banner := cornerOrigin(t, c)
	go func() {
		for {
			s, err := banner.Accept()
			if err != nil {
				return
			}
			go func() {
				defer s.Close()
				b, _ := io.ReadAll(s) // until the half-close
				fmt.Fprintf(s, "got %s", b)
			}()
		}
	}()
	closed, err := net.Listen("tcp", cableOuter+":0")
	if err != nil {
		t.Fatal(err)
	}
	closedAt := closed.Addr().String()
	closed.Close()
	at := site.Addr().String()
	bannerHost, bannerPort, _ := net.SplitHostPort(banner.Addr().String())
	s := c.sniff(t)
	for _, test := range []struct {
		name, want string
		code       int
		stdin      string
		args       []string
	}{
		{"curl by name", "Hello from behind three relays", 0, "", []string{curl, "-sS", "http://hello.demo/"}},
		{"curl, much", fmt.Sprint(size), 0, "", []string{curl, "-sS", "-o", dir + "/got", "-w", "%{size_download}", fmt.Sprintf("http://%s/%d/7", at, size)}},
		{"curl, refused", "", 7, "", []string{curl, "-sS", "http://" + closedAt + "/"}},
		{"curl, no such host", "", 7, "", []string{curl, "-sS", "http://no-such-host.invalid/"}},
		{"getent", "hello.demo", 0, "", []string{getent, "hosts", "hello.demo"}},
		{"git clone", "", 0, "", []string{git, "clone", "-q", "http://" + at + "/r.git", dir + "/clone"}},
		{"nc", "got half-closed", 0, "half-closed", []string{nc, "-N", bannerHost, bannerPort}},
		{"an exit status", "", 42, "", []string{"sh", "-c", "exit 42"}},
		{"a signal", "", 128 + 9, "", []string{"sh", "-c", "kill -9 $$"}},
		{"no such program", "there is no program no-such-program", 127, "", []string{"no-such-program"}},
		{"no such file", "no such file", 127, "", []string{dir + "/nothing"}},
		{"no program", "permission denied", 126, "", []string{dir + "/source/file"}},
	} {
		cmd := c.command(t, c.execArgs(test.args...)...)
		cmd.Env = append(os.Environ(), "HOME="+dir)
		cmd.Stdin = strings.NewReader(test.stdin)
		start := time.Now()
		out, code := finish(t, time.Minute, cmd)
		if code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("%s: status %d, want %d and %q: %.300s", test.name, code, test.code, test.want, out)
		}
		t.Logf("%s took %v", test.name, time.Since(start).Round(time.Millisecond))
	}
	for _, l := range c.strangers(s.end(t)) {
		t.Errorf("outside was seen: %s", l)
	}
	if got, err := os.ReadFile(dir + "/clone/file"); err != nil || string(got) != "content\n" {
		t.Errorf("the clone has %q, %v", got, err)
	}
}

// watched is a listener that fails the test when somebody comes from the corner itself.
type watched struct {
	net.Listener
	t     *testing.T
	inner netip.Addr
}

func (w watched) Accept() (net.Conn, error) {
	s, err := w.Listener.Accept()
	if err == nil && s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr() == w.inner {
		w.t.Errorf("%s was reached directly", w.Addr())
	}
	return s, err
}

func cornerOrigin(t *testing.T, c *corner) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", cableOuter+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return watched{ln, t, c.inner}
}

// Signals reach the program, and without a port, or namespaces, nothing is run.
func TestExecRefusesAndPassesSignals(t *testing.T) {
	o := shared(t)
	dir := t.TempDir()
	p, err := launch(exec.Command(cepa, "exec", "--socks", o.socks, "--", "sh", "-c", "trap 'echo asked; exit 3' TERM; echo begun; while :; do sleep 0.05; done"))
	if err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the program runs", func() bool { return strings.Contains(p.output(), "begun") || !p.running() })
	if !p.running() {
		lacking(t, "cepa exec does not work here: %s", p.output())
	}
	p.signal(syscall.SIGTERM)
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 3 || !strings.Contains(p.output(), "asked") {
		t.Errorf("status %d, want 3: %s", code, p.output())
	}
	free, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	out, code := finish(t, time.Minute, exec.Command(cepa, "exec", "--socks", free, "--", "touch", dir+"/ran"))
	if code != 125 || !strings.Contains(out, "no client answers on "+free) {
		t.Errorf("without a port: status %d, %s", code, out)
	}
	if info, err := os.Stat("/dev/net/tun"); err == nil && os.Getuid() == 0 { // what works for root must also for others
		if mode := info.Mode().Perm(); mode&0o006 != 0o006 {
			out, code := asNobody(t, "exec", "--socks", o.socks, "--", "touch", dir+"/ran")
			if code != 125 || !strings.Contains(out, "chmod 0666 /dev/net/tun") || !strings.Contains(out, "Nothing was run") {
				t.Errorf("as an ordinary user, where the device is for root only: status %d, %s", code, out)
			}
			if err := os.Chmod("/dev/net/tun", 0o666); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod("/dev/net/tun", mode) })
		}
		if out, code := asNobody(t, "exec", "--socks", o.socks, "--", "curl", "-sS", "http://hello.demo/"); code != 0 || !strings.Contains(out, "Hello from") {
			t.Errorf("as an ordinary user: status %d, %s", code, out)
		}
	}
	if unshare, err := exec.LookPath("unshare"); err == nil { // a user namespace that may have no others below it
		cmd := exec.Command(unshare, "-Ur", "sh", "-c", `echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"`, "sh", cepa, "exec", "--socks", o.socks, "--", "touch", dir+"/ran")
		out, code := finish(t, time.Minute, cmd)
		if code != 125 || !strings.Contains(out, "user namespaces") || !strings.Contains(out, "Nothing was run") {
			t.Errorf("without namespaces: status %d, %s", code, out)
		}
	}
	if _, err := os.Stat(dir + "/ran"); err == nil {
		t.Error("the program was run all the same")
	}
}

// asNobody runs cepa as a user without any rights.
func asNobody(t *testing.T, args ...string) (string, int) {
	t.Helper()
	need(t, "curl")
	dir, err := os.MkdirTemp("", "cepa-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile(cepa)
	if err == nil {
		err = os.WriteFile(dir+"/cepa", program, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/cepa", args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return finish(t, time.Minute, cmd)
}
