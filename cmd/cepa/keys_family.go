package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
)

func familyCommand() *cli.Command {
	return &cli.Command{
		Name:  "family",
		Usage: "make the key of a family: relays of one operator",
		Description: strings.TrimSpace(`
No circuit uses two relays of one family, so that nobody who runs several relays sees both ends.
Make one key, and give the file to each of your relays as family_keys or --family-key.

Example:

   mkdir -p /tmp/overlay
   cepa keys family --to /tmp/overlay/family.key`),
		Flags:  []cli.Flag{&cli.StringFlag{Name: "to", Usage: "`FILE` that gets the key; it must not exist"}},
		Action: keysFamily,
	}
}

func keysFamily(c *cli.Context) error {
	if c.Args().Present() || c.String("to") == "" {
		return usagef("'cepa keys family' needs --to FILE and nothing else; see 'cepa keys family --help'")
	}
	id, err := daemon.NewFamilyFile(c.String("to"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s\n   the family's key: give it to each of its relays, and to nobody else\nfamily %s\n", c.String("to"), id)
	return nil
}
