package circuit

import (
	"slices"
	"testing"
	"time"
)

// TestStreamsAndGuardsAreDescribed: what the control API shows of a request agrees with what became of it, and an observer
// hears of each step once, in order.
func TestStreamsAndGuardsAreDescribed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, 8, 3)
	w.echo(server)
	var heard []StreamState
	x := w.newClient(func(c *Config) {
		c.OnStream = func(i StreamInfo) {
			if i.ID == 1 {
				heard = append(heard, i.State)
			}
		}
	})
	a := x.open(web(server, "key"), pattern(1, 5000))
	w.f.RunUntil(time.Second, func() bool { return len(x.c.Streams()) > 0 })
	if list := x.c.Streams(); len(list) != 1 || list[0].State != StreamWaiting || list[0].Key != "key" || list[0].Port == 0 {
		t.Errorf("asked: %+v", list)
	}
	open := func() bool { l := x.c.Streams(); return len(l) == 1 && l[0].State == StreamOpen && l[0].BytesIn > 0 }
	if !w.f.RunUntil(time.Minute, open) {
		t.Fatalf("never open: %+v, %v", x.c.Streams(), a.err)
	}
	s := x.c.Streams()[0]
	if i := slices.IndexFunc(x.c.Circuits(), func(i Info) bool { return i.ID == s.Circuit && i.Streams == 1 && i.Key == "key" }); i < 0 {
		t.Errorf("%+v is on none of %+v", s, x.c.Circuits())
	}
	used := 0
	for _, g := range x.c.Guards() {
		if g.InUse {
			used++
			if !g.Primary || !g.Confirmed || g.State != "up" || g.Circuits == 0 {
				t.Errorf("the guard in use is %+v", g)
			}
		}
	}
	if used != 1 {
		t.Errorf("%d guards are in use", used)
	}
	w.f.Do(a.h.Cancel)
	w.f.Run(time.Second)
	if list := x.c.Streams(); len(list) != 0 {
		t.Errorf("over: %+v", list)
	}
	if want := []StreamState{StreamWaiting, StreamAsked, StreamOpen, StreamOver}; !slices.Equal(slices.Compact(heard), want) || len(heard) != len(want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}
