package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
	"cepa/simnet/calibrate"
)

func simCalibrateCommand() *cli.Command {
	return &cli.Command{
		Name:  "calibrate",
		Usage: "measure what work costs on this machine, for scenarios",
		Description: strings.TrimSpace(`
Measures this program's own code: events, cells, handshakes, links. Let the machine do nothing else
meanwhile. A scenario names the file: [cpu] file = "calibration.toml". Scenarios that name none have the
figures that come with cepa, so that their results do not depend on a machine.

Example:

   cepa sim calibrate --out /tmp/sim.toml`),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write the figures into `FILE`; they are printed if not given"},
			&cli.DurationFlag{Name: "for", Value: 20 * time.Second, Usage: "how long to measure, 1s to 60s"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if d := c.Duration("for"); d < time.Second || d > time.Minute {
				return usagef("--for is %v: want 1s to 60s", d)
			}
			ctx, stop := untilInterrupted(c)
			defer stop()
			figures, err := calibrate.Measure(ctx, c.Duration("for"), func(what string) { fmt.Fprintf(c.App.ErrWriter, "measuring %s\n", what) })
			if err != nil {
				return fmt.Errorf("sim: %w", err)
			}
			if out := c.String("out"); out != "" {
				return daemon.WriteFileAtomic(out, figures.TOML(), 0o644)
			}
			_, err = c.App.Writer.Write(figures.TOML())
			return err
		},
	}
}
