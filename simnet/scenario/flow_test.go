package scenario_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"cepa/simnet"
	"cepa/simnet/scenario"
)

// slow is a client that reads slower than it could be served.
const slow = `duration = "60s"
warmup = "20s"
crypto = "fast"
[network]
latency = "20ms"
flow = "%"
[network.parameters]
interval_ms = 5000
[[relays]]
count = 3
exits = 1
rate = "100 Mbit/s"
[[clients]]
count = 2
start = "8s"
[[clients.load]]
kind = "bulk"
bytes = "100 MB"
read = "80 kbit/s"
from = "20s"
`

// TestSlowApplications: what an application does not read it is not sent beyond a window, under each rule for
// windows; checkers find nothing wrong with any.
func TestSlowApplications(t *testing.T) {
	t.Parallel()
	for _, rule := range simnet.FlowNames() {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			s, err := scenario.Open(fstest.MapFS{"x.toml": {Data: []byte(strings.Replace(slow, "%", rule, 1))}}, "x.toml")
			if err != nil {
				t.Fatal(err)
			}
			r := run(t, s, 1, scenario.Options{})
			if r.World.Flow() != rule || r.Flow() != rule {
				t.Errorf("the world has %q, the run %q", r.World.Flow(), r.Flow())
			}
			for _, f := range r.World.Flows() {
				read := int64(10_000 * (time.Duration(f.Last-f.First) / time.Second))
				if f.Down < read || f.Down > read+2<<20 {
					t.Errorf("%d bytes came where %d were read", f.Down, read)
				}
			}
			if n := len(r.World.Flows()); n != 2 {
				t.Errorf("%d streams", n)
			}
		})
	}
}

// TestFlowIsChosen: an option is in place of what the scenario says, and a name that is none is an error.
func TestFlowIsChosen(t *testing.T) {
	t.Parallel()
	s := open(t, "quick")
	for _, c := range []struct{ option, want string }{{"", "credits"}, {"vegas/4", "vegas/4"}} {
		r, err := s.Build(1, scenario.Options{Flow: c.option})
		if err != nil || r.World.Flow() != c.want {
			t.Errorf("%q: %v", c.option, err)
		}
	}
	if _, err := s.Build(1, scenario.Options{Flow: "reno"}); err == nil || !strings.Contains(err.Error(), `flow is "reno"; want one of`) {
		t.Error(err)
	}
}
