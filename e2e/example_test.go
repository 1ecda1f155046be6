//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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

// exampleFolder is the folder that the examples name; the tests put another in its place.
const exampleFolder = "/tmp/overlay"

// Every example works when it is pasted: in a network namespace, where all ports are free.
func TestExamplesOfHelpWorkWhenPasted(t *testing.T) {
	notShort(t)
	if !ownNetwork(t) {
		return
	}
	for path, help := range helps(t) {
		for i, block := range examples(help) {
			t.Run(strings.TrimSpace(path+" "+string(rune('a'+i))), func(t *testing.T) {
				paste(t, path, block)
			})
		}
	}
}

func TestExamplesOfReadmeWorkWhenPasted(t *testing.T) {
	notShort(t)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Skipf("there is no README yet: %v", err)
	}
	if !ownNetwork(t) {
		return
	}
	for i, block := range fences(string(readme)) {
		t.Run(string(rune('a'+i)), func(t *testing.T) { paste(t, "README", block) })
	}
}

// paste runs the lines of one example in one folder. A line that stays in the foreground
// (a node, a demo without a program) must say that it gets on, and stays while the others run.
func paste(t *testing.T, path string, block []string) {
	folder, bin := t.TempDir(), t.TempDir()
	if err := os.Symlink(cepa, filepath.Join(bin, "cepa")); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(folder, "overlay")
	if strings.Contains(block[0], " = ") {
		pasteSettings(t, path, block)
		return
	}
	if path == "client" || path == "network show" { // they speak of a network that runs
		found := foundNetwork(t, overlay, "127.0.0.1:9001")
		found.relay(t, "second", "127.2.0.1:9002", "--exit-policy", "all")
		found.relay(t, "third", "127.3.0.1:9003", "--exit-policy", "all")
		found.relay(t, "fourth", "127.4.0.1:9004", "--exit-policy", "all")
	}
	var stays *process
	for _, line := range block {
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "$ "), "  #")
		line = strings.TrimSpace(strings.ReplaceAll(line, exampleFolder, overlay))
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "git clone ") || strings.HasPrefix(line, "cd ") || strings.HasPrefix(line, "go test"):
			continue // the repository is here, and this is a test
		case strings.HasPrefix(line, "go install"):
			continue
		case strings.Contains(line, "https://"):
			continue // needs the internet
		case strings.HasPrefix(line, "curl"):
			need(t, "curl")
		}
		shell := exec.Command("sh", "-c", line)
		shell.Dir = folder
		if strings.Contains(line, "go run ./cmd/cepa") {
			if _, err := exec.LookPath("go"); err != nil {
				t.Fatal(err)
			}
			shell.Dir = ".."
		}
		shell.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TMPDIR="+folder)
		t.Logf("$ %s", line)
		if !foreground(line) {
			if out, code := finish(t, 60*time.Second, shell); code != 0 {
				t.Fatalf("status %d:\n%s", code, out)
			}
			continue
		}
		line, job := strings.CutSuffix(line, "&")
		shell.Args[2] = "exec " + strings.TrimSpace(line)
		if stays != nil && strings.Contains(line, "cepa demo") {
			stays.end() // another example of the same port
		}
		p, err := launch(shell)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.end)
		stays = p
		if job {
			continue // a shell does not wait
		}
		well := regexp.MustCompile(`(?m)^(ready|100 %)`)
		if strings.Contains(line, "cepa relay") { // which may wait for others
			well = regexp.MustCompile(`(?m)^ *\d+ %`)
		}
		within(t, 30*time.Second, "it says that it gets on", func() bool {
			if !p.running() {
				t.Fatalf("it ended: %v\n%s", p.err, p.output())
			}
			return well.MatchString(p.output())
		})
		t.Logf("%s", p.output())
	}
}

// foreground says whether a command stays.
func foreground(line string) bool {
	if regexp.MustCompile(`cepa (relay|client)\b`).MatchString(line) {
		return !strings.Contains(line, "--help")
	}
	return regexp.MustCompile(`cepa demo\b`).MatchString(line) && !strings.Contains(line, " -- ") && !strings.Contains(line, "--self-test")
}

// pasteSettings runs a node with an example's settings file.
func pasteSettings(t *testing.T, path string, block []string) {
	folder := t.TempDir()
	foundNetwork(t, folder, "127.9.0.1:9009")
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
