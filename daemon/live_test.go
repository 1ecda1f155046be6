package daemon

import (
	"reflect"
	"testing"

	"cepa/directory"
	"cepa/node"
)

// TestEveryReloadReachesTheNode: a change of a setting that is marked [reload] changes what the running relay is given,
// and what its accounting, its log or its end look at; no such setting is read at the start alone.
func TestEveryReloadReachesTheNode(t *testing.T) {
	t.Parallel()
	values := map[string]string{ // another good value of each
		"nickname": "other", "contact": "me@example.org", "exit_policy": "web", "exit_max": "7", "exit_max_per_circuit": "7",
		"exit_max_per_destination": "7", "exit_rate": "7", "exit_rate_per_circuit": "7", "exit_rate_per_destination": "7",
		"bandwidth_mib": "7", "rate_kib": "700", "burst_kib": "70", "accounting_gib": "7", "accounting_day": "7", "accounting_count": "out",
	}
	elsewhere := map[string]string{ // which tests through the real program see to
		"family_keys": "e2e", "drain": "read when the relay is told to end", "log_level": "e2e",
	}
	base := RelayConfig{Network: "n", Dir: "d", RateKiB: 100, BurstKiB: 50}
	if _, err := base.check(); err != nil {
		t.Fatal(err)
	}
	type effect struct {
		live  node.Live
		limit uint64
		day   int
		count string
	}
	effectOf := func(c *RelayConfig) (e effect) {
		r := Relay{shell: &shell{network: new(directory.Network)}, keys: new(node.Keys), config: *c}
		live, err := r.live(c)
		if err != nil {
			t.Fatal(err)
		}
		var a accounting
		a.configure(c)
		return effect{live, a.limit, a.day, a.count}
	}
	for _, s := range Settings(&base) {
		value, ok := values[s.Name]
		switch {
		case !s.Live:
			if ok {
				t.Errorf("%s is not marked [reload]", s.Name)
			}
		case elsewhere[s.Name] != "":
		case !ok:
			t.Errorf("%s is marked [reload], and nothing here tries that", s.Name)
		default:
			next := base
			if err := s.Set(&next, value); err != nil {
				t.Fatal(err)
			}
			if _, err := next.check(); err != nil {
				t.Fatalf("%s = %s: %v", s.Name, value, err)
			}
			if reflect.DeepEqual(effectOf(&base), effectOf(&next)) {
				t.Errorf("%s changes nothing of a running relay", s.Name)
			}
		}
	}
}
