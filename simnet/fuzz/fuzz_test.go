package fuzz

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"cepa/node"
	"cepa/simnet"
	"cepa/simnet/scenario"
)

// rerun runs what was found as somebody does who has the file and the seed.
func rerun(t *testing.T, text []byte, seed uint64, config func(*simnet.Config)) []simnet.Violation {
	t.Helper()
	s, err := scenario.Parse(text, "found")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	r, err := s.Build(seed, scenario.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	for !r.Advance(time.Minute) {
	}
	return r.Finish()
}

// TestSeededBugIsFoundAndMadeSmall: relays lose memory when a link goes down on which cells wait, which happens only
// when something goes wrong while there is load. The search finds it, and what is left of the scenario after
// shrinking is little, shows it again, and shows nothing without the bug.
func TestSeededBugIsFoundAndMadeSmall(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute of a processor")
	}
	leak := func(c *simnet.Config) { c.Defect = node.DefectLeak }
	shrinks := 40
	if os.Getenv("CEPA_LONG") != "" {
		shrinks = 100
	}
	found, err := Fuzz(context.Background(), Options{Seed: 1, Runs: 60, Shrinks: shrinks, Config: leak})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("found in run %d, shrunk in %d:\n%s", found.Runs, found.Shrinks, found.Text)
	if found.Violation.Checker != "accounts" {
		t.Errorf("%s fired", found.Violation.Checker)
	}
	drawn, err := scenario.Parse(found.Drawn, "drawn")
	if err != nil {
		t.Fatal(err)
	}
	small, err := scenario.Parse(found.Text, "small")
	if err != nil {
		t.Fatal(err)
	}
	if troubles := len(small.Faults) + len(small.Churn); size(small)*4 > size(drawn)*3 || troubles > max(2, (len(drawn.Faults)+len(drawn.Churn))/2) {
		t.Errorf("it is still large: %d of %d\n%s\nfrom\n%s", size(small), size(drawn), found.Text, found.Drawn)
	}
	again := rerun(t, found.Text, found.Seed, leak)
	if len(again) == 0 || again[0].Checker != found.Violation.Checker || again[0].Time != found.Violation.Time {
		t.Errorf("run again, it shows %v", again)
	}
	if without := rerun(t, found.Text, found.Seed, nil); len(without) > 0 {
		t.Errorf("without the bug, it shows %v", without)
	}
}

// size is how much there is of a scenario: machines, faults, loads, and ten seconds each.
func size(s *scenario.Scenario) int {
	n := s.Network.Authorities + 3*len(s.Faults) + 5*len(s.Churn) + int(time.Duration(s.Duration)/(10*time.Second))
	for _, r := range s.Relays {
		n += r.Count
	}
	for _, c := range s.Clients {
		n += c.Count * (1 + len(c.Loads))
	}
	return n
}

// TestSearchIsRepeatable: a seed of a search draws the same scenarios again, and another one others.
func TestSearchIsRepeatable(t *testing.T) {
	t.Parallel()
	list := func(seed uint64) (all []byte) {
		dice := simnet.New(simnet.Config{Seed: seed}).Stream(simnet.StreamWorkload, "fuzz")
		for range 40 {
			s := draw(dice)
			text, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := scenario.Parse(text, "drawn"); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			all = append(all, text...)
		}
		return all
	}
	a, b, c := list(1), list(1), list(2)
	if !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Errorf("one seed, the same: %v; two seeds, the same: %v", bytes.Equal(a, b), bytes.Equal(a, c))
	}
}

// TestSearchEnds: when it is told to, and when its runs are made.
func TestSearchEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Fuzz(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// TestSearch looks for bugs: CEPA_SIMNET_FUZZ=10m go test -run TestSearch$ -timeout 0 -v, with CEPA_SIMNET_SEED.
func TestSearch(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("CEPA_SIMNET_FUZZ"))
	if err != nil {
		t.Skip("CEPA_SIMNET_FUZZ is no time")
	}
	seed, _ := strconv.ParseUint(os.Getenv("CEPA_SIMNET_SEED"), 10, 64)
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	shrinks, _ := strconv.Atoi(os.Getenv("CEPA_SIMNET_SHRINKS"))
	found, err := Fuzz(ctx, Options{Seed: seed, Shrinks: shrinks, Progress: func(s Step) {
		if s.Violation != nil {
			t.Logf("run %d, seed %d, making smaller: %s at %v, %s: %s", s.Run, s.Seed, s.Violation.Checker, time.Duration(s.Violation.Time), s.Violation.Host, s.Violation.What)
			return
		}
		t.Logf("run %d, seed %d", s.Run, s.Seed)
	}})
	if err != nil {
		t.Log(err)
		return
	}
	t.Errorf("run %d:\n%v\n%s\nfrom, with seed %d\n%s", found.Runs, found.Violation, found.Text, found.DrawnSeed, found.Drawn)
}
