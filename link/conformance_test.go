package link

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"cepa/env"
	"cepa/env/envtest"
	"cepa/loop"
)

// world is a relay on a real loop.
type world struct {
	*Transport
	loop *loop.Loop
	keys *keys
	addr netip.AddrPort
}

// TestConformance checks the laws of package env on links between two real loops.
func TestConformance(t *testing.T) {
	envtest.Conformance(t, func(t *testing.T) *envtest.World {
		a, b := newLoop(t), newLoop(t)
		return &envtest.World{
			Env: a.Env(),
			Do:  func(f func()) { do(t, a, f) },
			Wait: func(limit time.Duration, cond func() bool) bool {
				for deadline := time.Now().Add(limit); !cond(); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						return false
					}
				}
				return true
			},
			Links: func(atA, atB env.LinkHandler) envtest.LinkWorld {
				na, nb := newWorld(t, a, "a", atA), newWorld(t, b, "b", atB)
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
					DoB:      func(f func()) { do(t, b, f) },
				}
			},
		}
	})
}

func newLoop(t *testing.T) *loop.Loop {
	t.Helper()
	l, err := loop.New(loop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	go l.Run()
	t.Cleanup(func() {
		l.Stop()
		<-l.Done()
	})
	return l
}

func do(t *testing.T, l *loop.Loop, f func()) {
	t.Helper()
	if err := l.Do(context.Background(), f); err != nil {
		t.Error(err)
	}
}

func newWorld(t *testing.T, l *loop.Loop, name string, h env.LinkHandler) *world {
	t.Helper()
	w := &world{loop: l, keys: newKeys(t, testNetwork, name, time.Now())}
	var err error
	w.Transport, err = New(Config{
		Loop: l, Network: testNetwork, Handler: h, Credentials: w.keys.credentials(t, testNetwork, time.Now()), FreeLoopback: true,
	})
	if err != nil {
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
