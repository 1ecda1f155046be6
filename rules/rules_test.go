package rules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "cepa"

// actors are single-threaded protocol code that runs in the daemon and in the simulator alike;
// values hold no state. Neither may touch the world but through package env.
var (
	actors = []string{"flow", "relay", "circuit", "directory", "measure", "node"}
	values = []string{"cell", "cert", "ipaddr", "limit", "nearest", "onion", "onion/cgo", "onion/ntor", "onion/standin", "env"}
	// worlds implement env without touching this one.
	worlds = []string{"simnet", "simnet/baseline", "simnet/calibration", "simnet/flowstudy", "simnet/scenario", "simnet/fuzz"}
)

// forbiddenImports would let an actor see time, randomness, threads or the machine.
var forbiddenImports = map[string]string{
	"sync":         "an actor has one thread",
	"sync/atomic":  "an actor has one thread",
	"math/rand":    "randomness comes from env.Rand",
	"math/rand/v2": "randomness comes from env.Rand",
	"crypto/rand":  "randomness comes from env.Rand",
	"os":           "files are behind env.Store",
	"os/exec":      "no processes",
	"runtime":      "no machine",
	"log":          "logs go to env.Log",
	"unsafe":       "no need",
}

// allowedImports are exceptions: what they are for cannot be seen from outside the package.
var allowedImports = map[string][]string{
	"onion/cgo":  {"unsafe"},       // addresses for the assembly kernels
	"onion/ntor": {"runtime"},      // KeepAlive, so that secrets are wiped and not optimised away
	"simnet":     {"math/rand/v2"}, // ChaCha8 from a seed
}

// forbiddenUses are functions and types of packages that are otherwise allowed.
var forbiddenUses = map[string]string{
	"time.Now": "", "time.Since": "", "time.Until": "", "time.After": "", "time.AfterFunc": "", "time.Sleep": "",
	"time.Tick": "", "time.NewTimer": "", "time.NewTicker": "",
	"net.Dial": "", "net.DialTimeout": "", "net.Listen": "", "net.Dialer": "", "net.Resolver": "", "net.DefaultResolver": "",
	"net.LookupHost": "", "net.LookupIP": "", "net.LookupAddr": "", "net.LookupCNAME": "", "net.LookupPort": "",
	"net.ResolveTCPAddr": "", "net.ResolveIPAddr": "", "net.ResolveUDPAddr": "", "net.InterfaceAddrs": "",
	"log/slog.Default": "", "log/slog.Info": "", "log/slog.Debug": "", "log/slog.Warn": "", "log/slog.Error": "",
	"crypto/ecdh.Curve.GenerateKey": "", "crypto/ed25519.GenerateKey": "", "crypto/mlkem.GenerateKey768": "",
	"maps.Keys": "in map order: wrap it in slices.Sorted", "maps.Values": "in map order: wrap it in slices.Sorted", "maps.All": "in map order",
	"sort.Slice": "equal keys come in any order: use slices.SortFunc or SortStableFunc with a total order",
}

// imports lists which of this module's packages each may import, where that is not free.
var imports = map[string][]string{
	"cell":       {},
	"ipaddr":     {},
	"cert":       {},
	"onion/cgo":  {},
	"onion/ntor": {},
	"onion":      {"onion/cgo", "onion/ntor"},
	// Stand-ins for simulations; nobody else may import them, see TestStandInsAreForSimulationsOnly.
	"onion/standin": {"onion", "onion/cgo", "onion/ntor"},
	"env":           {"cert"},
	"limit":         {"env"},
	"nearest":       {},
	"flow":          {"cell", "cert", "env", "ipaddr"},
	"directory":     {"cell", "cert", "env", "internal/plaincbor", "ipaddr", "limit", "nearest"},
	"relay":         {"cell", "cert", "directory", "env", "flow", "ipaddr", "limit", "onion", "onion/ntor"},
	"circuit":       {"cell", "cert", "directory", "env", "flow", "internal/plaincbor", "ipaddr", "onion", "onion/ntor"},
	"metrics":       {"cell"},
	"measure":       {"cert", "circuit", "directory", "env", "internal/plaincbor"},
	"socks":         {"cell", "internal/rawio"},
	"dnsport":       {"cell", "socks"},
	// Ways to a client's port; they know nothing of the network.
	"internal/rawio":       {},
	"internal/socksclient": {},
	"internal/browser":     {},
	"internal/confine":     {"internal/socksclient", "internal/tun"},
	"internal/tun":         {},
	// The simulator makes nodes as the daemon does, and has nothing of what is inside them.
	"simnet":             {"cell", "cert", "circuit", "directory", "env", "flow", "node", "onion", "onion/standin", "simnet/baseline", "simnet/parallel"},
	"simnet/baseline":    {"cell", "env", "flow"},
	"simnet/flowstudy":   {"env", "simnet", "simnet/scenario"},
	"simnet/fuzz":        {"simnet", "simnet/scenario"},
	"simnet/calibration": {"nearest", "simnet"},
	"control":            {"control/dashboard"},
	"control/dashboard":  {},
	"internal/top":       {"control"},
	"simnet/record":      {"cell", "cert", "circuit", "directory", "env", "flow", "simnet"},
	"simnet/report":      {"simnet/record"},
	"simnet/scenario":    {"cell", "directory", "env", "nearest", "simnet", "simnet/calibration"},
}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Standard                bool
}

// load lists the module's packages and the export data of all that they import, once.
var load = sync.OnceValues(func() (map[string]listed, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Standard", "./...")
	cmd.Dir = ".."
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go list: %v: %s", err, msg.String())
	}
	packages := make(map[string]listed)
	for d := json.NewDecoder(&out); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages[p.ImportPath] = p
	}
})

// check type-checks one package of the module.
func check(t *testing.T, path string) (*token.FileSet, []*ast.File, *types.Info) {
	t.Helper()
	packages, err := load()
	if err != nil {
		t.Fatal(err)
	}
	p, ok := packages[module+"/"+path]
	if !ok {
		t.Skipf("package %s does not exist", path)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	lookup := func(path string) (io.ReadCloser, error) {
		if p := packages[path]; p.Export != "" {
			return os.Open(p.Export)
		}
		return nil, fmt.Errorf("no export data of %s", path)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", lookup)}
	if _, err := config.Check(p.ImportPath, fset, files, info); err != nil {
		t.Fatal(err)
	}
	return fset, files, info
}

// TestActorsAreDeterministic protects the simulator: the same events give the same actions.
// A range over a map is allowed where its order cannot be seen; the line then carries a
// comment that begins with "order:" and says why.
func TestActorsAreDeterministic(t *testing.T) {
	t.Parallel()
	for _, path := range slices.Concat(actors, values, worlds) {
		t.Run(strings.ReplaceAll(path, "/", "."), func(t *testing.T) {
			t.Parallel()
			fset, files, info := check(t, path)
			for _, f := range files {
				for _, v := range violations(fset, f, info, allowedImports[path]...) {
					t.Error(v)
				}
			}
		})
	}
}

// TestRulesFire shows that each rule catches what it forbids.
func TestRulesFire(t *testing.T) {
	t.Parallel()
	const source = `package p
import ("time"; "sync"; "crypto/ed25519"; "net"; "maps"; "slices")
var m map[int]int
var mu sync.Mutex
func f(c chan int) {
	go f(nil)
	select {}
	c <- 1
	<-c
	_ = time.Now()
	for range m {}
	for range m {} // order: counts nothing
	for range maps.Keys(m) {}
	_ = slices.Sorted(maps.Keys(m))
	_, _, _ = ed25519.GenerateKey(nil)
	_, _ = net.LookupHost("x")
	_ = make(chan int)
	close(c)
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	packages, err := load()
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(packages[path].Export) }
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", lookup)}
	if _, err := config.Check("p", fset, []*ast.File{f}, info); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(violations(fset, f, info), "\n")
	for _, want := range []string{
		"p.go:2:17: import of sync", "p.go:5:10: channel", "p.go:6:2: go statement", "p.go:7:2: select", "p.go:8:2: channel send", "p.go:9:2: channel receive",
		"p.go:10:11: time.Now", "p.go:11:2: range over a map", "crypto/ed25519.GenerateKey", "net.LookupHost", "p.go:13:17: maps.Keys",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no violation %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "p.go:12:") || strings.Contains(got, "p.go:14:") {
		t.Errorf("a range whose order is explained was reported:\n%s", got)
	}
}

// violations of one file.
func violations(fset *token.FileSet, f *ast.File, info *types.Info, allowed ...string) (found []string) {
	report := func(n ast.Node, format string, args ...any) {
		p := fset.Position(n.Pos())
		found = append(found, fmt.Sprintf("%s:%d:%d: %s", filepath.Base(p.Filename), p.Line, p.Column, fmt.Sprintf(format, args...)))
	}
	explained := make(map[int]bool)
	sorted := make(map[ast.Node]bool) // arguments of slices.Sorted and its like
	for _, g := range f.Comments {
		for _, c := range g.List {
			if strings.HasPrefix(strings.TrimSpace(strings.TrimPrefix(c.Text, "//")), "order:") {
				line := fset.Position(c.Pos()).Line
				explained[line], explained[line+1] = true, true
			}
		}
	}
	for _, i := range f.Imports {
		if why, bad := forbiddenImports[strings.Trim(i.Path.Value, `"`)]; bad && !slices.Contains(allowed, strings.Trim(i.Path.Value, `"`)) {
			report(i, "import of %s: %s", strings.Trim(i.Path.Value, `"`), why)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n, "go statement: an actor has one thread")
		case *ast.SelectStmt:
			report(n, "select: an actor has one thread")
		case *ast.SendStmt:
			report(n, "channel send")
		case *ast.ChanType:
			report(n, "channel type")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				report(n, "channel receive")
			}
		case *ast.RangeStmt:
			if _, isMap := info.TypeOf(n.X).Underlying().(*types.Map); isMap && !explained[fset.Position(n.Pos()).Line] {
				report(n, "range over a map: sort the keys, or say in a comment \"order: …\" why the order cannot be seen")
			}
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(fn.Sel.Name, "Sorted") {
				for _, a := range n.Args {
					if call, ok := a.(*ast.CallExpr); ok {
						if keys, ok := call.Fun.(*ast.SelectorExpr); ok {
							sorted[keys.Sel] = true
						}
					}
				}
			}
		case *ast.Ident:
			if sorted[n] {
				return true
			}
			if o := info.Uses[n]; o != nil && o.Pkg() != nil {
				name := o.Pkg().Path() + "." + o.Name()
				if fn, ok := o.(*types.Func); ok && fn.Signature().Recv() != nil {
					name = strings.TrimPrefix(strings.Trim(strings.NewReplacer("(", "", ")", "", "*", "").Replace(fn.FullName()), "."), "interface ")
				}
				if why, bad := forbiddenUses[name]; bad {
					report(n, "%s: %s", name, why)
				}
			}
		}
		return true
	})
	return found
}

// TestImportsPointOneWay keeps the house in order: values know nothing of actors, relay and
// circuit nothing of each other, and env nobody but the names in cert.
func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	packages, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for path, allowed := range imports {
		p, ok := packages[module+"/"+path]
		if !ok {
			continue
		}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				to, own := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module+"/")
				if own && !slices.Contains(allowed, to) {
					t.Errorf("%s/%s imports %s; it may import only %v", path, name, to, allowed)
				}
			}
		}
	}
}

// tracked lists the files of the work tree that belong to the project.
func tracked(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "out") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() && d.Name() != ".git" {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestTextIsTheProjectsOwn finds what belongs to one machine or person and not to the project.
func TestTextIsTheProjectsOwn(t *testing.T) {
	t.Parallel()
	bad := regexp.MustCompile(`(^|[^A-Za-z0-9_.])/(wo` + `rk|fa` + `rm)/|/ro` + `ot/|\.mir` + `ror/|proxy\.gol` + `ang\.org|deb\.deb` + `ian\.org|registry\.npm` + `js\.org`)
	for _, path := range tracked(t) {
		if filepath.Base(path) == "go.sum" || strings.HasSuffix(path, ".png") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(data[:min(len(data), 8000)], 0) >= 0 {
			continue // not text
		}
		for i, line := range strings.Split(string(data), "\n") {
			if m := bad.FindString(line); m != "" {
				t.Errorf("%s:%d: %q", path, i+1, m)
			}
		}
	}
}

// TestNamesAndSizes keeps files readable and packages named for what they are.
func TestNamesAndSizes(t *testing.T) {
	t.Parallel()
	const maxLines = 700
	vague := regexp.MustCompile(`(^|/)(util|utils|common|helpers?|types|manager|misc)(/|$)`)
	for _, path := range tracked(t) {
		if !strings.HasSuffix(path, ".go") {
			continue
		}
		if vague.MatchString(filepath.ToSlash(filepath.Dir(path))) {
			t.Errorf("%s: a package is named for what it is about", path)
		}
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(data, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d", path, n, maxLines)
		}
	}
}
