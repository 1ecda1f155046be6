package directory

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// carrier is a Gossip that notes what it is told.
type carrier struct {
	spread    [][]byte
	from      []cert.Identity
	forgotten []cert.Identity
	listed    func(cert.Identity) bool
}

func (c *carrier) Announce([]byte) {}
func (c *carrier) Spread(r Rumour, sealed []byte, from cert.Identity) {
	c.spread, c.from = append(c.spread, sealed), append(c.from, from)
}
func (c *carrier) OnConsensus(listed func(cert.Identity) bool) { c.listed = listed }
func (c *carrier) Forget(id cert.Identity)                     { c.forgotten = append(c.forgotten, id) }

// noteTargets is a Fetcher that notes whom it was to ask, and where.
type noteTargets struct {
	Fetcher
	targets []env.Target
}

func (f *noteTargets) Fetch(to env.Target, request []byte, most int, done func([]byte, error)) {
	f.targets = append(f.targets, to)
	f.Fetcher.Fetch(to, request, most, done)
}

// gossiping is a world of three in which relay 1 has a Gossip and a Fetcher that note what they are told, after the first
// consensus.
func gossiping(t *testing.T) (w *world, a *Agent, g *carrier, f *noteTargets) {
	w = newWorld(t, 31, 3, func(n *Network) { n.Parameters[ReconcileMillis] = 3_600_000 })
	g = &carrier{}
	w.members[1].gossip = g
	w.startAll()
	w.until(4*time.Second, "a consensus", func() bool { return w.members[1].lists(w.members...) })
	a = w.members[1].agent
	f = &noteTargets{Fetcher: a.cfg.Fetcher}
	a.cfg.Fetcher = f
	g.spread, g.from = nil, nil
	return w, a, g, f
}

// TestRumourAboutNothingGoesNowhere: one small message of a made-up identity must not make a whole network call at the
// address that it names. Relays pass it on to nobody, and ask nobody but who told, over the link that is there.
func TestRumourAboutNothingGoesNowhere(t *testing.T) {
	t.Parallel()
	w, a, g, f := gossiping(t)
	ghost := testSigner(t, 500)
	r := Rumour{Descriptor: cert.Digest{9, 9}, Address: addr("198.51.100.1:25"), Published: testNow}
	r.Expires = r.Published.Add(DescriptorLifetime)
	farewell := r
	farewell.Expires = farewell.Expires.Add(-time.Millisecond)
	for name, r := range map[string]Rumour{"news": r, "farewell": farewell} { // order: one does not know the other
		sealed := must[[]byte](t)(SealRumour(w.network, r, ghost))
		for _, from := range []cert.Identity{ghost.Identity(), testIdentity(2), testIdentity(600)} {
			var accept bool
			w.f.Do(func() { accept, _ = a.OnRumour(sealed, from) })
			if accept {
				t.Errorf("%s from %s was accepted", name, from.Short())
			}
		}
		w.f.Run(30 * time.Second)
	}
	if len(g.spread) > 0 {
		t.Error("it was passed on")
	}
	asked := 0
	for _, to := range f.targets {
		asked += b2i(to.Identity == ghost.Identity())
		if slices.Contains(to.Addresses, r.Address) {
			t.Errorf("asked %s at the address in the rumour", to.Identity.Short())
		}
	}
	if asked != 1 {
		t.Errorf("the neighbour that told was asked %d times", asked)
	}
	if n := a.Stats().Pulling; n > 0 {
		t.Errorf("%d descriptors are still wanted", n)
	}
	// An announcement goes no further either.
	request := must[[]byte](t)(Request{Kind: Announce, Rumour: must[[]byte](t)(SealRumour(w.network, r, ghost))}.AppendTo(nil))
	f.targets = nil
	w.f.Do(func() {
		a.Serve(request, &env.Peer{Identity: ghost.Identity(), Address: addr("60.0.0.1:1234")}, func([]byte) {})
	})
	w.f.Run(30 * time.Second)
	if len(g.spread) > 0 || slices.ContainsFunc(f.targets, func(to env.Target) bool { return slices.Contains(to.Addresses, r.Address) }) {
		t.Error("an announcement made the relay call at any address, or spread")
	}
}

// TestRumourIsPassedOnWithItsDescriptor: as soon as the descriptor is held, and only what says the truth about it.
func TestRumourIsPassedOnWithItsDescriptor(t *testing.T) {
	t.Parallel()
	w, a, g, _ := gossiping(t)
	sealed, rumour, d := rumourOf(t, w.network, 50, testNow, nil)
	thief := RumourOf(d)
	thief.Address = addr("60.9.9.9:9001")
	stolen := must[[]byte](t)(SealRumour(w.network, thief, testSigner(t, 51))) // of somebody else's descriptor
	misleading := must[[]byte](t)(SealRumour(w.network, thief, testSigner(t, 50)))
	told := testIdentity(2)
	w.serve[told] = func(q Request, _ *env.Peer) ([]byte, error) {
		if q.Kind == AskDescriptor && q.Digest == d.Digest {
			return AppendAnswer(nil, StatusOK, sealed), nil
		}
		return AppendAnswer(nil, StatusNotFound, nil), nil
	}
	hear := func(rumour []byte) (accept bool) {
		w.f.Do(func() { accept, _ = a.OnRumour(rumour, told) })
		w.f.Run(time.Second)
		return accept
	}
	hear(stolen)
	if a.Descriptor(d.Identity) == nil {
		t.Fatal("a true descriptor was not taken, because a false rumour told of it")
	}
	if len(g.spread) > 0 || hear(stolen) {
		t.Error("a rumour of another's descriptor was passed on")
	}
	a.store.remove(d.Identity)
	if hear(misleading); len(g.spread) > 0 {
		t.Error("a rumour with an address that the descriptor does not have was passed on")
	}
	a.store.remove(d.Identity)
	if hear(rumour) {
		t.Error("accepted before the descriptor was there")
	}
	if len(g.spread) != 1 || !bytes.Equal(g.spread[0], rumour) || g.from[0] != told {
		t.Fatalf("passed on %d rumours, told by %v", len(g.spread), g.from)
	}
	if !hear(rumour) {
		t.Error("not accepted although the descriptor is held")
	}
	a.store.remove(d.Identity)
	if hear(rumour) {
		t.Error("accepted although the descriptor is no longer held")
	}
	if len(g.spread) != 2 || !g.listed(testIdentity(2)) || g.listed(d.Identity) {
		t.Errorf("passed on %d times, and the consensus is not known", len(g.spread))
	}
}
