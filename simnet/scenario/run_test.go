package scenario_test

import (
	"testing"
	"time"

	"cepa/simnet/scenario"
	"cepa/simnet/scenarios"
)

// run runs a scenario to its end.
func run(t testing.TB, s *scenario.Scenario, seed uint64, o scenario.Options) *scenario.Run {
	t.Helper()
	r, err := s.Build(seed, o)
	if err != nil {
		t.Fatal(err)
	}
	for !r.Advance(10 * time.Second) {
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Finish() {
		t.Error(v)
	}
	return r
}

func open(t testing.TB, name string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Open(scenarios.Files, name+".toml")
	if err != nil {
		t.Fatal(err)
	}
	return s
}
