package circuit

import (
	"net/netip"
	"testing"
	"time"

	"cepa/directory"
)

// TestACircuitIsReadyBeforeItIsNeeded: circuits for the web are there before anybody asks, and for a port that was used within the
// last hour; so a stream with a new isolation key waits for one round trip and no circuit. A client that nobody uses for an hour keeps none.
func TestACircuitIsReadyBeforeItIsNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 21, 14, 8)
	for i, r := range w.relays[6:] { // two of eight exits serve port 22
		if i >= 2 {
			p, err := directory.ParsePolicy("web")
			if err != nil {
				t.Fatal(err)
			}
			r.policy = &p
			r.node.Stop()
			r.start()
		}
	}
	w.agree(nil)
	w.echo(server)
	shell := netip.MustParseAddrPort("203.0.113.7:22")
	w.echo(shell)
	x := w.newClient(nil)
	w.f.Run(2 * time.Second)
	ready := func(port uint16) (n int) {
		for _, p := range x.c.circuits {
			if p.open && !p.keyed && !p.retired && p.exit.serves(destination{port: port, v4: true}) {
				n++
			}
		}
		return n
	}
	trip := 8 * w.f.Delay // three hops and the server, there and back
	opens := func(at netip.AddrPort, key string) time.Duration {
		began := w.f.Now()
		a := x.open(web(at, key), []byte("hello"))
		if !w.f.RunUntil(time.Minute, a.over) || a.err != nil {
			t.Fatal(a.err)
		}
		took := a.at.Sub(began)
		w.f.Run(2 * time.Second)
		return took
	}
	if ready(80) < 2 || ready(443) < 2 {
		t.Fatalf("%d and %d circuits for the web before any request", ready(80), ready(443))
	}
	if took := opens(server, "a"); took > trip {
		t.Errorf("the first stream to the web took %v", took)
	}
	first := opens(shell, "b")
	if ready(22) < 2 {
		t.Errorf("%d circuits for a port that was just used", ready(22))
	}
	if took := opens(shell, "c"); took > trip {
		t.Errorf("a stream to a port used before took %v, the first %v", took, first)
	}
	built := x.c.nextID
	w.f.Run(50 * time.Minute)
	if n := x.c.nextID - built; n > 12 {
		t.Errorf("%d circuits were built while nobody asked for anything", n)
	}
	if took := opens(shell, "d"); took > trip {
		t.Errorf("a stream to a port used within the hour took %v", took)
	}
	w.f.Run(3 * time.Hour)
	for _, u := range x.c.ports {
		if u.to.port == 22 && w.f.Now().Sub(u.last) < x.c.limits.PortAge {
			t.Error("the port counts as used")
		}
	}
	if took := opens(server, "e"); took > 4*trip {
		t.Errorf("hours later the first stream to the web took %v", took)
	}
}
