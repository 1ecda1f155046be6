// Package report makes a page for people of one run that package record wrote, or of several side by side: one
// HTML file that fetches nothing, with plots as SVG (gonum.org/v1/plot), for light and dark screens and for small
// ones.
//
// It reads the tables on disk and knows nothing of the world that they are of. What it holds in memory is a few
// numbers for each stream and circuit.
package report

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// MostRuns is how many runs one page can compare.
const MostRuns = hues

// File writes the page of the runs in folders to a file, which it replaces.
func File(path string, dirs ...string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	err = errors.Join(Write(out, dirs...), out.Flush(), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Write writes the page of the runs in folders.
func Write(w io.Writer, dirs ...string) error {
	if len(dirs) == 0 || len(dirs) > MostRuns {
		return fmt.Errorf("a report is of 1 to %d runs, and here are %d", MostRuns, len(dirs))
	}
	var runs []*run
	for _, dir := range dirs {
		r, err := load(dir)
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	nameRuns(runs)
	p, err := newPage(runs)
	if err != nil {
		return err
	}
	return pageTemplate.Execute(w, p)
}

// nameRuns gives each run a name of its own.
func nameRuns(runs []*run) {
	for _, r := range runs {
		absolute, err := filepath.Abs(r.dir)
		if err != nil {
			absolute = r.dir
		}
		r.name = filepath.Base(absolute)
		for _, other := range runs {
			if other != r && other.name == r.name {
				r.name = r.dir
			}
		}
	}
}

// page is what the template shows.
type page struct {
	Title   string
	Runs    []*summary
	Figures []*figure
	Reasons *counts
	Numbers []*numbers
	Several bool
}

// summary is what a run was.
type summary struct {
	Name       string
	Hue        int
	Facts      []fact
	Tiles      []fact
	Violations int
	First      string
	Fast       bool
	Broken     bool // interrupted
}

type fact struct{ Name, Value string }

// figure is one plot with its words.
type figure struct {
	Title, What string
	SVG         template.HTML
	Legend      []key
	Empty       string
}

type key struct {
	Name   string
	Hue    int
	Dashed bool
}

// counts is a table of how often what happened, by run.
type counts struct {
	Rows []countRow
	All  []int64 // streams of each run
}

type countRow struct {
	Name  string
	Cells []countCell
}

type countCell struct {
	N       int
	Percent string
	Width   float64
}

// numbers is a table of quantiles.
type numbers struct {
	Title string
	Rows  []numberRow
}

type numberRow struct {
	Name   string
	Hue    int
	N      string
	Cells  []string
	Change string
}

func newPage(runs []*run) (*page, error) {
	p := &page{Several: len(runs) > 1}
	p.Title = "Simulation " + runs[0].manifest.Scenario
	if p.Several {
		p.Title = fmt.Sprintf("%d simulations compared", len(runs))
	}
	for i, r := range runs {
		p.Runs = append(p.Runs, summarise(r, i))
	}
	for _, add := range []func([]*run) error{p.times, p.overTime, p.loads} {
		if err := add(runs); err != nil {
			return nil, err
		}
	}
	p.countReasons(runs)
	return p, nil
}

func summarise(r *run, hue int) *summary {
	m := r.manifest
	s := &summary{Name: r.name, Hue: hue, Violations: m.Violations, First: m.FirstViolation, Fast: m.Crypto == "fast", Broken: !m.Complete}
	all := m.Streams.OK + m.Streams.Error + m.Streams.Open + m.Streams.Lost
	s.Tiles = []fact{
		{"simulated", seconds(m.SimulatedSeconds)}, {"relays", number(float64(m.Relays))}, {"clients", number(float64(m.Clients))},
		{"streams", number(float64(all))}, {"failed", number(float64(m.Streams.Error + m.Streams.Lost))},
		{"violations", number(float64(m.Violations))},
	}
	s.Facts = []fact{
		{"Scenario", m.Scenario}, {"Seed", strconv.FormatUint(m.Seed, 10)}, {"Version", m.Version + ", commit " + m.Commit},
		{"Cryptography", m.Crypto}, {"Windows", m.Flow}, {"Warm-up left out", seconds(m.WarmupSeconds)}, {"Events", number(float64(m.Events))},
		{"Scenario digest", m.ScenarioDigest}, {"Calibration digest", m.CalibrationDigest}, {"Trace hash", m.TraceHash},
	}
	if len(m.StreamSeeds) > 0 {
		var seeds []string
		for name, seed := range m.StreamSeeds {
			seeds = append(seeds, fmt.Sprintf("%s=%d", name, seed))
		}
		slices.Sort(seeds)
		s.Facts = slices.Insert(s.Facts, 2, fact{"Seeds of streams", strings.Join(seeds, ", ")})
	}
	return s
}

// group is values of one kind, of a run or of a part of it.
type group struct {
	name   string
	hue    int
	values []float64
}

// times are the figures of how long things took.
func (p *page) times(runs []*run) error {
	duration, rate := axis{log: true, min: nan, max: nan, label: seconds}, axis{log: true, min: nan, max: nan, label: number}
	first := split(runs, func(s stream) (string, float64) { return s.workload, s.first })
	if err := p.shares("Time to first byte", "Share of the streams to which the first byte had come back, by the time since they were asked for.", "s", duration, first); err != nil {
		return err
	}
	sizeOf := sizes(runs)
	last := split(runs, func(s stream) (string, float64) { return sizeOf(s.wanted), s.last })
	if !p.Several {
		if err := p.shares("Time to last byte", "Share of the streams that had all bytes, by the time since they were asked for, for each size.", "s", duration, last); err != nil {
			return err
		}
	} else {
		for _, class := range classes(runs, sizeOf) {
			of := split(runs, func(s stream) (string, float64) {
				if sizeOf(s.wanted) != class {
					return "", 0
				}
				return "", s.last
			})
			if err := p.shares("Time to last byte, "+class, "Share of the streams that had all bytes, by the time since they were asked for.", "s", duration, of); err != nil {
				return err
			}
		}
	}
	goodput := split(runs, func(s stream) (string, float64) { return s.workload, s.rate })
	if err := p.shares("Goodput", "Share of the streams that were slower, in Mbit/s from the first byte to the last, of 50 kB and more.", "Mbit/s", rate, goodput); err != nil {
		return err
	}
	var builds []group
	for i, r := range runs {
		builds = append(builds, group{r.name, i, r.builds})
	}
	failed := 0
	for _, r := range runs {
		failed += r.unbuilt
	}
	return p.shares("Circuit build time", fmt.Sprintf("Share of the circuits whose last hop had answered, by the time since the path was chosen; %s that failed are not in it.", number(float64(failed))), "s", duration, builds)
}

var nan = math.NaN()

// split gives each run its values or, when there is one run, each part of it. Values of 0 are none.
func split(runs []*run, of func(stream) (part string, value float64)) []group {
	if len(runs) > 1 {
		var list []group
		for i, r := range runs {
			g := group{name: r.name, hue: i}
			for _, s := range r.streams {
				if _, v := of(s); v > 0 {
					g.values = append(g.values, v)
				}
			}
			list = append(list, g)
		}
		return list
	}
	parts := make(map[string]*group)
	var order []*group
	for _, s := range runs[0].streams {
		part, v := of(s)
		if v <= 0 {
			continue
		}
		g := parts[part]
		if g == nil {
			g = &group{name: part}
			parts[part] = g
			order = append(order, g)
		}
		g.values = append(g.values, v)
	}
	slices.SortFunc(order, func(a, b *group) int {
		if d := rank(a.name) - rank(b.name); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	var list []group
	for i, g := range order {
		if i >= hues { // what has no colour of its own stands with the last
			list[hues-1].name = "others"
			list[hues-1].values = append(list[hues-1].values, g.values...)
			continue
		}
		g.hue = i
		list = append(list, *g)
	}
	return list
}

// sizeBounds are where classes of sizes end, when there are many sizes.
var sizeBounds = []struct {
	below int64
	name  string
}{{32 << 10, "below 32 KiB"}, {128 << 10, "32 to 128 KiB"}, {512 << 10, "128 to 512 KiB"}, {2 << 20, "512 KiB to 2 MiB"}, {math.MaxInt64, "2 MiB and more"}}

// rank orders the names of classes of sizes as their sizes are.
func rank(name string) int {
	for i, b := range sizeBounds {
		if b.name == name {
			return i
		}
	}
	return 0
}

// sizes names the class of a size: the size itself, when there are few.
func sizes(runs []*run) func(int64) string {
	seen := make(map[int64]bool)
	for _, r := range runs {
		for _, s := range r.streams {
			if s.last > 0 && len(seen) <= 4 {
				seen[s.wanted] = true
			}
		}
	}
	return func(n int64) string {
		if len(seen) <= 4 {
			return bytesOf(float64(n))
		}
		for _, b := range sizeBounds {
			if n < b.below {
				return b.name
			}
		}
		return sizeBounds[len(sizeBounds)-1].name
	}
}

// classes are those that there are, in order of size.
func classes(runs []*run, of func(int64) string) []string {
	least := make(map[string]int64)
	var list []string
	for _, r := range runs {
		for _, s := range r.streams {
			if s.last == 0 {
				continue
			}
			name := of(s.wanted)
			if at, known := least[name]; !known {
				list = append(list, name)
				least[name] = s.wanted
			} else {
				least[name] = min(at, s.wanted)
			}
		}
	}
	slices.SortFunc(list, func(a, b string) int { return int(min(1, max(-1, least[a]-least[b]))) })
	return list
}

// leastDrawn is how many values a distribution needs to be drawn.
const leastDrawn = 5

// shares adds a figure of distributions, and their numbers.
func (p *page) shares(title, what, unit string, x axis, groups []group) error {
	f := &figure{Title: title, What: what}
	p.Figures = append(p.Figures, f)
	n := &numbers{Title: title}
	if unit != "s" {
		n.Title += ", " + unit
	}
	var all []series
	base := 0.0
	for i, g := range groups {
		if len(g.values) == 0 {
			continue
		}
		if g.name == "" || len(groups) == 1 && !p.Several {
			g.name = "all"
		}
		points := distribution(g.values) // sorts
		row := numberRow{Name: g.name, Hue: g.hue, N: number(float64(len(g.values)))}
		for _, q := range []float64{0.05, 0.5, 0.9, 0.95, 0.99} {
			row.Cells = append(row.Cells, x.label(quantile(g.values, q)))
		}
		if median := quantile(g.values, 0.5); p.Several {
			if i == 0 {
				base = median
			} else if base > 0 {
				row.Change = fmt.Sprintf("%+.1f\u202f%%", 100*(median/base-1))
			}
		}
		n.Rows = append(n.Rows, row)
		if len(g.values) >= leastDrawn {
			all = append(all, series{name: g.name, hue: g.hue, points: points})
			f.Legend = append(f.Legend, key{Name: fmt.Sprintf("%s (%s)", g.name, row.N), Hue: g.hue})
		}
	}
	if len(n.Rows) == 0 {
		f.Empty = "There was none."
		return nil
	}
	p.Numbers = append(p.Numbers, n)
	if len(all) == 0 {
		f.Empty = "Too few for a plot: see the numbers below."
		return nil
	}
	var err error
	f.SVG, err = drawn(all, x, axis{min: 0, max: 1, label: percent}, false)
	return err
}

// overTime are the figures whose axis is the time.
func (p *page) overTime(runs []*run) error {
	longest := 0.0
	for _, r := range runs {
		longest = max(longest, r.manifest.SimulatedSeconds)
	}
	x := axis{clock: true, min: 0, max: longest}
	y := func(label func(float64) string) axis { return axis{min: 0, max: nan, label: label} }
	kib := func(v float64) string { return bytesOf(v * 1024) }
	share := func(v float64) string { return percent(v / 100) }
	var carried []series
	for i, r := range runs {
		carried = append(carried, series{name: r.name, hue: i, points: thin(slices.Clone(r.carried))})
	}
	if err := p.lines("Carried", "Mbit/s that exits exchanged with servers, both ways, over time.", x, y(number), carried); err != nil {
		return err
	}
	for _, g := range []struct {
		title, what string
		y           axis
		of          func(*run) []moment
	}{
		{"Queues of relays", "Cells that wait in a relay, over time", y(kib), func(r *run) []moment { return r.moments }},
		{"Below the relays", "Bytes that a node has given to TCP and that TCP has not sent, over time", y(kib), func(r *run) []moment { return r.waiting }},
		{"Memory", "Share of a relay's budget that is in use, over time", y(share), func(r *run) []moment { return r.memories }},
		{"Event loop", "Share of the time for which a relay's loop was busy, over time", y(share), func(r *run) []moment { return r.loops }},
	} {
		var all []series
		for i, r := range runs {
			part := func(name string, hue int, dashed bool, of func(moment) float64) {
				var points []point
				for _, m := range g.of(r) {
					points = append(points, point{m.at, of(m)})
				}
				all = append(all, series{name: name, hue: hue, dashed: dashed, points: thin(points)})
			}
			if !p.Several {
				part("the most", 1, false, func(m moment) float64 { return m.m })
				if len(r.relays) > 20 {
					part("95 %", 2, false, func(m moment) float64 { return m.p95 })
				}
				part("median", 0, false, func(m moment) float64 { return m.median })
				continue
			}
			part(r.name+", 95 %", i, false, func(m moment) float64 { return m.p95 })
			if len(runs) == 2 {
				part(r.name+", median", i, true, func(m moment) float64 { return m.median })
			}
		}
		if err := p.lines(g.title, g.what+": quantiles over the nodes.", x, g.y, all); err != nil {
			return err
		}
	}
	return nil
}

// lines adds a figure of lines.
func (p *page) lines(title, what string, x, y axis, all []series) error {
	f := &figure{Title: title, What: what}
	p.Figures = append(p.Figures, f)
	all = slices.DeleteFunc(all, func(s series) bool { return len(s.points) == 0 })
	if len(all) == 0 {
		f.Empty = "Nothing was sampled."
		return nil
	}
	for _, s := range all {
		if len(all) > 1 {
			f.Legend = append(f.Legend, key{s.name, s.hue, s.dashed})
		}
	}
	var err error
	f.SVG, err = drawn(all, x, y, false)
	return err
}

// loads is the figure of what relays carried beside what they were trusted with.
func (p *page) loads(runs []*run) error {
	f := &figure{Title: "Load by relay"}
	p.Figures = append(p.Figures, f)
	var all []series
	idle := 0
	for i, r := range runs {
		s := series{name: r.name, hue: i}
		names := make([]string, 0, len(r.relays))
		for name := range r.relays { // order: sorted
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			l := r.relays[name]
			weight, sent := l.weight/l.samples*1024*8/1e6, l.sent*8/1e6/l.spans
			if weight <= 0 || !(sent > 0) {
				idle++
				continue
			}
			s.points = append(s.points, point{weight, sent})
		}
		if len(s.points) > 0 {
			all = append(all, s)
			if p.Several {
				f.Legend = append(f.Legend, key{s.name, s.hue, false})
			}
		}
	}
	f.What = fmt.Sprintf("Mbit/s of cells that each relay sent on average, by its weight in the consensus in Mbit/s; %d that carried nothing or were not listed are not in it.", idle)
	if len(all) == 0 {
		f.Empty = "No relay was sampled with a weight."
		return nil
	}
	like := axis{log: true, min: nan, max: nan, label: number}
	var err error
	f.SVG, err = drawn(all, like, like, true)
	return err
}

// countReasons counts why streams failed.
func (p *page) countReasons(runs []*run) {
	c := &counts{}
	totals := make(map[string]int)
	var names []string
	for _, r := range runs {
		all := int64(len(r.streams))
		for name, n := range r.reasons { // order: sorted
			if totals[name] == 0 {
				names = append(names, name)
			}
			totals[name] += n
			all += int64(n)
		}
		c.All = append(c.All, all)
	}
	slices.SortFunc(names, func(a, b string) int {
		if totals[a] != totals[b] {
			return totals[b] - totals[a]
		}
		return strings.Compare(a, b)
	})
	most := 1.0
	share := func(r *run, i int, name string) float64 { return float64(r.reasons[name]) / float64(max(1, c.All[i])) }
	for _, name := range names {
		for i, r := range runs {
			most = min(most, 1/max(share(r, i, name), 1e-9))
		}
	}
	for _, name := range names {
		row := countRow{Name: name}
		for i, r := range runs {
			s := share(r, i, name)
			row.Cells = append(row.Cells, countCell{r.reasons[name], percent(s), 100 * s * most})
		}
		c.Rows = append(c.Rows, row)
	}
	p.Reasons = c
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))
