//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestSSHAndSFTPThroughConnect(t *testing.T) {
	notShort(t)
	testSSH(t, cepa+" connect --socks "+shared(t).socks)
}

// The end of the input is passed on, and what comes after it still arrives; failures say why.
func TestConnectJoinsBothWays(t *testing.T) {
	o := shared(t)
	g := listenOrigin(t, o)
	g.serveConns(func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // ends only when the half-close has come through
		_, _ = fmt.Fprintf(c, "got %d bytes", len(b))
	})
	const size = 3 * mebibyte
	cmd := exec.Command(cepa, "connect", "--socks", o.socks, "127.0.0.1", fmt.Sprint(g.addr.Port()))
	cmd.Stdin = bytes.NewReader(make([]byte, size))
	if out, code := finish(t, time.Minute, cmd); code != 0 || out != fmt.Sprintf("got %d bytes", size) {
		t.Errorf("status %d: %q", code, out)
	}
	closed, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	_, closedPort, _ := net.SplitHostPort(closed)
	for _, test := range []struct {
		want string
		code int
		args []string
	}{
		{"the destination refused the connection", 1, []string{"--socks", o.socks, "127.0.0.1", closedPort}},
		{"the name does not resolve", 1, []string{"--socks", o.socks, "no-such-host.invalid", "80"}},
		{"no client answers on " + closed, 1, []string{"--socks", closed, "hello.demo", "80"}},
		{"is no port", 2, []string{"--socks", o.socks, "hello.demo", "http"}},
		{"needs HOST and PORT", 2, []string{"--socks", o.socks, "hello.demo"}},
	} {
		out, code := finish(t, time.Minute, exec.Command(cepa, append([]string{"connect"}, test.args...)...))
		if code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("%v: status %d, want %d and %q: %s", test.args, code, test.code, test.want, out)
		}
	}
}

// In a demo the path works and the guard has told the address; without a client nobody is protected.
func TestCheckSaysHowOneIsSeen(t *testing.T) {
	o := shared(t)
	out, code := finish(t, time.Minute, exec.Command(cepa, "check", "--json", o.node(t, "client").Dir))
	var r struct {
		Verdict, Socks, Seen string
		Outside              []string
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("status %d, %v: %s", code, err, out)
	}
	if r.Verdict != "test" || r.Socks != o.socks || !strings.HasPrefix(r.Seen, "127.") || len(r.Outside) == 0 || !strings.HasPrefix(r.Outside[0], "127.") {
		t.Errorf("%+v", r)
	}
	free, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	out, code = finish(t, time.Minute, exec.Command(cepa, "check", "--socks", free, "--echo", "http://hello.demo/address"))
	if code != 1 || !strings.HasPrefix(out, "NOT PROTECTED: no client is running") {
		t.Errorf("status %d: %s", code, out)
	}
	out, code = finish(t, time.Minute, exec.Command(cepa, "check", "--socks", o.socks, "--echo", "http://no-such-host.invalid/"))
	if code != 3 || !strings.HasPrefix(out, "CANNOT TELL") {
		t.Errorf("status %d: %s", code, out)
	}
}
