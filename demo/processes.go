package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cepa/daemon"
)

// processes runs every node as a child. Each child holds the reading end of a pipe whose
// other end only this process has: when this process ends, however it ends, the children
// read EOF and end too.
type processes struct {
	options  Options
	layout   *layout
	children []*child
	stopping chan struct{}
	stopOnce sync.Once
}

// child is one node. NodeInfo is what DIR/nodes.json says of it.
type child struct {
	info NodeInfo
	args []string
	cmd  *exec.Cmd
	life io.WriteCloser // closing it ends the child
	done chan struct{}  // closed when the child has ended and was waited for
}

// NodeInfo is one element of DIR/nodes.json.
type NodeInfo struct {
	Name    string `json:"name"`
	Role    string `json:"role"` // client, relay or authority
	Exit    bool   `json:"exit"`
	Pid     int    `json:"pid"`
	Address string `json:"address"` // relay port or SOCKS port
	Dir     string `json:"dir"`
}

// Names of the files that describe the processes.
const (
	NodesFile = "nodes.json"
	PidsFile  = "pids"
)

func newProcesses(o Options, l *layout) *processes {
	return &processes{options: o, layout: l, stopping: make(chan struct{})}
}

func (p *processes) start(context.Context) error {
	executable := p.options.Executable
	if executable == "" {
		var err error
		if executable, err = os.Executable(); err != nil {
			return fmt.Errorf("finding the program to run: %w", err)
		}
	}
	for _, n := range p.layout.authorities {
		c := &child{
			info: NodeInfo{Name: n.name, Role: "authority", Address: n.config.Listen, Dir: n.config.Dir},
			args: []string{executable, "authority", "--config", n.path},
		}
		if err := p.launch(c); err != nil {
			return err
		}
	}
	for _, n := range p.layout.relays {
		c := &child{
			info: NodeInfo{Name: n.name, Role: "relay", Exit: n.exit, Address: n.config.Listen, Dir: n.config.Dir},
			args: []string{executable, "relay", "--config", n.path},
		}
		if err := p.launch(c); err != nil {
			return err
		}
	}
	c := &child{
		info: NodeInfo{Name: "client", Role: "client", Address: p.layout.client.Socks, Dir: p.layout.client.Dir},
		args: []string{executable, "client", "--config", filepath.Join(p.layout.client.Dir, settingsClient)},
	}
	// The client opens its port as soon as it is ready, and an open port means that the
	// files are there: so its process is started last and told to go on by a line.
	if err := p.launch(c); err != nil {
		return err
	}
	return p.describe()
}

func (p *processes) launch(c *child) error {
	c.cmd = exec.Command(c.args[0], append(append([]string(nil), c.args[1:]...), "--attached")...)
	c.done = make(chan struct{})
	ownGroup(c.cmd)
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting %s: %w", c.info.Name, err)
	}
	c.cmd.Stdout, c.cmd.Stderr = writer, writer
	if c.life, err = c.cmd.StdinPipe(); err == nil {
		err = c.cmd.Start() // which closes the pipe if it fails
	}
	writer.Close()
	if err != nil {
		reader.Close()
		return fmt.Errorf("starting %s: %w", c.info.Name, err)
	}
	c.info.Pid = c.cmd.Process.Pid
	p.children = append(p.children, c)
	go p.watch(c, reader)
	return nil
}

// watch passes on what the child says and reports its end.
func (p *processes) watch(c *child, output io.ReadCloser) {
	defer close(c.done)
	var last string
	for b := bufio.NewReaderSize(output, 64<<10); ; {
		// A line that is longer comes in parts: what is never read would block the child.
		line, _, err := b.ReadLine()
		if err != nil {
			break
		}
		last = string(line)
		if p.options.LogLevel == "debug" || strings.Contains(last, "WARN") || strings.Contains(last, "ERROR") {
			p.options.Message("%s: %s", c.info.Name, last)
		}
	}
	output.Close()
	err := c.cmd.Wait()
	select {
	case <-p.stopping:
		return
	default:
	}
	how := "ended"
	if err != nil {
		how = "died: " + err.Error()
	}
	var exit *exec.ExitError
	if last != "" && errors.As(err, &exit) && exit.ExitCode() >= 0 { // it said why by itself
		how += " (its last words: " + last + ")"
	}
	p.options.Message("%s %s; the rest goes on. To bring it back with its identity:\n\n   %s\n", c.info.Name, how, shellLine(c.args))
}

// describe writes DIR/nodes.json and DIR/pids, each in one step, then lets the client open
// its port.
func (p *processes) describe() error {
	var infos []NodeInfo
	var pids strings.Builder
	for _, c := range p.children {
		infos = append(infos, c.info)
		fmt.Fprintf(&pids, "%s %d\n", c.info.Name, c.info.Pid)
	}
	data, err := json.MarshalIndent(infos, "", "  ")
	if err != nil {
		return err
	}
	if err := daemon.WriteFileAtomic(filepath.Join(p.layout.dir, NodesFile), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", NodesFile, err)
	}
	if err := daemon.WriteFileAtomic(filepath.Join(p.layout.dir, PidsFile), []byte(pids.String()), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", PidsFile, err)
	}
	for _, c := range p.children {
		if _, err := io.WriteString(c.life, daemon.GoLine); err != nil {
			return fmt.Errorf("starting %s: it ended at once", c.info.Name)
		}
	}
	return nil
}

// wait ends with an error when the client has died: the network cannot become ready then.
// Once it is, the rest goes on without whoever dies.
func (p *processes) wait(ctx context.Context) error {
	for _, c := range p.children {
		if c.info.Role == "client" {
			select {
			case <-ctx.Done():
			case <-c.done:
				if ctx.Err() == nil {
					return errors.New("the client process has ended")
				}
			}
			return nil
		}
	}
	return errors.New("there is no client process")
}

func (p *processes) stop() {
	p.stopOnce.Do(func() { close(p.stopping) })
	for _, c := range p.children {
		c.life.Close()
	}
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	for _, c := range p.children {
		select {
		case <-c.done:
		case <-deadline.C:
			for _, c := range p.children {
				_ = c.cmd.Process.Kill() // one that has ended is not affected
			}
			deadline.Reset(stopTimeout)
			<-c.done
		}
	}
	if len(p.children) > 0 {
		_ = os.Remove(filepath.Join(p.layout.dir, PidsFile))
		_ = os.Remove(filepath.Join(p.layout.dir, NodesFile))
	}
}

// shellLine writes a command so that a shell reads it back as the same words.
func shellLine(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsFunc(a, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,+@%", r))
		}) || a == "" {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words[i] = a
	}
	return strings.Join(words, " ")
}
