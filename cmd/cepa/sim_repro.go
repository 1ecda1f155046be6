package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/simnet/lab"
)

func simReproCommand() *cli.Command {
	return &cli.Command{
		Name:      "repro",
		Usage:     "run again what a folder holds, and compare the two traces",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
DIR is one that 'cepa sim run --out' wrote. Nothing is written. Exits with 1 when the runs differ.

Example:

   cepa sim run quick --out /tmp/sim
   cepa sim repro /tmp/sim`),
		Flags: []cli.Flag{memoryFlag(), &cli.BoolFlag{Name: "json", Usage: "print the result as one JSON object"}},
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return usagef("'cepa sim repro' needs one DIR: one that 'cepa sim run --out' wrote")
			}
			undo, err := tune(c)
			if err != nil {
				return err
			}
			defer undo()
			ctx, stop := untilInterrupted(c)
			defer stop()
			bar := newSimProgress(c.App.ErrWriter)
			r, err := lab.Reproduce(ctx, c.Args().First(), c.App.Version, commit(), bar.tell)
			bar.end()
			if err != nil {
				return fmt.Errorf("sim: %w", err)
			}
			if r.Interrupted {
				return fmt.Errorf("sim: interrupted after %.1f s; nothing was compared", r.Is.SimulatedSeconds)
			}
			if c.Bool("json") {
				err = printJSON(c, struct {
					Same      bool   `json:"same"`
					Was       string `json:"trace_hash_was"`
					Is        string `json:"trace_hash"`
					WasCommit string `json:"commit_was"`
					IsCommit  string `json:"commit"`
				}{r.Same, r.Was.TraceHash, r.Is.TraceHash, r.Was.Commit, r.Is.Commit})
			} else if r.Same {
				fmt.Fprintf(c.App.Writer, "the same: %s, %d events, %.1f s simulated\n", r.Is.TraceHash, r.Is.Events, r.Is.SimulatedSeconds)
			}
			if err != nil || r.Same {
				return err
			}
			return fmt.Errorf("sim: the runs differ: trace %s of commit %s was %s of commit %s, and %d events were %d",
				r.Is.TraceHash, r.Is.Commit, r.Was.TraceHash, r.Was.Commit, r.Is.Events, r.Was.Events)
		},
	}
}
