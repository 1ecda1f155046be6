package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// node is a Source that the test sets.
type node struct {
	counters map[string]int64
	state    State
	broken   atomic.Bool
	asked    atomic.Int64
}

func (n *node) Counters(context.Context) (map[string]int64, error) {
	n.asked.Add(1)
	if n.broken.Load() {
		return nil, errors.New("too busy")
	}
	return n.counters, nil
}

func (n *node) State() State { return n.state }

// everything is a node with a value for every counter that the table names.
func everything() *node {
	n := &node{counters: map[string]int64{"gossip_dropped_duplicate": 3, "socks_refused_policy": 4}}
	for _, f := range families() {
		for _, s := range f.from {
			if !strings.HasSuffix(s.counter, "*") {
				n.counters[s.counter] = 7
			}
		}
	}
	now := time.Now()
	n.state = State{Role: "relay", Network: "n", Version: "v", Percent: 100, Doing: "serving", ValidAfter: now, FreshUntil: now.Add(time.Hour), ValidUntil: now.Add(3 * time.Hour)}
	return n
}

func get(t *testing.T, s *Server, path string, change func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+s.Address().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func serve(t *testing.T, n *node) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", false, n, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestConventions: names, units and help texts are as Prometheus wants them; a metric of each counter is there; and no
// label could tell a client, a circuit or an address.
func TestConventions(t *testing.T) {
	t.Parallel()
	g, err := newGatherer(everything(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(g)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	all, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"direction", "kind", "reason", "result", "cause", "document", "class", "address", "state", "role", "network", "version"}
	n := 0
	for _, f := range all {
		if !strings.HasPrefix(f.GetName(), "cepa_") {
			continue
		}
		n++
		if !strings.HasSuffix(f.GetHelp(), ".") && !strings.HasSuffix(f.GetHelp(), "none") {
			t.Errorf("%s: the help %q is no sentence", f.GetName(), f.GetHelp())
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if !slices.Contains(allowed, l.GetName()) {
					t.Errorf("%s has the label %s", f.GetName(), l.GetName())
				}
			}
		}
	}
	if want := len(families()) + 7; n != want {
		t.Errorf("%d metrics of the node instead of %d", n, want)
	}
}

// TestPromtool has Prometheus' own tool read what the port says.
func TestPromtool(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing: install the Debian package prometheus")
	}
	status, text := get(t, serve(t, everything()), "/metrics", nil)
	if status != http.StatusOK || !strings.Contains(text, `cepa_cells_total{direction="in",kind="relay"} 7`) || !strings.Contains(text, "go_goroutines ") || !strings.Contains(text, "process_") {
		t.Fatalf("%d: %s", status, text)
	}
	// Names of the Go runtime's metrics are older than the rules and are not ours.
	var ours bytes.Buffer
	for line := range strings.Lines(text) {
		if strings.Contains(line, "cepa_") {
			ours.WriteString(line)
		}
	}
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = &ours
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestValues: units are base units, what is a part of something is not counted twice, and what a role lacks is left out.
func TestValues(t *testing.T) {
	t.Parallel()
	n := &node{counters: map[string]int64{"clock_skew_ms": -1500, "transport_refused": 10, "transport_too_fast": 4, "gossip_dropped_no_link": 2}}
	g, err := newGatherer(n, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	err = testutil.GatherAndCompare(g, strings.NewReader(`
# HELP cepa_clock_skew_seconds By how much the clocks of other relays are ahead of the one here: the median of the last that were heard.
# TYPE cepa_clock_skew_seconds gauge
cepa_clock_skew_seconds -1.5
# HELP cepa_link_connections_refused_total Accepted connections that were closed at once: too many handshakes from one network (rate), or a bound of the node (limit).
# TYPE cepa_link_connections_refused_total counter
cepa_link_connections_refused_total{reason="limit"} 6
cepa_link_connections_refused_total{reason="rate"} 4
# HELP cepa_gossip_dropped_total Packets and messages of the gossip that were dropped, by reason; reasons that never occurred are left out.
# TYPE cepa_gossip_dropped_total counter
cepa_gossip_dropped_total{reason="no_link"} 2
`), "cepa_clock_skew_seconds", "cepa_link_connections_refused_total", "cepa_gossip_dropped_total", "cepa_links")
	if err != nil {
		t.Error(err)
	}
}

// TestNothingFinerThanASecond: however often somebody asks, the node is asked, and values change, once a second.
func TestNothingFinerThanASecond(t *testing.T) {
	t.Parallel()
	n := everything()
	now := time.Unix(1000, 0)
	g, err := newGatherer(n, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := g.Gather(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(99 * time.Millisecond) // 9.8 s in all
	}
	if got := n.asked.Load(); got > 10 || got < 9 {
		t.Errorf("the node was asked %d times in ten seconds", got)
	}
}

// TestHealth: alive is not ready, and the body says why.
func TestHealth(t *testing.T) {
	t.Parallel()
	past := time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		change           func(*node)
		health, ready    int
		healthy, whyNot  string
		metric, notThere string
	}{
		"well":        {func(*node) {}, 200, 200, "ok: the event loop answers", "ok: serving", "cepa_ready 1", ""},
		"starting":    {func(n *node) { n.state.Percent, n.state.Waiting = 60, "a consensus" }, 200, 503, "ok", "failing: serving, waiting for a consensus", "cepa_ready 0", ""},
		"expired":     {func(n *node) { n.state.ValidUntil = past }, 200, 503, "ok", "failing: the consensus ended at", "cepa_ready 0", ""},
		"no document": {func(n *node) { n.state.ValidUntil = time.Time{} }, 200, 503, "ok", "failing: no consensus", "cepa_up 1", ""},
		"stuck":       {func(n *node) { n.broken.Store(true) }, 503, 503, "failing: the event loop has not answered in 2s: too busy", "failing: the event loop", "cepa_up 0", "cepa_links "},
	} {
		n := everything()
		c.change(n)
		s := serve(t, n)
		if status, body := get(t, s, "/healthz", nil); status != c.health || !strings.HasPrefix(body, c.healthy) {
			t.Errorf("%s: /healthz %d %q", name, status, body)
		}
		if status, body := get(t, s, "/readyz", nil); status != c.ready || !strings.HasPrefix(body, c.whyNot) {
			t.Errorf("%s: /readyz %d %q", name, status, body)
		}
		status, body := get(t, s, "/metrics", nil)
		if status != 200 || !strings.Contains(body, c.metric+"\n") || c.notThere != "" && strings.Contains(body, "\n"+c.notThere) {
			t.Errorf("%s: /metrics %d, no %q", name, status, c.metric)
		}
	}
}

// TestStrangersAreRefused: pages of other names that point here, methods that change something, and other paths.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, everything())
	for _, c := range []struct {
		path   string
		change func(*http.Request)
		want   int
	}{
		{"/metrics", func(r *http.Request) { r.Host = "attacker.example" }, 403},
		{"/metrics", func(r *http.Request) { r.Host = "attacker.example:80" }, 403},
		{"/metrics", func(r *http.Request) { r.Host = "localhost:1" }, 200},
		{"/metrics", func(r *http.Request) { r.Host = "[::1]:1" }, 200},
		{"/metrics", func(r *http.Request) { r.Method = http.MethodPost }, 405},
		{"/debug/pprof/", nil, 404},
		{"/", nil, 200},
	} {
		if status, body := get(t, s, c.path, c.change); status != c.want {
			t.Errorf("%s: %d %q, want %d", c.path, status, body, c.want)
		}
	}
}

// TestAddress: only this machine, unless the operator says otherwise; and the message says what to do.
func TestAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1:9100": "", "[::1]:9100": "", "127.9.9.9:1": "", "[::ffff:127.0.0.1]:9": "",
		"0.0.0.0:9100": "metrics_public", "[::]:9100": "metrics_public", "192.0.2.1:9100": "127.0.0.1:9100",
		"localhost:9100": "not an IP address and port", "9100": "not an IP address and port", "127.0.0.1": "not an IP address",
	} {
		_, err := Check(address, false)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := Check("0.0.0.0:9100", true); err != nil {
		t.Error(err)
	}
	var log bytes.Buffer
	s, err := Listen("0.0.0.0:0", true, everything(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("no warning: %s", log.String())
	}
	if _, err := Listen(s.Address().String(), true, everything(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("a port in use: %v", err)
	}
}

// TestUnexported is of the check that the daemon's tests rely on.
func TestUnexported(t *testing.T) {
	t.Parallel()
	n := everything()
	if missing := Unexported(n.counters); len(missing) != 0 {
		t.Errorf("%q", missing)
	}
	n.counters["a_new_counter"] = 1
	if missing := Unexported(n.counters); !slices.Equal(missing, []string{"a_new_counter"}) {
		t.Errorf("%q", missing)
	}
	for name := range leftOut {
		n.counters[name] = 1
	}
	delete(n.counters, "links")
	if stale := Stale(n.counters); !slices.Equal(stale, []string{"links"}) {
		t.Errorf("%q", stale)
	}
	names := map[string]bool{}
	for _, f := range families() {
		if names[f.name] {
			t.Errorf("two metrics are called %s", f.name)
		}
		names[f.name] = true
	}
}
