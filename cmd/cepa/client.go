package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
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

The same as a file for --config:

   network = "network.toml"
   dir = "client"
   socks = "127.0.0.1:9850"`),
		Flags: []cli.Flag{
			configFlag("client.toml"),
			&cli.StringFlag{Name: "network", Usage: "network `FILE`"},
			&cli.StringFlag{Name: "dir", Usage: "`DIR` for state, made if missing"},
			&cli.StringFlag{Name: "socks", Usage: "`ADDRESS` of the SOCKS5 port (default " + daemon.DefaultSocks + ")"},
			&cli.IntFlag{Name: "memory", Usage: fmt.Sprintf("bound for queued data, in `MiB` (default %d)", daemon.DefaultClientMemoryMiB)},
			&cli.StringFlag{Name: "log-level", Usage: daemon.LogLevels + " (default " + daemon.DefaultLogLevel + ")"},
			attachedFlag(),
		},
		Action: runClient,
	}
}

func runClient(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("'cepa client' takes no argument %q", c.Args().First())
	}
	var config daemon.ClientConfig
	if path := c.String("config"); path != "" {
		var err error
		if config, err = daemon.LoadClientConfig(path); err != nil {
			return err
		}
	}
	for flag, setting := range map[string]*string{
		"network": &config.Network, "dir": &config.Dir, "socks": &config.Socks, "log-level": &config.LogLevel,
	} {
		if c.IsSet(flag) {
			*setting = c.String(flag)
		}
	}
	if c.IsSet("memory") {
		config.MemoryMiB = c.Int("memory")
	}
	if config.Network == "" || config.Dir == "" {
		return usagef("'cepa client' needs --network and --dir, or --config with both; see 'cepa client --help'")
	}
	return runNode(c, config.LogLevel, func(o daemon.Options) (node, error) {
		o.Name = "client"
		return daemon.StartClient(config, o)
	})
}
