//go:build linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

const mebibyte = 1 << 20

// content is an endless stream of bytes that is the same for the same seed.
func content(seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// digest is the SHA-256 of the first n bytes of the content of this seed.
func digest(seed uint64, n int64) [32]byte {
	h := sha256.New()
	_, _ = io.CopyN(h, content(seed), n)
	return [32]byte(h.Sum(nil))
}

// prefix checks that what r delivers is a beginning of the content of this seed, until r
// ends. It returns how much that was and why it ended.
func prefix(r io.Reader, seed uint64) (n int64, err error) {
	want := content(seed)
	got, expect := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		k, err := r.Read(got)
		_, _ = io.ReadFull(want, expect[:k])
		if !bytes.Equal(got[:k], expect[:k]) {
			return n, fmt.Errorf("wrong bytes after %d good ones", n)
		}
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
}

// contentServer answers GET /N/SEED with N bytes of content and POST with the SHA-256 of
// what was sent.
func contentServer(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			return
		}
		_, _ = w.Write(h.Sum(nil))
		return
	}
	var n int64
	var seed uint64
	if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &n, &seed); err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, content(seed), n)
}

func transferSize() int64 {
	switch {
	case all:
		return 256 * mebibyte
	case testing.Short():
		return 8 * mebibyte
	}
	return 64 * mebibyte
}

func rate(n int64, d time.Duration) string {
	return fmt.Sprintf("%.1f MiB in %v, %.1f MiB/s", float64(n)/mebibyte, d.Round(time.Millisecond), float64(n)/mebibyte/d.Seconds())
}

func TestDownloadArrivesWhole(t *testing.T) {
	o := shared(t)
	g := listenOrigin(t, o)
	g.serveHTTP(t, http.HandlerFunc(contentServer))
	n, before, start := transferSize(), o.exitCounters(t), time.Now()
	r, err := httpClient(o.socks, "", 5*time.Minute).Get(fmt.Sprintf("http://%s/%d/1", g.addr, n))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	h := sha256.New()
	got, err := io.Copy(h, r.Body)
	if err != nil || got != n {
		t.Fatalf("%d bytes of %d arrived, then: %v", got, n, err)
	}
	t.Log(rate(n, time.Since(start)))
	if want := digest(1, n); !bytes.Equal(h.Sum(nil), want[:]) {
		t.Fatal("the SHA-256 of the download is wrong")
	}
	o.wentThroughExits(t, before, 1, n, 1)
}

func TestUploadArrivesWhole(t *testing.T) {
	o := shared(t)
	g := listenOrigin(t, o)
	g.serveHTTP(t, http.HandlerFunc(contentServer))
	n, before, start := transferSize(), o.exitCounters(t), time.Now()
	request, err := http.NewRequest(http.MethodPost, "http://"+g.addr.String()+"/", io.LimitReader(content(2), n))
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = n
	r, err := httpClient(o.socks, "", 5*time.Minute).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	sum, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(rate(n, time.Since(start)))
	if want := digest(2, n); !bytes.Equal(sum, want[:]) {
		t.Fatalf("the origin got something else: its SHA-256 is %x", sum)
	}
	o.wentThroughExits(t, before, 1, 1, n)
}

func TestParallelStreamsAllArriveWhole(t *testing.T) {
	notShort(t)
	const streams = 200
	size := int64(mebibyte)
	if all {
		size *= 4
	}
	o := shared(t)
	g := listenOrigin(t, o)
	g.serveHTTP(t, http.HandlerFunc(contentServer))
	before, start := o.exitCounters(t), time.Now()
	failures := make(chan error, streams)
	var wg sync.WaitGroup
	for i := range uint64(streams) {
		wg.Go(func() {
			r, err := httpClient(o.socks, "", 5*time.Minute).Get(fmt.Sprintf("http://%s/%d/%d", g.addr, size, i))
			if err != nil {
				failures <- fmt.Errorf("stream %d: %w", i, err)
				return
			}
			defer r.Body.Close()
			if n, err := prefix(r.Body, i); !errors.Is(err, io.EOF) || n != size {
				failures <- fmt.Errorf("stream %d: %d bytes of %d, then: %v", i, n, size, err)
			}
		})
	}
	wg.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	t.Log("200 streams:", rate(streams*size, time.Since(start)))
	o.wentThroughExits(t, before, streams, streams*size, streams)
}

// A side that ends its sending still gets all that the other side sends.
func TestHalfCloseWorksBothWays(t *testing.T) {
	o := shared(t)
	const size = 2 * mebibyte
	t.Run("client first", func(t *testing.T) {
		g := listenOrigin(t, o)
		g.serveConns(func(c *net.TCPConn) { // answers only when it has seen the end
			h := sha256.New()
			if _, err := io.Copy(h, c); err != nil {
				t.Errorf("the origin: %v", err)
			}
			_, _ = c.Write(h.Sum(nil))
			_, _ = io.CopyN(c, content(4), size)
		})
		c, err := dialSOCKS(o.socks, "", g.addr.String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.CopyN(c, content(3), size); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		var sum [32]byte
		if _, err := io.ReadFull(c, sum[:]); err != nil {
			t.Fatalf("no answer after the half-close: %v", err)
		}
		if sum != digest(3, size) {
			t.Error("the origin got something else than was sent before the half-close")
		}
		if n, err := prefix(c, 4); n != size || !errors.Is(err, io.EOF) {
			t.Errorf("the answer: %d bytes of %d, then: %v", n, size, err)
		}
	})
	t.Run("origin first", func(t *testing.T) {
		g := listenOrigin(t, o)
		type outcome struct {
			n   int64
			err error
		}
		received := make(chan outcome, 1)
		g.serveConns(func(c *net.TCPConn) {
			_, _ = io.CopyN(c, content(5), size)
			_ = c.CloseWrite()
			n, err := prefix(c, 6)
			received <- outcome{n, err}
		})
		c, err := dialSOCKS(o.socks, "", g.addr.String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if n, err := prefix(c, 5); n != size || !errors.Is(err, io.EOF) {
			t.Fatalf("from the origin: %d bytes of %d, then: %v", n, size, err)
		}
		if _, err := io.CopyN(c, content(6), size); err != nil {
			t.Fatalf("sending after the origin's half-close: %v", err)
		}
		_ = c.CloseWrite()
		if got := <-received; got.n != size || !errors.Is(got.err, io.EOF) {
			t.Errorf("the origin got %d bytes of %d, then: %v", got.n, size, got.err)
		}
	})
}

// Each user has circuits of his own, and however many there are, the next one gets through.
func TestManyUsersAllGetThrough(t *testing.T) {
	notShort(t)
	users := 400
	if all {
		users = 1500
	}
	o := newOverlay(t)
	start, slowest := time.Now(), time.Duration(0)
	for i := range users {
		begun := time.Now()
		if err := hello(t, o.socks, fmt.Sprint("user ", i), 10*time.Second); err != nil {
			m := counters(t, o.node(t, "client").Dir)
			t.Fatalf("user %d, who asked %v after the first: %v (the client has %d circuits, %d were built and %d failed)",
				i, time.Since(start), err, m["circuit_circuits"], m["circuit_built"], m["circuit_failed"])
		}
		slowest = max(slowest, time.Since(begun))
	}
	t.Logf("%d users in %v, the slowest waited %v", users, time.Since(start).Round(time.Millisecond), slowest.Round(time.Millisecond))
	for _, n := range o.nodes {
		m := counters(t, n.Dir)
		t.Logf("%s has %d circuits, %d links, %d KiB heap", n.Name, m["circuit_circuits"]+m["relay_circuits"], m["links"], m["heap_bytes"]>>10)
	}
}

// A network that nobody uses does what is due and no more: nothing piles up, nothing is tried
// again and again.
func TestIdleNetworkIsQuiet(t *testing.T) {
	long(t)
	t.Parallel() // it waits most of the time
	const settling, watched = 30 * time.Second, 90 * time.Second
	o := newOverlay(t)
	time.Sleep(settling)
	before := make(map[string]map[string]int64)
	for _, n := range o.nodes {
		before[n.Name] = counters(t, n.Dir)
	}
	time.Sleep(watched)
	for _, n := range o.nodes {
		was, now := before[n.Name], counters(t, n.Dir)
		for name, most := range map[string]int64{
			"links": 3, "goroutines": 8, "open_files": 4, "relay_circuits": 8, "circuit_circuits": 2, "streams": 2, "tombstones": 4,
			"transport_dialled": 30, "transport_dial_failed": 5, "transport_inbound_failed": 5, "transport_refused": 5,
			"queued_bytes": 16 << 10, "budget_used_bytes": 64 << 10, "heap_bytes": 8 << 20, "cells_out": 3000,
		} {
			if now[name] > was[name]+most {
				t.Errorf("%s: %s was %d and is %d after %v of idleness", n.Name, name, was[name], now[name], watched)
			}
		}
		if n.Role != "client" && now["consensus_relays"] != 7 {
			t.Errorf("%s: the consensus lists %d relays, want 7", n.Name, now["consensus_relays"])
		}
		t.Logf("%s: %d links dialled, %d cells sent in %v", n.Name, now["transport_dialled"]-was["transport_dialled"], now["cells_out"]-was["cells_out"], watched)
	}
	if err := hello(t, o.socks, "", 10*time.Second); err != nil {
		t.Error(err)
	}
}

// leftovers are the gauges that must fall back when the work is done, with the tolerance for
// what a node does besides: a directory exchange, a spare circuit being built.
var leftovers = map[string]int64{
	"goroutines": 4, "open_files": 3, "links": 2,
	"streams": 2, "relay_exit_streams": 0, "conns": 0, "socks_open": 0, "circuit_streams": 0, "circuit_waiting": 0,
	"relay_circuits": 6, "circuit_circuits": 2, "legs": 10, "tombstones": 4,
	"queued_bytes": 16 << 10, "budget_used_bytes": 64 << 10, "lookups": 0, "dials": 1,
}

func TestSequentialRequestsLeaveNothingBehind(t *testing.T) {
	notShort(t)
	o := newOverlay(t)
	g := listenOrigin(t, o)
	g.serveHTTP(t, http.HandlerFunc(contentServer))
	requests := 250
	if all {
		requests = 1000
	}
	one := func(i int) {
		body, err := get(httpClient(o.socks, "", 30*time.Second), fmt.Sprintf("http://%s/1000/%d", g.addr, i))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if sha256.Sum256(body) != digest(uint64(i), 1000) {
			t.Fatalf("request %d: wrong bytes", i)
		}
	}
	for i := range 50 { // everything that is made once is made
		one(i)
	}
	before := make(map[string]map[string]int64)
	look := func(n node) map[string]int64 {
		m := counters(t, n.Dir)
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.Pid)) // and not only by its own account
		if err != nil {
			t.Fatal(err)
		}
		m["open_files"] = max(m["open_files"], int64(len(files)))
		return m
	}
	settled := func() (late string) {
		for _, n := range o.nodes {
			now := look(n)
			for name, tolerance := range leftovers {
				if was, ok := before[n.Name][name]; ok && now[name] > was+tolerance {
					late += fmt.Sprintf("%s: %s was %d and is %d; ", n.Name, name, was, now[name])
				}
			}
		}
		return late
	}
	// What is there when all is quiet: gauges that must be 0 then are expected to be.
	within(t, 20*time.Second, "the streams of the first requests are closed", func() bool {
		for _, n := range o.nodes {
			m := look(n)
			before[n.Name] = m
			if m["relay_exit_streams"]+m["conns"]+m["socks_open"]+m["circuit_streams"] > 0 {
				return false
			}
		}
		return true
	})
	exits, start := o.exitCounters(t), time.Now()
	for i := range requests {
		one(i)
	}
	t.Logf("%d requests in %v, %v each", requests, time.Since(start).Round(time.Millisecond), (time.Since(start) / time.Duration(requests)).Round(10*time.Microsecond))
	o.wentThroughExits(t, exits, int64(requests), int64(requests)*1000, int64(requests))
	var late string
	start = time.Now()
	for late = settled(); late != "" && time.Since(start) < 30*time.Second; late = settled() {
		time.Sleep(100 * time.Millisecond)
	}
	if late != "" {
		t.Fatalf("left behind after 30 s: %s", late)
	}
	t.Logf("all gauges of all %d nodes are back after %v", len(o.nodes), time.Since(start).Round(time.Millisecond))
}
