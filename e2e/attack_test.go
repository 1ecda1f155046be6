//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cepa/cert"
	"cepa/daemon"
	"cepa/directory"
	"cepa/loop"
	nodes "cepa/node"
)

// The attack suite. Every attack runs twice against real processes: first with its defence
// switched off, where it must succeed, then as cepa is, where it must fail. Attackers are
// processes of this test binary that use the project's own packages; so are victims without a
// defence. All other nodes are the program.

// partVariable names the part that a copy of this test binary plays: relay, authority or client
// without defences, or intruder. switchesVariable has the defences that are off, as JSON.
const (
	partVariable     = "CEPA_E2E_PART"
	switchesVariable = "CEPA_E2E_UNDEFENDED"
)

// play is the main function of a part: argument 1 is its settings file.
func play(part string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := errors.New("no such part")
	switch part {
	case "relay", "authority", "client":
		err = playVictim(ctx, part, os.Args[1])
	case "intruder":
		err = playIntruder(ctx, os.Args[1:])
	case "leaker":
		err = playLeaker(os.Args[1:])
	case "throng":
		err = playThrong(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", part, err)
		return 1
	}
	return 0
}

// playVictim runs a node as the program does, but with defences switched off.
func playVictim(ctx context.Context, part, path string) error {
	o := daemon.Options{
		Version: "undefended", Log: slog.New(daemon.NewLogHandler(os.Stderr, "info")),
		Progress: func(percent int, doing, _ string) { fmt.Printf("%3d %%  %s\n", percent, doing) },
	}
	if err := json.Unmarshal([]byte(os.Getenv(switchesVariable)), &o.Undefended); err != nil {
		return err
	}
	var n interface {
		Stop(context.Context)
		Done() <-chan struct{}
	}
	var err error
	switch part {
	case "client":
		var c daemon.ClientConfig
		if c, err = daemon.LoadClientConfig(path); err == nil {
			n, err = daemon.StartClient(c, o)
		}
	case "authority":
		var c daemon.AuthorityConfig
		if c, err = daemon.LoadAuthorityConfig(path); err == nil {
			n, err = daemon.StartAuthority(c, o)
		}
	default:
		var c daemon.RelayConfig
		if c, err = daemon.LoadRelayConfig(path); err == nil {
			n, err = daemon.StartRelay(c, o)
		}
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-n.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	n.Stop(last)
	return nil
}

// field is a network of real processes in which an attack takes place.
type field struct {
	dir, file string
	network   *directory.Network
	nodes     []*actor // in the order in which they were made
	off       directory.Undefended
	origin    *origin
	users     int
}

// actor is one node of a field.
type actor struct {
	*process
	name, part, dir, addr, path string
	id                          cert.Identity
	signer                      cert.Signer
	config                      daemon.RelayConfig
	orders                      io.Writer // of an intruder
	defended                    bool      // whatever the field's switches are
}

// plan says what a field is to be.
type plan struct {
	authorities int // with the rest, beside relays
	quorum      int // 0 is the usual one
	traitors    int // of the authorities the last: intruders
	relays      int // r1…, those with an even number are exits; r1 and r2 are named in the network file
	intruders   int // i1…, relays of the attacker; named in the network file if so said
	named       bool
	onlyNamed   bool // the network file names no honest relay
	parameters  directory.Parameters
	off         directory.Undefended
}

// fieldInterval is the time from one consensus to the next.
const fieldInterval = 2 * time.Second

// newField makes the keys, the network file and the settings of all nodes, and starts nothing.
func newField(t testing.TB, p plan) *field {
	t.Helper()
	f := &field{dir: t.TempDir(), off: p.off}
	f.file = filepath.Join(f.dir, "network.toml")
	network := directory.Network{
		Name: "field", Serial: 1, Created: time.Now().UTC().Truncate(time.Millisecond), Test: true,
		Parameters: directory.Parameters{
			directory.IntervalMillis: fieldInterval.Milliseconds(), directory.KeepaliveMillis: 1000, directory.MinRelays: int64(p.relays),
		},
	}
	for name, v := range p.parameters {
		network.Parameters[name] = v
	}
	var signers []cert.Signer
	for i := range p.authorities {
		part := "authority"
		if i >= p.authorities-p.traitors {
			part = "intruder"
		}
		a := f.add(t, part, fmt.Sprintf("a%d", i+1), address(t, 41+i), &network)
		network.Authorities = append(network.Authorities, a.contact())
		signers = append(signers, a.signer)
	}
	for i := range p.relays {
		a := f.add(t, "relay", fmt.Sprintf("r%d", i+1), address(t, 61+i), &network)
		a.config.Nickname, a.config.ExitPolicy = a.name, []string{"none", "all"}[i%2]
		if i < 2 && !p.onlyNamed {
			network.Bootstrap = append(network.Bootstrap, a.contact())
		}
	}
	for i := range p.intruders {
		a := f.add(t, "intruder", fmt.Sprintf("i%d", i+1), address(t, 201+i), &network)
		a.config.Nickname = a.name
		if p.named {
			network.Bootstrap = append(network.Bootstrap, a.contact())
		}
	}
	if network.Quorum = p.quorum; p.quorum == 0 {
		network.Quorum = directory.Quorum(p.authorities)
	}
	signed, err := directory.NewNetwork(network, signers...)
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

func (a *actor) contact() directory.Contact {
	return directory.Contact{Identity: a.id, Addresses: []netip.AddrPort{netip.MustParseAddrPort(a.addr)}}
}

// add makes the folder and the keys of a node. The first draws the network's id.
func (f *field) add(t testing.TB, part, name, addr string, network *directory.Network) *actor {
	t.Helper()
	a := &actor{name: name, part: part, dir: filepath.Join(f.dir, name), addr: addr, path: filepath.Join(f.dir, name, "settings.toml")}
	l, err := loop.New(loop.Options{StateDir: a.dir})
	if err != nil {
		t.Fatal(err)
	}
	go l.Run()
	var failure error
	err = l.Do(context.Background(), func() {
		e := l.Env()
		if network.ID.IsZero() {
			_, _ = e.Rand.Read(network.ID[:]) // never fails
		}
		var key cert.IdentityKey
		if key, failure = nodes.NewIdentity(e); failure == nil {
			a.signer, failure = nodes.NewSigner(e, network.ID, key)
		}
	})
	l.Stop()
	<-l.Done()
	if err = errors.Join(err, failure); err != nil {
		t.Fatal(err)
	}
	a.id = a.signer.Identity()
	a.config = daemon.RelayConfig{Network: f.file, Dir: a.dir, Listen: addr, MemoryMiB: 64}
	f.nodes = append(f.nodes, a)
	return a
}

func (f *field) node(name string) *actor {
	i := slices.IndexFunc(f.nodes, func(a *actor) bool { return a.name == name })
	return f.nodes[i]
}

// named returns the nodes whose part is one of these.
func (f *field) parts(parts ...string) []*actor {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(a *actor) bool { return !slices.Contains(parts, a.part) })
}

// start runs a node: the program, or a copy of this test without the field's defences.
func (f *field) start(t testing.TB, a *actor, args ...string) {
	t.Helper()
	var err error
	switch a.part {
	case "authority":
		err = daemon.AuthorityConfig{Network: f.file, Dir: a.dir, Listen: a.addr, MemoryMiB: 64}.Save(a.path)
	case "client":
		err = daemon.ClientConfig{Network: f.file, Dir: a.dir, Socks: a.addr, MemoryMiB: 64}.Save(a.path)
	default:
		err = a.config.Save(a.path)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cepa, a.part, "--config", a.path)
	if a.part == "intruder" || f.off != (directory.Undefended{}) && !a.defended {
		switches, err := json.Marshal(f.off)
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(os.Args[0], append([]string{a.path}, args...)...)
		cmd.Env = append(os.Environ(), partVariable+"="+a.part, switchesVariable+"="+string(switches))
	}
	if a.part == "intruder" {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin, a.orders = r, w
		t.Cleanup(func() { r.Close(); w.Close() })
	}
	if a.process, err = launch(cmd); err != nil {
		t.Fatal(err)
	}
	p := a.process
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s said:\n%s", a.name, p.tail())
		}
	})
}

// startAll runs all nodes that have been made.
func (f *field) startAll(t testing.TB) {
	t.Helper()
	for _, a := range f.nodes {
		f.start(t, a)
	}
}

// client starts a client and returns when its port is open.
func (f *field) client(t testing.TB, limit time.Duration) *actor {
	t.Helper()
	c := f.newClient(t)
	f.start(t, c)
	took := within(t, limit, "the client is ready", c.ready)
	t.Logf("the client was ready after %v", took.Round(time.Millisecond))
	within(t, 5*time.Second, "its consensus is on the disk", func() bool { return f.consensus(c) != nil })
	return c
}

func (f *field) newClient(t testing.TB) *actor {
	t.Helper()
	socks, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	f.users++
	name := fmt.Sprintf("c%d", f.users)
	c := &actor{name: name, part: "client", dir: filepath.Join(f.dir, name), addr: socks, path: filepath.Join(f.dir, name+".toml")}
	f.nodes = append(f.nodes, c)
	return c
}

func (a *actor) ready() bool { return strings.Contains(a.output(), "100 %") }

// order tells an intruder what to do, and waits until it says that it has done that.
func (a *actor) order(t testing.TB, limit time.Duration, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	done := strings.Count(a.output(), "done: "+line+"\n")
	if _, err := fmt.Fprintln(a.orders, line); err != nil {
		t.Fatalf("ordering %q: %v", line, err)
	}
	within(t, limit, a.name+" has done: "+line, func() bool {
		out := a.output() + "\n"
		if i := strings.Index(out, "failed: "+line+": "); i >= 0 {
			t.Fatalf("%s: %s", a.name, out[i:])
		}
		return strings.Count(out, "done: "+line+"\n") > done
	})
}

// consensus reads the newest consensus that a node has stored; nil if there is none.
func (f *field) consensus(a *actor) *directory.Consensus {
	for range 5 { // head and body may be of two while they are replaced
		head, err1 := os.ReadFile(filepath.Join(a.dir, "consensus.head"))
		body, err2 := os.ReadFile(filepath.Join(a.dir, "consensus.body"))
		if err1 != nil || err2 != nil {
			return nil
		}
		h, err := directory.OpenHead(head, f.network, time.Now())
		if err != nil {
			continue
		}
		if c, err := directory.OpenBody(h, body, f.network); err == nil {
			return c
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// agree waits until all honest nodes that run have a fresh consensus that is right, and returns how long
// that took. It also checks that no two of them ever differ for one valid-after.
func (f *field) agree(t testing.TB, limit time.Duration, right func(*directory.Consensus) error) time.Duration {
	t.Helper()
	seen := make(map[time.Time]cert.Digest)
	begun := time.Now()
	var state string
	for {
		state = ""
		for _, a := range f.parts("authority", "relay", "client") {
			if a.process == nil || !a.running() {
				continue
			}
			c := f.consensus(a)
			switch {
			case c == nil:
				state += a.name + ": none; "
				continue
			case c.Head.ValidAfter.Before(begun.Add(-2 * f.network.Interval())):
				state += fmt.Sprintf("%s: of %v ago; ", a.name, time.Since(c.Head.ValidAfter).Round(time.Millisecond))
			default:
				if err := right(c); err != nil {
					state += fmt.Sprintf("%s: %v; ", a.name, err)
				}
			}
			if d, known := seen[c.Head.ValidAfter]; known && d != c.Head.Digest {
				t.Fatalf("two consensuses of %v: one of %s", c.Head.ValidAfter, a.name)
			}
			seen[c.Head.ValidAfter] = c.Head.Digest
		}
		if state == "" {
			return time.Since(begun)
		}
		if time.Since(begun) > limit {
			t.Fatalf("after %v not all have the right consensus: %s", limit, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// lists is a consensus that lists exactly these.
func lists(nodes []*actor) func(*directory.Consensus) error {
	return func(c *directory.Consensus) error {
		for _, a := range nodes {
			r := c.Lookup(a.id)
			switch exit := a.config.ExitPolicy == "all"; {
			case r == nil:
				return fmt.Errorf("without %s", a.name)
			case r.Nickname != a.config.Nickname || r.Flags.Has(directory.FlagExit) != exit:
				return fmt.Errorf("%s as %s, exit %v", a.name, r.Nickname, r.Flags.Has(directory.FlagExit))
			}
		}
		if len(c.Relays) != len(nodes) {
			return fmt.Errorf("%d relays instead of %d", len(c.Relays), len(nodes))
		}
		return nil
	}
}

// lists all relays of the field, the intruders' that behave like relays included.
func (f *field) listsAll() func(*directory.Consensus) error {
	return lists(f.parts("relay", "intruder"))
}

// fetch gets a little content through a client, in a circuit of its own.
func (f *field) fetch(t testing.TB, c *actor, limit time.Duration) error {
	t.Helper()
	if f.origin == nil {
		f.origin = listenFor(t, func(bool) (pids []int) {
			for _, a := range f.parts("relay", "intruder") {
				if a.process != nil {
					pids = append(pids, a.pid())
				}
			}
			return pids
		})
		f.origin.serveConns(func(c *net.TCPConn) { _, _ = c.Write([]byte("content")) })
	}
	f.users++
	s, err := dialSOCKS(c.addr, fmt.Sprint("user-", f.users), f.origin.addr.String(), limit)
	if err != nil {
		return err
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(limit))
	if b, err := io.ReadAll(s); err != nil || string(b) != "content" {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}

// flows checks that traffic flows.
func (f *field) flows(t testing.TB, c *actor) {
	t.Helper()
	slowest := time.Duration(0)
	for range 10 {
		start := time.Now()
		if err := f.fetch(t, c, 10*time.Second); err != nil {
			t.Errorf("a request through %s: %v", c.name, err)
		}
		slowest = max(slowest, time.Since(start))
	}
	t.Logf("10 requests through %s, the slowest took %v", c.name, slowest.Round(time.Millisecond))
}

// holdsFor checks that something stays true for a while.
func holdsFor(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); time.Since(start) < d; time.Sleep(100 * time.Millisecond) {
		if !ok() {
			t.Fatalf("no longer after %v: %s", time.Since(start).Round(time.Millisecond), what)
		}
	}
}

// count reads a counter of a node, 0 while it does not answer.
func (a *actor) count(name string) int64 {
	m, err := tryCounters(a.dir)
	if err != nil {
		return 0
	}
	return m[name]
}

// bothWays runs an attack without its defence and with it.
func bothWays(t *testing.T, off directory.Undefended, attack func(t *testing.T, off directory.Undefended)) {
	if off == (directory.Undefended{}) {
		t.Fatal("no defence is switched off")
	}
	t.Run("defence off", func(t *testing.T) { attack(t, off) })
	t.Run("defence on", func(t *testing.T) { attack(t, directory.Undefended{}) })
}
