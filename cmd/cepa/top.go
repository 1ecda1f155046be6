package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"cepa/control"
	"cepa/internal/top"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "watch a running node in the terminal",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Shows the node whose state is in DIR, live: its traffic, circuits with their relays, streams,
links and log. Keys move between tabs; ? lists them, q leaves, and the node goes on. It draws
without colour when NO_COLOR is set, and with ASCII alone where the locale is not UTF-8.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client
   cepa top /tmp/overlay/client`),
		Flags: []cli.Flag{controlFlag()},
		Action: func(c *cli.Context) error {
			node, err := askNode(c)
			if err != nil {
				return err
			}
			defer node.Close()
			in, out := os.Stdin, os.Stdout
			if w, ok := c.App.Writer.(*os.File); !ok || w != out || !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) || dumb(os.Getenv("TERM")) {
				return errors.New("'cepa top' needs a terminal that can move its cursor; 'cepa status " + node.where + "' prints the same once, and 'cepa log -f " + node.where + "' goes on")
			}
			if _, err := node.Status(c.Context); errors.Is(err, control.ErrNotRunning) || errors.Is(err, control.ErrForbidden) {
				return node.nodeError(err)
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return top.Run(ctx, node, in, out, os.Environ())
		},
	}
}

// dumb says whether a terminal can only print lines.
func dumb(name string) bool { return name == "dumb" || name == "" && os.PathSeparator == '/' }
