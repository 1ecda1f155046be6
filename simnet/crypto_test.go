package simnet

import (
	"fmt"
	"testing"
	"time"
)

// TestFastCryptographyHasTheSameTimes: with stand-ins, all that happens happens at the same times, on the same hosts, and
// moves as many bytes; streams end alike. The bytes differ.
func TestFastCryptographyHasTheSameTimes(t *testing.T) {
	t.Parallel()
	run := func(crypto string) (timing, trace, flows string, w *World) {
		s := newSmall(t, Config{Seed: 3, Crypto: crypto}, 6, 2)
		s.RunUntil(20*time.Second, s.net.Ready)
		s.Run(10 * time.Second)
		table := ""
		for _, f := range s.Flows() {
			table += fmt.Sprint(f.Opened, f.First, f.Ended, f.Up, f.Down, f.Err, "\n")
		}
		if good, bad := s.results(); good < 10 || bad > 0 {
			t.Errorf("%s: %d flows went well and %d did not", crypto, good, bad)
		}
		return s.TimingHash(), s.TraceHash(), table, s.World
	}
	timing, trace, flows, full := run(Full)
	again, other, same, fast := run(Fast)
	if timing != again || flows != same || full.Events() != fast.Events() {
		t.Errorf("timing %s and %s, %d and %d events; streams\n%s\n%s", timing, again, full.Events(), fast.Events(), flows, same)
	}
	if trace == other {
		t.Error("the bytes are the same")
	}
	if full.Crypto() != "full" || fast.Crypto() != "fast" {
		t.Errorf("they say that they are %q and %q", full.Crypto(), fast.Crypto())
	}
	if c, err := New(Config{}).Crypto(), timing; c != Full || len(err) != 16 {
		t.Errorf("%q by default", c)
	}
}

// TestRunDoesNotDependOnTheMachine: with no worker, one and three, and with every node reading all for itself, the same
// happens to the byte.
func TestRunDoesNotDependOnTheMachine(t *testing.T) {
	t.Parallel()
	want := ""
	for i, cfg := range []Config{{}, {Workers: -1}, {Workers: 3}, {Workers: 1, Forgetful: true}} {
		cfg.Seed = 4
		s := newSmall(t, cfg, 5, 1)
		s.Run(12 * time.Second)
		if i == 0 {
			want = s.TraceHash()
		} else if got := s.TraceHash(); got != want {
			t.Errorf("%d workers, forgetful %v: %s, want %s", cfg.Workers, cfg.Forgetful, got, want)
		}
	}
}
