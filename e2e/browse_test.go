//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// trap is a page that tries to get a browser to talk past its proxy.
type trap struct {
	*http.Server
	site    net.Listener
	mu      sync.Mutex
	fetched map[string]bool
}

func newTrap(t *testing.T, c *corner) *trap {
	r := &trap{site: cornerOrigin(t, c), fetched: map[string]bool{}}
	r.Server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.fetched[q.URL.Path] = true
		r.mu.Unlock()
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Alt-Svc", fmt.Sprintf(`h3="%s"; ma=60`, r.site.Addr()))
		fmt.Fprint(w, `<!DOCTYPE html><title>trap</title><link rel="dns-prefetch" href="//prefetched.example"><link rel="preconnect" href="http://10.99.0.1:81">
<img src="http://127.0.0.1:82/a"><img src="http://localhost:83/b"><img src="http://10.99.0.1:84/c"><img src="http://[fd99::1]:85/d"><img src="/picture">
<script>
setTimeout(() => fetch("/late").then(() => document.title = "done"), 4000);
try {
const p = new RTCPeerConnection({iceServers: [{urls: "stun:10.99.0.1:3478"}, {urls: "stun:stun.example:3478"}, {urls: "turn:10.99.0.1:3479?transport=tcp", username: "a", credential: "b"}]});
p.createDataChannel("x"); p.onicecandidate = e => { if (e.candidate) fetch("/candidate/" + encodeURIComponent(e.candidate.candidate)); };
p.createOffer().then(o => p.setLocalDescription(o));
} catch (e) { fetch("/no-webrtc"); }
navigator.sendBeacon("http://10.99.0.1:86/beacon");
</script>`)
	})}
	go func() { _ = r.Serve(r.site) }()
	t.Cleanup(func() { r.Close() })
	return r
}

// has says whether the browser has asked for this.
func (r *trap) has(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetched[path]
}

// check looks at what was asked for, and at the packets.
func (r *trap) check(t *testing.T, c *corner, packets [][]byte, tmp string) {
	t.Helper()
	for _, l := range c.strangers(packets) {
		t.Errorf("outside was seen: %s", l)
	}
	if !r.has("/picture") || !r.has("/late") {
		t.Errorf("of the page only %v was fetched", r.fetched)
	}
	for path := range r.fetched {
		if strings.Contains(path, "/candidate/") {
			t.Errorf("WebRTC told %s", path)
		}
	}
	if left, _ := filepath.Glob(tmp + "/cepa-browse-*"); len(left) > 0 {
		t.Errorf("the profile is still there: %v", left)
	}
}

// A real Chromium started by `cepa browse` shows a page that tries to get it to talk past the proxy, and only SOCKS
// connections are seen outside; its profile is gone afterwards.
func TestBrowseTalksToTheProxyOnly(t *testing.T) {
	notShort(t)
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		lacking(t, "the machine has no program chromium (Debian package chromium)")
	}
	if !ownNetwork(t) {
		return
	}
	o := newOverlay(t)
	c := newCorner(t, o)
	trap := newTrap(t, c)
	tmp, home := t.TempDir(), t.TempDir()
	s := c.sniff(t)
	cmd := c.command(t, cepa, "browse", "--socks", c.socks.String(), "--browser", chromium, "http://"+trap.site.Addr().String()+"/",
		"--", "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--timeout=12000", "--virtual-time-budget=8000", "--dump-dom")
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+tmp)
	start := time.Now()
	out, code := finish(t, 2*time.Minute, cmd)
	packets := s.end(t)
	t.Logf("%d packets in %v", len(packets), time.Since(start).Round(time.Millisecond))
	if code != 0 || !strings.Contains(out, "trap") && !strings.Contains(out, "done") {
		t.Errorf("status %d:\n%s", code, out)
	}
	trap.check(t, c, packets, tmp)
}

// A real Firefox does the same, and of its own accord asks for nothing but the page: no updates, no telemetry, no test for
// a captive portal, also not through the proxy. A signal ends it, and its profile is gone.
func TestBrowseWithFirefox(t *testing.T) {
	notShort(t)
	firefox, err := exec.LookPath("firefox-esr")
	if err != nil {
		lacking(t, "the machine has no program firefox-esr (Debian package firefox-esr)")
	}
	if !ownNetwork(t) {
		return
	}
	o := newOverlay(t)
	c := newCorner(t, o)
	trap := newTrap(t, c)
	tmp, home := t.TempDir(), t.TempDir()
	s := c.sniff(t)
	cmd := c.command(t, cepa, "browse", "--socks", c.socks.String(), "--browser", firefox, "http://"+trap.site.Addr().String()+"/", "--", "--headless")
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+tmp)
	p, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	within(t, 90*time.Second, "the page has done all that it tries", func() bool {
		if !p.running() {
			t.Fatalf("it has ended:\n%s", p.tail())
		}
		return trap.has("/late")
	})
	time.Sleep(20 * time.Second) // what it does when it has nothing to do
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Errorf("20 s after the signal it still runs")
		p.end()
	}
	packets := s.end(t)
	t.Logf("%d packets; it said:\n%s", len(packets), p.tail())
	trap.check(t, c, packets, tmp)
	for target, n := range socksTargets(packets, c.socks) {
		t.Logf("%d requests for %s", n, target)
		switch host, _, _ := net.SplitHostPort(target); host {
		case "10.99.0.1", "127.0.0.1", "localhost", "fd99::1": // of the page
		default:
			t.Errorf("on its own it asked for %s", target)
		}
	}
}

// socksTargets are the destinations of the SOCKS5 requests in a capture.
func socksTargets(packets [][]byte, socks netip.AddrPort) map[string]int {
	found := map[string]int{}
	for _, b := range packets {
		p, ok := parsePacket(b)
		if !ok || p.to != socks || len(p.data) < 7 || p.data[0] != 5 || p.data[1] != 1 || p.data[2] != 0 {
			continue
		}
		var host string
		rest := p.data[4:]
		switch {
		case p.data[3] == 1 && len(rest) >= 6:
			a, _ := netip.AddrFromSlice(rest[:4])
			host, rest = a.String(), rest[4:]
		case p.data[3] == 4 && len(rest) >= 18:
			a, _ := netip.AddrFromSlice(rest[:16])
			host, rest = a.String(), rest[16:]
		case p.data[3] == 3 && len(rest) >= 1+int(rest[0])+2:
			host, rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
		default:
			continue
		}
		found[net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(rest)))]++
	}
	return found
}
