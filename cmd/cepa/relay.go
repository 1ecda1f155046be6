package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
)

// stopTimeout is how long a node may take to end in order.
const stopTimeout = 1500 * time.Millisecond

// attachedFlag is for nodes that `cepa demo --processes` starts: they wait for a line on
// their standard input before they open a port to users, and end when it ends.
func attachedFlag() cli.Flag { return &cli.BoolFlag{Name: "attached", Hidden: true} }

func logFormatFlag() cli.Flag {
	return &cli.StringFlag{Name: "log-format", Usage: daemon.LogFormats + " (default text)"}
}

func metricsFlag() cli.Flag {
	return &cli.StringFlag{Name: "metrics", Usage: "serve metrics for Prometheus, /healthz and /readyz on this `ADDRESS` of this machine, such as 127.0.0.1:9100"}
}

func configFlag(example string) cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "read the settings from a TOML `FILE`, such as " + example + "; flags win over it"}
}

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

The same as a file for --config:

   network = "network.toml"
   dir = "relay"
   listen = "0.0.0.0:9001"
   address = "203.0.113.7:9001"
   exit_policy = "web"`),
		Flags: []cli.Flag{
			configFlag("relay.toml"),
			&cli.StringFlag{Name: "network", Usage: "network `FILE`"},
			&cli.StringFlag{Name: "dir", Usage: "`DIR` for keys and state, made if missing"},
			&cli.StringFlag{Name: "listen", Usage: fmt.Sprintf("`ADDRESS` for links (default 0.0.0.0:%d)", daemon.DefaultRelayPort)},
			&cli.StringFlag{Name: "address", Usage: "`ADDRESS` by which others reach the relay, if --listen does not say it"},
			&cli.StringFlag{Name: "exit-policy", Usage: "none (default), web, reduced, all, or rules such as 'accept *:443, reject *:*'"},
			&cli.StringFlag{Name: "nickname", Usage: "`NAME` for people, 1 to 19 letters, digits and hyphens"},
			&cli.StringFlag{Name: "contact", Usage: "how to reach you; public"},
			&cli.StringSliceFlag{Name: "family-key", Usage: "`FILE` with the key of a family that the relay is in, from 'cepa keys family'"},
			&cli.IntFlag{Name: "bandwidth", Usage: "what the relay offers, in `MiB` a second"},
			&cli.IntFlag{Name: "uplink", Usage: "what the machine can send, in `MBIT` a second: the relay keeps a little below, and circuits share it evenly"},
			&cli.IntFlag{Name: "memory", Usage: fmt.Sprintf("bound for queued data, in `MiB` (default %d)", daemon.DefaultRelayMemoryMiB)},
			&cli.StringFlag{Name: "log-level", Usage: daemon.LogLevels + " (default " + daemon.DefaultLogLevel + ")"},
			logFormatFlag(), metricsFlag(),
			attachedFlag(),
		},
		Action: runRelay,
	}
}

func runRelay(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("'cepa relay' takes no argument %q", c.Args().First())
	}
	var config daemon.RelayConfig
	if path := c.String("config"); path != "" {
		var err error
		if config, err = daemon.LoadRelayConfig(path); err != nil {
			return err
		}
	}
	for flag, setting := range map[string]*string{
		"network": &config.Network, "dir": &config.Dir, "listen": &config.Listen, "address": &config.Address,
		"exit-policy": &config.ExitPolicy, "nickname": &config.Nickname, "contact": &config.Contact, "log-level": &config.LogLevel,
		"log-format": &config.LogFormat, "metrics": &config.Metrics,
	} {
		if c.IsSet(flag) {
			*setting = c.String(flag)
		}
	}
	if c.IsSet("family-key") {
		config.FamilyKeys = c.StringSlice("family-key")
	}
	if c.IsSet("bandwidth") {
		config.BandwidthMiB = c.Int("bandwidth")
	}
	if c.IsSet("uplink") {
		config.UplinkMbit = c.Int("uplink")
	}
	if c.IsSet("memory") {
		config.MemoryMiB = c.Int("memory")
	}
	if config.Network == "" || config.Dir == "" {
		return usagef("'cepa relay' needs --network and --dir, or --config with both; see 'cepa relay --help'")
	}
	return runNode(c, daemon.LogOptions{Level: config.LogLevel, Format: config.LogFormat, Addresses: config.LogAddresses}, func(o daemon.Options) (node, error) {
		o.Name = config.Nickname
		return daemon.StartRelay(config, o)
	})
}

// node is a relay or a client.
type node interface {
	Stop(context.Context)
	Done() <-chan struct{}
}

// runNode runs a node until a signal, or until the parent that it is attached to ends.
func runNode(c *cli.Context, log daemon.LogOptions, start func(daemon.Options) (node, error)) error {
	if _, err := daemon.ParseLogLevel(log.Level); err != nil {
		return usagef("%v", err)
	}
	if err := daemon.CheckLogFormat(log.Format); err != nil {
		return usagef("%v", err)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := daemon.Options{
		Version:  c.App.Version,
		Log:      slog.New(daemon.NewLog(c.App.ErrWriter, log)),
		Progress: progress(c.App.Writer),
	}
	if c.Bool("attached") {
		ctx, o.Go = daemon.Attach(ctx, os.Stdin)
	}
	n, err := start(o)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-n.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	n.Stop(last)
	return nil
}

// progress prints how far a node has come: percent, what it does, what it waits for.
func progress(w io.Writer) func(percent int, doing, waiting string) {
	return func(percent int, doing, waiting string) {
		if waiting != "" {
			waiting = " (waiting for " + waiting + ")"
		}
		fmt.Fprintf(w, "%3d %%  %s%s\n", percent, doing, waiting)
	}
}
