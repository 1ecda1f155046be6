//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cepa/control"
	"cepa/demo"
)

// process is a program that the test started, with the lines that it has printed.
type process struct {
	cmd     *exec.Cmd
	started time.Time
	done    chan struct{} // closed when it has ended and was waited for
	err     error         // what waiting returned; valid when done is closed
	ended   time.Time

	mu    sync.Mutex
	lines []string
}

// launch starts a program with both outputs read line by line.
func launch(cmd *exec.Cmd) (*process, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // no test run leaves a process behind, however it ends
	p := &process{cmd: cmd, started: time.Now(), done: make(chan struct{})}
	err = cmd.Start()
	writer.Close()
	if err != nil {
		reader.Close()
		return nil, err
	}
	go func() {
		defer reader.Close()
		for s := bufio.NewScanner(reader); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, reader) // a line that is too long
	}()
	go func() {
		p.err = cmd.Wait()
		p.ended = time.Now()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// lastLines is how much of the output of a process a failure shows.
const lastLines = 40

// tail is the end of what it has printed.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-lastLines):], "\n")
}

// output is what it has printed so far.
func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal, unless the process has ended.
func (p *process) signal(s syscall.Signal) {
	if p.running() {
		_ = p.cmd.Process.Signal(s)
	}
}

// end asks the process to end and kills it when it does not.
func (p *process) end() {
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// node is one node of an overlay.
type node struct {
	demo.NodeInfo
}

// overlay is a running `cepa demo --processes`.
type overlay struct {
	*process
	dir   string
	socks string
	nodes []node
	ready time.Duration // from the start of the program until its port was open

	revived []*process // nodes that a test brought back
}

// startDemo runs `cepa demo --processes` in dir and returns when its port is open.
func startDemo(dir string, args ...string) (*overlay, error) {
	socks, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(cepa, append([]string{"demo", "--processes", "--dir", dir, "--socks", socks}, args...)...)
	p, err := launch(cmd)
	if err != nil {
		return nil, err
	}
	o := &overlay{process: p, dir: dir, socks: socks}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", socks); err == nil {
			o.ready = time.Since(p.started)
			c.Close()
			break
		}
		if !p.running() || time.Now().After(deadline) {
			p.end()
			return nil, fmt.Errorf("the demo did not open its port %s; it said:\n%s", socks, p.output())
		}
	}
	if o.nodes, err = readNodes(dir); err != nil {
		p.end()
		return nil, fmt.Errorf("the port is open and the nodes are not described: %w", err)
	}
	return o, nil
}

func readNodes(dir string) ([]node, error) {
	text, err := os.ReadFile(filepath.Join(dir, demo.NodesFile))
	if err != nil {
		return nil, err
	}
	var nodes []node
	return nodes, json.Unmarshal(text, &nodes)
}

// newOverlay starts an overlay for one test.
func newOverlay(t testing.TB, args ...string) *overlay {
	t.Helper()
	o, err := startDemo(filepath.Join(t.TempDir(), "d"), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.end()
		if t.Failed() {
			t.Logf("the demo said:\n%s", o.tail())
		}
		o.reap()
	})
	t.Logf("ready after %v", o.ready.Round(time.Millisecond))
	return o
}

// reap ends nodes that outlived their parent; a test of its own checks that there are none.
func (o *overlay) reap() {
	for _, p := range o.revived {
		p.end()
	}
	for _, n := range o.nodes {
		if isNode(n.Pid, o.dir) {
			_ = syscall.Kill(n.Pid, syscall.SIGKILL)
		}
	}
}

// isNode says whether pid is a process of ours whose command line names dir: pids are used
// again.
func isNode(pid int, dir string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(line), dir)
}

// The shared overlay serves the tests that do not disturb it.
var sharedOverlay struct {
	once sync.Once
	dir  string
	o    *overlay
	err  error
}

func shared(t testing.TB) *overlay {
	t.Helper()
	s := &sharedOverlay
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "cepa-e2e-"); s.err == nil {
			s.o, s.err = startDemo(filepath.Join(s.dir, "d"))
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	if !s.o.running() {
		t.Fatalf("the demo has ended; it said:\n%s", s.o.output())
	}
	return s.o
}

func stopShared() {
	s := &sharedOverlay
	if s.o != nil {
		s.o.end()
		s.o.reap()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func (o *overlay) node(t testing.TB, name string) node {
	t.Helper()
	for _, n := range o.nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("there is no node %s", name)
	return node{}
}

func (o *overlay) exits() []node {
	return slices.DeleteFunc(slices.Clone(o.nodes), func(n node) bool { return !n.Exit })
}

func (o *overlay) relays() []node {
	return slices.DeleteFunc(slices.Clone(o.nodes), func(n node) bool { return n.Role != "relay" })
}

// servers are the relays and the authorities.
func (o *overlay) servers() []node {
	return slices.DeleteFunc(slices.Clone(o.nodes), func(n node) bool { return n.Role == "client" })
}

// demoNodes is how many nodes a demo has when nothing is said.
const demoNodes = demo.DefaultRelays + demo.DefaultAuthorities + 1

// counters asks a node; the node must answer.
func counters(t testing.TB, dir string) map[string]int64 {
	t.Helper()
	m, err := tryCounters(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryCounters(dir string) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return control.GetCounters(ctx, dir)
}

func status(dir string) (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return control.GetStatus(ctx, dir)
}

// exitCounters are the sums over all exits: connections made, bytes from and to destinations.
type exitCounters struct{ connects, in, out int64 }

func (o *overlay) exitCounters(t testing.TB) (s exitCounters) {
	t.Helper()
	for _, n := range o.exits() {
		m := counters(t, n.Dir)
		for _, name := range []string{"relay_exit_connects", "relay_exit_bytes_in", "relay_exit_bytes_out"} {
			if _, ok := m[name]; !ok {
				t.Fatalf("%s has no counter %s", n.Name, name)
			}
		}
		s.connects += m["relay_exit_connects"]
		s.in += m["relay_exit_bytes_in"]
		s.out += m["relay_exit_bytes_out"]
	}
	return s
}

// wentThroughExits checks that since before the exits moved at least these many bytes from
// (in) and to (out) destinations.
func (o *overlay) wentThroughExits(t testing.TB, before exitCounters, connects, in, out int64) {
	t.Helper()
	now := o.exitCounters(t)
	t.Logf("the exits made %d connections, got %d bytes and sent %d", now.connects-before.connects, now.in-before.in, now.out-before.out)
	if now.connects-before.connects < connects || now.in-before.in < in || now.out-before.out < out {
		t.Errorf("the exits made %d connections, got %d bytes and sent %d; want at least %d, %d, %d",
			now.connects-before.connects, now.in-before.in, now.out-before.out, connects, in, out)
	}
}

// freePort finds an address that nobody listens on.
func freePort() (string, error) {
	// Not one that the system may give to a node of another overlay in the meantime: below 32768.
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		if _, taken := ports.LoadOrStore(address, true); taken {
			continue
		}
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
			return address, nil
		}
	}
	return "", errors.New("no port is free")
}

var ports sync.Map // that freePort has given

// finish runs a command to its end and returns its output and exit status.
func finish(t testing.TB, limit time.Duration, cmd *exec.Cmd) (out string, code int) {
	t.Helper()
	var b strings.Builder
	cmd.Stdout, cmd.Stderr = &b, &b
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(limit, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%q did not end within %v; it said:\n%s", cmd.Args, limit, b.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) { // which is a background job's
		t.Fatalf("%q: %v\n%s", cmd.Args, err, b.String())
	}
	return b.String(), cmd.ProcessState.ExitCode()
}
