package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var allRoles = []string{"relay", "authority", "client"}

// TestEverySettingStandsInTheFile: what the code knows is what a new file shows, explained, and nothing else.
func TestEverySettingStandsInTheFile(t *testing.T) {
	t.Parallel()
	for _, role := range allRoles {
		text := CommentedFile(NewConfig(role))
		table, found := "", map[string]int{}
		for line := range strings.Lines(text) {
			if in, ok := strings.CutPrefix(strings.TrimSpace(line), "["); ok {
				table = strings.TrimSuffix(in, "]") + "."
			} else if m := regexp.MustCompile(`^#?([a-z][a-z0-9_]*) = `).FindStringSubmatch(line); m != nil {
				found[table+m[1]]++
			}
			if len(line) > commentWidth+1 {
				t.Errorf("%s: a line of %d bytes: %s", role, len(line), line)
			}
		}
		list := Settings(NewConfig(role))
		for _, s := range list {
			if found[s.Name] != 1 {
				t.Errorf("%s: %s stands %d times in the file", role, s.Name, found[s.Name])
			}
			if s.Help == "" || !strings.HasSuffix(s.Help, ".") {
				t.Errorf("%s: %s has the help %q", role, s.Name, s.Help)
			}
		}
		if len(found) != len(list) {
			t.Errorf("%s: the file has %d settings, the code %d", role, len(found), len(list))
		}
	}
}

// TestUncommentedFileIsTheDefaults: a default that the file shows is the one that holds.
func TestUncommentedFileIsTheDefaults(t *testing.T) {
	t.Parallel()
	for _, role := range allRoles {
		text := CommentedFile(NewConfig(role))
		plain := write(t, "plain.toml", text)
		full := filepath.Join(filepath.Dir(plain), "full.toml")
		if err := os.WriteFile(full, []byte(regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAllString(text, "$1")), 0o600); err != nil {
			t.Fatal(err)
		}
		a, b := NewConfig(role), NewConfig(role)
		if _, _, err := (Layers{File: plain}).Resolve(a); err != nil {
			t.Fatal(err)
		}
		from, _, err := Layers{File: full}.Resolve(b)
		if err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		for _, s := range Settings(a) {
			if s.Text(a) != s.Text(b) || from[s.Name] != "file "+full {
				t.Errorf("%s: %s is %s, and from the file %s (%s)", role, s.Name, s.Text(a), s.Text(b), from[s.Name])
			}
		}
		if reflect.ValueOf(b).Elem().IsZero() {
			t.Errorf("%s: nothing was read", role)
		}
	}
}

// TestLaterLayersWin: flag over environment over file over default, and each says where it came from.
func TestLaterLayersWin(t *testing.T) {
	t.Parallel()
	path := write(t, "relay.toml", "network = \"n\"\ndir = \"d\"\nnickname = \"file\"\ncontact = \"file\"\nmemory_mib = 64\nfamily_keys = [\"k\"]\n")
	var c RelayConfig
	from, warnings, err := Layers{
		File:    path,
		Environ: []string{"CEPA_RELAY_CONTACT=env", "CEPA_RELAY_MEMORY_MIB=65", "CEPA_RELAY_FAMILY_KEYS=a, b", "CEPA_RELAY_NIKNAME=x", "CEPA_CLIENT_SOCKS=x"},
		Flags:   map[string][]string{"memory": {"66"}},
	}.Resolve(&c)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := map[string][2]string{
		"network": {`"` + filepath.Join(dir, "n") + `"`, "file " + path}, "nickname": {`"file"`, "file " + path}, "contact": {`"env"`, "environment CEPA_RELAY_CONTACT"},
		"memory_mib": {"66", "flag --memory"}, "family_keys": {`["a", "b"]`, "environment CEPA_RELAY_FAMILY_KEYS"}, "listen": {`"0.0.0.0:9001"`, "default"},
	}
	for _, s := range Settings(&c) {
		if w, ok := want[s.Name]; ok && (strings.ReplaceAll(s.Text(&c), "'", `"`) != w[0] || from[s.Name] != w[1]) {
			t.Errorf("%s = %s from %s, want %v", s.Name, s.Text(&c), from[s.Name], w)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "CEPA_RELAY_NIKNAME is no setting (did you mean CEPA_RELAY_NICKNAME?)") {
		t.Errorf("%q", warnings)
	}
	if _, _, err := (Layers{Environ: []string{"CEPA_RELAY_MEMORY_MIB=much"}}).Resolve(&c); err == nil || !strings.Contains(err.Error(), "CEPA_RELAY_MEMORY_MIB") {
		t.Errorf("a word for a number: %v", err)
	}
}

// TestNamesOfSettingsAreOnes: no two settings of a role share a flag or a variable.
func TestNamesOfSettingsAreOnes(t *testing.T) {
	t.Parallel()
	for _, role := range allRoles {
		seen := map[string]string{"--config": "config", "--help": "help"}
		for _, s := range Settings(NewConfig(role)) {
			for _, name := range []string{"--" + s.Flag, s.Variable} {
				if other, ok := seen[name]; ok && name != "--" && name != "" {
					t.Errorf("%s: %s is of %s and %s", role, name, other, s.Name)
				}
				seen[name] = s.Name
			}
		}
	}
}

func TestGuessRole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"x.toml", CommentedFile(&ClientConfig{}), "client"},
		{"my-authority.toml", "dir = \"x\"", "authority"},
		{"x.toml", "socks = \"127.0.0.1:1\"", "client"},
		{"x.toml", "nickname = \"x\"", "relay"},
		{"x.toml", "nothing", "relay"},
	} {
		if got := GuessRole(write(t, c.name, c.text)); got != c.want {
			t.Errorf("%s, %.20q: %s, want %s", c.name, c.text, got, c.want)
		}
	}
}

// TestCompareTellsWhatNeedsARestart, and gives a running configuration only what may change.
func TestCompareTellsWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	running := RelayConfig{Listen: "a", ExitPolicy: "none", LogLevel: "info"}
	next := RelayConfig{Listen: "b", ExitPolicy: "web", LogLevel: "info", Contact: "x"}
	c := compare(&running, &next)
	if got := c.String(); got != "contact, exit_policy are in force; listen needs a restart" {
		t.Error(got)
	}
	if running.Listen != "a" || running.ExitPolicy != "web" || running.Contact != "x" {
		t.Errorf("%+v", running)
	}
	if got := compare(&running, &running).String(); got != "nothing has changed" {
		t.Error(got)
	}
}

func TestJoinFamilyKeepsTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	settings := filepath.Join(dir, "relay.toml")
	if err := WriteNewFile(settings, []byte(CommentedFile(&RelayConfig{}))); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(settings)
	for i, name := range []string{"one", "two"} {
		key := filepath.Join(dir, name)
		if _, err := NewFamilyFile(key); err != nil {
			t.Fatal(err)
		}
		if _, err := JoinFamily(settings, key); err != nil {
			t.Fatal(err)
		}
		c, err := LoadRelayConfig(settings)
		if err != nil || len(c.FamilyKeys) != i+1 || c.FamilyKeys[i] != key {
			t.Fatalf("%v, %v", c.FamilyKeys, err)
		}
		if _, err := JoinFamily(settings, key); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("twice: %v", err)
		}
	}
	after, _ := os.ReadFile(settings)
	if a, b := strings.Count(string(before), "\n"), strings.Count(string(after), "\n"); a != b {
		t.Errorf("%d lines instead of %d", b, a)
	}
	lists := write(t, "lists.toml", "family_keys = [\n\"a\",\n]\n")
	if _, err := JoinFamily(lists, filepath.Join(dir, "one")); err == nil || !strings.Contains(err.Error(), "add ") {
		t.Errorf("a list over several lines: %v", err)
	}
	if err := WriteNewFile(settings, nil); err == nil || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("%v", err)
	}
}
