package main

import (
	"flag"
	"strings"

	"github.com/urfave/cli/v2"
)

// The library prints flags by this variable. It is set before anything runs and not changed.
func init() { cli.FlagStringer = flagText }

// flagText is a flag as the help shows it: names with a placeholder, a tab, and what it does.
func flagText(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	var names []string
	for _, name := range f.Names() {
		if len(name) == 1 {
			name = "-" + name
		} else {
			name = "--" + name
		}
		if d.TakesValue() {
			name += " " + placeholder(f)
		}
		names = append(names, name)
	}
	text := strings.Join(names, ", ")
	if repeats(f) {
		text += " [ " + text + " ]"
	}
	text += "\t" + flagUsage(f)
	if value := flagDefault(f); value != "" {
		text += " (default: " + value + ")"
	}
	if variables := d.GetEnvVars(); len(variables) > 0 {
		text += " [$" + strings.Join(variables, ", $") + "]"
	}
	return text
}

// takesValue reports whether a flag is followed by its value.
func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// repeats reports whether a flag may be given several times.
func repeats(f cli.Flag) bool {
	s, ok := f.(cli.DocGenerationSliceFlag)
	return ok && s.IsSliceFlag()
}

// placeholder stands for a flag's value: what its usage has in backquotes, or what its kind is.
func placeholder(f cli.Flag) string {
	if d, ok := f.(cli.DocGenerationFlag); ok {
		if _, rest, ok := strings.Cut(d.GetUsage(), "`"); ok {
			if name, _, ok := strings.Cut(rest, "`"); ok {
				return name
			}
		}
	}
	switch f.(type) {
	case *cli.DurationFlag:
		return "TIME"
	case *cli.StringFlag, *cli.StringSliceFlag:
		return "TEXT"
	}
	return "NUMBER"
}

// flagUsage is what a flag does. A placeholder in front that names nothing but the value is left out.
func flagUsage(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	usage := strings.ReplaceAll(d.GetUsage(), "`", "")
	if takesValue(f) {
		usage = strings.TrimPrefix(usage, placeholder(f)+": ")
	}
	return usage
}

// flagDefault is the default of a flag; "" if it is nothing that one would want to read.
func flagDefault(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok || !d.TakesValue() {
		return ""
	}
	switch text := d.GetDefaultText(); text {
	case "0", "0s", `""`:
		return ""
	default:
		return strings.Trim(text, `"`)
	}
}

// commonFlag is a flag that urfave/cli has once for all apps, and writes to when it reads arguments: as it is, two apps in one
// program, such as two tests, could not run at a time.
type commonFlag struct{ *cli.BoolFlag }

// Apply implements cli.Flag.
func (f commonFlag) Apply(set *flag.FlagSet) error {
	own := *f.BoolFlag
	return own.Apply(set)
}

func init() {
	for _, f := range []*cli.Flag{&cli.HelpFlag, &cli.VersionFlag} {
		if b, ok := (*f).(*cli.BoolFlag); ok {
			*f = commonFlag{b}
		}
	}
}
