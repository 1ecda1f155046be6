package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/control"
)

// controlFlag lets commands ask a node by another way than the socket in its folder.
func controlFlag() cli.Flag {
	return &cli.StringFlag{Name: "control", EnvVars: []string{"CEPA_CONTROL"}, Usage: "ask the node at `WHERE`, not DIR: unix:PATH of its control socket, the path of its " +
		"control.port file, or HOST:PORT with the token in CEPA_CONTROL_TOKEN"}
}

// asked is a node that a command asks, with what errors say of it.
type asked struct {
	*control.Client
	where string // the argument again, for commands that a text names
}

// askNode makes a client of the node that the command line names. The caller closes it.
func askNode(c *cli.Context) (*asked, error) {
	at := c.String("control")
	switch {
	case at != "" && c.Args().Present() && c.IsSet("control") && !fromEnvironment(at):
		return nil, usagef("'cepa %s' takes DIR or --control, not both", c.Command.Name)
	case c.Args().Len() == 1:
		return &asked{control.NewClient(c.Args().First()), c.Args().First()}, nil
	case c.Args().Present() || at == "":
		return nil, usagef("'cepa %s' needs the node's DIR: the folder that it was started with as --dir; a demo's client is in the demo's --dir as client", c.Command.Name)
	}
	if info, err := os.Stat(at); err == nil && info.Mode().IsRegular() {
		client, err := control.NewPortClientOf(at)
		return &asked{client, "--control " + at}, err
	}
	client, err := control.NewClientAt(at, os.Getenv("CEPA_CONTROL_TOKEN"))
	if err != nil {
		return nil, usagef("--control: %v", err)
	}
	return &asked{client, "--control " + at}, nil
}

func fromEnvironment(at string) bool { return os.Getenv("CEPA_CONTROL") == at }

// nodeError says what to do when there is nobody to ask, or the node has no such thing.
func (a *asked) nodeError(err error) error {
	var status *control.StatusError
	switch {
	case errors.Is(err, control.ErrForbidden):
		return fmt.Errorf("%w: the node's folder belongs to another user; run this as that user ('sudo -u USER cepa ...')", err)
	case errors.Is(err, control.ErrNotRunning):
		return fmt.Errorf("%w; %s", err, whatInstead(a.where))
	case errors.As(err, &status) && status.Status == 404:
		return fmt.Errorf("%w; give the DIR of one", err)
	case errors.As(err, &status) && status.Status == 401:
		return fmt.Errorf("%w; the token is new with each start of the node: see control.port in its folder", err)
	}
	return err
}

// whatInstead says what to do when no node runs in a folder.
func whatInstead(dir string) string {
	if strings.HasPrefix(dir, "--control ") {
		return "start it, or look where it listens"
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "there is not even such a folder: DIR is what the node was started with as --dir"
	case !info.IsDir():
		return "that is a file: DIR is the folder that the node was started with as --dir"
	}
	var inside []string
	sockets, _ := filepath.Glob(filepath.Join(dir, "*", "control.*"))
	for _, s := range sockets {
		if d := filepath.Dir(s); !slices.Contains(inside, d) {
			inside = append(inside, d)
		}
	}
	if i := slices.IndexFunc(inside, func(d string) bool { return filepath.Base(d) == "client" || filepath.Base(d) == "state" }); i > 0 {
		inside[0], inside[i] = inside[i], inside[0]
	}
	switch len(inside) {
	case 0:
		return "start it, or give the DIR of one that runs"
	case 1:
		return "give the folder in it, " + inside[0]
	}
	return fmt.Sprintf("it holds the folders of %d nodes: give one of those, such as %s", len(inside), inside[0])
}
