package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/simnet/lab"
	"cepa/simnet/scenario"
)

func simCommand() *cli.Command {
	return &cli.Command{
		Name:  "sim",
		Usage: "simulate networks: the daemon's own code on a virtual clock, the same to the byte from the same seed",
		Description: strings.TrimSpace(`
A scenario is a TOML file that says which machines there are, what users do and what goes wrong. The
researcher's page is docs/simulation.md.

Example:

   cepa sim run quick --seed 1 --out /tmp/sim`),
		Subcommands: []*cli.Command{
			simRunCommand(), simReproCommand(), simListCommand(), simShowCommand(), simReportCommand(), simFuzzCommand(), simCalibrateCommand(),
		},
	}
}

// findScenario reads a scenario by its file, or the name of one that comes with cepa.
func findScenario(name string) (*scenario.Scenario, error) {
	s, err := lab.Find(name)
	var unknown *lab.UnknownError
	if errors.As(err, &unknown) {
		return nil, usagef("%v%s", err, didYouMean(name, lab.Names()))
	}
	return s, err
}

func simListCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "name the scenarios that come with cepa",
		Description: strings.TrimSpace(`
Example:

   cepa sim list`),
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "a list of objects"}},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			type entry struct {
				Name     string  `json:"name"`
				About    string  `json:"about"`
				Duration float64 `json:"duration_seconds"`
				Relays   int     `json:"relays"`
				Clients  int     `json:"clients"`
				Digest   string  `json:"digest"`
			}
			var list []entry
			for _, name := range lab.Names() {
				s, err := lab.Find(name)
				if err != nil {
					return err
				}
				e := entry{Name: name, About: strings.TrimSpace(s.About), Duration: time.Duration(s.Duration).Seconds(), Digest: s.Digest()}
				for _, g := range s.Relays {
					e.Relays += g.Count
				}
				for _, g := range s.Clients {
					e.Clients += g.Count
				}
				list = append(list, e)
			}
			if c.Bool("json") {
				return printJSON(c, list)
			}
			w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tRELAYS\tCLIENTS\tTIME\tABOUT")
			for _, e := range list {
				fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", e.Name, e.Relays, e.Clients, spanText(time.Duration(e.Duration*1e9)), strings.ReplaceAll(e.About, "\n", " "))
			}
			return w.Flush()
		},
	}
}

func simShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "print a scenario that comes with cepa, to begin one of your own with",
		ArgsUsage: "NAME",
		Description: strings.TrimSpace(`
Example:

   cepa sim show quick`),
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return usagef("'cepa sim show' needs one NAME; 'cepa sim list' has them")
			}
			s, err := findScenario(c.Args().First())
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(s.Text())
			return err
		},
	}
}

// noArguments is for commands that take none.
func noArguments(c *cli.Context) error {
	if c.Args().Len() > 0 {
		return usagef("'%s' takes no argument %q", c.Command.HelpName, c.Args().First())
	}
	return nil
}

func printJSON(c *cli.Context, v any) error {
	e := json.NewEncoder(c.App.Writer)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// spanText writes a time as people do.
func spanText(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
