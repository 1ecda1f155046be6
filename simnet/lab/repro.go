package lab

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"cepa/simnet/record"
	"cepa/simnet/scenario"
)

// Repetition is a run that was made again from its folder.
type Repetition struct {
	Was, Is record.Manifest
	// Same says that the two runs are one: their traces have the same hash.
	Same bool
	// Interrupted is set when ctx ended the repetition early; then Same is false and says nothing.
	Interrupted bool
}

// Reproduce runs again what a folder of Run's has, to where that run ended, and compares. It writes nothing. version
// and commit are of this program, for the Repetition's manifest.
func Reproduce(ctx context.Context, dir, version, commit string, tell func(Progress)) (*Repetition, error) {
	was, err := record.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	s, err := scenario.Open(os.DirFS(dir), record.ScenarioFile)
	if err != nil {
		return nil, err
	}
	if d := s.Digest(); d != was.ScenarioDigest {
		return nil, fmt.Errorf("%s has been changed since the run: the digest of %s is %s, and the manifest says %s", dir, record.ScenarioFile, d, was.ScenarioDigest)
	}
	if d := s.Calibration().Digest(); d != was.CalibrationDigest {
		return nil, fmt.Errorf("the run had another calibration: its digest was %s, and the one of this version is %s", was.CalibrationDigest, d)
	}
	r, err := s.Build(was.Seed, scenario.Options{Streams: was.StreamSeeds, Crypto: was.Crypto, Flow: was.Flow})
	if err != nil {
		return nil, err
	}
	x := &execution{r: r, began: time.Now(), tell: tell}
	until := time.Duration(math.MaxInt64)
	if !was.Complete && was.Violations == 0 {
		until = time.Duration(math.Round(was.SimulatedSeconds * 1e9)) // it was interrupted
	}
	x.run(ctx, until)
	if err := r.Err(); err != nil {
		return nil, err
	}
	p := &Repetition{Was: was, Interrupted: ctx.Err() != nil && !r.Complete()}
	r.Finish()
	describe(r, &p.Is)
	job := Job{Scenario: s, Version: version, Commit: commit}
	job.fill(r, &p.Is, x)
	p.Is.Scenario = was.Scenario
	p.Same = !p.Interrupted && p.Is.TraceHash == was.TraceHash
	return p, nil
}
