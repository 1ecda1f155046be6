package socks

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cepa/cell"
)

// SOCKS4 and SOCKS4a: the destination and the user id arrive, early data too, and what is wrong gets code 91.
func TestSOCKS4(t *testing.T) {
	t.Parallel()
	o := newOverlay(t)
	s, address := start(t, Config{Dialer: o})
	granted := []byte{0, 90, 0, 0, 0, 0, 0, 0}
	keys := map[string]string{}
	for _, test := range []struct{ name, sent, host, ip string }{
		{"address", "\x04\x01\x00\x50\xc0\x00\x02\x01\x00", "", "192.0.2.1"},
		{"user", "\x04\x01\x00\x50\xc0\x00\x02\x01user\x00", "", "192.0.2.1"},
		{"name", "\x04\x01\x00\x50\x00\x00\x00\x01\x00host.example\x00", "host.example", ""},
		{"name and user", "\x04\x01\x00\x50\x00\x00\x00\xffuser\x00host.example\x00", "host.example", ""},
		{"address as name", "\x04\x01\x00\x50\x00\x00\x00\x01\x000x7f000001\x00", "", "127.0.0.1"},
		{"0.0.0.0", "\x04\x01\x00\x50\x00\x00\x00\x00\x00", "", "0.0.0.0"},
	} {
		c := dial(t, address)
		c.send([]byte(test.sent + "early"))
		c.CloseWrite()
		c.expect(granted)
		far, r := o.next()
		if got, err := io.ReadAll(far); err != nil || string(got) != "early" {
			t.Errorf("%s: the far end read %q, %v", test.name, got, err)
		}
		if r.Host != test.host || test.ip != "" && r.IP.String() != test.ip || r.Port != 80 {
			t.Errorf("%s: dialled %+v", test.name, r)
		}
		keys[test.name] = r.Isolation
	}
	if keys["address"] != keys["name"] || keys["user"] != keys["name and user"] || keys["user"] == keys["address"] {
		t.Error("the user id is not what isolates")
	}
	rejected := []byte{0, 91, 0, 0, 0, 0, 0, 0}
	for _, sent := range []string{
		"\x04\x02\x00\x50\xc0\x00\x02\x01\x00",                                  // BIND
		"\x04\xf0\x00\x50\x00\x00\x00\x01\x00host.example\x00",                  // RESOLVE, without a Resolver
		"\x04\x01\x00\x00\xc0\x00\x02\x01\x00",                                  // port 0
		"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00",                              // no name
		"\x04\x01\x00\x50\x00\x00\x00\x01\x00a b\x00",                           // no name that can be
		"\x04\x01\x00\x50\xc0\x00\x02\x01" + strings.Repeat("u", 256) + "\x00",  // user too long
		"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + strings.Repeat("a.", 200) + "", // name too long
	} {
		c := dial(t, address)
		c.send([]byte(sent))
		c.expect(rejected)
		c.expectEOF()
	}
	if got := s.Stats().Refused; got["command not supported"] != 2 || got["bad destination"] != 2 || got["malformed"] != 3 {
		t.Errorf("counted %v", got)
	}
}

// ask sends an HTTP request and reads the response; the connection must end after it.
func ask(t *testing.T, address, request string) (*http.Response, string) {
	t.Helper()
	c := dial(t, address)
	c.send([]byte(request))
	method, _, _ := strings.Cut(request, " ")
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return r, string(body)
}

// CONNECT opens a stream; what follows the head goes into it, and nothing of the head does.
func TestHTTPConnect(t *testing.T) {
	t.Parallel()
	o := newOverlay(t)
	_, address := start(t, Config{Dialer: o})
	keys := map[string]string{}
	for _, test := range []struct{ name, sent, host, ip string }{
		{"name", "CONNECT host.example:443 HTTP/1.1\r\nHost: host.example:443\r\n\r\n", "host.example", ""},
		{"HTTP/1.0", "CONNECT host.example:443 HTTP/1.0\n\n", "host.example", ""},
		{"IPv6", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n", "", "2001:db8::1"},
		{"number", "CONNECT 2130706433:443 HTTP/1.1\r\nHost: x\r\n\r\n", "", "127.0.0.1"},
		{"user", "CONNECT host.example:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n", "host.example", ""},
		{"token", "CONNECT host.example:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer dXNlcjpwYXNz\r\n\r\n", "host.example", ""},
		{"length", "CONNECT host.example:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", "host.example", ""},
	} {
		c := dial(t, address)
		c.send([]byte(test.sent + "early"))
		c.expect([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
		c.CloseWrite()
		far, r := o.next()
		if got, err := io.ReadAll(far); err != nil || string(got) != "early" {
			t.Errorf("%s: the far end read %q, %v", test.name, got, err)
		}
		if r.Host != test.host || test.ip != "" && r.IP.String() != test.ip || r.Port != 443 {
			t.Errorf("%s: dialled %+v", test.name, r)
		}
		keys[test.name] = r.Isolation
	}
	if keys["name"] == keys["user"] || keys["name"] == keys["token"] || keys["user"] == keys["token"] || keys["name"] != keys["IPv6"] {
		t.Error("Proxy-Authorization is not what isolates")
	}
	c := dial(t, address) // the same user and password are the same key, whatever the protocol
	c.send(slices.Concat([]byte{5, 1, 2}, password("user", "pass"), connectName("host.example", 80)))
	c.expect(slices.Concat([]byte{5, 2, 1, 0}, reply(0)))
	if _, r := o.next(); r.Isolation != keys["user"] {
		t.Error("user and password differ between SOCKS5 and HTTP")
	}
}

// The status says whose fault it is, the text why, and neither says where to.
func TestHTTPConnectFailures(t *testing.T) {
	t.Parallel()
	var failure error
	var mu sync.Mutex
	_, address := start(t, Config{Dialer: dialFunc(func(context.Context, Request) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		return nil, failure
	})})
	for _, test := range []struct {
		err    error
		status int
	}{
		{&Error{Reason: cell.ReasonPolicy, Here: true, Scrubbed: "because of this"}, 403},
		{&Error{Reason: cell.ReasonPolicy, Scrubbed: "because of this"}, 403},
		{&Error{Reason: cell.ReasonNoSuchHost, Scrubbed: "because of this"}, 502},
		{&Error{Reason: cell.ReasonResolveFailed, Scrubbed: "because of this"}, 502},
		{&Error{Reason: cell.ReasonRefused, Text: "secret.example", Scrubbed: "because of this"}, 502},
		{&Error{Reason: cell.ReasonReset, Scrubbed: "because of this"}, 502},
		{&Error{Reason: cell.ReasonNetUnreachable, Scrubbed: "because of this"}, 502},
		{&Error{Reason: cell.ReasonTimeout, Scrubbed: "because of this"}, 504},
		{&Error{Reason: cell.ReasonTimeout, Here: true, Scrubbed: "because of this"}, 503},
		{&Error{Reason: cell.ReasonResource, Here: true, Scrubbed: "because of this"}, 503},
		{&Error{Reason: cell.ReasonDestroyed, Scrubbed: "because of this"}, 503},
		{&Error{Reason: cell.ReasonRefused, Text: "secret.example"}, 502},
		{io.EOF, 503},
	} {
		mu.Lock()
		failure = test.err
		mu.Unlock()
		r, body := ask(t, address, "CONNECT secret.example:443 HTTP/1.1\r\nHost: secret.example\r\n\r\n")
		if r.StatusCode != test.status || strings.Contains(body, "secret") || strings.TrimSpace(body) == "" {
			t.Errorf("%#v: %s, %q", test.err, r.Status, body)
		}
		if e, ok := test.err.(*Error); ok && e.Scrubbed != "" && body != "Because of this.\n" {
			t.Errorf("%#v: %q", test.err, body)
		}
	}
}

// What is no CONNECT and not for the port itself gets an answer that runs nothing, and repeats nothing of the request.
func TestHTTPRefusals(t *testing.T) {
	t.Parallel()
	_, address := start(t, Config{Dialer: dialFunc(func(_ context.Context, r Request) (net.Conn, error) {
		t.Errorf("the Dialer was asked for %+v", r)
		return nil, io.EOF
	})})
	const marker = "zwiebel"
	own := "\r\nHost: " + address
	for _, test := range []struct {
		sent   string
		status int
	}{
		{"GET http://zwiebel.example/ HTTP/1.1\r\nHost: zwiebel.example", 501},
		{"OPTIONS * HTTP/1.1" + own, 501},
		{"GET / HTTP/1.1\r\nHost: zwiebel.example", 421},
		{"GET / HTTP/1.1\r\nHost: 127.0.0.1", 421},
		{"GET / HTTP/1.0", 421},
		{"GET / HTTP/1.1" + own + "\r\nSec-Fetch-Site: cross-site", 403},
		{"GET /proxy.pac HTTP/1.1" + own + "\r\nSec-Fetch-Site: same-site", 403},
		{"POST / HTTP/1.1" + own, 405},
		{"GET /zwiebel HTTP/1.1" + own, 404},
		{"GET /?zwiebel HTTP/1.1" + own, 404},
		{"GET /proxy.pac/ HTTP/1.1" + own, 404},
		{"GET / zwiebel", 400},
		{"GET / HTTP/1.1" + own + own, 400},
		{"GET / HTTP/1.1" + own + "\r\nA: " + strings.Repeat("z", maxHead), 431},
		{"PRI * HTTP/2.0\r\n\r\nSM", 501},
		{"CONNECT zwiebel.example HTTP/1.1", 400},
		{"CONNECT zwiebel.example:0 HTTP/1.1", 400},
		{"CONNECT zwiebel.example:65536 HTTP/1.1", 400},
		{"CONNECT zwiebel.example:http HTTP/1.1", 400},
		{"CONNECT :443 HTTP/1.1", 400},
		{"CONNECT zwie%20bel:443 HTTP/1.1", 400},
		{"CONNECT zwiebel.example:443 HTTP/1.1\r\nProxy-Authorization: Basic !", 400},
		{"CONNECT zwiebel.example:443 HTTP/1.1\r\nProxy-Authorization: a\r\nProxy-Authorization: b", 400},
	} {
		r, body := ask(t, address, test.sent+"\r\n\r\n")
		if r.StatusCode != test.status || strings.Contains(body, marker) || body == "" {
			t.Errorf("%.60q: %s, %q", test.sent, r.Status, body)
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") ||
			!strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'") || r.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%.60q: %v", test.sent, r.Header)
		}
	}
}

// The port tells a browser what it is and how to use it, and loads nothing.
func TestPage(t *testing.T) {
	t.Parallel()
	s, address := start(t, Config{Dialer: fails(io.EOF)})
	_, port, _ := net.SplitHostPort(address)
	for _, host := range []string{address, "localhost:" + port, "LOCALHOST:" + port} {
		r, body := ask(t, address, "GET / HTTP/1.1\r\nHost: "+host+"\r\nSec-Fetch-Site: none\r\n\r\n")
		if r.StatusCode != 200 || !strings.Contains(body, "http://"+address+"/proxy.pac") || strings.Contains(body, "<script") {
			t.Fatalf("%s: %s", r.Status, body)
		}
		style := body[strings.Index(body, "<style>")+len("<style>") : strings.Index(body, "</style>")]
		if policy := r.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "'sha256-"+hashOf(style)+"'") {
			t.Errorf("the page's own style is not the one that its policy allows: %s", policy)
		}
	}
	r, body := ask(t, address, "GET /proxy.pac HTTP/1.1\r\nHost: "+address+"\r\n\r\n")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/x-ns-proxy-autoconfig" ||
		!strings.Contains(body, `return "SOCKS5 `+address+`";`) || strings.Contains(body, "DIRECT") {
		t.Errorf("%s %v: %s", r.Status, r.Header, body)
	}
	r, body = ask(t, address, "HEAD / HTTP/1.1\r\nHost: "+address+"\r\n\r\n")
	if r.StatusCode != 200 || body != "" || r.ContentLength <= 0 {
		t.Errorf("%s %v: %s", r.Status, r.Header, body)
	}
	eventually(t, "all are counted", func() bool { return s.Stats().Served == 5 })
	if st := s.Stats(); len(st.Refused) != 0 {
		t.Errorf("counted %+v", st)
	}
}

// Tor's look-ups over SOCKS5 and SOCKS4.
func TestLookUps(t *testing.T) {
	t.Parallel()
	v4, v6, name := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), cell.Address{Host: "name.example"}
	answers := map[string][]cell.Address{
		"both.example":  {{IP: v6}, {IP: v4}},
		"six.example":   {name, {IP: v6}},
		"wrong.example": {name},
		"192.0.2.1":     {{IP: v4}, name},
		"2001:db8::1":   {name},
	}
	s, address := start(t, Config{Dialer: fails(io.EOF), Resolver: resolveFunc(func(_ context.Context, r Request) ([]cell.Address, error) {
		if r.Port != 0 || r.Isolation == "" {
			t.Errorf("asked for %+v", r)
		}
		key := r.Host
		if key == "" {
			key = r.IP.String()
		}
		if a, ok := answers[key]; ok {
			return a, nil
		}
		return nil, &Error{Reason: cell.ReasonNoSuchHost}
	})})
	resolve := func(b []byte) []byte { b[1] = 0xf0; return b }
	back := func(b []byte) []byte { b[1] = 0xf1; return b }
	named := slices.Concat([]byte{5, 0, 0, 3, 12}, []byte("name.example"), []byte{0, 0})
	served := 0
	for _, test := range []struct {
		sent, want []byte
	}{
		{resolve(connectName("both.example", 0)), slices.Concat([]byte{5, 0, 0, 1}, v4.AsSlice(), []byte{0, 0})},
		{resolve(connectName("six.example", 80)), slices.Concat([]byte{5, 0, 0, 4}, v6.AsSlice(), []byte{0, 0})},
		{resolve(connectName("wrong.example", 0)), reply(4)},
		{resolve(connectName("none.example", 0)), reply(4)},
		{resolve(connectName("0x7f.1", 0)), slices.Concat([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 0})},
		{resolve(connectIP("192.0.2.7", 0)), slices.Concat([]byte{5, 0, 0, 1, 192, 0, 2, 7, 0, 0})},
		{resolve(connectName("a b", 0)), reply(1)},
		{back(connectIP("192.0.2.1", 0)), named},
		{back(connectIP("2001:db8::1", 0)), named},
		{back(connectName("192.0.2.1", 0)), named},
		{back(connectName("both.example", 0)), reply(1)},
		{back(connectIP("192.0.2.9", 0)), reply(4)},
	} {
		c := dial(t, address)
		c.send(slices.Concat(greetNone, test.sent))
		c.expect(append([]byte{5, 0}, test.want...))
		c.expectEOF()
		if test.want[1] == 0 {
			served++
		}
	}
	for sent, want := range map[string][]byte{
		"\x04\xf0\x00\x00\x00\x00\x00\x01\x00both.example\x00": {0, 90, 0, 0, 192, 0, 2, 1},
		"\x04\xf0\x00\x00\x00\x00\x00\x01\x00six.example\x00":  {0, 91, 0, 0, 0, 0, 0, 0},
		"\x04\xf1\x00\x00\xc0\x00\x02\x01\x00":                 {0, 91, 0, 0, 0, 0, 0, 0},
	} {
		c := dial(t, address)
		c.send([]byte(sent))
		c.expect(want)
		c.expectEOF()
	}
	eventually(t, "all are counted", func() bool { return s.Stats().Served == uint64(served+1) })
}

// Where it is switched on, .onion names get Tor's codes; elsewhere the standard ones.
func TestExtendedErrors(t *testing.T) {
	t.Parallel()
	const onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
	for _, extended := range []bool{false, true} {
		_, address := start(t, Config{Dialer: fails(&Error{Reason: cell.ReasonPolicy}), ExtendedErrors: extended})
		for host, code := range map[string]byte{onion: 0xf0, "www." + strings.ToUpper(onion) + ".": 0xf0, "a" + onion[1:]: 0xf6, "short.onion": 0xf6, "host.example": 2} {
			if !extended {
				code = 2
			}
			c := dial(t, address)
			c.send(slices.Concat(greetNone, connectName(host, 80)))
			c.expect(append([]byte{5, 0}, reply(code)...))
		}
	}
}

// Each further thing that keeps streams apart does so, and only that.
func TestIsolationByDestinationPortAndProtocol(t *testing.T) {
	t.Parallel()
	five := func(host string, port uint16) []byte { return slices.Concat(greetNone, connectName(host, port)) }
	four := []byte("\x04\x01\x00\x50\x00\x00\x00\x01\x00host.example\x00")
	for _, test := range []struct {
		name  string
		apart Config
		keys  int
	}{
		{"nothing", Config{ShareClients: true, ShareCredentials: true}, 1},
		{"the defaults", Config{}, 1},
		{"the destination", Config{IsolateDestination: true}, 2},
		{"the port", Config{IsolatePort: true}, 2},
		{"the protocol", Config{IsolateProtocol: true}, 2},
		{"all", Config{IsolateDestination: true, IsolatePort: true, IsolateProtocol: true}, 4},
		{"the port alone", Config{ShareClients: true, ShareCredentials: true, IsolatePort: true}, 2},
	} {
		o := newOverlay(t)
		test.apart.Dialer = o
		_, address := start(t, test.apart)
		keys := map[string]bool{}
		for _, sent := range [][]byte{five("host.example", 80), five("HOST.example.", 80), five("host.example", 81), five("192.0.2.1", 80), four} {
			c := dial(t, address)
			c.send(sent)
			_, r := o.next()
			keys[r.Isolation] = true
		}
		if len(keys) != test.keys {
			t.Errorf("%s: %d keys, want %d", test.name, len(keys), test.keys)
		}
	}
}

// Each failure is in the log with its reason and without its destination, and many of them are few lines.
func TestFailuresAreLoggedScrubbed(t *testing.T) {
	t.Parallel()
	var lines logBuffer
	_, address := start(t, Config{
		Log:    lines.logger(),
		Dialer: fails(&Error{Reason: cell.ReasonRefused, Text: "secret.example refused", Scrubbed: "the destination refused"}),
	})
	for range failureBurst + 10 {
		c := dial(t, address)
		c.send(slices.Concat(greetNone, connectName("secret.example", 80)))
		c.expect(append([]byte{5, 0}, reply(5)...))
		c.expectEOF()
	}
	text := lines.String()
	if n := strings.Count(text, `why="the destination refused"`); n < failureBurst || n > failureBurst+5 || strings.Contains(text, "secret") {
		t.Errorf("%d lines:\n%s", n, text)
	}
	var l failureLog
	now := time.Unix(1e9, 0)
	for range failureBurst + 7 {
		l.due(now)
	}
	if n, ok := l.due(now.Add(failureInterval)); !ok || n != 7 {
		t.Errorf("after the interval: %d left out, %v", n, ok)
	}
}
