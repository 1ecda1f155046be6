package simnet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Latency is how far regions are from each other. It does not change once a World has it.
type Latency struct {
	Regions []string
	oneWay  [][]int64 // ns
	jitter  int64     // at most so many thousandths more, mostly little
}

// NewLatency makes a matrix from round trips: trips[i][j] is the time from region i to j and back,
// half of it each way. Jitter is how many thousandths of that a packet may be late: the square
// of a number drawn between 0 and 1, times that.
func NewLatency(regions []string, trips [][]time.Duration, jitter int) (*Latency, error) {
	l := &Latency{Regions: regions, jitter: int64(jitter)}
	if len(regions) == 0 || len(trips) != len(regions) || jitter < 0 {
		return nil, fmt.Errorf("latency: %d regions and %d rows", len(regions), len(trips))
	}
	for i, row := range trips {
		if len(row) != len(regions) {
			return nil, fmt.Errorf("latency from %s: %d columns for %d regions", regions[i], len(row), len(regions))
		}
		ways := make([]int64, len(row))
		for j, d := range row {
			if d < 0 || d > time.Minute {
				return nil, fmt.Errorf("latency from %s to %s: %v is not between 0 and a minute", regions[i], regions[j], d)
			}
			ways[j] = int64(d) / 2
		}
		l.oneWay = append(l.oneWay, ways)
	}
	return l, nil
}

// Trip is the round trip between two regions.
func (l *Latency) Trip(a, b string) time.Duration {
	i, j := l.region(a), l.region(b)
	return time.Duration(l.oneWay[i][j] + l.oneWay[j][i])
}

// region is the index of a region; an empty name is the first.
func (l *Latency) region(name string) int {
	if name == "" {
		return 0
	}
	for i, r := range l.Regions {
		if r == name {
			return i
		}
	}
	panic(fmt.Sprintf("simnet: no region is called %q; there are %s", name, strings.Join(l.Regions, ", ")))
}

// ParseLatencyCSV reads a matrix of round trips in milliseconds: a first line with the names of the
// regions after an empty (or any) first field, then a line for each region, in the same order, with
// its name first. Lines that begin with # are comments.
func ParseLatencyCSV(text string, jitter int) (*Latency, error) {
	var regions []string
	var trips [][]time.Duration
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, ",")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if regions == nil {
			regions = fields[1:]
			continue
		}
		if len(trips) == len(regions) || fields[0] != regions[len(trips)] {
			return nil, fmt.Errorf("latency, line %d: the rows are not in the order of the columns", n+1)
		}
		row := make([]time.Duration, 0, len(regions))
		for _, f := range fields[1:] {
			d, err := parseMillis(f)
			if err != nil {
				return nil, fmt.Errorf("latency, line %d: %w", n+1, err)
			}
			row = append(row, d)
		}
		trips = append(trips, row)
	}
	if regions == nil {
		return nil, errors.New("latency: no line names the regions")
	}
	return NewLatency(regions, trips, jitter)
}

// parseMillis reads milliseconds with at most six decimals, exactly.
func parseMillis(s string) (time.Duration, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(fraction) > 6 {
		fraction = fraction[:6]
	}
	ms, err := strconv.ParseUint(whole, 10, 32)
	var ns uint64
	if err == nil && fraction != "" {
		ns, err = strconv.ParseUint(fraction+"000000"[len(fraction):], 10, 32)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is no time in milliseconds", s)
	}
	return time.Duration(ms*uint64(time.Millisecond) + ns), nil
}

// ParseLatencyGML reads a graph as Shadow has it: nodes with an id and maybe a label, and edges with
// source, target and a latency such as "50 ms". Nodes become regions; between those without an edge the
// way with the least latency counts. A latency is one way.
func ParseLatencyGML(text string, jitter int) (*Latency, error) {
	words := gmlWords(text)
	var ids, names []string
	type edge struct {
		from, to string
		latency  int64
	}
	var edges []edge
	for i := 0; i+1 < len(words); i++ {
		if words[i+1] != "[" || words[i] != "node" && words[i] != "edge" {
			continue
		}
		kind, fields := words[i], map[string]string{}
		for i += 2; i+1 < len(words) && words[i] != "]"; i += 2 {
			fields[words[i]] = words[i+1]
		}
		if kind == "node" {
			ids = append(ids, fields["id"])
			if name := fields["label"]; name != "" {
				names = append(names, name)
			} else {
				names = append(names, fields["id"])
			}
			continue
		}
		d, err := time.ParseDuration(strings.ReplaceAll(fields["latency"], " ", ""))
		if err != nil || d < 0 {
			return nil, fmt.Errorf("latency from %s to %s: %q is no time", fields["source"], fields["target"], fields["latency"])
		}
		edges = append(edges, edge{fields["source"], fields["target"], int64(d)})
	}
	index := func(id string) int {
		for i := range ids {
			if ids[i] == id {
				return i
			}
		}
		return -1
	}
	const far = int64(time.Hour)
	ways := make([][]int64, len(ids))
	for i := range ways {
		ways[i] = make([]int64, len(ids))
		for j := range ways[i] {
			if i != j {
				ways[i][j] = far
			}
		}
	}
	for _, e := range edges {
		i, j := index(e.from), index(e.to)
		if i < 0 || j < 0 {
			return nil, fmt.Errorf("latency: an edge from %q to %q, of which one is no node", e.from, e.to)
		}
		if i == j {
			ways[i][i] = e.latency
			continue
		}
		ways[i][j], ways[j][i] = min(ways[i][j], e.latency), min(ways[j][i], e.latency)
	}
	for k := range ways {
		for i := range ways {
			for j := range ways {
				if i != j {
					ways[i][j] = min(ways[i][j], ways[i][k]+ways[k][j])
				}
			}
		}
	}
	trips := make([][]time.Duration, len(ways))
	for i := range ways {
		for j := range ways[i] {
			if ways[i][j] >= far {
				return nil, fmt.Errorf("latency: no way leads from %s to %s", names[i], names[j])
			}
			trips[i] = append(trips[i], time.Duration(2*ways[i][j]))
		}
	}
	return NewLatency(names, trips, jitter)
}

// gmlWords splits GML into words, with quoted strings as one.
func gmlWords(text string) []string {
	var words []string
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for line != "" {
			line = strings.TrimLeft(line, " \t\r")
			switch {
			case line == "":
			case line[0] == '"':
				word, rest, _ := strings.Cut(line[1:], `"`)
				words, line = append(words, word), rest
			case line[0] == '[' || line[0] == ']':
				words, line = append(words, line[:1]), line[1:]
			default:
				n := strings.IndexAny(line, " \t\r[]\"")
				if n < 0 {
					n = len(line)
				}
				words, line = append(words, line[:n]), line[n:]
			}
		}
	}
	return words
}
