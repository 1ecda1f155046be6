package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// deployed reads a file of deploy/.
func deployed(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("../deploy/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// exported is what a node of all roles together shows.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	g, err := newGatherer(everything(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	all, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"up": true} // Prometheus' own
	for _, f := range all {
		names[f.GetName()] = true
	}
	return names
}

var metricName = regexp.MustCompile(`\b(?:cepa|go|process)_[a-z0-9_]+\b`)

// TestDeployUsesWhatIsExported: no panel and no alert asks for a metric that no node has, or for a label value of it
// that never occurs.
func TestDeployUsesWhatIsExported(t *testing.T) {
	t.Parallel()
	names := exported(t)
	for _, file := range []string{"grafana/cepa.json", "prometheus/cepa.rules.yml", "prometheus/cepa.rules.test.yml"} {
		used := metricName.FindAllString(deployed(t, file), -1)
		if len(used) < 10 {
			t.Errorf("%s uses %d metrics", file, len(used))
		}
		for _, name := range used {
			if !names[name] {
				t.Errorf("%s: no node exports %s", file, name)
			}
		}
	}
}

// dashboard is what of Grafana's schema the dashboard uses; fields that are not here are refused.
type dashboard struct {
	Title, UID, Description, Timezone, Refresh                 string
	Tags                                                       []string
	SchemaVersion, Version, GraphTooltip, FiscalYearStartMonth int
	Editable                                                   bool
	Time                                                       struct{ From, To string }
	Timepicker                                                 struct{}
	Links                                                      []struct{}
	Annotations                                                struct{ List []struct{} }
	Templating                                                 struct{ List []variable }
	Panels                                                     []panel
}

type variable struct {
	Name, Label, Type, Definition, Regex, AllValue string
	Query                                          any
	Datasource                                     *datasource
	Hide, Refresh, Sort                            int
	Multi, IncludeAll                              bool
	Options                                        []struct{}
	Current                                        struct{}
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Collapsed                *bool
	Panels                   []struct{}
	Datasource               *datasource
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct {
		Defaults  map[string]any
		Overrides []struct{}
	}
	Options map[string]any
	Targets []struct {
		RefID, Expr, LegendFormat, EditorMode string
		Range                                 bool
		Datasource                            datasource
	}
}

// TestDashboard: it has the form that Grafana imports; panels have ids of their own, do not overlap, and each asks the
// data source of the reader's choice about the nodes of his choice.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var d dashboard
	decoder := json.NewDecoder(strings.NewReader(deployed(t, "grafana/cepa.json")))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || d.SchemaVersion < 36 || len(d.Panels) < 12 {
		t.Errorf("%q, %q, schema %d, %d panels", d.Title, d.UID, d.SchemaVersion, len(d.Panels))
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if !slices.Equal(variables, []string{"datasource", "job", "instance"}) {
		t.Errorf("variables %q", variables)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W < 1 || p.GridPos.H < 1 {
			t.Errorf("panel %d %q at %+v", p.ID, p.Title, p.GridPos)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, ok := taken[at]; ok {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Type != "stat" && p.Type != "timeseries" || len(p.Targets) == 0 || p.FieldConfig.Defaults["unit"] == nil {
			t.Errorf("%q is a %s with %d queries", p.Title, p.Type, len(p.Targets))
		}
		for _, q := range p.Targets {
			if q.RefID == "" || q.Datasource.UID != "${datasource}" || strings.Count(q.Expr, `instance=~"$instance"`) != strings.Count(q.Expr, "{") {
				t.Errorf("%q asks %q of %q", p.Title, q.Expr, q.Datasource.UID)
			}
			if metricName.FindString(q.Expr) == "" || strings.Count(q.Expr, "(") != strings.Count(q.Expr, ")") {
				t.Errorf("%q: %q", p.Title, q.Expr)
			}
			if strings.Contains(q.Expr, "_total") != strings.Contains(q.Expr, "rate(") {
				t.Errorf("%q: %q: a rate is of a counter, and a counter is shown as a rate", p.Title, q.Expr)
			}
		}
	}
}

// TestAlerts has Prometheus' own tool check the configuration and try each alert on a node that is well and one that is
// not.
func TestAlerts(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing: install the Debian package prometheus")
	}
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "cepa.rules.test.yml"}} {
		cmd := exec.Command(tool, args...)
		cmd.Dir = "../deploy/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v: %s", args, err, out)
		}
	}
	rules, tests := deployed(t, "prometheus/cepa.rules.yml"), deployed(t, "prometheus/cepa.rules.test.yml")
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		if !strings.Contains(tests, `alertname="`+m[1]+`"`) {
			t.Errorf("no test of the alert %s", m[1])
		}
	}
}

// TestDashboardQueries has Prometheus' own tool read every query of the dashboard.
func TestDashboardQueries(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing: install the Debian package prometheus")
	}
	var d dashboard
	if err := json.Unmarshal([]byte(deployed(t, "grafana/cepa.json")), &d); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*", "$job", "cepa").Replace(q.Expr)
			rules = append(rules, rule{fmt.Sprintf("panel:%d:%s", p.ID, q.RefID), expr})
		}
	}
	// JSON is YAML.
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "check", "rules", file).CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprintf("%d rules found", len(rules))) {
		t.Errorf("%v: %s", err, out)
	}
}
