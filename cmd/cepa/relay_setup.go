package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
)

func relaySetupCommand() *cli.Command {
	return &cli.Command{
		Name:  "setup",
		Usage: "make keys, settings and a systemd unit for a new relay",
		Description: strings.TrimSpace(`
Makes a folder with all that a relay needs, and says what to do next. It never replaces a file.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa relay setup --network /tmp/overlay/network.toml --to /tmp/overlay/myrelay --listen 127.2.0.1:9001 --exit none`),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "network", Usage: "network `FILE`"},
			&cli.StringFlag{Name: "to", Usage: "`FOLDER` for the relay, made if missing"},
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` for links", Value: "0.0.0.0:9001"},
			&cli.StringFlag{Name: "address", Usage: "`ADDRESS` by which others reach the relay; without it, what listen says, or what the authorities see (auto)"},
			&cli.StringFlag{Name: "exit", Usage: "`POLICY` of the exit: none, web, reduced, full, or rules", Value: "none"},
			&cli.StringFlag{Name: "notice", Usage: "`ADDRESS` at which an exit serves its notice page, such as 0.0.0.0:80; not served without it"},
			&cli.StringFlag{Name: "nickname", Usage: "`NAME` for people"},
			&cli.StringFlag{Name: "contact", Usage: "how to reach you; public"},
			&cli.StringSliceFlag{Name: "family-key", Usage: "`FILE` with the key of a family, from 'cepa keys family new'"},
			&cli.StringFlag{Name: "user", Usage: "`USER` that the unit runs the relay as; you, if not given"},
		},
		Action: relaySetup,
	}
}

func relaySetup(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("'cepa relay setup' takes no argument %q", c.Args().First())
	}
	if c.String("network") == "" || c.String("to") == "" {
		return usagef("'cepa relay setup' needs --network and --to; see 'cepa relay setup --help'")
	}
	config := daemon.RelayConfig{
		Network: c.String("network"), Listen: c.String("listen"), Address: c.String("address"), ExitPolicy: c.String("exit"),
		ExitNotice: c.String("notice"), Nickname: c.String("nickname"), Contact: c.String("contact"), FamilyKeys: c.StringSlice("family-key"),
	}
	if config.Address == "" && (strings.HasPrefix(config.Listen, "0.0.0.0:") || strings.HasPrefix(config.Listen, "[::]:")) {
		config.Address = daemon.AutoAddress
	}
	exit := config.ExitPolicy != "none"
	f, err := daemon.SetUpRelay(daemon.RelaySetup{To: c.String("to"), Config: config, Notice: exit, Program: executable(), User: c.String("user")})
	if err != nil {
		return err
	}
	w := c.App.Writer
	fmt.Fprintf(w, "relay %s is set up:\n", f.Identity)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   %s\tits settings: read through them\n   %s\tkeys and state: keep this folder, it is the relay\n   %s\tfor systemd\n", f.Settings, f.State, f.Unit)
	if exit {
		fmt.Fprintf(table, "   %s\twhat an exit tells visitors; change it as you like\n", f.Notice)
	}
	_ = table.Flush() // as of all that is printed
	_, port, _ := strings.Cut(config.Listen[strings.LastIndex(config.Listen, ":"):], ":")
	fmt.Fprintf(w, "\nNext:\n1. Let TCP port %s in through the firewall; behind NAT, forward it to this machine.\n", port)
	if config.Address == daemon.AutoAddress {
		fmt.Fprintf(w, "   If others reach the relay at another port, or it has several addresses, set address in the settings.\n")
	}
	fmt.Fprintf(w, "2. Try it: cepa relay --config %s\n   It is ready when it says that the consensus lists it. Ctrl-C ends it.\n", f.Settings)
	fmt.Fprintf(w, "3. Let it stay: sudo cp %s /etc/systemd/system/ && sudo systemctl enable --now %s\n", f.Unit, strings.TrimSuffix(filepath.Base(f.Unit), ".service"))
	if exit {
		fmt.Fprintf(w, "4. An exit gets complaints: tell your provider, set contact, give the address a reverse name such as\n   exit.example.org, and serve the notice page (exit_notice).\n")
	}
	return nil
}
