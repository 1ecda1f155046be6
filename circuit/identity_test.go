package circuit

import (
	"bytes"
	"testing"
	"time"

	"cepa/cell"
)

// After NewIdentity a stream that is open goes on where it is, and all that begins, whatever its key, uses circuits
// that were begun after it: neither one that is there, used or clean, nor one that was being built.
func TestNewIdentity(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		w := newWorld(t, 40+seed, 7, 3)
		w.echo(server)
		x := w.newClient(nil)
		old := x.open(web(server, "key"), nil)
		if !w.f.RunUntil(time.Minute, func() bool { return old.dones > 0 }) || old.err != nil {
			t.Fatal("no stream", old.err)
		}
		// Requests with other keys, so that circuits are being built at the moment of the change.
		w.f.Do(func() {
			x.c.Resolve(ResolveRequest{Address: web(server, "").Address, Isolation: "another"}, func([]cell.Address, time.Duration, error) {})
		})
		w.f.Run(time.Duration(seed) * 20 * time.Millisecond)
		var last uint64
		w.f.Do(func() {
			last = x.c.nextID
			x.c.NewIdentity()
		})
		for _, key := range []string{"key", "new", ""} {
			a := x.open(web(server, key), []byte("new"))
			if !w.f.RunUntil(time.Minute, a.over) || a.err != nil {
				t.Fatal("no stream after the change", a.err)
			}
			if a.result.Circuit <= last {
				t.Errorf("seed %d: key %q uses circuit %d, which was begun before the change at %d", seed, key, a.result.Circuit, last)
			}
		}
		sent := pattern(seed, 5000)
		old.far.Write(sent)
		old.far.CloseWrite()
		if !w.f.RunUntil(time.Minute, old.over) || !bytes.Equal(old.probe.State().Received, sent) || old.probe.State().Downs > 0 {
			t.Errorf("seed %d: the stream of before did not go on: %+v", seed, old.probe.State())
		}
		w.f.Run(time.Minute)
		for _, p := range x.c.circuits {
			if p.id <= last {
				t.Errorf("seed %d: circuit %d of before is left without a stream", seed, p.id)
			}
		}
	}
}
