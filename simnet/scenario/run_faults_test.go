package scenario_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"cepa/simnet/scenario"
)

// TestSeedsWithFaults: scenarios with churn, partitions and loss, and what no checker may find in them.
func TestSeedsWithFaults(t *testing.T) {
	t.Parallel()
	type test struct {
		name  string
		seeds []uint64
	}
	tests := []test{{"quick", []uint64{1, 2, 3}}, {"partition", []uint64{2}}, {"flow-rate-change", []uint64{1}}}
	if testing.Short() {
		tests = []test{{"quick", []uint64{1}}}
	}
	for _, c := range tests {
		for _, seed := range c.seeds {
			t.Run(fmt.Sprint(c.name, " ", seed), func(t *testing.T) {
				t.Parallel()
				r := run(t, open(t, c.name), seed, scenario.Options{})
				s := r.Summary()
				t.Logf("%+v", s)
				if s.Ready != s.Clients || s.Good < s.Bad || c.name != "flow-rate-change" && s.Good < 50 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// faults has each kind once, of relays, clients, authorities and servers.
const faults = `duration = "110s"
warmup = "10s"
liveness = "30s"
[network]
authorities = 3
latency = "50ms"
jitter = 300
[network.parameters]
interval_ms = 5000
keepalive_ms = 2000
reconcile_ms = 5000
update_ms = 5000
min_relays = 5
[[relays]]
count = 8
exits = 4
rate = "50 Mbit/s"
[[relays]]
name = "late"
count = 2
exits = 1
start = "15s"
spread = "5s"
[[servers]]
host = "web.example"
[[servers]]
host = "other.example"
ports = [8080]
rate = "100 Mbit/s"
[[clients]]
count = 3
start = "6s"
[[clients.load]]
kind = "web"
think = "2s"
users = 2
[[clients.load]]
kind = "bulk"
bytes = "300 kB"
think = "1s"
host = "other.example"
port = 8080
until = "90s"
[[clients.load]]
kind = "trace"
file = "trace.csv"
[[churn]]
groups = ["late"]
file = "churn.csv"
until = "60s"
`

func allFaults() string {
	var b strings.Builder
	b.WriteString(faults)
	for i, f := range []string{
		`kind = "crash"|for = "4s"|nodes = ["relay-1", "client-1", "authority-1"]`,
		`kind = "restart"|nodes = ["relay-2", "authority-2"]`,
		`kind = "leave"|for = "3s"|nodes = ["relay-3", "client-2"]`,
		`kind = "power-off"|for = "5s"|nodes = ["relay-4"]`,
		`kind = "silence"|for = "5s"|nodes = ["relay-5", "authority-3"]`,
		`kind = "partition"|for = "6s"|nodes = ["relay-[1-4]", "authority-1", "client-3"]`,
		`kind = "clog"|for = "4s"|nodes = ["server-1", "relay-*"]|delay = "300ms"`,
		`kind = "loss"|for = "6s"|nodes = ["*"]|pick = 5|loss = 2`,
		`kind = "rate"|for = "4s"|nodes = ["relay-*"]|up = "2 Mbit/s"`,
		`kind = "skew"|for = "5s"|nodes = ["relay-6"]|skew = "-2s"|drift = 300`,
		`kind = "slow-disk"|for = "5s"|nodes = ["authority-*", "relay-7"]|disk = "2s"`,
		`kind = "crash"|for = "2s"|every = "6s"|until = "50s"|nodes = ["relay-*", "client-*"]|pick = 1`,
	} {
		fmt.Fprintf(&b, "[[fault]]\nat = \"%ds\"\n%s\n", 12+3*i, strings.ReplaceAll(f, "|", "\n"))
	}
	return b.String()
}

// TestEveryKindOfFault: each can happen to whom it can, ends, and leaves a network that works.
func TestEveryKindOfFault(t *testing.T) {
	t.Parallel()
	text := allFaults()
	for _, kind := range scenario.FaultKinds {
		if !strings.Contains(text, fmt.Sprintf("kind = %q", kind)) {
			t.Errorf("%s is not tested", kind)
		}
	}
	s, err := scenario.Open(fstest.MapFS{
		"faults.toml": &fstest.MapFile{Data: []byte(text)},
		"trace.csv":   &fstest.MapFile{Data: []byte("# of a user\nat,host,port,up,down\n0,web.example,80,100,2000\n0.5,web.example,443,3000,90000\n20,other.example,8080,100,100\n")},
		"churn.csv":   &fstest.MapFile{Data: []byte("25,late-1,down\n26,late-2,leave\n30,late-1,up\n")},
	}, "faults.toml")
	if err != nil {
		t.Fatal(err)
	}
	if at, ends := s.QuietFrom(); !ends || time.Duration(at) != time.Minute {
		t.Errorf("quiet from %v, %v", at, ends)
	}
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := run(t, s, seed, scenario.Options{})
			if sum := r.Summary(); sum.Good < 100 || sum.Ready != 3 {
				t.Errorf("%+v", sum)
			}
			for _, x := range r.Network.Relays {
				if !x.Host.Alive() {
					t.Errorf("%s is not back", x.Host.Name)
				}
			}
			if n := len(r.Network.Relays); n != 13 {
				t.Errorf("%d relays and authorities began", n)
			}
		})
	}
}

// TestOneFactorChanges: what users want does not change with the seed of another stream of randomness.
func TestOneFactorChanges(t *testing.T) {
	t.Parallel()
	s := open(t, "small")
	regions := func(o scenario.Options) string {
		r, err := s.Build(1, o)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, h := range r.World.Hosts() {
			fmt.Fprintln(&b, h.Name, h.Region(), h.Spec().Up)
		}
		return b.String()
	}
	base := regions(scenario.Options{})
	if got := regions(scenario.Options{Streams: map[string]uint64{"workload": 5, "churn": 6, "keys": 7, "paths": 8}}); got != base {
		t.Error("where machines are and how fast changes with streams that are not for it")
	}
	if got := regions(scenario.Options{Streams: map[string]uint64{"latency": 5}}); got == base {
		t.Error("where machines are does not change with its stream")
	}
	if _, err := s.Build(1, scenario.Options{Streams: map[string]uint64{"wether": 5}}); err == nil {
		t.Error("a stream that there is not")
	}
}
