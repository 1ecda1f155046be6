package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

func clientCommand() *cli.Command {
	return &cli.Command{
		Name:  "client",
		Usage: "run a client: a SOCKS5 port whose traffic goes through the network",
		Description: strings.TrimSpace(`
Joins the network that a network file describes and opens a SOCKS5 port for programs on this
machine, when a circuit has carried data. Names are resolved at the exit. There is no way
around the network: what cannot go through it fails, and says why.

Example:

   cepa client --network /tmp/overlay/network.toml --dir /tmp/overlay/client
   curl --socks5-hostname 127.0.0.1:9850 https://example.com/

Settings can stand in a file (--config), which 'cepa config new client' makes; in the environment
(CEPA_CLIENT_LOG_LEVEL for --log-level); and in flags, which win. SIGHUP reads them again.

Circuits use any relays that the network offers. Whoever must can leave some out, or ask for
some, by identity, family, address or prefix, for the whole circuit or a place in it. Fewer
relays are slower and make your circuits stand out; what cannot be done fails.

   [paths]
   exclude = ["192.0.2.0/24"]
   exits = ["family:FAMILY", "IDENTITY"]`),
		Flags:  append(settingFlags("client"), attachedFlag()),
		Action: runNode("client"),
	}
}
