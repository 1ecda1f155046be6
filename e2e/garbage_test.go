//go:build linux

package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	// refuseLimit is how long a port may listen to garbage: its deadline, and some for a
	// machine with other work.
	refuseLimit = 10*time.Second + 5*time.Second
	// memoryLimit is how much memory a node may take for strangers, in KiB.
	memoryLimit = 128 << 10
)

// memory reads the resident memory of a process and its peak, in KiB.
func memory(t testing.TB, pid int) (now, peak int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) int {
		m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("/proc/%d/status has no %s", pid, name)
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	return field("VmRSS"), field("VmHWM")
}

// nonsense is a way to annoy a port: what to send, and then nothing more.
type nonsense struct {
	name string
	send func(c net.Conn, random *rand.ChaCha8)
}

func bytesOf(b ...byte) func(net.Conn, *rand.ChaCha8) {
	return func(c net.Conn, _ *rand.ChaCha8) { _, _ = c.Write(b) }
}

// some sends a random number of random bytes.
func some(c net.Conn, random *rand.ChaCha8) {
	b := make([]byte, 1+random.Uint64()%5000)
	_, _ = random.Read(b)
	_, _ = c.Write(b)
}

// clientHello is what crypto/tls sends first.
func clientHello() []byte {
	near, far := net.Pipe()
	go func() { _ = tls.Client(near, tlsConfig()).Handshake() }()
	b := make([]byte, 5)
	_, _ = io.ReadFull(far, b)
	body := make([]byte, int(b[3])<<8|int(b[4]))
	_, _ = io.ReadFull(far, body)
	near.Close()
	far.Close()
	return append(b, body...)
}

// tlsConfig is good enough for a relay's port, except that nobody is asked who he is.
func tlsConfig() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
}

func truncatedTLS(c net.Conn, random *rand.ChaCha8) {
	hello := clientHello()
	_, _ = c.Write(hello[:1+random.Uint64()%uint64(len(hello)-1)])
}

func alteredTLS(c net.Conn, random *rand.ChaCha8) {
	hello := clientHello()
	for range 20 {
		hello[random.Uint64()%uint64(len(hello))] ^= byte(1 + random.Uint64()%255)
	}
	_, _ = c.Write(hello)
}

// insideTLS finishes the handshake and then sends what it is given.
func insideTLS(send func(net.Conn, *rand.ChaCha8)) func(net.Conn, *rand.ChaCha8) {
	return func(c net.Conn, random *rand.ChaCha8) {
		inner := tls.Client(c, tlsConfig())
		_ = c.SetDeadline(time.Now().Add(refuseLimit))
		if inner.Handshake() == nil {
			send(inner, random)
		}
	}
}

func oldTLS(c net.Conn, _ *rand.ChaCha8) {
	config := tlsConfig()
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	config.CurvePreferences = nil
	_ = tls.Client(c, config).Handshake()
}

func cells(c net.Conn, random *rand.ChaCha8) {
	b := make([]byte, 4*2048)
	_, _ = random.Read(b)
	_, _ = c.Write(b)
}

var (
	silence = nonsense{"silence", func(net.Conn, *rand.ChaCha8) {}}
	noise   = nonsense{"random bytes", some}
	http1   = nonsense{"plain HTTP", func(c net.Conn, _ *rand.ChaCha8) {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
	}}
	halfTLS = nonsense{"truncated TLS", truncatedTLS}
)

func TestGarbageOnTheRelayPort(t *testing.T) {
	long(t)
	t.Parallel() // it waits most of the time
	o := newOverlay(t)
	victim := o.node(t, "relay-2")
	withstand(t, o, victim, []nonsense{
		silence, noise, http1, halfTLS,
		{"altered TLS", alteredTLS},
		{"TLS 1.2", oldTLS},
		{"a record of absurd length", bytesOf(22, 3, 1, 255, 255)},
		{"SSH", bytesOf([]byte("SSH-2.0-OpenSSH_9.2\r\n")...)},
		{"zeros", bytesOf(make([]byte, 4096)...)},
		{"TLS, then silence", insideTLS(func(net.Conn, *rand.ChaCha8) {})},
		{"TLS, then random bytes", insideTLS(some)},
		{"TLS, then random cells", insideTLS(cells)},
		{"TLS, then zeros", insideTLS(bytesOf(make([]byte, 4096)...))},
		{"TLS, then HTTP", insideTLS(http1.send)},
	})
}

func TestGarbageOnTheSOCKSPort(t *testing.T) {
	long(t)
	t.Parallel() // it waits most of the time
	o := newOverlay(t)
	long := bytes.Repeat([]byte{'a'}, 255)
	greeting := []byte{5, 1, 0}
	withstand(t, o, o.node(t, "client"), []nonsense{
		silence, noise, http1, halfTLS,
		{"TLS", func(c net.Conn, _ *rand.ChaCha8) { _, _ = c.Write(clientHello()) }},
		{"255 methods that do not come", bytesOf(5, 255)},
		{"255 unknown methods", bytesOf(append([]byte{5, 255}, bytes.Repeat([]byte{0x80}, 255)...)...)},
		{"no method", bytesOf(5, 0)},
		{"SOCKS 4", bytesOf(4, 1, 0, 80, 127, 0, 0, 1, 0)},
		{"SOCKS 6", bytesOf(6, 1, 0)},
		{"greeting, then silence", bytesOf(greeting...)},
		{"a name of 255 bytes that do not come", bytesOf(append(greeting, 5, 1, 0, 3, 255, 'a')...)},
		{"a name of 255 bytes", bytesOf(append(append(append(greeting, 5, 1, 0, 3, 255), long...), 0, 80)...)},
		{"an empty name", bytesOf(append(greeting, 5, 1, 0, 3, 0, 0, 80)...)},
		{"a name with NUL", bytesOf(append(greeting, 5, 1, 0, 3, 3, 'a', 0, 'b', 0, 80)...)},
		{"port 0", bytesOf(append(greeting, 5, 1, 0, 1, 127, 0, 0, 1, 0, 0)...)},
		{"an unknown address type", bytesOf(append(greeting, 5, 1, 0, 9, 1, 2, 3)...)},
		{"an unknown command", bytesOf(append(greeting, 5, 77, 0, 1, 127, 0, 0, 1, 0, 80)...)},
		{"UDP", bytesOf(append(greeting, 5, 3, 0, 1, 127, 0, 0, 1, 0, 80)...)},
		{"user and password cut", bytesOf(5, 1, 2, 1, 255, 'u')},
		{"a password of length 0", bytesOf(5, 1, 2, 1, 1, 'u', 0)},
		{"HTTP CONNECT", bytesOf([]byte("CONNECT localhost:80 HTTP/1.1\r\n\r\n")...)},
	})
}

// withstand sends every kind of nonsense to a node's port while the overlay is used, then
// very many silent connections at once, and looks at what it cost.
func withstand(t *testing.T, o *overlay, victim node, kinds []nonsense) {
	const each = 20
	for i := range 5 { // what is made once is made
		if err := hello(t, o.socks, fmt.Sprint("before ", i), 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	before := counters(t, victim.Dir)
	resident, _ := memory(t, victim.Pid)
	stop := o.use(t)

	var wg sync.WaitGroup
	var mu sync.Mutex
	slowest := make(map[string]time.Duration)
	for i, kind := range kinds {
		for j := range each {
			wg.Go(func() {
				start := time.Now()
				if err := annoy(victim.Address, kind, uint64(i*each+j)); err != nil {
					t.Errorf("%s: %v", kind.name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				slowest[kind.name] = max(slowest[kind.name], time.Since(start))
			})
		}
	}
	wg.Wait()
	for _, kind := range kinds {
		t.Logf("%-40s closed within %v", kind.name, slowest[kind.name].Round(time.Millisecond))
	}
	t.Logf("while that went on: %s", stop())
	o.settle(t, victim, before)

	stop = o.use(t)
	flood(t, victim)
	t.Logf("while that went on: %s", stop())
	o.settle(t, victim, before)
	if victim.Role != "client" { // a person who looks at the counters sees it
		after, sum := counters(t, victim.Dir), int64(0)
		for _, name := range []string{"transport_inbound_failed", "transport_refused"} {
			sum += after[name] - before[name]
		}
		if want := int64(len(kinds) * each); sum < want {
			t.Errorf("the node counted %d failed and refused connections, there were more than %d", sum, want)
		}
	}
	now, peak := memory(t, victim.Pid)
	t.Logf("the node's memory was %d MiB, had a peak of %d MiB and is %d MiB", resident>>10, peak>>10, now>>10)
	if peak-resident > memoryLimit {
		t.Errorf("strangers cost %d MiB of memory, the limit is %d", (peak-resident)>>10, memoryLimit>>10)
	}
}

// annoy sends one kind of nonsense and waits for the port to end the connection. A refusal
// in the port's own protocol is welcome.
func annoy(address string, kind nonsense, seed uint64) error {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_ = c.SetDeadline(time.Now().Add(refuseLimit))
	kind.send(c, rand.NewChaCha8(key))
	_ = c.SetDeadline(time.Now().Add(refuseLimit))
	n, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the port still listens after %v", refuseLimit)
	}
	if n > 16<<10 {
		return fmt.Errorf("the port answered with %d bytes", n)
	}
	return nil
}

// flood opens 2,000 connections at once that say nothing, and waits until the port has
// closed them.
func flood(t *testing.T, victim node) {
	const connections = 2000
	start := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for range connections {
		wg.Go(func() {
			err := annoy(victim.Address, silence, 0)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				if refused++; refused == 1 {
					t.Logf("the first connection that was refused: %v", err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d silent connections at once were gone after %v, %d were refused or stayed", connections, time.Since(start).Round(time.Millisecond), refused)
	if refused > connections/10 {
		t.Errorf("%d of %d connections stayed, or were not taken at all", refused, connections)
	}
}

// use makes requests, each in a circuit of its own, until the returned function is called;
// none may fail or be slow.
func (o *overlay) use(t *testing.T) (stop func() string) {
	done, ended := make(chan struct{}), make(chan struct{})
	requests, slowest := 0, time.Duration(0)
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			start := time.Now()
			if err := hello(t, o.socks, fmt.Sprint("during ", start.UnixNano()), 20*time.Second); err != nil {
				t.Errorf("a request during the garbage: %v", err)
			}
			requests++
			slowest = max(slowest, time.Since(start))
		}
	}()
	return func() string {
		close(done)
		<-ended
		if requests == 0 {
			t.Error("no request was made during the garbage")
		}
		return fmt.Sprintf("%d requests, the slowest took %v", requests, slowest.Round(time.Millisecond))
	}
}

// settle waits until a node holds no more than before, and checks that it still serves.
func (o *overlay) settle(t *testing.T, victim node, before map[string]int64) {
	t.Helper()
	var state string
	start := time.Now()
	for {
		state = ""
		now := counters(t, victim.Dir)
		for _, gauge := range []struct {
			name  string
			slack int64
		}{{"goroutines", 10}, {"open_files", 8}, {"transport_half_open", 2}, {"links", 4}, {"socks_open", 1}} {
			if now[gauge.name] > before[gauge.name]+gauge.slack {
				state += fmt.Sprintf("%s was %d and is %d; ", gauge.name, before[gauge.name], now[gauge.name])
			}
		}
		if state == "" {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("30 s after the garbage: %s", state)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := hello(t, o.socks, fmt.Sprint("after ", time.Now().UnixNano()), 10*time.Second); err != nil {
		t.Errorf("a request after the garbage: %v", err)
	}
	if s, err := status(victim.Dir); err != nil || s.Pid != victim.Pid {
		t.Errorf("the node is not what it was: %+v, %v", s, err)
	}
}
