//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Limits of the discovery with consensus intervals of two seconds.
const (
	foundLimit = 20 * time.Second // all relays know all, from the start of the last
	joinLimit  = 15 * time.Second // a relay that joined carries traffic
	leaveLimit = 20 * time.Second // a relay that is gone is no longer chosen
)

// address is a free port on an address in the i-th /16 of 127.0.0.0/8.
func address(t testing.TB, i int) string {
	t.Helper()
	ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.1:0", i))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// know waits until every running relay lists this many relays, in its consensus and by their
// own descriptors.
func (f *founded) know(t testing.TB, relays int64, limit time.Duration) time.Duration {
	t.Helper()
	var state string
	start := time.Now()
	for {
		state = ""
		for name, r := range f.relays {
			if !r.running() {
				continue
			}
			m, err := tryCounters(r.dir)
			if err != nil {
				state += fmt.Sprintf("%s: %v; ", name, err)
			} else if m["consensus_relays"] != relays || m["directory_descriptors"] < relays {
				state += fmt.Sprintf("%s: %d in the consensus, %d descriptors; ", name, m["consensus_relays"], m["directory_descriptors"])
			}
		}
		if state == "" {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("after %v not every relay knows exactly %d: %s", limit, relays, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestRelaysFindEachOtherComeAndGo(t *testing.T) {
	long(t)
	f := foundNetwork(t, filepath.Join(t.TempDir(), "n"), address(t, 21), "--param", "interval_ms=2000", "--param", "keepalive_ms=1000")
	for i := range 4 {
		policy := []string{"none", "all"}[i%2]
		f.relay(t, fmt.Sprintf("r%d", i), address(t, 22+i), "--exit-policy", policy)
	}
	took := f.know(t, 5, foundLimit)
	t.Logf("5 relays, of which each knew one address, knew all after %v", took.Round(time.Millisecond))

	socks, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(f.dir, "client")
	start := time.Now()
	p := f.start(t, "client", "--network", f.file, "--dir", client, "--socks", socks)
	within(t, 20*time.Second, "the client is ready", func() bool { return strings.Contains(p.output(), "100 %") })
	t.Logf("the client was ready after %v", time.Since(start).Round(time.Millisecond))
	g := listenFor(t, func(bool) (pids []int) {
		for _, r := range f.relays {
			pids = append(pids, r.pid())
		}
		return pids
	})
	g.serveConns(func(c *net.TCPConn) { _, _ = c.Write([]byte("content")) })
	users := 0
	fetch := func(limit time.Duration) error { // in a circuit of its own
		users++
		c, err := dialSOCKS(socks, fmt.Sprintf("user-%d", users), g.addr.String(), limit)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(limit))
		if b, err := io.ReadAll(c); err != nil || string(b) != "content" {
			return fmt.Errorf("%q, %v", b, err)
		}
		return nil
	}
	for range 5 {
		if err := fetch(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("joins", func(t *testing.T) {
		start := time.Now()
		late := f.relay(t, "late", address(t, 31), "--exit-policy", "all")
		t.Logf("every relay lists it after %v", f.know(t, 6, joinLimit).Round(time.Millisecond))
		used := func() bool {
			m, err := tryCounters(late.dir)
			return err == nil && m["relay_extends"]+m["relay_exit_connects"] > 0
		}
		for !used() {
			if time.Since(start) > joinLimit {
				t.Fatalf("not used after %v", joinLimit)
			}
			if err := fetch(5 * time.Second); err != nil {
				t.Error(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("used %v after it was started", time.Since(start).Round(time.Millisecond))
	})
	for _, way := range []struct {
		name, relay string
		signal      syscall.Signal
		left        int64
	}{{"leaves", "late", syscall.SIGTERM, 5}, {"dies", "r0", syscall.SIGKILL, 4}} {
		t.Run(way.name, func(t *testing.T) {
			gone := f.relays[way.relay]
			if gone == nil {
				t.Skip("it has not joined")
			}
			gone.signal(way.signal)
			<-gone.done
			start := time.Now()
			// Requests never fail for it, from the first moment on.
			streak := 0
			for streak < 20 {
				if time.Since(start) > leaveLimit+10*time.Second {
					t.Fatalf("still chosen after %v", time.Since(start))
				}
				before := counters(t, client)
				if err := fetch(5 * time.Second); err != nil {
					t.Errorf("%v after a relay was gone: %v", time.Since(start), err)
				}
				after := counters(t, client)
				streak++
				if tried := after["circuit_failed"] - before["circuit_failed"]; tried > 0 {
					t.Logf("%d circuits failed %v after the relay was gone", tried, time.Since(start).Round(time.Millisecond))
					streak = 0
				}
			}
			t.Logf("20 circuits in a row without it, the last %v after it was gone", time.Since(start).Round(time.Millisecond))
			took := f.know(t, way.left, leaveLimit)
			t.Logf("no relay lists it after %v", took.Round(time.Millisecond))
		})
	}
}
