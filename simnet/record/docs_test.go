package record_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"cepa/simnet/record"
)

var update = flag.Bool("update", false, "write the tables of columns into docs/simulation.md")

const (
	docs  = "../../docs/simulation.md"
	begin = "<!-- columns: written by go test ./simnet/record -run Documented -update -->\n"
	end   = "<!-- end of columns -->\n"
)

// TestColumnsAreDocumented: docs/simulation.md lists every column of every table, as the code has it.
func TestColumnsAreDocumented(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	plain := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for _, s := range record.Schemas() {
		fmt.Fprintf(&b, "\n`%s.csv`, `%s.parquet`:\n\n| column | what it is |\n| --- | --- |\n", s.Name, s.Name)
		for _, c := range s.Columns {
			if !plain.MatchString(c.Name) || c.Doc == "" {
				t.Errorf("%s: the column %q is not as others, or has no words", s.Name, c.Name)
			}
			name := "`" + c.Name + "`"
			if c.Optional {
				name += " ?"
			}
			fmt.Fprintf(&b, "| %s | %s |\n", name, c.Doc)
		}
	}
	b.WriteString("\n")
	data, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	got, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the columns, between\n%s%s", docs, begin, end)
	}
	if got == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s has other columns than the tables: run this test with -update", docs)
	}
	if err := os.WriteFile(docs, []byte(before+begin+b.String()+end+after), 0o666); err != nil {
		t.Fatal(err)
	}
}
