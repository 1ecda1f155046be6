package flowstudy

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// columns of the CSV that results are kept in: a line for each value.
var columns = []string{"scenario", "rule", "seed", "value", "unit", "x", "trace"}

// WriteHeader begins a CSV of results.
func WriteHeader(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write(columns) // Flush has the error
	c.Flush()
	return c.Error()
}

// Write adds a result to a CSV.
func (r *Result) Write(w io.Writer) error {
	c := csv.NewWriter(w)
	for _, v := range r.Values {
		_ = c.Write([]string{r.Scenario, r.Rule, strconv.FormatUint(r.Seed, 10), v.Name, v.Unit, strconv.FormatFloat(v.X, 'g', 8, 64), r.TraceHash})
	}
	c.Flush()
	return c.Error()
}

// Read reads a CSV of results.
func Read(from io.Reader) ([]*Result, error) {
	c := csv.NewReader(from)
	c.FieldsPerRecord = len(columns)
	rows, err := c.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading results: %w", err)
	}
	var list []*Result
	for i, row := range rows {
		if i == 0 {
			if !slices.Equal(row, columns) {
				return nil, fmt.Errorf("reading results: the first line is %q, want %q", row, columns)
			}
			continue
		}
		seed, err := strconv.ParseUint(row[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading results, line %d: seed %q", i+1, row[2])
		}
		x, err := strconv.ParseFloat(row[5], 64)
		if err != nil {
			return nil, fmt.Errorf("reading results, line %d: value %q", i+1, row[5])
		}
		if n := len(list); n == 0 || list[n-1].Scenario != row[0] || list[n-1].Rule != row[1] || list[n-1].Seed != seed {
			list = append(list, &Result{Scenario: row[0], Rule: row[1], Seed: seed, TraceHash: row[6]})
		}
		last := list[len(list)-1]
		last.Values = append(last.Values, Value{row[3], row[4], x})
	}
	return list, nil
}

// Summary writes a CSV with a line for each value of each scenario and rule: the median over seeds, and the 10th and 90th
// percentile.
func Summary(w io.Writer, results []*Result) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"scenario", "rule", "value", "unit", "seeds", "p10", "median", "p90"}) // Flush has the error
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) }
	for _, s := range Scenarios() {
		done := make(map[string]bool)
		for _, r := range results {
			if r.Scenario != s.Name || done[r.Rule] {
				continue
			}
			done[r.Rule] = true
			seeds := 0
			for _, o := range results {
				if o.Scenario == s.Name && o.Rule == r.Rule {
					seeds++
				}
			}
			for _, v := range r.Values {
				xs, _ := valuesOf(results, s.Name, r.Rule, v.Name)
				_ = c.Write([]string{
					s.Name, r.Rule, v.Name, v.Unit, strconv.Itoa(seeds), number(quantile(xs, 0.1)), number(quantile(xs, 0.5)), number(quantile(xs, 0.9)),
				})
			}
		}
	}
	c.Flush()
	return c.Error()
}

// Table is what results say in Markdown: for each scenario a table of medians over seeds, and from what to what eight of
// ten seeds reach.
func Table(results []*Result, rules []string) string {
	var b strings.Builder
	for _, s := range Scenarios() {
		of := func(rule string) (list []*Result) {
			for _, r := range results {
				if r.Scenario == s.Name && r.Rule == rule {
					list = append(list, r)
				}
			}
			return list
		}
		var there []string
		least, most := math.MaxInt, 0
		for _, rule := range rules {
			if n := len(of(rule)); n > 0 {
				there = append(there, rule)
				least, most = min(least, n), max(most, n)
			}
		}
		if len(there) == 0 {
			continue
		}
		seeds := strconv.Itoa(most)
		if least < most {
			seeds = fmt.Sprintf("%d to %d", least, most)
		}
		fmt.Fprintf(&b, "**%s** %s (%s seeds)\n\n| | %s |\n|%s\n", s.Name, s.About, seeds, strings.Join(there, " | "), strings.Repeat(" --- |", len(there)+1))
		for i, v := range of(there[0])[0].Values {
			name := v.Name
			if v.Unit != "" {
				name += ", " + v.Unit
			}
			fmt.Fprintf(&b, "| %s |", name)
			for _, rule := range there {
				var xs []float64
				for _, r := range of(rule) {
					if i < len(r.Values) {
						xs = append(xs, r.Values[i].X)
					}
				}
				fmt.Fprintf(&b, " %s |", spread(xs))
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// spread writes a median, and the 10th and 90th percentile when they are not the same.
func spread(xs []float64) string {
	xs = slices.DeleteFunc(slices.Clone(xs), math.IsNaN)
	if len(xs) == 0 {
		return "–"
	}
	middle, low, high := figure(quantile(xs, 0.5)), figure(quantile(xs, 0.1)), figure(quantile(xs, 0.9))
	if low == high {
		return middle
	}
	return fmt.Sprintf("%s (%s–%s)", middle, low, high)
}

// figure writes a number with about three digits.
func figure(x float64) string {
	switch a := math.Abs(x); {
	case math.IsInf(x, 0):
		return "never"
	case a < 1.01:
		return strconv.FormatFloat(x, 'f', 3, 64)
	case a < 100:
		return strconv.FormatFloat(x, 'f', 1, 64)
	default:
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
}
