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
		Usage: "families: relays of one operator",
		Description: strings.TrimSpace(`
No circuit uses two relays of one family, so that nobody who runs several relays sees both ends.`),
		Subcommands: []*cli.Command{
			{
				Name:  "new",
				Usage: "make the key of a family",
				Description: strings.TrimSpace(`
Make one key, and give the file to each of your relays, and to nobody else.

Example:

   mkdir -p /tmp/overlay
   cepa keys family new --to /tmp/overlay/family.key`),
				Flags:  []cli.Flag{&cli.StringFlag{Name: "to", Usage: "`FILE` that gets the key; it must not exist"}},
				Action: keysFamilyNew,
			},
			{
				Name:  "join",
				Usage: "make a relay a member of a family",
				Description: strings.TrimSpace(`
Adds the file of a family's key to family_keys in a relay's settings file. A running relay takes it on
SIGHUP.

Example:

   mkdir -p /tmp/overlay
   cepa keys family new --to /tmp/overlay/family2.key
   cepa config new relay --out /tmp/overlay/relay.toml
   cepa keys family join --key /tmp/overlay/family2.key --config /tmp/overlay/relay.toml`),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "key", Usage: "`FILE` with the family's key"},
					&cli.StringFlag{Name: "config", Usage: "the relay's settings `FILE`"},
				},
				Action: keysFamilyJoin,
			},
		},
	}
}

func keysFamilyNew(c *cli.Context) error {
	if c.Args().Present() || c.String("to") == "" {
		return usagef("'cepa keys family new' needs --to FILE and nothing else; see 'cepa keys family new --help'")
	}
	id, err := daemon.NewFamilyFile(c.String("to"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s\n   the family's key: give it to each of its relays, and to nobody else;\n   on each, 'cepa keys family join --key FILE --config RELAY.TOML'\nfamily %s\n", c.String("to"), id)
	return nil
}

func keysFamilyJoin(c *cli.Context) error {
	if c.Args().Present() || c.String("key") == "" || c.String("config") == "" {
		return usagef("'cepa keys family join' needs --key FILE and --config FILE; see 'cepa keys family join --help'")
	}
	id, err := daemon.JoinFamily(c.String("config"), c.String("key"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s is in family %s now: start the relay, or send it SIGHUP if it runs\n", c.String("config"), id)
	return nil
}
