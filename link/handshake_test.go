package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
)

// inboundErrors is a log handler that keeps why accepted connections failed.
type inboundErrors chan error

func (c inboundErrors) Enabled(context.Context, slog.Level) bool { return true }
func (c inboundErrors) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c inboundErrors) WithGroup(string) slog.Handler            { return c }
func (c inboundErrors) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "inbound link failed" {
		r.Attrs(func(a slog.Attr) bool {
			if err, ok := a.Value.Any().(error); ok {
				c <- err
			}
			return true
		})
	}
	return nil
}

// hostile describes a far end that shows a TLS certificate and says HELLO, both made up.
type hostile struct {
	name string
	// leaf is the key of the TLS certificate (nil: it shows none, possible for a dialler only).
	leaf  func(honest *Credentials) *cert.LinkKey
	hello func(h *Hello)
	first func(b []byte) []byte // changes the cells that it sends
	want  error
	says  string
}

func ownKey(c *Credentials) *cert.LinkKey { return &c.Key }
func noKey(*Credentials) *cert.LinkKey    { return nil }
func otherKey(*Credentials) *cert.LinkKey { k := cert.NewLinkKey(seedOf("in the middle")); return &k }
func asClient(h *Hello)                   { *h = *clientHello(h.Network) }
func sameCells(b []byte) []byte           { return b }

func hostiles(t *testing.T, other *Credentials) []hostile {
	now := time.Now()
	stale := newKeys(t, testNetwork, "x", now.Add(-5*24*time.Hour))
	foreign := newKeys(t, cert.NetworkID{1}, "x", now)
	return []hostile{
		{name: "certificates of another TLS session, replayed", leaf: otherKey, want: ErrCertificate, says: "another key"},
		{name: "TLS certificate without a chain", leaf: ownKey, hello: asClient, want: ErrCertificate, says: "its HELLO has none"},
		{name: "another network", leaf: ownKey, hello: func(h *Hello) { h.Network[3]++ }, want: ErrNetwork, says: "id "},
		{name: "no common version", leaf: ownKey, hello: func(h *Hello) { h.Versions = []uint16{2, 9} }, want: ErrVersion, says: "too old"},
		{name: "no time", leaf: ownKey, hello: func(h *Hello) { h.Time = time.Time{} }, want: ErrHello},
		{name: "no onion key statement", leaf: ownKey, hello: func(h *Hello) { h.OnionKey = nil }, want: ErrHello},
		{name: "onion key statement of another relay", leaf: ownKey, hello: func(h *Hello) { h.OnionKey = other.OnionKey() },
			want: ErrCertificate, says: "another relay"},
		{name: "onion key statement with a flipped bit", leaf: ownKey, hello: func(h *Hello) {
			h.OnionKey = append([]byte(nil), h.OnionKey...)
			h.OnionKey[len(h.OnionKey)-40] ^= 1
		}, want: ErrCertificate},
		{name: "onion key statement that has ended", leaf: ownKey, hello: func(h *Hello) {
			h.OnionKey = newKeys(t, testNetwork, "x", now).statement(t, testNetwork, now.Add(-time.Hour))
		}, want: ErrCertificate, says: "clocks of both ends agree"},
		{name: "certificates of another network", leaf: func(*Credentials) *cert.LinkKey {
			return &foreign.credentials(t, cert.NetworkID{1}, now).Key
		}, hello: func(h *Hello) { h.Chain = &foreign.credentials(t, cert.NetworkID{1}, now).Chain },
			want: ErrCertificate, says: "signature"},
		{name: "expired, with a clock that is late", leaf: ownKey, hello: func(h *Hello) {
			h.Chain = &stale.credentials(t, testNetwork, now.Add(-5*24*time.Hour)).Chain
			h.Time = now.Add(-5 * 24 * time.Hour)
		}, want: cert.ErrExpired, says: "clock is 5 days behind ours"},
		{name: "not yet valid, with a clock that is early", leaf: ownKey, hello: func(h *Hello) {
			h.Chain = &newKeys(t, testNetwork, "x", now.Add(27*time.Hour)).credentials(t, testNetwork, now.Add(27*time.Hour)).Chain
			h.Time = now.Add(27 * time.Hour)
		}, want: cert.ErrNotYetValid, says: "clock is 26 hours ahead of ours"},
		{name: "expired, with a right clock", leaf: ownKey, hello: func(h *Hello) {
			h.Chain = &stale.credentials(t, testNetwork, now.Add(-5*24*time.Hour)).Chain
		}, want: ErrCertificate, says: "its operator has to renew it"},
		{name: "first cell is no HELLO", leaf: ownKey, first: func([]byte) []byte { return cells(1, 0) }, want: ErrHello, says: "RELAY"},
		{name: "unknown command first", leaf: ownKey, first: func(b []byte) []byte { b[4] = 77; return b }, want: ErrHello},
		{name: "HELLO with a tail", leaf: ownKey, first: func(b []byte) []byte { b[cell.Size-1] = 1; return b }, want: ErrHello},
		{name: "a part of a cell", leaf: ownKey, first: func(b []byte) []byte { return b[:cell.Size-1] }, want: ErrHello, says: "closed"},
		{name: "nothing", leaf: ownKey, first: func([]byte) []byte { return nil }, want: ErrHello, says: "closed"},
	}
}

// play says first over c, as h does, and waits for the end.
func (h *hostile) play(t *testing.T, c *tls.Conn, honest *Credentials) {
	if c.Handshake() != nil {
		return
	}
	hello := relayHello(testNetwork, honest, time.Now(), netip.MustParseAddr("127.0.0.1"))
	if h.hello != nil {
		h.hello(hello)
	}
	content, err := hello.AppendTo(nil)
	if err != nil {
		t.Error(err)
		return
	}
	first := h.first
	if first == nil {
		first = sameCells
	}
	if b := first(helloCell(t, content)); len(b) > 0 {
		c.Write(b)
	}
	c.CloseWrite()
	io.Copy(io.Discard, c)
	c.Close()
}

func (h *hostile) tlsConfig(t *testing.T, honest *Credentials) *tls.Config {
	cfg := &tls.Config{InsecureSkipVerify: true, ClientAuth: tls.RequestClientCert}
	if key := h.leaf(honest); key != nil {
		leaf, err := tlsCertificate(key.Private())
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{*leaf}
	}
	return cfg
}

func (h *hostile) check(t *testing.T, err error) {
	t.Helper()
	var typed *Error
	if !errors.Is(err, h.want) || !errors.As(err, &typed) || !strings.Contains(err.Error(), h.says) {
		t.Errorf("got %q, want %q saying %q", err, h.want, h.says)
	}
	var clock *env.ClockError
	if differ := strings.Contains(h.says, "behind ours") || strings.Contains(h.says, "ahead of ours"); errors.As(err, &clock) != differ || errors.Is(err, env.ErrClock) != differ {
		t.Errorf("%q: the clocks differ: %v, want %v", err, !differ, differ)
	}
}

func TestHostileRelayIsNotBelieved(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, testNetwork, "x", time.Now())
	honest := keys.credentials(t, testNetwork, time.Now())
	other := newKeys(t, testNetwork, "y", time.Now()).credentials(t, testNetwork, time.Now())
	for _, h := range hostiles(t, other) {
		t.Run("dialled/"+h.name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, func(conn net.Conn) { h.play(t, tls.Server(conn, h.tlsConfig(t, honest)), honest) })
			client := newNode(t, "", nil)
			l, err := client.dial(t, env.Target{Identity: keys.identity.Identity(), Addresses: []netip.AddrPort{addr}})
			if l != nil {
				t.Error("a link came up")
			}
			h.check(t, err)
		})
	}
	clients := append(hostiles(t, other),
		hostile{name: "chain without a TLS certificate", leaf: noKey, want: ErrCertificate, says: "none to TLS"},
		hostile{name: "client that says the time", leaf: noKey, hello: func(h *Hello) { h.Chain, h.OnionKey = nil, nil }, want: ErrHello, says: "relay's fields"},
		hostile{name: "client of another network", leaf: noKey, hello: func(h *Hello) { asClient(h); h.Network[0]++ }, want: ErrNetwork},
	)
	for _, h := range clients {
		t.Run("accepted/"+h.name, func(t *testing.T) {
			t.Parallel()
			failed := make(inboundErrors, 10)
			relay := newNode(t, "r", func(c *Config) { c.Log = slog.New(failed) })
			h.play(t, tls.Client(rawDial(t, relay.addr), h.tlsConfig(t, honest)), honest)
			h.check(t, receive(t, "the failure", failed))
			if len(relay.ups) != 0 {
				t.Error("a link came up")
			}
			connect(t, newNode(t, "", nil), relay) // unharmed
		})
	}
}

// serve answers each connection with f, which owns it.
func serve(t testing.TB, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln := listen(t)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			go func() { defer c.Close(); f(c) }()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// TestReplayedHello: a whole HELLO recorded from an honest relay is worth nothing in another session.
func TestReplayedHello(t *testing.T) {
	t.Parallel()
	victim := newNode(t, "v", nil)
	c := rawClient(t, victim.addr, nil)
	recorded := make([]byte, cell.Size)
	content, _ := clientHello(testNetwork).AppendTo(nil)
	c.Write(helloCell(t, content))
	if _, err := io.ReadFull(c, recorded); err != nil {
		t.Fatal(err)
	}
	own := otherKey(nil)
	leaf, err := tlsCertificate(own.Private())
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, func(conn net.Conn) {
		s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*leaf}})
		s.Write(recorded)
		io.Copy(io.Discard, s)
	})
	_, err = newNode(t, "", nil).dial(t, victim.target(addr))
	if !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), "in between") {
		t.Errorf("dialling whoever replays HELLO: %v", err)
	}
}

func TestWrongAndOwnIdentity(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	target := a.target(b.addr)
	_, err := newNode(t, "", nil).dial(t, target)
	var wrong *IdentityError
	if !errors.As(err, &wrong) || !errors.Is(err, ErrIdentity) || wrong.Want != target.Identity || wrong.Got != b.keys.identity.Identity() {
		t.Errorf("another relay at the address: %v", err)
	}
	if _, err := a.dial(t, a.target()); !errors.Is(err, ErrSelf) {
		t.Errorf("dialling oneself by name: %v", err)
	}
	if _, err := b.dial(t, a.target(b.addr)); !errors.Is(err, ErrSelf) {
		t.Errorf("dialling oneself by address: %v", err)
	}
}

func TestDialErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", nil)
	closed := listen(t)
	refusing := closed.Addr().(*net.TCPAddr).AddrPort()
	closed.Close()
	edKey := otherKey(nil)
	ed25519Leaf, err := tlsCertificate(edKey.Private())
	if err != nil {
		t.Fatal(err)
	}
	// A captive portal: its TLS is as ours, and HELLO is no request to it.
	portal := httptest.NewUnstartedServer(http.NotFoundHandler())
	portal.Config.ErrorLog = log.New(io.Discard, "", 0)
	portal.StartTLS()
	t.Cleanup(portal.Close)
	rsa12 := func(change func(*tls.Config)) func(net.Conn) {
		key := otherKey(nil)
		leaf, err := tlsCertificate(key.Private())
		if err != nil {
			t.Fatal(err)
		}
		cfg := &tls.Config{Certificates: []tls.Certificate{*leaf}, MaxVersion: tls.VersionTLS13}
		change(cfg)
		return func(c net.Conn) { tls.Server(c, cfg).Handshake() }
	}
	for _, test := range []struct {
		name string
		at   netip.AddrPort
		want error
		says string
	}{
		{"nothing listens", refusing, syscall.ECONNREFUSED, "nothing listens there"},
		{"HTTP", serve(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); io.Copy(io.Discard, c) }), ErrNotTLS, "an HTTP answer"},
		{"SSH", serve(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n"); io.Copy(io.Discard, c) }), ErrNotTLS, "SSH"},
		{"noise", serve(t, func(c net.Conn) { c.Write(cells(2, 0)); io.Copy(io.Discard, c) }), ErrNotTLS, ""},
		{"hangs up", serve(t, func(c net.Conn) { io.ReadFull(c, make([]byte, 100)) }), ErrTLS, ""},
		{"silence", serve(t, func(c net.Conn) { io.Copy(io.Discard, c) }), ErrTimeout, ""},
		{"TLS 1.2", serve(t, rsa12(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })), ErrTLS, "TLS 1.3"},
		{"another group", serve(t, rsa12(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} })), ErrTLS, "X25519MLKEM768"},
		{"HTTPS", netip.MustParseAddrPort(portal.Listener.Addr().String()), ErrTLS, "no relay"},
		{"HTTP in TLS", serve(t, func(c net.Conn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*ed25519Leaf}})
			io.WriteString(s, "HTTP/1.1 400 Bad Request\r\n\r\n")
			s.Close()
		}), ErrHello, "an HTTP answer"},
		{"full", serve(t, func(c net.Conn) { c.Write(alertInternalError); c.(*net.TCPConn).CloseWrite(); io.Copy(io.Discard, c) }), ErrTLS, "as many links as it takes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newNode(t, "", func(c *Config) { c.HandshakeTimeout, c.Stagger = 3*time.Second, 300*time.Millisecond })
			l, err := client.dial(t, relay.target(test.at))
			if foreign := slices.Contains([]string{"HTTP", "SSH", "noise", "TLS 1.2", "another group", "HTTPS", "HTTP in TLS"}, test.name); errors.Is(err, env.ErrNotRelay) != foreign {
				t.Errorf("%q: is it no relay that answers: %v, want %v", err, !foreign, foreign)
			}
			if l != nil || !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), test.at.String()) {
				t.Errorf("got %q, want %q saying %q", err, test.want, test.says)
			}
			// The second address is right.
			if _, err := client.dial(t, relay.target(test.at, relay.addr)); err != nil {
				t.Errorf("with a good address behind it: %v", err)
			}
		})
	}
	client := newNode(t, "", nil)
	if _, err := client.dial(t, env.Target{Identity: relay.keys.identity.Identity()}); err == nil {
		t.Error("a link to no address")
	}
	if _, err := client.dial(t, env.Target{Addresses: []netip.AddrPort{relay.addr}}); err == nil {
		t.Error("a link to no identity")
	}
}

// TestNoWayIsToldFromNoAnswer: a machine without a network is offline, one on which only some addresses of a relay
// cannot be reached is not.
func TestNoWayIsToldFromNoAnswer(t *testing.T) {
	t.Parallel()
	noWay := explainDial(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)})
	silent := explainDial(os.ErrDeadlineExceeded)
	for _, c := range []struct {
		failed  []error
		offline bool
	}{{[]error{noWay}, true}, {[]error{noWay, noWay}, true}, {[]error{noWay, silent}, false}, {[]error{silent}, false}} {
		if err := errors.Join(tellingOf(c.failed)...); errors.Is(err, env.ErrOffline) != c.offline {
			t.Errorf("%q: offline %v", err, !c.offline)
		}
	}
}

// TestTLSIsStrict: what crypto/tls would do and a link must not.
func TestTLSIsStrict(t *testing.T) {
	t.Parallel()
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	ecDER, err := x509.CreateCertificate(rand.Reader, template, template, ecKey.Public(), ecKey)
	if err != nil {
		t.Fatal(err)
	}
	edKey := otherKey(nil)
	ed, err := tlsCertificate(edKey.Private())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*tls.Config)
		says   string
	}{
		{"TLS 1.2", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, "no TLS 1.3"},
		{"classical group", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} }, "no X25519MLKEM768"},
		{"another hybrid group", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.SecP256r1MLKEM768} }, "no X25519MLKEM768"},
		{"ECDSA certificate", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: [][]byte{ecDER}, PrivateKey: ecKey}}
		}, "instead of Ed25519"},
		{"two certificates", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: [][]byte{ed.Certificate[0], ecDER}, PrivateKey: edKey.Private()}}
		}, "instead of one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			failed := make(inboundErrors, 10)
			relay := newNode(t, "r", func(c *Config) { c.Log = slog.New(failed) })
			c := rawClient(t, relay.addr, test.change)
			if c.Handshake() == nil {
				io.Copy(io.Discard, c)
			}
			if err := receive(t, "the failure", failed); !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %q, want it to say %q", err, test.says)
			}
		})
	}
}

// TestWhatClientsShow: no ALPN, no SNI, no ticket, one group, one version, and no ticket from the relay.
func TestWhatClientsShow(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", nil)
	saw := make(chan *tls.ClientHelloInfo, 1)
	hellos := make(chan []byte, 2)
	leaf, err := tlsCertificate(relay.cfg.Credentials.Key.Private())
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, func(conn net.Conn) {
		c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*leaf}, ClientAuth: tls.RequestClientCert,
			GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) { saw <- i; return nil, nil }})
		b := make([]byte, cell.Size)
		io.ReadFull(c, b)
		if len(c.ConnectionState().PeerCertificates) != 0 {
			t.Error("a client showed a certificate")
		}
		hellos <- b
	})
	for range 2 {
		client := newNode(t, "", nil)
		client.dial(t, relay.target(addr))
		i := receive(t, "ClientHello", saw)
		if i.ServerName != "" || len(i.SupportedProtos) != 0 || len(i.SupportedVersions) != 1 || i.SupportedVersions[0] != tls.VersionTLS13 ||
			len(i.SupportedCurves) != 1 || i.SupportedCurves[0] != tls.X25519MLKEM768 {
			t.Errorf("ClientHello: name %q, protocols %q, versions %x, groups %v", i.ServerName, i.SupportedProtos, i.SupportedVersions, i.SupportedCurves)
		}
		for _, extension := range i.Extensions {
			if extension == 35 || extension == 41 || extension == 42 {
				t.Errorf("ClientHello has extension %d", extension)
			}
		}
	}
	if a, b := receive(t, "HELLO", hellos), receive(t, "HELLO", hellos); string(a) != string(b) {
		t.Error("the HELLOs of two clients differ")
	}
}

// TestLeafSaysNothing: but for key and signature all TLS certificates are the same.
func TestLeafSaysNothing(t *testing.T) {
	t.Parallel()
	var plain [2]string
	for i, name := range []string{"one", "two"} {
		key := cert.NewLinkKey(seedOf(name))
		leaf, err := tlsCertificate(key.Private())
		if err != nil {
			t.Fatal(err)
		}
		der := string(leaf.Certificate[0])
		if strings.Count(der, string(key.Public())) != 1 {
			t.Fatal("the key is not in the certificate once")
		}
		plain[i] = strings.Replace(der, string(key.Public()), "", 1)
		plain[i] = plain[i][:len(plain[i])-64]
	}
	if plain[0] != plain[1] {
		t.Errorf("certificates differ in more than key and signature:\n%x\n%x", plain[0], plain[1])
	}
}
