package fuzz

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cepa/simnet/scenario"
)

// regressions are runs in which something has been wrong, or was looked for hard: scenarios of testdata and their seeds.
// What was found is added here with the scenario that shows it.
var regressions = []struct {
	file string
	seed uint64
}{
	{"all-restart", 1},
	{"all-restart", 2},
	{"no-quorum", 1},
	{"forgetful-clients", 1},
	{"wrong-clocks", 1},
	{"clock-set-right", 1725874179},
	{"slow-for-a-while", 29843714},
	{"slow-disks", 173123984},
	{"clock-behind", 1112458405},
}

// TestRegressions: none of them shows anything any more.
func TestRegressions(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, x := range regressions {
		used[x.file] = true
		t.Run(x.file, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && x != regressions[0] {
				t.Skip("the first of them is enough")
			}
			text, err := os.ReadFile(filepath.Join("testdata", x.file+".toml"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := scenario.Parse(text, x.file)
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Build(x.seed, scenario.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for !r.Advance(time.Minute) {
			}
			for _, v := range r.Finish() {
				t.Error(v)
			}
			if s := r.Summary(); s.Good == 0 || s.Ready < s.Clients {
				t.Errorf("seed %d: %+v", x.seed, s)
			}
		})
	}
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".toml"); !used[name] {
			t.Errorf("%s is in no regression", f)
		}
	}
}
