package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/control"
)

func dashboardCommand() *cli.Command {
	return &cli.Command{
		Name:      "dashboard",
		Usage:     "watch a running node in a browser",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Prints the address of a page that shows the node whose state is in DIR, live: how far it is,
its traffic, circuits, the relays of the network, the log; and has a client take a new
identity. The address holds a token: give it to nobody. The page is on a port of this machine
alone, which this command serves until Ctrl-C; the node may restart meanwhile. A node with a
control port (listen in [control] of its settings) serves the page itself: then the command
prints the address and ends.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client
   cepa dashboard /tmp/overlay/client`),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "the node's `DIR`, in place of the argument"},
			&cli.BoolFlag{Name: "open", Usage: "open the page in the browser of this desktop"},
			&cli.BoolFlag{Name: "print", Usage: "print the address and nothing else, for programs"},
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:0", Usage: "loopback `ADDRESS` to serve on, whether or not the node has a control port; port 0 is any that is free"},
		},
		Action: runDashboard,
	}
}

func runDashboard(c *cli.Context) error {
	dir, err := dashboardDir(c)
	if err != nil {
		return err
	}
	listen, err := netip.ParseAddrPort(c.String("listen"))
	if err != nil || !listen.Addr().IsLoopback() {
		return usagef("--listen %q is not a loopback address and port such as 127.0.0.1:9852; to see the page from another machine, forward the port with ssh -L", c.String("listen"))
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := control.GetStatus(ctx, dir); err != nil {
		return (&asked{where: dir}).nodeError(err)
	}
	address, err := "", errors.New("--listen asks for a port of its own")
	if !c.IsSet("listen") {
		address, err = control.PortDashboard(ctx, dir)
	}
	served := err != nil
	if served {
		board, err := control.ServeDashboard(dir, listen)
		if err != nil {
			return err
		}
		defer board.Close()
		address = board.URL()
	}
	switch {
	case c.Bool("print"):
		fmt.Fprintln(c.App.Writer, address)
	case served:
		fmt.Fprintf(c.App.Writer, "The dashboard, until Ctrl-C:\n\n   %s\n\nWhoever has this address can do what the page can: give it to nobody.\n", address)
	default:
		fmt.Fprintf(c.App.Writer, "The dashboard, on the node's control port, until the node ends:\n\n   %s\n\nWhoever has this address can do what the page can: give it to nobody.\n", address)
	}
	if c.Bool("open") {
		door, err := openDashboard(dir, address, c.App.ErrWriter)
		if err != nil {
			fmt.Fprintf(c.App.ErrWriter, "cepa: %v; open the address above yourself\n", err)
		} else {
			defer os.Remove(door)
		}
		if !served && err == nil {
			select { // the browser has this long to read the page that leads to the address
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			}
		}
	}
	if served {
		<-ctx.Done() // Ctrl-C is how it ends
	}
	return nil
}

// dashboardDir is the node's folder, as argument or flag.
func dashboardDir(c *cli.Context) (string, error) {
	dir := c.String("dir")
	switch {
	case dir == "" && c.Args().Len() == 1:
		return c.Args().First(), nil
	case dir == "":
		return "", usagef("'cepa dashboard' needs the node's DIR: the folder that it was started with as --dir; a demo's client is in the demo's --dir as client")
	case c.Args().Present():
		return "", usagef("'cepa dashboard' takes one DIR: leave out --dir or %q", c.Args().First())
	}
	return dir, nil
}

// openDashboard has the desktop open a file that leads to the address: what stands in a command line can be read by every
// user of the machine. It returns the file.
func openDashboard(dir, address string, stderr io.Writer) (string, error) {
	var name string
	var args []string
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler"}
	default:
		name = "xdg-open"
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("no %s here to open a browser with (Debian package xdg-utils)", name)
	}
	door, err := control.WriteDoor(dir, address)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, append(args, door)...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		os.Remove(door)
		return "", fmt.Errorf("opening a browser: %w", err)
	}
	go func() {
		if err := cmd.Wait(); err != nil {
			fmt.Fprintf(stderr, "cepa: opening a browser: %s: %v; open the address above yourself\n", name, err)
		}
	}()
	return door, nil
}
