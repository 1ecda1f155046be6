package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/internal/browser"
	"cepa/internal/socksclient"
)

func browseCommand() *cli.Command {
	return &cli.Command{
		Name:      "browse",
		Usage:     "open a browser whose pages come through the overlay",
		ArgsUsage: "[URL] [-- BROWSER-OPTION...]",
		Description: strings.TrimSpace(`
Starts an installed Firefox or Chromium with a profile that is new and is deleted at the end:
its proxy is a running client, which also resolves its names; WebRTC, QUIC, prefetching,
updates and reports are off. Other windows of the browser are not touched.

It is not a browser made for anonymity: sites can tell it from others by its size, fonts and
version, and what you type into a page says who you are.

Example:

   cepa browse http://hello.demo/`),
		Flags: []cli.Flag{
			socksFlag(),
			&cli.StringFlag{Name: "browser", Usage: "`PROGRAM` to use: a Firefox or a Chromium (default: the first that is installed)"},
		},
		Action: runBrowse,
	}
}

func runBrowse(c *cli.Context) error {
	args := c.Args().Slice()
	page := "about:blank"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		page, args = args[0], args[1:]
		if u, err := url.Parse(page); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return usagef("%q is no http or https URL", page)
		}
	}
	socks, err := netip.ParseAddrPort(c.String("socks"))
	if err != nil {
		return usagef("--socks %q is not an IP address and port", c.String("socks"))
	}
	program, err := browser.Find(c.String("browser"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, 20*time.Second)
	defer cancel()
	if err := (socksclient.Dialer{Address: socks.String()}).Check(ctx); err != nil {
		return err
	}
	profile, err := os.MkdirTemp("", "cepa-browse-")
	if err != nil {
		return fmt.Errorf("making a profile: %w", err)
	}
	defer removeProfile(profile)
	cmd, err := program.Command(filepath.Join(profile, "profile"), socks, page, args)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c.App.Writer, c.App.ErrWriter
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", program.Path, err)
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
				_ = cmd.Process.Signal(os.Interrupt)
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return statusError{max(exit.ExitCode(), exitFailure)}
	}
	return err
}

// removeProfile deletes the profile; a browser's last processes may still write there for a moment.
func removeProfile(dir string) {
	for range 20 {
		if os.RemoveAll(dir) == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}
