// Package fuzz looks for bugs by drawing scenarios: small networks with users, faults and churn, each with a
// seed, one after the other until a checker of simnet fires. What it finds it makes smaller while the same
// checker goes on firing, and gives as the text of a scenario and a seed that `cepa sim run` takes.
//
// It holds no checker and no world of its own: scenarios are those of package scenario, run as it runs them. The
// same seed of a search draws the same scenarios. Everything belongs to the goroutine that calls it.
package fuzz

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cepa/simnet"
	"cepa/simnet/scenario"
)

// Options say how to search. The zero value searches without end, from seed 0.
type Options struct {
	// Seed decides which scenarios are drawn.
	Seed uint64
	// Runs is how many scenarios are drawn at most; 0 is no bound.
	Runs int
	// Shrinks is how many runs are spent on making smaller what was found; 0 is 300, less than 0 none.
	Shrinks int
	// Config, which may be nil, changes what each world begins with, as scenario.Options.Config does.
	Config func(*simnet.Config)
	// Watch, which may be nil, gives checkers for each run beside simnet's.
	Watch func() []simnet.Checker
	// Progress, which may be nil, is told of each run before it begins.
	Progress func(Step)
}

// Step is one run of a search.
type Step struct {
	Run       int  // its number, from 1
	Shrinking bool // it is to make smaller what was found
	Seed      uint64
	Scenario  *scenario.Scenario
	// Violation is what is being made smaller; nil before something was found.
	Violation *simnet.Violation
}

// Found is a scenario in which something happens that must not.
type Found struct {
	// Text is the scenario after shrinking, and Seed that with which the violation happens.
	Text []byte
	Seed uint64
	// Violation is the first one.
	Violation simnet.Violation
	// Drawn is the scenario as it was found, with DrawnSeed.
	Drawn     []byte
	DrawnSeed uint64
	// Runs counts the scenarios drawn, Shrinks the runs for making it smaller.
	Runs, Shrinks int
}

// ErrClean says that all runs that were to be made went well.
var ErrClean = errors.New("no checker has fired")

// Fuzz searches until a checker fires. Its errors are ErrClean, ctx's when that ends before something was found, and those
// of a scenario that cannot be run, which is a bug of this package.
func Fuzz(ctx context.Context, o Options) (*Found, error) {
	x := &search{ctx: ctx, o: o}
	dice := simnet.New(simnet.Config{Seed: o.Seed}).Stream(simnet.StreamWorkload, "fuzz")
	for o.Runs == 0 || x.runs < o.Runs {
		s, seed := draw(dice), dice.Uint64()>>33 // short enough to be typed
		x.runs++
		v, err := x.run(s, seed, Step{Run: x.runs, Seed: seed})
		if err != nil {
			return nil, err
		}
		if v != nil {
			return x.found(s, seed, *v)
		}
	}
	return nil, ErrClean
}

// search is one call of Fuzz.
type search struct {
	ctx           context.Context
	o             Options
	runs, shrinks int
}

// Slices of a run between which ctx is looked at.
const slice = 10 * time.Second

// run makes one run and returns its first violation, or nil.
func (x *search) run(s *scenario.Scenario, seed uint64, step Step) (*simnet.Violation, error) {
	text, err := s.Encode()
	if err != nil {
		return nil, err
	}
	// What is run is what is written, as a reader of the file will have it.
	read, err := scenario.Parse(text, "fuzz")
	if err != nil {
		return nil, fmt.Errorf("fuzz: the scenario that was drawn is none: %w\n%s", err, text)
	}
	step.Scenario = read
	if x.o.Progress != nil {
		x.o.Progress(step)
	}
	r, err := read.Build(seed, scenario.Options{Config: x.o.Config})
	if err != nil {
		return nil, fmt.Errorf("fuzz: %w", err)
	}
	if x.o.Watch != nil {
		r.World.Watch(x.o.Watch()...)
	}
	for !r.Advance(slice) {
		if err := x.ctx.Err(); err != nil {
			return nil, err
		}
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("fuzz: seed %d: %w\n%s", seed, err, text)
	}
	if found := r.Finish(); len(found) > 0 {
		return &found[0], nil
	}
	return nil, nil
}

// found makes the report of a scenario, after shrinking it.
func (x *search) found(s *scenario.Scenario, seed uint64, v simnet.Violation) (*Found, error) {
	f := &Found{Violation: v, DrawnSeed: seed, Runs: x.runs}
	var err error
	if f.Drawn, err = s.Encode(); err != nil {
		return nil, err
	}
	s, f.Seed, f.Violation, err = x.shrink(s, seed, v)
	if err != nil {
		return nil, err
	}
	f.Shrinks = x.shrinks
	s.About = about(f)
	f.Text, err = s.Encode()
	return f, err
}

// about says in one line what a scenario shows.
func about(f *Found) string {
	what, _, _ := strings.Cut(f.Violation.What, "\n")
	if len(what) > 200 {
		what = what[:200] + "…"
	}
	return fmt.Sprintf("With seed %d, %s fires at %v, %s: %s", f.Seed, f.Violation.Checker, time.Duration(f.Violation.Time), f.Violation.Host, what)
}
