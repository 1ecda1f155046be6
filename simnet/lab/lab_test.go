package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"cepa/simnet"
	"cepa/simnet/lab"
	"cepa/simnet/record"
	"cepa/simnet/scenario"
)

// tiny is over soon, and has a file, churn, a fault, and every stream of randomness that runs have.
const tiny = `about = "for tests"
duration = "30s"
warmup = "10s"
settle = "5s"
unchecked = ["leftovers"]
[network]
latency = "near.csv"
jitter = 200
[network.parameters]
interval_ms = 5000
[[relays]]
count = 4
exits = 2
quantiles = ["20 Mbit/s", "100 Mbit/s"]
[[clients]]
count = 2
start = "6s"
spread = "2s"
[[clients.load]]
kind = "web"
think = "2s"
[[churn]]
groups = ["client"]
up = "10s"
down = "1s"
`

func read(t *testing.T, text string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Open(fstest.MapFS{
		"tiny.toml": &fstest.MapFile{Data: []byte(text)}, "near.csv": &fstest.MapFile{Data: []byte(",a,b\na,5,40\nb,40,5\n")},
	}, "tiny.toml")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func run(t *testing.T, ctx context.Context, job lab.Job, tell func(lab.Progress)) *lab.Result {
	t.Helper()
	res, err := lab.Run(ctx, job, tell)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestRunIsMadeAgain: what a folder holds is enough to make the run again, to the byte. Another seed is another run, and
// so is another seed of one stream of randomness; recording changes nothing.
func TestRunIsMadeAgain(t *testing.T) {
	t.Parallel()
	s, dir, ctx := read(t, tiny), filepath.Join(t.TempDir(), "made", "if missing"), t.Context()
	job := lab.Job{Scenario: s, Seed: 3, Dir: dir, Report: true, Version: "v", Commit: "c", Command: []string{"x"}, Options: scenario.Options{Streams: map[string]uint64{"churn": 9}}}
	a := run(t, ctx, job, nil)
	m := a.Manifest
	if !m.Complete || m.Seed != 3 || m.StreamSeeds["churn"] != 9 || len(m.TraceHash) != 64 || m.ScenarioDigest != s.Digest() || m.Crypto != "full" ||
		m.Version != "v" || m.Commit != "c" || m.SimulatedSeconds != 35 || m.WarmupSeconds != 10 || m.Violations != 0 || len(m.Tables) == 0 || a.Interrupted {
		t.Errorf("%+v", m)
	}
	if a.Summary.Good < 3 || a.Summary.Ready == 0 || a.Progress.Memory == 0 || a.Progress.Events != m.Events {
		t.Errorf("%+v, %+v", a.Summary, a.Progress)
	}
	if page, err := os.ReadFile(filepath.Join(dir, record.ReportFile)); err != nil || !strings.Contains(string(page), m.TraceHash[:8]) {
		t.Error("no page of the run:", err)
	}
	if written, err := record.ReadManifest(dir); err != nil || written.TraceHash != m.TraceHash {
		t.Error(written.TraceHash, err)
	}
	again, err := lab.Reproduce(ctx, dir, "v", "c", nil)
	if err != nil || !again.Same || again.Is.Events != m.Events {
		t.Errorf("made again: %+v, %v", again, err)
	}
	if _, err := lab.Run(ctx, job, nil); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a run replaces another: %v", err)
	}
	job.Dir, job.Options.Streams = "", nil
	b := run(t, ctx, job, nil)
	job.Seed = 4
	c := run(t, ctx, job, nil)
	if b.Manifest.TraceHash == m.TraceHash || c.Manifest.TraceHash == b.Manifest.TraceHash {
		t.Error("another seed, and the same run")
	}
	job.Seed, job.Options.Streams = 3, map[string]uint64{"churn": 9}
	if d := run(t, ctx, job, nil); d.Manifest.TraceHash != m.TraceHash {
		t.Error("recording changes the run")
	}
}

// TestChangedFolderIsRefused: a scenario that is not the one of the run is not run.
func TestChangedFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	run(t, ctx, lab.Job{Scenario: read(t, tiny), Seed: 1, Dir: dir}, func(lab.Progress) { stop() })
	path := filepath.Join(dir, "near.csv")
	if err := os.WriteFile(path, []byte(",a,b\na,5,41\nb,41,5\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Reproduce(t.Context(), dir, "", "", nil); err == nil || !strings.Contains(err.Error(), "has been changed since the run") {
		t.Error(err)
	}
	if _, err := lab.Reproduce(t.Context(), t.TempDir(), "", "", nil); err == nil || !strings.Contains(err.Error(), "no finished run") {
		t.Error(err)
	}
}

// TestInterruptedRunIsKept: what there is is written and says so, and can be made again to where it was interrupted.
func TestInterruptedRunIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	res := run(t, ctx, lab.Job{Scenario: read(t, tiny), Seed: 1, Dir: dir, Report: true}, func(p lab.Progress) {
		if p.Total != 35*time.Second {
			t.Error(p)
		}
		stop()
	})
	m := res.Manifest
	if !res.Interrupted || m.Complete || m.SimulatedSeconds <= 0 || m.SimulatedSeconds >= 35 {
		t.Errorf("%+v", m)
	}
	again, err := lab.Reproduce(t.Context(), dir, "", "", nil)
	if err != nil || !again.Same || again.Is.SimulatedSeconds != m.SimulatedSeconds {
		t.Errorf("%+v, %v", again, err)
	}
}

// suspicious is a checker that finds something in any stream.
type suspicious struct{ simnet.Silent }

func (suspicious) Name() string { return "suspicious" }
func (c suspicious) OnFlowEnd(w *simnet.World, f *simnet.Flow) {
	w.Violate(c, f.Client, "a stream")
}

// TestViolationEndsTheRun: where it happens, and the run is kept.
func TestViolationEndsTheRun(t *testing.T) {
	t.Parallel()
	s := read(t, tiny)
	hashes := make(map[string]bool)
	for _, step := range []time.Duration{time.Millisecond, time.Second, time.Hour} {
		r, err := s.Build(1, scenario.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r.World.Watch(suspicious{})
		for !r.Advance(step) {
		}
		found := r.Finish()
		if len(found) != 1 || found[0].Checker != "suspicious" || r.Complete() || found[0].Time != r.World.Now() {
			t.Fatalf("%v at %v", found, r.World.Now())
		}
		hashes[r.World.TraceHash()] = true
	}
	if len(hashes) != 1 {
		t.Error("where a run ends depends on the steps in which it is made")
	}
}

// TestFind: a name is of what comes with cepa, and a path of a file.
func TestFind(t *testing.T) {
	t.Parallel()
	for _, name := range lab.Names() {
		if s, err := lab.Find(name); err != nil || s.About == "" {
			t.Error(name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "mine.toml")
	if err := os.WriteFile(path, []byte(tiny), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Find(path); err == nil || !strings.Contains(err.Error(), "near.csv") {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "near.csv"), []byte(",a\na,1\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if s, err := lab.Find(path); err != nil || s.Name() != "mine.toml" {
		t.Error(err)
	}
	if _, err := lab.Find("quikc"); err == nil || !strings.Contains(err.Error(), "cepa sim list") {
		t.Error(err)
	}
}
