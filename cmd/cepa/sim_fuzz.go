package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
	"cepa/simnet/fuzz"
)

func simFuzzCommand() *cli.Command {
	return &cli.Command{
		Name:  "fuzz",
		Usage: "run scenarios drawn by lot until a checker fires, and make the one that it fires in small",
		Description: strings.TrimSpace(`
What it finds it writes into DIR as a scenario, and says how to run that. Exits with 1 when it found
something, with 0 when its time was over before.

Example:

   cepa sim fuzz --runs 10 --seed 7 --out /tmp/sim`),
		Flags: []cli.Flag{
			&cli.Float64Flag{Name: "minutes", Value: 10, Usage: "how long to search; making small what was found takes longer than that"},
			&cli.IntFlag{Name: "runs", Usage: "at most so many scenarios; 0 is no bound"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "decides which scenarios are drawn"},
			&cli.StringFlag{Name: "out", Value: ".", Usage: "the `DIR` for what is found, which is made if missing"},
			memoryFlag(),
		},
		Action: fuzzSim,
	}
}

func fuzzSim(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	minutes := c.Float64("minutes")
	switch {
	case !(minutes > 0 && minutes <= 100_000):
		return usagef("--minutes is %v: want more than 0 and at most 100000", minutes)
	case c.Int("runs") < 0:
		return usagef("--runs is %d: want 0 or more", c.Int("runs"))
	}
	undo, err := tune(c)
	if err != nil {
		return err
	}
	defer undo()
	dir := c.String("out")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	ctx, stop := untilInterrupted(c)
	defer stop()
	// The time is for searching: what was found is made small in any case, unless Ctrl-C ends that.
	search, cancel := context.WithCancel(ctx)
	defer cancel()
	end, runs, shrinking := time.Now().Add(time.Duration(minutes*float64(time.Minute))), 0, false
	timer := time.AfterFunc(time.Until(end), func() { cancel() })
	defer timer.Stop()
	told := time.Now()
	found, err := fuzz.Fuzz(search, fuzz.Options{Seed: c.Uint64("seed"), Runs: c.Int("runs"), Progress: func(s fuzz.Step) {
		runs = max(runs, s.Run)
		if s.Shrinking && !shrinking {
			shrinking = true
			timer.Stop()
			fmt.Fprintf(c.App.ErrWriter, "run %d: a checker has fired; making the scenario smaller\n", runs)
		}
		if time.Since(told) >= plainEvery {
			told = time.Now()
			fmt.Fprintf(c.App.ErrWriter, "run %d, seed %d\n", s.Run, s.Seed)
		}
	}})
	switch {
	case errors.Is(err, fuzz.ErrClean), errors.Is(err, context.Canceled) && ctx.Err() == nil:
		fmt.Fprintf(c.App.Writer, "no checker has fired in %d runs\n", runs)
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("sim: interrupted; no checker had fired in %d runs", runs)
	case err != nil:
		return fmt.Errorf("sim: %w", err)
	}
	path := filepath.Join(dir, fmt.Sprintf("found-%s-%d.toml", found.Violation.Checker, found.Seed))
	if err := daemon.WriteFileAtomic(path, found.Text, 0o644); err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	fmt.Fprintf(c.App.ErrWriter, "VIOLATION of %v\n", found.Violation)
	fmt.Fprintf(c.App.Writer, "found in run %d, made smaller in %d runs. To see it again:\n\n   cepa sim run %s --seed %d\n", found.Runs, found.Shrinks, path, found.Seed)
	return fmt.Errorf("sim: checker %q fired, with seed %d", found.Violation.Checker, found.Seed)
}
