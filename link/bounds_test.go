package link

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// resources of the process: goroutines and, where the system tells, open files.
func resources() (goroutines, files int) {
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		files = len(entries)
	}
	return runtime.NumGoroutine(), files
}

// settled waits until there are no more goroutines and files than given.
func settled(t *testing.T, goroutines, files int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		g, f := resources()
		if g <= goroutines && f <= files {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines and %d files, were %d and %d\n%s", g, f, goroutines, files, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// recordedClientHello is what an honest client writes first.
func recordedClientHello(t *testing.T) []byte {
	t.Helper()
	got := make(chan []byte, 1)
	addr := serve(t, func(c net.Conn) {
		b := make([]byte, 5)
		io.ReadFull(c, b)
		rest := make([]byte, int(b[3])<<8|int(b[4]))
		io.ReadFull(c, rest)
		got <- append(b, rest...)
	})
	client := newNode(t, "", nil)
	client.DialLink(env.Target{Identity: cert.Identity{1}, Addresses: []netip.AddrPort{addr}}, func(env.Link, error) {})
	return receive(t, "ClientHello", got)
}

// TestGarbageIsRefusedAtABoundedCost is not parallel: it counts goroutines and open files.
func TestGarbageIsRefusedAtABoundedCost(t *testing.T) {
	failed := make(inboundErrors, 100)
	relay := newNode(t, "r", func(c *Config) {
		c.HandshakeTimeout = 400 * time.Millisecond
		c.Log = slog.New(failed)
	})
	client := newNode(t, "", nil)
	hello := recordedClientHello(t)
	noise := make([]byte, 100_000)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(noise)
	endless := func(c net.Conn, b []byte) {
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name string
		play func(c net.Conn)
		want error
	}{
		{"random bytes", func(c net.Conn) { endless(c, noise) }, ErrNotTLS},
		{"zeros", func(c net.Conn) { endless(c, make([]byte, 4096)) }, ErrNotTLS},
		{"HTTP", func(c net.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n") }, ErrNotTLS},
		{"SOCKS", func(c net.Conn) { c.Write([]byte{5, 1, 0, 5, 1, 0, 3}) }, ErrNotTLS},
		{"SSLv2", func(c net.Conn) { c.Write([]byte{0x80, 0x2e, 1, 0, 2, 0}) }, ErrNotTLS},
		{"TLS cut short, then gone", func(c net.Conn) { c.Write(hello[:len(hello)/2]); c.(*net.TCPConn).CloseWrite() }, ErrTLS},
		{"header only, then gone", func(c net.Conn) { c.Write(hello[:3]); c.(*net.TCPConn).CloseWrite() }, ErrTLS},
		{"TLS cut short, then silence", func(c net.Conn) { c.Write(hello[:len(hello)/2]) }, ErrTimeout},
		{"TLS with noise behind", func(c net.Conn) { c.Write(hello); endless(c, noise) }, ErrTLS},
		{"oversized record", func(c net.Conn) { c.Write([]byte{22, 3, 1, 0xff, 0xff}); endless(c, noise) }, ErrTLS},
		{"handshake message of 16 MiB", func(c net.Conn) { c.Write([]byte{22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}); endless(c, noise) }, ErrTLS},
		{"reset", func(c net.Conn) { c.Write(hello); c.(*net.TCPConn).SetLinger(0); c.Close() }, ErrTLS},
		{"silence", func(net.Conn) {}, ErrTimeout},
		{"a byte now and then", func(c net.Conn) {
			for _, b := range hello {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}, ErrTimeout},
		{"TLS, then silence", func(c net.Conn) {
			tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
		}, ErrTimeout},
		{"TLS, then a byte now and then", func(c net.Conn) {
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			for {
				if _, err := s.Write([]byte{0}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}, ErrTimeout},
		{"HTTP over TLS", func(c net.Conn) {
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			io.WriteString(s, "GET / HTTP/1.1\r\n"+strings.Repeat("X-Filler: 0\r\n", 200)+"\r\n")
		}, ErrHello},
	} {
		t.Run(test.name, func(t *testing.T) {
			goroutines, files := resources()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c, err := net.Dial("tcp", relay.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				c.SetDeadline(time.Now().Add(patience))
				test.play(c)
			}()
			err = receive(t, "the failure", failed)
			if !errors.Is(err, test.want) {
				t.Errorf("got %q, want %q", err, test.want)
			}
			<-ended
			c.Close()
			settled(t, goroutines, files)
			runtime.ReadMemStats(&after)
			if cost := after.TotalAlloc - before.TotalAlloc; cost > 4<<20 {
				t.Errorf("it allocated %d bytes", cost)
			}
			// The relay is unharmed.
			if s := relay.Stats(); s.HalfOpen != 0 || s.Links != 0 {
				t.Errorf("left over: %+v", s)
			}
			atClient, _ := connect(t, client, relay)
			atClient.Close(nil)
			receive(t, "OnDown", relay.downs)
			settled(t, goroutines, files)
		})
	}
}

// TestNoLeaks is not parallel: it counts goroutines and open files.
func TestNoLeaks(t *testing.T) {
	goroutines, files := resources()
	t.Run("life", func(t *testing.T) {
		a, b := newNode(t, "a", nil), newNode(t, "b", nil)
		for i := range 30 {
			atA, atB := connect(t, a, b)
			atA.Send(cells(40, 0))
			if i%2 == 0 {
				atA.Close(nil)
				receive(t, "OnDown", b.downs)
			} else {
				atB.Close(nil)
				receive(t, "OnDown", a.downs)
			}
		}
		for range 5 { // left to Transport.Close
			connect(t, a, b)
		}
		silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
		for range 5 {
			a.DialLink(b.target(silent), func(env.Link, error) {})
		}
	})
	settled(t, goroutines, files)
}

func TestHalfOpenIsBounded(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", func(c *Config) { c.MaxHalfOpen = 4; c.Log = nil })
	var held []net.Conn
	for range 20 {
		held = append(held, rawDial(t, relay.addr))
	}
	for deadline := time.Now().Add(patience); relay.Stats().Accepted < 20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not accepted")
		}
	}
	if s := relay.Stats(); s.HalfOpen != 4 || s.Evicted != 16 {
		t.Errorf("%+v, want 4 half-open and 16 evicted", s)
	}
	if n, err := held[0].Read(make([]byte, 1)); err == nil {
		t.Errorf("the oldest still lives: %d, %v", n, err)
	}
	// Whoever does the handshake gets in although 4 others hold on.
	connect(t, newNode(t, "", nil), relay)
}

func TestHalfOpenOfOnePrefixIsBounded(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", func(c *Config) { c.MaxHalfOpenPrefix = 3; c.FreeLoopback = false; c.Log = nil })
	for range 3 {
		rawDial(t, relay.addr)
	}
	b := make([]byte, 100)
	n, err := io.ReadFull(rawDial(t, relay.addr), b)
	if !bytes.Equal(b[:n], alertInternalError) {
		t.Errorf("the fourth got %x, %v", b[:n], err)
	}
	if s := relay.Stats(); s.HalfOpen != 3 || s.Refused != 1 {
		t.Errorf("%+v", s)
	}
}

func only(address string) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return a == netip.MustParseAddr(address) }
}

// TestHandshakesOfOnePrefixAreBounded: a network that has used its allowance up is refused before TLS, and gets in again
// with time; an exempt address and, within one machine, loopback are never refused.
func TestHandshakesOfOnePrefixAreBounded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*Config)
		free   bool
	}{
		{"counted", func(*Config) {}, false},
		{"another is exempt", func(c *Config) { c.Exempt = only("127.0.0.2") }, false},
		{"exempt", func(c *Config) { c.Exempt = only("127.0.0.1") }, true},
		{"within one machine", func(c *Config) { c.FreeLoopback = true }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var now atomic.Int64
			relay := newNode(t, "r", func(c *Config) {
				c.FreeLoopback, c.Log = false, nil
				c.HandshakeRate, c.HandshakeBurst = 2, 4
				c.mono = func() env.Mono { return env.Mono(now.Load()) }
				test.change(c)
			})
			client := newNode(t, "", nil)
			want := func(links, refused int) {
				t.Helper()
				if test.free {
					links, refused = links+refused, 0
				}
				before := relay.Stats()
				for range links {
					connect(t, client, relay)
				}
				for range refused {
					b := make([]byte, 100)
					n, err := io.ReadFull(rawDial(t, relay.addr), b)
					if !bytes.Equal(b[:n], alertInternalError) {
						t.Errorf("beyond the rate: %x, %v", b[:n], err)
					}
				}
				s := relay.Stats()
				if got := int(s.TooFast - before.TooFast); got != refused || s.TooFast != s.Refused || s.Links-before.Links != links {
					t.Errorf("%+v after %+v, want %d links and %d refused", s, before, links, refused)
				}
			}
			want(4, 3)
			now.Add(int64(time.Second))
			want(2, 1) // what was refused has cost nothing
			now.Add(int64(time.Hour))
			want(4, 1) // and a long pause gives no more than the burst
		})
	}
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	open := &Transport{cfg: Config{FreeLoopback: true}}
	strict := &Transport{}
	for _, test := range []struct {
		t       *Transport
		address string
		want    string
	}{
		{open, "127.3.0.1", "invalid Prefix"}, {open, "::1", "invalid Prefix"},
		{strict, "127.3.0.1", "127.3.0.0/24"}, {open, "192.0.2.77", "192.0.2.0/24"},
		{open, "2001:db8:1:2::3", "2001:db8:1::/48"}, {open, "fe80::1%eth0", "fe80::/48"},
	} {
		if got := test.t.prefixOf(netip.MustParseAddr(test.address)).String(); got != test.want {
			t.Errorf("prefix of %s: %s, want %s", test.address, got, test.want)
		}
	}
}

func TestLinksAreBounded(t *testing.T) {
	t.Parallel()
	full := newNode(t, "full", func(c *Config) { c.MaxLinks = 8; c.Log = nil })
	other := newNode(t, "other", nil)
	for range 7 {
		connect(t, other, full)
	}
	if _, err := other.dial(t, full.target()); err == nil {
		t.Error("the eighth place was given to an accepted link")
	}
	atFull, _ := connect(t, full, other) // it is for this
	if _, err := full.dial(t, other.target()); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "8 links are open") {
		t.Errorf("the ninth link: %v", err)
	}
	full.loop.do(func() { atFull.Close(nil) })
	receive(t, "OnDown", other.downs)
	for deadline := time.Now().Add(patience); full.Stats().Links > 7; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the closed link still counts")
		}
	}
	connect(t, full, other)
}

func TestDialsAreBounded(t *testing.T) {
	t.Parallel()
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	client := newNode(t, "", func(c *Config) { c.MaxDials = 2 })
	relay := newNode(t, "r", nil)
	for range 2 {
		client.DialLink(relay.target(silent), func(env.Link, error) {})
	}
	if _, err := client.dial(t, relay.target()); !errors.Is(err, ErrLimit) {
		t.Errorf("the third dial: %v", err)
	}
}

// failingListener fails to accept as when there are no more file descriptors, a few times.
type failingListener struct {
	net.Listener
	mu    sync.Mutex
	fails int
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestServeSurvivesAcceptErrors(t *testing.T) {
	t.Parallel()
	relay, client := newNode(t, "r", func(c *Config) { c.Log = nil }), newNode(t, "", nil)
	ln := &failingListener{Listener: listen(t), fails: 4}
	served := make(chan error, 1)
	go func() { served <- relay.Serve(ln) }()
	if _, err := client.dial(t, relay.target(ln.Addr().(*net.TCPAddr).AddrPort())); err != nil {
		t.Errorf("after errors of Accept: %v", err)
	}
	relay.Close()
	if err := receive(t, "Serve", served); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
	if err := relay.Serve(listen(t)); err != nil {
		t.Errorf("Serve of a closed Transport: %v", err)
	}
	if err := client.Serve(listen(t)); err == nil {
		t.Error("a client serves")
	}
}

// TestStalledLinkDies: a far end that reads nothing does not hold a link for ever.
func TestStalledLinkDies(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", func(c *Config) { c.stallLimit = 300 * time.Millisecond })
	c := rawClient(t, relay.addr, nil)
	content, _ := clientHello(testNetwork).AppendTo(nil)
	c.Write(helloCell(t, content))
	l := receive(t, "LinkUp", relay.ups)
	for range 1000 {
		l.Send(cells(32, 0)) // 64 MiB are more than sockets take
	}
	if e := receive(t, "OnDown", relay.downs); !errors.Is(e.down, ErrTimeout) {
		t.Errorf("OnDown(%v)", e.down)
	}
}

// TestCloseOfAStalledLink: Close does not wait for a far end that reads nothing.
func TestCloseOfAStalledLink(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", nil)
	c := rawClient(t, relay.addr, nil)
	content, _ := clientHello(testNetwork).AppendTo(nil)
	c.Write(helloCell(t, content))
	l := receive(t, "LinkUp", relay.ups)
	for range 1000 {
		l.Send(cells(32, 0))
	}
	began := time.Now()
	relay.loop.do(func() { relay.Transport.Close() }) // also on the loop
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	if len(relay.downs) != 0 {
		t.Error("OnDown after Close")
	}
}

func TestResetIsHeard(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", nil)
	c := rawClient(t, relay.addr, nil)
	content, _ := clientHello(testNetwork).AppendTo(nil)
	c.Write(helloCell(t, content))
	receive(t, "LinkUp", relay.ups)
	c.NetConn().(*net.TCPConn).SetLinger(0)
	c.NetConn().Close()
	if e := receive(t, "OnDown", relay.downs); !errors.Is(e.down, syscall.ECONNRESET) {
		t.Errorf("OnDown(%v)", e.down)
	}
}

// TestTamperedStream: one flipped bit in what the network carries ends the link, and no cell of it arrives.
func TestTamperedStream(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", nil)
	relay.onCells = func(env.Link, []byte) { t.Error("cells arrived") }
	relay.settle()
	flip := make(chan struct{})
	addr := serve(t, func(c net.Conn) { // a proxy that flips one bit when told
		up := rawDial(t, relay.addr)
		go func() { io.Copy(c, up); c.Close() }()
		b := make([]byte, 65536)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			select {
			case <-flip:
				b[n/2] ^= 4
			default:
			}
			up.Write(b[:n])
		}
	})
	client := newNode(t, "", nil)
	l, err := client.dial(t, relay.target(addr))
	if err != nil {
		t.Fatal(err)
	}
	receive(t, "LinkUp", relay.ups)
	close(flip)
	l.Send(cells(1, 0))
	if e := receive(t, "OnDown", relay.downs); !errors.Is(e.down, ErrTLS) {
		t.Errorf("OnDown(%v)", e.down)
	}
	receive(t, "OnDown at the client", client.downs)
}

func TestLocalAddr(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	local := netip.MustParseAddr("127.7.0.1")
	relay := newNode(t, "r", nil)
	client := newNode(t, "", func(c *Config) { c.LocalAddr = local })
	_, atRelay := connect(t, client, relay)
	if got := atRelay.Peer().Address.Addr(); got != local {
		t.Errorf("dialled from %v, want %v", got, local)
	}
}

func TestKeyLogIsWritten(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	relay := newNode(t, "r", nil)
	client := newNode(t, "", func(c *Config) { c.KeyLog = &log })
	connect(t, client, relay)
	if !strings.Contains(log.String(), "CLIENT_TRAFFIC_SECRET_0 ") {
		t.Errorf("key log: %q", log.String())
	}
}

// TestAfterBatchWakesTheWriters: with the loop's help all that a batch of events sends goes out in full records.
func TestAfterBatchWakesTheWriters(t *testing.T) {
	t.Parallel()
	var wake func()
	a := newNode(t, "a", func(c *Config) { c.AfterBatch = func(f func()) { wake = f } })
	b := newNode(t, "b", nil)
	got := make(chan int, 100)
	b.onCells = func(_ env.Link, c []byte) { got <- len(c) }
	atA, _ := connect(t, a, b)
	const n = 40
	a.loop.do(func() {
		for i := range n {
			atA.Send(cells(1, uint32(i)))
		}
		wake()
	})
	for sum := 0; sum < n*cell.Size; {
		sum += receive(t, "cells", got)
	}
	// One more when the writer was still awake from the HELLO and took the first cells by itself.
	if r := atA.(*link).out.records.Load(); r != n/8 && r != n/8+1 {
		t.Errorf("%d cells went out in %d records, want %d", n, r, n/8)
	}
}

// TestQueueIsBounded: an actor that does not mind Queued loses the link, not the process.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", func(c *Config) { c.maxQueued = 1 << 20 })
	c := rawClient(t, relay.addr, nil)
	content, _ := clientHello(testNetwork).AppendTo(nil)
	c.Write(helloCell(t, content))
	l := receive(t, "LinkUp", relay.ups)
	for range 17 {
		l.Send(cells(32, 0))
		l.Send(cells(2000, 0))
	}
	if e := receive(t, "OnDown", relay.downs); !errors.Is(e.down, ErrLimit) {
		t.Errorf("OnDown(%v)", e.down)
	}
}

// TestFewAllocations is not parallel: it counts those of the process.
func TestFewAllocations(t *testing.T) {
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	got := make(chan int, 1000)
	b.onCells = func(_ env.Link, c []byte) { got <- len(c) }
	atA, _ := connect(t, a, b)
	c := cells(8, 0)
	send := func(rounds int) {
		for range rounds {
			for range 8 {
				atA.Send(c)
			}
			for sum := 0; sum < 8*len(c); {
				sum += receive(t, "cells", got)
			}
		}
	}
	send(50)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 500
	send(rounds)
	runtime.ReadMemStats(&after)
	perCell := float64(after.Mallocs-before.Mallocs) / (rounds * 64)
	// crypto/tls makes one of 24 bytes for each record of up to 8 cells that it reads; this test some for its waiting.
	if perCell > 0.5 {
		t.Errorf("%.2f allocations a cell", perCell)
	}
}
