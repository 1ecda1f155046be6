package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBlameNamesTheLine: a value that cannot be is named with file, line and setting, wherever it stands.
func TestBlameNamesTheLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ role, text, want string }{
		{"relay", "network = \"n\"\ndir = \"d\"\n\n# how much\nmemory_mib = 5\n", "line 5: memory_mib is 5"},
		{"relay", "network = \"n\"\ndir = \"d\"\nlisten = \"here\"\n", "line 3: listen \"here\""},
		{"relay", "network = \"n\"\ndir = \"d\"\nexit_policy = \"perhaps\"\n", "line 3: exit_policy"},
		{"relay", "network = \"n\"\ndir = \"d\"\n\n\naccounting_day = 31", "line 5: accounting_day is 31"},
		{"relay", "network = \"n\"\ndir = \"d\"\nlog_level = \"loud\"", "line 3: log_level \"loud\""},
		{"client", "network = \"n\"\ndir = \"d\"\nsocks = \"0.0.0.0:1\"\n", "line 3: socks"},
		{"client", "network = \"n\"\ndir = \"d\"\nports = [\n \"127.0.0.1:1 sideways\",\n]\n", "line 3: ports"},
		{"client", "network = \"n\"\ndir = \"d\"\n[paths]\n# who not\nexclude = [\"nobody\"]\n", "line 5: the setting exclude of [paths]"},
		{"client", "network = \"n\"\ndir = \"d\"\npaths.exclude = [\"nobody\"]\n", "line 3: the setting exclude of [paths]"},
		{"client", "network = \"n\"\ndir = \"d\"\ndns = \"x\"\n", "line 3: dns"},
	} {
		path := filepath.Join(t.TempDir(), "settings.toml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		config := NewConfig(c.role)
		from, _, err := Layers{File: path}.Resolve(config)
		if err != nil {
			t.Fatal(err)
		}
		if err = Blame(config, from, CheckConfig(config)); err == nil || !strings.HasPrefix(err.Error(), path+", "+c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	config := NewConfig("relay")
	from, _, err := Layers{Environ: []string{"CEPA_RELAY_NETWORK=n", "CEPA_RELAY_DIR=d", "CEPA_RELAY_MEMORY_MIB=3"}}.Resolve(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := Blame(config, from, CheckConfig(config)); err == nil || !strings.HasPrefix(err.Error(), "the environment's CEPA_RELAY_MEMORY_MIB: memory_mib is 3") {
		t.Errorf("of the environment: %v", err)
	}
	other := errors.New("memory of another kind")
	if err := Blame(config, from, other); err != other {
		t.Errorf("of no setting: %v", err)
	}
}
