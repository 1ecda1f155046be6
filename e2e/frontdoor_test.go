//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cepa/demo"
)

// command makes a run of cepa in a folder of its own, with temporary files there.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(cepa, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+cmd.Dir)
	return cmd
}

// The limit of the product: the demo serves within this time of its start.
const readyLimit = 5 * time.Second

// stopLimit is how long a demo may take to end.
const stopLimit = 2 * time.Second

func TestDemoIsReadyInTime(t *testing.T) {
	for _, mode := range [][]string{{}, {"--processes"}} {
		t.Run("mode"+strings.Join(mode, ""), func(t *testing.T) {
			ready := readyAfter(t, mode)
			for range 2 { // the limit is not one for a machine with much other work
				if ready > readyLimit {
					ready = readyAfter(t, mode)
				}
			}
			if ready > readyLimit {
				t.Errorf("ready after %v, the limit is %v", ready, readyLimit)
			}
		})
	}
}

func readyAfter(t *testing.T, mode []string) time.Duration {
	socks, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p, err := launch(command(t, append([]string{"demo", "--socks", socks}, mode...)...))
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	within(t, 60*time.Second, "the port is open", func() bool {
		c, err := net.Dial("tcp", socks)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	ready := time.Since(p.started)
	if err := hello(t, socks, "", 10*time.Second); err != nil {
		t.Errorf("an open port means ready, but the first request failed: %v", err)
	}
	t.Logf("port open after %v, first page after %v", ready.Round(time.Millisecond), time.Since(p.started).Round(time.Millisecond))
	line := "curl --socks5-hostname " + socks + " http://hello.demo/"
	within(t, 2*time.Second, "the curl line is printed", func() bool { return strings.Contains(p.output(), line) })
	if !regexp.MustCompile(`(?m)^ *\d+ % .*`).MatchString(p.output()) {
		t.Errorf("no progress was printed:\n%s", p.output())
	}
	return ready
}

// An open port means ready: the first thing that a user does works, whichever relays and
// destination it meets, in a network that is a second old.
func TestFirstRequestOfAYoungNetworkSucceeds(t *testing.T) {
	rounds := 3
	if all {
		rounds = 10
	}
	for range rounds {
		o := newOverlay(t)
		g := listenOrigin(t, o)
		g.serveConns(func(c *net.TCPConn) { _, _ = c.Write([]byte("x")) })
		for i := range 5 {
			c, err := dialSOCKS(o.socks, "user"+strconv.Itoa(i), g.addr.String(), 10*time.Second)
			if err != nil {
				t.Errorf("circuit %d of a network that is %v old: %v", i, time.Since(o.started), err)
				continue
			}
			c.Close()
		}
		o.end()
	}
}

func TestDemoExitsWithTheProgramsStatus(t *testing.T) {
	for _, test := range []struct {
		script string
		want   int
	}{
		{"exit 0", 0}, {"exit 1", 1}, {"exit 3", 3}, {"exit 255", 255}, {"kill -TERM $$", 128 + 15},
	} {
		t.Run(test.script, func(t *testing.T) {
			out, code := finish(t, 60*time.Second, command(t, "demo", "--", "sh", "-c", test.script))
			if code != test.want {
				t.Errorf("status %d, want %d; it said:\n%s", code, test.want, out)
			}
		})
	}
	t.Run("no such program", func(t *testing.T) { // found out before a network is started
		out, code := finish(t, 60*time.Second, command(t, "demo", "--", "no-such-program-here"))
		if code != 127 || !strings.Contains(out, "no-such-program-here") || strings.Contains(out, "%") {
			t.Errorf("status %d, want 127 and the program's name:\n%s", code, out)
		}
	})
}

func TestDemoGivesTheProgramItsProxy(t *testing.T) {
	script := `for v in ALL_PROXY all_proxy HTTP_PROXY http_proxy HTTPS_PROXY https_proxy; do eval "echo $v=\$$v"; done; echo no_proxy=$no_proxy$NO_PROXY`
	cmd := command(t, "demo", "--", "sh", "-c", script)
	cmd.Env = append(cmd.Env, "no_proxy=*", "http_proxy=http://elsewhere.invalid:1")
	out, code := finish(t, 60*time.Second, cmd)
	if code != 0 {
		t.Fatalf("status %d:\n%s", code, out)
	}
	for _, v := range []string{"ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if !regexp.MustCompile(`(?m)^` + v + `=socks5h://127\.0\.0\.1:\d+$`).MatchString(out) {
			t.Errorf("%s is not the SOCKS port:\n%s", v, out)
		}
	}
	if !strings.Contains(out, "\nno_proxy=\n") {
		t.Errorf("a no_proxy of the caller leads around the overlay:\n%s", out)
	}
}

func TestDemoRunsCurl(t *testing.T) {
	need(t, "curl")
	out, code := finish(t, 60*time.Second, command(t, "demo", "--", "curl", "-sS", "http://hello.demo/"))
	if code != 0 || !strings.Contains(out, "three relays") {
		t.Errorf("status %d:\n%s", code, out)
	}
	out, code = finish(t, 60*time.Second, command(t, "demo", "--", "curl", "-sS", "--fail", "http://hello.demo/no-such-page"))
	if code != 22 { // curl's own
		t.Errorf("curl --fail of a page that is not there: status %d, want 22:\n%s", code, out)
	}
}

func TestDemoSelfTest(t *testing.T) {
	for _, args := range [][]string{{"demo", "--self-test"}, {"demo", "--self-test", "--processes"}} {
		out, code := finish(t, 60*time.Second, command(t, args...))
		if code != 0 || !strings.Contains(out, "through three relays") {
			t.Errorf("%v: status %d:\n%s", args, code, out)
		}
	}
}

// children lists the processes whose command line names dir, by reading /proc.
func children(dir string) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil && isNode(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestDemoEndsCleanly: a signal to the parent alone ends everything in time, and leaves
// nothing behind.
func TestDemoEndsCleanly(t *testing.T) {
	signals := map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM}
	for name, sig := range signals {
		for _, mode := range []string{"--processes", "--processes=false"} {
			for _, background := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s background=%v", name, mode, background), func(t *testing.T) {
					endsCleanly(t, sig, mode, background)
				})
			}
		}
	}
}

// endsCleanly runs a demo with a temporary folder, in a process group of its own or as a job
// that a shell without a terminal put into the background (which ignores SIGINT there).
func endsCleanly(t *testing.T, sig syscall.Signal, mode string, background bool) {
	socks, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "demo", mode, "--socks", socks)
	if background {
		shell := exec.Command("sh", "-c", `"$@" </dev/null & echo "job $!"; wait $!`, "sh")
		shell.Args = append(shell.Args, cmd.Args...)
		shell.Dir, shell.Env = cmd.Dir, cmd.Env
		cmd = shell
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	p, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	within(t, 60*time.Second, "the demo is ready", func() bool { return strings.Contains(p.output(), "ready: a SOCKS5") })
	parent := p.pid()
	if background {
		job := regexp.MustCompile(`(?m)^job (\d+)$`).FindStringSubmatch(p.output())
		if job == nil {
			t.Fatalf("the shell did not say the job's number:\n%s", p.output())
		}
		parent, _ = strconv.Atoi(job[1])
	}
	nodes := children(cmd.Dir)
	if want := mode == "--processes"; want && len(nodes) != demoNodes {
		t.Errorf("%d processes are children of the demo, want %d", len(nodes), demoNodes)
	}
	// Streams, idle and in the middle of a transfer, must not delay the end.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go paced(c.(*net.TCPConn))
		}
	}()
	for _, target := range []string{"hello.demo:80", ln.Addr().String(), ln.Addr().String()} {
		c, err := dialSOCKS(socks, "", target, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	start := time.Now()
	if err := syscall.Kill(parent, sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("still running 20 s after the signal")
	}
	took := time.Since(start)
	t.Logf("ended %v after the signal", took.Round(time.Millisecond))
	if took > stopLimit {
		t.Errorf("it took %v to end, the limit is %v", took, stopLimit)
	}
	within(t, stopLimit, "no child is left", func() bool { return len(children(cmd.Dir)) == 0 })
	if c, err := net.Dial("tcp", socks); err == nil {
		c.Close()
		t.Error("the SOCKS port is still open")
	}
	left, err := os.ReadDir(cmd.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s is left in the folder for temporary files", e.Name())
	}
}

// A signal to the parent alone ends the program that the demo runs, and the demo.
func TestSignalEndsTheDemoAndItsProgram(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		for _, script := range []string{"exec sleep 1000", "trap '' INT TERM; echo deaf; while :; do sleep 1; done"} {
			t.Run(name+" "+script, func(t *testing.T) {
				cmd := command(t, "demo", "--processes", "--", "sh", "-c", "echo runs $$; "+script)
				p, err := launch(cmd)
				if err != nil {
					t.Fatal(err)
				}
				defer p.end()
				runs := regexp.MustCompile(`(?m)^runs (\d+)$`)
				within(t, 60*time.Second, "the program runs", func() bool { return runs.MatchString(p.output()) })
				program, _ := strconv.Atoi(runs.FindStringSubmatch(p.output())[1])
				start := time.Now()
				p.signal(sig)
				select {
				case <-p.done:
				case <-time.After(20 * time.Second):
					t.Fatal("still running 20 s after the signal")
				}
				took := time.Since(start)
				t.Logf("ended %v after the signal: %v", took.Round(time.Millisecond), p.err)
				if took > stopLimit {
					t.Errorf("it took %v to end, the limit is %v", took, stopLimit)
				}
				if p.err == nil {
					t.Error("an interrupted program is no success, but the status is 0")
				}
				within(t, stopLimit, "no node is left", func() bool { return len(children(cmd.Dir)) == 0 })
				if err := syscall.Kill(program, 0); err == nil {
					t.Error("the program is left")
					_ = syscall.Kill(program, syscall.SIGKILL)
				}
			})
		}
	}
}

func TestExitPolicyOfTheDemo(t *testing.T) {
	o := newOverlay(t, "--exit-policy", "web")
	if err := hello(t, o.socks, "", 10*time.Second); err != nil {
		t.Errorf("port 80: %v", err)
	}
	var reply replyError
	if c, err := dialSOCKS(o.socks, "", "127.0.0.1:2222", 10*time.Second); err == nil {
		c.Close()
		t.Error("port 2222 is not for exits of the policy web")
	} else if !errors.As(err, &reply) || reply != 2 {
		t.Errorf("port 2222: %v, want SOCKS reply 2, not allowed by policy", err)
	}
}

func TestKilledDemoTakesItsChildrenAlong(t *testing.T) {
	o := newOverlay(t)
	if n := len(children(o.dir)); n != 1+demoNodes {
		t.Fatalf("%d processes name the demo's folder, want the parent and %d nodes", n, demoNodes)
	}
	o.signal(syscall.SIGKILL)
	<-o.done
	took := within(t, stopLimit, "no child is left", func() bool { return len(children(o.dir)) == 0 })
	t.Logf("all children ended %v after their parent was killed", took.Round(time.Millisecond))
}

func TestDemoInterruptedBeforeItIsReady(t *testing.T) {
	cmd := command(t, "demo", "--processes", "--socks", "127.0.0.1:0")
	p, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	within(t, 10*time.Second, "a node runs", func() bool { return len(children(cmd.Dir)) > 0 || !p.running() })
	start := time.Now()
	p.signal(syscall.SIGINT)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatal("still running")
	}
	if took := time.Since(start); took > stopLimit {
		t.Errorf("it took %v to end, the limit is %v", took, stopLimit)
	}
	within(t, stopLimit, "no child is left", func() bool { return len(children(cmd.Dir)) == 0 })
	if left, _ := os.ReadDir(cmd.Dir); len(left) > 0 {
		t.Errorf("%s is left in the folder for temporary files", left[0].Name())
	}
}

func TestNodesAreDescribed(t *testing.T) {
	o := shared(t)
	if len(o.nodes) != demoNodes {
		t.Fatalf("nodes.json describes %d nodes, want %d: the authorities, the relays and a client", len(o.nodes), demoNodes)
	}
	pids, err := os.ReadFile(filepath.Join(o.dir, "pids"))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	roles, exits, nets := map[string]int{}, 0, map[string]bool{}
	for _, n := range o.nodes {
		fmt.Fprintf(&want, "%s %d\n", n.Name, n.Pid)
		roles[n.Role]++
		if n.Exit {
			exits++
		}
		s, err := status(n.Dir)
		if err != nil {
			t.Errorf("%s: %v", n.Name, err)
			continue
		}
		if s.Pid != n.Pid || s.Role != n.Role || s.Exit != n.Exit || s.Address != n.Address {
			t.Errorf("nodes.json says %+v and the node itself %+v", n, s)
		}
		if n.Role == "client" && n.Address != o.socks {
			t.Errorf("the client's address is %s, not the SOCKS port %s", n.Address, o.socks)
		}
		if n.Role != "client" {
			f := strings.SplitN(n.Address, ".", 3)
			nets[f[0]+"."+f[1]] = true
		}
		if n.Pid == o.pid() || strings.ContainsAny(n.Name, " \t") {
			t.Errorf("a node is the parent, or has a space in its name: %+v", n)
		}
	}
	if string(pids) != want.String() {
		t.Errorf("the file pids says\n%swant\n%s", pids, want.String())
	}
	if roles["client"] != 1 || roles["authority"] != demo.DefaultAuthorities || roles["relay"] != demo.DefaultRelays || exits < 2 {
		t.Errorf("roles %v with %d exits", roles, exits)
	}
	if len(nets) != demoNodes-1 {
		t.Errorf("relays and authorities are in %d different /16 networks, want %d", len(nets), demoNodes-1)
	}
}

func TestDemoKeepsItsFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "cepa")
	identities := func() (ids []string) {
		o, err := startDemo(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer o.end()
		if err := hello(t, o.socks, "", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		for _, n := range o.servers() {
			s, err := status(n.Dir)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, s.ID+" "+s.Address)
		}
		return ids
	}
	first := identities()
	if _, err := os.Stat(filepath.Join(dir, "network.toml")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "nodes.json")); err == nil || !os.IsNotExist(err) {
		t.Errorf("nodes.json describes a network that no longer runs: %v", err)
	}
	if second := identities(); strings.Join(first, "\n") != strings.Join(second, "\n") {
		t.Errorf("the relays changed over a restart:\n%v\n%v", first, second)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".key") || strings.HasSuffix(path, ".keys")) {
			if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: others may read the key: %v %v", path, info.Mode(), err)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTakenPortIsSaid(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, code := finish(t, 20*time.Second, command(t, "demo", "--socks", ln.Addr().String()))
	if code != 1 || !strings.Contains(out, "--socks") || !strings.Contains(out, ln.Addr().String()) {
		t.Errorf("status %d, want 1, the port and what to do:\n%s", code, out)
	}
}
