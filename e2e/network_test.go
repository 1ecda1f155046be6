//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// founded is a network that `cepa network new` made, with nodes that know only its file.
type founded struct {
	dir, file string
	relays    map[string]*standalone
}

// standalone is a node that was started by its own command.
type standalone struct {
	*process
	dir, addr string
}

// foundNetwork makes a test network in dir and starts its authority's relay.
func foundNetwork(t testing.TB, dir, authority string, args ...string) *founded {
	t.Helper()
	f := &founded{dir: dir, file: filepath.Join(dir, "network.toml"), relays: map[string]*standalone{}}
	args = append([]string{"network", "new", "--test", "--dir", dir, "--authority", authority}, args...)
	if out, err := exec.Command(cepa, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	f.relay(t, "authority", authority)
	return f
}

// relay starts a relay with its state in a folder of that name.
func (f *founded) relay(t testing.TB, name, addr string, args ...string) *standalone {
	t.Helper()
	s := &standalone{dir: filepath.Join(f.dir, name), addr: addr}
	s.process = f.start(t, append([]string{"relay", "--network", f.file, "--dir", s.dir, "--listen", addr, "--nickname", name}, args...)...)
	f.relays[name] = s
	return s
}

// start runs a node until the test ends.
func (f *founded) start(t testing.TB, args ...string) *process {
	t.Helper()
	p, err := launch(exec.Command(cepa, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%q said:\n%s", args, p.tail())
		}
	})
	return p
}

// A node ends soon after it was asked to, at whatever moment of its start that is.
func TestNodesEndWheneverTheyAreAsked(t *testing.T) {
	long(t)
	rounds := 10
	if all {
		rounds = 40
	}
	slowest := time.Duration(0)
	for round := range rounds {
		f := foundNetwork(t, filepath.Join(t.TempDir(), "n"), address(t, 41))
		nodes := []*process{f.relays["authority"].process}
		for i := range 3 {
			nodes = append(nodes, f.relay(t, fmt.Sprint("r", i), address(t, 42+i), "--exit-policy", "all").process)
		}
		socks, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, f.start(t, "client", "--network", f.file, "--dir", filepath.Join(f.dir, "client"), "--socks", socks))
		time.Sleep(time.Duration(rand.Int64N(int64(800 * time.Millisecond))))
		for i := range nodes { // the last first: an authority is the last to go
			n := nodes[len(nodes)-1-i]
			n.signal(syscall.SIGTERM)
			start := time.Now()
			select {
			case <-n.done:
			case <-time.After(10 * time.Second):
				n.signal(syscall.SIGQUIT) // it says where its goroutines are
				<-n.done
				t.Fatalf("round %d: %q did not end 10 s after SIGTERM:\n%s", round, n.cmd.Args, n.output())
			}
			took := time.Since(start)
			if slowest = max(slowest, took); took > stopLimit {
				t.Errorf("round %d: %q ended %v after SIGTERM", round, n.cmd.Args, took)
			}
		}
	}
	t.Logf("the slowest node of %d networks ended %v after SIGTERM", rounds, slowest.Round(time.Millisecond))
}
