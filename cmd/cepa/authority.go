package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
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

The same as a file for --config:

   network = "network.toml"
   dir = "authority"
   listen = "0.0.0.0:9001"
   address = "203.0.113.7:9001"`),
		Flags: []cli.Flag{
			configFlag("authority.toml"),
			&cli.StringFlag{Name: "network", Usage: "network `FILE`"},
			&cli.StringFlag{Name: "dir", Usage: "`DIR` with the authority's keys, and for its state"},
			&cli.StringFlag{Name: "listen", Usage: fmt.Sprintf("`ADDRESS` for links (default 0.0.0.0:%d)", daemon.DefaultRelayPort)},
			&cli.StringFlag{Name: "address", Usage: "`ADDRESS` by which others reach the authority, if --listen does not say it"},
			&cli.IntFlag{Name: "memory", Usage: fmt.Sprintf("bound for queued data, in `MiB` (default %d)", daemon.DefaultRelayMemoryMiB)},
			&cli.StringFlag{Name: "log-level", Usage: daemon.LogLevels + " (default " + daemon.DefaultLogLevel + ")"},
			logFormatFlag(), metricsFlag(),
			attachedFlag(),
		},
		Action: runAuthority,
	}
}

func runAuthority(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("'cepa authority' takes no argument %q", c.Args().First())
	}
	var config daemon.AuthorityConfig
	if path := c.String("config"); path != "" {
		var err error
		if config, err = daemon.LoadAuthorityConfig(path); err != nil {
			return err
		}
	}
	for flag, setting := range map[string]*string{
		"network": &config.Network, "dir": &config.Dir, "listen": &config.Listen, "address": &config.Address, "log-level": &config.LogLevel,
		"log-format": &config.LogFormat, "metrics": &config.Metrics,
	} {
		if c.IsSet(flag) {
			*setting = c.String(flag)
		}
	}
	if c.IsSet("memory") {
		config.MemoryMiB = c.Int("memory")
	}
	if config.Network == "" || config.Dir == "" {
		return usagef("'cepa authority' needs --network and --dir, or --config with both; see 'cepa authority --help'")
	}
	return runNode(c, daemon.LogOptions{Level: config.LogLevel, Format: config.LogFormat, Addresses: config.LogAddresses}, func(o daemon.Options) (node, error) {
		return daemon.StartAuthority(config, o)
	})
}
