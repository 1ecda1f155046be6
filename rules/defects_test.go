package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestProgramHasNoSeededBug: flow.Defect may be declared, compared and handed on as it came; only tests of the
// checkers give it a value.
func TestProgramHasNoSeededBug(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, path := range tracked(t) {
		dir := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || dir == "flow" {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok || !strings.HasPrefix(id.Name, "Defect") {
				return true
			}
			seen++
			switch {
			case !slices.Contains([]string{"node", "simnet"}, dir):
				t.Errorf("%s speaks of %s", fset.Position(id.Pos()), id.Name)
			case id.Name != "Defect" && !strings.HasSuffix(filepath.ToSlash(path), "node/check.go"):
				t.Errorf("%s: %s is set or looked at", fset.Position(id.Pos()), id.Name)
			}
			return true
		})
		// What simnet hands to nodes comes from a field that only its own tests can set.
		ast.Inspect(f, func(n ast.Node) bool {
			a, ok := n.(*ast.AssignStmt)
			if !ok {
				return true
			}
			for _, to := range a.Lhs {
				for e, ok := to.(*ast.SelectorExpr); ok; e, ok = e.X.(*ast.SelectorExpr) {
					if e.Sel.Name == "defects" || e.Sel.Name == "Defect" {
						t.Errorf("%s: a bug is seeded outside of tests", fset.Position(a.Pos()))
					}
				}
			}
			return true
		})
	}
	if seen < 8 {
		t.Errorf("defects were seen %d times: does the rule still look in the right place?", seen)
	}
}
