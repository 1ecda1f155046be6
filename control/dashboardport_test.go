package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cepa/control/dashboard"
)

var anyLoopback = netip.MustParseAddrPort("127.0.0.1:0")

// TestDashboardKeepsOthersOut protects both ports that serve the page, that of a node and that of `cepa dashboard`: from
// other names for this machine, other sites, and whoever does not know the token. The page's files alone need none.
func TestDashboardKeepsOthersOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Start(Options{Dir: dir, Source: newFakeClient(), Listen: anyLoopback})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, err := ServeDashboard(dir, anyLoopback)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	port, err := readPort(filepath.Join(dir, portName))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ address, token string }{{port.Address, port.Token}, {d.Address().String(), d.token}} {
		keepsOthersOut(t, c.address, c.token)
	}
	if d.token == port.Token {
		t.Error("two ports have one token")
	}
}

func keepsOthersOut(t *testing.T, own, token string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(own)
	const api, page = "/v1/new-identity", dashboard.Path
	type header = map[string]string
	navigation := func(site string) header {
		return header{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
	}
	for _, c := range []struct {
		name, method, path, token, host string
		header                          header
		want                            int
	}{
		{"page", "GET", page, "", own, nil, 200},
		{"page by localhost", "GET", page, "", "localhost:" + port, nil, 200},
		{"page's script", "GET", page + "main.js", "", own, header{"Sec-Fetch-Site": "same-origin"}, 200},
		{"root", "GET", "/", "", own, nil, 307},
		{"page without slash", "GET", "/dashboard", "", own, nil, 307},
		{"page through a link elsewhere", "GET", page, "", own, navigation("cross-site"), 200},
		{"page by a rebound name", "GET", page, "", "evil.example:" + port, nil, 421},
		{"page by a rebound name that is like ours", "GET", page, "", "127.0.0.1.evil.example:" + port, nil, 421},
		{"page without a port", "GET", page, "", "127.0.0.1", nil, 421},
		{"page in a frame of another site", "GET", page, "", own, header{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403},
		{"script for another site", "GET", page + "main.js", "", own, header{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 403},
		{"script through a link", "GET", page + "main.js", "", own, navigation("cross-site"), 403},
		{"script for another port", "GET", page + "main.js", "", own, header{"Sec-Fetch-Site": "same-site"}, 403},
		{"right", "POST", api, token, own, header{"Sec-Fetch-Site": "same-origin", "Origin": "http://" + own}, 200},
		{"right, no browser", "POST", api, token, own, nil, 200},
		{"no token", "POST", api, "", own, nil, 401},
		{"wrong token", "POST", api, strings.Repeat("0", 64), own, nil, 401},
		{"token in the query", "POST", api + "?token=" + token, "", own, nil, 401},
		{"token in a cookie", "POST", api, "", own, header{"Cookie": "token=" + token}, 401},
		{"cross-site POST with the token", "POST", api, token, own, header{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403},
		{"old browser's cross-site POST", "POST", api, token, own, header{"Origin": "http://evil.example"}, 403},
		{"form of another site", "POST", api, token, own, header{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Origin": "null"}, 403},
		{"API by a rebound name", "POST", api, token, "evil.example:" + port, nil, 421},
		{"API through a link", "GET", "/v1/status", token, own, navigation("cross-site"), 403},
		{"preflight", "OPTIONS", api, "", own, header{"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}, 403},
	} {
		q, _ := http.NewRequestWithContext(t.Context(), c.method, "http://"+own+c.path, nil)
		q.Host = c.host
		for k, v := range c.header {
			q.Header.Set(k, v)
		}
		if c.token != "" {
			q.Header.Set("Authorization", "Bearer "+c.token)
		}
		r, err := http.DefaultTransport.RoundTrip(q) // which follows no redirects
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != c.want {
			t.Errorf("%s: %s %.100s, want %d", c.name, r.Status, body, c.want)
		}
		if r.StatusCode == 307 && r.Header.Get("Location") != page {
			t.Errorf("%s: leads to %s", c.name, r.Header.Get("Location"))
		}
		hardened(t, c.name, r.Header)
		if strings.Contains(string(body), token) {
			t.Errorf("%s: the answer has the token", c.name)
		}
	}
}

// hardened checks what each answer of a port says to browsers.
func hardened(t *testing.T, name string, h http.Header) {
	t.Helper()
	for k := range h {
		if strings.HasPrefix(k, "Access-Control") {
			t.Errorf("%s: the answer has %s", name, k)
		}
	}
	csp := h.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || h.Get("X-Content-Type-Options") != "nosniff" ||
		h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Set-Cookie") != "" {
		t.Errorf("%s: headers %v", name, h)
	}
}

// TestDashboardOutlivesTheNode: a port of `cepa dashboard` says that the node has gone, carries events of one that has
// come back, and does not give the node what is for the port alone.
func TestDashboardOutlivesTheNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := ServeDashboard(dir, anyLoopback)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := &Client{name: "it", base: "http://" + d.Address().String(), token: d.token, http: new(http.Client)}
	defer c.Close()
	var status *StatusError
	for range 2 {
		if _, err := c.Status(t.Context()); !errors.As(err, &status) || status.Status != http.StatusBadGateway || status.Text != ErrNotRunning.Error() {
			t.Errorf("without a node: %v", err)
		}
		node := newFakeClient()
		s, err := Start(Options{Dir: dir, Source: node})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := c.Status(t.Context()); err != nil || s.Percent != 100 {
			t.Errorf("with one: %+v, %v", s, err)
		}
		if n, err := c.NewIdentity(t.Context()); err != nil || n.Retired != 3 {
			t.Errorf("a new identity: %+v, %v", n, err)
		}
		if err := c.RefreshKeys(t.Context()); !errors.As(err, &status) || status.Status != http.StatusNotFound {
			t.Errorf("a refusal of the node: %v", err)
		}
		enough := errors.New("enough")
		err = c.Events(t.Context(), func(e Event) error {
			if e.Kind == EventCircuit {
				return enough
			}
			node.hub.Publish(EventCircuit, Circuit{ID: 7})
			return nil
		}, EventStatus, EventCircuit)
		if err != enough {
			t.Errorf("events: %v", err)
		}
		err = c.Events(t.Context(), func(Event) error { go s.Close(); return nil })
		if err == nil {
			t.Error("events go on without a node")
		}
		s.Close()
	}
	if _, err := ServeDashboard(dir, netip.MustParseAddrPort("0.0.0.0:0")); err == nil {
		t.Error("the port opened on all addresses")
	}
}

// TestPassOnLeavesOutWhatIsForThePort: no token, cookie or origin comes to the node.
func TestPassOnLeavesOutWhatIsForThePort(t *testing.T) {
	t.Parallel()
	var seen http.Header
	h := passOn(roundTrip(func(q *http.Request) (*http.Response, error) {
		seen = q.Header
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{"X-Content-Type-Options": {"nosniff"}}}, nil
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newHTTPServer(h)
	go func() { _ = server.Serve(ln) }()
	defer server.Close()
	q, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+ln.Addr().String()+"/v1/status", nil)
	q.Header = http.Header{"Authorization": {"Bearer x"}, "Cookie": {"a=b"}, "Origin": {"http://x"}, "X-Forwarded-For": {"1.2.3.4"}, "Accept": {"*/*"}}
	r, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	for k := range seen {
		if k != "Accept" && k != "User-Agent" {
			t.Errorf("the node gets %s: %q", k, seen[k])
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// TestDoorIsPrivate: the file that leads to the page has the address and is for its owner alone.
func TestDoorIsPrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address := DashboardURL(netip.MustParseAddrPort("127.0.0.1:9852"), strings.Repeat("ab", tokenBytes))
	path, err := WriteDoor(dir, address)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || strings.Count(string(data), address) != 2 {
		t.Errorf("%v: %s", err, data)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if want := fmt.Sprintf("http://127.0.0.1:9852/dashboard/#token=%s", strings.Repeat("ab", tokenBytes)); address != want {
		t.Errorf("%s, want %s", address, want)
	}
}
