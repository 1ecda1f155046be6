//go:build linux

package e2e

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// failLimit is how soon a stream through a lost relay must fail, and a new request succeed.
const failLimit = 5 * time.Second

// usedLimit is how soon a relay that is back must carry traffic again.
const usedLimit = 60 * time.Second

// fault is something that happens to a relay.
type fault struct {
	begin func(t *testing.T, o *overlay, n node)
	mend  func(t *testing.T, o *overlay, n node)
}

// roles are the places of a relay in a path.
var roles = [...]string{"guard", "middle", "exit"}

func TestKilledRelay(t *testing.T) {
	long(t)
	eachRole(t, newOverlay(t), fault{
		begin: func(t *testing.T, _ *overlay, n node) { kill(t, n, syscall.SIGKILL) },
		mend:  bringBack,
	})
}

func TestStoppedRelay(t *testing.T) {
	long(t)
	eachRole(t, newOverlay(t), fault{
		begin: func(t *testing.T, _ *overlay, n node) { kill(t, n, syscall.SIGSTOP) },
		mend:  func(t *testing.T, _ *overlay, n node) { kill(t, n, syscall.SIGCONT) },
	})
}

// The packets of the relay vanish: nobody is told, no connection is reset.
func TestVanishedRelay(t *testing.T) {
	long(t)
	nft := need(t, "nft")
	if !ownNetwork(t) {
		return
	}
	rules := func(t *testing.T, text string) {
		t.Helper()
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, code := finish(t, 20*time.Second, cmd); code != 0 {
			lacking(t, "nft makes no rules here: %s", out)
		}
	}
	rules(t, "table inet e2e { }\n")
	eachRole(t, newOverlay(t), fault{
		begin: func(t *testing.T, _ *overlay, n node) {
			host, _, _ := net.SplitHostPort(n.Address)
			rules(t, fmt.Sprintf("table inet e2e {\nchain lost {\ntype filter hook input priority 0;\nip saddr %s drop;\nip daddr %s drop;\n}\n}\n", host, host))
		},
		mend: func(t *testing.T, _ *overlay, n node) { rules(t, "delete chain inet e2e lost\n") },
	})
}

// kill sends a signal to a node, which may have been brought back with another pid.
func kill(t *testing.T, n node, sig syscall.Signal) {
	t.Helper()
	pid := n.Pid
	if sig != syscall.SIGCONT {
		s, err := status(n.Dir)
		if err != nil {
			t.Fatal(err)
		}
		pid = s.Pid
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// bringBack runs the command that the demo printed when the relay died.
func bringBack(t *testing.T, o *overlay, n node) {
	t.Helper()
	printed := regexp.MustCompile(`(?m)^` + n.Name + ` died: .*To bring it back with its identity:\n\n   (.*)$`)
	within(t, 5*time.Second, "the demo says that the relay died, and how to bring it back", func() bool {
		return printed.MatchString(o.output())
	})
	line := printed.FindStringSubmatch(o.output())[1]
	t.Logf("$ %s", line)
	p, err := launch(exec.Command("sh", "-c", "exec "+line))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s, brought back, said:\n%s", n.Name, p.output())
		}
	})
	o.revived = append(o.revived, p) // it lives on with the overlay
}

// A client that dies is a child like any other: the rest goes on, and the printed command
// brings it back.
func TestKilledClientComesBack(t *testing.T) {
	o := newOverlay(t)
	client := o.node(t, "client")
	within(t, 5*time.Second, "the demo says that it is ready", func() bool { return strings.Contains(o.output(), "ready: a SOCKS5") })
	kill(t, client, syscall.SIGKILL)
	within(t, 5*time.Second, "the SOCKS port is closed", func() bool {
		c, err := net.Dial("tcp", o.socks)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	bringBack(t, o, client)
	within(t, 20*time.Second, "the client serves again", func() bool {
		return hello(t, o.socks, "", 10*time.Second) == nil
	})
	if !o.running() {
		t.Errorf("the demo ended with its client: %v", o.err)
	}
	for _, n := range o.servers() {
		if _, err := status(n.Dir); err != nil {
			t.Errorf("%s ended with the client: %v", n.Name, err)
		}
	}
}

// eachRole lets the fault happen to the guard, the middle and the exit of transfers that run.
func eachRole(t *testing.T, o *overlay, f fault) {
	g := listenOrigin(t, o)
	g.serveConns(paced)
	for place, role := range roles {
		t.Run(role, func(t *testing.T) { f.strike(t, o, g, place) })
	}
}

// paced sends content at some MiB a second, and reads what comes, until the connection ends.
func paced(c *net.TCPConn) {
	go func() {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r := content(1); ; <-tick.C {
		if _, err := io.CopyN(c, r, 32<<10); err != nil {
			return
		}
	}
}

// transfer is one stream in the middle of its work.
type transfer struct {
	what  string
	bytes atomic.Int64
	ended time.Time
	err   error
	reset bool // the far end reset the connection, it did not end it
}

// run downloads, or uploads too, until the stream fails.
func (x *transfer) run(c *net.TCPConn, up bool) {
	defer c.Close()
	if up {
		go func() { // until the other goroutine closes the connection
			for r := content(2); ; time.Sleep(10 * time.Millisecond) {
				if _, err := io.CopyN(c, r, 32<<10); err != nil {
					return
				}
			}
		}()
	}
	_, err := prefix(&counted{c, &x.bytes}, 1)
	x.ended, x.err, x.reset = time.Now(), err, wasReset(c)
}

// wasReset looks at the state of a connection that has ended: the error of a reset is given
// to one system call only, and that may have been the other goroutine's.
func wasReset(c *net.TCPConn) bool {
	const tcpClose = 7 // TCP_CLOSE of the kernel; after a FIN it would be TCP_CLOSE_WAIT
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	state := 0
	err = raw.Control(func(fd uintptr) {
		state, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO) // its first byte
	})
	return err == nil && state&0xff == tcpClose
}

type counted struct {
	io.Reader
	n *atomic.Int64
}

func (r *counted) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	return n, err
}

// strike starts transfers, lets the fault happen to the relay in this place of their
// path, and looks at what follows.
func (f fault) strike(t *testing.T, o *overlay, g *origin, place int) {
	user := "transfers of " + t.Name()
	var transfers []*transfer
	var wg sync.WaitGroup
	for i := range 4 {
		c, err := dialSOCKS(o.socks, user, g.addr.String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		x := &transfer{what: fmt.Sprintf("stream %d", i)}
		transfers = append(transfers, x)
		wg.Go(func() { x.run(c, i%2 == 1) })
		defer c.Close()
	}
	path := o.path(t)
	victim := path[place]
	id, err := status(victim.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("path %s, %s, %s; it happens to %s", path[0].Name, path[1].Name, path[2].Name, victim.Name)
	for _, x := range transfers {
		if x.bytes.Load() == 0 {
			t.Fatalf("%s has not begun", x.what)
		}
	}

	start := time.Now()
	f.begin(t, o, victim)
	// New requests, made at once: in circuits of their own, and as the user of the lost one.
	for _, who := range []string{"new user of " + t.Name(), user} {
		wg.Go(func() {
			begun := time.Now()
			err := hello(t, o.socks, who, 30*time.Second)
			took := time.Since(begun)
			t.Logf("new request of the %.8s: %v after the fault, %v", who, took.Round(time.Millisecond), err)
			if err != nil || took > failLimit {
				t.Errorf("a new request of the %.8s must succeed within %v: %v after %v", who, failLimit, err, took)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(40 * time.Second):
		for _, x := range transfers {
			if x.err == nil {
				t.Errorf("%s hangs: 40 s after the fault it has not ended", x.what)
			}
		}
		t.FailNow()
	}
	for _, x := range transfers {
		took := x.ended.Sub(start)
		t.Logf("%s ended %v after the fault, with %d good bytes: %v", x.what, took.Round(time.Millisecond), x.bytes.Load(), x.err)
		switch {
		case took > failLimit:
			t.Errorf("%s ended %v after the fault, the limit is %v", x.what, took, failLimit)
		case errors.Is(x.err, io.EOF) && !x.reset:
			t.Errorf("%s ended as if it were complete", x.what)
		case !errors.Is(x.err, io.EOF) && !errors.Is(x.err, syscall.ECONNRESET):
			t.Errorf("%s: %v", x.what, x.err)
		}
	}

	f.mend(t, o, victim)
	start = time.Now()
	within(t, 15*time.Second, victim.Name+" answers again", func() bool {
		s, err := status(victim.Dir)
		if err == nil && s.ID != id.ID {
			t.Fatalf("%s came back as another: %s, was %s", victim.Name, s.ID, id.ID)
		}
		return err == nil && s.Percent == 100
	})
	t.Logf("%s is back after %v", victim.Name, time.Since(start).Round(time.Millisecond))
	was := carried(t, victim)
	for i := 0; carried(t, victim) == was; i++ {
		if time.Since(start) > usedLimit {
			t.Fatalf("%s is not used again within %v", victim.Name, usedLimit)
		}
		if err := hello(t, o.socks, fmt.Sprintf("after %s %d", t.Name(), i), 10*time.Second); err != nil {
			t.Errorf("a request %v after the relay is back: %v", time.Since(start), err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%s is used again after %v", victim.Name, time.Since(start).Round(time.Millisecond))
}

// carried counts what a relay does for circuits of three hops only.
func carried(t testing.TB, n node) int64 {
	t.Helper()
	m := counters(t, n.Dir)
	return m["relay_extends"] + m["relay_exit_connects"]
}

// path finds the guard, the middle and the exit of the transfers that run, by the cells that
// the relays move.
func (o *overlay) path(t testing.TB) [3]node {
	t.Helper()
	type share struct {
		node
		cells int64
		exit  bool
	}
	var shares []share
	within(t, 15*time.Second, "three relays carry the transfers", func() bool {
		shares = nil
		before := make(map[string]int64)
		for _, n := range o.relays() {
			before[n.Name] = counters(t, n.Dir)["cells_in"]
		}
		time.Sleep(300 * time.Millisecond)
		for _, n := range o.relays() {
			m := counters(t, n.Dir)
			shares = append(shares, share{n, m["cells_in"] - before[n.Name], m["relay_exit_streams"] > 0})
		}
		slices.SortFunc(shares, func(a, b share) int { return int(b.cells - a.cells) })
		return shares[2].cells > 100 && shares[3].cells < shares[2].cells/4
	})
	order := o.guards(t)
	var path [3]node
	var others []node
	for _, s := range shares[:3] {
		if s.exit {
			path[2] = s.node
		} else {
			others = append(others, s.node)
		}
	}
	if len(others) != 2 || path[2].Name == "" {
		t.Fatalf("the three relays that carry are not two and an exit: %+v", shares[:3])
	}
	slices.SortFunc(others, func(a, b node) int { return order[a.Name] - order[b.Name] })
	path[0], path[1] = others[0], others[1]
	return path
}

// guards tells the place of each relay in the client's list of guards, which is in order of
// preference; those that are not in it come last.
func (o *overlay) guards(t testing.TB) map[string]int {
	t.Helper()
	list, err := os.ReadFile(filepath.Join(o.node(t, "client").Dir, "guards"))
	if err != nil {
		t.Fatal(err)
	}
	places := make(map[string]int)
	for _, n := range o.relays() {
		s, err := status(n.Dir)
		if err != nil {
			t.Fatal(err)
		}
		id, err := hex.DecodeString(s.ID)
		if err != nil || len(id) == 0 {
			t.Fatalf("%s has the identity %q", n.Name, s.ID)
		}
		if places[n.Name] = bytes.Index(list, id); places[n.Name] < 0 {
			places[n.Name] = len(list)
		}
	}
	return places
}
