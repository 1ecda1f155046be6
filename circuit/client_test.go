package circuit

import (
	"testing"
	"time"
)

func TestBytesTravelThreeHopsAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 7, 3)
	w.echo(server)
	x := w.newClient(nil)
	if err := x.carry(time.Minute, pattern(1, 3<<20)); err != nil {
		t.Fatal(err)
	}
	x.w.f.Run(time.Second)
	if n := x.c.Stats().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
	if err := x.links.Check(); err != nil {
		t.Error(err)
	}
}
