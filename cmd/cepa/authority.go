package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

func authorityCommand() *cli.Command {
	return &cli.Command{
		Name:  "authority",
		Usage: "run a directory authority",
		Description: strings.TrimSpace(`
Runs one of the authorities that the network file names, until Ctrl-C: it looks which relays can
be reached, agrees with the other authorities on the consensus, and serves the directory. It is no
relay and carries nobody's traffic; 'cepa relay' with the same --dir is both. Its keys are in
--dir, where 'cepa network new' made them.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa authority --network /tmp/overlay/network.toml --dir /tmp/overlay/authority --listen 127.1.0.1:9001

Settings can stand in a file (--config), which 'cepa config new authority' makes; in the environment
(CEPA_AUTHORITY_LOG_LEVEL for --log-level); and in flags, which win. SIGHUP reads them again.`),
		Flags:  append(settingFlags("authority"), attachedFlag()),
		Action: runNode("authority"),
	}
}
