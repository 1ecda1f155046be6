package node

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env/envtest"
)

// measuredWorld is a network whose authority measures, with one exit, so that all that the client gets came through
// that relay.
func measuredWorld(t *testing.T, seed uint64, relays, exit int, claim func(i int) uint64, uplink func(i int) func(*envtest.Node) int) *world {
	t.Helper()
	w := &world{t: t, f: envtest.NewFake(seed)}
	id := cert.NetworkID(sha256.Sum256([]byte("network")))
	for i := range relays {
		host := w.f.Node(fmt.Sprintf("relay-%d", i+1))
		host.Uplink = uplink(i)
		identity, err := NewIdentity(host.Env)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := NewSigner(host.Env, id, identity)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			contact := directory.Contact{Identity: signer.Identity(), Addresses: []netip.AddrPort{host.Address}}
			if w.network, err = directory.NewNetwork(directory.Network{
				Name: "test", ID: id, Created: envtest.Epoch, Test: true,
				Authorities: []directory.Contact{contact}, Bootstrap: []directory.Contact{contact},
				Parameters: directory.Parameters{
					directory.IntervalMillis: 10_000, directory.KeepaliveMillis: 2000, directory.MinRelays: int64(relays),
					directory.MeasureIntervals: 3, directory.MeasureKiB: 512, directory.MeasureMillis: 1000,
				},
			}, signer); err != nil {
				t.Fatal(err)
			}
		}
		w.hosts, w.envs = append(w.hosts, host), append(w.envs, host.Env)
	}
	w.f.Run(time.Second) // the keys are saved
	for i := range w.hosts {
		host := w.hosts[i]
		keys, err := LoadKeys(host.Env, w.network)
		if err != nil {
			t.Fatal(err)
		}
		host.Identity = keys.Identity()
		host.OnionKey, _ = keys.OnionKey()
		policy, err := directory.ParsePolicy(map[bool]string{true: "all", false: "none"}[i == exit])
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRelay(RelayConfig{
			Env: host.Env, Network: w.network, Keys: keys, Addresses: []netip.AddrPort{host.Address}, Policy: policy,
			MemoryBytes: 64 << 20, Nickname: host.Name, Software: "test", Bandwidth: claim(i),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.keys, w.relays = append(w.keys, keys), append(w.relays, r)
		host.Serve(r)
		w.f.Do(r.Start)
	}
	return w
}

// weight is that of a relay in the client's consensus, in KiB a second.
func (w *world) weight(i int) uint32 {
	w.t.Helper()
	r := w.client.follower.Current().Lookup(w.keys[i].Identity())
	if r == nil {
		w.t.Fatalf("relay %d is not listed", i)
	}
	return r.Weight
}

// clientRate is how many KiB a second the client downloads.
func (w *world) clientRate() uint32 {
	w.t.Helper()
	const size = 3 << 19
	w.serve("93.184.216.34:80", strings.Repeat("x", size))
	from := w.f.Now()
	got, err := w.download("93.184.216.34", 80, time.Minute)
	if err != nil || len(got) != size {
		w.t.Fatalf("%d bytes, %v", len(got), err)
	}
	return uint32(float64(size>>10) / w.f.Now().Sub(from).Seconds())
}

// within a quarter, as the weight of a relay is to be of what clients get through it.
func near(weight, rate uint32) bool { return 4*weight >= 3*rate && 4*weight <= 5*rate }

// TestWeightsAreMeasured: a relay that claims a hundred times its speed has the weight of what the client gets through
// it, and one that claims far too little is as heavy as its equals.
func TestWeightsAreMeasured(t *testing.T) {
	t.Parallel()
	const liar, modest = 3, 4
	w := measuredWorld(t, 21, 7, liar, func(i int) uint64 {
		return map[int]uint64{liar: 50 << 20, modest: 2 << 10}[i]
	}, func(i int) func(*envtest.Node) int {
		return func(*envtest.Node) int {
			if i == liar {
				return 512 << 10
			}
			return 3 << 20
		}
	})
	w.join()
	if !w.f.RunUntil(time.Minute, func() bool { return w.ready > 0 }) {
		t.Fatalf("the client is not ready: %v", w.steps)
	}
	w.f.Run(3 * time.Minute)
	rate := w.clientRate()
	if got := w.weight(liar); !near(got, rate) || rate < 400 {
		t.Errorf("the relay that claims too much has the weight %d, and clients get %d KiB/s", got, rate)
	}
	t.Logf("the client gets %d KiB/s; weights: liar %d, modest %d, another %d", rate, w.weight(liar), w.weight(modest), w.weight(5))
	if got, other := w.weight(modest), w.weight(5); !near(got, other) || got < 2<<10 {
		t.Errorf("the relay that claims too little has the weight %d, its equal %d", got, other)
	}
	c := w.relays[0].Counters()
	if c["measure_known"] != 6 || c["measure_suspects"] != 0 || c["measure_done"] < 30 {
		t.Errorf("measured %d times, %d relays known, %d suspects", c["measure_done"], c["measure_known"], c["measure_suspects"])
	}
	given := int64(0)
	for _, r := range w.relays {
		given += r.Counters()["speed_test_given"]
	}
	if given < c["measure_done"] {
		t.Errorf("%d measurements, and relays gave bytes %d times", c["measure_done"], given)
	}
	w.stop()
}

// TestFastForAuthoritiesOnly: a relay that sends fast to the authority and slowly to all others has the weight of what
// the client gets, and is reported.
func TestFastForAuthoritiesOnly(t *testing.T) {
	t.Parallel()
	const liar = 3
	w := measuredWorld(t, 22, 7, liar, func(int) uint64 { return 0 }, func(i int) func(*envtest.Node) int {
		return func(to *envtest.Node) int {
			if i == liar && (to == nil || to.Name != "relay-1") {
				return 512 << 10
			}
			return 3 << 20
		}
	})
	w.join()
	if !w.f.RunUntil(time.Minute, func() bool { return w.ready > 0 }) {
		t.Fatalf("the client is not ready: %v", w.steps)
	}
	for w.relays[0].measurer.Stats().Suspects == 0 {
		if w.f.Run(5 * time.Second); w.f.Now().Sub(0) > 10*time.Minute {
			t.Fatalf("nobody is reported: %v", w.relays[0].Counters())
		}
	}
	t.Logf("found after %v", w.f.Now().Sub(0))
	if rate, got := w.clientRate(), w.weight(liar); !near(got, rate) {
		t.Errorf("its weight is %d, and clients get %d KiB/s", got, rate)
	}
	if c := w.relays[0].Counters(); c["measure_suspects"] != 1 || c["measure_reports"] != 1 {
		t.Errorf("%d suspects in %d reports", c["measure_suspects"], c["measure_reports"])
	}
	w.stop()
}
