package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/control"
)

func newnymCommand() *cli.Command {
	return &cli.Command{
		Name:      "newnym",
		Usage:     "take a new identity: nothing new uses a client's old circuits",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Has the client whose state is in DIR use new circuits for all that is opened from now on, so
that it cannot be linked by circuit or exit address with what went before. What is open goes
on, on its old circuit: close it in the program if that matters. What programs keep, such as
a browser's cookies and open connections, is theirs to drop.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client
   cepa newnym /tmp/overlay/client`),
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "the answer as JSON"}},
		Action: onNode(func(c *cli.Context, node *control.Client) error {
			n, err := node.NewIdentity(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c, n)
			}
			fmt.Fprintln(c.App.Writer, newnymText(n))
			return nil
		}),
	}
}

func newnymText(n control.NewIdentity) string {
	text := fmt.Sprintf("New identity: none of the %d circuits until now takes anything new.", n.Retired)
	if n.Running > 0 {
		text += fmt.Sprintf("\nStreams go on over %d of them: end these in their programs if they must not.", n.Running)
	}
	return text
}
