package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cepa/control"
)

// healthy is a relay that nothing is wrong with.
func healthy() facts {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	counters := map[string]int64{
		"clock_skew_ms": 120, "clock_skew_relays": 16, "consensus_lists_this": 1, "inbound_relay_links": 5, "observed_here": 9,
		"open_files": 300, "open_files_limit": 65536, "budget_used_bytes": 1 << 20, "budget_limit_bytes": 256 << 20,
		"cpu_ms": 1000, "processors": 2, "transport_bytes_written": 1 << 20, "relay_handshakes": 1000, "loop_longest_event_us": 900,
		"protocols_missing_required": 0, "protocols_missing_recommended": 0,
	}
	after := maps.Clone(counters)
	after["cpu_ms"], after["transport_bytes_written"] = 2500, 11<<20
	return facts{
		dir: "/var/lib/cepa", mode: os.ModeDir | 0o700, now: now, before: counters, after: after, over: 2 * time.Second, diskFree: 10 << 30, memory: 8 << 30,
		status: control.Status{Role: "relay", Name: "r", Network: "n", Version: "1.0", Percent: 100, Doing: "ready", Address: "203.0.113.7:9001", Uptime: 9000,
			Consensus: &control.Consensus{ValidAfter: now.Add(-time.Hour), FreshUntil: now.Add(time.Minute), ValidUntil: now.Add(2 * time.Hour), Relays: 20, Signatures: 3}},
	}
}

// TestDoctorFindsEachFault: one fault at a time in a node that is well otherwise: the check that is for it names it, and
// says what to do; no other check complains.
func TestDoctorFindsEachFault(t *testing.T) {
	t.Parallel()
	well := healthy()
	for _, x := range diagnose(well) {
		if x.Level != levelOK {
			t.Errorf("of a healthy node: %+v", x)
		}
	}
	for name, c := range map[string]struct {
		fault func(*facts)
		check string
		level level
		says  string
	}{
		"stopped":             {func(f *facts) { f.notAsked = fmt.Errorf("x: %w", control.ErrNotRunning) }, "running", levelError, "no node runs"},
		"stuck":               {func(f *facts) { f.notAsked = errors.New("deadline") }, "running", levelError, "does not answer"},
		"starting":            {func(f *facts) { f.status.Percent, f.status.Waiting, f.status.Uptime = 60, "a consensus", 20 }, "ready", levelWarning, "it waits for a consensus"},
		"never started":       {func(f *facts) { f.status.Percent = 60 }, "ready", levelError, "60 %"},
		"clock behind":        {func(f *facts) { f.after["clock_skew_ms"] = 90_000 }, "clock", levelWarning, "1m30s behind"},
		"clock ahead":         {func(f *facts) { f.after["clock_skew_ms"] = -3_600_000 }, "clock", levelError, "ahead of"},
		"clock, few relays":   {func(f *facts) { f.after["clock_skew_ms"], f.after["clock_skew_relays"] = 90_000, 1 }, "clock", levelWarning, "too few"},
		"clock and consensus": {func(f *facts) { f.status.Consensus.ValidAfter = f.now.Add(time.Hour); f.after["clock_skew_relays"] = 0 }, "clock", levelError, "begins 1h"},
		"old consensus":       {func(f *facts) { f.now = f.now.Add(90 * time.Minute) }, "consensus", levelWarning, "newer ones did not come"},
		"old, of a client": {func(f *facts) {
			f.now, f.status.Role, f.after["directory_fruitless"] = f.now.Add(90*time.Minute), "client", 2
		}, "consensus", levelWarning, "newer ones did not come"},
		"ended consensus":  {func(f *facts) { f.now = f.now.Add(4 * time.Hour) }, "consensus", levelError, "ended 2h"},
		"too old":          {func(f *facts) { f.after["protocols_missing_required"] = 2 }, "version", levelError, "requires"},
		"soon too old":     {func(f *facts) { f.after["protocols_missing_recommended"] = 1 }, "version", levelWarning, "recommends"},
		"closed port":      {func(f *facts) { f.after["consensus_lists_this"], f.after["inbound_relay_links"] = 0, 0 }, "port", levelError, "no relay has come"},
		"port not reached": {func(f *facts) { f.after["consensus_lists_this"], f.after["reach"] = 0, 3 }, "port", levelError, "do not reach"},
		"moved":            {func(f *facts) { f.after["observed_elsewhere"] = 12 }, "address", levelWarning, "12 of 21"},
		"few files":        {func(f *facts) { f.after["open_files_limit"] = 1024 }, "files", levelWarning, "bounds"},
		"many files":       {func(f *facts) { f.after["open_files"] = 60000 }, "files", levelWarning, "60000 of 65536"},
		"no files":         {func(f *facts) { f.after["open_files"] = 65530 }, "files", levelError, "fail"},
		"disk full":        {func(f *facts) { f.diskFree = 1 << 20 }, "disk", levelError, "1 MiB"},
		"disk filling":     {func(f *facts) { f.diskFree = 100 << 20 }, "disk", levelWarning, "100 MiB"},
		"open folder":      {func(f *facts) { f.mode = os.ModeDir | 0o755 }, "folder", levelWarning, "mode 755"},
		"victims":          {func(f *facts) { f.after["budget_victims"] = 4 }, "memory", levelError, "4 circuits"},
		"budget full":      {func(f *facts) { f.after["budget_used_bytes"] = 250 << 20 }, "memory", levelWarning, "250 of 256"},
		"budget too large": {func(f *facts) { f.memory = 300 << 20 }, "memory", levelWarning, "more than half"},
		"processor":        {func(f *facts) { f.after["cpu_ms"] = 4900 }, "processor", levelWarning, "97 %"},
		"uplink":           {func(f *facts) { f.after["queued_bytes"] = 30 << 20 }, "uplink", levelWarning, "30 MiB wait to be sent, 6s"},
		"line is dead":     {func(f *facts) { f.after["queued_bytes"] = 30 << 20; f.after["transport_bytes_written"] = 1 << 20 }, "uplink", levelWarning, "0.0 Mbit/s"},
		"loop held":        {func(f *facts) { f.after["loop_longest_event_us"] = 5_000_000 }, "loop", levelWarning, "5s"},
		"handshakes now":   {func(f *facts) { f.after["relay_refused_age"] = 3 }, "handshakes", levelWarning, "refused now"},
		"handshakes once":  {func(f *facts) { f.after["relay_refused_age"], f.before["relay_refused_age"] = 500, 500 }, "handshakes", levelWarning, "500 of 1500"},
		"flood":            {func(f *facts) { f.after["relay_refused_rate"] = 900 }, "handshakes", levelWarning, "not this node's fault"},
		"asleep": {func(f *facts) {
			f.status.Percent, f.status.Doing, f.status.Consensus, f.after = 0, control.Hibernating, nil, map[string]int64{}
			f.status.Problems = []control.Problem{{Code: "hibernating", Text: "the month is used up", Do: "nothing"}}
		}, "warning", levelWarning, "the month is used up"},
		"own warning": {func(f *facts) {
			f.status.Problems = []control.Problem{{Code: "moon", Text: "update the moon", Do: "by rocket"}, {Code: control.CodeNotReady, Text: "x", Do: "y"}}
		}, "warning", levelWarning, "update the moon"},
	} {
		f := healthy()
		c.fault(&f)
		seen := false
		for _, x := range diagnose(f) {
			switch {
			case x.Check == c.check && x.Level == c.level && strings.Contains(x.Finding+x.Suggestion, c.says) && x.Suggestion != "":
				seen = true
			case x.Level > levelUnknown && !(name == "clock and consensus" && x.Check == "consensus"):
				t.Errorf("%s: %+v", name, x)
			}
		}
		if !seen {
			t.Errorf("%s: not found in %+v", name, diagnose(f))
		}
		if w := worst(diagnose(f)); w != c.level {
			t.Errorf("%s: the worst is %v", name, w)
		}
	}
	f := healthy()
	f.now, f.status.Role = f.now.Add(90*time.Minute), "client"
	if x := f.checkConsensus(); x.Level != levelOK {
		t.Errorf("a client that has not looked for the next consensus yet: %+v", x)
	}
	f = healthy()
	f.status.Consensus = nil
	if x := f.checkConsensus(); x.Level != levelError || x.Suggestion == "" {
		t.Errorf("no consensus: %+v", x)
	}
	if x := f.checkVersion(); x.Level != levelUnknown {
		t.Errorf("no consensus: %+v", x)
	}
	bare := facts{diskFree: -1, memory: -1, mode: 0o700, before: map[string]int64{}, after: map[string]int64{}, status: control.Status{Role: "client"}}
	for _, x := range diagnose(bare) { // what cannot be seen is neither good nor bad, and nothing panics
		if x.Check == "files" && x.Level != levelUnknown || x.Check == "disk" && x.Level != levelUnknown || x.Check == "port" {
			t.Errorf("%+v", x)
		}
	}
}

// TestDoctorWithoutANode: the program itself, on folders where nothing runs.
func TestDoctorWithoutANode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{dir}, exitDoctorError, "ERROR    running    no node runs in"},
		{[]string{filepath.Join(dir, "missing")}, exitFailure, "DIR is the folder in its settings"},
		{[]string{file}, exitFailure, "is a file"},
		{nil, exitUsage, "needs the node's DIR"},
		{[]string{"--sample", "-1s", dir}, exitUsage, "--sample"},
	} {
		var out, msg bytes.Buffer
		if status := run(append([]string{"cepa", "doctor"}, c.args...), &out, &msg); status != c.exit || !strings.Contains(out.String()+msg.String(), c.want) {
			t.Errorf("%q: %d\n%s%s", c.args, status, out.String(), msg.String())
		}
	}
	var out, msg bytes.Buffer
	if status := run([]string{"cepa", "doctor", "--json", dir}, &out, &msg); status != exitDoctorError {
		t.Errorf("%d: %s", status, msg.String())
	}
	var answer struct {
		Worst    string
		Findings []struct{ Check, Level, Finding, Suggestion string }
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || answer.Worst != "error" || len(answer.Findings) < 2 || answer.Findings[0].Check != "running" {
		t.Errorf("%v: %s", err, out.String())
	}
}
