//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// addressInLog is what no line of a log may hold: an IPv4 address, or an IPv6 one.
var addressInLog = regexp.MustCompile(`\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b|[0-9a-fA-F]*::[0-9a-fA-F]+|\[::1?\]`)

// TestTheLogNamesNobody: a whole network that logs all that it can, while a browser's requests go through it, while names
// do not exist, destinations refuse, and a relay dies: no address of anybody and no destination stands in a log, and
// times are whole seconds.
func TestTheLogNamesNobody(t *testing.T) {
	notShort(t)
	curl := need(t, "curl")
	o, err := startDemo(t.TempDir(), "--log-level", "debug", "--exit-policy", "all")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.reap)
	t.Cleanup(o.end)
	closed, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	const path = "/a-very-private-page"
	for _, to := range []string{"http://hello.demo" + path, "http://a-name-that-is-nowhere.demo" + path, "http://" + closed + path} {
		_, _ = exec.Command(curl, "-sS", "--max-time", "10", "--socks5-hostname", o.socks, to).CombinedOutput() // some are to fail
	}
	victim := o.relays()[0]
	if err := syscall.Kill(victim.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, _ = exec.Command(curl, "-sS", "--max-time", "10", "--socks5-hostname", o.socks, "http://hello.demo"+path).CombinedOutput()
	within(t, 20*time.Second, "a line on the link that is gone", func() bool { return strings.Contains(o.output(), `msg="link down"`) })
	n := 0
	whole := regexp.MustCompile(`time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ level=`)
	for line := range strings.Lines(o.output()) {
		if !strings.Contains(line, " level=") {
			continue // progress, for the person at the terminal
		}
		n++
		if at := addressInLog.FindString(line); at != "" {
			t.Errorf("the address %s: %s", at, line)
		}
		for _, secret := range []string{"hello.demo", "a-name-that-is-nowhere", "a-very-private-page"} {
			if strings.Contains(line, secret) {
				t.Errorf("the destination %s: %s", secret, line)
			}
		}
		if !whole.MatchString(line) {
			t.Errorf("no time in whole seconds: %s", line)
		}
	}
	if n < 100 || !strings.Contains(o.output(), "[scrubbed]") {
		t.Errorf("%d lines: nothing was logged, or nothing was left out", n)
	}
}

// TestDoctorOfARealNode: a relay and a client that are well, and one that has died.
func TestDoctorOfARealNode(t *testing.T) {
	o := shared(t)
	for _, n := range []node{o.relays()[0], o.node(t, "client"), o.servers()[0]} {
		var answer struct {
			Worst    string
			Findings []struct{ Check, Level, Finding, Suggestion string }
		}
		out, code := finish(t, 30*time.Second, command(t, "doctor", "--json", "--sample", "500ms", n.Dir))
		if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Findings) < 10 {
			t.Fatalf("%s: %v: %s", n.Name, err, out)
		}
		for _, f := range answer.Findings {
			// What the machine of the test is like is not the test's: its load, disk and limits.
			own := f.Check == "processor" || f.Check == "disk" || f.Check == "files" || f.Check == "memory" || f.Check == "loop" || f.Check == "handshakes"
			if (f.Level == "warning" || f.Level == "error") && !own {
				t.Errorf("%s: %+v", n.Name, f)
			}
		}
		if want := map[string]int{"ok": 0, "warning": 3, "error": 4}[answer.Worst]; code != want {
			t.Errorf("%s: status %d, the worst is %s", n.Name, code, answer.Worst)
		}
	}
	if out, code := finish(t, 30*time.Second, command(t, "doctor", t.TempDir())); code != 4 || !strings.Contains(out, "no node runs in") {
		t.Errorf("status %d: %s", code, out)
	}
}

// TestPrometheusScrapesARelay: the real Prometheus, with the configuration and the alerts of deploy/, watches a real
// relay, and notes when it dies.
func TestPrometheusScrapesARelay(t *testing.T) {
	notShort(t)
	program := need(t, "prometheus") // Debian package prometheus
	dir := t.TempDir()
	var at [3]string
	for i := range at {
		var err error
		if at[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
	}
	relayAt, metricsAt, promAt := at[0], at[1], at[2]
	if out, code := finish(t, 20*time.Second, command(t, "network", "new", "--test", "--dir", dir, "--authority", relayAt, "--param", "interval_ms=2000", "--param", "min_relays=1")); code != 0 {
		t.Fatalf("%s", out)
	}
	relay, err := launch(command(t, "relay", "--network", filepath.Join(dir, "network.toml"), "--dir", filepath.Join(dir, "authority"), "--listen", relayAt, "--metrics", metricsAt, "--log-format", "json"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.end)
	config, err := os.ReadFile("../deploy/prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile("../deploy/prometheus/cepa.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("127.0.0.1:9100", metricsAt, "scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s").Replace(string(config))
	for name, data := range map[string]string{"prometheus.yml": text, "cepa.rules.yml": string(rules)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	prometheus, err := launch(exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+promAt))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prometheus.end)
	ask := func(query string) string {
		answer, err := http.Get("http://" + promAt + "/api/v1/query?query=" + url.QueryEscape(query))
		if err != nil {
			return ""
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		var v struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if json.Unmarshal(body, &v) != nil || len(v.Data.Result) == 0 {
			return ""
		}
		return fmt.Sprint(v.Data.Result[0].Value[1])
	}
	for query, want := range map[string]string{"cepa_up": "1", "cepa_ready": "1", "cepa_consensus_listed": "1", `ALERTS{alertname="CepaStuck"}`: ""} {
		within(t, 60*time.Second, query+" is "+want+"\n"+prometheus.tail(), func() bool { return ask(query) == want })
	}
	for path, want := range map[string]string{"/healthz": "", "/readyz": "", "/metrics": "cepa_ready"} { // as a container platform asks
		out, code := finish(t, 10*time.Second, exec.Command(need(t, "curl"), "-sS", "-q", "--fail", "http://"+metricsAt+path))
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: status %d: %.300s", path, code, out)
		}
	}
	if ask(`count({__name__=~"cepa_.*"})`) < "1" || ask("process_resident_memory_bytes") == "" || ask("go_goroutines") == "" {
		t.Error("metrics are missing")
	}
	for title, queries := range dashboardQueries(t) {
		for _, query := range queries {
			within(t, 20*time.Second, "the panel "+title+" shows something: "+query, func() bool { return ask(query) != "" })
		}
	}
	for line := range strings.Lines(relay.output()) {
		var object map[string]any
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &object) != nil {
			t.Errorf("no JSON: %s", line)
		}
	}
	relay.end()
	within(t, 20*time.Second, "the alert that it is down", func() bool { return ask(`ALERTS{alertname="CepaDown",alertstate="pending"}`) == "1" })
}

// dashboardQueries are those of deploy/grafana by the titles of their panels, as Grafana asks them for all nodes.
func dashboardQueries(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/cepa.json")
	fatal(t, err)
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	fatal(t, json.Unmarshal(text, &d))
	queries, n := map[string][]string{}, 0
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			if strings.Contains(q.Expr, "cepa_client_") || strings.Contains(q.Expr, "cepa_gossip_dropped_total") {
				continue // a relay has no circuits of a client; reasons of the gossip are there when they have occurred
			}
			queries[p.Title] = append(queries[p.Title], strings.NewReplacer("$__rate_interval", "10s", "$instance", ".*", "$job", "cepa").Replace(q.Expr))
			n++
		}
	}
	if n < 30 {
		t.Fatalf("the dashboard has %d queries", n)
	}
	return queries
}
