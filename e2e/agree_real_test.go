//go:build linux

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"cepa/daemon"
	"cepa/directory"
	"cepa/internal/netlink"
)

// requestSize is that of a request to the file server: how many bytes it wants, and no more to say.
const requestSize = 48

// serveFiles answers requests on a host of the stage.
func serveFiles(t *testing.T, wires *netlink.Network, host int, at string) {
	t.Helper()
	var ln net.Listener
	if err := wires.Do(host, func() (err error) { ln, err = net.Listen("tcp4", at); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	data := make([]byte, 64<<10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var request [requestSize]byte
				if _, err := io.ReadFull(c, request[:]); err != nil {
					return
				}
				for left := int64(binary.BigEndian.Uint64(request[:])); left > 0; {
					n, err := c.Write(data[:min(left, int64(len(data)))])
					if err != nil {
						return
					}
					left -= int64(n)
				}
			}()
		}
	}()
}

// play runs the stage with real processes once.
func (s *stage) play(t *testing.T, seed uint64) seen {
	t.Helper()
	// The thread that carries packets is not to wait for those of the users.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 + runtime.NumCPU()))
	wires, err := netlink.New(s.wires(seed))
	if errors.Is(err, netlink.ErrUnsupported) {
		lacking(t, "the machine can have no network of namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer wires.Close()
	f := s.field(t)
	server := netip.AddrPortFrom(s.address(s.index("server")), 80).String()
	serveFiles(t, wires, s.index("server"), server)
	for _, a := range f.nodes {
		s.launch(t, wires, f, a)
		defer a.end()
	}
	clients := f.parts("client")
	ready := within(t, 2*time.Minute, "all clients are ready", func() bool {
		for _, c := range clients {
			if !c.ready() {
				return false
			}
		}
		return true
	})
	time.Sleep(settling)
	var out seen
	var mu sync.Mutex
	var users sync.WaitGroup
	marks := make([]int, len(clients))
	begun := time.Now()
	for i, c := range clients {
		marks[i] = len(c.output())
		users.Go(func() {
			for n, a := range s.script(seed, i) {
				time.Sleep(a.wait)
				got, err := fetchOnce(wires, s.index(c.name), c.addr, fmt.Sprintf("%s-%d", c.name, n), server, a.size)
				mu.Lock()
				if out.Fetches = append(out.Fetches, got); err != nil {
					out.Fetches = out.Fetches[:len(out.Fetches)-1]
					out.Failed++
					t.Logf("%s: %v", c.name, err)
				}
				mu.Unlock()
			}
		})
	}
	users.Wait()
	for i, c := range clients {
		out.Builds = append(out.Builds, buildTimes(c.output()[marks[i]:])...)
	}
	late := wires.Lateness()
	out.Late = late.Sum / time.Duration(max(late.Packets, 1))
	t.Logf("real, seed %d: ready after %v, %d fetches and %d circuits in %v, %d failed; packets %d, late %v on average and %v at most, %d of them more than 1 ms",
		seed, ready.Round(time.Millisecond), len(out.Fetches), len(out.Builds), time.Since(begun).Round(time.Second), out.Failed,
		late.Packets, late.Sum/time.Duration(max(late.Packets, 1)), late.Most, late.OverMilli)
	return out
}

// field makes the settings of all nodes.
func (s *stage) field(t *testing.T) *field {
	t.Helper()
	f := &field{dir: t.TempDir()}
	f.file = filepath.Join(f.dir, "network.toml")
	network := directory.Network{
		Name: "stage", Serial: 1, Created: time.Now().UTC().Truncate(time.Millisecond), Test: true, Quorum: 1,
		Parameters: s.parameters(),
	}
	var authority *actor
	for i, h := range s.hosts {
		at := netip.AddrPortFrom(s.address(i), stagePort).String()
		switch h.part {
		case "authority":
			authority = f.add(t, h.part, h.name, at, &network)
			network.Authorities = append(network.Authorities, authority.contact())
			network.Bootstrap = append(network.Bootstrap, authority.contact())
		case "relay":
			a := f.add(t, h.part, h.name, at, &network)
			a.config.Nickname, a.config.BandwidthMiB = a.name, int(h.up>>20)
			a.config.ExitPolicy = map[bool]string{false: "none", true: "all"}[h.exit]
		case "client":
			f.nodes = append(f.nodes, &actor{name: h.name, part: h.part, dir: filepath.Join(f.dir, h.name), addr: "127.0.0.1:9850", path: filepath.Join(f.dir, h.name+".toml")})
		}
	}
	signed, err := directory.NewNetwork(network, authority.signer)
	var text []byte
	if err == nil {
		text, err = signed.AppendTOML(nil)
	}
	if err == nil {
		err = os.WriteFile(f.file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.network = signed
	return f
}

// launch starts a node in its namespace.
func (s *stage) launch(t *testing.T, wires *netlink.Network, f *field, a *actor) {
	t.Helper()
	var err error
	switch a.part {
	case "authority":
		err = daemon.AuthorityConfig{Network: f.file, Dir: a.dir, Listen: a.addr, MemoryMiB: 64}.Save(a.path)
	case "client":
		err = daemon.ClientConfig{Network: f.file, Dir: a.dir, Socks: a.addr, MemoryMiB: 64, LogLevel: "debug"}.Save(a.path)
	default:
		err = a.config.Save(a.path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := wires.Do(s.index(a.name), func() error {
		a.process, err = launch(exec.Command(cepa, a.part, "--config", a.path))
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// fetchOnce is what a user does with a client's SOCKS port.
func fetchOnce(wires *netlink.Network, host int, socks, user, server string, size int64) (fetch, error) {
	f := fetch{Size: size}
	begun := time.Now()
	var c net.Conn
	if err := wires.Do(host, func() (err error) { c, err = net.Dial("tcp4", socks); return err }); err != nil {
		return f, err
	}
	defer c.Close()
	_ = c.SetDeadline(begun.Add(stageWait))
	if err := greet(c, user, server); err != nil {
		return f, err
	}
	f.Connect = time.Since(begun)
	var request [requestSize]byte
	binary.BigEndian.PutUint64(request[:], uint64(size))
	if _, err := c.Write(request[:]); err != nil {
		return f, err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return f, err
	}
	b := make([]byte, 64<<10)
	for got := int64(0); got < size; {
		n, err := c.Read(b)
		if f.First == 0 && n > 0 {
			f.First = time.Since(begun)
		}
		if got += int64(n); got == size {
			break
		}
		if err != nil {
			return f, fmt.Errorf("after %d bytes of %d: %w", got, size, err)
		}
	}
	f.Last = time.Since(begun)
	return f, nil
}

var circuitOpen = regexp.MustCompile(`msg="a circuit is open" hops=3 took=(\S+)`)

// buildTimes reads in a client's log how long its circuits took.
func buildTimes(log string) (times []time.Duration) {
	for line := range strings.Lines(log) {
		if m := circuitOpen.FindStringSubmatch(line); m != nil {
			if d, err := time.ParseDuration(m[1]); err == nil {
				times = append(times, d)
			}
		}
	}
	return times
}
