package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/control"
	"cepa/internal/top"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "ask a running node how it is",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Asks the node whose state is in DIR, over its control socket. Says what works, what does not,
and what to do about it.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client`),
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "wait", Usage: "wait this long for the node to be ready"},
			&cli.BoolFlag{Name: "counters", Usage: "print all counters too"},
			&cli.BoolFlag{Name: "json", Usage: "status and counters as one JSON object"},
		},
		Action: onNode(func(c *cli.Context, node *control.Client) error {
			s, err := awaitStatus(c.Context, node, c.Duration("wait"))
			if err != nil {
				return err
			}
			counters, err := node.Counters(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c, struct {
					control.Status
					Counters map[string]int64 `json:"counters"`
				}{s, counters})
			}
			p := page{Status: s, Counters: counters, Now: time.Now()}
			if err := p.fill(c.Context, node); err != nil {
				return err
			}
			p.print(c.App.Writer)
			if c.Bool("counters") {
				fmt.Fprintln(c.App.Writer)
				for _, name := range slices.Sorted(maps.Keys(counters)) {
					fmt.Fprintf(c.App.Writer, "%-28s %d\n", name, counters[name])
				}
			}
			return nil
		}),
	}
}

// onNode is the action of a command that asks a node, which its one argument names.
func onNode(ask func(*cli.Context, *control.Client) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		dir, err := nodeDir(c)
		if err != nil {
			return err
		}
		node := control.NewClient(dir)
		defer node.Close()
		return nodeError(ask(c, node))
	}
}

// nodeDir is the one argument of commands that ask a node.
func nodeDir(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 {
		return "", usagef("'cepa %s' needs the node's DIR: the folder that it was started with as --dir", c.Command.Name)
	}
	return c.Args().First(), nil
}

// nodeError says what to do when there is nobody to ask, or the node has no such thing.
func nodeError(err error) error {
	var status *control.StatusError
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return fmt.Errorf("%w; start it, or give the DIR of one that runs", err)
	case errors.As(err, &status) && status.Status == 404:
		return fmt.Errorf("%w; give the DIR of one", err)
	}
	return err
}

// page is what `cepa status` prints.
type page struct {
	control.Status
	Counters  map[string]int64
	Bandwidth control.Bandwidth
	Circuits  []control.Circuit
	Guards    []control.Guard
	Now       time.Time
}

func (p *page) fill(ctx context.Context, node *control.Client) (err error) {
	if p.Bandwidth, err = node.Bandwidth(ctx); err != nil || p.Role != "client" {
		return err
	}
	if p.Circuits, err = node.Circuits(ctx); err != nil {
		return err
	}
	p.Guards, err = node.Guards(ctx)
	return err
}

func (p *page) print(w io.Writer) {
	ready := "ready"
	if p.Percent < 100 {
		ready = fmt.Sprintf("NOT READY, %d %%", p.Percent)
	}
	called := " " + p.Name
	if p.Name == p.Role {
		called = ""
	}
	fmt.Fprintf(w, "%s%s of network %s: %s\n\n", p.Role, called, p.Network, ready)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %-10s %s\n", what, fmt.Sprintf(format, args...))
	}
	if p.Percent < 100 {
		line("doing", "%s", p.Doing)
		if p.Waiting != "" {
			line("waiting", "for %s", p.Waiting)
		}
	}
	if p.Role == "client" {
		line("port", "%s, for programs on this machine", p.Address)
		line("guard", "%s", top.Guard(p.Guards))
		line("circuits", "%s", top.Circuits(p.Circuits))
		line("streams", "%d open, %d wait for a circuit", p.Counters["circuit_streams"], p.Counters["circuit_waiting"])
	} else {
		kind := ""
		if p.Role == "relay" {
			kind = ", no exit"
			if p.Exit {
				kind = ", an exit"
			}
		}
		line("serves at", "%s%s", p.Address, kind)
		line("identity", "%s", p.ID)
		line("links", "%d", p.Counters["links"])
		line("carries", "%d circuits, %d exit streams", p.Counters["relay_circuits"], p.Counters["relay_exit_streams"])
		line("memory", "%s of %s for queues", top.Size(uint64(p.Counters["budget_used_bytes"])), top.Size(uint64(p.Counters["budget_limit_bytes"])))
	}
	b := p.Bandwidth
	line("traffic", "in %s/s, out %s/s; in all %s in, %s out", top.Size(b.ReceivedRate), top.Size(b.SentRate), top.Size(b.Received), top.Size(b.Sent))
	line("consensus", "%s", top.Consensus(p.Consensus, p.Now))
	line("process", "%d, up %s, cepa %s", p.Pid, top.Age(p.Uptime), p.Version)
	fmt.Fprintln(w)
	if len(p.Problems) == 0 {
		fmt.Fprintln(w, "Nothing needs your attention.")
	}
	for _, x := range p.Problems {
		fmt.Fprintf(w, "WARNING  %s\n         -> %s\n", x.Text, x.Do)
	}
}

// awaitStatus asks a node how it is, until it is ready or the time is over.
func awaitStatus(ctx context.Context, node *control.Client, wait time.Duration) (control.Status, error) {
	for end := time.Now().Add(wait); ; {
		s, err := node.Status(ctx)
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
