package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/control"
	"cepa/internal/top"
)

func circuitsCommand() *cli.Command {
	return &cli.Command{
		Name:      "circuits",
		Usage:     "list a client's circuits, and the streams on them",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Lists the circuits of the client whose state is in DIR: the relays of each, the first next to
you; how it is used; and the streams that it carries. Hosts are not shown, unless the client's
settings have control.show_destinations.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client
   cepa circuits /tmp/overlay/client`),
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON: an object with circuits and streams"}},
		Action: onNode(func(c *cli.Context, node *control.Client) error {
			streams, err := node.Streams(c.Context)
			if err != nil {
				return err
			}
			circuits, err := node.Circuits(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c, struct {
					Circuits []control.Circuit `json:"circuits"`
					Streams  []control.Stream  `json:"streams"`
				}{circuits, streams})
			}
			printCircuits(c.App.Writer, circuits, streams)
			return nil
		}),
	}
}

func printCircuits(w io.Writer, circuits []control.Circuit, streams []control.Stream) {
	on := make(map[uint64][]control.Stream)
	for _, s := range streams {
		on[s.Circuit] = append(on[s.Circuit], s)
	}
	stream := func(s control.Stream) {
		fmt.Fprintf(w, "        stream %d to %s, %s, %s, %s in, %s out\n", s.ID, s.Destination, s.State, top.Age(s.Age), top.Size(s.Received), top.Size(s.Sent))
	}
	shown := 0
	for _, c := range circuits {
		if c.Purpose == "directory" {
			continue
		}
		shown++
		var names []string
		for i, h := range c.Hops {
			name := top.Name(h.Nickname, h.Identity)
			if i >= c.Built {
				name = "(" + name + ")"
			}
			names = append(names, name)
		}
		fmt.Fprintf(w, "%5d   you -> %s   %s, %s\n", c.ID, strings.Join(names, " -> "), top.Use(c), top.Age(c.Age))
		for _, s := range on[c.ID] {
			stream(s)
		}
		delete(on, c.ID)
	}
	if shown == 0 {
		fmt.Fprintln(w, "There are no circuits. 'cepa status' says why.")
	}
	if waiting := on[0]; len(waiting) > 0 {
		fmt.Fprintln(w, "waiting for a circuit:")
		for _, s := range waiting {
			stream(s)
		}
	}
}
