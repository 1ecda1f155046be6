package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"cepa/simnet"
	"cepa/simnet/lab"
	"cepa/simnet/record"
	"cepa/simnet/scenario"
)

func simRunCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a scenario",
		ArgsUsage: "SCENARIO",
		Description: strings.TrimSpace(`
SCENARIO is a file, or the name of one that comes with cepa (see 'cepa sim list'). Without --out it
only says how it went. Exits with 1 when a checker finds something that must not happen. Ctrl-C ends
the run where it is and writes what there is.

Examples:

   cepa sim run quick --seed 1 --out /tmp/sim
   cepa sim show quick > /tmp/sim.toml
   cepa sim run /tmp/sim.toml --seed 7 --stream churn=8 --out /tmp/sim --force`),
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "decides the whole run"},
			&cli.StringSliceFlag{Name: "stream", Usage: "`NAME=SEED`: another seed for one stream of randomness (" + strings.Join(simnet.StreamNames, ", ") + "), so that the others stay as they are; may be there several times"},
			&cli.StringFlag{Name: "out", Usage: "write tables, manifest and report into `DIR`, which is made if missing and must be empty"},
			&cli.BoolFlag{Name: "force", Usage: "replace the run that is in DIR"},
			&cli.StringFlag{Name: "crypto", Usage: "full or fast, in place of what the scenario says"},
			&cli.StringFlag{Name: "flow", Usage: "rule for windows, in place of what the scenario says: " + strings.Join(simnet.FlowNames(), ", ")},
			&cli.DurationFlag{Name: "sample", Usage: "simulated time between two rows of a relay in its table, ten times that for links; 1s if not given, 10s for more than 200 relays"},
			memoryFlag(),
			&cli.BoolFlag{Name: "csv", Usage: "write tables as CSV alone, without Parquet"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as one JSON object"},
		},
		Action: runSim,
	}
}

func runSim(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usagef("'cepa sim run' needs one SCENARIO: a file, or a name from 'cepa sim list'")
	}
	streams, err := parseStreams(c.StringSlice("stream"))
	if err != nil {
		return err
	}
	switch {
	case c.String("crypto") != "" && c.String("crypto") != "full" && c.String("crypto") != "fast":
		return usagef("--crypto is %q: want full or fast", c.String("crypto"))
	case c.String("flow") != "" && !slices.Contains(simnet.FlowNames(), c.String("flow")):
		return usagef("--flow is %q: want one of %s", c.String("flow"), strings.Join(simnet.FlowNames(), ", "))
	case c.IsSet("sample") && c.Duration("sample") < time.Millisecond:
		return usagef("--sample is %v: want at least 1ms", c.Duration("sample"))
	case c.Bool("force") && c.String("out") == "":
		return usagef("--force needs --out: the folder that it is about")
	}
	s, err := findScenario(c.Args().First())
	if err != nil {
		return err
	}
	job := lab.Job{
		Scenario: s, Seed: c.Uint64("seed"), Options: scenario.Options{Streams: streams, Crypto: c.String("crypto"), Flow: c.String("flow")},
		Dir: c.String("out"), Force: c.Bool("force"), Report: true, Record: record.Options{Sample: sampleOf(c, s)},
		Version: c.App.Version, Commit: commit(), Command: commandLine(c),
	}
	if c.Bool("csv") {
		job.Record.Format = record.CSV
	}
	undo, err := tune(c)
	if err != nil {
		return err
	}
	defer undo()
	ctx, stop := untilInterrupted(c)
	defer stop()
	bar := newSimProgress(c.App.ErrWriter)
	res, err := lab.Run(ctx, job, bar.tell)
	bar.end()
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	if c.Bool("json") {
		if err := printJSON(c, simResult(job.Dir, res)); err != nil {
			return err
		}
	} else {
		sayResult(c.App.Writer, job.Dir, res)
	}
	return verdict(c, res)
}

// sampleOf is the time between two rows of a relay.
func sampleOf(c *cli.Context, s *scenario.Scenario) time.Duration {
	const many = 200
	relays := 0
	for _, g := range s.Relays {
		relays += g.Count
	}
	switch {
	case c.IsSet("sample"):
		return c.Duration("sample")
	case relays > many:
		return 10 * time.Second
	}
	return time.Second
}

// verdict is nil for a run that came to its end and in which nothing was found.
func verdict(c *cli.Context, res *lab.Result) error {
	for i, v := range res.Violations {
		if i == 3 {
			fmt.Fprintf(c.App.ErrWriter, "… and %d more\n", len(res.Violations)-i)
			break
		}
		fmt.Fprintf(c.App.ErrWriter, "VIOLATION of %v\n", v)
	}
	switch n := len(res.Violations); {
	case n > 0:
		return fmt.Errorf("sim: checker %q found what must not happen, with seed %d at %v (%d in all): see above", res.Violations[0].Checker, res.Violations[0].Seed, time.Duration(res.Violations[0].Time), n)
	case res.Interrupted:
		return fmt.Errorf("sim: interrupted after %s of %s", spanText(res.Progress.Simulated), spanText(res.Progress.Total))
	}
	return nil
}

// parseStreams reads NAME=SEED.
func parseStreams(list []string) (map[string]uint64, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := make(map[string]uint64)
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		seed, err := strconv.ParseUint(value, 10, 64)
		if !ok || err != nil {
			return nil, usagef("--stream %q is not NAME=SEED, such as churn=7", text)
		}
		if !slices.Contains(simnet.StreamNames, name) {
			return nil, usagef("--stream: no stream is called %q%s; there are %s", name, didYouMean(name, simnet.StreamNames), strings.Join(simnet.StreamNames, ", "))
		}
		if _, twice := m[name]; twice {
			return nil, usagef("--stream %s is there twice", name)
		}
		m[name] = seed
	}
	return m, nil
}

// commandLine is what a manifest says of how the run was started: without paths of this machine.
func commandLine(c *cli.Context) []string {
	line := []string{"cepa", "sim", c.Command.Name, c.Args().First(), "--seed", fmt.Sprint(c.Uint64("seed"))}
	for _, s := range c.StringSlice("stream") {
		line = append(line, "--stream", s)
	}
	if v := c.String("crypto"); v != "" {
		line = append(line, "--crypto", v)
	}
	if v := c.String("flow"); v != "" {
		line = append(line, "--flow", v)
	}
	return line
}

// commit is what the program was built from, or "unknown".
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && s.Value != "" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// jsonResult is the result of a run for scripts.
type jsonResult struct {
	Dir         string          `json:"dir,omitempty"`
	Interrupted bool            `json:"interrupted"`
	Manifest    record.Manifest `json:"manifest"`
	Users       jsonUsers       `json:"users"`
	Violations  []jsonViolation `json:"violations"`
}

type jsonUsers struct {
	Clients     int            `json:"clients"`
	Ready       int            `json:"ready"`
	StreamsWell int            `json:"streams_well"`
	StreamsBad  int            `json:"streams_failed"`
	StreamsCut  int            `json:"streams_under_way"`
	Bytes       int64          `json:"bytes_down"`
	FirstByte   float64        `json:"first_byte_seconds_mean"`
	Reasons     map[string]int `json:"failures,omitempty"`
}

type jsonViolation struct {
	Checker string   `json:"checker"`
	Seed    uint64   `json:"seed"`
	Seconds float64  `json:"time_seconds"`
	Node    string   `json:"node,omitempty"`
	What    string   `json:"what"`
	Last    []string `json:"last_events"`
}

func simResult(dir string, r *lab.Result) jsonResult {
	u := r.Summary
	out := jsonResult{Dir: dir, Interrupted: r.Interrupted, Manifest: r.Manifest, Violations: []jsonViolation{}, Users: jsonUsers{
		Clients: u.Clients, Ready: u.Ready, StreamsWell: u.Good, StreamsBad: u.Bad, StreamsCut: u.Cut, Bytes: u.Bytes, FirstByte: u.FirstByte.Seconds(), Reasons: u.Reasons,
	}}
	for _, v := range r.Violations {
		out.Violations = append(out.Violations, jsonViolation{v.Checker, v.Seed, time.Duration(v.Time).Seconds(), v.Host, v.What, v.Last})
	}
	return out
}

// sayResult tells a person how a run went.
func sayResult(w io.Writer, dir string, r *lab.Result) {
	m, u, p := r.Manifest, r.Summary, r.Progress
	fmt.Fprintf(w, "scenario  %s, seed %d, %s cryptography\n", m.Scenario, m.Seed, m.Crypto)
	fmt.Fprintf(w, "simulated %s in %s, %d events, at most %d MiB\n", spanText(p.Simulated), spanText(p.Wall), m.Events, m.Made.PeakBytes>>20)
	fmt.Fprintf(w, "clients   %d of %d were ready\n", u.Ready, u.Clients)
	fmt.Fprintf(w, "streams   %d went well, %d did not, %d were under way at the end; %.1f MB came down", u.Good, u.Bad, u.Cut, float64(u.Bytes)/1e6)
	if u.Good > 0 {
		fmt.Fprintf(w, ", the first byte after %.0f ms on average", float64(u.FirstByte.Microseconds())/1000)
	}
	fmt.Fprintln(w)
	for _, text := range slices.SortedFunc(maps.Keys(u.Reasons), func(a, b string) int {
		if u.Reasons[a] != u.Reasons[b] {
			return u.Reasons[b] - u.Reasons[a]
		}
		return strings.Compare(a, b)
	}) {
		fmt.Fprintf(w, "          %d: %s\n", u.Reasons[text], text)
	}
	fmt.Fprintf(w, "trace     %s\n", m.TraceHash)
	if dir != "" {
		fmt.Fprintf(w, "written   %s", dir)
		if r.Interrupted {
			fmt.Fprint(w, ": what there was when the run was interrupted")
		}
		fmt.Fprintln(w)
	}
}

// simProgress shows how far a run has come: a bar on a terminal, a line now and then elsewhere.
type simProgress struct {
	w    io.Writer
	bar  *progressbar.ProgressBar // nil where there is no terminal
	told time.Time
}

const plainEvery = 10 * time.Second

func newSimProgress(w io.Writer) *simProgress {
	p := &simProgress{w: w, told: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions64(1000, progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(12), progressbar.OptionClearOnFinish(),
			progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionShowDescriptionAtLineEnd(), progressbar.OptionThrottle(100*time.Millisecond))
	}
	return p
}

func (p *simProgress) tell(x lab.Progress) {
	line := fmt.Sprintf("%s of %s, %.3g s/s, %d MiB, %s left", spanText(x.Simulated), spanText(x.Total), x.Speed, x.Memory>>20, spanText(x.Left()))
	switch {
	case p.bar != nil:
		p.bar.Describe(line)
		_ = p.bar.Set64(min(999, int64(x.Simulated)*1000/int64(max(1, x.Total)))) // an error is the terminal's
	case time.Since(p.told) >= plainEvery:
		p.told = time.Now()
		fmt.Fprintln(p.w, "simulated "+line)
	}
}

func (p *simProgress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// untilInterrupted is a context that Ctrl-C ends.
func untilInterrupted(c *cli.Context) (context.Context, func()) {
	return signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
}

func memoryFlag() cli.Flag {
	return &cli.Int64Flag{Name: "memory", Value: 7168, Usage: "`MIB` of memory from which on garbage is collected more often"}
}

// tune readies the program for a simulation; undo takes that back.
func tune(c *cli.Context) (undo func(), err error) {
	if m := c.Int64("memory"); m < 64 || m > 1<<30 {
		return nil, usagef("--memory is %d: want 64 to %d MiB", m, 1<<30)
	}
	return lab.Tune(c.Int64("memory") << 20), nil
}
