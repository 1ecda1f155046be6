//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is one network under comparison.
type peer struct {
	name  string
	socks string
	procs []proc
	hops  int // relays that a byte crosses
}

type proc struct {
	name  string
	pid   int
	relay bool
}

// session is everything that one run has started.
type session struct {
	dir     string
	mib     int
	rounds  int
	target  string // the server that all requests go to
	peers   []*peer
	started []*exec.Cmd
	down    []func()
	results []*result
	open    map[*peer]*stream         // of echo
	rss     map[string]map[string]int // of each peer, KiB by process
}

func (s *session) start(cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for this process, which stops them in order
	if err := cmd.Start(); err != nil {
		return err
	}
	s.started = append(s.started, cmd)
	return nil
}

func (s *session) stop() {
	for _, f := range s.down {
		f()
	}
	for i := len(s.started) - 1; i >= 0; i-- {
		c := s.started[i]
		_ = c.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(5*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait()
		timer.Stop()
	}
	s.started, s.down = nil, nil
}

// self starts this program in another role.
func (s *session) self(args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	return cmd, nil
}

func (s *session) startServer() error {
	cmd, err := s.self("serve", "127.0.0.1:0")
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.start(cmd); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	s.target = strings.TrimSpace(line)
	return err
}

// startChain starts the limit: an entry and three forwarders with TLS 1.3 in between.
func (s *session) startChain() error {
	p := &peer{name: "chain", socks: "127.0.0.1:9960", hops: 3}
	key := filepath.Join(s.dir, "chain.key")
	for _, c := range []struct{ name, role, listen, next string }{
		{"hop3", "hop", "127.0.0.33:6001", "exit"},
		{"hop2", "hop", "127.0.0.32:6001", "127.0.0.33:6001"},
		{"hop1", "hop", "127.0.0.31:6001", "127.0.0.32:6001"},
		{"client", "entry", p.socks, "127.0.0.31:6001"},
	} {
		cmd, err := s.self(c.role, c.listen, c.next, key)
		if err == nil {
			err = s.start(cmd)
		}
		if err == nil {
			err = await(c.listen)
		}
		if err != nil {
			return fmt.Errorf("starting the chain: %w", err)
		}
		p.procs = append(p.procs, proc{c.name, cmd.Process.Pid, c.role == "hop"})
	}
	s.peers = append(s.peers, p)
	return nil
}

func (s *session) startCepa(binary string, spares bool) error {
	p := &peer{name: "cepa", socks: "127.0.0.1:9850", hops: 3}
	dir := filepath.Join(s.dir, "overlay")
	cmd := exec.Command(binary, "demo", "--processes", "--dir", dir, "--socks", p.socks)
	if !spares {
		cmd.Env = append(os.Environ(), "CEPA_CLIENT_NO_SPARE_CIRCUITS=true")
	}
	if err := s.start(cmd); err != nil {
		return err
	}
	if err := await(p.socks); err != nil {
		return fmt.Errorf("starting cepa: %w", err)
	}
	if err := p.readPids(filepath.Join(dir, "pids")); err != nil {
		return err
	}
	s.peers = append(s.peers, p)
	return nil
}

// startTor starts a private network of C Tor by tor-up.sh: 3 authorities, 6 relays, a client.
func (s *session) startTor(mode string) error {
	p := &peer{name: "tor", socks: "127.0.0.1:9950", hops: 3}
	dir := filepath.Join(s.dir, "tor")
	script, err := filepath.Abs(filepath.Join("bench", "tor-up.sh"))
	if err != nil {
		return err
	}
	cmd := exec.Command("bash", script, dir)
	cmd.Env = os.Environ()
	if mode != "stock" {
		cmd.Env = append(cmd.Env, "ALL_EXTRA=ConfluxEnabled 0\nSchedulers Vanilla",
			"CONSENSUS_PARAMS=cc_cwnd_init=2000 cc_cwnd_min=2000 cc_sscap_exit=5000")
	}
	if mode == "latency" {
		cmd.Env = append(cmd.Env, "CLIENT_EXTRA=__DisablePredictedCircuits 1")
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("starting Tor: %w", err)
	}
	s.down = append(s.down, func() {
		for _, q := range p.procs {
			_ = syscall.Kill(q.pid, syscall.SIGTERM)
		}
		time.Sleep(time.Second)
		for _, q := range p.procs {
			_ = syscall.Kill(q.pid, syscall.SIGKILL)
		}
	})
	if err := p.readPids(filepath.Join(dir, "pids")); err != nil {
		return err
	}
	s.peers = append(s.peers, p)
	return nil
}

// readPids reads lines of a name and a process id.
func (p *peer) readPids(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		name, id, _ := strings.Cut(line, " ")
		pid, err := strconv.Atoi(strings.TrimSpace(id))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		p.procs = append(p.procs, proc{name, pid, !strings.HasPrefix(name, "client") && !strings.HasPrefix(name, "auth")})
	}
	return nil
}

// await waits until something listens at an address.
func await(address string) error {
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// cpu is the processor time that a process has used, in seconds; its waited-for children do not count.
func cpu(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	t := 0.0
	for _, v := range f[11:13] {
		ticks, _ := strconv.ParseFloat(v, 64)
		t += ticks / 100
	}
	return t
}

// memory notes the resident memory of all processes.
func (s *session) memory(when string) {
	if s.rss == nil {
		s.rss = map[string]map[string]int{}
	}
	for _, p := range s.peers {
		m := map[string]int{}
		for _, q := range p.procs {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", q.pid))
			for _, l := range strings.Split(string(b), "\n") {
				if rest, ok := strings.CutPrefix(l, "VmRSS:"); ok {
					m[q.name], _ = strconv.Atoi(strings.Fields(rest)[0])
				}
			}
		}
		s.rss[p.name+" "+when] = m
	}
}
