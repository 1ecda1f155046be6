package socks

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cepa/cell"
)

// curl, a real client, through every way that it has of using a SOCKS proxy.
func TestCurl(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl: install the Debian package curl")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s", r.Host)
	})}
	go origin.Serve(l)
	t.Cleanup(func() { origin.Close() })

	requests := make(chan Request, 1)
	socket := filepath.Join(t.TempDir(), "s")
	s, address := start(t, Config{Dialer: dialFunc(func(_ context.Context, r Request) (net.Conn, error) {
		if strings.HasPrefix(r.Host, "no-such") {
			return nil, &Error{Reason: cell.ReasonNoSuchHost}
		}
		requests <- r
		return net.Dial("tcp", l.Addr().String()) // to an address, whatever name was asked for
	})})
	unix, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(unix)
	curl := func(arguments ...string) (string, error) {
		out, err := exec.Command(program, append([]string{"-sS", "-q", "--noproxy", "", "--max-time", "20"}, arguments...)...).CombinedOutput()
		return string(out), err
	}
	keys := map[string]string{}
	for _, test := range []struct {
		name, url, host, ip string
		arguments           []string
	}{
		{"names", "http://hello.invalid/", "hello.invalid", "", []string{"--socks5-hostname", address}},
		{"socks5h", "http://hello.invalid/", "hello.invalid", "", []string{"--proxy", "socks5h://" + address}},
		{"address", "http://192.0.2.7/", "", "192.0.2.7", []string{"--socks5", address}},
		{"IPv6 address", "http://[2001:db8::7]/", "", "2001:db8::7", []string{"--socks5-hostname", address}},
		{"user 1", "http://hello.invalid/", "hello.invalid", "", []string{"--socks5-hostname", address, "--proxy-user", "one:pw"}},
		{"user 2", "http://hello.invalid/", "hello.invalid", "", []string{"--socks5-hostname", address, "--proxy-user", "two:pw"}},
		{"no password", "http://hello.invalid/", "hello.invalid", "", []string{"--socks5-hostname", address, "--proxy-user", "one:"}},
		{"SOCKS4", "http://192.0.2.7/", "", "192.0.2.7", []string{"--socks4", address}},
		{"SOCKS4a", "http://hello.invalid/", "hello.invalid", "", []string{"--socks4a", address}},
		{"SOCKS4a user", "http://hello.invalid/", "hello.invalid", "", []string{"--proxy", "socks4a://one@" + address}},
		{"CONNECT", "http://hello.invalid/", "hello.invalid", "", []string{"--proxytunnel", "--proxy", "http://" + address}},
		{"CONNECT IPv6", "http://[2001:db8::7]/", "", "2001:db8::7", []string{"--proxytunnel", "--proxy", "http://" + address}},
		{"CONNECT user", "http://hello.invalid/", "hello.invalid", "", []string{"--proxytunnel", "--proxy", "http://one:pw@" + address}},
		{"Unix socket", "http://hello.invalid/", "hello.invalid", "", []string{"--proxy", "socks5h://localhost" + socket}},
	} {
		out, err := curl(append(test.arguments, test.url)...)
		if err != nil || !strings.HasPrefix(out, "hello from ") {
			t.Fatalf("%s: %s, %v", test.name, out, err)
		}
		r := receive(t, requests)
		if r.Host != test.host || test.ip != "" && r.IP.String() != test.ip || r.Port != 80 {
			t.Errorf("%s: dialled %+v", test.name, r)
		}
		keys[test.name] = r.Isolation
	}
	if keys["names"] != keys["address"] {
		t.Error("the key depends on the destination")
	}
	if keys["names"] != keys["CONNECT"] || keys["names"] != keys["SOCKS4"] || keys["user 1"] != keys["CONNECT user"] {
		t.Error("the key depends on the protocol")
	}
	for _, pair := range [][2]string{{"names", "user 1"}, {"user 1", "user 2"}, {"user 1", "no password"},
		{"SOCKS4a", "SOCKS4a user"}, {"CONNECT", "CONNECT user"}, {"names", "Unix socket"}} {
		if keys[pair[0]] == keys[pair[1]] {
			t.Errorf("%s and %s share a key", pair[0], pair[1])
		}
	}
	if out, err := curl("--socks5-hostname", address, "http://no-such.invalid/"); err == nil || !strings.Contains(out, "("+strconv.Itoa(4)+")") {
		t.Errorf("curl does not report reply 4: %s", out)
	}
	if out, err := curl("--proxy", "http://"+address, "http://hello.invalid/"); err != nil || !strings.Contains(out, "socks5h://") {
		t.Errorf("curl with an HTTP proxy is not told what to do: %s, %v", out, err)
	}
	if out, err := curl("-w", "%{http_connect}", "--proxytunnel", "--proxy", "http://"+address, "http://no-such.invalid/"); err == nil || !strings.Contains(out, "502") {
		t.Errorf("curl is not told that there is no such host: %s", out)
	}
	if out, err := curl("--socks4a", address, "http://no-such.invalid/"); err == nil || !strings.Contains(out, "91") {
		t.Errorf("curl with SOCKS4a is not told that it was rejected: %s", out)
	}
}
