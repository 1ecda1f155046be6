//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"cepa/control"
)

// openStream makes a stream that stays, with an isolation of its own.
func openStream(t *testing.T, socks, user string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", socks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	ask := func(request []byte, answer int) {
		t.Helper()
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, answer)
		if _, err := io.ReadFull(c, b); err != nil || b[1] != 0 && b[1] != 2 {
			t.Fatalf("%v: %x", err, b)
		}
	}
	ask([]byte{5, 1, 2}, 2)
	ask(append(append([]byte{1, byte(len(user))}, user...), 1, 'p'), 2)
	ask(append(append([]byte{5, 1, 0, 3, 10}, "hello.demo"...), 0, 80), 10)
	return c
}

// A person looks at a client, takes a new identity, and looks again: what ran goes on over its circuit, what is new does
// not use it.
func TestNewIdentityKeepsStreamsAndUsesNoOldCircuit(t *testing.T) {
	o := shared(t)
	dir := o.node(t, "client").Dir
	node := control.NewClient(dir)
	defer node.Close()
	s, err := node.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const user = "somebody-private"
	running := openStream(t, s.Address, user)
	before, err := node.Streams(t.Context())
	if err != nil || len(before) == 0 {
		t.Fatalf("%v %v", before, err)
	}
	old := before[len(before)-1]
	raw, _ := json.Marshal(before)
	if strings.Contains(string(raw), "hello.demo") || strings.Contains(string(raw), user) || old.Isolation == "" {
		t.Errorf("not scrubbed: %s", raw)
	}
	last := uint64(0)
	circuits, err := node.Circuits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range circuits {
		last = max(last, c.ID)
	}
	if out, code := finish(t, 20*time.Second, command(t, "circuits", dir)); code != 0 || !strings.Contains(out, "you -> relay-") || !strings.Contains(out, "[scrubbed]:80") {
		t.Errorf("cepa circuits: %d\n%s", code, out)
	}
	if out, code := finish(t, 20*time.Second, command(t, "newnym", dir)); code != 0 || !strings.Contains(out, "New identity") {
		t.Errorf("cepa newnym: %d\n%s", code, out)
	}
	openStream(t, s.Address, user) // the same key
	after, err := node.Streams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fresh := after[len(after)-1]
	if fresh.ID == old.ID || fresh.Circuit <= last || fresh.Isolation != old.Isolation {
		t.Errorf("before the new identity %+v, after it %+v; circuits until then up to %d", old, fresh, last)
	}
	if _, err := fmt.Fprintf(running, "GET / HTTP/1.0\r\nHost: hello.demo\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if page, err := io.ReadAll(running); err != nil || !strings.Contains(string(page), "three relays") {
		t.Errorf("the stream that ran has not gone on: %v, %d bytes", err, len(page))
	}
}

// Each command says the same as JSON, and a relay says that it has no such thing.
func TestWatchingCommands(t *testing.T) {
	o := shared(t)
	dir, relay := o.node(t, "client").Dir, o.relays()[0].Dir
	for _, args := range [][]string{{"circuits", "--json", dir}, {"newnym", "--json", dir}, {"status", "--json", relay}} {
		out, code := finish(t, 20*time.Second, command(t, args...))
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil || len(v) < 2 {
			t.Errorf("%q: %d, %v\n%s", args, code, err, out)
		}
	}
	for _, args := range [][]string{{"log", dir}, {"log", "--json", dir}, {"status", "--counters", relay}} {
		if out, code := finish(t, 20*time.Second, command(t, args...)); code != 0 {
			t.Errorf("%q: %d\n%s", args, code, out)
		}
	}
	for _, args := range [][]string{{"circuits", relay}, {"newnym", relay}} {
		if out, code := finish(t, 20*time.Second, command(t, args...)); code != 1 || !strings.Contains(out, "only a client") {
			t.Errorf("%q: %d\n%s", args, code, out)
		}
	}
	if out, code := finish(t, 20*time.Second, command(t, "top", dir)); code != 1 || !strings.Contains(out, "cepa status "+dir) {
		t.Errorf("top without a terminal: %d\n%s", code, out)
	}
}

// A client with a control port: curl with the token is answered, without it is not.
func TestControlPort(t *testing.T) {
	o := shared(t)
	dir := filepath.Join(t.TempDir(), "client")
	config := filepath.Join(t.TempDir(), "client.toml")
	text := fmt.Sprintf("network = %q\ndir = %q\nsocks = \"127.0.0.1:0\"\n[control]\nlisten = \"127.0.0.1:0\"\nshow_destinations = true\n", filepath.Join(o.dir, "network.toml"), dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "client", "--config", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }()
	if out, code := finish(t, 60*time.Second, command(t, "status", "--wait", "50s", dir)); code != 0 || !strings.Contains(out, "ready") {
		t.Fatalf("%d\n%s", code, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "control.port"))
	if err != nil {
		t.Fatal(err)
	}
	var port struct{ Address, Token string }
	if err := json.Unmarshal(data, &port); err != nil {
		t.Fatal(err)
	}
	s, err := control.GetStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	openStream(t, s.Address, "u")
	asked := command(t, "circuits", "--control", port.Address)
	asked.Env = append(asked.Env, "CEPA_CONTROL_TOKEN="+port.Token)
	for _, cmd := range []*exec.Cmd{asked, command(t, "circuits", "--control", filepath.Join(dir, "control.port"))} {
		if out, code := finish(t, 20*time.Second, cmd); code != 0 || !strings.Contains(out, "hello.demo:80") {
			t.Errorf("%q: status %d: %s", cmd.Args, code, out)
		}
	}
	wrong := command(t, "circuits", "--control", port.Address)
	wrong.Env = append(wrong.Env, "CEPA_CONTROL_TOKEN=x")
	if out, code := finish(t, 20*time.Second, wrong); code != 1 || !strings.Contains(out, "new with each start") {
		t.Errorf("a wrong token: status %d: %s", code, out)
	}
	curl := func(args ...string) string {
		t.Helper()
		c := command(t)
		c.Path, c.Args = need(t, "curl"), append([]string{"curl", "-sS"}, args...)
		out, _ := finish(t, 20*time.Second, c)
		return out
	}
	url := "http://" + port.Address + "/v1/streams"
	if out := curl("-H", "Authorization: Bearer "+port.Token, url); !strings.Contains(out, "hello.demo:80") {
		t.Errorf("with the token: %s", out)
	}
	for _, args := range [][]string{{url}, {"-H", "Authorization: Bearer x", url}, {"-H", "Authorization: Bearer " + port.Token, "-H", "Host: evil.example", url}} {
		if out := curl(args...); strings.Contains(out, "hello.demo") || !strings.Contains(out, "error") {
			t.Errorf("%q: %s", args, out)
		}
	}
}

// TestTopInATerminal runs `cepa top` in a pseudo-terminal of 80x24 beside a real client, and uses it.
func TestTopInATerminal(t *testing.T) {
	o := shared(t)
	cmd := command(t, "top", o.node(t, "client").Dir)
	cmd.Env = append(cmd.Env, "TERM=xterm-256color", "LC_ALL=C.UTF-8", "NO_COLOR=1")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { tty.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var mu sync.Mutex
	var seen strings.Builder
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			mu.Lock()
			seen.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	shows := func(press, want string) {
		t.Helper()
		mu.Lock()
		seen.Reset()
		mu.Unlock()
		if _, err := tty.WriteString(press); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			mu.Lock()
			text := seen.String()
			mu.Unlock()
			if strings.Contains(text, want) {
				if m := regexp.MustCompile(`\x1b\[[0-9;]*3[0-7]m`).FindString(text); m != "" {
					t.Errorf("a colour, %q, although NO_COLOR is set", m)
				}
				return
			}
			if time.Now().After(end) {
				t.Fatalf("after %q there is no %q in %q", press, want, text)
			}
		}
	}
	shows("", "127.0.0.1:") // the port
	shows("2", "relay-")
	shows("4", "neighbour")
	shows("?", "Keys")
	shows("x", "neighbour")
	shows("n", "New identity?")
	shows("y", "take nothing new")
	if _, err := tty.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("q does not end it")
	}
}
