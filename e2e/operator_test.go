//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// operated is a relay that `cepa relay setup` made, of a network with one more, its authority.
type operated struct {
	dir, settings, state string
}

func setUpRelay(t *testing.T, address string, args ...string) operated {
	t.Helper()
	dir := t.TempDir()
	host, port, _ := strings.Cut(address, ":")
	foundNetwork(t, filepath.Join(dir, "net"), strings.TrimSuffix(host, ".1")+".9:"+port)
	o := operated{dir, filepath.Join(dir, "my", "relay.toml"), filepath.Join(dir, "my", "state")}
	all := append([]string{"relay", "setup", "--network", filepath.Join(dir, "net", "network.toml"), "--to", filepath.Join(dir, "my"), "--listen", address}, args...)
	out, code := finish(t, 20*time.Second, command(t, all...))
	for _, want := range []string{"is set up", "Next:", "cepa relay --config " + o.settings, "Let TCP port"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("status %d, without %q:\n%s", code, want, out)
		}
	}
	return o
}

// set gives a setting of the file a value.
func (o operated) set(t *testing.T, line string) {
	t.Helper()
	text, err := os.ReadFile(o.settings)
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(line, " ")
	lines := strings.Split(string(text), "\n")
	for i, l := range lines {
		if key, _, ok := strings.Cut(l, " ="); ok && strings.TrimPrefix(key, "#") == name {
			lines[i] = line
			if err := os.WriteFile(o.settings, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no %s in the file", name)
}

func (o operated) start(t *testing.T, args ...string) *process {
	t.Helper()
	p, err := launch(command(t, append([]string{"relay", "--config", o.settings}, args...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	within(t, 15*time.Second, "the control socket answers", func() bool {
		_, err := status(o.state)
		if err != nil && !p.running() {
			t.Fatalf("it has ended:\n%s", p.tail())
		}
		return err == nil
	})
	return p
}

func says(t *testing.T, p *process, what string) {
	t.Helper()
	saysAfter(t, p, 0, what)
}

// saysAfter waits until what is in the output behind its first from bytes.
func saysAfter(t *testing.T, p *process, from int, what string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(p.tail())
		}
	}()
	within(t, 10*time.Second, "it says "+what, func() bool {
		out := p.output()
		return strings.Contains(out[min(from, len(out)):], what)
	})
}

// TestRelaySetup: what it makes is good, for nobody else to read, never replaced, and a unit that systemd takes; and
// the relay runs with it, once, with its notice page.
func TestRelaySetup(t *testing.T) {
	t.Parallel()
	page, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	o := setUpRelay(t, "127.31.1.1:9001", "--exit", "full", "--notice", page, "--nickname", "onion", "--contact", "<me@example.org>")
	if out, code := finish(t, 10*time.Second, command(t, "config", "check", o.settings)); code != 0 || !strings.Contains(out, "of a relay are good") {
		t.Errorf("status %d: %s", code, out)
	}
	if out, code := finish(t, 10*time.Second, command(t, "relay", "setup", "--network", filepath.Join(o.dir, "net", "network.toml"), "--to", filepath.Dir(o.settings), "--listen", "127.31.1.1:9001")); code != 1 || !strings.Contains(out, "not overwritten") {
		t.Errorf("again: status %d: %s", code, out)
	}
	if analyze, err := exec.LookPath("systemd-analyze"); err == nil {
		if out, err := exec.Command(analyze, "verify", filepath.Join(filepath.Dir(o.settings), "cepa-relay.service")).CombinedOutput(); err != nil {
			t.Errorf("systemd-analyze: %v\n%s", err, out)
		}
	}
	p := o.start(t)
	r, err := http.Get("http://" + page + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if !strings.Contains(string(body), "&lt;me@example.org&gt;") || !strings.Contains(string(body), "<b>onion</b>") || r.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("the notice page: %v\n%s", r.Header, body)
	}
	if s, err := status(o.state); err != nil || !s.Exit || s.Address != "127.31.1.1:9001" {
		t.Errorf("%+v, %v", s, err)
	}
	out, code := finish(t, 10*time.Second, command(t, "relay", "--config", o.settings, "--listen", "127.31.1.2:9001", "--exit-notice", ""))
	if code != 1 || !strings.Contains(out, "another cepa") {
		t.Errorf("a second relay with the same state: status %d: %s", code, out)
	}
	p.signal(syscall.SIGTERM)
	within(t, 10*time.Second, "it ends", func() bool { return !p.running() })
	err = filepath.Walk(filepath.Dir(o.settings), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestReload: SIGHUP brings into force what can be, says what cannot, and a bad file changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	o := setUpRelay(t, "127.31.2.1:9001", "--exit", "none")
	p := o.start(t, "--contact", "of the flag")
	hup := func(want string) {
		t.Helper()
		from := len(p.output()) // an earlier reload may have said the same
		p.signal(syscall.SIGHUP)
		saysAfter(t, p, from, want)
	}
	exit := func() bool { s, err := status(o.state); return err == nil && s.Exit }
	if exit() {
		t.Fatal("an exit before it was told to be")
	}
	hup("nothing has changed")
	o.set(t, `exit_policy = "web"`)
	o.set(t, `log_level = "debug"`)
	o.set(t, `memory_mib = 64`)
	o.set(t, `contact = "of the file"`) // the flag wins
	hup("exit_policy, log_level are in force; memory_mib needs a restart")
	if !exit() {
		t.Error("no exit after the reload")
	}
	o.set(t, `exit_policy = "perhaps"`)
	o.set(t, `nickname = "onion"`)
	hup(": exit_policy") // behind the file and the line
	o.set(t, `exit_policy = "none"`)
	o.set(t, `rate_kib = 100`)
	hup("nickname, exit_policy are in force; memory_mib, rate_kib need a restart")
	if exit() {
		t.Error("still an exit")
	}
	o.set(t, `log_level = "error"`)
	p.signal(syscall.SIGHUP)
	time.Sleep(200 * time.Millisecond) // nothing is said at this level; two signals may become one, which changes nothing here
	o.set(t, `exit_policy = 5`)
	hup("line ") // errors are, with the line
	key := filepath.Join(o.dir, "family.key")
	if out, code := finish(t, 10*time.Second, command(t, "keys", "family", "new", "--to", key)); code != 0 {
		t.Fatal(out)
	}
	o.set(t, `exit_policy = "none"`)
	o.set(t, `log_level = "info"`)
	if out, code := finish(t, 10*time.Second, command(t, "keys", "family", "join", "--key", key, "--config", o.settings)); code != 0 || !strings.Contains(out, "SIGHUP") {
		t.Fatal(out)
	}
	hup("family_keys, log_level are in force")
	if !p.running() {
		t.Error("it has ended")
	}
}

// TestHibernationSurvivesAKill: a relay that uses up its month while it runs leaves and sleeps; killed and started again
// it sleeps on, and serves nothing.
func TestHibernationSurvivesAKill(t *testing.T) {
	notShort(t)
	t.Parallel()
	o := setUpRelay(t, "127.31.4.1:9001")
	now := time.Now().UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	file := filepath.Join(o.state, "accounting.json")
	const left = 8 << 10 // bytes, which the directory alone uses up in a moment
	used, _ := json.Marshal(map[string]any{"since": month, "received": 1 << 30, "sent": 1<<30 - left})
	if err := os.WriteFile(file, used, 0o600); err != nil {
		t.Fatal(err)
	}
	o.set(t, "accounting_gib = 2")
	p := o.start(t)
	if strings.Contains(p.output(), "sleeping") {
		t.Fatalf("it sleeps before the month is used up:\n%s", p.tail())
	}
	within(t, 60*time.Second, "the month is used up, and it sleeps", func() bool {
		s, err := status(o.state)
		return err == nil && s.Doing == "hibernating"
	})
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		p.signal(sig)
		within(t, 10*time.Second, "it has ended", func() bool { return !p.running() })
		p = o.start(t)
		says(t, p, "hibernating")
		if c, err := net.DialTimeout("tcp", "127.31.4.1:9001", time.Second); err == nil {
			c.Close()
			t.Error("it sleeps and serves")
		}
	}
	out, code := finish(t, 20*time.Second, command(t, "status", o.state))
	if code != 0 || strings.Count(out, "WARNING") != 1 || !strings.Contains(out, ": ASLEEP") || !strings.Contains(out, "raise accounting_gib") {
		t.Errorf("status %d: %s", code, out)
	}
	var kept struct{ Sent, Received int64 }
	if text, err := os.ReadFile(file); err != nil || json.Unmarshal(text, &kept) != nil || kept.Sent+kept.Received < 2<<30 {
		t.Errorf("%s, %v", text, err)
	}
}

// TestHibernation: a relay whose month is used up sleeps, says so, keeps its folder, and wakes when it may; what it
// has used is kept when it ends.
func TestHibernation(t *testing.T) {
	t.Parallel()
	o := setUpRelay(t, "127.31.3.1:9001")
	now := time.Now().UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	used, _ := json.Marshal(map[string]any{"since": month, "received": 1 << 30, "sent": 1 << 30})
	file := filepath.Join(o.state, "accounting.json")
	if err := os.WriteFile(file, used, 0o600); err != nil {
		t.Fatal(err)
	}
	o.set(t, "accounting_gib = 2")
	p := o.start(t)
	says(t, p, "hibernating")
	if s, err := status(o.state); err != nil || s.Doing != "hibernating" || len(s.Warnings) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if out, code := finish(t, 10*time.Second, command(t, "relay", "--config", o.settings)); code != 1 || !strings.Contains(out, "another cepa") {
		t.Errorf("a second one: status %d: %s", code, out)
	}
	o.set(t, "accounting_gib = 3")
	p.signal(syscall.SIGHUP)
	within(t, 10*time.Second, "it is awake", func() bool { s, err := status(o.state); return err == nil && s.Doing != "hibernating" })
	p.signal(syscall.SIGTERM)
	within(t, 10*time.Second, "it ends", func() bool { return !p.running() })
	text, err := os.ReadFile(file)
	var kept struct{ Sent, Received int64 }
	if err != nil || json.Unmarshal(text, &kept) != nil || kept.Sent < 1<<30 || kept.Received < 1<<30 {
		t.Errorf("%s, %v", text, err)
	}
}

// TestAddressFromOthers: a relay behind an address that it does not know takes what three networks see, and says so
// when it cannot.
func TestAddressFromOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := &founded{dir: dir, file: filepath.Join(dir, "network.toml"), relays: map[string]*standalone{}}
	if out, code := finish(t, 10*time.Second, command(t, "network", "new", "--test", "--dir", dir, "--authority", "127.32.0.1:9001", "--authority", "127.33.0.1:9001", "--authority", "127.34.0.1:9001")); code != 0 {
		t.Fatal(out)
	}
	f.relay(t, "authority-1", "127.32.0.1:9001")
	_, port, _ := strings.Cut(func() string { a, err := freePort(); fatal(t, err); return a }(), ":")
	state := filepath.Join(dir, "auto")
	args := []string{"relay", "--network", f.file, "--dir", state, "--listen", "0.0.0.0:" + port, "--address", "auto"}
	if out, code := finish(t, 30*time.Second, command(t, args...)); code != 1 || !strings.Contains(out, "set address to") {
		t.Fatalf("with one authority: status %d: %s", code, out)
	}
	for i, a := range []string{"127.33.0.1:9001", "127.34.0.1:9001"} {
		name := []string{"authority-2", "authority-3"}[i]
		f.relay(t, name, a)
	}
	within(t, 20*time.Second, "the others answer", func() bool {
		_, err2 := status(filepath.Join(dir, "authority-2"))
		_, err3 := status(filepath.Join(dir, "authority-3"))
		return err2 == nil && err3 == nil
	})
	f.start(t, args...)
	within(t, 20*time.Second, "it knows its address", func() bool {
		s, err := status(state)
		return err == nil && s.Address == "127.0.0.1:"+port
	})
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSecondSignalEndsTheDrain: a relay that was told to end lets its circuits go on; a second signal ends it at once.
func TestSecondSignalEndsTheDrain(t *testing.T) {
	t.Parallel()
	notShort(t)
	f := foundNetwork(t, filepath.Join(t.TempDir(), "n"), address(t, 61), "--param", "interval_ms=2000")
	for i := range 3 {
		f.relay(t, string(rune('a'+i)), address(t, 62+i), "--exit-policy", "all", "--drain", "5m")
	}
	socks, err := freePort()
	fatal(t, err)
	state := filepath.Join(f.dir, "client")
	f.start(t, "client", "--network", f.file, "--dir", state, "--socks", socks)
	within(t, 30*time.Second, "the client is ready", func() bool { s, err := status(state); return err == nil && s.Percent == 100 })
	site, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer site.Close()
	go func() {
		for {
			c, err := site.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	host, port, _ := net.SplitHostPort(site.Addr().String())
	connect := command(t, "connect", host, port)
	connect.Env = append(os.Environ(), "CEPA_SOCKS="+socks) // as the documents say
	in, err := connect.StdinPipe()
	fatal(t, err)
	p, err := launch(connect)
	fatal(t, err)
	t.Cleanup(p.end)
	said := 0
	echo := func() {
		t.Helper()
		said++
		line := fmt.Sprint("line ", said)
		_, _ = io.WriteString(in, line+"\n")
		within(t, 20*time.Second, "an echo", func() bool { return strings.Contains(p.output(), line) })
	}
	echo()
	var carrier *standalone
	for _, r := range f.relays {
		if n, err := counter(r.dir, "relay_exit_streams"); err == nil && n > 0 {
			carrier = r
		}
	}
	if carrier == nil {
		t.Fatal("no relay carries the stream")
	}
	carrier.signal(syscall.SIGTERM)
	says(t, carrier.process, "leaving: no new circuits, waiting for circuits and streams to end")
	carrier.signal(syscall.SIGHUP) // is not a second signal to end
	echo()
	if !carrier.running() {
		t.Error("it has ended while it should wait")
	}
	start := time.Now()
	carrier.signal(syscall.SIGTERM)
	within(t, 5*time.Second, "it ends at the second signal", func() bool { return !carrier.running() })
	t.Logf("it ended %v after the second signal", time.Since(start).Round(time.Millisecond))
	if !strings.Contains(carrier.output(), "circuits and streams are cut") || carrier.err != nil {
		t.Errorf("%v:\n%s", carrier.err, carrier.tail())
	}
}

// TestDemoWithMorePorts: the demo's client has the ports that are asked for.
func TestDemoWithMorePorts(t *testing.T) {
	t.Parallel()
	notShort(t)
	dig := need(t, "dig")
	more, err := freePort()
	fatal(t, err)
	dns, err := freePort()
	fatal(t, err)
	host, port, _ := strings.Cut(dns, ":")
	script := fmt.Sprintf("curl -sS --socks5-hostname %s http://hello.demo/ >/dev/null && %s @%s -p %s +time=10 +tries=2 hello.demo", more, dig, host, port)
	out, code := finish(t, time.Minute, command(t, "demo", "--port", more+" destination", "--dns", dns, "--", "sh", "-c", script))
	if code != 0 || !strings.Contains(out, "status: NO") && !strings.Contains(out, "status: NX") && !strings.Contains(out, "status: SERVFAIL") {
		t.Errorf("status %d:\n%s", code, out)
	}
	if out, code := finish(t, 20*time.Second, command(t, "demo", "--dns", "0.0.0.0:53", "--", "true")); code == 0 || !strings.Contains(out, "not a loopback address") {
		t.Errorf("status %d:\n%s", code, out)
	}
}
