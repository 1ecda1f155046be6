//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

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
	site := cornerOrigin(t, c)
	var mu sync.Mutex
	fetched := map[string]bool{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		fetched[r.URL.Path] = true
		mu.Unlock()
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Alt-Svc", fmt.Sprintf(`h3="%s"; ma=60`, site.Addr()))
		fmt.Fprintf(w, `<!DOCTYPE html><title>trap</title><link rel="dns-prefetch" href="//prefetched.example"><link rel="preconnect" href="http://10.99.0.1:81">
<img src="http://127.0.0.1:82/a"><img src="http://localhost:83/b"><img src="http://10.99.0.1:84/c"><img src="http://[fd99::1]:85/d"><img src="/picture">
<script>
const p = new RTCPeerConnection({iceServers: [{urls: "stun:10.99.0.1:3478"}, {urls: "stun:stun.example:3478"}, {urls: "turn:10.99.0.1:3479?transport=tcp", username: "a", credential: "b"}]});
p.createDataChannel("x"); p.onicecandidate = e => { if (e.candidate) fetch("/candidate/" + encodeURIComponent(e.candidate.candidate)); };
p.createOffer().then(o => p.setLocalDescription(o)); navigator.sendBeacon("http://10.99.0.1:86/beacon");
setTimeout(() => fetch("/late").then(() => document.title = "done"), 4000);
</script>`)
	})}
	go func() { _ = server.Serve(site) }()
	t.Cleanup(func() { server.Close() })
	tmp, home := t.TempDir(), t.TempDir()
	s := c.sniff(t)
	cmd := c.command(t, cepa, "browse", "--socks", c.socks.String(), "--browser", chromium, "http://"+site.Addr().String()+"/",
		"--", "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--timeout=12000", "--virtual-time-budget=8000", "--dump-dom")
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+tmp)
	start := time.Now()
	out, code := finish(t, 2*time.Minute, cmd)
	packets := s.end(t)
	t.Logf("%d packets in %v", len(packets), time.Since(start).Round(time.Millisecond))
	if code != 0 || !strings.Contains(out, "trap") && !strings.Contains(out, "done") {
		t.Errorf("status %d:\n%s", code, out)
	}
	for _, l := range c.strangers(packets) {
		t.Errorf("outside was seen: %s", l)
	}
	mu.Lock()
	defer mu.Unlock()
	if !fetched["/picture"] || !fetched["/late"] {
		t.Errorf("of the page only %v was fetched", fetched)
	}
	for path := range fetched {
		if strings.Contains(path, "/candidate/") {
			t.Errorf("WebRTC told %s", path)
		}
	}
	if left, _ := filepath.Glob(tmp + "/cepa-browse-*"); len(left) > 0 {
		t.Errorf("the profile is still there: %v", left)
	}
}
