package socks

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Names of packages net and go-socks5 that resolve, or dial, or lead there. TestMain shows that nothing resolves while
// the tests run; this shows that there is nothing that could.
func reachesOut(pkg, name string) bool {
	switch pkg {
	case "net":
		for _, prefix := range []string{"Lookup", "Resolve", "Dial", "DefaultResolver", "ListenPacket", "ListenUDP", "ListenIP"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
	case "socks5":
		return name == "DNSResolver"
	case "http": // but for reading a request, and words
		return name != "ReadRequest" && name != "Request" && !strings.HasPrefix(name, "Status") && !strings.HasPrefix(name, "Method")
	case "syscall", "unix", "exec", "tls", "rpc", "smtp":
		return true
	}
	return false
}

// uses lists the references in a Go file that reach out. Only selectors count: a dot import is reported as such.
func uses(t *testing.T, path string, source any) (found []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{} // of an import in this file, to the last element of its path
	for _, i := range file.Imports {
		whole := strings.Trim(i.Path.Value, `"`)
		last := whole[strings.LastIndexByte(whole, '/')+1:]
		last = strings.TrimPrefix(last, "go-")
		name := last
		if i.Name != nil {
			name = i.Name.Name
		}
		if name == "." {
			found = append(found, "import . "+whole)
		}
		names[name] = last
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && reachesOut(names[x.Name], s.Sel.Name) {
				found = append(found, names[x.Name]+"."+s.Sel.Name)
			}
		}
		return true
	})
	return found
}

// The package has no path to a resolver or to the network but the listener that it is given.
func TestNothingHereCanResolveOrDial(t *testing.T) {
	t.Parallel()
	bad := `package x
import ( "net"; n "net"; "net/http"; socks5 "github.com/armon/go-socks5"; . "os/exec" )
func f() { net.LookupHost("a"); _ = n.Dialer{}; net.ResolveTCPAddr("tcp", "a:1"); _ = socks5.DNSResolver{}; _ = net.IPv4zero; http.Get("a"); http.StatusText(1); _ = http.Client{} }`
	want := []string{"import . os/exec", "net.LookupHost", "net.Dialer", "net.ResolveTCPAddr", "socks5.DNSResolver", "http.Get", "http.Client"}
	if got := uses(t, "bad.go", bad); !slices.Equal(got, want) {
		t.Fatalf("the check finds %v where it should find %v", got, want)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		if got := uses(t, f, nil); len(got) != 0 {
			t.Errorf("%s uses %v", f, got)
		}
	}
}

// The library reaches out in two places, its default resolver and its default dialer, and both are replaced. A version
// that reaches out elsewhere must be read before it is used.
func TestLibraryReachesOutOnlyWhereItIsReplaced(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}\n{{range .GoFiles}}{{.}}\n{{end}}", "github.com/armon/go-socks5").Output()
	if err != nil {
		t.Skipf("no go command to find the library with: %v", err)
	}
	lines := strings.Fields(string(out))
	var got []string
	for _, name := range lines[1:] {
		path := filepath.Join(lines[0], name)
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, use := range uses(t, path, source) {
			got = append(got, name+": "+use)
		}
	}
	if want := []string{"request.go: net.Dial", "resolver.go: net.ResolveIPAddr"}; !slices.Equal(got, want) {
		t.Errorf("the library reaches out by %v, want %v", got, want)
	}
}
