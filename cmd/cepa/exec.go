package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
	"cepa/internal/confine"
)

// Exit statuses of 'cepa exec' when the program was not run, as shells have them.
const (
	exitNotFound  = 127
	exitCannotRun = 126
	exitConfine   = 125 // as of env(1) and timeout(1): the command itself failed
)

func socksFlag() cli.Flag {
	return &cli.StringFlag{Name: "socks", Value: daemon.DefaultSocks, Usage: "`ADDRESS` of a running client's SOCKS5 port", EnvVars: []string{"CEPA_SOCKS"}}
}

// missingProgram says that there is no such program; other errors stay as they are.
func missingProgram(name string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("there is no program %s: it is not installed, or not in PATH", name)
	}
	return err
}

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run any program so that it has no network but the overlay",
		ArgsUsage: "-- PROGRAM [ARGUMENT...]",
		Description: strings.TrimSpace(`
Runs PROGRAM in a network of its own (Linux): its TCP and its names go through a running
client, also when it knows nothing of proxies, and everything else it tries is blocked: UDP,
other name servers, pings, raw packets, Unix sockets of other programs. All that it starts ends
with it. No root is needed where the system permits user namespaces.

It is as safe as PROGRAM's hands are tied otherwise: files that it writes are real, and
another program may read them. --unix-sockets is for graphical programs; other programs that
listen on such sockets can then act for it, outside.

Exits with PROGRAM's status, or 125 (not confined, so not run), 126 or 127 (no such program).

Examples:

   cepa exec -- curl -sS http://hello.demo/
   cepa exec -- git clone https://example.com/repository.git
   cepa exec -- bash`),
		Flags: []cli.Flag{
			socksFlag(),
			&cli.BoolFlag{Name: "unix-sockets", Usage: "let the program use Unix sockets (graphical programs)"},
		},
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return usagef("'cepa exec' needs a program: cepa exec -- PROGRAM [ARGUMENT...]")
			}
			status, err := confine.Run(confine.Config{
				Socks: c.String("socks"), Program: c.Args().Slice(), UnixSockets: c.Bool("unix-sockets"),
			})
			switch {
			case errors.Is(err, exec.ErrNotFound), errors.Is(err, confine.ErrNoProgram) && errors.Is(err, fs.ErrNotExist):
				status = exitNotFound
			case errors.Is(err, confine.ErrNoProgram):
				status = exitCannotRun
			case err != nil:
				status = exitConfine
			}
			if err != nil {
				fmt.Fprintf(c.App.ErrWriter, "cepa: exec: %v\n", missingProgram(c.Args().First(), err))
			}
			if status != 0 {
				return statusError{status}
			}
			return nil
		},
	}
}
