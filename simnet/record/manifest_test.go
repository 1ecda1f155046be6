package record_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cepa/simnet"
	"cepa/simnet/record"
)

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestPrepareKeepsWhatIsNotARuns: a folder with something in it is refused, and force removes what a run left
// there and nothing else.
func TestPrepareKeepsWhatIsNotARuns(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := record.Prepare(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := record.Prepare(dir, false); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	for _, name := range []string{"manifest.json", "streams.csv", "links.parquet", "scenario.toml", "report.html", "thesis.tex", "streams.csv.bak"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := record.Prepare(dir, false); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a folder with something in it: %v", err)
	}
	if n := len(names(t, dir)); n != 7 {
		t.Errorf("a refused folder has %d files of 7", n)
	}
	if err := record.Prepare(dir, true); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"streams.csv.bak", "thesis.tex"}) {
		t.Errorf("force left %v", got)
	}
	if err := record.Prepare(filepath.Join(dir, "thesis.tex"), true); err == nil {
		t.Error("a file was taken for a folder")
	}
}

// TestFilesOfAScenarioStayInTheFolder: no name leads out of it or onto a table.
func TestFilesOfAScenarioStayInTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, bad := range []string{"../x", "/tmp/x", "", "manifest.json", "./streams.csv", "a/../links.parquet"} {
		if err := record.AddFile(dir, bad, nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, good := range []string{record.ScenarioFile, "traces/web.csv", "latency.gml"} {
		if err := record.AddFile(dir, good, []byte(good)); err != nil {
			t.Error(err)
		}
		if got := string(read(t, filepath.Join(dir, good))); got != good {
			t.Errorf("%s has %q", good, got)
		}
	}
}

// TestManifestComesBack: what is written is read, with the names that others rely on, and nothing else stays.
func TestManifestComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := record.ReadManifest(dir); err == nil || !strings.Contains(err.Error(), "no finished run") {
		t.Errorf("no manifest: %v", err)
	}
	m := record.Manifest{
		Version: "0.1.0", Commit: "unknown", ScenarioDigest: "s", CalibrationDigest: "c", Seed: 1<<64 - 1, TraceHash: strings.Repeat("0a", 32),
		Crypto: "full", Complete: true, SimulatedSeconds: 1.5, StreamSeeds: map[string]uint64{"churn": 7}, Tables: []record.Table{{Name: "streams", Rows: 3}},
	}
	for range 2 { // the second replaces the first
		if err := m.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := record.ReadManifest(dir)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v, %v", got, err)
	}
	if list := names(t, dir); len(list) != 1 {
		t.Errorf("the folder has %v", list)
	}
	var fields map[string]any
	if err := json.Unmarshal(read(t, filepath.Join(dir, record.ManifestFile)), &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"version", "commit", "scenario_digest", "calibration_digest", "seed", "trace_hash", "crypto"} {
		if fields[name] == nil {
			t.Errorf("there is no %q", name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, record.ManifestFile), []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := record.ReadManifest(dir); err == nil {
		t.Error("half a manifest was read")
	}
}

// TestRecorderSaysWhereItCannotWrite: a folder that is not there is an error at once.
func TestRecorderSaysWhereItCannotWrite(t *testing.T) {
	t.Parallel()
	if _, err := record.New(simnet.New(simnet.Config{}), nil, record.Options{Dir: filepath.Join(t.TempDir(), "missing")}); err == nil {
		t.Error("tables in a folder that does not exist")
	}
}
