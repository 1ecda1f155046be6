package node

import (
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
)

// TestFamiliesReachPaths: relays that show the signature of a shared key are listed as a family, and no circuit of any client has two
// of them, in any place; whoever names a family without its signature is not in it.
func TestFamiliesReachPaths(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, 3, 8, nil, directory.Parameters{
		directory.IntervalMillis: 5000, directory.KeepaliveMillis: 1000, directory.MinRelays: 3, directory.DistinctSubnets: 0,
	})
	key := cert.NewFamilyKey([32]byte{1, 2, 3})
	family := []int{1, 2, 3, 4}
	for _, i := range family {
		w.relays[i].cfg.Families = []cert.Membership{key.Admit(w.network.ID, w.relays[i].Identity())}
	}
	// Relay 5 shows the membership of relay 1.
	w.relays[5].cfg.Families = []cert.Membership{key.Admit(w.network.ID, w.relays[1].Identity())}
	for _, i := range []int{1, 2, 3, 4, 5} {
		w.f.Do(w.relays[i].KeysChanged)
	}
	w.join()
	listed := func() (n int) {
		c := w.client.follower.Current()
		if c == nil {
			return 0
		}
		for i, r := range w.relays {
			if e := c.Lookup(r.Identity()); e != nil && slices.Contains(e.Families, key.ID()) {
				if !slices.Contains(family, i) {
					t.Fatalf("relay %d is in a family that did not sign for it", i)
				}
				n++
			}
		}
		return n
	}
	if !w.f.RunUntil(time.Minute, func() bool { return w.ready > 0 && listed() == len(family) }) {
		t.Fatalf("%d relays are listed as the family, want %d; %v", listed(), len(family), w.steps)
	}
	circuits, inside := 0, 0
	for range 60 {
		w.f.Do(w.client.circuits.NewIdentity)
		w.f.Run(2 * time.Second)
		for _, info := range w.client.Circuits() {
			if info.Retired {
				continue
			}
			n := 0
			for _, id := range info.Path {
				if slices.ContainsFunc(family, func(i int) bool { return w.relays[i].Identity() == id }) {
					n++
				}
			}
			circuits++
			inside += n
			if n > 1 {
				t.Fatal("two relays of a family in a circuit")
			}
		}
	}
	if circuits < 100 || inside < 30 {
		t.Errorf("%d circuits, %d with one of the family: the test shows little", circuits, inside)
	}
}
