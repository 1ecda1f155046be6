package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"cepa/cell"
	"cepa/circuit"
	"cepa/control"
)

// TestDestinationsAndKeysAreScrubbed: neither a host nor an isolation key leaves through the API, nor through the reason of a
// failure, unless the settings say so.
func TestDestinationsAndKeysAreScrubbed(t *testing.T) {
	t.Parallel()
	o := newObserver()
	const host, key = "private.example", "user:password"
	i := circuit.StreamInfo{
		ID: 1, State: circuit.StreamFailed, Address: cell.Address{Host: host}, Port: 443, Key: key,
		Err: &circuit.Error{Reason: cell.ReasonPolicy, Text: host + " is not reachable"},
	}
	s := o.stream(i)
	if s.Destination != "[scrubbed]:443" || strings.Contains(s.Reason, host) || s.Reason == "" || strings.Contains(s.Isolation, "user") {
		t.Errorf("%+v", s)
	}
	if again := o.stream(i); again.Isolation != s.Isolation || s.Isolation == "" {
		t.Error("equal keys cannot be told")
	}
	if other := newObserver().stream(i); other.Isolation == s.Isolation {
		t.Error("another run names keys alike: they could be guessed")
	}
	i.Lookup = true
	if l := o.stream(i); l.Destination != "[scrubbed]" || l.Kind != "resolve" {
		t.Errorf("a look-up: %+v", l)
	}
	o.config.ShowDestinations = true
	if l := o.stream(i); l.Destination != host || !strings.Contains(l.Reason, host) {
		t.Errorf("shown: %+v", l)
	}
}

// TestLogIsWatched: the log says what it said, and the API sees the same lines and no others.
func TestLogIsWatched(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	var hub control.Hub
	log := watchLog(slog.New(NewLogHandler(&out, "warn")), &hub).With("node", "x").WithGroup("g")
	log.Info("not for this level")
	log.Warn("look", "a", "b c")
	if want := "level=WARN msg=look node=x g.a=\"b c\"\n"; !strings.HasSuffix(out.String(), want) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("the log is %q", out.String())
	}
	dir := t.TempDir()
	s, err := control.Start(control.Options{Dir: dir, Source: hubOnly{hub: &hub}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := control.NewClient(dir).Log(t.Context(), 0, 10)
	if err != nil || len(l.Lines) != 1 || l.Lines[0].Level != "WARN" || l.Lines[0].Text != "msg=look node=x g.a=\"b c\"" {
		t.Errorf("%+v %v", l, err)
	}
}

// hubOnly is a node of which only the log is asked.
type hubOnly struct {
	control.Source
	control.Node
	hub *control.Hub
}

func (h hubOnly) Hub() *control.Hub                { return h.hub }
func (h hubOnly) Traffic() (received, sent uint64) { return 0, 0 }
