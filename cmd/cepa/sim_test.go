package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// brief is a scenario that is over in a moment.
const brief = `about = "in a moment"
duration = "14s"
settle = "1s"
unchecked = ["leftovers"]
[network]
latency = "10ms"
[network.parameters]
interval_ms = 2000
[[relays]]
count = 3
exits = 1
[[clients]]
count = 1
start = "4s"
[[clients.load]]
kind = "web"
think = "1s"
`

func writeBrief(t *testing.T, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brief.toml")
	if err := os.WriteFile(path, []byte(brief+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSimRunAndRepro: a run leaves all that is promised in its folder, is refused a second time, and is the same again.
func TestSimRunAndRepro(t *testing.T) {
	file, dir := writeBrief(t, ""), filepath.Join(t.TempDir(), "out")
	status, stdout, stderr := words("sim", "run", file, "--seed", "5", "--stream", "workload=7", "--out", dir)
	if status != 0 || !strings.Contains(stdout, "1 of 1 were ready") {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	hash := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for _, key := range []string{"scenario_digest", "calibration_digest", "trace_hash"} {
		if s, _ := m[key].(string); !hash.MatchString(s) {
			t.Errorf("%s is %v", key, m[key])
		}
	}
	if m["seed"] != 5.0 || m["complete"] != true || m["version"] == "" || m["commit"] == "" || m["crypto"] != "full" {
		t.Errorf("%v", m)
	}
	if !strings.Contains(stdout, m["trace_hash"].(string)) {
		t.Errorf("no trace hash in %q", stdout)
	}
	for _, name := range []string{"scenario.toml", "streams.csv", "circuits.csv", "relays.csv", "links.csv", "consensus.csv", "streams.parquet", "report.html"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	status, stdout, stderr = words("sim", "repro", dir)
	if status != 0 || !strings.Contains(stdout, "the same: "+m["trace_hash"].(string)) {
		t.Errorf("repro: status %d, %q, %q", status, stdout, stderr)
	}
	status, _, stderr = words("sim", "run", file, "--out", dir)
	if status != exitFailure || !strings.Contains(stderr, "--force") {
		t.Errorf("a second time: status %d, %q", status, stderr)
	}
	status, stdout, stderr = words("sim", "run", file, "--out", dir, "--force", "--json", "--csv", "--crypto", "fast", "--memory", "2048")
	var result jsonResult
	if err := json.Unmarshal([]byte(stdout), &result); status != 0 || err != nil {
		t.Fatalf("status %d, %v, %q, %q", status, err, stdout, stderr)
	}
	if r := result.Manifest; r.TraceHash == m["trace_hash"] || r.Crypto != "fast" || result.Users.Ready != 1 || result.Interrupted || result.Violations == nil {
		t.Errorf("%+v", result)
	}
	if _, err := os.Stat(filepath.Join(dir, "streams.parquet")); err == nil {
		t.Error("--csv leaves Parquet")
	}
	page := filepath.Join(t.TempDir(), "page.html")
	if status, _, stderr = words("sim", "report", dir, "--out", page); status != 0 {
		t.Errorf("report: status %d, %q", status, stderr)
	}
	// A trace that is not the run's is told.
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(strings.Replace(readFile(t, filepath.Join(dir, "manifest.json")), result.Manifest.TraceHash, strings.Repeat("0", 64), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, stdout, stderr = words("sim", "repro", "--json", dir); status != exitFailure || !strings.Contains(stderr, "the runs differ") || !strings.Contains(stdout, `"same": false`) {
		t.Errorf("repro of another: status %d, %q, %q", status, stdout, stderr)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestSimViolation: what a checker finds is told with the seed, the time, the machine and the last events, and the exit
// status is not 0; the folder has what there was.
func TestSimViolation(t *testing.T) {
	file := writeBrief(t, "[[fault]]\nkind = \"partition\"\nat = \"5s\"\nfor = \"1ms\"\nnodes = [\"client-1\"]\n")
	text := strings.Replace(readFile(t, file), "duration", "liveness = \"1s\"\nduration", 1)
	// The only server is so far away that no application waits for it, when all should work.
	text = strings.Replace(text, "think = \"1s\"\n", "think = \"1s\"\npatience = \"2s\"\nhost = \"gone.example\"\nport = 81\n", 1) + "[[servers]]\nhost = \"gone.example\"\nports = [81]\nmile = \"10s\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	status, stdout, stderr := words("sim", "run", file, "--seed", "6", "--out", dir)
	if status != exitFailure {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	for _, want := range []string{"VIOLATION of liveness", "seed 6", "client-1", "last events", `checker "liveness" found`} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in %q", want, stderr)
		}
	}
	m := readFile(t, filepath.Join(dir, "manifest.json"))
	if !strings.Contains(m, `"complete": false`) || !strings.Contains(m, `"first_violation": "liveness`) {
		t.Error(m)
	}
	if status, stdout, stderr := words("sim", "repro", dir); status != 0 || !strings.Contains(stdout, "the same") {
		t.Errorf("repro: status %d, %q, %q", status, stdout, stderr)
	}
}

// TestSimLists what comes with cepa.
func TestSimLists(t *testing.T) {
	status, stdout, _ := words("sim", "list")
	if status != 0 || !strings.Contains(stdout, "quick") || !strings.Contains(stdout, "tor-like-1000") {
		t.Errorf("status %d, %q", status, stdout)
	}
	status, stdout, _ = words("sim", "list", "--json")
	var list []struct {
		Name, About, Digest string
		Relays, Clients     int
		Duration            float64 `json:"duration_seconds"`
	}
	if err := json.Unmarshal([]byte(stdout), &list); status != 0 || err != nil || len(list) < 10 {
		t.Fatalf("status %d, %v, %q", status, err, stdout)
	}
	for _, s := range list {
		if s.About == "" || s.Relays == 0 || s.Duration == 0 || len(s.Digest) != 64 {
			t.Errorf("%+v", s)
		}
	}
	status, stdout, _ = words("sim", "show", "quick")
	if status != 0 || !strings.Contains(stdout, "[[relays]]") {
		t.Errorf("status %d, %q", status, stdout)
	}
}

// TestSimCalibrate: a scenario takes the file that it writes.
func TestSimCalibrate(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures")
	}
	file := writeBrief(t, "[cpu]\nfile = \"mine.toml\"\n")
	status, _, stderr := words("sim", "calibrate", "--for", "1s", "--out", filepath.Join(filepath.Dir(file), "mine.toml"))
	if status != 0 || !strings.Contains(stderr, "measuring") {
		t.Fatalf("status %d, %q", status, stderr)
	}
	dir := filepath.Join(t.TempDir(), "out")
	if status, _, stderr := words("sim", "run", file, "--out", dir); status != 0 {
		t.Fatalf("status %d, %q", status, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine.toml")); err != nil {
		t.Error(err)
	}
	if status, stdout, stderr := words("sim", "repro", dir); status != 0 {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

// TestSimFuzz ends when its time is over.
func TestSimFuzz(t *testing.T) {
	status, stdout, stderr := words("sim", "fuzz", "--minutes", "0.001", "--out", t.TempDir())
	if status != 0 || !strings.Contains(stdout, "no checker has fired") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}
