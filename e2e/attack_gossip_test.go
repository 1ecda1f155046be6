//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cepa/directory"
)

// One forged message takes a live relay out of a stock memberlist for good: suspect and dead
// messages with the highest incarnation, the relay's own words with the highest incarnation, and its
// name over the attacker's words.
func TestAttackForgedGossip(t *testing.T) {
	notShort(t)
	for _, kind := range []string{"dead", "leave", "suspect", "alive", "squat"} {
		t.Run(kind, func(t *testing.T) {
			if kind != "dead" {
				proof(t)
			}
			t.Parallel()
			bothWays(t, directory.Undefended{Messages: true}, func(t *testing.T, off directory.Undefended) {
				f := newField(t, plan{authorities: 1, relays: 4, intruders: 1, off: off})
				f.startAll(t)
				f.agree(t, foundLimit, f.listsAll())
				victims, all := f.parts("relay"), int64(len(f.parts("relay", "intruder"))-1)
				members := func() (state string) { // of whom a relay holds the true rumour
					for _, a := range victims {
						state += fmt.Sprintf("%s %d, ", a.name, a.count("gossip_true_members"))
					}
					return state
				}
				whole := func() bool {
					for _, a := range victims {
						if a.count("gossip_true_members") < all {
							return false
						}
					}
					return true
				}
				within(t, foundLimit, "every relay holds the others for members", whole)
				target, x := f.node("r4"), f.node("i1")
				x.order(t, 10*time.Second, "links %d", len(victims)+1)
				x.order(t, 10*time.Second, "forge %s %s", kind, target.id)
				if kind == "alive" { // it harms what the relay says next
					target.config.Nickname, target.config.ExitPolicy = "r4again", "none"
					target.end()
					f.start(t, target)
				}
				others := victims[:len(victims)-1]
				if off.Messages {
					took := within(t, 15*time.Second, "the relay is no member any more", func() bool {
						for _, a := range others {
							if a.count("gossip_true_members") >= all {
								return false
							}
						}
						return true
					})
					holdsFor(t, 5*time.Second, "it is none", func() bool { return others[0].count("gossip_true_members") < all })
					t.Logf("one packet took it out within %v: %s", took.Round(time.Millisecond), members())
					return
				}
				if kind == "alive" {
					within(t, foundLimit, "what the relay says now is heard", whole)
				}
				holdsFor(t, 5*time.Second, "all are members", whole)
				for _, a := range others {
					if kind != "squat" && kind != "alive" && a.count("gossip_dropped_"+map[string]string{"dead": "dead", "leave": "dead", "suspect": "suspect"}[kind]) == 0 {
						t.Errorf("%s has not counted the forged message", a.name)
					}
				}
				took := f.agree(t, 2*fieldInterval+5*time.Second, f.listsAll())
				t.Logf("all had the right consensus after %v; members: %s", took.Round(time.Millisecond), members())
				f.flows(t, f.client(t, 20*time.Second))
			})
		})
	}
}

// An attacker keeps what a relay said of itself, and tells it again when the relay says otherwise:
// who believes that uses an exit that is none any more.
func TestAttackReplayedDescriptor(t *testing.T) {
	proof(t)
	bothWays(t, directory.Undefended{Replays: true}, func(t *testing.T, off directory.Undefended) {
		f := newField(t, plan{authorities: 1, relays: 4, intruders: 1, off: off})
		f.startAll(t)
		f.agree(t, foundLimit, f.listsAll())
		target, x := f.node("r4"), f.node("i1")
		x.order(t, 20*time.Second, "record %s", target.id)
		target.end()
		old := lists(f.parts("relay", "intruder"))
		target.config.ExitPolicy, target.config.Nickname = "none", "r4again"
		f.start(t, target)
		f.agree(t, foundLimit, f.listsAll())
		x.order(t, 10*time.Second, "links 5")
		x.order(t, 10*time.Second, "replay %s", target.id)
		now := target.config
		if off.Replays {
			target.config.ExitPolicy, target.config.Nickname = "all", "r4"
			took := within(t, 10*fieldInterval, "the consensus lists the relay as it was", func() bool {
				c := f.consensus(f.node("r1"))
				return c != nil && old(c) == nil
			})
			t.Logf("after %v the consensus said of the relay what it had been", took.Round(time.Millisecond))
			return
		}
		target.config = now
		late := func() (n int64) {
			for _, a := range f.parts("authority", "relay") {
				n += a.count("gossip_dropped_stale") + a.count("gossip_dropped_duplicate")
			}
			return n
		}
		before := late()
		within(t, 20*time.Second, "the old words are heard again and again", func() bool { return late() > before+50 })
		holdsFor(t, 5*fieldInterval, "the consensus lists the relay as it is", func() bool {
			for _, a := range f.parts("authority", "relay") {
				if c := f.consensus(a); c == nil || f.listsAll()(c) != nil {
					return false
				}
			}
			return true
		})
		f.agree(t, 2*fieldInterval+5*time.Second, f.listsAll())
		f.flows(t, f.client(t, 20*time.Second))
	})
}

// An attacker offers a descriptor whose time is over, of a relay that is long gone, to whoever
// compares notes with it.
func TestAttackExpiredDescriptor(t *testing.T) {
	notShort(t)
	bothWays(t, directory.Undefended{Replays: true}, func(t *testing.T, off directory.Undefended) {
		f := newField(t, plan{authorities: 1, relays: 4, intruders: 1, off: off})
		gone := f.gone(t, 50*time.Hour)
		f.startAll(t)
		f.agree(t, foundLimit, f.listsAll())
		x := f.node("i1")
		x.order(t, 10*time.Second, "expired %s", gone)
		all := int64(len(f.parts("relay", "intruder")))
		if off.Replays {
			took := within(t, 30*time.Second, "a relay holds the expired descriptor", func() bool {
				for _, a := range f.parts("relay") {
					if a.count("directory_descriptors") > all {
						return true
					}
				}
				return false
			})
			t.Logf("an expired descriptor was taken within %v", took.Round(time.Millisecond))
			return
		}
		refused := func() (n int64) {
			for _, a := range f.parts("authority", "relay") {
				n += a.count("directory_bad_descriptors")
			}
			return n
		}
		within(t, 30*time.Second, "somebody has seen the expired descriptor", func() bool { return refused() > 0 })
		holdsFor(t, 4*fieldInterval, "nobody holds it", func() bool {
			for _, a := range f.parts("authority", "relay") {
				if a.count("directory_descriptors") > all {
					return false
				}
			}
			return true
		})
		f.agree(t, 2*fieldInterval+5*time.Second, f.listsAll())
		f.flows(t, f.client(t, 20*time.Second))
	})
}

// gone writes the descriptor of a relay that was there so long ago to a file, signed by its own keys.
func (f *field) gone(t testing.TB, ago time.Duration) string {
	t.Helper()
	network := *f.network
	a := f.add(t, "gone", "gone", address(t, 88), &network)
	f.nodes = f.nodes[:len(f.nodes)-1]
	contact := a.contact()
	d := directory.Descriptor{
		Identity: a.id, Addresses: contact.Addresses, OnionKey: [32]byte{1}, Nickname: "gone", Software: "old",
		Published: time.Now().Add(-ago).UTC().Truncate(time.Millisecond), OnionKeyUntil: time.Now().Add(24 * time.Hour).UTC().Truncate(time.Millisecond),
		Protocols: directory.OurProtocols(),
	}
	sealed, err := directory.SealDescriptor(f.network, d, a.signer)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.dir, "gone.descriptor")
	if err := os.WriteFile(path, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
