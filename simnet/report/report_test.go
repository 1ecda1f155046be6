package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cepa/simnet/record"
)

// row is one of a table, by the names of its columns; what is missing is empty.
type row map[string]any

// folder is a run as package record leaves it.
func folder(t *testing.T, name string, m record.Manifest, tables map[string][]row) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := record.Prepare(dir, false); err != nil {
		t.Fatal(err)
	}
	for _, s := range record.Schemas() {
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		var line []string
		for _, c := range s.Columns {
			line = append(line, c.Name)
		}
		_ = w.Write(line)
		for _, r := range tables[s.Name] {
			line = line[:0]
			for _, c := range s.Columns {
				value := ""
				if v, ok := r[c.Name]; ok {
					value = fmt.Sprint(v)
				}
				line = append(line, value)
			}
			_ = w.Write(line)
		}
		w.Flush()
		if err := os.WriteFile(filepath.Join(dir, s.Name+".csv"), b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	m.Complete = true
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// hundred is a run of 100 streams after the warm-up, whose first bytes came after 10, 20, … 1000 ms times slower.
func hundred(slower int64) map[string][]row {
	tables := make(map[string][]row)
	for i := range int64(100) {
		opened := int64(10e9) + i*1e8
		first := opened + (i+1)*1e7*slower
		tables[record.Streams] = append(tables[record.Streams], row{
			"id": i, "workload": []string{"web", "bulk"}[i%2], "opened_ns": opened, "first_ns": first, "last_ns": first + 1e9,
			"ended_ns": first + 1e9, "down_bytes": 125_000, "wanted_bytes": 125_000, "exchanges": 1, "result": "ok",
		})
		tables[record.Circuits] = append(tables[record.Circuits], row{"began_ns": opened, "open_ns": first, "ended_ns": first + 1e9, "cause": "closed"})
	}
	tables[record.Streams] = append(tables[record.Streams],
		row{"opened_ns": int64(1e9), "first_ns": int64(9e9), "last_ns": int64(9e9), "exchanges": 1, "result": "ok"}, // in the warm-up
		row{"opened_ns": int64(11e9), "exchanges": 1, "result": "error", "reason": "exit: <b>policy</b>"},
		row{"opened_ns": int64(11e9), "exchanges": 1, "result": "error", "reason": "exit: <b>policy</b>"},
		row{"opened_ns": int64(11e9), "exchanges": 1, "result": "lost"},
		row{"opened_ns": int64(11e9), "exchanges": 1, "result": "open"})
	for at := int64(1); at <= 30; at++ {
		for i := range int64(30) {
			tables[record.Relays] = append(tables[record.Relays], row{
				"time_ns": at * 1e9, "relay": fmt.Sprint("relay-", i), "role": "relay", "up": true, "weight": 1000 * (i + 1), "queued_bytes": i * 2048,
				"memory_bytes": i << 20, "budget_bytes": 64 << 20, "cells_out": 100 * (i + 1), "loop_ns": i * 1e7, "exit_in_bytes": 125_000 / 30, "exit_out_bytes": 0,
			})
			tables[record.Links] = append(tables[record.Links], row{"time_ns": at * 1e9, "from": fmt.Sprint("relay-", i), "to": "x", "queued_bytes": 1024 * i})
		}
	}
	return tables
}

func manifest(name string) record.Manifest {
	return record.Manifest{Version: "0.1.0", Commit: "unknown", Scenario: name, Crypto: "full", Seed: 7, SimulatedSeconds: 30, WarmupSeconds: 5, TraceHash: strings.Repeat("ab", 32)}
}

func text(t *testing.T, dirs ...string) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, dirs...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPageFetchesNothing: the page is one file, without scripts, and what comes from the tables is text in it.
func TestPageFetchesNothing(t *testing.T) {
	t.Parallel()
	m := manifest("<script>alert(1)</script>")
	m.Crypto, m.Violations, m.FirstViolation = "fast", 1, "bytes: <img src=x>"
	dir := folder(t, "a", m, hundred(1))
	page := text(t, dir)
	if page != text(t, dir) {
		t.Error("the same run gives two pages")
	}
	local := strings.NewReplacer(`xmlns="http://www.w3.org/2000/svg"`, "", `xmlns:xlink="http://www.w3.org/1999/xlink"`, "").Replace(page)
	if bad := regexp.MustCompile(`(?i)https?:|<script|<img|<link|<iframe|src=|href|url\(|@import`).FindString(strings.ReplaceAll(local, "src=x", "")); bad != "" {
		t.Errorf("the page has %q", bad)
	}
	if bad := regexp.MustCompile(`#0101..|#0200..|NaN|Inf|-0 `).FindString(local); bad != "" {
		t.Errorf("a figure has %q", bad)
	}
	for _, want := range []string{"default-src 'none'", "prefers-color-scheme", "width=device-width", "crypto = &#34;fast&#34;", "A checker fired.", "var(--s0)", "&lt;script&gt;"} {
		if !strings.Contains(page, want) && !strings.Contains(page, strings.ReplaceAll(want, "&#34;", `"`)) {
			t.Errorf("the page has no %q", want)
		}
	}
	if n := strings.Count(page, "<svg "); n != 10 || strings.Count(page, "</svg>") != n {
		t.Errorf("%d plots", n)
	}
}

// TestNumbersAreThoseOfTheTables: quantiles, counts and comparisons of a run that is known.
func TestNumbersAreThoseOfTheTables(t *testing.T) {
	t.Parallel()
	a, b := folder(t, "a", manifest("known"), hundred(1)), folder(t, "b", manifest("known"), hundred(3))
	var runs []*run
	for _, dir := range []string{a, b} {
		r, err := load(dir)
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, r)
	}
	nameRuns(runs)
	p, err := newPage(runs)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"Time to first byte a": {"100", "50 ms", "500 ms", "900 ms", "950 ms", "990 ms", ""},
		"Time to first byte b": {"100", "150 ms", "1.5 s", "2.7 s", "2.85 s", "2.97 s", "+200.0\u202f%"},
		"Circuit build time a": {"100", "50 ms", "500 ms", "900 ms", "950 ms", "990 ms", ""},
		"Goodput, Mbit/s a":    {"100", "1", "1", "1", "1", "1", ""},
	}
	for _, n := range p.Numbers {
		for _, r := range n.Rows {
			key := n.Title + " " + r.Name
			if w := want[key]; w != nil {
				if got := slices.Concat([]string{r.N}, r.Cells, []string{r.Change}); !slices.Equal(got, w) {
					t.Errorf("%s: %q, want %q", key, got, w)
				}
				delete(want, key)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not on the page: %v", want)
	}
	if len(p.Reasons.Rows) != 2 || p.Reasons.Rows[0].Name != "exit: <b>policy</b>" || p.Reasons.Rows[0].Cells[1].N != 2 || p.Reasons.All[0] != 103 {
		t.Errorf("reasons: %+v", p.Reasons)
	}
	r := runs[0]
	if len(r.moments) != 30 || r.moments[3].m != 58 || r.moments[3].median != 28 || r.memories[0].m != 100*29.0/64 || math.Abs(r.loops[5].m-29) > 1e-9 {
		t.Errorf("over time: %+v", r.moments[3])
	}
	if got := r.carried[4].y; math.Abs(got-1) > 0.001 {
		t.Errorf("carried %v Mbit/s, want 1", got)
	}
	if l := r.relays["relay-9"]; l.weight/l.samples != 10000 || l.sent/l.spans != 1000*2048 {
		t.Errorf("load of a relay: %+v", l)
	}
	if r.waiting[0].m != 29 {
		t.Errorf("below the relays: %+v", r.waiting[0])
	}
}

// TestEmptyRun: a run in which nothing happened has a page too.
func TestEmptyRun(t *testing.T) {
	t.Parallel()
	page := text(t, folder(t, "empty", manifest("none"), nil))
	if strings.Contains(page, "<svg ") || !strings.Contains(page, "There was none.") {
		t.Error("a run without streams has plots")
	}
}

// TestFoldersThatAreNoRuns are refused by name.
func TestFoldersThatAreNoRuns(t *testing.T) {
	t.Parallel()
	good := folder(t, "good", manifest("x"), hundred(1))
	bad := hundred(1)
	bad[record.Streams][3]["first_ns"] = "soon"
	broken := folder(t, "broken", manifest("x"), bad)
	old := folder(t, "old", manifest("x"), nil)
	if err := os.WriteFile(filepath.Join(old, "circuits.csv"), []byte("a,b\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dirs []string
		want string
	}{
		{nil, "1 to 6"}, {slices.Repeat([]string{good}, 7), "here are 7"}, {[]string{t.TempDir()}, "no finished run"},
		{[]string{good, broken}, "line 5"}, {[]string{old}, "no column began_ns"},
	} {
		if err := Write(&bytes.Buffer{}, c.dirs...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.dirs, err, c.want)
		}
	}
	path := filepath.Join(t.TempDir(), "x.html")
	if err := File(path, broken); err == nil {
		t.Error("a broken run was reported")
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("a failed report left %v", left)
	}
	if err := File(path, good); err != nil {
		t.Error(err)
	}
}

// TestLinesKeepTheirShape: what is drawn of many values begins and ends where they do, and never falls.
func TestLinesKeepTheirShape(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 100, mostPoints, 5000} {
		values := make([]float64, n)
		for i := range values {
			values[i] = float64((i * 7919) % n)
		}
		points := distribution(values)
		if len(points) > 2*mostPoints+2 || points[0].y != 0 || points[len(points)-1] != (point{float64(n - 1), 1}) {
			t.Errorf("%d values: %d points, from %v to %v", n, len(points), points[0], points[len(points)-1])
		}
		if !slices.IsSortedFunc(points, func(a, b point) int { return int(1e6 * (a.y - b.y)) }) {
			t.Errorf("%d values: the distribution falls", n)
		}
	}
	var line []point
	for i := range 10_000 {
		line = append(line, point{float64(i), float64(i % 977)})
	}
	if got := thin(line); len(got) > 2*mostPoints || slices.MaxFunc(got, func(a, b point) int { return int(a.y - b.y) }).y != 976 {
		t.Errorf("a line of 10000 points became one of %d", len(got))
	}
}

// TestTicks: they lie within the axis, are few and differ.
func TestTicks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a         axis
		low, high float64
		want      string
	}{
		{axis{label: percent}, 0, 1, "0\u202f%|20\u202f%|40\u202f%|60\u202f%|80\u202f%|100\u202f%"},
		{axis{clock: true}, 0, 600, "0 min|2 min|4 min|6 min|8 min|10 min"},
		{axis{clock: true}, 0, 86400, "0 h|4 h|8 h|12 h|16 h|20 h|24 h"},
		{axis{clock: true}, 0, 45, "0 s|10 s|20 s|30 s|40 s"},
		{axis{log: true, label: seconds}, 0.09, 2.5, "100 ms|200 ms|500 ms|1 s|2 s"},
		{axis{log: true, label: number}, 0.001, 900, "0.001|0.01|0.1|1|10|100"},
	} {
		var labels []string
		for _, x := range ticks(c.a).Ticks(c.low, c.high) {
			labels = append(labels, x.Label)
		}
		if got := strings.Join(labels, "|"); got != c.want {
			t.Errorf("from %v to %v: %s, want %s", c.low, c.high, got, c.want)
		}
	}
	for v, want := range map[float64]string{0: "0", 0.0123: "12.3 ms", 1.4: "1.4 s", 130: "2.17 min", 0.00025: "250 µs", 10000: "2.78 h", 0.9996: "1 s"} {
		if got := seconds(v); got != want {
			t.Errorf("%v s: %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{1234567: "1\u202f234\u202f567", 99.95: "100", 0.699: "0.699", -1500: "-1\u202f500", 2: "2", 14.93: "14.9"} {
		if got := number(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}
