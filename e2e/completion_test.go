//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// typist is a shell at a terminal.
type typist struct {
	t        *testing.T
	terminal *os.File

	mu   sync.Mutex
	seen strings.Builder
}

// sitDown starts an interactive shell whose program cepa is the one under test, in a folder of its own.
func sitDown(t *testing.T, shell string, args ...string) *typist {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"a-settings-file.toml", "a-file.txt"} {
		fatal(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	fatal(t, os.Mkdir(filepath.Join(dir, "zz-folder"), 0o700))
	cmd := exec.Command(shell, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(cepa)+":"+os.Getenv("PATH"), "HOME="+dir, "TERM=dumb", "PS1=$ ", "INPUTRC=/dev/null", "ZDOTDIR="+dir)
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	fatal(t, err)
	s := &typist{t: t, terminal: terminal}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			s.mu.Lock()
			s.seen.Write(buffer[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		terminal.Close()
	})
	return s
}

func (s *typist) screen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// types types keys and waits until the screen has what is wanted behind what it had.
func (s *typist) types(keys, want string) {
	s.t.Helper()
	before := len(s.screen())
	if _, err := s.terminal.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if s.t.Failed() {
			s.t.Logf("%q, and the screen:\n%s", keys, s.screen()[before:])
		}
	}()
	within(s.t, 10*time.Second, want+" after "+keys, func() bool { return strings.Contains(s.screen()[before:], want) })
}

// TestCompletionAtATerminal: somebody types half of a word and the tabulator in real shells.
func TestCompletionAtATerminal(t *testing.T) {
	t.Parallel()
	const anew = "\x15" // Ctrl-U
	try := func(t *testing.T, s *typist) {
		s.types("cepa rela\t", "relay ")
		s.types("set\t", "setup ")
		s.types("--exi\t", "--exit ")
		s.types("redu\t", "reduced ")
		s.types("--netw\ta-set\t", "a-settings-file.toml")
		s.types(anew+"cepa relay --log-level wa\t", "warn ")
		s.types(anew+"cepa status \t", "zz-folder/")
		s.types(anew+"cepa no-such-command ", "no-such")
		s.types("\t"+anew+"echo still-here\r", "still-here")
	}
	t.Run("bash", func(t *testing.T) {
		t.Parallel()
		s := sitDown(t, need(t, "bash"), "--norc", "--noprofile", "-i")
		s.types("source <(cepa completion bash); echo rea''dy\r", "ready")
		try(t, s)
		// What is in the middle shows all that may come.
		s.types(anew+"cepa network \t\t", "merge")
	})
	t.Run("zsh", func(t *testing.T) {
		t.Parallel()
		s := sitDown(t, need(t, "zsh"), "-f", "-i") // Debian package zsh
		s.types("unsetopt zle_bracketed_paste 2>/dev/null; autoload -U compinit; compinit -u; source <(cepa completion zsh); echo rea''dy\r", "ready")
		try(t, s)
		s.types(anew+"cepa network \t\t", "make the keys of a new network")
	})
	t.Run("fish", func(t *testing.T) {
		t.Parallel()
		fish := need(t, "fish") // Debian package fish
		dir := t.TempDir()
		fatal(t, os.WriteFile(filepath.Join(dir, "a-settings-file.toml"), nil, 0o600))
		fatal(t, os.Mkdir(filepath.Join(dir, "zz-folder"), 0o700))
		for line, want := range map[string]string{
			"cepa rela":                "relay\trun a relay",
			"cepa relay set":           "setup\t",
			"cepa relay setup --exi":   "--exit\t",
			"cepa relay --exit-pol":    "--exit-policy\t",
			"cepa relay --log-level ":  "warn",
			"cepa relay --config a-se": "a-settings-file.toml",
			"cepa status ":             "zz-folder/",
		} {
			cmd := exec.Command(fish, "--no-config", "-c", `cepa completion fish | source; complete -C `+"'"+line+"'")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(cepa)+":"+os.Getenv("PATH"), "HOME="+dir)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%q: %v, without %q:\n%s", line, err, want, out)
			}
		}
	})
}
