package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/control"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "ask a running node how it is",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Asks the node whose state is in DIR, over its control socket.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client`),
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "wait", Usage: "wait this long for the node to be ready"},
			&cli.BoolFlag{Name: "json", Usage: "status and counters as one JSON object"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return usagef("'cepa status' needs the node's DIR")
			}
			dir := c.Args().First()
			s, err := awaitStatus(c.Context, dir, c.Duration("wait"))
			if err != nil {
				return err
			}
			counters, err := control.GetCounters(c.Context, dir)
			if err != nil {
				return err
			}
			w := c.App.Writer
			if c.Bool("json") {
				enc := json.NewEncoder(w)
				enc.SetIndent("", "  ")
				return enc.Encode(struct {
					control.Status
					Counters map[string]int64 `json:"counters"`
				}{s, counters})
			}
			fmt.Fprintf(w, "%s %s of network %s, pid %d, up %d s\n", s.Role, s.Name, s.Network, s.Pid, s.Uptime)
			if s.ID != "" {
				fmt.Fprintf(w, "identity  %s\n", s.ID)
			}
			fmt.Fprintf(w, "address   %s\n%3d %%     %s\n", s.Address, s.Percent, s.Doing)
			if s.Waiting != "" {
				fmt.Fprintf(w, "waiting   %s\n", s.Waiting)
			}
			if c := s.Consensus; c != nil {
				now := time.Now()
				fmt.Fprintf(w, "consensus %s, %d relays, signed by %d\n", c.Digest[:8], c.Relays, c.Signatures)
				for _, d := range []struct {
					name string
					at   time.Time
				}{{"valid", c.ValidAfter}, {"fresh to", c.FreshUntil}, {"ends", c.ValidUntil}} {
					fmt.Fprintf(w, "  %-8s%s (%s)\n", d.name, stamp(d.at), distance(d.at, now))
				}
			}
			for _, warning := range s.Warnings {
				fmt.Fprintf(w, "WARNING   %s\n", warning)
			}
			for _, name := range slices.Sorted(maps.Keys(counters)) {
				fmt.Fprintf(w, "%-28s %d\n", name, counters[name])
			}
			return nil
		},
	}
}

// awaitStatus asks a node how it is, until it is ready or the time is over.
func awaitStatus(ctx context.Context, dir string, wait time.Duration) (control.Status, error) {
	for end := time.Now().Add(wait); ; {
		s, err := control.GetStatus(ctx, dir)
		if err == nil && s.Percent == 100 || !time.Now().Before(end) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
