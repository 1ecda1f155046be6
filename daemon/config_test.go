package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadRelayConfig(t *testing.T) {
	t.Parallel()
	path := write(t, "relay.toml", `
network = "network.toml"
dir = "sub/relay"
listen = "0.0.0.0:9001"
address = "203.0.113.7:9001"
exit_policy = "web"
nickname = "nick"
contact = "me"
bandwidth_mib = 10
memory_mib = 64
log_level = "debug"
tls_keylog = "/absolute/keys"
[[serve]]
name = "hello.demo"
port = 80
to = "127.0.0.1:8080"
`)
	got, err := LoadRelayConfig(path)
	dir := filepath.Dir(path)
	want := RelayConfig{
		Network: filepath.Join(dir, "network.toml"), Dir: filepath.Join(dir, "sub", "relay"), Listen: "0.0.0.0:9001", Address: "203.0.113.7:9001",
		ExitPolicy: "web", Nickname: "nick", Contact: "me", BandwidthMiB: 10, MemoryMiB: 64, LogLevel: "debug",
		Serve: []Service{{"hello.demo", 80, "127.0.0.1:8080"}}, TLSKeyLog: "/absolute/keys",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	again := filepath.Join(dir, "again.toml")
	if err := got.Save(again); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadRelayConfig(again); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("saved and read again: %+v, %v", got, err)
	}
	if info, err := os.Stat(again); err != nil || os.PathSeparator == '/' && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// TestSettingsThatAreWrong are told with their line and the nearest name.
func TestSettingsThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"\nnetwrok = \"x\"", `line 2, column 1: there is no setting "netwrok" (did you mean "network"?)`},
		{"exit-policy = \"web\"", `did you mean "exit_policy"?`},
		{"xyzzy = 1", `there is no setting "xyzzy"`},
		{"[[serve]]\nnmae = \"x\"", `line 2, column 1: there is no setting "serve.nmae" (did you mean "name"?)`},
		{"[[serve]]\nport = 70000", "line 2"},
		{"dir = 5", "line 1"},
		{"dir = \"a\"\ndir = \"b\"", "dir"},
		{"dir = ", "line 1"},
		{"memory_mib = \"much\"", "line 1"},
		{"\x00", "line 1"},
	} {
		_, err := LoadRelayConfig(write(t, "relay.toml", c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := LoadClientConfig(write(t, "client.toml", "listen = \"x\"")); err == nil {
		t.Error("a relay's setting in a client's file")
	}
	if _, err := LoadClientConfig(write(t, "big.toml", strings.Repeat("# x\n", maxConfig))); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge file: %v", err)
	}
	if _, err := LoadClientConfig(t.TempDir()); err == nil {
		t.Error("a folder was read as a file")
	}
}

func TestConfigBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		r    RelayConfig
		want string // "": fine
	}{
		{"least", RelayConfig{Network: "n", Dir: "d"}, ""},
		{"no network", RelayConfig{Dir: "d"}, "--network"},
		{"no dir", RelayConfig{Network: "n"}, "--dir"},
		{"little memory", RelayConfig{Network: "n", Dir: "d", MemoryMiB: 15}, "memory_mib"},
		{"much memory", RelayConfig{Network: "n", Dir: "d", MemoryMiB: 1<<20 + 1}, "memory_mib"},
		{"negative memory", RelayConfig{Network: "n", Dir: "d", MemoryMiB: -1}, "memory_mib"},
		{"negative bandwidth", RelayConfig{Network: "n", Dir: "d", BandwidthMiB: -1}, "bandwidth_mib"},
		{"negative uplink", RelayConfig{Network: "n", Dir: "d", UplinkMbit: -1}, "uplink_mbit"},
		{"an uplink in bits", RelayConfig{Network: "n", Dir: "d", UplinkMbit: 100_000_000}, "uplink_mbit"},
		{"a name to listen on", RelayConfig{Network: "n", Dir: "d", Listen: "localhost:9001"}, "--listen"},
		{"no port", RelayConfig{Network: "n", Dir: "d", Listen: "127.0.0.1"}, "--listen"},
	} {
		_, err := c.r.check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("relay, %s: %v", c.name, err)
		}
	}
	for _, c := range []struct{ socks, want string }{
		{"", ""}, {"127.0.0.1:1", ""}, {"[::1]:9850", ""}, {"127.9.9.9:1", ""},
		{"0.0.0.0:9850", "not a loopback"}, {"192.168.1.1:9850", "not a loopback"}, {"[::]:9850", "not a loopback"},
		{"localhost:9850", "--socks"}, {"9850", "--socks"},
	} {
		config := ClientConfig{Network: "n", Dir: "d", Socks: c.socks}
		_, err := config.check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("socks %q: %v", c.socks, err)
		}
	}
	config := ClientConfig{Network: "n", Dir: "d", MemoryMiB: 1}
	if _, err := config.check(); err == nil {
		t.Error("a client with 1 MiB")
	}
	relay := RelayConfig{Network: "n", Dir: "d"}
	if a, err := relay.check(); err != nil || a.Port() != DefaultRelayPort || relay.MemoryMiB != DefaultRelayMemoryMiB {
		t.Errorf("defaults: %v, %+v, %v", a, relay, err)
	}
}

// TestWriteFileAtomic leaves the old file or the new one, and nothing else.
func TestWriteFileAtomic(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"old", "new"} {
		if err := WriteFileAtomic(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := WriteFileAtomic(filepath.Join(dir, "missing", "file"), nil, 0o644); err == nil {
		t.Error("a folder that is not there")
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(filepath.Join(dir, "folder"), nil, 0o644); err == nil {
		t.Error("a file in the place of a folder")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestLogHandler(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]slog.Level{"": slog.LevelInfo, "debug": slog.LevelDebug, "WARN": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := ParseLogLevel(name); err != nil || got != want {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"loud", "info+2", "warn-1", "4"} {
		if _, err := ParseLogLevel(name); err == nil || !strings.Contains(err.Error(), LogLevels) {
			t.Errorf("%q: %v", name, err)
		}
	}
	var b bytes.Buffer
	log := slog.New(NewLogHandler(&b, "warn"))
	log.Info("not shown")
	log.Warn("shown", "err", "x", "time", "kept")
	line := b.String()
	if !strings.HasPrefix(line, "time=") || strings.Contains(line, "not shown") || !strings.HasSuffix(line, "level=WARN msg=shown err=x time=kept\n") {
		t.Errorf("%q", line)
	}
	stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
	if _, err := time.Parse("2006-01-02T15:04:05Z", stamp); err != nil {
		t.Errorf("the time is finer than a second: %q", stamp)
	}
}
