// Flowstudy asks: are hop credits better than other rules for windows, and where are they not?
//
// It runs the scenarios of package simnet/flowstudy with each rule and so many seeds, on all processors, and prints
// tables in Markdown. What has been run is kept in a file, from which it goes on when it is started again; name another
// file for another version of the code:
//
//	go run ./flowstudy -seeds 20 -data /tmp/study.csv -summary ../docs/flow.csv -plot ../docs/flow.svg > /tmp/study.md
//	go run ./flowstudy -scenarios S1,S7 -rules credits,vegas -seeds 3
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"cepa/simnet"
	"cepa/simnet/flowstudy"
)

// job is one run.
type job struct {
	scenario flowstudy.Scenario
	rule     string
	seed     uint64
}

func main() {
	log.SetFlags(0)
	seeds := flag.Uint64("seeds", 3, "run with the seeds 1 to this")
	only := flag.String("scenarios", "", "names of scenarios, or how they begin, separated by commas; all if empty")
	rules := flag.String("rules", strings.Join(simnet.FlowNames(), ","), "rules, separated by commas")
	unsent := flag.Int("unsent", 0, "bytes of a link that a kernel takes ahead of TCP; 0 is what the daemon sets, by the link's rate")
	data := flag.String("data", "", "CSV that results are added to; what is in it is not run again")
	summary := flag.String("summary", "", "CSV to write medians to")
	picture := flag.String("plot", "", "SVG to write, of delays")
	limit := flag.Duration("for", 0, "begin no run after so long; 0 is no limit")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "runs at a time; each takes up to 1 GiB of memory")
	flag.Parse()

	names := strings.Split(*rules, ",")
	for _, name := range names {
		if !slices.Contains(simnet.FlowNames(), name) {
			log.Fatalf("no rule is called %q; there are %s", name, strings.Join(simnet.FlowNames(), ", "))
		}
	}
	results, err := load(*data)
	if err != nil {
		log.Fatal(err)
	}
	jobs := plan(strings.Split(*only, ","), names, *seeds, results)
	if len(jobs) == 0 && len(results) == 0 {
		log.Fatalf("no scenario begins with %s", *only)
	}
	more, err := run(jobs, *unsent, *data, *limit, *workers)
	if err != nil {
		log.Fatal(err)
	}
	results = append(results, more...)
	slices.SortStableFunc(results, func(a, b *flowstudy.Result) int { return int(a.Seed) - int(b.Seed) })
	results = slices.DeleteFunc(results, func(r *flowstudy.Result) bool { return !slices.Contains(names, r.Rule) })
	fmt.Print(flowstudy.Table(results, names), "**What was wanted** (in brackets: with how many seeds it holds)\n\n", flowstudy.Wanted(results, names))
	if err := keep(results, names, *summary, *picture); err != nil {
		log.Fatal(err)
	}
	if left := len(jobs) - len(more); left > 0 {
		log.Fatalf("%d runs are left: start it again to go on", left)
	}
}

// keep writes medians and a plot, each if it has a name.
func keep(results []*flowstudy.Result, rules []string, summary, picture string) error {
	if summary != "" {
		var b bytes.Buffer
		if err := flowstudy.Summary(&b, results); err != nil {
			return err
		}
		if err := os.WriteFile(summary, b.Bytes(), 0o666); err != nil {
			return err
		}
	}
	if picture != "" {
		return drawPlot(results, rules, picture)
	}
	return nil
}

// load reads what was run before.
func load(name string) ([]*flowstudy.Result, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	results, err := flowstudy.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return results, nil
}

// plan lists what is to be run, all scenarios with the first seed before any with the next.
func plan(only, rules []string, seeds uint64, done []*flowstudy.Result) []job {
	var jobs []job
	for seed := uint64(1); seed <= seeds; seed++ {
		for _, s := range flowstudy.Scenarios() {
			wanted := slices.ContainsFunc(only, func(name string) bool { return strings.HasPrefix(s.Name, name) })
			for _, rule := range rules {
				known := slices.ContainsFunc(done, func(r *flowstudy.Result) bool { return r.Scenario == s.Name && r.Rule == rule && r.Seed == seed })
				if wanted && !known {
					jobs = append(jobs, job{s, rule, seed})
				}
			}
		}
	}
	return jobs
}

// run runs jobs and adds what comes out to a file.
func run(jobs []job, unsent int, name string, limit time.Duration, workers int) (results []*flowstudy.Result, err error) {
	var keep *os.File
	if name != "" {
		if keep, err = os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, keep.Close()) }()
		if info, statErr := keep.Stat(); statErr == nil && info.Size() == 0 {
			if err := flowstudy.WriteHeader(keep); err != nil {
				return nil, err
			}
		}
	}
	began := time.Now()
	var mu sync.Mutex
	var failed error
	queue := make(chan job)
	var group sync.WaitGroup
	for range max(workers, 1) {
		group.Go(func() {
			for j := range queue {
				r, err := flowstudy.Measure(j.scenario, j.rule, j.seed, unsent)
				mu.Lock()
				if err == nil && keep != nil {
					err = r.Write(keep)
				}
				if err != nil {
					failed = errors.Join(failed, err)
				} else {
					results = append(results, r)
				}
				mu.Unlock()
			}
		})
	}
	for i, j := range jobs {
		mu.Lock()
		stop := failed != nil || limit > 0 && time.Since(began) > limit
		mu.Unlock()
		if stop {
			break
		}
		if i%100 == 0 && i > 0 {
			log.Printf("%d of %d runs begun, %v", i, len(jobs), time.Since(began).Round(time.Second))
		}
		queue <- j
	}
	close(queue)
	group.Wait()
	return results, failed
}
