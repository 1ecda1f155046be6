//go:build linux

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
)

// quick is the time from the start of a client's process to its open port, with a valid consensus on disk.
const quick = time.Second

// TestClientStartsFromItsDisk: a client that was started before needs nobody to tell it which relays there are, whether
// it was ended or killed.
func TestClientStartsFromItsDisk(t *testing.T) {
	notShort(t)
	f := newField(t, plan{authorities: 1, relays: 4, parameters: directory.Parameters{directory.IntervalMillis: 600_000}})
	f.startAll(t)
	c := f.client(t, 30*time.Second)
	if n := c.count("directory_heads"); n == 0 {
		t.Error("the first start asked nobody")
	}
	best := time.Hour
	for i, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM} {
		c.signal(signal)
		<-c.done
		start := time.Now()
		f.start(t, c)
		within(t, 10*time.Second, "the client is ready again", c.ready)
		took := time.Since(start)
		best = min(best, took)
		for _, name := range []string{"directory_rounds", "directory_heads", "directory_bodies", "directory_diffs", "directory_circuits"} {
			if n := c.count(name); n != 0 {
				t.Errorf("start %d: %s is %d before the first circuit", i, name, n)
			}
		}
		t.Logf("after %v: ready %v after the start of the process", signal, took.Round(time.Millisecond))
		f.flows(t, c)
	}
	if best > quick {
		t.Errorf("the quickest of three starts took %v, want at most %v", best, quick)
	}
}

// TestAuthoritiesAreReplaced: a network's operators replace an authority; relays and clients that run hear of it by
// themselves, and one that was started with the old file follows too.
func TestAuthoritiesAreReplaced(t *testing.T) {
	long(t)
	f := newField(t, plan{authorities: 4, relays: 4})
	f.startAll(t)
	c := f.client(t, 30*time.Second)
	f.agree(t, 20*time.Second, f.listsAll())

	// a1 goes, a5 comes: three of the four old ones sign, each for itself.
	old := f.file
	contents := *f.network
	contents.Serial++
	contents.Created = time.Now()
	var authorities []*actor
	for _, a := range f.parts("authority") {
		if a.name != "a1" {
			authorities = append(authorities, a)
		}
	}
	late := f.add(t, "authority", "a5", address(t, 95), &contents)
	authorities = append(authorities, late)
	contents.Authorities, contents.Quorum = nil, 0
	for _, a := range authorities {
		contents.Authorities = append(contents.Authorities, a.contact())
	}
	next, err := directory.DraftNetwork(contents)
	for _, a := range authorities[:3] {
		var signed *directory.Network
		if err == nil {
			signed, err = next.Sign(a.signer)
		}
		next = signed
	}
	var text []byte
	if err == nil {
		err = next.Complete(f.network)
	}
	if err == nil {
		text, err = next.AppendTOML(nil)
	}
	f.file = filepath.Join(f.dir, "next.toml")
	if err == nil {
		err = os.WriteFile(f.file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	f.node("a1").signal(syscall.SIGTERM)
	for _, a := range authorities {
		if a != late {
			a.signal(syscall.SIGTERM)
			<-a.done
		}
		f.start(t, a)
	}
	follow := func(a *actor) bool { return a.count("directory_network_files") == 1 }
	for _, a := range append(f.parts("relay"), c) {
		within(t, 60*time.Second, a.name+" has the new network file", func() bool { return follow(a) })
	}
	t.Logf("relays and client had the new file %v after the authorities were told to stop", time.Since(start).Round(time.Millisecond))
	f.nodes = slices.DeleteFunc(f.nodes, func(a *actor) bool { return a.name == "a1" })
	f.network = next
	newcomer := func(k *directory.Consensus) error {
		if k.NetworkSerial != 2 || !slices.ContainsFunc(k.Head.Signers, func(id cert.Identity) bool { return id == late.id }) {
			return fmt.Errorf("serial %d, without the new authority's signature", k.NetworkSerial)
		}
		return nil
	}
	within(t, 30*time.Second, "a consensus that the new authority has signed", func() bool {
		k := f.consensus(c)
		return k != nil && newcomer(k) == nil
	})
	f.flows(t, c)
	// Somebody who has the old file only.
	f.file = old
	d := f.client(t, 30*time.Second)
	if !follow(d) {
		within(t, 20*time.Second, "the new client has the new network file", func() bool { return follow(d) })
	}
	if out := c.output(); strings.Contains(out, "a bad answer") {
		t.Errorf("somebody was blamed:\n%s", out)
	}
}

// TestCaptivePortalIsNamed: where the relays should be, something else answers: an HTTP server, a web server with TLS
// of its own, one with an old TLS. A person is told, and when the way is free the client goes on by itself.
func TestCaptivePortalIsNamed(t *testing.T) {
	notShort(t)
	f := newField(t, plan{authorities: 1, relays: 4})
	login := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://login.example/", http.StatusFound)
	})
	var portals []*httptest.Server
	for i, a := range f.nodes {
		ln, err := net.Listen("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(login)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.Listener.Close()
		s.Listener = ln
		switch i % 3 {
		case 0:
			s.Start()
		case 1:
			s.TLS = &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}
			s.StartTLS()
		case 2:
			s.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
			s.StartTLS()
		}
		t.Cleanup(s.Close)
		portals = append(portals, s)
	}
	c := f.newClient(t)
	f.start(t, c)
	const words = "does this network want you to sign in first"
	took := within(t, 15*time.Second, "the client names the portal", func() bool { return strings.Contains(c.output(), words) })
	t.Logf("named after %v", took.Round(time.Millisecond))
	if s, err := status(c.dir); err != nil || !strings.Contains(s.Doing, words) {
		t.Errorf("the status is %+v, %v", s, err)
	}
	for i, a := range f.nodes[:len(portals)] {
		portals[i].Close()
		f.start(t, a)
	}
	took = within(t, 30*time.Second, "the client is ready", c.ready)
	t.Logf("ready %v after the sign-in", took.Round(time.Millisecond))
}
