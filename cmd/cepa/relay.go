package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

func relayCommand() *cli.Command {
	return &cli.Command{
		Name:  "relay",
		Usage: "run a relay",
		Description: strings.TrimSpace(`
Runs a relay of the network that a network file describes, until Ctrl-C. Keys and state are in
--dir; keep that folder, it is the relay's identity. A relay is no exit unless it is told to be.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa relay --network /tmp/overlay/network.toml --dir /tmp/overlay/authority --listen 127.1.0.1:9001

For a relay that is to stay, 'cepa relay setup' makes keys, settings and a unit for systemd.

Settings can stand in a file (--config), which 'cepa config new relay' makes; in the environment
(CEPA_RELAY_LOG_LEVEL for --log-level); and in flags, which win. SIGHUP reads them again.`),
		Flags:       append(settingFlags("relay"), attachedFlag()),
		Subcommands: []*cli.Command{relaySetupCommand()},
		Action:      runNode("relay"),
	}
}
