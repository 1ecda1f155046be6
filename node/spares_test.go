package node

import (
	"fmt"
	"testing"
	"time"
)

// TestSpareCircuits: a client keeps circuits ready for what it may be asked next; one that is told not to has none but
// those that were asked for, and serves all the same.
func TestSpareCircuits(t *testing.T) {
	t.Parallel()
	for _, none := range []bool{false, true} {
		w := newWorld(t, 90, 5, nil)
		w.noSpares = none
		w.serve("93.184.216.34:80", "answer")
		w.f.Run(time.Minute)
		w.join()
		if !w.f.RunUntil(30*time.Second, func() bool { return w.ready > 0 }) {
			t.Fatalf("not ready: %v", w.steps)
		}
		for i := range 3 {
			w.isolation = fmt.Sprint(i)
			if got, err := w.download("93.184.216.34", 80, 30*time.Second); got != "answer" {
				t.Fatalf("%q, %v", got, err)
			}
		}
		w.f.Run(10 * time.Second)
		spare := 0
		for _, c := range w.client.Circuits() {
			if c.Clean {
				spare++
			}
		}
		if none != (spare == 0) {
			t.Errorf("none wanted %v: %d spare circuits of %d", none, spare, len(w.client.Circuits()))
		}
	}
}
