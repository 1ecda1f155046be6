package main

// The tests here do not run in parallel: urfave/cli keeps its help flag in a package variable.

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// words runs the command line as a shell would give it.
func words(args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = run(append([]string{"cepa"}, args...), &out, &err)
	return status, out.String(), err.String()
}

// TestReorder: flags work before and after positional arguments, for every command; "--" ends
// them.
func TestReorder(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"demo", "demo"},
		{"demo --relays 9", "demo --relays 9"},
		{"demo --relays=9 --processes", "demo --relays=9 --processes"},
		{"demo --processes=false curl", "demo --processes=false -- curl"},
		{"demo curl --relays 9", "demo --relays 9 -- curl"},
		{"demo --relays 9 -- curl -sS URL", "demo --relays 9 -- curl -sS URL"},
		{"demo -- curl --relays 9", "demo -- curl --relays 9"},
		{"demo --", "demo --"},
		{"demo -- --", "demo -- --"},
		{"demo --processes -- a -- b", "demo --processes -- a -- b"},
		{"demo a --processes b --socks 127.0.0.1:1 c", "demo --processes --socks 127.0.0.1:1 -- a b c"},
		{"demo -relays 9", "demo -relays 9"},
		{"demo -", "demo -- -"},
		{"demo --self-test --help", "demo --self-test --help"},
		{"relay --network a --dir b", "relay --network a --dir b"},
		{"client surplus --dir b", "client --dir b -- surplus"},
		{"relay --contact --dir", "relay --contact --dir"},
		{"client --config c.toml", "client --config c.toml"},
		{"client surplus --socks=127.0.0.1:1", "client --socks=127.0.0.1:1 -- surplus"},
		{"network", "network"},
		{"network new --dir d --test", "network new --dir d --test"},
		{"network new surplus --param a=1 --param b=2", "network new --param a=1 --param b=2 -- surplus"},
		{"network show FILE --help", "network show --help -- FILE"},
		{"network --help", "network --help"},
		{"status DIR --json", "status --json -- DIR"},
		{"status --json DIR", "status --json -- DIR"},
		{"status DIR --wait 3s", "status --wait 3s -- DIR"},
		{"--version", "--version"},
		{"--help", "--help"},
		{"-h", "-h"},
	} {
		got, err := reorder(newApp(nil, nil), append([]string{"cepa"}, strings.Fields(c.in)...))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if got := strings.Join(got[1:], " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
	}
	if got, err := reorder(newApp(nil, nil), nil); len(got) != 0 || err != nil {
		t.Errorf("no words at all: %v, %v", got, err)
	}
}

// TestMistakes exit 2 and say in one line what was meant.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"dmeo", `no command "dmeo" (did you mean demo?)`},
		{"statsu x", "did you mean status?"},
		{"xyzzy", `no command "xyzzy"; see`},
		{"network nwe", `no command "network nwe" (did you mean new?)`},
		{"--relays 3 demo", "'cepa' has no flag --relays"},
		{"-- demo", "has no flag --"},
		{"demo --relyas 3", "'cepa demo' has no flag --relyas (did you mean relays?)"},
		{"demo curl -sS x", "'cepa demo' has no flag --sS"},
		{"demo --relays", "--relays needs a value"},
		{"demo --relays nine", "relays"},
		{"demo --relays 2", "3 to 100"},
		{"demo --relays 101", "3 to 100"},
		{"demo --socks 9850", "is not an IP address and port"},
		{"demo --socks 0.0.0.0:9850", "not a loopback address"},
		{"demo --socks localhost:9850", "is not an IP address and port"},
		{"demo --exit-policy everything", "exit-policy"},
		{"demo --log-level loud", "loud"},
		{"demo --tls-keylog", "--tls-keylog needs --dir"},
		{"demo --self-test -- curl", "--self-test runs no program"},
		{"demo --processes=maybe", "processes"},
		{"demo --version", "'cepa demo' has no flag --version"},
		{"relay", "--network and --dir"},
		{"relay --dir x", "--network and --dir"},
		{"relay --dir x --network y surplus", `no argument "surplus"`},
		{"relay --netwrok x", "did you mean network?"},
		{"relay --memory much --dir x --network y", "memory"},
		{"relay --dir x --network y --log-level loud", "loud"},
		{"relay --attachd", "no flag --attachd"},
		{"client", "--network and --dir"},
		{"client surplus", `no argument "surplus"`},
		{"client --sock x", "did you mean socks?"},
		{"authority", "--network and --dir"},
		{"authority --dir x --network y surplus", `no argument "surplus"`},
		{"authority --exit-policy all", "no flag --exit-policy"},
		{"autority", "did you mean authority?"},
		{"demo --authorities 0", "1 to 32"},
		{"demo --authorities 33", "1 to 32"},
		{"demo --authorites 3", "did you mean authorities?"},
		{"network new", "needs --dir"},
		{"network new --dir x", "needs --authority ADDRESS"},
		{"network new --authority 127.0.0.1:1", "needs --dir"},
		{"network new --dir x --authority 127.0.0.1:1 --authority 127.0.0.1:1", "is there twice"},
		{"network new --dir x --authorities 0", "1 to 32"},
		{"network new --dir x --authorities 33", "1 to 32"},
		{"network new --dir x --authorities some", "authorities"},
		{"network new --dir x --authorities 2 --authority 127.0.0.1:1", "leave the first out"},
		{"network new --dir x --authority localhost:1", "not an IP address and port"},
		{"network new --dir x --authority 127.0.0.1:1 surplus", `no argument "surplus"`},
		{"network new --dir x --authority 127.0.0.1:1 --param interval_ms", "is not NAME=NUMBER"},
		{"network new --dir x --authority 127.0.0.1:1 --param interval_ms=12x", "is not NAME=NUMBER"},
		{"network new --dir x --authority 127.0.0.1:1 --param interval_sm=1", "did you mean interval_ms?"},
		{"network new --dir x --authority 127.0.0.1:1 --param interval_ms=1", "it must be from"},
		{"network show", "needs one FILE"},
		{"network show a b", "needs one FILE"},
		{"network show --json a", "no flag --json"},
		{"keys show", "needs --dir"},
		{"keys renew --dir x", "needs --identity"},
		{"keys renew --dir x --identity y --days 91", "1 to 90"},
		{"keys offline --dir x", "needs --to"},
		{"keys nwe", "did you mean new?"},
		{"directory show", "needs --dir"},
		{"directory shwo", "did you mean show?"},
		{"directory verify --dir x y", `no argument "y"`},
		{"directory relays --dir x --flag Exti", `did you mean "Exit"?`},
		{"directory relays --dir x --sort wieght", "did you mean weight?"},
		{"directory diff --from x", "needs --from and --to"},
		{"directory diff --dir x --from y --to z", "one of them at most"},
		{"sim runn", "did you mean run?"},
		{"sim run", "needs one SCENARIO"},
		{"sim run a b", "needs one SCENARIO"},
		{"sim run quikc", "did you mean quick?"},
		{"sim run quick --seed many", "seed"},
		{"sim run quick --stream churn", "is not NAME=SEED"},
		{"sim run quick --stream chrun=1", "did you mean churn?"},
		{"sim run quick --stream churn=1 --stream churn=2", "is there twice"},
		{"sim run quick --crypto none", "want full or fast"},
		{"sim run quick --sample 1us", "at least 1ms"},
		{"sim run quick --force", "--force needs --out"},
		{"sim run quick --memory 1", "--memory is 1"},
		{"sim repro", "needs one DIR"},
		{"sim list x", `no argument "x"`},
		{"sim show", "needs one NAME"},
		{"sim show quikc", "did you mean quick?"},
		{"sim report a", "needs --out"},
		{"sim report --out x", "needs a DIR"},
		{"sim report --out x a b c d e f g", "compares at most 6"},
		{"sim calibrate x", `no argument "x"`},
		{"sim calibrate --for 1h", "1s to 60s"},
		{"sim fuzz x", `no argument "x"`},
		{"sim fuzz --minutes 0", "--minutes is 0"},
		{"sim fuzz --minuts 1", "did you mean minutes?"},
		{"status", "needs the node's DIR"},
		{"status a b", "needs the node's DIR"},
		{"status --jsno a", "did you mean json?"},
	} {
		status, stdout, stderr := words(strings.Fields(c.in)...)
		if status != exitUsage || !strings.HasPrefix(stderr, "cepa: ") || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 || stdout != "" {
			t.Errorf("%s: status %d, stdout %q, stderr %q, want %q", c.in, status, stdout, stderr, c.want)
		}
		if strings.Contains(stderr, "attached") && !strings.Contains(c.in, "attach") {
			t.Errorf("%s: a hidden flag is suggested: %s", c.in, stderr)
		}
	}
	if status, _, stderr := words("relay", "--atached"); status != exitUsage || strings.Contains(stderr, "did you mean attached") {
		t.Errorf("a hidden flag is suggested: %s", stderr)
	}
}

// TestFailures exit 1.
func TestFailures(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.toml")
	wrong := filepath.Join(dir, "wrong.toml")
	if err := os.WriteFile(wrong, []byte("netwrok = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		in   []string
		want string
	}{
		{[]string{"relay", "--config", missing}, "missing.toml"},
		{[]string{"relay", "--config", wrong}, `did you mean "network"?`},
		{[]string{"client", "--config", wrong}, `line 1`},
		{[]string{"relay", "--network", missing, "--dir", filepath.Join(dir, "relay")}, "missing.toml"},
		{[]string{"client", "--network", missing, "--dir", filepath.Join(dir, "client")}, "missing.toml"},
		{[]string{"authority", "--config", wrong}, `did you mean "network"?`},
		{[]string{"authority", "--network", missing, "--dir", filepath.Join(dir, "authority")}, "holds no keys"},
		{[]string{"network", "show", missing}, "missing.toml"},
		{[]string{"network", "show", wrong}, "wrong.toml"},
		{[]string{"status", dir}, "no running node"},
		{[]string{"client", "--network", missing, "--dir", dir, "--socks", "0.0.0.0:1"}, "not a loopback address"},
		{[]string{"relay", "--network", missing, "--dir", dir, "--memory", "-5"}, "memory_mib"},
	} {
		status, _, stderr := words(c.in...)
		if status != exitFailure || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: status %d, %q, want %q", c.in, status, stderr, c.want)
		}
	}
}

// TestNetworkNewAndShow: the file that is made can be shown, and is never replaced.
func TestNetworkNewAndShow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "if missing")
	args := []string{"network", "new", "--test", "--dir", dir, "--authority", "127.0.0.1:9001", "--param", "interval_ms=2000", "--name", "mine"}
	status, stdout, stderr := words(args...)
	if status != 0 || !strings.Contains(stdout, "cepa authority --network") {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	file := filepath.Join(dir, "network.toml")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	status, stdout, _ = words("network", "show", file)
	for _, want := range []string{"mine", "127.0.0.1:9001", "interval_ms = 2000", "quorum 1", "makes nobody anonymous"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("status %d: no %q in %s", status, want, stdout)
		}
	}
	if status, _, stderr := words(args...); status != exitFailure || !strings.Contains(stderr, "exists") {
		t.Errorf("made twice: status %d, %q", status, stderr)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Error("the file was replaced")
	}
	key, err := os.Stat(filepath.Join(dir, "authority", "identity.key"))
	if err != nil || key.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("the authority's key: %v, mode %v", err, key.Mode())
	}
	altered := filepath.Join(dir, "altered.toml")
	if err := os.WriteFile(altered, bytes.Replace(before, []byte("2000"), []byte("2001"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := words("network", "show", altered); status != exitFailure {
		t.Error("a network file that was altered is taken")
	}
	// Outside a test network others could not reach a private address.
	if status, _, _ := words("network", "new", "--dir", filepath.Join(dir, "public"), "--authority", "10.0.0.1:9001"); status != exitFailure {
		t.Errorf("a private address of an authority: status %d", status)
	}
}

// TestNetworkOfSeveralAuthorities: each has a folder of its own and a command that starts it, and all sign the file.
func TestNetworkOfSeveralAuthorities(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []string
		n    int
	}{
		{"here", []string{"--authorities", "4"}, []string{"127.0.0.1:9001", "127.0.0.1:9004", "distinct_subnets = 0", "interval_ms = 10000"}, 4},
		{"here with a parameter", []string{"--authorities", "1", "--param", "interval_ms=2000"}, []string{"127.0.0.1:9001", "interval_ms = 2000"}, 1},
		{"elsewhere", []string{"--authority", "45.1.1.1:9001", "--authority", "45.2.1.1:443", "--authorities=2"}, []string{"45.1.1.1:9001", "45.2.1.1:443", "interval_ms = 3600000", "distinct_subnets = 1"}, 2},
	} {
		dir := filepath.Join(t.TempDir(), "n")
		status, stdout, stderr := words(append([]string{"network", "new", "--dir", dir}, c.args...)...)
		if status != 0 {
			t.Fatalf("%s: status %d, %q, %q", c.name, status, stdout, stderr)
		}
		if n := strings.Count(stdout, "cepa authority --network"); n != c.n {
			t.Errorf("%s: %d commands in %s", c.name, n, stdout)
		}
		for line := range strings.Lines(stdout) { // the lines that say what is next are ones that cepa takes
			if args := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), "&")); len(args) > 0 && args[0] == "cepa" {
				if _, err := reorder(newApp(nil, nil), args); err != nil {
					t.Errorf("%s: %q: %v", c.name, line, err)
				}
			}
		}
		status, stdout, stderr = words("network", "show", filepath.Join(dir, "network.toml"))
		for _, want := range append(c.want, fmt.Sprintf("authorities  %d", c.n)) {
			if status != 0 || !strings.Contains(stdout, want) {
				t.Errorf("%s: status %d: no %q in %s%s", c.name, status, want, stdout, stderr)
			}
		}
	}
}

// everyCommand calls f for each command and subcommand.
func everyCommand(commands []*cli.Command, path []string, f func(path []string, c *cli.Command)) {
	for _, c := range commands {
		at := append(slices.Clone(path), c.Name)
		f(at, c)
		everyCommand(c.Subcommands, at, f)
	}
}

// TestHelp: every command has help with an example, whose words are ones that it takes, and
// helping is no failure.
func TestHelp(t *testing.T) {
	app := newApp(nil, nil)
	everyCommand(app.Commands, nil, func(path []string, c *cli.Command) {
		for _, flag := range []string{"--help", "-h"} {
			status, stdout, stderr := words(append(slices.Clone(path), flag)...)
			if status != 0 || !strings.Contains(stdout, c.Usage) || stderr != "" {
				t.Errorf("%v %s: status %d, %q, %q", path, flag, status, stdout, stderr)
			}
			if len(c.Subcommands) == 0 && !strings.Contains(stdout, "Example") {
				t.Errorf("%v %s: no example", path, flag)
			}
			if strings.Contains(stdout, "attached") {
				t.Errorf("%v: hidden flags are shown", path)
			}
		}
		for line := range strings.Lines(c.Description) {
			args := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), "&"))
			if len(args) == 0 || args[0] != "cepa" {
				continue
			}
			if _, err := reorder(newApp(nil, nil), args); err != nil {
				t.Errorf("example %q: %v", line, err)
			}
		}
	})
	for _, args := range [][]string{{}, {"--help"}, {"network"}} {
		if status, stdout, _ := words(args...); status != 0 || !strings.Contains(stdout, "COMMANDS") {
			t.Errorf("%v: status %d, %q", args, status, stdout)
		}
	}
	if status, stdout, _ := words("--version"); status != 0 || !strings.Contains(stdout, "cepa") {
		t.Errorf("status %d, %q", status, stdout)
	}
}

// TestHelpOfPositionals: a word of a program that looks like help is the program's.
func TestProgramWordsAreKept(t *testing.T) {
	var got []string
	app := newApp(new(bytes.Buffer), new(bytes.Buffer))
	app.Commands[0].Action = func(c *cli.Context) error { got = c.Args().Slice(); return nil }
	for _, want := range [][]string{{"help"}, {"h"}, {"curl", "--help"}, {"sh", "-c", "a; b"}, {"x", "--", "y"}, {""}, {"completion"}} {
		args, err := reorder(app, append([]string{"cepa", "demo", "--"}, want...))
		if err == nil {
			got = nil
			err = app.Run(args)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q became %q: %v", want, got, err)
		}
	}
}

// TestStatusErrorIsSilent: the exit status of a program is passed on without a word of ours.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := progress(&b)
	p(5, "looking", "")
	p(5, "waiting", "")
	p(5, "looking", "") // has been said
	p(100, "ready", "nothing")
	if want := "  5 %  looking\n  5 %  waiting\n100 %  ready (waiting for nothing)\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}
