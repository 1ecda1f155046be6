package flow

import (
	"errors"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// TestIdleStreamsPushNobodyOut: streams that carry nothing cost memory that nobody can take
// back, so there is a bound on them alone, and what others have in buffers stays.
func TestIdleStreamsPushNobodyOut(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	b := NewBudget(4 << 20)
	newMux := func() *Mux {
		return NewMux(MuxConfig{
			Env: env.Env{Clock: w, Rand: w}, Granted: ExitWindows, Allowed: ClientWindows,
			Wake: func() {}, Handler: silent{}, Budget: b,
		})
	}
	open := func(m *Mux, n cell.StreamID) error {
		for id := cell.StreamID(1); id <= n; {
			var p [cell.PayloadSize]byte
			k := cell.NewPacker(p[:])
			for id <= n && k.Add(cell.MessageBeginDir, id, nil) {
				id++
			}
			k.Finish()
			if err := m.OnPayload(p[:]); err != nil {
				return err
			}
		}
		return nil
	}
	honest := newMux()
	if err := open(honest, 1); err != nil {
		t.Fatal(err)
	}
	s := honest.streams[1]
	s.Connected([]byte{0})
	s.Attach(newConn(w, s, make([]byte, 20000), false))
	w.run(time.Second)
	if s.out.len() == 0 {
		t.Fatal("the honest stream has nothing waiting")
	}
	refused := 0
	var muxes []*Mux
	for range 200 {
		m := newMux()
		muxes = append(muxes, m)
		if err := open(m, 63); errors.Is(err, ErrBudget) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		w.run(time.Millisecond)
	}
	if s.over || s.out.len() == 0 {
		t.Error("idle streams of others took the honest stream's bytes")
	}
	if refused == 0 || b.Used() > b.Limit()/2 {
		t.Errorf("%d circuits refused, %d of %d bytes used", refused, b.Used(), b.Limit())
	}
	for _, m := range append(muxes, honest) {
		m.Close(cell.ReasonDestroyed)
	}
	w.run(2 * time.Minute)
	if b.Used() != 0 || b.streams != 0 {
		t.Errorf("%d bytes left, %d of streams", b.Used(), b.streams)
	}
}

// silent takes streams and never answers.
type silent struct{}

func (silent) OnOpen(*Stream, cell.Message) {}
func (silent) OnControl(cell.Message) error { return nil }
