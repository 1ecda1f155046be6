package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// heard collects what a demo says.
type heard struct {
	mu    sync.Mutex
	lines []string
	new   chan struct{}
}

func (h *heard) message(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, fmt.Sprintf(format, args...))
	select {
	case h.new <- struct{}{}:
	default:
	}
}

func (h *heard) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.lines, "\n")
}

func (h *heard) await(t *testing.T, text string, times int) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for strings.Count(h.text(), text) < times {
		select {
		case <-h.new:
		case <-deadline:
			t.Fatalf("waited in vain for %d times %q in\n%s", times, text, h.text())
		}
	}
}

// family starts a demo whose nodes are this test binary.
func family(t *testing.T, part string) (*processes, *heard) {
	t.Helper()
	t.Setenv("DEMO_TEST_PART", part)
	h := &heard{new: make(chan struct{}, 1)}
	o := options(t.TempDir(), 3)
	o.Message = h.message
	l, err := prepare(o, testPage)
	if err != nil {
		t.Fatal(err)
	}
	p := newProcesses(o, l)
	t.Cleanup(p.stop)
	if err := p.start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return p, h
}

// TestProcessesAreDescribed in two files, which are gone afterwards; all children end.
func TestProcessesAreDescribed(t *testing.T) {
	p, h := family(t, "all=obey")
	h.await(t, "ready", 7)
	data, err := os.ReadFile(filepath.Join(p.layout.dir, NodesFile))
	if err != nil {
		t.Fatal(err)
	}
	var nodes []NodeInfo
	if err := json.Unmarshal(data, &nodes); err != nil || len(nodes) != 7 {
		t.Fatalf("%s, %v", data, err)
	}
	var pids strings.Builder
	roles := map[string]int{}
	for _, n := range nodes {
		roles[n.Role]++
		if n.Pid <= 0 || n.Pid == os.Getpid() || n.Address == "" || !strings.HasPrefix(n.Dir, p.layout.dir) || strings.Contains(n.Name, " ") {
			t.Errorf("%+v", n)
		}
		fmt.Fprintf(&pids, "%s %d\n", n.Name, n.Pid)
	}
	if roles["authority"] != 3 || roles["relay"] != 3 || roles["client"] != 1 {
		t.Errorf("%v", roles)
	}
	if text, err := os.ReadFile(filepath.Join(p.layout.dir, PidsFile)); err != nil || string(text) != pids.String() {
		t.Errorf("%q, %v", text, err)
	}
	from := time.Now()
	p.stop()
	p.stop() // twice is harmless
	if took := time.Since(from); took > stopTimeout {
		t.Errorf("stopping took %v", took)
	}
	for _, c := range p.children {
		if c.cmd.ProcessState == nil || !c.cmd.ProcessState.Success() {
			t.Errorf("%s: %v", c.info.Name, c.cmd.ProcessState)
		}
	}
	for _, name := range []string{NodesFile, PidsFile} {
		if _, err := os.Stat(filepath.Join(p.layout.dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if strings.Contains(h.text(), "ended") {
		t.Errorf("an end in order was reported:\n%s", h.text())
	}
}

// TestChildDies: it is reported with its last words and the line that brings it back; the rest
// goes on.
func TestChildDies(t *testing.T) {
	p, h := family(t, "relay-2=die")
	h.await(t, "relay-2 died", 1)
	h.await(t, "ready", 6)
	text := h.text()
	for _, want := range []string{"exit status 3", "the disk is full", "the rest goes on", shellLine([]string{p.children[1].args[0], "relay", "--config", p.layout.relays[1].path})} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.wait(ctx); err != nil {
		t.Errorf("the demo ended with a relay: %v", err)
	}
}

// TestClientDies: without it the demo is of no use.
func TestClientDies(t *testing.T) {
	p, _ := family(t, "client=die")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.wait(ctx); err == nil || !strings.Contains(err.Error(), "client process has ended") {
		t.Errorf("%v", err)
	}
}

// TestStubbornChildIsKilled, and stopping takes no longer for it than is promised.
func TestStubbornChildIsKilled(t *testing.T) {
	p, h := family(t, "relay-1=stubborn relay-3=stubborn")
	h.await(t, "ready", 7)
	from := time.Now()
	p.stop()
	if took := time.Since(from); took < stopTimeout || took > stopTimeout+2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	for _, c := range p.children {
		if c.cmd.ProcessState == nil {
			t.Errorf("%s runs on", c.info.Name)
		}
	}
}

// TestLongLines of a child do not block it, nor end it.
func TestLongLines(t *testing.T) {
	_, h := family(t, "relay-1=shout")
	h.await(t, "still there", 1)
	h.await(t, "ready", 7)
}

func TestStartWithoutAProgram(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 3)
	o.Executable = filepath.Join(o.Dir, "missing")
	l, err := prepare(o, testPage)
	if err != nil {
		t.Fatal(err)
	}
	p := newProcesses(o, l)
	if err := p.start(context.Background()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	p.stop()
}
