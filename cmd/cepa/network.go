package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
	"cepa/directory"
)

func networkCommand() *cli.Command {
	return &cli.Command{
		Name:  "network",
		Usage: "found a network, or look at a network file",
		Subcommands: []*cli.Command{
			{
				Name:  "new",
				Usage: "make the keys of a new network's authority and its network file",
				Description: strings.TrimSpace(`
Makes DIR/authority (the keys of the relay that carries the authority; keep them safe) and
DIR/network.toml (public: relays and clients need it). Then start the authority's relay, at
least two other relays, and clients.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa relay --network /tmp/overlay/network.toml --dir /tmp/overlay/authority --listen 127.1.0.1:9001`),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "dir", Usage: "`DIR` for the network file and the authority's keys"},
					&cli.StringFlag{Name: "authority", Usage: "`ADDRESS` of the relay that carries the authority, as others reach it"},
					&cli.StringFlag{Name: "name", Value: "cepa", Usage: "`NAME` of the network, for people"},
					&cli.BoolFlag{Name: "test", Usage: "a test network: relays may have private addresses, and exits reach them"},
					&cli.StringSliceFlag{Name: "param", Usage: "`NAME=VALUE` of a network parameter, may be repeated: " + parameterNames()},
				},
				Action: networkNew,
			},
			{
				Name:      "show",
				Usage:     "verify a network file and say what is in it",
				ArgsUsage: "FILE",
				Description: strings.TrimSpace(`
Example:

   cepa network show /tmp/overlay/network.toml`),
				Action: networkShow,
			},
		},
	}
}

func parameterNames() string {
	var names []string
	for _, p := range directory.ParameterTable() {
		names = append(names, string(p.Name))
	}
	return strings.Join(names, ", ")
}

func networkNew(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("'cepa network new' takes no argument %q", c.Args().First())
	}
	if c.String("dir") == "" || c.String("authority") == "" {
		return usagef("'cepa network new' needs --dir and --authority; see 'cepa network new --help'")
	}
	authority, err := netip.ParseAddrPort(c.String("authority"))
	if err != nil {
		return usagef("--authority %q is not an IP address and port such as 203.0.113.7:9001", c.String("authority"))
	}
	parameters := directory.Parameters{}
	for _, p := range c.StringSlice("param") {
		name, value, ok := strings.Cut(p, "=")
		v, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil {
			return usagef("--param %q is not NAME=NUMBER", p)
		}
		info, ok := directory.Parameter(name).Info()
		if !ok {
			return usagef("--param: there is no parameter %q%s", name, didYouMean(name, strings.Split(parameterNames(), ", ")))
		}
		if v < info.Min || v > info.Max {
			return usagef("--param: %s is %d, it must be from %d to %d", name, v, info.Min, info.Max)
		}
		parameters[info.Name] = v
	}
	dir := c.String("dir")
	path := filepath.Join(dir, "network.toml")
	err = daemon.Found(path, daemon.Founding{
		Name: c.String("name"), Test: c.Bool("test"), Parameters: parameters,
		Relays: []daemon.FoundingRelay{{Dir: filepath.Join(dir, "authority"), Address: authority.String(), Authority: true}},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, `%s
   the network file: give it to relays and clients
%s
   the authority's keys: keep them safe and to yourself

Next, start the authority's relay:

   cepa relay --network %s --dir %s --listen %s
`, path, filepath.Join(dir, "authority"), path, filepath.Join(dir, "authority"), authority)
	return nil
}

func networkShow(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usagef("'cepa network show' needs one FILE")
	}
	n, err := daemon.LoadNetwork(c.Args().First())
	if err != nil {
		return err
	}
	w := c.App.Writer
	fmt.Fprintf(w, "network      %s (%s)\nserial       %d, made %s\nauthorities  %d, quorum %d\n", n.Name, n.ID, n.Serial, n.Created.UTC().Format("2006-01-02 15:04:05 MST"), len(n.Authorities), n.Quorum)
	for _, a := range n.Authorities {
		fmt.Fprintf(w, "             %s %v\n", a.Identity, a.Addresses)
	}
	fmt.Fprintf(w, "bootstrap    %d relays\n", len(n.Bootstrap))
	for _, b := range n.Bootstrap {
		fmt.Fprintf(w, "             %s %v\n", b.Identity, b.Addresses)
	}
	if n.Test {
		fmt.Fprintln(w, "test         yes: private addresses are allowed; this network makes nobody anonymous")
	}
	fmt.Fprintln(w, "parameters")
	for _, p := range directory.ParameterTable() {
		fmt.Fprintf(w, "             %s = %d  (%s)\n", p.Name, n.Param(p.Name), p.Doc)
	}
	return nil
}
