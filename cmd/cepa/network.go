package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/cert"
	"cepa/daemon"
	"cepa/directory"
)

func networkCommand() *cli.Command {
	return &cli.Command{
		Name:  "network",
		Usage: "found a network, change its authorities, or look at a network file",
		Subcommands: []*cli.Command{
			{
				Name:  "new",
				Usage: "make the keys of a new network's authorities and its network file",
				Description: strings.TrimSpace(`
Makes a folder of keys for each authority in DIR (authority, or authority-1 and so on; keep them
safe) and DIR/network.toml (public: relays and clients need it). Then start the authorities, at
least three relays, and clients. With four authorities or more the network stands one that lies,
with three one that is down.

Examples:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa authority --network /tmp/overlay/network.toml --dir /tmp/overlay/authority --listen 127.1.0.1:9001

Four authorities on this machine, on ports 9001 to 9004:

   cepa network new --authorities 4 --dir /tmp/overlay/four
   cepa network show /tmp/overlay/four/network.toml`),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "dir", Usage: "`DIR` for the network file and the authorities' keys"},
					&cli.StringSliceFlag{Name: "authority", Usage: "`ADDRESS` of an authority, as others reach it; one for each"},
					&cli.IntFlag{Name: "authorities", Usage: fmt.Sprintf("number of authorities, 1 to %d; without their addresses they are on this machine, from port %d on, which makes it a test network with a consensus every ten seconds", cert.MaxSigners, daemon.DefaultRelayPort)},
					&cli.StringFlag{Name: "name", Value: "cepa", Usage: "`NAME` of the network, for people"},
					&cli.StringFlag{Name: "echo", Usage: "`URL` of a page that answers with the address of who asks, for 'cepa check'"},
					&cli.BoolFlag{Name: "test", Usage: "a test network: relays may have private addresses, and exits reach them"},
					&cli.StringSliceFlag{Name: "param", Usage: "`NAME=VALUE` of a network parameter, may be repeated: " + parameterNames()},
				},
				Action: networkNew,
			},
			networkNextCommand(),
			networkSignCommand(),
			networkMergeCommand(),
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
	if c.String("dir") == "" {
		return usagef("'cepa network new' needs --dir; see 'cepa network new --help'")
	}
	addresses, local, err := authorityAddresses(c)
	if err != nil {
		return err
	}
	parameters, err := networkParameters(c)
	if err != nil {
		return err
	}
	if local { // all on one address, and somebody is waiting
		for name, value := range map[directory.Parameter]int64{directory.DistinctSubnets: 0, directory.IntervalMillis: 10_000} {
			if _, ok := parameters[name]; !ok {
				parameters[name] = value
			}
		}
	}
	dir := c.String("dir")
	path := filepath.Join(dir, "network.toml")
	f := daemon.Founding{Name: c.String("name"), Test: c.Bool("test") || local, Parameters: parameters, Echo: c.String("echo")}
	for i, a := range addresses {
		name := "authority"
		if len(addresses) > 1 {
			name += "-" + strconv.Itoa(i+1)
		}
		f.Relays = append(f.Relays, daemon.FoundingRelay{Dir: filepath.Join(dir, name), Address: a.String(), Authority: true})
	}
	if err := daemon.Found(path, f); err != nil {
		return err
	}
	w := c.App.Writer
	fmt.Fprintf(w, "%s\n   the network file: give it to relays and clients\n", path)
	for _, r := range f.Relays {
		fmt.Fprintf(w, "%s\n   the keys of an authority: keep them safe and to yourself\n", r.Dir)
	}
	switch {
	case local:
		fmt.Fprintf(w, "\nNext, start the authorities, then relays, then a client:\n\n")
	case len(f.Relays) > 1:
		fmt.Fprintf(w, "\nNext, take each folder and the network file to its machine and start the authorities:\n\n")
	default:
		fmt.Fprintf(w, "\nNext, start the authority; with 'relay' in the place of 'authority' it carries circuits as well:\n\n")
	}
	background := ""
	if local {
		background = " &"
	}
	for _, r := range f.Relays {
		fmt.Fprintf(w, "   cepa authority --network %s --dir %s --listen %s%s\n", path, r.Dir, r.Address, background)
	}
	if local {
		for i := range 3 {
			fmt.Fprintf(w, "   cepa relay --network %s --dir %s --listen %s --exit-policy all &\n", path,
				filepath.Join(dir, "relay-"+strconv.Itoa(i+1)), localAddress(len(f.Relays)+i))
		}
		fmt.Fprintf(w, "   cepa client --network %s --dir %s\n", path, filepath.Join(dir, "client"))
	}
	return nil
}

// localAddress is where the i-th node of a network on this machine listens.
func localAddress(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(daemon.DefaultRelayPort+i))
}

// authorityAddresses are those of --authority, or as many as --authorities says on this machine.
func authorityAddresses(c *cli.Context) (list []netip.AddrPort, local bool, err error) {
	for _, text := range c.StringSlice("authority") {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, false, usagef("--authority %q is not an IP address and port such as 203.0.113.7:9001", text)
		}
		if slices.Contains(list, a) {
			return nil, false, usagef("--authority %s is there twice", a)
		}
		list = append(list, a)
	}
	n := c.Int("authorities")
	switch {
	case len(list) == 0 && !c.IsSet("authorities"):
		return nil, false, usagef("'cepa network new' needs --authority ADDRESS for each authority, or --authorities NUMBER; see 'cepa network new --help'")
	case c.IsSet("authorities") && (n < 1 || n > cert.MaxSigners):
		return nil, false, usagef("--authorities is %d: a network has 1 to %d", n, cert.MaxSigners)
	case len(list) > cert.MaxSigners:
		return nil, false, usagef("%d times --authority: a network has at most %d", len(list), cert.MaxSigners)
	case len(list) > 0 && c.IsSet("authorities") && n != len(list):
		return nil, false, usagef("--authorities %d, and %d times --authority: leave the first out", n, len(list))
	case len(list) > 0:
		return list, false, nil
	}
	for i := range n {
		list = append(list, localAddress(i))
	}
	return list, true, nil
}

// networkParameters are those of --param.
func networkParameters(c *cli.Context) (directory.Parameters, error) {
	parameters := directory.Parameters{}
	for _, p := range c.StringSlice("param") {
		name, value, ok := strings.Cut(p, "=")
		v, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil {
			return nil, usagef("--param %q is not NAME=NUMBER", p)
		}
		info, ok := directory.Parameter(name).Info()
		if !ok {
			return nil, usagef("--param: there is no parameter %q%s", name, didYouMean(name, strings.Split(parameterNames(), ", ")))
		}
		if v < info.Min || v > info.Max {
			return nil, usagef("--param: %s is %d, it must be from %d to %d", name, v, info.Min, info.Max)
		}
		parameters[info.Name] = v
	}
	return parameters, nil
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
	if n.Echo != "" {
		fmt.Fprintf(w, "echo         %s\n", n.Echo)
	}
	fmt.Fprintln(w, "parameters")
	for _, p := range directory.ParameterTable() {
		fmt.Fprintf(w, "             %s = %d  (%s)\n", p.Name, n.Param(p.Name), p.Doc)
	}
	return nil
}
