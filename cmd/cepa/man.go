package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
)

func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print a page of the manual, or write all of them",
		ArgsUsage: "[PAGE]",
		Description: strings.TrimSpace(`
The pages are made from the commands themselves: cepa, cepa-relay and so on, and of the settings files
cepa-relay.toml, cepa-client.toml and cepa-authority.toml. The packages of cepa bring them along.

Examples:

   cepa man cepa-relay
   cepa man --to /tmp/man

'man -M /tmp/man cepa-relay.toml' shows one then.`),
		Flags: []cli.Flag{&cli.StringFlag{Name: "to", Usage: "write all pages below `FOLDER`, such as /usr/local/share/man"}},
		Action: func(c *cli.Context) error {
			pages := manual(c.App)
			if c.IsSet("to") != (c.NArg() == 0) || c.NArg() > 1 {
				return usagef("'cepa man' needs one PAGE or --to FOLDER; the pages are %s", strings.Join(pageNames(pages), ", "))
			}
			if c.IsSet("to") {
				return writePages(c.String("to"), pages)
			}
			name := c.Args().First()
			for _, p := range pages {
				if p.name == name || p.file() == name {
					_, err := fmt.Fprint(c.App.Writer, p.text)
					return err
				}
			}
			return usagef("there is no page %q%s; the pages are %s", name, didYouMean(name, pageNames(pages)), strings.Join(pageNames(pages), ", "))
		},
	}
}

// manPage is one page of the manual.
type manPage struct {
	name    string
	section int
	text    string
}

func (p manPage) file() string { return p.name + "." + strconv.Itoa(p.section) }

func pageNames(pages []manPage) (names []string) {
	for _, p := range pages {
		names = append(names, p.name)
	}
	return names
}

func writePages(to string, pages []manPage) error {
	for _, p := range pages {
		dir := filepath.Join(to, "man"+strconv.Itoa(p.section))
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, p.file()), []byte(p.text), 0o644)
		}
		if err != nil {
			return fmt.Errorf("writing the manual: %w", err)
		}
	}
	return nil
}

// manual is every page.
func manual(app *cli.App) (pages []manPage) {
	date := manualDate()
	var names []string
	for _, c := range app.Commands {
		if !c.Hidden {
			names = append(names, "cepa-"+c.Name)
		}
	}
	pages = append(pages, manPage{"cepa", 1, mainPage(app, date, names)})
	for _, c := range app.Commands {
		if !c.Hidden {
			pages = append(pages, manPage{"cepa-" + c.Name, 1, commandPage(app, c, date)})
		}
	}
	for _, role := range roles {
		pages = append(pages, manPage{"cepa-" + role + ".toml", 5, settingsPage(app, role, date)})
	}
	return pages
}

// manualDate is when what the manual is about was made.
func manualDate() string {
	at := time.Now()
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil && s.Key == "vcs.time" {
				at = t
			}
		}
	}
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		at = time.Unix(seconds, 0)
	}
	return at.UTC().Format(time.DateOnly)
}

func mainPage(app *cli.App, date string, names []string) string {
	r := new(roff)
	r.title("cepa", 1, date, app.Version)
	r.section("name")
	r.line(`cepa \- %s`, roffText(app.Usage))
	r.section("synopsis")
	r.line("%s %s [%s...]", bold("cepa"), italic("command"), italic("argument"))
	r.section("description")
	r.description(app.Description)
	r.section("commands")
	for _, c := range app.Commands {
		if !c.Hidden {
			r.item(bold("cepa-"+c.Name)+"(1)", c.Usage)
		}
	}
	r.section("options")
	r.item(bold("--help")+", "+bold("-h"), "show help; of each command too")
	r.item(bold("--version")+", "+bold("-v"), "print the version")
	r.section("exit status")
	r.flow("0 when all went well, 1 when it did not, 2 for a mistake in the command line. The page of a command tells of others.")
	seeAlso(r, append(names, "cepa-relay.toml", "cepa-client.toml", "cepa-authority.toml"))
	return r.b.String()
}

func commandPage(app *cli.App, c *cli.Command, date string) string {
	r := new(roff)
	name := "cepa-" + c.Name
	r.title(name, 1, date, app.Version)
	r.section("name")
	r.line(`%s \- %s`, roffText(name), roffText(c.Usage))
	r.section("synopsis")
	all := []string{}
	var walk func(c *cli.Command, path string)
	walk = func(c *cli.Command, path string) {
		path += " " + c.Name
		if c.Action != nil && !isGroup(c) {
			all = append(all, synopsis(c, path))
		}
		for _, s := range c.Subcommands {
			walk(s, path)
		}
	}
	walk(c, "cepa")
	r.line("%s", strings.Join(all, "\n.br\n"))
	r.section("description")
	if c.Description == "" {
		r.flow(strings.ToUpper(c.Usage[:1]) + c.Usage[1:] + ".")
	}
	r.description(c.Description)
	if len(c.Flags) > 0 {
		r.section("options")
		r.flags(c.Flags)
	}
	if len(c.Subcommands) > 0 {
		r.section("commands")
		r.subcommands(c, "cepa "+c.Name)
	}
	also := []string{"cepa"}
	if slices.Contains(roles, c.Name) {
		also = append(also, name+".toml")
	}
	seeAlso(r, also)
	return r.b.String()
}

// isGroup reports whether a command only holds others.
func isGroup(c *cli.Command) bool { return len(c.Subcommands) > 0 && len(c.Flags) == 0 }

func synopsis(c *cli.Command, path string) string {
	text := bold(path)
	if len(c.Flags) > 0 {
		text += " [" + italic("option") + "...]"
	}
	if c.ArgsUsage != "" {
		text += " " + italic(c.ArgsUsage)
	}
	return text
}

func (r *roff) subcommands(c *cli.Command, path string) {
	for _, s := range c.Subcommands {
		at := path + " " + s.Name
		r.subsection(strings.TrimSpace(at + " " + s.ArgsUsage))
		r.flow(strings.ToUpper(s.Usage[:1]) + s.Usage[1:] + ".")
		if s.Description != "" {
			r.line(".PP")
			r.description(s.Description)
		}
		r.flags(s.Flags)
		r.subcommands(s, at)
	}
}

func (r *roff) flags(flags []cli.Flag) {
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		var names []string
		for _, name := range f.Names() {
			if len(name) == 1 {
				name = bold("-" + name)
			} else {
				name = bold("--" + name)
			}
			if takesValue(f) {
				name += " " + italic(placeholder(f))
			}
			names = append(names, name)
		}
		text := flagUsage(f)
		if repeats(f) {
			text += "; may be given several times"
		}
		if value := flagDefault(f); value != "" {
			text += " (default: " + value + ")"
		}
		if d, ok := f.(cli.DocGenerationFlag); ok && len(d.GetEnvVars()) > 0 {
			text += "; or in the environment: " + strings.Join(d.GetEnvVars(), ", ")
		}
		r.item(strings.Join(names, ", "), text)
	}
}

func settingsPage(app *cli.App, role, date string) string {
	r := new(roff)
	name := "cepa-" + role + ".toml"
	r.title(name, 5, date, app.Version)
	r.section("name")
	r.line(`%s \- %s`, roffText(name), roffText("settings of a cepa "+role))
	r.section("description")
	r.flow(fmt.Sprintf("The file that 'cepa %s --config FILE' reads, in TOML: name = value, one a line. 'cepa config new %s' prints one with all that stands here, "+
		"and 'cepa config check FILE' looks for mistakes. Relative paths are relative to the file. A flag (--log-level) wins over the environment (CEPA_%s_LOG_LEVEL), "+
		"which wins over the file.", role, role, strings.ToUpper(role)))
	r.line(".PP")
	r.flow("A change of what is marked [reload] is taken on SIGHUP; the rest needs a restart.")
	r.section("settings")
	for _, s := range daemon.Settings(daemon.NewConfig(role)) {
		text := s.Help
		if s.Default != "" && s.Default != `""` && s.Default != "[]" {
			text += " Default: " + s.Default + "."
		}
		if s.Live {
			text += " [reload]"
		}
		r.item(bold(s.Name), text)
	}
	r.section("files")
	r.item("/etc/cepa/"+role+".toml", "where the packages have it")
	seeAlso(r, []string{"cepa-" + role, "cepa-config"})
	return r.b.String()
}

func seeAlso(r *roff, names []string) {
	r.section("see also")
	for i, name := range names {
		section, end := 1, ","
		if strings.HasSuffix(name, ".toml") {
			section = 5
		}
		if i == len(names)-1 {
			end = ""
		}
		r.line(".BR %s (%d)%s", roffText(name), section, end)
	}
}
