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
		Usage: "run a client: a port for programs whose traffic goes through the network",
		Description: strings.TrimSpace(`
Joins the network that a network file describes and opens a port for programs on this machine,
when a circuit has carried data. It speaks SOCKS5, SOCKS4a and HTTP CONNECT; a browser that asks
it is told how to use it. Names are resolved at the exit. There is no way around the network:
what cannot go through it fails, and says why.

Example:

   cepa client --network /tmp/overlay/network.toml --dir /tmp/overlay/client
   curl --socks5-hostname 127.0.0.1:9850 https://example.com/

The same as a file for --config:

   network = "network.toml"
   dir = "client"
   socks = "127.0.0.1:9850"
   ports = ["127.0.0.1:9851 destination", "unix:/run/user/1000/cepa.sock"]
   dns = "127.0.0.1:9853"

Ports share no circuit with each other. On one port, streams share circuits unless user and
password or the machine that they come from differ; words behind the address change that:
destination, destination-port and protocol keep apart more, no-auth and no-client less.
extended-errors answers .onion names by Tor's codes.

Circuits use any relays that the network offers. Whoever must can leave some out, or ask for
some, by identity, family, address or prefix, for the whole circuit or a place in it. Fewer
relays are slower and make your circuits stand out; what cannot be done fails.

   [paths]
   exclude = ["192.0.2.0/24"]
   exits = ["family:FAMILY", "IDENTITY"]`),
		Flags: []cli.Flag{
			configFlag("client.toml"),
			&cli.StringFlag{Name: "network", Usage: "network `FILE`"},
			&cli.StringFlag{Name: "dir", Usage: "`DIR` for state, made if missing"},
			&cli.StringFlag{Name: "socks", Usage: "`ADDRESS` of the local port, or unix:PATH, and words on isolation (default " + daemon.DefaultSocks + ")"},
			&cli.StringSliceFlag{Name: "port", Usage: "`ADDRESS` of one more port, as --socks; may be given again"},
			&cli.StringFlag{Name: "dns", Usage: "`ADDRESS` of a port that resolves names through the network, by the DNS (default none)"},
			&cli.BoolFlag{Name: "allow-remote", Usage: "allow ports at addresses that others can reach; they can then use this client"},
			&cli.IntFlag{Name: "memory", Usage: fmt.Sprintf("bound for queued data, in `MiB` (default %d)", daemon.DefaultClientMemoryMiB)},
			&cli.StringSliceFlag{Name: "exclude", Usage: "`RELAYS` never used: identities, family:ID, addresses, prefixes; with commas"},
			&cli.StringSliceFlag{Name: "exclude-guards", Usage: "`RELAYS` never used as the first of a circuit"},
			&cli.StringSliceFlag{Name: "exclude-middles", Usage: "`RELAYS` never used in the middle"},
			&cli.StringSliceFlag{Name: "exclude-exits", Usage: "`RELAYS` never used as the last"},
			&cli.StringSliceFlag{Name: "guards", Usage: "use only these `RELAYS` as the first of a circuit"},
			&cli.StringSliceFlag{Name: "middles", Usage: "use only these `RELAYS` in the middle"},
			&cli.StringSliceFlag{Name: "exits", Usage: "use only these `RELAYS` as the last"},
			&cli.StringFlag{Name: "log-level", Usage: daemon.LogLevels + " (default " + daemon.DefaultLogLevel + ")"},
			logFormatFlag(), metricsFlag(),
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
		"network": &config.Network, "dir": &config.Dir, "socks": &config.Socks, "dns": &config.DNS, "log-level": &config.LogLevel,
		"log-format": &config.LogFormat, "metrics": &config.Metrics,
	} {
		if c.IsSet(flag) {
			*setting = c.String(flag)
		}
	}
	paths := &config.Paths
	for flag, setting := range map[string]*[]string{
		"exclude": &paths.Exclude, "exclude-guards": &paths.ExcludeGuards, "exclude-middles": &paths.ExcludeMiddles,
		"exclude-exits": &paths.ExcludeExits, "guards": &paths.Guards, "middles": &paths.Middles, "exits": &paths.Exits,
	} {
		if c.IsSet(flag) {
			*setting = c.StringSlice(flag)
		}
	}
	if c.IsSet("port") {
		config.Ports = c.StringSlice("port")
	}
	if c.IsSet("allow-remote") {
		config.AllowRemote = c.Bool("allow-remote")
	}
	if c.IsSet("memory") {
		config.MemoryMiB = c.Int("memory")
	}
	if config.Network == "" || config.Dir == "" {
		return usagef("'cepa client' needs --network and --dir, or --config with both; see 'cepa client --help'")
	}
	return runNode(c, daemon.LogOptions{Level: config.LogLevel, Format: config.LogFormat, Addresses: config.LogAddresses}, func(o daemon.Options) (node, error) {
		o.Name = "client"
		return daemon.StartClient(config, o)
	})
}
