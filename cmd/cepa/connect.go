package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/internal/socksclient"
)

func connectCommand() *cli.Command {
	return &cli.Command{
		Name:      "connect",
		Usage:     "join standard input and output with HOST PORT, through the overlay",
		ArgsUsage: "HOST PORT",
		Description: strings.TrimSpace(`
Opens one stream through a running client and copies standard input to it, and it to standard
output, until both have ended. The name is resolved at the exit. Streams to different
destinations use different circuits.

It serves as a ProxyCommand of ssh, on the command line or in ~/.ssh/config:

   ssh -o ProxyCommand='cepa connect %h %p' user@example.com

Example:

   printf 'GET / HTTP/1.0\r\n\r\n' | cepa connect hello.demo 80`),
		Flags: []cli.Flag{
			socksFlag(),
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "wait this long for the stream to be open"},
		},
		Action: runConnect,
	}
}

func runConnect(c *cli.Context) error {
	if c.Args().Len() != 2 {
		return usagef("'cepa connect' needs HOST and PORT and nothing else: cepa connect hello.demo 80")
	}
	host := strings.TrimSuffix(strings.TrimPrefix(c.Args().Get(0), "["), "]")
	port, err := strconv.ParseUint(c.Args().Get(1), 10, 16)
	if err != nil || port == 0 {
		return usagef("'cepa connect': %q is no port, 1 to 65535", c.Args().Get(1))
	}
	destination := net.JoinHostPort(host, strconv.FormatUint(port, 10))
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	// A key of its own keeps the stream off the circuits of other programs.
	stream, err := socksclient.Dialer{Address: c.String("socks"), User: "cepa connect " + destination + " " + rand.Text()[:8]}.Dial(ctx, host, uint16(port))
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not open after %v", c.Duration("timeout"))
	}
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", destination, err)
	}
	defer stream.Close()
	if err := join(stream, os.Stdin, c.App.Writer); err != nil {
		return fmt.Errorf("connection to %s: %w", destination, err)
	}
	return nil
}

// join copies both ways. The end of in is passed on as the end of what is sent; it returns when the stream has ended,
// whether or not in has.
func join(stream *socksclient.Conn, in io.Reader, out io.Writer) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream.TCPConn, in)
		_ = stream.CloseWrite()
		sent <- err
	}()
	_, err := io.Copy(out, stream.TCPConn)
	if err != nil {
		return err
	}
	select {
	case err = <-sent:
		return err
	default: // nobody reads what still comes
		return nil
	}
}
