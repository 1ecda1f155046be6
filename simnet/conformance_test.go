package simnet

import (
	"crypto/sha256"
	"net/netip"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/env/envtest"
)

// flat is a matrix of one region with a round trip.
func flat(t testing.TB, trip time.Duration, jitter int) *Latency {
	t.Helper()
	l, err := NewLatency([]string{"here"}, [][]time.Duration{{trip}}, jitter)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The simulated world keeps the laws, as the daemon's does, however it is tuned.
func TestWorldConforms(t *testing.T) {
	t.Parallel()
	for name, tune := range map[string]struct {
		trip   time.Duration
		jitter int
		spec   HostSpec
		loss   uint64
	}{
		"no distance": {},
		"distance":    {trip: 40 * time.Millisecond, jitter: 200},
		"narrow":      {trip: 20 * time.Millisecond, spec: HostSpec{Up: 4 << 20, Down: 4 << 20}},
		"in turn":     {trip: 20 * time.Millisecond, spec: HostSpec{Up: 4 << 20, Down: 8 << 20, FIFO: true}},
		"lossy":       {trip: 10 * time.Millisecond, loss: 1000},
		"slow": {trip: 2 * time.Millisecond, spec: HostSpec{CPU: CPU{
			Cores: 2, Event: 3 * time.Microsecond, Cell: time.Microsecond, Send: time.Microsecond, Offload: 300 * time.Microsecond, Link: time.Millisecond,
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			envtest.Conformance(t, func(t *testing.T) *envtest.World {
				return conformWorld(New(Config{Seed: 1, Latency: flat(t, tune.trip, tune.jitter)}), tune.spec, tune.loss)
			})
		})
	}
}

func conformWorld(w *World, spec HostSpec, loss uint64) *envtest.World {
	host := func(name string) *Host {
		spec.Name = name
		h := w.Host(spec)
		h.Loss(loss)
		return h
	}
	a, b, server := host("a"), host("b"), host("server")
	w.Name("host.example", server.Address)
	identity := func(name string) cert.Identity { return cert.Identity(sha256.Sum256([]byte(name))) }
	onion := func() [32]byte { return [32]byte{1} }
	refusing := netip.AddrPortFrom(server.Address, 9)
	port := uint16(1000)
	return &envtest.World{
		Env:  a.Env(),
		Do:   func(f func()) { w.Do(a, f) },
		Wait: w.RunUntil,
		Listen: func(accept func(env.Conn) env.ConnEvents) netip.AddrPort {
			port++
			return server.Listen(port, accept)
		},
		DoFar:    func(f func()) { w.Do(server, f) },
		Refusing: refusing,
		Silent:   netip.MustParseAddrPort("192.0.2.1:80"),
		Host:     "host.example",
		Addr:     server.Address,
		NoHost:   "no.example",
		Reopen: func() env.Store {
			a.Crash()
			a.Boot()
			return a.Env().Store
		},
		Links: func(ha, hb env.LinkHandler) envtest.LinkWorld {
			a.Links(ha, identity("a"), 9001, onion)
			b.Links(hb, identity("b"), 9001, onion)
			return envtest.LinkWorld{
				Dialer: a.Env().Dialer, A: a.Target(), B: b.Target(), DoB: func(f func()) { w.Do(b, f) },
				Refusing: env.Target{Identity: b.identity, Addresses: []netip.AddrPort{refusing}},
				Impostor: env.Target{Identity: identity("c"), Addresses: b.Target().Addresses},
			}
		},
	}
}
