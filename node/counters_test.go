package node

import (
	"regexp"
	"strings"
	"testing"
)

func TestSnake(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Circuits": "circuits", "ExitBytesIn": "exit_bytes_in", "BadHandshakes": "bad_handshakes", "": "", "X": "x",
	} {
		if got := snake(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// TestCounterNames: what operators and tests read by name is there, and every name is one that
// a time-series database takes.
func TestCounterNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 3, nil)
	w.join()
	form := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	for who, c := range map[string]struct {
		m    map[string]int64
		want string
	}{
		"relay": {w.relays[0].Counters(), "links legs tombstones streams queued_bytes cells_in cells_out budget_used_bytes budget_limit_bytes " +
			"relay_circuits relay_handshakes relay_extends relay_exit_streams relay_exit_connects relay_exit_bytes_in relay_exit_bytes_out directory_circuits"},
		"client": {w.client.Counters(), "links legs tombstones streams queued_bytes cells_in cells_out budget_used_bytes budget_limit_bytes " +
			"circuit_streams circuit_requests circuit_connected directory_circuits"},
	} {
		for _, name := range strings.Fields(c.want) {
			if _, ok := c.m[name]; !ok {
				t.Errorf("%s: no counter %s", who, name)
			}
		}
		for name := range c.m {
			if !form.MatchString(name) {
				t.Errorf("%s: counter %q", who, name)
			}
		}
	}
	if w.relays[0].authority == nil || w.relays[1].authority != nil {
		t.Error("the wrong relay carries the authority")
	}
	w.stop()
}

// TestCountersDoNotCollide: two structures under one prefix must not have fields of one name.
func TestCountersDoNotCollide(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 3, nil)
	w.join()
	for _, pair := range [][2]any{{w.relays[0].follower.Stats(), w.relays[0].agent.Stats()}} {
		a, b := map[string]int64{}, map[string]int64{}
		namesOf("", pair[0]).add(a, pair[0])
		namesOf("", pair[1]).add(b, pair[1])
		for name := range a {
			if _, ok := b[name]; ok {
				t.Errorf("two counters are called directory_%s", name)
			}
		}
	}
	w.stop()
}
