// Exits asks: how does the time to first byte change with the number of exits?
//
// It runs one network several times, the same but for how many of its 16 relays are exits, with the same
// seed: users want the same at the same times. It prints the distribution of each run and, if asked for, leaves
// the tables and a page on which the distributions lie over each other:
//
//	go run ./exits -out /tmp/exits
//
// To ask a question of your own, change the scenario, and what is counted in ask.
package main

import (
	"flag"
	"fmt"
	"log"
	"path/filepath"
	"slices"
	"time"

	"cepa/simnet"
	"cepa/simnet/record"
	"cepa/simnet/report"
	"cepa/simnet/scenario"
)

// network is the scenario; the number of exits and its length are filled in. docs/simulation.md has all keys.
const network = `
duration = "%v"
warmup = "20s"

[network]
authorities = 1
parameters = { interval_ms = 10000 }
regions = { frankfurt = 3, london = 1, washington = 2, tokyo = 1 }

[[relays]]
count = 16
exits = %d
rate = "20 Mbit/s"

[[clients]]
count = 24
rate = "50 Mbit/s"
mile = "8ms"
start = "5s"
spread = "5s"

[[clients.load]]
kind = "web"
think = "3s"

[[servers]]
host = "web.example"
`

func main() {
	length := flag.Duration("length", 90*time.Second, "simulated time of each run")
	seed := flag.Uint64("seed", 1, "decides each run")
	out := flag.String("out", "", "leave tables and a page in `DIR`")
	flag.Parse()
	fmt.Println("exits  streams  failed  time to first byte: median, 95 %")
	var dirs []string
	for _, exits := range []int{1, 2, 4, 8} {
		dir := ""
		if *out != "" {
			dir = filepath.Join(*out, fmt.Sprint(exits, "-exits"))
			dirs = append(dirs, dir)
		}
		firsts, failed, err := ask(fmt.Sprintf(network, *length, exits), *seed, dir)
		if err != nil {
			log.Fatal(err)
		}
		if len(firsts) == 0 {
			log.Fatal("no stream went well; is the run long enough?")
		}
		slices.Sort(firsts)
		fmt.Printf("%5d  %7d  %6d  %v, %v\n", exits, len(firsts), failed, firsts[len(firsts)/2].Round(time.Millisecond), firsts[len(firsts)*95/100].Round(time.Millisecond))
	}
	if *out == "" {
		return
	}
	page := filepath.Join(*out, "exits.html")
	if err := report.File(page, dirs...); err != nil {
		log.Fatal(err)
	}
	fmt.Println("see", page)
}

// ask runs a scenario and returns the times to first byte of the streams opened after the warm-up, and how
// many streams failed. It records the run in a folder, if one is named.
func ask(text string, seed uint64, dir string) (firsts []time.Duration, failed int, err error) {
	s, err := scenario.Parse([]byte(text), "exits")
	if err != nil {
		return nil, 0, err
	}
	run, err := s.Build(seed, scenario.Options{})
	if err != nil {
		return nil, 0, err
	}
	warm := time.Duration(s.Warmup)
	run.World.OnFlow(func(f *simnet.Flow) {
		switch {
		case time.Duration(f.Opened) < warm || f.Cut:
		case f.Err != nil:
			failed++
		case f.First > 0:
			firsts = append(firsts, f.First.Sub(f.Opened))
		}
	})
	var recorder *record.Recorder
	if dir != "" {
		if err := record.Prepare(dir, true); err != nil {
			return nil, 0, err
		}
		if recorder, err = record.New(run.World, run.Network, record.Options{Dir: dir}); err != nil {
			return nil, 0, err
		}
	}
	for !run.Advance(time.Minute) {
	}
	for _, v := range run.Finish() {
		return nil, 0, fmt.Errorf("a checker fired: %v", v)
	}
	if err := run.Err(); err != nil || recorder == nil {
		return firsts, failed, err
	}
	if err := recorder.Close(); err != nil {
		return nil, 0, err
	}
	m := record.Manifest{Version: "example", Commit: "unknown", Scenario: s.Name(), ScenarioDigest: s.Digest(), Crypto: run.Crypto(), Complete: true, WarmupSeconds: warm.Seconds()}
	recorder.Describe(&m)
	return firsts, failed, m.Write(dir)
}
