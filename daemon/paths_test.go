package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestPathSettings(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("ab", 32)
	for name, c := range map[string]struct { // order: each by itself
		text, want string
	}{
		"nothing":             {``, ""},
		"all":                 {"[paths]\nexclude = ['192.0.2.0/24']\nexclude_guards = ['2001:db8::/32']\nexclude_middles = ['" + id + "']\nexits = ['family:" + id + "']", ""},
		"an unknown list":     {"[paths]\nexclude_exit = []", `did you mean "exclude_exits"`},
		"a nickname":          {"[paths]\nexits = ['fastrelay']", `the setting exits of [paths]: "fastrelay" names no relay`},
		"no list":             {"[paths]\nexits = 'x'", "line 2"},
		"a contradiction":     {"[paths]\nguards = ['" + id + "']\nexclude = ['" + id + "']", "every relay that may be the guard is excluded too"},
		"an address too much": {"[paths]\nexclude = ['192.0.2.1/24']", "write 192.0.2.0/24"},
	} {
		file := filepath.Join(t.TempDir(), "client.toml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := LoadClientConfig(file)
		if err == nil {
			_, err = config.Paths.restrictions()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil {
			continue
		}
		if err := config.Save(file); err != nil {
			t.Fatal(err)
		}
		again, err := LoadClientConfig(file)
		if err != nil || !reflect.DeepEqual(config, again) {
			t.Errorf("%s: saved and read as %+v, %v", name, again, err)
		}
		if data, _ := os.ReadFile(file); name == "nothing" && strings.Contains(string(data), "paths") {
			t.Errorf("a table that nobody has set is written: %s", data)
		}
	}
}
