//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// shown is what `cepa directory show --json` says, as far as the documents promise it.
type shown struct {
	ValidAfter time.Time `json:"valid_after"`
	FreshUntil time.Time `json:"fresh_until"`
	ValidUntil time.Time `json:"valid_until"`
	Digest     string    `json:"digest"`
	Signatures []struct {
		Identity string `json:"identity"`
		Valid    bool   `json:"valid"`
	} `json:"signatures"`
	Relays []struct {
		Identity  string   `json:"identity"`
		Name      string   `json:"name"`
		Addresses []string `json:"addresses"`
		Flags     []string `json:"flags"`
		Weight    *int     `json:"weight"`
	} `json:"relays"`
}

func showDirectory(t testing.TB, dir string) (s shown) {
	t.Helper()
	out, code := finish(t, 20*time.Second, command(t, "directory", "show", "--json", "--dir", dir))
	if code != 0 {
		t.Fatalf("status %d:\n%s", code, out)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	return s
}

// listedLimit is within which the consensus of a demo that is ready lists all of its relays.
const listedLimit = 5 * time.Second

// A demo's consensus lists its relays and nobody else, authorities being none, signed by a quorum; anybody can look at
// it while the demo runs and afterwards.
func TestDirectoryOfADemo(t *testing.T) {
	notShort(t)
	for _, relays := range []int{3, 9} {
		t.Run(fmt.Sprint(relays), func(t *testing.T) {
			o := newOverlay(t, "--relays", fmt.Sprint(relays))
			names := func(s shown) (names []string) {
				for _, r := range s.Relays {
					names = append(names, r.Name)
					if len(r.Identity) != 64 || len(r.Addresses) != 1 || len(r.Flags) == 0 || r.Weight == nil || slices.Contains(r.Flags, "Authority") {
						t.Errorf("%+v", r)
					}
				}
				return names
			}
			var want []string
			for i := range relays {
				want = append(want, fmt.Sprint("relay-", i+1))
			}
			var s shown
			took := within(t, listedLimit, "all are listed", func() bool {
				s = showDirectory(t, o.dir)
				return slices.Equal(names(s), want)
			})
			t.Logf("%d relays were listed %v after the demo was ready", relays, took.Round(time.Millisecond))
			good := 0
			for _, g := range s.Signatures {
				if g.Valid && len(g.Identity) == 64 {
					good++
				}
			}
			if good < 2 || len(s.Digest) != 64 || !s.ValidAfter.Before(s.FreshUntil) || !s.FreshUntil.Before(s.ValidUntil) {
				t.Errorf("%+v", s)
			}
			for _, n := range o.nodes {
				// Relays get the consensus beside the client, some a moment later.
				within(t, listedLimit, n.Name+" has a good consensus", func() bool {
					out, code := finish(t, 20*time.Second, command(t, "directory", "verify", "--dir", n.Dir))
					if code != 0 && !strings.Contains(out, "there is no consensus in") {
						t.Errorf("%s: status %d:\n%s", n.Name, code, out)
					}
					return code == 0
				})
			}
			o.end()
			if again := showDirectory(t, filepath.Join(o.dir, "relay-2")); len(again.Relays) != relays {
				t.Errorf("when it has ended: %d relays", len(again.Relays))
			}
		})
	}
}

// The identities of a relay and of an authority go offline while they run, their signing keys are certified from there,
// and the network goes on.
func TestKeysAreRenewedWhileNodesRun(t *testing.T) {
	notShort(t)
	o := newOverlay(t)
	away := t.TempDir()
	for _, name := range []string{"authority-1", "relay-2"} {
		dir, identity := o.node(t, name).Dir, filepath.Join(away, name)
		for _, step := range []struct{ args, want string }{
			{"offline --dir " + dir + " --to " + identity, "has forgotten it"},
			{"renew --dir " + dir + " --identity " + identity + " --days 45", "has taken it"},
			{"show --dir " + dir, "kept elsewhere"},
			{"show --dir " + dir, "in 44 days"},
		} {
			out, code := finish(t, 20*time.Second, command(t, append([]string{"keys"}, strings.Fields(step.args)...)...))
			if code != 0 || !strings.Contains(out, step.want) {
				t.Fatalf("keys %s: status %d, want %q:\n%s", step.args, code, step.want, out)
			}
		}
	}
	s := showDirectory(t, o.dir)
	within(t, 30*time.Second, "an authority signs with its new key and the relay is listed", func() bool {
		now := showDirectory(t, o.dir)
		return now.ValidAfter.After(s.ValidAfter.Add(10*time.Second)) && len(now.Relays) == len(o.relays()) && len(now.Signatures) == 3
	})
	if err := hello(t, o.socks, "", 10*time.Second); err != nil {
		t.Error(err)
	}
}
