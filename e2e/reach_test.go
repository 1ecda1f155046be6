//go:build linux

package e2e

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cepa/control"
)

// TestRelayBehindClosedPort: a relay whose advertised address nobody can reach, as behind NAT without a forwarding, does
// not publish; log, status, doctor and /readyz say which port to open; and when it is open the relay is listed.
func TestRelayBehindClosedPort(t *testing.T) {
	t.Parallel()
	notShort(t)
	outside := address(t, 2)
	f := foundNetwork(t, filepath.Join(t.TempDir(), "n"), address(t, 1), "--param", "interval_ms=2000")
	for i := range 3 {
		f.relay(t, string(rune('a'+i)), address(t, 10+i))
	}
	metrics, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	inside := address(t, 3)
	relay := f.relay(t, "shut", inside, "--address", outside, "--metrics", metrics)
	_, port, _ := net.SplitHostPort(outside)
	says(t, relay.process, "(the connection was refused or cut): let TCP port "+port+" over IPv4 in")

	var s control.Status
	within(t, 10*time.Second, "the status says so", func() bool {
		s, err = status(relay.dir)
		return err == nil && len(s.Warnings) > 0 && s.Consensus != nil
	})
	if !strings.Contains(s.Warnings[0], "not published") || s.Percent >= 100 || !strings.Contains(s.Waiting, "TCP port "+port) {
		t.Errorf("%d %% %s, waiting for %s; %q", s.Percent, s.Doing, s.Waiting, s.Warnings)
	}
	if out, code := finish(t, 20*time.Second, command(t, "status", relay.dir)); !strings.Contains(out, "open the port") || !strings.Contains(out, port) {
		t.Errorf("cepa status: %d\n%s", code, out)
	} else {
		t.Log(out)
	}
	if out, code := finish(t, 30*time.Second, command(t, "doctor", "--sample", "1s", relay.dir)); code == 0 || !strings.Contains(out, "do not reach "+outside) || !strings.Contains(out, "let TCP to "+outside+" through") {
		t.Errorf("cepa doctor: %d\n%s", code, out)
	}
	r, err := http.Get("http://" + metrics + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "TCP port "+port) {
		t.Errorf("/readyz: %s %s", r.Status, body)
	}
	if n, err := counter(relay.dir, "directory_published"); err != nil || n != 0 {
		t.Errorf("published %d times, %v", n, err)
	}

	l, err := net.Listen("tcp", outside)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go forward(l, inside)
	within(t, 40*time.Second, "it is listed", func() bool { s, err = status(relay.dir); return err == nil && s.Percent == 100 })
	says(t, relay.process, "others reach this relay now")
	if strings.Contains(strings.Join(s.Warnings, "\n"), "not published") {
		t.Errorf("%q", s.Warnings)
	}
	if out, _ := finish(t, 30*time.Second, command(t, "doctor", "--sample", "1s", relay.dir)); !strings.Contains(out, outside+" can be reached") {
		t.Errorf("cepa doctor:\n%s", out)
	}
}

// TestAssumeReachable: who knows better publishes untested.
func TestAssumeReachable(t *testing.T) {
	t.Parallel()
	notShort(t)
	f := foundNetwork(t, filepath.Join(t.TempDir(), "n"), address(t, 1))
	relay := f.relay(t, "shut", address(t, 3), "--address", address(t, 2), "--assume-reachable")
	within(t, 10*time.Second, "it publishes", func() bool {
		n, err := counter(relay.dir, "directory_published")
		return err == nil && n == 1
	})
}

// counter is a counter of a node.
func counter(dir, name string) (int64, error) {
	m, err := tryCounters(dir)
	return m[name], err
}
