package simnet

import (
	"fmt"
	"os"
	"testing"
	"time"

	"cepa/directory"
)

// TestGuardsThroughChurn: relays come and go for 30 days, the clients restart now and then, and no client has circuits
// through more guards than the protocol says, 20 in a network of this size; in fact it is a few. The short version has
// 2 days.
func TestGuardsThroughChurn(t *testing.T) {
	t.Parallel()
	relays, clients, days, interval := 20, 2, 1, time.Hour
	if os.Getenv("CEPA_LONG") != "" {
		relays, clients, days = 40, 4, 30
	}
	w := New(Config{Seed: 1, Latency: flat(t, 60*time.Millisecond, 300), Crypto: Fast})
	w.Watch(Checkers()...)
	w.KeepFlows(false)
	s := &small{World: w, t: t}
	authority := w.Host(HostSpec{Name: "authority-1"})
	n, err := w.Found(NetworkSpec{
		Name: "guards", Test: true, Authorities: []*Host{authority}, Parameters: directory.Parameters{
			directory.IntervalMillis: interval.Milliseconds(), directory.KeepaliveMillis: 60_000, directory.MinRelays: int64(relays / 2), directory.NewRelays: int64(relays),
			directory.ReconcileMillis: interval.Milliseconds(), directory.UpdateMillis: interval.Milliseconds(), directory.MeasureIntervals: 0,
			directory.GuardMinAge: 3600,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.net = n
	s.relay(authority, RelaySpec{DirectoryOnly: true})
	dice := w.Stream(StreamChurn, "guards")
	mean := func(d time.Duration) time.Duration { return time.Minute + time.Duration(dice.Exponential(int64(d))) }
	start := func(f func() error) {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	// A relay is there for a day and away for a quarter of one, on average.
	for i := range relays {
		r := s.relay(w.Host(HostSpec{Name: fmt.Sprintf("relay-%d", i+1), Up: 10 << 20, Down: 10 << 20}), RelaySpec{Policy: []string{"none", "none", "all"}[i%3]})
		var come, leave func()
		come = func() {
			if r.Host.Silence(false); !r.Host.Alive() {
				start(r.Start)
			}
			w.After(mean(24*time.Hour), leave)
		}
		leave = func() {
			if dice.Below(2) == 0 {
				r.Stop(nil)
			} else {
				r.Host.PowerOff()
			}
			w.After(mean(6*time.Hour), come)
		}
		w.After(mean(24*time.Hour), leave)
	}
	w.Server(w.Host(HostSpec{Name: "server-1"}), 80, "web.example")
	good, bad, restarts := 0, 0, 0
	w.OnFlow(func(f *Flow) {
		if f.Err == nil {
			good++
		} else {
			bad++
		}
	})
	page := Web("web.example", 2000)
	page.Think, page.Isolated = 20*time.Minute, true
	for i := range clients {
		c, err := n.Client(w.Host(HostSpec{Name: fmt.Sprintf("client-%d", i+1)}), ClientSpec{})
		if err != nil {
			t.Fatal(err)
		}
		c.Use(page)
		var again func()
		again = func() { // every other day, in order or not
			if restarts++; dice.Below(2) == 0 {
				c.Stop()
				w.After(2*time.Second, func() { c.Host.Crash(); start(c.Start); c.Use(page) })
			} else {
				c.Host.Crash()
				start(c.Start)
				c.Use(page)
			}
			w.After(mean(48*time.Hour), again)
		}
		w.After(mean(48*time.Hour), again)
	}
	w.Run(time.Duration(days) * 24 * time.Hour)
	for _, x := range w.checkers {
		if x, ok := x.(*GuardChecker); ok {
			t.Logf("%d days of %d relays, %d restarts of %d clients, %d streams well and %d not: a client had %d guards at most; the bound is %d", days, relays, restarts, clients, good, bad, x.Most, x.stated)
			if x.stated != leastGuards || x.Most < 1 {
				t.Errorf("the bound is %d, and %d guards were seen", x.stated, x.Most)
			}
		}
	}
	if good < 50*days || bad > good/10 {
		t.Errorf("%d streams went well and %d did not", good, bad)
	}
	s.finish()
}
