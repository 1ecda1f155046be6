package link

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"cepa/env"
	"cepa/env/envtest"
	"cepa/loop"
)

// realLoop is a loop that tells a Transport which comes later when a batch has run.
type realLoop struct {
	*loop.Loop
	t     *testing.T
	after atomic.Pointer[func()]
}

// world is a relay on a real loop.
type world struct {
	*Transport
	keys *keys
	addr netip.AddrPort
}

// TestConformance checks the laws of package env on links between two real loops.
func TestConformance(t *testing.T) {
	t.Run("woken by Send", func(t *testing.T) { conformance(t, false) })
	t.Run("woken after batches", func(t *testing.T) { conformance(t, true) })
}

func conformance(t *testing.T, afterBatch bool) {
	envtest.Conformance(t, func(t *testing.T) *envtest.World {
		a, b := newLoop(t), newLoop(t)
		return &envtest.World{
			Env: a.Env(),
			Do:  a.do,
			Wait: func(limit time.Duration, cond func() bool) bool {
				for deadline := time.Now().Add(limit); !cond(); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						return false
					}
				}
				return true
			},
			Links: func(atA, atB env.LinkHandler) envtest.LinkWorld {
				na, nb := newWorld(t, a, "a", atA, afterBatch), newWorld(t, b, "b", atB, afterBatch)
				closed := listen(t)
				refusing := closed.Addr().(*net.TCPAddr).AddrPort()
				closed.Close()
				target := func(w *world, at netip.AddrPort) env.Target {
					return env.Target{Identity: w.keys.identity.Identity(), Addresses: []netip.AddrPort{at}}
				}
				return envtest.LinkWorld{
					Dialer: na, A: target(na, na.addr), B: target(nb, nb.addr),
					Impostor: env.Target{Identity: newKeys(t, testNetwork, "c", time.Now()).identity.Identity(), Addresses: []netip.AddrPort{nb.addr}},
					Refusing: target(nb, refusing),
					DoB:      b.do,
				}
			},
		}
	})
}

func newLoop(t *testing.T) *realLoop {
	t.Helper()
	inner, err := loop.New(loop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := &realLoop{Loop: inner, t: t}
	l.AfterBatch(func() {
		if f := l.after.Load(); f != nil {
			(*f)()
		}
	})
	go l.Run()
	t.Cleanup(func() {
		l.Stop()
		<-l.Done()
	})
	return l
}

func (l *realLoop) do(f func()) {
	if err := l.Do(context.Background(), f); err != nil {
		l.t.Error(err)
	}
}

func newWorld(t *testing.T, l *realLoop, name string, h env.LinkHandler, afterBatch bool) *world {
	t.Helper()
	w := &world{keys: newKeys(t, testNetwork, name, time.Now())}
	cfg := Config{Loop: l, Network: testNetwork, Handler: h, Credentials: w.keys.credentials(t, testNetwork, time.Now()), FreeLoopback: true}
	if afterBatch {
		cfg.AfterBatch = func(f func()) { l.after.Store(&f) }
	}
	var err error
	if w.Transport, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	ln := listen(t)
	w.addr = ln.Addr().(*net.TCPAddr).AddrPort()
	go func() {
		if err := w.Serve(ln); err != nil {
			t.Error(err)
		}
	}()
	return w
}
