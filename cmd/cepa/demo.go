package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"cepa/control"
	"cepa/daemon"
	"cepa/demo"
	"cepa/internal/procs"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:      "demo",
		Usage:     "run a whole overlay network on this machine, with a SOCKS5 port",
		ArgsUsage: "[-- PROGRAM [ARGUMENT...]]",
		Description: strings.TrimSpace(`
Runs relays, directory authorities and a client on loopback addresses: real TCP, real TLS, circuits of
three hops. With a PROGRAM, runs it with the proxy variables set (ALL_PROXY and its siblings)
and exits with its status (127: there is no such program); without one, stays until Ctrl-C. The network is a test network: its
exits reach this machine and its local network, so do not let others use its port.

Examples:

   cepa demo -- curl -sS http://hello.demo/
   cepa demo --dashboard
   cepa demo --dir /tmp/overlay --processes`),
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "relays", Value: demo.DefaultRelays, Usage: fmt.Sprintf("number of relays, %d to %d; every second one is an exit", demo.MinRelays, demo.MaxRelays)},
			&cli.IntFlag{Name: "authorities", Value: demo.DefaultAuthorities, Usage: fmt.Sprintf("number of directory authorities besides them, 1 to %d", demo.MaxAuthorities)},
			&cli.StringFlag{Name: "socks", Value: daemon.DefaultSocks, Usage: "`ADDRESS` of the SOCKS5 port"},
			&cli.StringSliceFlag{Name: "port", Usage: "one more local port, as 'cepa client --port' has it: an `ADDRESS`, or unix:PATH, and words on isolation"},
			&cli.StringFlag{Name: "dns", Usage: "`ADDRESS` of a port that resolves names through the network"},
			&cli.StringFlag{Name: "dir", Usage: "keep the network's state in `DIR` (made if missing); a temporary folder if not given"},
			&cli.BoolFlag{Name: "processes", Usage: "run every node as a process of its own; DIR/nodes.json and DIR/pids list them"},
			&cli.StringFlag{Name: "exit-policy", Value: "all", Usage: "`POLICY` of the exits: all, web, reduced, none, or rules such as 'accept *:80, reject *:*'"},
			&cli.BoolFlag{Name: "dashboard", Usage: "serve a dashboard of the client, and print its address"},
			&cli.BoolFlag{Name: "self-test", Usage: "fetch the demo's page through the network, say how it went, and exit"},
			&cli.BoolFlag{Name: "tls-keylog", Usage: "write the secrets of the links' TLS sessions to DIR/tls-keys.log, for reading packet captures"},
			logLevelFlag("warn"),
		},
		Action: runDemo,
	}
}

func logLevelFlag(value string) cli.Flag {
	return &cli.StringFlag{Name: "log-level", Value: value, Usage: daemon.LogLevels}
}

func runDemo(c *cli.Context) error {
	program := c.Args().Slice()
	socks, err := netip.ParseAddrPort(c.String("socks"))
	switch {
	case err != nil:
		return usagef("--socks %q is not an IP address and port such as %s", c.String("socks"), daemon.DefaultSocks)
	case !socks.Addr().IsLoopback():
		return usagef("--socks %s is not a loopback address: whoever reaches the port could use this machine's network", socks)
	case c.Int("relays") < demo.MinRelays || c.Int("relays") > demo.MaxRelays:
		return usagef("--relays is %d: a demo has %d to %d relays", c.Int("relays"), demo.MinRelays, demo.MaxRelays)
	case c.Int("authorities") < 1 || c.Int("authorities") > demo.MaxAuthorities:
		return usagef("--authorities is %d: a demo has 1 to %d authorities", c.Int("authorities"), demo.MaxAuthorities)
	case len(program) > 0 && c.Bool("self-test"):
		return usagef("--self-test runs no program: leave out %q", strings.Join(program, " "))
	case c.Bool("tls-keylog") && c.String("dir") == "":
		return usagef("--tls-keylog needs --dir, so that the file outlives the demo")
	}
	if _, err := daemon.ParseLogLevel(c.String("log-level")); err != nil {
		return usagef("%v", err)
	}
	if err := daemon.CheckPolicy(c.String("exit-policy")); err != nil {
		return usagef("--exit-policy: %v", err)
	}
	if len(program) > 0 { // before a network is started for it
		if _, err := exec.LookPath(program[0]); err != nil {
			fmt.Fprintf(c.App.ErrWriter, "cepa: demo: %v\n", missingProgram(program[0], err))
			return statusError{exitNotFound}
		}
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	say := speaker(c.App.ErrWriter)
	defer procs.Govern()()
	d, err := demo.Start(ctx, demo.Options{
		Ports: c.StringSlice("port"), DNS: c.String("dns"),
		Relays: c.Int("relays"), Authorities: c.Int("authorities"), Socks: socks, AnySocks: !c.IsSet("socks") && (len(program) > 0 || c.Bool("self-test")),
		Dir: c.String("dir"), Processes: c.Bool("processes"), ExitPolicy: c.String("exit-policy"),
		LogLevel: c.String("log-level"), TLSKeyLog: c.Bool("tls-keylog"), Version: c.App.Version, Message: say,
	})
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted before the network was ready")
		}
		return fmt.Errorf("demo: %w", err)
	}
	defer d.Stop()
	if c.Bool("dashboard") {
		board, err := control.ServeDashboard(d.ClientDir(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		defer board.Close()
		say("The dashboard is at %s", board.URL())
	}
	switch {
	case c.Bool("self-test"):
		line, err := demo.SelfTest(ctx, d.Socks())
		if err != nil {
			return fmt.Errorf("demo: self-test: %w", err)
		}
		fmt.Fprintln(c.App.Writer, line)
		return nil
	case len(program) > 0:
		return runProgram(ctx, stop, d, program)
	}
	say("ready: a SOCKS5 proxy on %s; state in %s. Try:\n\n   curl --socks5-hostname %s http://%s/\n\nCtrl-C ends everything.", d.Socks(), d.Dir(), d.Socks(), demo.Hello)
	<-ctx.Done() // a node that dies is reported, and the rest goes on
	return nil
}

// runProgram lets Ctrl-C go to the program, and ends with it.
func runProgram(ctx context.Context, stop func(), d *demo.Demo, program []string) error {
	status, err := demo.RunProgram(ctx, d.Socks(), program)
	stop()
	if err != nil {
		return err
	}
	if status != 0 {
		return statusError{status}
	}
	return nil
}

// speaker writes lines for the person at the terminal.
func speaker(w io.Writer) func(format string, args ...any) {
	return func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
}
