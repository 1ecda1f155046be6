package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"cepa/control"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "print the end of a running node's log",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Prints what the node whose state is in DIR has logged lately; with -f what it logs from now on
too, until Ctrl-C. A node keeps its last 1000 lines, of its log level and above.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client
   cepa log /tmp/overlay/client`),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new lines"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 100, Usage: "at most `N` of the lines there are"},
			&cli.BoolFlag{Name: "json", Usage: "one JSON object a line"},
		},
		Action: onNode(func(c *cli.Context, node *control.Client) error {
			if n := c.Int("lines"); n < 0 || n > 1000 {
				return usagef("--lines %d: a node keeps 1000 lines", n)
			}
			ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
			defer stop()
			p := linePrinter{w: c.App.Writer, json: c.Bool("json")}
			if !c.Bool("follow") {
				l, err := node.Log(ctx, 0, c.Int("lines"))
				if err != nil {
					return err
				}
				if len(l.Lines) == 0 && !p.json {
					fmt.Fprintln(c.App.ErrWriter, "The node has logged nothing yet that its log level lets through.")
				}
				return p.lines(l.Lines)
			}
			err := follow(ctx, node, &p, c.Int("lines"), c.App.ErrWriter)
			if ctx.Err() != nil {
				return nil // Ctrl-C is how it ends
			}
			return err
		}),
	}
}

// follow prints the lines there are and those that come. The reader of events is there before the lines are asked for, so
// that none is missed between.
func follow(ctx context.Context, node *control.Client, p *linePrinter, lines int, notes io.Writer) error {
	begun := false
	err := node.Events(ctx, func(e control.Event) error {
		switch d := e.Data.(type) {
		case control.Status: // the first event
			if begun {
				return nil
			}
			begun = true
			l, err := node.Log(ctx, 0, lines)
			if err != nil {
				return err
			}
			return p.lines(l.Lines)
		case control.Line:
			return p.lines([]control.Line{d})
		case control.Lost:
			fmt.Fprintf(notes, "cepa: %d lines were too many at once and are not shown\n", d.Events)
		}
		return nil
	}, control.EventStatus, control.EventLog)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the node has stopped")
	}
	return err
}

// linePrinter prints each line once, in order.
type linePrinter struct {
	w    io.Writer
	json bool
	last uint64
}

func (p *linePrinter) lines(list []control.Line) error {
	for _, l := range list {
		if l.Number <= p.last {
			continue
		}
		p.last = l.Number
		var err error
		if p.json {
			err = json.NewEncoder(p.w).Encode(l)
		} else {
			_, err = fmt.Fprintf(p.w, "%s %-5s %s\n", l.Time.UTC().Format("2006-01-02 15:04:05"), l.Level, l.Text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
