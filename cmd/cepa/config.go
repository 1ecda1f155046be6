package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
)

var roles = []string{"relay", "client", "authority"}

func configCommand() *cli.Command {
	show := &cli.Command{
		Name:        "show",
		Usage:       "show the settings in force, and where each comes from",
		Description: "Takes the flags of the node's command, and shows what it would run with.",
	}
	for _, role := range roles {
		show.Subcommands = append(show.Subcommands, &cli.Command{
			Name:  role,
			Usage: "show the settings of a " + role,
			Description: fmt.Sprintf(`Each setting with its value, and whether that is of a flag, the environment, the file or the default.

Example:

   CEPA_%s_LOG_LEVEL=warn cepa config show %s --memory 64`, strings.ToUpper(role), role),
			Flags:  settingFlags(role),
			Action: func(c *cli.Context) error { return configShow(c, role) },
		})
	}
	return &cli.Command{
		Name:  "config",
		Usage: "make, check and show settings files",
		Subcommands: []*cli.Command{
			{
				Name:      "new",
				Usage:     "make a settings file with every setting and its default",
				ArgsUsage: "relay|client|authority",
				Description: strings.TrimSpace(`
Prints a settings file in which each setting stands with what it does and its default, or writes it
with --out. It never replaces a file.

Example:

   cepa config new relay`),
				Flags:  []cli.Flag{&cli.StringFlag{Name: "out", Usage: "write to this `FILE`, which must not exist"}},
				Action: configNew,
			},
			{
				Name:      "check",
				Usage:     "find mistakes in a settings file",
				ArgsUsage: "FILE",
				Description: strings.TrimSpace(`
Reads a settings file as the node would, with the files that it names, and opens nothing. Exit status
0 says that a start with it gets as far as opening its port.

Example:

   cepa config new client > /tmp/client.toml
   cepa config check --as client /tmp/client.toml || echo 'the network file is missing'`),
				Flags:  []cli.Flag{&cli.StringFlag{Name: "as", Usage: "whose settings: relay, client or authority, if the file does not show it; `ROLE`"}},
				Action: configCheck,
			},
			show,
		},
	}
}

func role(name string) error {
	if !slices.Contains(roles, name) {
		return usagef("%q is not %s%s", name, strings.Join(roles, ", "), didYouMean(name, roles))
	}
	return nil
}

func configNew(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("'cepa config new' needs one of %s; see 'cepa config new --help'", strings.Join(roles, ", "))
	}
	if err := role(c.Args().First()); err != nil {
		return err
	}
	text := daemon.CommentedFile(daemon.NewConfig(c.Args().First()))
	out := c.String("out")
	if out == "" {
		_, err := fmt.Fprint(c.App.Writer, text)
		return err
	}
	if err := daemon.WriteNewFile(out, []byte(text)); err != nil {
		return fmt.Errorf("making a settings file: %w", err)
	}
	fmt.Fprintf(c.App.Writer, "%s\n   set network and dir in it; 'cepa config check %s' looks for mistakes,\n   'cepa %s --config %s' runs with it\n", out, out, c.Args().First(), out)
	return nil
}

func configCheck(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("'cepa config check' needs one FILE; see 'cepa config check --help'")
	}
	path, as := c.Args().First(), c.String("as")
	if as == "" {
		as = daemon.GuessRole(path)
	} else if err := role(as); err != nil {
		return err
	}
	config := daemon.NewConfig(as)
	from, _, err := daemon.Layers{File: path}.Resolve(config)
	if err != nil {
		return err
	}
	if err := daemon.CheckConfig(config); err != nil {
		if located := daemon.Blame(config, from, err); located != err {
			return located
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(c.App.Writer, "%s: these settings of a %s are good\n", path, as)
	return nil
}

func configShow(c *cli.Context, role string) error {
	if c.Args().Present() {
		return usagef("'cepa config show %s' takes no argument %q; a file is given with --config", role, c.Args().First())
	}
	config, from, warnings, err := resolve(c, role)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(c.App.ErrWriter, "cepa: "+w)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, s := range daemon.Settings(config) {
		fmt.Fprintf(w, "%s\t%s\t# %s\n", s.Name, s.Text(config), from[s.Name])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if from["network"] != "not set" && from["dir"] != "not set" {
		if err := daemon.CheckConfig(config); err != nil {
			return fmt.Errorf("with these settings the node would not start: %w", daemon.Blame(config, from, err))
		}
	}
	return nil
}

// executable is the program itself, for texts that name it.
func executable() string {
	path, err := os.Executable()
	if err != nil {
		return "cepa"
	}
	return path
}
