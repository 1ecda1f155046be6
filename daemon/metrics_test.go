package daemon

import (
	"context"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/metrics"
)

// TestEveryCounterIsExported: each counter of a real relay with an authority's keys and of a real client is a metric, or
// left out on purpose; and the table of metrics names none that neither has. The ports for monitoring answer.
func TestEveryCounterIsExported(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freePort(t)
	network := found(t, dir, address, true)
	public := RelayConfig{Network: network, Dir: filepath.Join(dir, "authority"), Listen: address, Metrics: "0.0.0.0:0"}
	if r, err := StartRelay(public, Options{}); err == nil {
		stop(r)
		t.Fatal("metrics were opened to everybody")
	} else if !strings.Contains(err.Error(), "metrics_public") {
		t.Fatalf("%v", err)
	}
	at := freePort(t)
	r, err := StartRelay(RelayConfig{Network: network, Dir: filepath.Join(dir, "authority"), Listen: address, Metrics: at}, Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(r)
	c, err := StartClient(ClientConfig{Network: network, Dir: filepath.Join(dir, "client"), Socks: freePort(t), DNS: "127.0.0.1:0"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(c)
	body := fetch(t, "http://"+at+"/metrics")
	for _, want := range []string{`cepa_node_info{network="test",role="authority",version="test"} 1`, "cepa_up 1\n", "cepa_memory_budget_limit_bytes 2.68435456e+08\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if body := fetch(t, "http://"+at+"/healthz"); body != "ok: the event loop answers\n" {
		t.Errorf("%q", body)
	}
	// A counter of the consensus is there from the first consensus on, which a relay alone makes as authority.
	all := map[string]int64{}
	await(t, "the first consensus", func() bool {
		m, err := r.Counters(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(all, m)
		_, ok := m["consensus_relays"]
		return ok
	})
	m, err := c.Counters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(all, m)
	if missing := metrics.Unexported(all); len(missing) > 0 {
		t.Errorf("neither exported nor left out on purpose (metrics/table.go): %q", slices.Sorted(slices.Values(missing)))
	}
	if stale := metrics.Stale(all); len(stale) > 0 {
		t.Errorf("no node has these counters of metrics/table.go: %q", slices.Sorted(slices.Values(stale)))
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// await asks again and again, for half a minute at most.
func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !there(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}
