package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Names of files in the folder of a run.
const (
	ManifestFile = "manifest.json"
	ScenarioFile = "scenario.toml" // as it was run; what it names lies beside it
	ReportFile   = "report.html"
)

// Manifest says what a run was. It is written last: a folder without it is of a run that did not come to
// its end. Everything but Made follows from the version, the scenario and the seed.
type Manifest struct {
	Version           string            `json:"version"` // of cepa
	Commit            string            `json:"commit"`  // or "unknown"
	Scenario          string            `json:"scenario,omitempty"`
	ScenarioDigest    string            `json:"scenario_digest"`
	CalibrationDigest string            `json:"calibration_digest"`
	Seed              uint64            `json:"seed"`
	StreamSeeds       map[string]uint64 `json:"stream_seeds,omitempty"` // of single streams of randomness
	TraceHash         string            `json:"trace_hash"`             // 64 lower-case hexadecimal digits
	Crypto            string            `json:"crypto"`                 // full, or fast: ciphers and handshakes are stand-ins
	Flow              string            `json:"flow,omitempty"`         // rule for windows: credits, which is cepa's own, or another
	// Complete is false when the run was interrupted: TraceHash is that of the part until then.
	Complete         bool        `json:"complete"`
	SimulatedSeconds float64     `json:"simulated_seconds"`
	WarmupSeconds    float64     `json:"warmup_seconds"` // at the beginning, which reports leave out
	Events           uint64      `json:"events"`
	Relays           int         `json:"relays"` // and authorities
	Clients          int         `json:"clients"`
	Streams          StreamCount `json:"streams"`
	Violations       int         `json:"violations"`
	FirstViolation   string      `json:"first_violation,omitempty"`
	Tables           []Table     `json:"tables"`
	// Command is what was run, the program's name first, if a command was.
	Command []string `json:"command,omitempty"`
	// Made is of the machine on which it ran. Nothing else depends on it.
	Made *Made `json:"made,omitempty"`
}

// StreamCount counts the streams by their results, see Stream.
type StreamCount struct {
	OK    int64 `json:"ok"`
	Error int64 `json:"error"`
	Open  int64 `json:"open"`
	Lost  int64 `json:"lost"`
}

// Table is one table of the run.
type Table struct {
	Name    string `json:"name"`
	Rows    int64  `json:"rows"`
	CSV     string `json:"csv"`
	Parquet string `json:"parquet,omitempty"`
	SHA256  string `json:"sha256"` // of the CSV file
}

// Made says on what a run was made and what it took.
type Made struct {
	Go          string  `json:"go"`
	OS          string  `json:"os"`
	Arch        string  `json:"arch"`
	Processors  int     `json:"processors"`
	WallSeconds float64 `json:"wall_seconds"`
	PeakBytes   uint64  `json:"peak_memory_bytes"`
}

// Prepare makes the folder of a run. It refuses one that has something in it, unless force is set: what an
// earlier run left there is then removed, and nothing else.
func Prepare(dir string, force bool) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.MkdirAll(dir, 0o777)
	case err != nil:
		return err
	case len(entries) == 0:
		return nil
	case !force:
		return fmt.Errorf("%s is not empty: name another folder, or say --force to replace the run in it", dir)
	}
	for _, name := range ownFiles() { // the manifest first, lest it speak for other tables
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ownFiles are the names that a run uses.
func ownFiles() []string {
	names := []string{ManifestFile, ScenarioFile, ReportFile}
	for _, s := range Schemas() {
		names = append(names, s.Name+csvSuffix, s.Name+pqSuffix)
	}
	return names
}

// AddFile puts a file of the scenario into the folder, under the name by which the scenario knows it, so that
// it can be run again from there. The name is a relative path within the folder, and no file of the run's.
func AddFile(dir, name string, data []byte) error {
	if !filepath.IsLocal(name) || name != ScenarioFile && slices.Contains(ownFiles(), filepath.Clean(name)) {
		return fmt.Errorf("%q cannot be the name of a file of a scenario", name)
	}
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o666)
}

// Write writes the manifest into the folder, whole or not at all.
func (m Manifest) Write(dir string) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, ManifestFile), append(data, '\n'))
}

// replace writes a file whole or not at all.
func replace(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ReadManifest reads that of a folder.
func ReadManifest(dir string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s holds no finished run: it has no %s", dir, ManifestFile)
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("reading %s: %w", filepath.Join(dir, ManifestFile), err)
	}
	return m, nil
}
