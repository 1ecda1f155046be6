package rules

import (
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// used lists the functions of this module's other packages that a package uses, and the fields and methods by their names.
func used(t *testing.T, path string) (functions, selected map[string]bool) {
	t.Helper()
	_, _, info := check(t, path)
	functions, selected = make(map[string]bool), make(map[string]bool)
	for _, o := range info.Uses {
		if o.Pkg() == nil {
			continue
		}
		from, own := strings.CutPrefix(o.Pkg().Path(), module+"/")
		if !own || from == path {
			continue
		}
		name := from + "." + o.Name()
		if o.Parent() != o.Pkg().Scope() {
			selected[name] = true
		} else if _, ok := o.(*types.Func); ok {
			functions[name] = true
		}
	}
	return functions, selected
}

// simulatorCalls are the functions of the protocol that the simulator calls: what makes nodes, networks and their keys,
// and what a user of theirs would call. It decodes, verifies, encrypts and decides nothing itself.
var simulatorCalls = []string{
	"node.NewRelay", "node.NewClient", "node.LoadKeys", "node.NewIdentity", "node.NewSigner",
	"node.LinkKeyDue", // of when a shell takes a new link key, as the daemon does
	"directory.NewNetwork", "directory.ParsePolicy",
	"directory.OpenRumour", // its gossip, in memberlist's place, reads rumours as package directory/gossip does
	"cell.ParseAddress",    // of a user's destination
	"env.Ahead",            // what a kernel takes of a link, which the daemon sets by it
	"cert.MemoKey",
	"simnet/parallel.New", "simnet/parallel.NewMemo",
	"simnet/baseline.Known", "simnet/baseline.Names", "simnet/baseline.Rules", "simnet/baseline.Unbounded",
}

// actorConstructors make the parts of a node. Package node puts them together, for the daemon and for the simulator.
var actorConstructors = []string{
	"relay.New", "circuit.New", "circuit.NewDirectory", "circuit.NewTransfers", "measure.New", "flow.NewLinks", "flow.NewMux",
	"directory.NewFollower", "directory.NewAgent", "directory.NewAuthority", "directory.NewSpeedTests",
}

// TestSimulatorHoldsNoProtocol: what a simulated network does is what the daemon's code does.
func TestSimulatorHoldsNoProtocol(t *testing.T) {
	t.Parallel()
	functions, _ := used(t, "simnet")
	for name := range functions { // order: each is judged by itself
		if !slices.Contains(simulatorCalls, name) {
			t.Errorf("simnet calls %s: protocol belongs to the nodes; simulatorCalls lists what it may call", name)
		}
	}
	for _, name := range simulatorCalls {
		if !functions[name] {
			t.Errorf("simnet does not call %s any more: take it off the list", name)
		}
	}
}

// TestDaemonAndSimulatorMakeNodesAlike: by the constructors of package node, which alone makes their parts.
func TestDaemonAndSimulatorMakeNodesAlike(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"daemon", "simnet", "node"} {
		functions, selected := used(t, path)
		for _, name := range []string{"node.NewRelay", "node.NewClient"} {
			if path != "node" && !functions[name] {
				t.Errorf("%s makes no node by %s", path, name)
			}
		}
		for _, name := range actorConstructors {
			if path != "node" && functions[name] {
				t.Errorf("%s calls %s itself, and not by package node", path, name)
			}
		}
		if path == "node" {
			for _, name := range actorConstructors {
				if !functions[name] && name != "flow.NewMux" {
					t.Errorf("package node makes no part by %s: the rule guards nothing", name)
				}
			}
		}
		if selected["node.Crypto"] != (path == "simnet") && path != "node" {
			t.Errorf("%s sets node.Crypto: %v; the cryptography of a daemon is not to be replaced", path, selected["node.Crypto"])
		}
		if selected["node.Flow"] != (path == "simnet") && path != "node" {
			t.Errorf("%s sets node.Flow: %v; the windows of a daemon follow the protocol's rules", path, selected["node.Flow"])
		}
	}
}

// TestStandInsAreForSimulationsOnly: no program but a simulation has them, and no package but the simulator goroutines of
// its own beside the world.
func TestStandInsAreForSimulationsOnly(t *testing.T) {
	t.Parallel()
	packages, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"onion/standin", "simnet/parallel", "simnet/baseline"} {
		var by []string
		for _, p := range packages { // order: sorted below
			path, own := strings.CutPrefix(p.ImportPath, module+"/")
			if !own {
				continue
			}
			for _, name := range p.GoFiles {
				f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ImportsOnly)
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range f.Imports {
					if i.Path.Value == `"`+module+"/"+secret+`"` {
						by = append(by, path)
					}
				}
			}
		}
		slices.Sort(by)
		if by = slices.Compact(by); !slices.Equal(by, []string{"simnet"}) {
			t.Errorf("%s is imported by %v, want simnet alone", secret, by)
		}
	}
}
