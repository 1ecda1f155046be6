package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/control"
)

// Exit statuses of `cepa doctor` when it did its work and found something.
const (
	exitDoctorWarning = 3
	exitDoctorError   = 4
)

// doctorTimeout bounds each question to the node.
const doctorTimeout = 10 * time.Second

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "look at a running node and its machine, and say what is wrong and what to do",
		ArgsUsage: "DIR",
		Description: strings.TrimSpace(`
Asks the node whose state is in DIR, over its control socket, looks at the machine, and prints one
line for each thing that it looked at. It asks nobody else, changes nothing, and takes as long as
--sample says: what the node does is seen by asking twice.

Exit status: 0 all is well, 3 there are warnings, 4 there are errors, 1 the doctor could not work.

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client
   cepa doctor /tmp/overlay/client`),
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "sample", Value: 3 * time.Second, Usage: "watch the node for so long"},
			&cli.BoolFlag{Name: "json", Usage: "the findings as one JSON object"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return usagef("'cepa doctor' needs the node's DIR")
			}
			if d := c.Duration("sample"); d < 0 || d > time.Hour {
				return usagef("--sample %v is not from 0s to 1h", d)
			}
			f, err := examine(c.Context, c.Args().First(), c.Duration("sample"))
			if err != nil {
				return err
			}
			found := diagnose(f)
			show := printDiagnosis
			if c.Bool("json") {
				show = printDiagnosisJSON
			}
			if err := show(c.App.Writer, found); err != nil {
				return err
			}
			switch worst(found) {
			case levelWarning:
				return statusError{exitDoctorWarning}
			case levelError:
				return statusError{exitDoctorError}
			}
			return nil
		},
	}
}

// examine gathers what the checks look at.
func examine(ctx context.Context, dir string, sample time.Duration) (facts, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return facts{}, fmt.Errorf("looking at the node: %w; DIR is the folder in its settings, as for 'cepa status'", err)
	}
	if !info.IsDir() {
		return facts{}, fmt.Errorf("looking at the node: %s is a file; DIR is the folder with the node's state", dir)
	}
	f := facts{dir: dir, mode: info.Mode(), diskFree: -1, memory: -1}
	if free, ok := diskFree(dir); ok {
		f.diskFree = free
	}
	if total, ok := machineMemory(); ok {
		f.memory = total
	}
	f.notAsked = f.ask(ctx, sample)
	f.now = time.Now()
	return f, ctx.Err()
}

// ask asks the node twice.
func (f *facts) ask(ctx context.Context, sample time.Duration) (err error) {
	last, cancel := context.WithTimeout(ctx, sample+2*doctorTimeout)
	defer cancel()
	if f.before, err = control.GetCounters(last, f.dir); err != nil {
		return err
	}
	from := time.Now()
	select {
	case <-time.After(sample):
	case <-last.Done():
		return last.Err()
	}
	if f.after, err = control.GetCounters(last, f.dir); err != nil {
		return err
	}
	f.over = time.Since(from)
	f.status, err = control.GetStatus(last, f.dir)
	return err
}

// level says how bad a finding is.
type level int

const (
	levelOK level = iota
	levelUnknown
	levelWarning
	levelError
)

var levelNames = [...]string{"ok", "unknown", "warning", "error"}

func (l level) String() string { return levelNames[l] }

// MarshalText makes it a word in JSON.
func (l level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// finding is what one check came to.
type finding struct {
	Check      string `json:"check"`
	Level      level  `json:"level"`
	Finding    string `json:"finding"`
	Suggestion string `json:"suggestion,omitempty"`
}

// worst is the level of the worst finding; what is unknown is not bad.
func worst(list []finding) level {
	w := levelOK
	for _, f := range list {
		if f.Level > levelUnknown {
			w = max(w, f.Level)
		}
	}
	return w
}

func printDiagnosis(w io.Writer, list []finding) error {
	var errs []error
	bad := 0
	for _, f := range list {
		name := f.Level.String()
		if f.Level > levelUnknown {
			name, bad = strings.ToUpper(name), bad+1
		}
		_, err := fmt.Fprintf(w, "%-8s %-10s %s\n", name, f.Check, f.Finding)
		errs = append(errs, err)
		if f.Suggestion != "" {
			_, err := fmt.Fprintf(w, "%-8s %-10s do: %s\n", "", "", f.Suggestion)
			errs = append(errs, err)
		}
	}
	last := "nothing is wrong that could be seen from here"
	if bad > 0 {
		last = fmt.Sprintf("%d of %d things need a look", bad, len(list))
	}
	_, err := fmt.Fprintln(w, last)
	return errors.Join(append(errs, err)...)
}

func printDiagnosisJSON(w io.Writer, list []finding) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Worst    level     `json:"worst"`
		Findings []finding `json:"findings"`
	}{worst(list), list})
}
