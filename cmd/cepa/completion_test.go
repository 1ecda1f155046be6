package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestComplete(t *testing.T) {
	t.Parallel()
	app := newApp(io.Discard, io.Discard)
	for _, test := range []struct {
		words string // the last after the last space
		kind  kind
		want  string // the candidates, one of which may be "..." for more
	}{
		{"rel", ofWords, "relay"},
		{"compl", ofWords, "completion"}, // and not complete, which is hidden
		{"network ", ofWords, "new next sign merge show"},
		{"relay ", ofWords, "setup"},
		{"relay set", ofWords, "setup"},
		{"relay --conf", ofWords, "--config"},
		{"relay setup --ex", ofWords, "--exit"},
		{"relay --attach", ofWords, ""},
		{"relay --config ", ofFiles, ""},
		{"relay --config x.toml ", ofWords, "setup"},
		{"relay --config x.toml --log-l", ofWords, "--log-level"},
		{"relay --log-level ", ofWords, "debug info warn error"},
		{"relay --log-level = w", ofWords, "warn"},
		{"relay --log-level=warn --exit-policy r", ofWords, "reduced"},
		{"relay --dir ", ofFolders, ""},
		{"relay setup --to ", ofFolders, ""},
		{"client --listen ", ofWords, ""},
		{"status ", ofFolders, ""},
		{"status --js", ofWords, "--json"},
		{"status --json ", ofFolders, ""},
		{"status one ", ofWords, ""},
		{"sim report one ", ofFolders, ""},
		{"sim run ", ofFiles, ""},
		{"config new c", ofWords, "client"},
		{"config show ", ofWords, "relay client authority"},
		{"completion ", ofWords, "bash zsh fish"},
		{"exec -- cu", ofCommands, ""},
		{"exec -- curl fi", ofFiles, ""},
		{"exec -- curl --he", ofFiles, ""},
		{"demo --relays 5 -- ", ofCommands, ""},
		{"log -n ", ofWords, ""},
		{"nothing ", ofWords, ""},
		{"keys family --", ofWords, "--help"},
	} {
		kind, list := complete(app, strings.Split(test.words, " "))
		var got []string
		for _, c := range list {
			got = append(got, c.word)
		}
		if kind != test.kind || strings.Join(got, " ") != test.want {
			t.Errorf("%q: %s %q, want %s %s", test.words, kind, got, test.kind, test.want)
		}
	}
	complete(app, nil)
}

// TestEveryFlagCompletes: each flag is offered where it can stand, and no other.
func TestEveryFlagCompletes(t *testing.T) {
	t.Parallel()
	app := newApp(io.Discard, io.Discard)
	visibleCommands(app, func(path []string, c *cli.Command) {
		_, list := complete(app, append(path, "--"))
		offered := map[string]bool{}
		for _, one := range list {
			offered[one.word] = true
		}
		n := 1 // --help
		for _, f := range c.Flags {
			if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
				continue
			}
			n++
			if !offered["--"+f.Names()[0]] {
				t.Errorf("%q: --%s is not offered", path, f.Names()[0])
			}
		}
		if len(list) != n || !offered["--help"] {
			t.Errorf("%q: %d flags are offered, it has %d", path, len(list), n)
		}
	})
}

// TestNoPlaceholderTwice: a help text does not begin with what stands before it.
func TestNoPlaceholderTwice(t *testing.T) {
	t.Parallel()
	app := newApp(io.Discard, io.Discard)
	visibleCommands(app, func(path []string, c *cli.Command) {
		for _, f := range c.Flags {
			names, text, _ := strings.Cut(f.String(), "\t")
			if takesValue(f) && (strings.HasPrefix(text, placeholder(f)+":") || !strings.Contains(names, " "+placeholder(f))) {
				t.Errorf("%q: %s: %s", path, names, text)
			}
			for _, noise := range []string{"default: false", "default: 0)", "default: 0s", "`"} {
				if strings.Contains(text, noise) {
					t.Errorf("%q: %s: %s", path, names, text)
				}
			}
		}
	})
	var out bytes.Buffer
	if status := run([]string{"cepa", "relay", "--help"}, &out, io.Discard); status != 0 || !strings.Contains(out.String(), "--memory MiB ") || strings.Contains(out.String(), "MiB: ") {
		t.Errorf("%d: %s", status, out.String())
	}
}
