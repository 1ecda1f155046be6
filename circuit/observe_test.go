package circuit

import (
	"fmt"
	"testing"
	"time"
)

// TestObserverHearsEachCircuit: every circuit begins once, goes on in order and ends once, and what is told of
// it agrees with the counters and with what the streams were told.
func TestObserverHearsEachCircuit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 7, 3)
	w.echo(server)
	type seen struct {
		last    Stage
		path    string
		key     string
		streams int
	}
	circuits := make(map[uint64]*seen)
	var built, over uint64
	x := w.newClient(func(cfg *Config) {
		cfg.OnCircuit = func(e Event) {
			s, known := circuits[e.ID]
			path := fmt.Sprint(e.Path)
			switch {
			case known != (e.Stage != StageBegun):
				t.Errorf("circuit %d: %v, and it is known: %v", e.ID, e.Stage, known)
				return
			case !known:
				s = &seen{path: path}
				circuits[e.ID] = s
			case e.Stage <= s.last && e.Stage != StageUsed:
				t.Errorf("circuit %d: %v after %v", e.ID, e.Stage, s.last)
			}
			if s.path != path || len(e.Path) != 3 {
				t.Errorf("circuit %d: path %v, before %v", e.ID, path, s.path)
			}
			if e.Stage == StageOpen {
				built++
				if e.Hops != 3 {
					t.Errorf("circuit %d is open with %d hops", e.ID, e.Hops)
				}
			}
			if e.Stage == StageOver {
				over++
				if e.Cause == "" || e.Err == nil {
					t.Errorf("circuit %d is over without a cause: %+v", e.ID, e)
				}
			}
			if e.Stage == StageUsed && e.Streams != s.streams+1 {
				t.Errorf("circuit %d: %d streams after %d", e.ID, e.Streams, s.streams)
			}
			s.last, s.key, s.streams = e.Stage, e.Key, e.Streams
		}
	})
	for i := range 4 {
		var carrier uint64
		r := web(server, fmt.Sprint("key-", i%2))
		a := x.open(r, []byte("small"))
		if !w.f.RunUntil(10*time.Second, func() bool {
			if a.h != nil && a.h.carrier != nil {
				carrier = a.h.carrier.p.id
			}
			return a.over()
		}) || a.err != nil {
			t.Fatalf("stream %d: %v", i, a.err)
		}
		if s := circuits[carrier]; s == nil || s.last != StageUsed || s.key != r.Isolation || s.streams == 0 {
			t.Errorf("stream %d was carried by circuit %d, of which %+v was told", i, carrier, s)
		}
		if a.result.Circuit != carrier {
			t.Errorf("the stream was told of circuit %d and was on %d", a.result.Circuit, carrier)
		}
	}
	x.c.Close()
	w.f.Run(time.Second)
	if stats := x.c.Stats(); stats.Built != built || built < 2 {
		t.Errorf("%d circuits were built, and the observer heard of %d", stats.Built, built)
	}
	if int(over) != len(circuits) {
		t.Errorf("%d circuits began and %d ended", len(circuits), over)
	}
}
