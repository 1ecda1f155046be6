package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
)

// visibleCommands calls f with each command that people see, and its words.
func visibleCommands(app *cli.App, f func(path []string, c *cli.Command)) {
	var walk func(path []string, list []*cli.Command)
	walk = func(path []string, list []*cli.Command) {
		for _, c := range list {
			if !c.Hidden {
				here := append(slices.Clone(path), c.Name)
				f(here, c)
				walk(here, c.Subcommands)
			}
		}
	}
	walk(nil, app.Commands)
}

func pageNamed(t *testing.T, pages []manPage, name string) string {
	t.Helper()
	for _, p := range pages {
		if p.name == name {
			return p.text
		}
	}
	t.Fatalf("no page %s", name)
	return ""
}

// TestTheManualIsWhole: every command and every flag has its place in the manual, and every setting.
func TestTheManualIsWhole(t *testing.T) {
	t.Parallel()
	app := newApp(io.Discard, io.Discard)
	pages := manual(app)
	n := 0
	visibleCommands(app, func(path []string, c *cli.Command) {
		text := pageNamed(t, pages, "cepa-"+path[0])
		if !strings.Contains(text, roffText(strings.Join(append([]string{"cepa"}, path...), " "))) {
			t.Errorf("%q is not in the manual", path)
		}
		for _, f := range c.Flags {
			if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
				continue
			}
			n++
			if !strings.Contains(text, bold("--"+f.Names()[0])) {
				t.Errorf("%q: no --%s in the manual", path, f.Names()[0])
			}
		}
	})
	if n < 100 {
		t.Errorf("%d flags", n)
	}
	for _, role := range roles {
		text := pageNamed(t, pages, "cepa-"+role+".toml")
		for _, s := range daemon.Settings(daemon.NewConfig(role)) {
			if !strings.Contains(text, "\n"+bold(s.Name)+"\n") {
				t.Errorf("no %s in the manual of a %s", s.Name, role)
			}
		}
	}
}

// TestManualIsGoodRoff: two programs that read manuals, mandoc and groff, have nothing to say on any page.
func TestManualIsGoodRoff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := writePages(dir, manual(newApp(io.Discard, io.Discard))); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "man?", "*"))
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	bad := filepath.Join(dir, "bad.1")
	if err := os.WriteFile(bad, []byte(".TH x\n.nosuch\n.SH NAME\n\\fZ\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("mandoc", func(t *testing.T) {
		tool, err := exec.LookPath("mandoc")
		if err != nil {
			t.Skip("mandoc is missing: install the Debian package mandoc")
		}
		if out, err := exec.Command(tool, append([]string{"-T", "lint", "-W", "warning"}, files...)...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := exec.Command(tool, "-T", "lint", "-W", "warning", bad).CombinedOutput(); err == nil {
			t.Errorf("a bad page is good: %s", out)
		}
	})
	t.Run("groff", func(t *testing.T) {
		tool, err := exec.LookPath("man")
		if err != nil {
			t.Skip("man is missing: install the Debian package man-db")
		}
		run := func(files ...string) string {
			var all strings.Builder
			for _, f := range files {
				cmd := exec.Command(tool, "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z", f)
				cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=100")
				cmd.Stderr = &all
				if err := cmd.Run(); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
			return all.String()
		}
		if said := run(files...); said != "" {
			t.Error(said)
		}
		if run(bad) == "" {
			t.Error("a bad page is good")
		}
	})
}
