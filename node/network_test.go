package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env/envtest"
)

// TestNetworkInMemory is a whole network in one test: keys, an authority, consensus, bootstrap,
// circuits of three hops, an exit, a destination. It runs twice, and both runs are the same to
// the byte: what the nodes do depends on their seeds and events alone.
func TestNetworkInMemory(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (transcript string) {
		record := &envtest.Recorder{}
		w := newWorld(t, seed, 5, record)
		w.serve("93.184.216.34:80", "answer from the far side")
		w.f.Hosts["host.example"] = []netip.Addr{netip.MustParseAddr("93.184.216.34")}
		w.join()
		if !w.f.RunUntil(30*time.Second, func() bool { return w.ready > 0 }) {
			t.Fatalf("the client is not ready: %v", w.steps)
		}
		got, err := w.download("host.example", 80, 10*time.Second)
		if err != nil || got != "answer from the far side" {
			t.Fatalf("%q, %v", got, err)
		}
		var path int
		for _, c := range w.client.Circuits() {
			if c.Open && len(c.Path) == 3 && !c.Clean {
				path++
			}
		}
		if path == 0 {
			t.Errorf("no circuit of three hops carried it: %+v", w.client.Circuits())
		}
		exits := int64(0)
		for _, r := range w.relays {
			exits += r.Counters()["relay_exit_bytes_in"]
		}
		if exits != int64(len(got)) {
			t.Errorf("the exits brought %d bytes, want %d", exits, len(got))
		}
		w.stop()
		return record.String()
	}
	first, second := run(7), run(7)
	if first != second {
		a, b := strings.Split(first, "\n"), strings.Split(second, "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("two runs with one seed differ in line %d:\n%s\n%s", i+1, a[i], b[i])
			}
		}
		t.Fatalf("two runs with one seed differ: %d and %d lines", len(a), len(b))
	}
	if n := strings.Count(first, "\n"); n < 1000 {
		t.Errorf("the transcript has only %d lines", n)
	}
	if first == run(8) {
		t.Error("another seed gives the same run")
	}
}

// stop stops all nodes and checks that nothing is left of circuits and streams.
func (w *world) stop() {
	w.t.Helper()
	w.f.Do(w.client.Stop)
	w.f.Run(2 * time.Minute)
	w.f.RunUntil(time.Minute, func() bool { // relays ask each other now and then
		for _, r := range w.relays {
			if c := r.Counters(); c["streams"]+c["queued_bytes"]+c["tombstones"] > 0 {
				return false
			}
		}
		return true
	})
	for i, r := range w.relays {
		c := r.Counters()
		for _, name := range []string{"relay_exit_streams", "streams", "queued_bytes", "tombstones", "budget_used_bytes"} {
			if v, ok := c[name]; v != 0 || !ok {
				w.t.Errorf("%s: %s is %d (known: %v)", w.hosts[i].Name, name, v, ok)
			}
		}
		if err := r.links.Check(); err != nil {
			w.t.Errorf("%s: %v", w.hosts[i].Name, err)
		}
		w.f.Do(r.Stop)
		w.f.Do(r.Stop) // twice is harmless
	}
	w.f.Run(time.Minute)
	for i, r := range w.relays {
		if c := r.Counters(); c["links"] != 0 || c["legs"] != 0 {
			w.t.Errorf("%s: after the end: %d links, %d legs", w.hosts[i].Name, c["links"], c["legs"])
		}
	}
}

// TestClientProgress: percents never fall, and 99 comes with readiness, once.
func TestClientProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 3, nil)
	var percents []int
	w.join()
	w.client.cfg.OnProgress = func(percent int, _, _ string) { percents = append(percents, percent) }
	w.f.RunUntil(30*time.Second, func() bool { return w.ready > 0 })
	w.f.Run(30 * time.Second)
	if w.ready != 1 || len(percents) < 3 || !slices.IsSorted(percents) || percents[len(percents)-1] != 99 {
		t.Errorf("ready %d times, percents %v", w.ready, percents)
	}
	w.stop()
}

// TestRelayComesBack: a relay that restarts has its identity and is listed again.
func TestRelayComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 4, nil)
	w.serve("93.184.216.34:80", "answer")
	w.join()
	w.f.RunUntil(30*time.Second, func() bool { return w.ready > 0 })
	identity, key := w.relays[3].Identity(), w.hosts[3].OnionKey
	w.hosts[3].Stop()
	w.f.Run(30 * time.Second)
	if c := w.client.follower.Current(); c.Lookup(identity) != nil {
		t.Error("a relay that is gone is still listed")
	}
	w.hosts[3] = w.f.Node("relay-4")
	w.envs[3] = w.hosts[3].Env
	w.start(3)
	if w.relays[3].Identity() != identity || w.hosts[3].OnionKey != key {
		t.Error("it came back as another")
	}
	w.f.Run(30 * time.Second)
	if c := w.client.follower.Current(); c.Lookup(identity) == nil {
		t.Error("it is not listed again")
	}
	if got, err := w.download("93.184.216.34", 80, 10*time.Second); got != "answer" {
		t.Errorf("%q, %v", got, err)
	}
	w.stop()
}

// TestLeave: a relay that says so is no longer listed, soon.
func TestLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 4, nil)
	w.join()
	w.f.RunUntil(30*time.Second, func() bool { return w.ready > 0 })
	identity := w.relays[2].Identity()
	left := false
	from := w.f.Now()
	w.f.Do(func() { w.relays[2].Leave(func() { left = true }) })
	if !w.f.RunUntil(2*time.Second, func() bool { return left }) || w.f.Now().Sub(from) > stopGrace {
		t.Fatalf("leaving took %v", w.f.Now().Sub(from))
	}
	w.f.Do(w.relays[2].Stop)
	w.hosts[2].Stop()
	if !w.f.RunUntil(12*time.Second, func() bool { return w.client.follower.Current().Lookup(identity) == nil }) {
		t.Error("a relay that left is still listed")
	}
	w.relays, w.hosts = append(w.relays[:2:2], w.relays[3]), append(w.hosts[:2:2], w.hosts[3])
	w.stop()
}

// TestLinksKnowWhoIsListed: what neighbours get depends on whether the consensus names them, and in
// a test network, where all have one address, not on where they are.
func TestLinksKnowWhoIsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 4, nil)
	authority, other := w.keys[0].Identity(), w.keys[1].Identity()
	if r := w.relays[2]; !r.vouchedFor(authority) || r.vouchedFor(other) {
		t.Error("before the first consensus not just the authority is vouched for")
	}
	w.join()
	if !w.f.RunUntil(30*time.Second, func() bool { return w.ready > 0 }) {
		t.Fatalf("the client is not ready: %v", w.steps)
	}
	// The client may have the first consensus a moment before the relay.
	r := w.relays[2]
	if !w.f.RunUntil(time.Second, func() bool { return r.vouchedFor(other) }) || r.vouchedFor(cert.Identity{1}) {
		t.Error("who is vouched for is not who is listed")
	}
	w.stop()
}
