package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

//go:embed completion
var completionScripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print what a shell needs to complete commands, flags and files of cepa",
		ArgsUsage: strings.Join(shells, "|"),
		Description: strings.TrimSpace(`
The packages of cepa bring it along. Elsewhere, for this shell alone or for each that you start:

   source <(cepa completion bash)                                   # or put this line into ~/.bashrc
   source <(cepa completion zsh)                                    # in ~/.zshrc, after compinit
   cepa completion fish > ~/.config/fish/completions/cepa.fish

Example:

   cepa completion bash`),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 || !slices.Contains(shells, c.Args().First()) {
				return usagef("'cepa completion' needs one of %s%s", strings.Join(shells, ", "), didYouMean(c.Args().First(), shells))
			}
			text, err := completionScripts.ReadFile("completion/cepa." + c.Args().First())
			if err == nil {
				_, err = c.App.Writer.Write(text)
			}
			return err
		},
	}
}

// completeCommand answers the scripts: its arguments are the words behind cepa up to the cursor, of which the last may
// be unfinished. The first line that it prints is a kind, those after it are candidates with what they mean.
func completeCommand() *cli.Command {
	return &cli.Command{
		Name:   "complete",
		Usage:  "say what the words of a command line can become, for the scripts of shells",
		Hidden: true,
		Description: strings.TrimSpace(`
Example:

   cepa complete -- relay --log-l`),
		Action: func(c *cli.Context) error {
			what, list := complete(c.App, c.Args().Slice())
			fmt.Fprintln(c.App.Writer, what)
			for _, one := range list {
				fmt.Fprintf(c.App.Writer, "%s\t%s\n", one.word, one.text)
			}
			return nil
		},
	}
}

// kind says what completes a word.
type kind string

const (
	ofWords    kind = "words" // the candidates, or nothing if there are none
	ofFiles    kind = "files"
	ofFolders  kind = "folders"
	ofCommands kind = "commands" // programs of this machine
)

type candidate struct{ word, text string }

// complete finds what the last of words can become.
func complete(app *cli.App, words []string) (kind, []candidate) {
	last := ""
	if len(words) > 0 {
		last, words = words[len(words)-1], words[:len(words)-1]
	}
	var (
		command   *cli.Command
		commands  = app.Commands
		flags     = app.Flags
		waiting   cli.Flag // takes the next word as its value
		arguments int
		ended     bool // by --
	)
	for _, word := range words {
		switch {
		case waiting != nil:
			if word != "=" { // bash makes a word of it
				waiting = nil
			}
		case ended:
			arguments++
		case word == "--":
			ended = true
		case strings.HasPrefix(word, "-") && word != "-":
			name, _, inline := strings.Cut(strings.TrimLeft(word, "-"), "=")
			if f := flagNamed(flags, name); f != nil && takesValue(f) && !inline {
				waiting = f
			}
		default:
			i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
			if i < 0 || arguments > 0 {
				arguments++
				continue
			}
			command = commands[i]
			commands, flags = command.Subcommands, command.Flags
		}
	}
	switch {
	case waiting != nil && last == "=":
		return ofWords, nil
	case waiting != nil:
		return ofValue(placeholder(waiting), last)
	case !ended && strings.HasPrefix(last, "-"):
		return ofWords, flagCandidates(flags, last)
	case len(commands) > 0 && arguments == 0 && !ended:
		var list []candidate
		for _, c := range commands {
			if !c.Hidden && strings.HasPrefix(c.Name, last) {
				list = append(list, candidate{c.Name, c.Usage})
			}
		}
		return ofWords, list
	case command != nil:
		return ofArgument(command, last, arguments, ended)
	}
	return ofWords, nil
}

// ofArgument completes an argument by what the command says of its arguments.
func ofArgument(c *cli.Command, last string, before int, ended bool) (kind, []candidate) {
	usage := c.ArgsUsage
	if strings.Contains(usage, "-- PROGRAM") {
		if before == 0 {
			return ofCommands, nil
		}
		return ofFiles, nil
	}
	if before > 0 && !strings.Contains(usage, "...") || ended && strings.Contains(usage, "[--") {
		return ofWords, nil
	}
	switch strings.Trim(usage, "[].") {
	case "DIR":
		return ofFolders, nil
	case "FILE", "FILE FILE", "SCENARIO":
		return ofFiles, nil
	}
	if strings.Contains(usage, "|") && strings.ToLower(usage) == usage {
		return ofWords, beginning(last, strings.Split(usage, "|")...)
	}
	return ofWords, nil
}

// ofValue completes the value of a flag by its placeholder.
func ofValue(placeholder, last string) (kind, []candidate) {
	switch placeholder {
	case "FILE", "KEY":
		return ofFiles, nil
	case "DIR", "FOLDER":
		return ofFolders, nil
	case "PROGRAM":
		return ofCommands, nil
	case "LEVEL":
		return ofWords, beginning(last, "debug", "info", "warn", "error")
	case "FORMAT":
		return ofWords, beginning(last, "text", "json")
	case "POLICY":
		return ofWords, beginning(last, "none", "web", "reduced", "full")
	case "ROLE":
		return ofWords, beginning(last, roles...)
	}
	return ofWords, nil
}

func beginning(with string, words ...string) (list []candidate) {
	for _, w := range words {
		if strings.HasPrefix(w, with) {
			list = append(list, candidate{word: w})
		}
	}
	return list
}

func flagCandidates(flags []cli.Flag, last string) (list []candidate) {
	name := strings.TrimLeft(last, "-")
	for _, f := range append(slices.Clone(flags), cli.HelpFlag) {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() || len(list) > 0 && list[len(list)-1].word == "--"+f.Names()[0] {
			continue
		}
		if long := f.Names()[0]; strings.HasPrefix(long, name) {
			list = append(list, candidate{"--" + long, flagUsage(f)})
		}
	}
	return list
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}
