// Package lab runs scenarios as a person or a script wants them run: with a seed, into a folder that has all
// that is needed to look at the run and to run it again, with word of how far it has come, and so that it can be
// interrupted.
//
// It is a shell around packages simnet/scenario, which makes the world, and simnet/record, which writes down what
// happens: it reads the clock, files and how much memory is used, and nothing of that changes a run. Each run has one
// goroutine, the caller's; several runs may go on at the same time.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"cepa/internal/hugepages"
	"cepa/simnet"
	"cepa/simnet/record"
	"cepa/simnet/report"
	"cepa/simnet/scenario"
	"cepa/simnet/scenarios"
)

// Job is what is to be run.
type Job struct {
	Scenario *scenario.Scenario
	Seed     uint64
	Options  scenario.Options
	// Dir gets tables and a manifest; empty writes nothing. It is made if it is missing, and must be empty unless Force is
	// set: a run that is there is then replaced.
	Dir   string
	Force bool
	// Record says how tables are written; its Dir is the Job's.
	Record record.Options
	// Report makes the page of plots too.
	Report bool
	// Version, Commit and Command are what the manifest says of them.
	Version, Commit string
	Command         []string
}

// Progress is how far a run has come.
type Progress struct {
	Simulated, Total time.Duration
	Wall             time.Duration
	Events           uint64
	Memory           uint64  // bytes that the program has from the system
	Speed            float64 // simulated seconds a second, lately
}

// Left is how long the rest takes at the speed so far.
func (p Progress) Left() time.Duration {
	if p.Simulated <= 0 {
		return 0
	}
	return time.Duration(float64(p.Total-p.Simulated) / float64(p.Simulated) * float64(p.Wall))
}

// Result is a run that is over.
type Result struct {
	Manifest   record.Manifest
	Violations []simnet.Violation
	Summary    scenario.Summary
	// Interrupted is set when ctx ended the run early.
	Interrupted bool
	Progress    Progress // at the end
}

// Run runs a job, and calls tell, which may be nil, a few times a second. When ctx ends, it ends the run there
// and writes what there is. An error is of the job or of the folder: what checkers found is no error here.
func Run(ctx context.Context, job Job, tell func(Progress)) (*Result, error) {
	if job.Dir != "" {
		if err := record.Prepare(job.Dir, job.Force); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	r, err := job.Scenario.Build(job.Seed, job.Options)
	if err != nil {
		return nil, err
	}
	var rec *record.Recorder
	if job.Dir != "" {
		if rec, err = job.open(r); err != nil {
			return nil, err
		}
	}
	x := &execution{r: r, began: began, tell: tell}
	x.run(ctx, time.Duration(math.MaxInt64))
	res := &Result{Interrupted: !r.Complete() && ctx.Err() != nil}
	if err = r.Err(); err == nil {
		res.Violations = r.Finish()
	}
	res.Summary = r.Summary()
	if rec != nil {
		err = errors.Join(err, rec.Close())
		rec.Describe(&res.Manifest)
	} else {
		describe(r, &res.Manifest)
	}
	res.Progress = x.look()
	job.fill(r, &res.Manifest, x)
	if err == nil && job.Dir != "" {
		err = res.Manifest.Write(job.Dir)
	}
	if err == nil && job.Dir != "" && job.Report {
		err = report.File(filepath.Join(job.Dir, record.ReportFile), job.Dir)
	}
	return res, err
}

// open puts the scenario into the folder and begins to record.
func (j *Job) open(r *scenario.Run) (*record.Recorder, error) {
	if err := record.AddFile(j.Dir, record.ScenarioFile, j.Scenario.Text()); err != nil {
		return nil, err
	}
	for _, name := range j.Scenario.Files() {
		if err := record.AddFile(j.Dir, name, j.Scenario.File(name)); err != nil {
			return nil, err
		}
	}
	opts := j.Record
	opts.Dir = j.Dir
	return record.New(r.World, r.Network, opts)
}

// describe fills in what a Recorder would.
func describe(r *scenario.Run, m *record.Manifest) {
	w := r.World
	m.Seed, m.StreamSeeds, m.TraceHash = w.Seed(), w.StreamSeeds(), w.TraceHash()
	m.SimulatedSeconds, m.Events = time.Duration(w.Now()).Seconds(), w.Events()
	m.Relays, m.Clients = len(r.Network.Relays), len(r.Network.Clients)
	m.Violations = len(w.Violations())
	if m.Violations > 0 {
		v := w.Violations()[0]
		m.FirstViolation = fmt.Sprintf("%s: %v, %s: %s", v.Checker, time.Duration(v.Time), v.Host, v.What)
	}
}

// fill writes into a manifest what the job knows.
func (j *Job) fill(r *scenario.Run, m *record.Manifest, x *execution) {
	s := j.Scenario
	m.Version, m.Commit, m.Command = j.Version, j.Commit, j.Command
	m.Scenario, m.ScenarioDigest, m.CalibrationDigest = s.Name(), s.Digest(), s.Calibration().Digest()
	m.Crypto, m.Flow, m.Complete = r.Crypto(), r.Flow(), r.Complete()
	m.WarmupSeconds = time.Duration(s.Warmup).Seconds()
	m.Made = &record.Made{
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Processors: runtime.GOMAXPROCS(0),
		WallSeconds: math.Round(time.Since(x.began).Seconds()*1000) / 1000, PeakBytes: x.peak,
	}
}

// execution is a run under way.
type execution struct {
	r     *scenario.Run
	began time.Time
	tell  func(Progress)
	told  time.Time
	peak  uint64

	// Speed is counted from one moment of these to the next.
	at, before struct {
		wall      time.Time
		simulated time.Duration
	}
}

// How long one step takes: so that it can be interrupted, and that there is news.
const (
	shortStep = 30 * time.Millisecond
	longStep  = 150 * time.Millisecond
	tellEvery = 200 * time.Millisecond
)

// run runs until the end, a time of the simulation, or that of ctx.
func (x *execution) run(ctx context.Context, until time.Duration) {
	step := 10 * time.Millisecond
	for ctx.Err() == nil {
		left := until - time.Duration(x.r.World.Now())
		if left <= 0 {
			return
		}
		from := time.Now()
		done := x.r.Advance(min(step, left))
		switch took := time.Since(from); {
		case took < shortStep && step < time.Hour:
			step *= 2
		case took > longStep && step > time.Millisecond:
			step /= 2
		}
		if done || time.Since(x.told) >= tellEvery {
			x.told = time.Now()
			p := x.look()
			if x.tell != nil {
				x.tell(p)
			}
		}
		if done {
			return
		}
	}
}

// speedOver is over how long the speed is told.
const speedOver = 3 * time.Second

// look sees how far the run has come.
func (x *execution) look() Progress {
	now, simulated := time.Now(), time.Duration(x.r.World.Now())
	if x.at.wall.IsZero() {
		x.at.wall = x.began
		x.before = x.at
	}
	if now.Sub(x.at.wall) >= speedOver {
		x.before = x.at
		x.at.wall, x.at.simulated = now, simulated
	}
	p := Progress{
		Simulated: simulated, Total: x.r.Total(), Wall: now.Sub(x.began), Events: x.r.World.Events(), Memory: memory(),
	}
	if d := now.Sub(x.before.wall); d > 0 {
		p.Speed = float64(simulated-x.before.simulated) / float64(d)
	}
	x.peak = max(x.peak, p.Memory)
	return p
}

// memory is what the program has from the system and has not given back.
func memory() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 || s[1].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// Find reads a scenario: a file, or one that comes with cepa when name has neither a slash nor an ending.
func Find(name string) (*scenario.Scenario, error) {
	if strings.ContainsAny(name, `/\`) || filepath.Ext(name) != "" {
		return scenario.Open(os.DirFS(filepath.Dir(name)), filepath.Base(name))
	}
	s, err := scenario.Open(scenarios.Files, name+".toml")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &UnknownError{Name: name}
	}
	return s, err
}

// UnknownError says that no scenario of a name comes with cepa.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no scenario that comes with cepa is called %q; 'cepa sim list' names them, and a file of yours has a name ending in .toml", e.Name)
}

// Names are the scenarios that come with cepa, sorted.
func Names() []string {
	entries, err := scenarios.Files.ReadDir(".")
	if err != nil {
		panic(err) // they are embedded
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".toml"))
	}
	return names
}

// Tune has the program collect garbage less often than others do, as suits a simulation, which keeps most of what it makes,
// unless it has most bytes of memory already, and has the heap live on big pages where the system has them. It returns what
// undoes the former. GOGC and GOMEMLIMIT win over it.
func Tune(most int64) (undo func()) {
	hugepages.Reserve(most)
	percent, limit := 100, int64(math.MaxInt64)
	if os.Getenv("GOGC") == "" {
		percent = debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		limit = debug.SetMemoryLimit(most)
	}
	return func() {
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(percent)
		}
		if os.Getenv("GOMEMLIMIT") == "" {
			debug.SetMemoryLimit(limit)
		}
	}
}
