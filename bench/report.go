//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// result is what one test gave for one peer.
type result struct {
	Test    string             `json:"test"`
	What    string             `json:"what"`
	Peer    string             `json:"peer"`
	Bulk    bool               `json:"bulk"` // samples are MiB/s, otherwise ms
	Samples []float64          `json:"samples"`
	Seconds float64            `json:"seconds"`
	Bytes   int64              `json:"bytes,omitempty"`
	Beside  []float64          `json:"beside,omitempty"` // MiB/s of the downloads beside requests, a sample each round
	CPU     map[string]float64 `json:"cpu_seconds"`      // by process
	Errors  int                `json:"errors"`
}

func (r *result) quantile(q float64) float64 { return quantile(r.Samples, q) }

func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// cost is processor time for each GiB of payload: of all nodes, and of one relay on the way.
func (r *result) cost(p *peer) (all, relay float64) {
	gib := float64(r.Bytes) / (1 << 30)
	if gib == 0 {
		return 0, 0
	}
	for _, q := range p.procs {
		all += r.CPU[q.name] / gib
		if q.relay {
			relay += r.CPU[q.name] / gib / float64(p.hops)
		}
	}
	return all, relay
}

// report writes tables in Markdown.
func (s *session) report(w io.Writer) {
	names := make([]string, len(s.peers))
	for i, p := range s.peers {
		names[i] = p.name
	}
	byTest := map[string]map[string]*result{}
	var order []string
	for _, r := range s.results {
		if byTest[r.Test] == nil {
			byTest[r.Test] = map[string]*result{}
			order = append(order, r.Test)
		}
		byTest[r.Test][r.Peer] = r
	}
	ratio := func(m map[string]*result, f func(*result) float64) string {
		if m["chain"] == nil || m["cepa"] == nil || f(m["chain"]) == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f", f(m["cepa"])/f(m["chain"]))
	}
	row := func(cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	head := func(cells ...string) {
		row(cells...)
		fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(cells)))
	}
	fmt.Fprintln(w)
	head(append(append([]string{"MiB/s (CPU s a GiB: all / a relay)"}, names...), "cepa : chain (CPU)")...)
	for _, t := range order {
		m := byTest[t]
		if !testByName(t).bulk {
			continue
		}
		cells := []string{testByName(t).what}
		for _, p := range s.peers {
			all, relay := m[p.name].cost(p)
			cells = append(cells, fmt.Sprintf("%.0f (%.1f / %.2f)", m[p.name].quantile(0.5), all, relay))
		}
		rate := ratio(m, func(r *result) float64 { return r.quantile(0.5) })
		cost := func(one bool) string {
			return ratio(m, func(r *result) float64 {
				for _, p := range s.peers {
					if p.name == r.Peer {
						all, relay := r.cost(p)
						if one {
							return relay
						}
						return all
					}
				}
				return 0
			})
		}
		row(append(cells, fmt.Sprintf("%s (%s / %s)", rate, cost(false), cost(true)))...)
	}
	fmt.Fprintln(w)
	head(append(append([]string{"ms: p50 / p95"}, names...), "cepa : chain")...)
	for _, t := range order {
		m := byTest[t]
		if testByName(t).bulk {
			continue
		}
		cells := []string{testByName(t).what}
		if testByName(t).beside > 0 {
			cells[0] += " (MiB/s of those)"
		}
		for _, p := range s.peers {
			cells = append(cells, fmt.Sprintf("%.1f / %.1f", m[p.name].quantile(0.5), m[p.name].quantile(0.95)))
			if b := m[p.name].Beside; len(b) > 0 {
				cells[len(cells)-1] += fmt.Sprintf(" (%.0f)", quantile(b, 0.5))
			}
		}
		row(append(cells, ratio(m, func(r *result) float64 { return r.quantile(0.5) })+" / "+ratio(m, func(r *result) float64 { return r.quantile(0.95) }))...)
	}
	fmt.Fprintln(w)
	head("memory, MiB", "before: least, most of a relay", "after")
	for _, p := range s.peers {
		cells := []string{p.name}
		for _, when := range []string{"before", "after"} {
			var all []int
			for _, q := range p.procs {
				if q.relay {
					all = append(all, s.rss[p.name+" "+when][q.name])
				}
			}
			if len(all) == 0 {
				all = []int{0}
			}
			cells = append(cells, fmt.Sprintf("%d, %d", slices.Min(all)>>10, slices.Max(all)>>10))
		}
		row(cells...)
	}
	for _, r := range s.results {
		if r.Errors > 0 {
			fmt.Fprintf(w, "\n%s, %s: %d errors\n", r.Peer, r.Test, r.Errors)
		}
	}
}

func (s *session) save(file string) error {
	b, err := json.MarshalIndent(map[string]any{"results": s.results, "rss_kib": s.rss}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
