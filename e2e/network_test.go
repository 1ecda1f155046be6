//go:build linux

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
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
