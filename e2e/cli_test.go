//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/demo"
	"cepa/directory"
)

// subcommands reads the names under COMMANDS: of a help text.
func subcommands(help string) (names []string) {
	_, rest, ok := strings.Cut(help, "COMMANDS:\n")
	if !ok {
		return nil
	}
	for line := range strings.Lines(rest) {
		m := regexp.MustCompile(`^   ([a-z][a-z-]*)[, ]`).FindStringSubmatch(line)
		if m == nil {
			break
		}
		names = append(names, m[1])
	}
	return names
}

// flagsOf reads the flags of a help text, without --help and --version.
func flagsOf(help string) (flags []string) {
	for _, m := range regexp.MustCompile(`(?m)^   --([a-z-]+)`).FindAllStringSubmatch(help, -1) {
		if m[1] != "help" && m[1] != "version" {
			flags = append(flags, m[1])
		}
	}
	return flags
}

// helps walks all commands and returns their help texts by their words.
func helps(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	var walk func(path []string)
	walk = func(path []string) {
		out, code := finish(t, 10*time.Second, command(t, append(slices.Clone(path), "--help")...))
		if code != 0 {
			t.Errorf("cepa %s --help: status %d:\n%s", strings.Join(path, " "), code, out)
		}
		texts[strings.Join(path, " ")] = out
		for _, name := range subcommands(out) {
			walk(append(slices.Clone(path), name))
		}
	}
	walk(nil)
	if len(texts) < 6 {
		t.Fatalf("only these commands have a help: %v", texts)
	}
	return texts
}

func TestEveryHelpHasAnExample(t *testing.T) {
	for path, help := range helps(t) {
		if subcommands(help) != nil && path != "" {
			continue // a group of commands, each of which has its own
		}
		if len(examples(help)) == 0 {
			t.Errorf("cepa %s --help has no example:\n%s", path, help)
		}
	}
}

func TestMistakesExitWithTwoAndTheNearestName(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"dmeo", "demo"},
		{"netwrok new", "network"},
		{"network nwe", "new"},
		{"network shwo x", "show"},
		{"statsu x", "status"},
		{"clinet", "client"},
		{"rellay", "relay"},
		{"demo --relay 9", "relays"},
		{"demo --proceses", "processes"},
		{"demo --sock 127.0.0.1:1", "socks"},
		{"relay --netwrok x", "network"},
		{"relay --exit-polcy web", "exit-policy"},
		{"client --sokcs x", "socks"},
		{"network new --authorty x", "authority"},
		{"network new --dir x --authority 127.0.0.1:1 --param intervl_ms=1", "interval_ms"},
		{"status --jsno x", "json"},
		{"demo --relays", "relays"},
		{"demo --relays many", "relays"},
		{"demo --relays 2", "3"},
		{"demo --socks nowhere", "socks"},
		{"demo --socks 0.0.0.0:9850", "loopback"},
		{"demo --exit-policy perhaps", "exit-policy"},
		{"demo --self-test -- true", "self-test"},
		{"demo --log-level loud", "log"},
		{"relay", "--network"},
		{"relay surplus", "surplus"},
		{"client", "--network"},
		{"client surplus", "surplus"},
		{"network new", "dir"},
		{"network new --dir x --authority nowhere", "authority"},
		{"network new surplus --dir x --authority 127.0.0.1:1", "surplus"},
		{"network new --dir x --authorities 0", "1 to 32"},
		{"authority", "--network"},
		{"authority surplus", "surplus"},
		{"autority", "authority"},
		{"demo --authorities 0", "1 to 32"},
		{"directory shwo", "show"},
		{"directory show", "--dir"},
		{"directory relays --dir x --flag Exti", "Exit"},
		{"directory diff --dir x --form y", "from"},
		{"network show", "FILE"},
		{"status", "DIR"},
		{"status a b", "DIR"},
	} {
		t.Run(test.args, func(t *testing.T) {
			out, code := finish(t, 20*time.Second, command(t, strings.Fields(test.args)...))
			if code != 2 || !strings.Contains(out, test.want) {
				t.Errorf("status %d, want 2 and %q:\n%s", code, test.want, out)
			}
			if n := strings.Count(strings.TrimSpace(out), "\n"); n > 3 {
				t.Errorf("%d lines for one mistake:\n%s", n+1, out)
			}
		})
	}
}

func TestFailuresExitWithOne(t *testing.T) {
	for _, args := range []string{
		"network show /no/such/file",
		"status /no/such/folder",
		"relay --network /no/such/file --dir x",
		"client --network /no/such/file --dir x",
		"authority --network /no/such/file --dir x",
		"directory show --dir /no/such/folder",
		"directory verify --dir /proc/self",
		"relay --config /no/such/file",
		"demo --dir /proc/nowhere",
	} {
		t.Run(args, func(t *testing.T) {
			out, code := finish(t, 20*time.Second, command(t, strings.Fields(args)...))
			if code != 1 || strings.TrimSpace(out) == "" {
				t.Errorf("status %d, want 1 and a reason:\n%s", code, out)
			}
			if strings.Contains(out, "goroutine ") {
				t.Errorf("it crashed:\n%s", out)
			}
		})
	}
}

// Every flag of every command is known before and after the positional arguments.
func TestFlagsWorkBeforeAndAfterArguments(t *testing.T) {
	for path, help := range helps(t) {
		if subcommands(help) != nil {
			continue
		}
		for _, flag := range flagsOf(help) {
			value := flagValue(help, flag)
			words := strings.Fields(path)
			before := append(append(slices.Clone(words), value...), "an-argument", "--no-such-flag")
			after := append(append(slices.Clone(words), "an-argument"), append(value, "--no-such-flag")...)
			for _, args := range [][]string{before, after} {
				out, code := finish(t, 20*time.Second, command(t, args...))
				if code != 2 || !strings.Contains(out, "no-such-flag") || strings.Contains(out, "--"+flag+" ") && !strings.Contains(out, "did you mean") {
					t.Errorf("%q: status %d, want 2 because of --no-such-flag and nothing else:\n%s", args, code, out)
				}
			}
		}
	}
}

// flagValue is the flag with a value when it takes one.
func flagValue(help, flag string) []string {
	m := regexp.MustCompile(`(?m)^   --` + flag + `( [A-Za-z=]+)?(  | \[|$)`).FindStringSubmatch(help)
	if m != nil && m[1] != "" {
		return []string{"--" + flag, "interval_ms=2000"}
	}
	return []string{"--" + flag}
}

// Flags do the same wherever they stand, and "--" ends them.
func TestFlagOrderMakesNoDifference(t *testing.T) {
	o := shared(t)
	client := o.node(t, "client").Dir
	for _, args := range [][]string{{"status", "--json", client}, {"status", client, "--json"}, {"status", "--json", "--", client}} {
		out, code := finish(t, 20*time.Second, command(t, args...))
		if code != 0 || !strings.Contains(out, `"counters"`) {
			t.Errorf("%q: status %d:\n%s", args, code, out)
		}
	}
	network := filepath.Join(o.dir, "network.toml")
	for _, args := range [][]string{{"network", "show", network}, {"network", "show", "--", network}} {
		if out, code := finish(t, 20*time.Second, command(t, args...)); code != 0 || !strings.Contains(out, fmt.Sprint("quorum ", directory.Quorum(demo.DefaultAuthorities))) {
			t.Errorf("%q: status %d:\n%s", args, code, out)
		}
	}
	// What follows "--" is the program's, also when it looks like a flag of cepa.
	out, code := finish(t, 60*time.Second, command(t, "demo", "--relays", "3", "--", "echo", "--relays", "--help", "--", "-x"))
	if code != 0 || !strings.Contains(out, "--relays --help -- -x") {
		t.Errorf("status %d:\n%s", code, out)
	}
	// Without "--" too: a program's name ends nothing but is no flag.
	out, code = finish(t, 60*time.Second, command(t, "demo", "echo", "one", "--relays", "3"))
	if code != 0 || !strings.Contains(out, "one") || strings.Contains(out, "--relays") {
		t.Errorf("status %d:\n%s", code, out)
	}
}
