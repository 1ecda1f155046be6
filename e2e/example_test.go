//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// examples finds the blocks of a help text that stand under "Example:" or another line with a
// colon at its end, each a list of lines without their indentation.
func examples(help string) (blocks [][]string) {
	var block []string
	indent, open := "", false
	flush := func() {
		if len(block) > 0 {
			blocks = append(blocks, block)
		}
		block, open = nil, false
	}
	lines := strings.Split(help, "\n")
	for _, line := range lines {
		text := strings.TrimSpace(line)
		space := line[:len(line)-len(strings.TrimLeft(line, " "))]
		switch {
		case text == "":
		case strings.HasSuffix(text, ":") && !isHeading(text):
			flush()
			indent, open = space, true
		case open && len(space) > len(indent):
			block = append(block, text)
		default:
			flush()
		}
	}
	flush()
	return blocks
}

// isHeading tells the headings of urfave/cli from sentences.
func isHeading(text string) bool { return text == strings.ToUpper(text) }

// fences finds the fenced blocks of a Markdown text whose language is a shell.
func fences(markdown string) (blocks [][]string) {
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```").FindAllStringSubmatch(markdown, -1) {
		if m[1] == "sh" || m[1] == "bash" || m[1] == "shell" || m[1] == "" {
			blocks = append(blocks, strings.Split(strings.TrimSpace(m[2]), "\n"))
		}
	}
	return blocks
}

// Places that the examples name; the tests put others there instead.
const (
	exampleFolder  = "/tmp/overlay"
	exampleProgram = "/tmp/cepa "
	exampleRun     = "/tmp/sim"
)

// Every example works when it is pasted: in a network namespace, where all ports are free.
func TestExamplesOfHelpWorkWhenPasted(t *testing.T) {
	long(t)
	if !ownNetwork(t) {
		return
	}
	for path, help := range helps(t) {
		switch path {
		case "top", "browse", "completion":
			continue // TestTopInATerminal, TestBrowseTalksToTheProxyOnly and TestCompletionAtATerminal have a terminal, a browser and bash
		}
		for i, block := range examples(help) {
			t.Run(strings.TrimSpace(path+" "+string(rune('a'+i))), func(t *testing.T) {
				if strings.Contains(block[0], " = ") {
					pasteSettings(t, path, block)
					return
				}
				p := newPaster(t)
				if path == "client" || path == "network show" { // they speak of a network that runs
					found := foundNetwork(t, p.overlay, "127.0.0.1:9001")
					for i := range 3 {
						found.relay(t, fmt.Sprint("other", i), fmt.Sprintf("127.%d.0.1:9001", i+2), "--exit-policy", "all")
					}
				}
				if path == "exec" || path == "connect" { // they use the client that runs
					p.stay("cepa demo")
				}
				p.paste(block)
			})
		}
	}
}

// The blocks of the README work one after another. A demo in one terminal stays while the
// next block is a request in another.
func TestExamplesOfReadmeWorkWhenPasted(t *testing.T) {
	long(t)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !ownNetwork(t) {
		return
	}
	blocks := fences(string(readme))
	if len(blocks) < 2 {
		t.Fatalf("the README has only these examples: %q", blocks)
	}
	p := newPaster(t)
	for _, block := range blocks {
		if !strings.HasPrefix(block[0], "curl") {
			p.interrupt()
		}
		p.paste(block)
	}
}

// paster is somebody who pastes examples into terminals.
type paster struct {
	*testing.T
	folder, overlay, bin string
	stays                *process // what runs in another terminal
}

func newPaster(t *testing.T) *paster {
	t.Helper()
	p := &paster{T: t, folder: t.TempDir(), bin: t.TempDir()}
	p.overlay = filepath.Join(p.folder, "overlay")
	if err := os.Symlink(cepa, filepath.Join(p.bin, "cepa")); err != nil {
		t.Fatal(err)
	}
	return p
}

// paste runs the lines of a block: those that end as one script, and those that stay beside
// it, when they say that they get on.
func (p *paster) paste(block []string) {
	p.Helper()
	var script []string
	for _, line := range block {
		line = strings.ReplaceAll(strings.TrimPrefix(line, "$ "), exampleFolder, p.overlay)
		line = strings.ReplaceAll(line, exampleRun, filepath.Join(p.folder, "sim"))
		line = strings.ReplaceAll(line, exampleProgram, filepath.Join(p.folder, "built")+" ")
		command, _, _ := strings.Cut(line, "  #")
		command = strings.TrimSpace(command)
		switch {
		case command == "" || strings.HasPrefix(command, "git clone ") || strings.HasPrefix(command, "cd ") || strings.HasPrefix(command, "go test"):
			continue // the repository is here, and this is a test
		case strings.Contains(command, "https://"), strings.Contains(command, "example.com"):
			continue // needs the internet
		case strings.Contains(command, "curl "):
			need(p, "curl")
		}
		if !foreground(command) {
			script = append(script, command)
			continue
		}
		p.run(script)
		script = nil
		p.stay(command)
	}
	p.run(script)
}

func (p *paster) shell(script string) *exec.Cmd {
	p.Logf("$ %s", strings.ReplaceAll(script, "\n", "\n$ "))
	cmd := exec.Command("sh", "-c", script)
	if cmd.Dir = p.folder; strings.Contains(script, "./cmd/cepa") {
		cmd.Dir = ".." // where go run and go build work
	}
	cmd.Env = append(os.Environ(), "PATH="+p.bin+":"+os.Getenv("PATH"), "TMPDIR="+p.folder, "CGO_ENABLED=0")
	return cmd
}

// interrupt is a Ctrl-C in the other terminal: it goes to all of the group, as go run does
// not pass it on.
func (p *paster) interrupt() {
	if p.stays == nil || !p.stays.running() {
		return
	}
	_ = syscall.Kill(-p.stays.pid(), syscall.SIGINT)
	select {
	case <-p.stays.done:
	case <-time.After(10 * time.Second):
		p.Errorf("Ctrl-C did not end it:\n%s", p.stays.tail())
		_ = syscall.Kill(-p.stays.pid(), syscall.SIGKILL)
		<-p.stays.done
	}
}

// run runs lines as one script. What they leave in the background ends with the test.
func (p *paster) run(script []string) {
	p.Helper()
	if len(script) == 0 {
		return
	}
	cmd := p.shell("set -e\n" + strings.Join(script, "\n"))
	p.Cleanup(func() {
		if cmd.Process == nil {
			return
		}
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			group := -cmd.Process.Pid
			_ = syscall.Kill(group, sig) // if there is still one
			for start := time.Now(); syscall.Kill(group, 0) == nil && time.Since(start) < 5*time.Second; {
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
	if out, code := finish(p, 2*time.Minute, cmd); code != 0 {
		p.Fatalf("status %d:\n%s", code, out)
	}
}

// stay starts a line that stays in the foreground.
func (p *paster) stay(line string) {
	p.Helper()
	if strings.Contains(line, "cepa demo") {
		p.interrupt() // another example of the same port
	}
	s, err := launch(p.shell("exec " + line))
	if err != nil {
		p.Fatal(err)
	}
	p.stays = s
	p.Cleanup(p.interrupt)
	well := regexp.MustCompile(`(?m)^(ready|100 %|The dashboard)`)
	if strings.Contains(line, "cepa relay") || strings.Contains(line, "cepa authority") { // which may wait for others
		well = regexp.MustCompile(`(?m)^ *\d+ %`)
	}
	within(p, 60*time.Second, "it says that it gets on: "+line, func() bool {
		if !s.running() {
			p.Fatalf("it ended: %v\n%s", s.err, s.tail())
		}
		return well.MatchString(s.output())
	})
}

// foreground says whether a command stays in the foreground.
func foreground(line string) bool {
	if strings.HasSuffix(line, "&") {
		return false
	}
	if regexp.MustCompile(`cepa (relay|client|authority|dashboard)\b`).MatchString(line) {
		return !strings.Contains(line, "--help") && !strings.Contains(line, "relay setup")
	}
	return regexp.MustCompile(`cepa demo\b`).MatchString(line) && !strings.Contains(line, " -- ") && !strings.Contains(line, "--self-test")
}

// pasteSettings runs a node with an example's settings file.
func pasteSettings(t *testing.T, path string, block []string) {
	folder := t.TempDir()
	found := foundNetwork(t, folder, "127.9.0.1:9009")
	if path == "authority" { // its folder is the one of the settings
		found.relays["authority"].end()
	}
	config := filepath.Join(folder, "settings.toml")
	if err := os.WriteFile(config, []byte(strings.Join(block, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := launch(exec.Command(cepa, path, "--config", config))
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	within(t, 20*time.Second, "it starts", func() bool {
		if !p.running() {
			t.Fatalf("it ended: %v\n%s", p.err, p.output())
		}
		return regexp.MustCompile(`(?m)^ *\d+ %`).MatchString(p.output())
	})
}
