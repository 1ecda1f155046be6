//go:build linux

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"cepa/simnet"
	"cepa/simnet/calibration"
)

// listener hears in a simulated client's log how long its circuits took.
type listener struct {
	slog.Handler
	hear func(time.Duration)
}

func (l listener) Enabled(context.Context, slog.Level) bool { return true }
func (l listener) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l listener) WithGroup(string) slog.Handler            { return l }
func (l listener) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "a circuit is open" {
		return nil
	}
	var hops int64
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "hops":
			hops = a.Value.Int64()
		case "took":
			if hops == 3 {
				l.hear(a.Value.Duration())
			}
		}
		return true
	})
	return nil
}

// simulate runs the stage in the simulator once.
func (s *stage) simulate(t testing.TB, seed uint64) seen {
	t.Helper()
	var out seen
	measuring := false
	quiet := slog.New(slog.DiscardHandler)
	var regions []string
	trips := make([][]time.Duration, len(s.hosts))
	for i, h := range s.hosts {
		regions = append(regions, h.name)
		for j := range s.hosts {
			trips[i] = append(trips[i], 2*(s.delays[i][j]+s.late))
		}
	}
	latency, err := simnet.NewLatency(regions, trips, stageJitter)
	if err != nil {
		t.Fatal(err)
	}
	w := simnet.New(simnet.Config{Seed: seed, Latency: latency, Log: func(name string) *slog.Logger {
		if s.hosts[s.index(name)].part != "client" {
			return quiet
		}
		return slog.New(listener{hear: func(d time.Duration) {
			if measuring {
				out.Builds = append(out.Builds, d)
			}
		}})
	}})
	cpu := calibration.Default()
	for _, h := range s.hosts {
		spec := simnet.HostSpec{Name: h.name, Region: h.name, Up: h.up, Down: h.down, Buffer: stageBuffer, CPU: cpu.Relay(2)}
		switch h.part {
		case "client":
			spec.CPU = cpu.Client(2)
		case "server":
			spec.CPU = simnet.CPU{}
		}
		w.Host(spec)
	}
	spec := simnet.NetworkSpec{Name: "stage", Test: true, Authorities: []*simnet.Host{w.Lookup("a1")}, Port: stagePort, Parameters: s.parameters()}
	n, err := w.Found(spec)
	if err != nil {
		t.Fatal(err)
	}
	server := w.Lookup("server")
	w.Server(server, 80, "")
	for _, h := range s.hosts {
		switch h.part {
		case "authority":
			_, err = n.Relay(w.Lookup(h.name), simnet.RelaySpec{DirectoryOnly: true})
		case "relay":
			_, err = n.Relay(w.Lookup(h.name), simnet.RelaySpec{Policy: map[bool]string{false: "none", true: "all"}[h.exit], Bandwidth: uint64(h.up)})
		case "client":
			_, err = n.Client(w.Lookup(h.name), simnet.ClientSpec{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !w.RunUntil(2*time.Minute, n.Ready) {
		t.Fatalf("seed %d: the clients are not ready", seed)
	}
	ready := w.Now()
	w.Run(settling)
	measuring = true
	open := len(n.Clients)
	for i, c := range n.Clients {
		acts := s.script(seed, i)
		var next func(int)
		next = func(k int) {
			if k == len(acts) {
				open--
				return
			}
			w.After(acts[k].wait, func() {
				c.Open(simnet.FlowSpec{
					Host: server.Address.String(), Port: 80, Up: requestSize, Down: acts[k].size,
					Isolation: fmt.Sprintf("%s-%d", c.Host.Name, k), Patience: stageWait,
				}, func(f *simnet.Flow) {
					if f.Err != nil {
						t.Logf("seed %d: %s: %v", seed, c.Host.Name, f.Err)
						out.Failed++
					} else {
						out.Fetches = append(out.Fetches, fetch{acts[k].size, f.Connected.Sub(f.Opened), f.First.Sub(f.Opened), f.Last.Sub(f.Opened)})
					}
					next(k + 1)
				})
			})
		}
		next(0)
	}
	begun := w.Now()
	if !w.RunUntil(time.Hour, func() bool { return open == 0 }) {
		t.Fatalf("seed %d: the users do not end", seed)
	}
	t.Logf("simulated, seed %d: ready after %v, %d fetches and %d circuits in %v, %d failed", seed, time.Duration(ready).Round(time.Millisecond),
		len(out.Fetches), len(out.Builds), w.Now().Sub(begun).Round(time.Second), out.Failed)
	return out
}
