package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/simnet/report"
)

func simReportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "make one page of plots of one run or of several",
		ArgsUsage: "DIR...",
		Description: strings.TrimSpace(fmt.Sprintf(`
Each DIR is one that 'cepa sim run --out' wrote; at most %d. Of several, the distributions are laid over each
other. The page is one file that fetches nothing.

Example:

   cepa sim run quick --seed 1 --out /tmp/sim/1
   cepa sim run quick --seed 2 --out /tmp/sim/2
   cepa sim report /tmp/sim/1 /tmp/sim/2 --out /tmp/sim/both.html`, report.MostRuns)),
		Flags: []cli.Flag{&cli.StringFlag{Name: "out", Usage: "the page's `FILE`, which is replaced"}},
		Action: func(c *cli.Context) error {
			switch n := c.Args().Len(); {
			case c.String("out") == "":
				return usagef("'cepa sim report' needs --out: the file of the page")
			case n == 0:
				return usagef("'cepa sim report' needs a DIR: one that 'cepa sim run --out' wrote")
			case n > report.MostRuns:
				return usagef("'cepa sim report' compares at most %d runs, and these are %d", report.MostRuns, n)
			}
			if err := report.File(c.String("out"), c.Args().Slice()...); err != nil {
				return fmt.Errorf("sim: %w", err)
			}
			return nil
		},
	}
}
