//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ownDNS is a name server that knows one name, of 127.0.0.1. It counts questions.
func ownDNS(t *testing.T, name string) (address string, asked *atomic.Int32) {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	asked = new(atomic.Int32)
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Name.String() != name {
				m.RCode = dnsmessage.RCodeNameError
			} else if asked.Add(1); q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(answer, from)
			}
		}
	}()
	return c.LocalAddr().String(), asked
}

// A network with one exit, which keeps to its settings: the resolver, the address that its connections come from, the
// rate, connections to one destination (which SIGHUP changes), and the time that it lets a running stream have when it
// is to end. When it and all others are gone, a client's port answers with an error, and nothing goes around the network.
func TestExitKeepsItsSettings(t *testing.T) {
	notShort(t)
	const from, rate, size = "127.0.0.77", 200, 1 << 20
	curl := need(t, "curl")
	var seen atomic.Value
	var served atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		seen.Store(host)
		served.Add(1)
		_, _ = w.Write(bytes.Repeat([]byte("x"), size))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		for range 60 {
			if _, err := fmt.Fprintln(w, "still there"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
		fmt.Fprintln(w, "whole")
	})
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := &http.Server{Handler: mux}
	go func() { _ = origin.Serve(ln) }()
	t.Cleanup(func() { _ = origin.Close() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	resolver, asked := ownDNS(t, "somewhere.test.")

	f := foundNetwork(t, filepath.Join(t.TempDir(), "n"), address(t, 51))
	for i := range 2 {
		f.relay(t, fmt.Sprint("middle-", i), address(t, 52+i))
	}
	settings := filepath.Join(f.dir, "exit.toml")
	write := func(perDestination int) {
		t.Helper()
		text := fmt.Sprintf("network = %q\ndir = %q\nexit_policy = \"all\"\nexit_max_per_destination = %d\nexit_address = %q\nresolver = %q\nrate_kib = %d\nburst_kib = 40\ndrain = \"20s\"\n",
			f.file, filepath.Join(f.dir, "exit"), perDestination, from, resolver, rate)
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	exit := f.start(t, "relay", "--config", settings, "--listen", address(t, 55))
	socks, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	client := f.start(t, "client", "--network", f.file, "--dir", filepath.Join(f.dir, "client"), "--socks", socks)
	if out, code := finish(t, 90*time.Second, command(t, "status", "--wait", "80s", filepath.Join(f.dir, "client"))); code != 0 || !strings.Contains(out, ": ready") {
		t.Fatalf("%s\n%s", out, client.tail())
	}
	fetch := func(limit time.Duration, arguments ...string) (string, int) {
		t.Helper()
		return finish(t, limit, exec.Command(curl, append([]string{"-sS", "-q", "-x", "socks5h://" + socks}, arguments...)...))
	}

	began := time.Now()
	if out, code := fetch(time.Minute, "http://somewhere.test:"+port+"/"); code != 0 || len(out) != size {
		t.Fatalf("status %d, %d bytes: %.200s", code, len(out), out)
	}
	if took, least := time.Since(began), time.Duration(size/(rate<<10)-1)*time.Second; took < least {
		t.Errorf("%d bytes took %v at %d KiB a second: less than %v", size, took, rate, least)
	}
	if seen.Load() != from || asked.Load() == 0 {
		t.Errorf("the destination saw %v, the name server was asked %d times", seen.Load(), asked.Load())
	}

	var held net.Conn
	within(t, 20*time.Second, "the connection before it has ended", func() bool {
		held, err = dialSOCKS(socks, "", "127.0.0.1:"+port, 30*time.Second)
		return err == nil
	})
	if out, code := fetch(time.Minute, "http://127.0.0.1:"+port+"/"); code != 97 {
		t.Errorf("a second connection to one destination: status %d: %.200s", code, out)
	}
	write(0)
	exit.signal(syscall.SIGHUP)
	says(t, exit, "exit_max_per_destination is in force")
	if out, code := fetch(time.Minute, "http://127.0.0.1:"+port+"/"); code != 0 {
		t.Errorf("after the limit was taken away: status %d: %.200s", code, out)
	}
	held.Close()

	slow, err := launch(exec.Command(curl, "-sSN", "-q", "-x", "socks5h://"+socks, "http://127.0.0.1:"+port+"/slow"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slow.end)
	says(t, slow, "still there")
	exit.signal(syscall.SIGTERM)
	within(t, 20*time.Second, "what runs has ended", func() bool { return !slow.running() })
	if !strings.Contains(slow.output(), "whole") {
		t.Errorf("what ran was cut off: %s", slow.tail())
	}
	within(t, 30*time.Second, "the exit has ended", func() bool { return !exit.running() })

	if !whole(t) {
		return // the rest takes a minute, for which a request waits
	}
	for _, r := range f.relays {
		r.signal(syscall.SIGKILL)
	}
	before := served.Load()
	began = time.Now()
	out, code := fetch(80*time.Second, "--max-time", "70", "http://127.0.0.1:"+port+"/")
	if code != 97 || time.Since(began) > 60*time.Second {
		t.Errorf("without a network: status %d after %v: %s", code, time.Since(began), out)
	}
	if served.Load() != before {
		t.Error("the request went around the network")
	}
	says(t, client, "a request failed")
	if strings.Contains(client.output(), port) {
		t.Errorf("the log names the destination:\n%s", client.tail())
	}
}
