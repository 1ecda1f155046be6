//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// metric is something that is compared.
type metric struct {
	name string
	of   func(seen) []time.Duration
}

// metrics are all that is compared.
var metrics = []metric{
	{"time to first byte", func(s seen) []time.Duration { return pick(s, 0, func(f fetch) time.Duration { return f.First }) }},
	{"time to last byte, 50 KiB", func(s seen) []time.Duration { return pick(s, 50<<10, func(f fetch) time.Duration { return f.Last }) }},
	{"time to last byte, 1 MiB", func(s seen) []time.Duration { return pick(s, 1<<20, func(f fetch) time.Duration { return f.Last }) }},
	{"time to last byte, 5 MiB", func(s seen) []time.Duration { return pick(s, 5<<20, func(f fetch) time.Duration { return f.Last }) }},
	{"circuit build time", func(s seen) []time.Duration { return slices.Clone(s.Builds) }},
}

func pick(s seen, size int64, of func(fetch) time.Duration) (times []time.Duration) {
	for _, f := range s.Fetches {
		if size == 0 || f.Size == size {
			times = append(times, of(f))
		}
	}
	return times
}

// quantile of times, in percent, for at least one.
func quantile(times []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)*percent-1)/100]
}

// pooled is what all runs have shown.
func pooled(runs []seen) (all seen) {
	for _, r := range runs {
		all.Fetches = append(all.Fetches, r.Fetches...)
		all.Builds = append(all.Builds, r.Builds...)
		all.Failed += r.Failed
	}
	return all
}

// spread is the standard deviation of a quantile over runs.
func spread(runs []seen, m metric, percent int) time.Duration {
	if len(runs) < 2 {
		return 0
	}
	var sum, squares float64
	for _, r := range runs {
		x := float64(quantile(m.of(r), percent))
		sum += x
		squares += x * x
	}
	n := float64(len(runs))
	return time.Duration(math.Sqrt(max(squares-sum*sum/n, 0) / (n - 1)))
}

// agree compares the simulator with reality: the medians may differ by so many percent and the 95th
// percentiles by twice as many, or both by twice the spread of the real network's runs. It returns a table.
func agree(t testing.TB, real, simulated []seen, percent float64) string {
	t.Helper()
	var table strings.Builder
	a, b := pooled(real), pooled(simulated)
	if a.Failed+b.Failed > 0 {
		t.Errorf("%d real fetches failed, and %d simulated ones", a.Failed, b.Failed)
	}
	for _, m := range metrics {
		x, y := m.of(a), m.of(b)
		fmt.Fprintf(&table, "| %s | %d, %d |", m.name, len(x), len(y))
		for i, p := range []int{50, 95} {
			r, s, sd := quantile(x, p), quantile(y, p), spread(real, m, p)
			allowed := max(time.Duration(float64(r)*percent/100*float64(i+1)), 2*sd)
			fmt.Fprintf(&table, " %d | %d | %+.0f %% | %d |", r.Milliseconds(), s.Milliseconds(), 100*(float64(s)/float64(r)-1), sd.Milliseconds())
			if d := (s - r).Abs(); d > allowed {
				t.Errorf("%s: percentile %d is %v in reality and %v in the simulator; they may differ by %v", m.name, p, r, s, allowed)
			}
		}
		fmt.Fprintln(&table)
	}
	return table.String()
}

// The stage of the proof: its measurements are kept, so that the simulator can be compared with
// them on a machine that is not quiet.
const (
	agreeRuns     = 5
	simulatedRuns = 10 // runs of the simulator, which are cheap
	agreeFile     = "testdata/agree.json"
	agreeSave     = "CEPA_AGREE_SAVE"
)

func proofStage() *stage { return newStage(9, 20, 2, 5*time.Second) }

// TestAgreesWithReality plays the stage with real processes in network namespaces, five times, and in the
// simulator. It needs a machine that does nothing else, or the highest priority (nice -n -19); with
// CEPA_AGREE_SAVE=1 its measurements replace those that are kept.
func TestAgreesWithReality(t *testing.T) {
	proof(t)
	s := proofStage()
	path := filepath.Join(t.ArtifactDir(), "agree.json")
	if os.Getenv(agreeSave) != "" {
		path = agreeFile
	}
	var real []seen
	for i := range uint64(agreeRuns) {
		real = append(real, s.play(t, i))
		data, err := json.Marshal(real)
		if err == nil {
			err = os.WriteFile(path, append(data, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.compare(t, real, simulatedRuns, 10)
}

// compare plays the stage in the simulator and compares.
func (s *stage) compare(t *testing.T, real []seen, runs int, percent float64) {
	t.Helper()
	// The distances are those that the real wires had.
	s.late = 0
	for _, r := range real {
		s.late += r.Late / time.Duration(len(real))
	}
	var simulated []seen
	for i := range uint64(runs) {
		simulated = append(simulated, s.simulate(t, i))
	}
	t.Logf("\n%s", agree(t, real, simulated, percent))
	picture := filepath.Join(t.ArtifactDir(), "agreement.svg")
	if os.Getenv(agreeSave) != "" {
		picture = "../docs/agreement.svg"
	}
	if err := drawAgreement(picture, pooled(real), pooled(simulated)); err != nil {
		t.Error(err)
	}
}

// TestAgreesWithMeasurements compares the simulator with what TestAgreesWithReality has measured before, to the
// same limits: it needs no rights and no quiet machine. With CEPA_AGREE_SAVE=1 it draws docs/agreement.svg.
func TestAgreesWithMeasurements(t *testing.T) {
	long(t)
	data, err := os.ReadFile(agreeFile)
	var real []seen
	if err == nil {
		err = json.Unmarshal(data, &real)
	}
	if err != nil {
		t.Fatal(err)
	}
	proofStage().compare(t, real, simulatedRuns, 10)
}

// TestSmallNetworkAgreesWithReality is a small version of TestAgreesWithReality, for machines that do other
// things as well: a model that is wrong by half shows.
func TestSmallNetworkAgreesWithReality(t *testing.T) {
	long(t)
	s := newStage(5, 5, 3, time.Second)
	s.compare(t, []seen{s.play(t, 1)}, 3, 40)
}
