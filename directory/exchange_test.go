package directory

import (
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
)

// knowsAll says whether every member holds the newest descriptor of every other.
func (w *world) knowsAll() bool {
	for _, m := range w.members {
		for _, o := range w.members {
			e := m.agent.store.entries[o.id()]
			if e == nil || o.agent.own.Descriptor == nil || e.Digest != o.agent.own.Digest {
				return false
			}
		}
	}
	return true
}

// TestDamagedStoreComesBack: whatever happens to what a relay holds of others, comparing notes repairs it. No gossip runs
// in this world.
func TestDamagedStoreComesBack(t *testing.T) {
	t.Parallel()
	const relays = 12
	for name, damage := range map[string]func(*testing.T, *member){
		"wiped": func(t *testing.T, m *member) {
			for _, id := range m.agent.store.identities() {
				if id != m.id() {
					m.agent.store.remove(id)
				}
			}
		},
		"half gone": func(t *testing.T, m *member) {
			for i, id := range m.agent.store.identities() {
				if id != m.id() && i%2 == 0 {
					m.agent.store.remove(id)
				}
			}
		},
		"old ones in the place of new ones": func(t *testing.T, m *member) {
			for _, o := range m.w.members {
				if o != m {
					sealed, _, d := rumourOf(t, m.w.network, o.number, testNow.Add(-time.Hour), nil)
					m.agent.store.put(&entry{Descriptor: d, sealed: sealed, listed: true})
				}
			}
		},
		"strangers beside them": func(t *testing.T, m *member) {
			for i := range 40 {
				sealed, _, d := rumourOf(t, m.w.network, 1000+i, testNow, nil)
				m.agent.store.put(&entry{Descriptor: d, sealed: sealed})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 41, relays, func(n *Network) { n.Parameters[MinRelays] = relays })
			w.startAll()
			w.until(30*time.Second, "all know all", w.knowsAll)
			victim := w.members[5]
			w.f.Do(func() { damage(t, victim) })
			w.until(15*time.Second, "the damage is repaired", w.knowsAll)
			w.until(15*time.Second, "all are listed", func() bool { return victim.lists(w.members...) })
			if w.asked[AskSummary] > 0 {
				t.Errorf("%d summaries were asked for: a sketch should do", w.asked[AskSummary])
			}
		})
	}
}

// TestPoisonedPartnerChangesNothing: a relay that tells of what is not there, or of nothing, does not keep others from
// repairing what they hold.
func TestPoisonedPartnerChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 42, 8, func(n *Network) { n.Parameters[MinRelays] = 8 })
	w.startAll()
	w.until(30*time.Second, "all know all", w.knowsAll)
	lies := 0
	w.serve[testIdentity(3)] = func(q Request, _ *env.Peer) ([]byte, error) {
		if q.Kind != AskSketch {
			return nil, errSilence
		}
		lies++
		noise := make([]symbol, symbolsAt(q.First))
		for i := range noise {
			noise[i] = symbol{cert.Digest{byte(i), byte(lies)}, uint64(i * lies), uint32(i)}
		}
		return AppendAnswer(nil, StatusOK, appendSketch(nil, noise)), nil
	}
	victim := w.members[5]
	w.f.Do(func() {
		for _, id := range victim.agent.store.identities() {
			if id != victim.id() {
				victim.agent.store.remove(id)
			}
		}
	})
	w.until(time.Minute, "the damage is repaired", w.knowsAll)
	if lies == 0 {
		t.Error("nobody was lied to")
	}
}

// TestCrowdedNetworkKeepsOnlyNewcomers: beyond full_view, relays keep descriptors of relays that the consensus does not
// list, and authorities all; everybody is listed all the same, newcomers too.
func TestCrowdedNetworkKeepsOnlyNewcomers(t *testing.T) {
	t.Parallel()
	const relays = 12
	w := newWorld(t, 43, relays+1, func(n *Network) {
		n.Parameters[MinRelays] = relays
		n.Parameters[FullView] = relays / 2
	})
	late := w.members[relays]
	for _, m := range w.members[:relays] {
		m.start()
	}
	w.until(30*time.Second, "all are listed everywhere", func() bool {
		for _, m := range w.members[:relays] {
			if !m.lists(w.members[:relays]...) {
				return false
			}
		}
		return true
	})
	held := func(m *member) int { return len(m.agent.store.entries) }
	for _, m := range w.members[1:relays] {
		if n := held(m); n != 1 {
			t.Errorf("relay %d holds %d descriptors, want its own", m.number, n)
		}
	}
	if n := held(w.members[0]); n != relays {
		t.Errorf("the authority holds %d descriptors, want %d", n, relays)
	}
	pulls := w.asked[AskDescriptor]
	w.f.Run(time.Minute)
	if n := w.asked[AskDescriptor] - pulls; n > 2*relays {
		t.Errorf("%d descriptors were asked for in a minute in which nothing happened", n)
	}
	late.start()
	w.until(20*time.Second, "the newcomer is listed", func() bool { return w.members[3].lists(w.members...) })
	w.f.Run(15 * time.Second)
	for _, m := range w.members[1:] {
		if n := held(m); n != 1 {
			t.Errorf("relay %d holds %d descriptors, want its own", m.number, n)
		}
	}
}
