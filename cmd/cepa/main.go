// Command cepa runs the nodes of an onion-routing overlay network: a whole network on one
// machine (demo), a relay, a client with a SOCKS5 port, a directory authority, and what is needed
// to found a network and to look at it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/internal/confine"
)

// Exit statuses. `cepa demo -- PROGRAM` exits with PROGRAM's instead.
const (
	exitFailure = 1
	exitUsage   = 2
)

// usageError is a mistake in the command line: exit status 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// statusError carries the exit status of a program that cepa ran.
type statusError struct{ status int }

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

func main() {
	confine.Hook()
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main with its world as arguments; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	ordered, err := reorder(app, args)
	if err == nil {
		err = app.Run(ordered)
	}
	var status statusError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return status.status
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "cepa: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "cepa: %v\n", err)
	return exitFailure
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:      "cepa",
		Usage:     "an anonymizing onion-routing overlay network",
		Version:   version(),
		Writer:    stdout,
		ErrWriter: stderr,
		Description: strings.TrimSpace(`
Try it first, on this machine alone:

   cepa demo -- curl -sS http://hello.demo/

See 'cepa COMMAND --help' for each command, with an example that works when pasted.`),
		Commands:        []*cli.Command{demoCommand(), relayCommand(), clientCommand(), authorityCommand(), configCommand(), networkCommand(), directoryCommand(), keysCommand(), statusCommand(), topCommand(), dashboardCommand(), circuitsCommand(), newnymCommand(), logCommand(), doctorCommand(), simCommand(), execCommand(), connectCommand(), browseCommand(), checkCommand(), completionCommand(), manCommand(), completeCommand()},
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {}, // run decides
		CommandNotFound: func(*cli.Context, string) {},
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError{err.Error()} },
		Action: func(c *cli.Context) error {
			return cli.ShowAppHelp(c)
		},
	}
	for _, c := range app.Commands {
		finish(c)
	}
	return app
}

// finish gives every command the same manners.
func finish(c *cli.Command) {
	c.HideHelpCommand = true
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError{err.Error()} }
	for _, s := range c.Subcommands {
		finish(s)
	}
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = func(ctx *cli.Context) error { return cli.ShowSubcommandHelp(ctx) }
	}
}
