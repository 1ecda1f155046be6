package circuit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/directory"
	"cepa/env"
)

func TestBytesTravelThreeHopsAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 7, 3)
	w.echo(server)
	x := w.newClient(nil)
	if err := x.carry(time.Minute, pattern(1, 3<<20)); err != nil {
		t.Fatal(err)
	}
	w.f.Run(time.Second)
	x.quiet(t)
}

// TestManyStreamsShareFewCircuits: one key uses one circuit until that is full.
func TestManyStreamsShareFewCircuits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 7, 3)
	w.f.Rate = 16 << 20
	w.echo(server)
	x := w.newClient(nil)
	var apps []*app
	for i := range 100 {
		apps = append(apps, x.open(web(server, "key"), pattern(uint64(i), 30<<10)))
	}
	used := map[uint64]bool{}
	if !w.f.RunUntil(time.Minute, func() bool {
		over := true
		for _, a := range apps {
			if a.h != nil && a.h.carrier != nil {
				used[a.h.carrier.p.id] = true
			}
			over = over && a.over()
		}
		return over
	}) {
		t.Fatal("not all streams came to an end")
	}
	for i, a := range apps {
		if a.err != nil || !bytes.Equal(a.probe.State().Received, a.send) {
			t.Errorf("stream %d: %v, %d bytes", i, a.err, len(a.probe.State().Received))
		}
	}
	if least := (100 + streamsPerCircuit - 1) / streamsPerCircuit; len(used) < least || len(used) > least+2 {
		t.Errorf("%d circuits for 100 streams, want about %d", len(used), least)
	}
	w.f.Run(time.Second)
	x.quiet(t)
}

// TestSequentialRequestsLeaveNothing counts what a thousand requests leave behind.
func TestSequentialRequestsLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 5, 2)
	w.f.Delay = time.Millisecond
	w.echo(server)
	x := w.newClient(nil)
	for i := range 1000 {
		if err := x.carry(10*time.Second, []byte("small")); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	w.f.Run(time.Second)
	x.quiet(t)
	if n := len(x.c.circuits); n > 1+2*x.c.limits.Spares {
		t.Errorf("%d circuits are left", n)
	}
	for _, p := range x.c.circuits {
		if n := p.circuit.mux.Streams(); n != 0 {
			t.Errorf("circuit %d keeps %d streams", p.id, n)
		}
	}
	for _, r := range w.relays {
		if s := r.relay.Stats(); s.ExitStreams != 0 {
			t.Errorf("%s keeps %d streams", r.name, s.ExitStreams)
		}
	}
}

// TestHowRequestsFail is the matrix of failures: what an application is told, and that
// everybody is told exactly once.
func TestHowRequestsFail(t *testing.T) {
	t.Parallel()
	closed := netip.MustParseAddrPort("203.0.113.8:80")
	silent := netip.MustParseAddrPort("203.0.113.9:80")
	barred := netip.MustParseAddrPort("203.0.113.10:80")
	private := netip.MustParseAddrPort("10.1.2.3:80")
	name := func(host string) Request { return Request{Address: cell.Address{Host: host}, Port: 80} }
	for _, c := range []struct {
		name    string
		request Request
		prepare func(w *world)
		public  bool
		reason  cell.Reason
		where   Where
		text    string
		most    time.Duration
		asked   int // attempts, at most
	}{
		{name: "no such host", request: name("nowhere.test"), reason: cell.ReasonNoSuchHost, where: AtDestination, text: "no such host", most: time.Second, asked: 1},
		{name: "a name without addresses", request: name("empty.test"), reason: cell.ReasonNoSuchHost, where: AtDestination, text: "no such host", most: time.Second, asked: 1},
		{name: "refused", request: web(closed, ""), reason: cell.ReasonRefused, where: AtDestination, text: "refused by the destination", most: time.Second, asked: 1},
		{name: "silent", request: web(silent, ""), reason: cell.ReasonTimeout, where: AtDestination, text: "timed out", most: 59 * time.Second, asked: 3},
		{name: "policy", request: web(barred, ""), reason: cell.ReasonPolicy, where: AtExit, text: "refused by the exit's policy", most: 2 * time.Second, asked: 3},
		{name: "no exit", request: Request{Address: cell.Address{Host: "x.test"}, Port: 4444}, reason: cell.ReasonPolicy, where: AtCircuit, text: "no relay of the network is an exit for this port", most: time.Second, asked: 1,
			prepare: func(w *world) {
				for _, r := range w.relays {
					if r.policy != nil {
						p, _ := directory.ParsePolicy("web")
						r.policy = &p
					}
				}
				w.agree(nil)
			}},
		{name: "private address", request: web(private, ""), public: true, reason: cell.ReasonPolicy, where: AtClient, text: "not on the public internet", most: time.Second},
		{name: "private name", request: name("Printer.Local."), public: true, reason: cell.ReasonPolicy, where: AtClient, text: "not on the public internet", most: time.Second},
		{name: "an onion service, in a test network too", request: name("www.x.Onion."), reason: cell.ReasonPolicy, where: AtClient, text: "onion service", most: time.Second},
		{name: "localhost", request: name("localhost"), public: true, reason: cell.ReasonPolicy, where: AtClient, text: "not on the public internet", most: time.Second},
		{name: "no encoding", request: name("two words"), reason: cell.ReasonProtocol, where: AtClient, text: "host name", most: time.Second},
		{name: "no consensus", request: web(server, ""), prepare: func(w *world) { w.consensus = nil },
			reason: cell.ReasonTimeout, where: AtCircuit, text: "no consensus yet", most: 60 * time.Second},
		{name: "offline", request: web(server, ""), prepare: func(w *world) {
			for _, r := range w.relays {
				r.node.Stop()
			}
		}, reason: cell.ReasonTimeout, where: AtCircuit, text: "no guard reachable", most: 60 * time.Second, asked: 1},
		{name: "two relays", request: web(server, ""), prepare: func(w *world) { w.agree(w.relays[2:]) },
			reason: cell.ReasonTimeout, where: AtCircuit, text: "lists no guard", most: 60 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 4, 7, 4)
			w.f.Hosts["empty.test"] = nil
			w.f.Silence(silent)
			if c.name == "policy" {
				p, err := directory.ParsePolicy("reject 203.0.113.10:*, accept *:*")
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range w.relays {
					if r.policy != nil {
						r.policy = &p
						r.node.Stop()
						r.start()
					}
				}
				w.agree(nil)
			}
			if c.prepare != nil {
				c.prepare(w)
			}
			x := w.newClient(func(cfg *Config) { cfg.Test = !c.public })
			start := w.f.Now()
			a := x.open(c.request, nil)
			if !w.f.RunUntil(2*time.Minute, func() bool { return a.dones > 0 }) {
				t.Fatal("no outcome")
			}
			w.f.Run(2 * time.Minute)
			if a.dones != 1 {
				t.Errorf("%d outcomes", a.dones)
			}
			var e *Error
			if err, ok := a.err.(*Error); ok {
				e = err
			} else {
				t.Fatalf("outcome %v", a.err)
			}
			if e.Reason != c.reason || e.Where != c.where || !strings.Contains(e.Text, c.text) {
				t.Errorf("got %v at %s: %s", e.Reason, e.Where, e.Text)
			}
			if strings.Contains(e.Plain(), c.request.Address.String()) && c.name != "no encoding" || e.Plain() == "" {
				t.Errorf("the text for logs names the destination: %s", e.Plain())
			}
			if took := a.at.Sub(start); took > c.most {
				t.Errorf("took %v, at most %v", took, c.most)
			}
			if c.asked > 0 && a.h.started > c.asked {
				t.Errorf("%d attempts, at most %d", a.h.started, c.asked)
			}
			x.quiet(t)
		})
	}
}

// TestAnotherExitIsTried: what one exit refuses by its policy another may serve.
func TestAnotherExitIsTried(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		w := newWorld(t, seed, 7, 3)
		w.echo(server)
		p, err := directory.ParsePolicy("reject 203.0.113.7:*, accept *:*")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range w.relays[4:6] {
			r.policy = &p
			r.node.Stop()
			r.start()
		}
		w.agree(nil)
		x := w.newClient(nil)
		w.f.Run(time.Second)
		if w.find(x.c.guards.primary[0].id) == w.relays[6] {
			continue // the only exit that would do is the guard
		}
		if err := x.carry(5*time.Second, []byte("hello")); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// TestIsolationKeysNeverShareACircuit runs random workloads for an hour, with new identities
// and expiring circuits among them.
func TestIsolationKeysNeverShareACircuit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*seeds+1) / 2 {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := newWorld(t, seed, 7, 3)
		w.echo(server)
		x := w.newClient(nil)
		keys := map[uint64]string{}   // of circuits
		born := map[uint64]env.Mono{} // first use of circuits
		var apps []*app
		fresh := uint64(0) // circuits up to here are of an older identity
		check := func() bool {
			for _, p := range x.c.circuits {
				if key, ok := keys[p.id]; ok && (!p.keyed || p.key != key) {
					t.Fatalf("seed %d: circuit %d changed its key from %q", seed, p.id, key)
				}
				if p.keyed {
					keys[p.id] = p.key
				}
			}
			for _, a := range apps {
				if a.h == nil {
					continue
				}
				for _, b := range append(a.h.attempts, a.h.carrier) {
					if b == nil || b.p == nil {
						continue // waiting, or over
					}
					if key := keys[b.p.id]; key != a.h.key {
						t.Fatalf("seed %d: a stream of %q on a circuit of %q", seed, a.h.key, key)
					}
					if _, ok := born[b.p.id]; !ok {
						born[b.p.id] = b.since
					}
					if b.since.Sub(born[b.p.id]) > x.c.limits.Reuse {
						t.Fatalf("seed %d: a new stream on a circuit used for %v", seed, b.since.Sub(born[b.p.id]))
					}
				}
			}
			return false
		}
		for range 60 {
			switch {
			case rng.IntN(15) == 0:
				w.f.Do(x.c.NewIdentity)
				fresh = x.c.nextID
			default:
				a := x.open(web(server, fmt.Sprint(rng.IntN(4))), pattern(seed, rng.IntN(20000)))
				apps = append(apps, a)
				w.f.RunUntil(5*time.Second, func() bool { check(); return a.dones > 0 })
				if a.err != nil {
					t.Fatalf("seed %d: %v", seed, a.err)
				}
				if p := a.h.carrier; p != nil && p.p.id <= fresh {
					t.Fatalf("seed %d: a stream of the new identity on circuit %d", seed, p.p.id)
				}
			}
			w.f.RunUntil(time.Duration(rng.IntN(120))*time.Second, check)
			apps = slices.DeleteFunc(apps, func(a *app) bool { return a.h.over && a.h.carrier == nil })
		}
		w.f.Run(15 * time.Minute)
		x.quiet(t)
		for _, p := range x.c.circuits {
			if p.keyed {
				t.Errorf("seed %d: a circuit used long ago is still there", seed)
			}
		}
	}
}

func TestCancelAndHangUp(t *testing.T) {
	t.Parallel()
	for _, when := range []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, 140 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		for _, how := range []string{"cancel", "hang up", "close"} {
			w := newWorld(t, 6, 7, 3)
			w.echo(server)
			x := w.newClient(nil)
			a := x.open(web(server, ""), nil)
			w.f.Run(when)
			connected := a.dones
			switch how {
			case "cancel":
				if a.h == nil {
					w.f.Run(time.Millisecond)
				}
				w.f.Do(func() { a.h.Cancel(); a.h.Cancel() })
			case "hang up":
				w.f.Run(time.Millisecond)
				w.f.Do(func() { a.far.Close(fmt.Errorf("enough")) })
			case "close":
				w.f.Do(func() { x.c.Close(); x.c.Close() })
			}
			w.f.Run(2 * time.Minute)
			want := 1
			if how == "cancel" {
				want = connected
			}
			if a.dones != want {
				t.Errorf("%s after %v: %d outcomes", how, when, a.dones)
			}
			x.quiet(t)
			for _, r := range w.relays {
				if s := r.relay.Stats(); s.ExitStreams != 0 {
					t.Errorf("%s after %v: %s keeps %d streams", how, when, r.name, s.ExitStreams)
				}
			}
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7, 7, 3)
	v4, v6, inner := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2600::7"), netip.MustParseAddr("10.0.0.1")
	public := netip.MustParseAddr("93.184.216.34")
	w.f.Hosts["www.test"] = []netip.Addr{v4, v6}
	w.f.Hosts["inner.test"] = []netip.Addr{inner}
	w.f.Hosts["both.test"] = []netip.Addr{inner, public}
	w.f.Names[v4] = []string{"www.test."}
	for _, c := range []struct {
		ask    cell.Address
		flags  cell.Flags
		public bool
		want   string
		reason cell.Reason
	}{
		{ask: cell.Address{Host: "www.test"}, want: "[203.0.113.7 2600::7]"},
		{ask: cell.Address{Host: "www.test"}, flags: cell.AllowIPv6, want: "[2600::7]"},
		{ask: cell.Address{IP: v4}, want: "[www.test]"},
		{ask: cell.Address{Host: "nowhere.test"}, reason: cell.ReasonNoSuchHost},
		{ask: cell.Address{Host: "inner.test"}, want: "[10.0.0.1]"},
		{ask: cell.Address{Host: "inner.test"}, public: true, reason: cell.ReasonNoSuchHost},
		{ask: cell.Address{Host: "both.test"}, public: true, want: "[93.184.216.34]"},
		{ask: cell.Address{IP: inner}, public: true, reason: cell.ReasonPolicy},
	} {
		x := w.newClient(func(cfg *Config) { cfg.Test = !c.public })
		dones, got, ttl, reason := 0, "", time.Duration(0), cell.ReasonNone
		w.f.Do(func() {
			x.c.Resolve(ResolveRequest{Address: c.ask, Flags: c.flags}, func(answers []cell.Address, d time.Duration, err error) {
				dones++
				if err == nil {
					got, ttl = fmt.Sprint(answers), d
				}
				reason = reasonOf(err)
			})
		})
		w.f.RunUntil(time.Minute, func() bool { return dones > 0 })
		w.f.Run(time.Minute)
		if dones != 1 || got != c.want || reason != c.reason || (got != "") != (ttl > 0) {
			t.Errorf("%v: %d outcomes, %q for %v, %v", c.ask, dones, got, ttl, reason)
		}
		x.quiet(t)
		w.f.Do(x.c.Close)
	}
}

// TestProbeNeedsAWholeCircuit: a probe succeeds only when the last relay answers.
func TestProbeNeedsAWholeCircuit(t *testing.T) {
	t.Parallel()
	for _, answering := range []bool{true, false} {
		w := newWorld(t, 8, 5, 2)
		asked := 0
		for _, r := range w.relays {
			r.answer = func(request []byte) []byte {
				if len(request) > 2 {
					if q, err := directory.DecodeRequest(request[2:]); err == nil && q.Kind == directory.AskHead && r.policy != nil {
						asked++
					}
				}
				if !answering {
					return nil
				}
				return []byte("\x00\x00\x00\x00\x01x")
			}
		}
		x := w.newClient(nil)
		dones, failure := 0, error(nil)
		w.f.Do(func() { x.c.Probe(func(err error) { dones++; failure = err }) })
		w.f.Run(5 * time.Minute)
		if dones != 1 || (failure == nil) != answering || asked != 1 {
			t.Errorf("answering %v: %d outcomes, %v, %d exits were asked", answering, dones, failure, asked)
		}
		for _, info := range x.c.Circuits() {
			if !info.Clean || len(info.Path) != 3 {
				t.Errorf("circuit after the probe: %+v", info)
			}
		}
		x.quiet(t)
	}
}

// TestIPv6LiteralsUseExitsWithIPv6 protects literals from exits that cannot reach them.
func TestIPv6LiteralsUseExitsWithIPv6(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 9, 7, 4)
	at := netip.MustParseAddrPort("[2600::1]:80")
	w.echo(at)
	only := w.relays[6]
	for i := range w.consensus.Relays {
		if r := &w.consensus.Relays[i]; r.Identity != only.node.Identity {
			r.Ports.IPv6 = nil
		} else {
			r.Flags &^= directory.FlagGuard // else it could be the guard, and nobody's exit
		}
	}
	x := w.newClient(nil)
	for range 5 {
		a := x.open(web(at, fmt.Sprint(x.c.nextID)), []byte("six"))
		if !w.f.RunUntil(5*time.Second, a.over) || a.err != nil {
			t.Fatal(a.err)
		}
		if a.result.IP != at.Addr() {
			t.Errorf("connected to %v", a.result.IP)
		}
	}
	if n := only.relay.Stats().ExitConnects; n != 5 {
		t.Errorf("the exit with IPv6 made %d of 5 connections", n)
	}
}
