package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// undefended finds what would let the program run without a defence: directory.Undefended may be
// declared, read, and handed on as it came, and nothing else. It is for the attack suite only.
func undefended(fset *token.FileSet, f *ast.File) (found []string) {
	const name = "Undefended"
	report := func(n ast.Node, what string) {
		p := fset.Position(n.Pos())
		found = append(found, fmt.Sprintf("%s:%d: %s", filepath.Base(p.Filename), p.Line, what))
	}
	is := func(e ast.Expr) bool { // a type or field of that name
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name == name
		case *ast.SelectorExpr:
			return e.Sel.Name == name
		}
		return false
	}
	within := func(e ast.Expr) bool { // that, or a switch of it
		if is(e) {
			return true
		}
		s, ok := e.(*ast.SelectorExpr)
		return ok && is(s.X)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			if n.Type != nil && is(n.Type) {
				report(n, "a value of Undefended is made")
			}
		case *ast.KeyValueExpr:
			if is(n.Key) {
				if s, ok := n.Value.(*ast.SelectorExpr); !ok || !is(s) {
					report(n, "Undefended is set to something else than what came")
				}
			}
		case *ast.AssignStmt:
			for _, to := range n.Lhs {
				if within(to) {
					report(n, "Undefended is assigned to")
				}
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND && within(n.X) {
				report(n, "the address of Undefended is taken")
			}
		case *ast.Field:
			if n.Tag != nil && len(n.Names) == 1 && n.Names[0].Name == name {
				report(n, "Undefended has a tag, so a file could set it")
			}
		}
		return true
	})
	return found
}

// TestProgramHasAllDefences: only tests switch defences off.
func TestProgramHasAllDefences(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, path := range tracked(t) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range undefended(fset, f) {
			t.Error(path, v)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Name == "Undefended" {
				seen++
				if dir := filepath.ToSlash(path); strings.Contains(dir, "/cmd/") || strings.Contains(dir, "/demo/") {
					t.Errorf("%s speaks of Undefended", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
	if seen < 10 {
		t.Errorf("Undefended was seen %d times: does the rule still look in the right place?", seen)
	}
}

// TestUndefendedRuleFires shows that the rule catches each way.
func TestUndefendedRuleFires(t *testing.T) {
	t.Parallel()
	const source = `package p
type O struct { Undefended directory.Undefended }
type T struct { Undefended directory.Undefended ` + "`toml:\"undefended\"`" + ` }
func f(o, c O) {
	_ = O{Undefended: o.Undefended}
	if o.Undefended.Replays { return }
	_ = directory.Undefended{Replays: true}
	_ = O{Undefended: all()}
	o.Undefended = all()
	o.Undefended.Replays = true
	json.Unmarshal(b, &o.Undefended)
	flag.BoolVar(&o.Undefended.Replays, "x", false, "")
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	got := undefended(fset, f)
	text := strings.Join(got, "\n")
	for _, line := range []int{3, 7, 8, 9, 10, 11, 12} {
		if !strings.Contains(text, fmt.Sprintf("p.go:%d:", line)) {
			t.Errorf("nothing was found in line %d:\n%s", line, text)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d violations, want 7:\n%s", len(got), text)
	}
}
