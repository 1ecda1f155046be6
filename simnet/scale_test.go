//go:build linux

package simnet

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"

	"cepa/directory"
	"cepa/internal/hugepages"
)

// TestScale measures how fast a network of RELAYSxCLIENTSxSECONDS runs, with web users of about 5 kB/s
// each. It is for people: it is run by CEPA_SIMNET_SCALE=100x1000x30 go test -run Scale -v, with a
// profile if wanted. CEPA_SIMNET_INTERVAL is the time between two consensuses instead of an hour, and CEPA_SIMNET_THINK
// that between two pages instead of half a minute. CEPA_SIMNET_PAGES=small does without
// big pages of memory, and CEPA_SIMNET_PROFILE=FILE writes a profile of the load alone.
func TestScale(t *testing.T) {
	var relays, clients, seconds int
	if _, err := fmt.Sscanf(os.Getenv("CEPA_SIMNET_SCALE"), "%dx%dx%d", &relays, &clients, &seconds); err != nil {
		t.Skip("CEPA_SIMNET_SCALE is not set")
	}
	if os.Getenv("CEPA_SIMNET_PAGES") != "small" {
		hugepages.Reserve(7 << 30)
	}
	runtime.LockOSThread() // its time is that of the world, without what workers and the collector do
	defer runtime.UnlockOSThread()
	setting := func(name string, usual time.Duration) time.Duration {
		if s := os.Getenv(name); s != "" {
			d, err := time.ParseDuration(s)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		return usual
	}
	interval, think := setting("CEPA_SIMNET_INTERVAL", time.Hour), setting("CEPA_SIMNET_THINK", Web("", 0).Think)
	w := New(Config{Seed: 1, Latency: Internet()})
	dice := w.Stream(StreamWorkload, "sizes")
	regions := w.latency.Regions
	region := func() string { return regions[dice.Below(uint64(len(regions)))] }
	cpu := CPU{Cores: 4, Event: 2 * time.Microsecond, Cell: time.Microsecond, Send: time.Microsecond / 2, Offload: 300 * time.Microsecond, Link: time.Millisecond}
	authority := w.Host(HostSpec{Name: "authority-1", CPU: cpu})
	n, err := w.Found(NetworkSpec{
		Name: "scale", Authorities: []*Host{authority}, Parameters: directory.Parameters{
			directory.IntervalMillis: interval.Milliseconds(), directory.MinRelays: int64(relays * 9 / 10), directory.NewRelays: int64(relays),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Relay(authority, RelaySpec{DirectoryOnly: true}); err != nil {
		t.Fatal(err)
	}
	wall := time.Now()
	for i := range relays {
		rate := 1<<20 + dice.Exponential(8<<20)
		spec := RelaySpec{Policy: []string{"none", "none", "all"}[i%3], Bandwidth: uint64(rate)}
		if _, err := n.Relay(w.Host(HostSpec{Name: fmt.Sprintf("relay-%d", i+1), Region: region(), Up: rate, Down: rate, CPU: cpu}), spec); err != nil {
			t.Fatal(err)
		}
	}
	server := w.Host(HostSpec{Name: "server"})
	w.Server(server, 80, "web.example")
	step := func(what string, d time.Duration) {
		all, main, at, events, wall := processorTime(syscall.RUSAGE_SELF), processorTime(syscall.RUSAGE_THREAD), w.Now(), w.Events(), time.Now()
		w.Run(d)
		took, own := (processorTime(syscall.RUSAGE_SELF) - all).Seconds(), (processorTime(syscall.RUSAGE_THREAD) - main).Seconds()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("%s: %v of virtual time in %.1f s of processors, of which %.1f s the world's: %.2f s/s, %.0f events/s, %.2f µs an event; %.1f s passed; %d pending; heap %d MiB, from the system %d MiB",
			what, w.Now().Sub(at), took, own, w.Now().Sub(at).Seconds()/took, float64(w.Events()-events)/took, own*1e6/float64(w.Events()-events), time.Since(wall).Seconds(), w.Pending(), m.HeapAlloc>>20, m.Sys>>20)
		sums := make(map[string]int64)
		for _, r := range n.Relays {
			for _, name := range []string{"relay_handshakes", "relay_dir_requests", "relay_extends", "directory_descriptors"} {
				sums[name] += r.Node.Counters()[name]
			}
		}
		for _, c := range n.Clients {
			for _, name := range []string{"circuit_built", "circuit_failed", "circuit_requests", "directory_rounds"} {
				sums[name] += c.Node.Counters()[name]
			}
		}
		t.Log(sums)
	}
	step("relays begin", 10*time.Second)
	for i := 0; i < 20 && n.Relays[1].Node.Counters()["consensus_relays"] < int64(relays*9/10); i++ {
		step("relays begin", 10*time.Second)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t.Logf("%d relays: %d KiB each; the consensus lists %d", relays, before.HeapAlloc>>10/uint64(relays), n.Relays[1].Node.Counters()["consensus_relays"])
	good, bad := 0, 0
	var firsts time.Duration
	var bytes int64
	w.KeepFlows(false)
	w.OnFlow(func(f *Flow) {
		if f.Err != nil {
			bad++
			return
		}
		good++
		firsts += f.First.Sub(f.Opened)
		bytes += f.Down
	})
	for i := range clients {
		c, err := n.Client(w.Host(HostSpec{Name: fmt.Sprintf("client-%d", i+1), Region: region(), Up: 2 << 20, Down: 10 << 20}), ClientSpec{})
		if err != nil {
			t.Fatal(err)
		}
		page := Web("web.example", 150_000)
		page.Think = think
		c.Use(page)
		if i%100 == 99 {
			w.Run(200 * time.Millisecond)
		}
	}
	step("clients begin", 20*time.Second)
	runtime.GC()
	runtime.ReadMemStats(&after)
	ready := 0
	for _, c := range n.Clients {
		if c.Ready > 0 {
			ready++
		}
	}
	t.Logf("%d clients, %d ready: %d KiB each", clients, ready, (after.HeapAlloc-before.HeapAlloc)>>10/uint64(max(1, clients)))
	if name := os.Getenv("CEPA_SIMNET_PROFILE"); name != "" {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			t.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	step("load", time.Duration(seconds)*time.Second)
	t.Logf("%d streams well, %d not; first byte after %v on average, %d MB; all in %v; %s", good, bad, firsts/time.Duration(max(1, good)), bytes/1e6, time.Since(wall).Round(time.Second), w.TraceHash())
}

// processorTime is what this process has used of processors: other work on the machine does not count.
func processorTime(who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
