package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"cepa/nearest"
)

// reorder moves the flags of a command line in front of its positional arguments, because
// urfave/cli v2 stops looking for flags at the first argument. "--" ends the flags. It also
// finds unknown commands and flags, and names the nearest that exists.
func reorder(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	out, rest := []string{args[0]}, args[1:]
	if len(rest) > 0 { // what other programs call so
		switch rest[0] {
		case "help":
			rest = append(slices.Clone(rest[1:]), "--help")
		case "version":
			rest = append([]string{"--version"}, rest[1:]...)
		}
	}
	commands, flags, path := app.Commands, app.Flags, "cepa"
	for len(commands) > 0 && len(rest) > 0 {
		word := rest[0]
		if strings.HasPrefix(word, "-") && word != "-" {
			n, err := flagWords(flags, rest, path)
			if err != nil {
				return nil, err
			}
			out, rest = append(out, rest[:n]...), rest[n:]
			continue
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
		if i < 0 && path == "cepa relay" {
			return nil, usagef("'cepa relay' takes no argument %q%s; see 'cepa relay --help'", word, didYouMean(word, []string{"setup"}))
		}
		if i < 0 {
			var names []string
			for _, c := range commands {
				if !c.Hidden {
					names = append(names, c.Name)
				}
			}
			return nil, usagef("there is no command %q%s; see '%s --help'", strings.TrimSpace(path[len("cepa"):]+" "+word), didYouMean(word, names), path)
		}
		c := commands[i]
		out, rest, path = append(out, word), rest[1:], path+" "+c.Name
		commands, flags = c.Subcommands, c.Flags
	}
	if len(commands) > 0 {
		return append(out, rest...), nil
	}
	var positional []string
	ended := false
	for len(rest) > 0 {
		word := rest[0]
		switch {
		case word == "--":
			ended = true
			positional, rest = append(positional, rest[1:]...), nil
		case strings.HasPrefix(word, "-") && word != "-":
			n, err := flagWords(flags, rest, path)
			if err != nil {
				return nil, err
			}
			out, rest = append(out, rest[:n]...), rest[n:]
		default:
			positional, rest = append(positional, word), rest[1:]
		}
	}
	if ended || len(positional) > 0 {
		out = append(append(out, "--"), positional...)
	}
	return out, nil
}

// flagWords returns how many words of rest the flag at its head takes: 1 or 2.
func flagWords(flags []cli.Flag, rest []string, path string) (int, error) {
	name, _, inline := strings.Cut(strings.TrimLeft(rest[0], "-"), "=")
	if name == "help" || name == "h" || path == "cepa" && slices.Contains([]string{"version", "v"}, name) {
		return 1, nil
	}
	var names []string
	for _, f := range flags {
		if !slices.Contains(f.Names(), name) {
			if v, ok := f.(cli.VisibleFlag); !ok || v.IsVisible() {
				names = append(names, f.Names()...)
			}
			continue
		}
		if d, ok := f.(cli.DocGenerationFlag); ok && !d.TakesValue() || inline {
			return 1, nil
		}
		if len(rest) < 2 {
			return 0, usagef("--%s needs a value; see '%s --help'", name, path)
		}
		return 2, nil
	}
	return 0, usagef("'%s' has no flag --%s%s; see '%s --help'", path, name, didYouMean(name, names), path)
}

// didYouMean names the nearest candidate, if one is near.
func didYouMean(word string, candidates []string) string {
	if name := nearest.Name(word, candidates); name != "" {
		return " (did you mean " + name + "?)"
	}
	return ""
}
