package socks

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cell"
)

// Reordering keeps every method and the order of the others, and password is first if it is there at all.
func FuzzPreferPassword(f *testing.F) {
	for _, methods := range []string{"", "\x00", "\x02", "\x00\x02", "\x02\x00", "\x00\x01\x02\x02"} {
		f.Add([]byte(methods))
	}
	f.Fuzz(func(t *testing.T, methods []byte) {
		got := bytes.Clone(methods)
		preferPassword(got)
		i := bytes.IndexByte(methods, methodPassword)
		want := methods
		if i > 0 {
			want = slices.Concat([]byte{methodPassword}, methods[:i], methods[i+1:])
		}
		if !bytes.Equal(got, want) {
			t.Errorf("% x became % x, want % x", methods, got, want)
		}
	})
}

// A destination that is accepted is a name or an address and not both, is one that a BEGIN message can carry, and comes
// out the same when it is written down and read again.
func FuzzDestination(f *testing.F) {
	for _, host := range []string{"host.example", "192.0.2.1", "[::1]", "::ffff:192.0.2.1", "127.1", "a b", "a\x00", "fe80::1%lo", ""} {
		f.Add(host, []byte{192, 0, 2, 1}, 80)
	}
	f.Fuzz(func(t *testing.T, host string, ip []byte, port int) {
		var r Request
		if err := r.setDestination(host, ip, port); err != nil {
			return
		}
		if (r.Host == "") != r.IP.IsValid() || r.Port == 0 || r.IP.Is4In6() || r.IP.Zone() != "" {
			t.Fatalf("%q, % x, %d became %+v", host, ip, port, r)
		}
		begin := cell.Begin{Address: cell.Address{Host: r.Host, IP: r.IP}, Port: r.Port}
		if _, err := begin.AppendTo(nil); err != nil {
			t.Fatalf("%+v has no encoding: %v", r, err)
		}
		text := r.Host
		if r.IP.IsValid() {
			text = r.IP.String()
		}
		var again Request
		if err := again.setDestination(text, nil, int(r.Port)); err != nil || again != r {
			t.Fatalf("%+v read again is %+v, %v", r, again, err)
		}
	})
}

// script is an application's connection that sends fixed bytes, in small pieces, and then ends.
type script struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p[:min(len(p), 3)]) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) CloseWrite() error                { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9850} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// sink is a stream that keeps what is written to it and answers "bye".
type sink struct {
	script
}

// A whole connection, from the first byte to the last, with any input: it ends, without a panic; what it answers is a
// sequence of whole answers; and what the stream receives is exactly what followed the request.
func FuzzConnection(f *testing.F) {
	begin := slices.Concat([]byte{5, 2, 0, 2}, password("user", "pass"))
	for _, seed := range [][]byte{
		slices.Concat(greetNone, connectName("host.example", 80), []byte("early")),
		slices.Concat(begin, connectIP("192.0.2.1", 80), []byte("early")),
		slices.Concat(begin, connectIP("2001:db8::1", 443)),
		slices.Concat(greetNone, []byte{5, 2, 0, 1, 0, 0, 0, 0, 0, 0}),
		slices.Concat(greetNone, []byte{5, 0xf0, 0, 3, 1, 'a', 0, 0}),
		slices.Concat(greetNone, []byte{5, 0xf1, 0, 1, 8, 8, 8, 8, 0, 0}),
		{5, 0}, {4, 1, 0, 80, 0, 0, 0, 1, 0}, {5, 1, 2, 2},
		[]byte("\x04\x01\x00\x50\x00\x00\x00\x01user\x00host.example\x00early"),
		{4, 0xf0, 0, 0, 0, 0, 0, 1, 0, 'a', 0}, {4, 1, 0, 80, 192, 0, 2, 1, 'u', 0},
		[]byte("GET / HTTP/1.1\r\nHost: 127.0.0.1:9850\r\n\r\n"), []byte("HEAD /proxy.pac HTTP/1.0\nHost: localhost:9850\n\n"),
		[]byte("GET http://host.example/ HTTP/1.1\r\nHost: host.example\r\n\r\n"),
		[]byte("CONNECT host.example:443 HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\n\r\nearly"),
		[]byte("CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var asked []Request
		far := &sink{script{in: bytes.NewReader([]byte("bye"))}}
		s, err := New(Config{
			Dialer: dialFunc(func(_ context.Context, r Request) (net.Conn, error) {
				asked = append(asked, r)
				return far, nil
			}),
			Resolver: resolveFunc(func(_ context.Context, r Request) ([]cell.Address, error) {
				asked = append(asked, r)
				return []cell.Address{{Host: "name.example"}, {IP: netip.MustParseAddr("192.0.2.9")}}, nil
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		app := &script{in: bytes.NewReader(input)}
		s.admit(app)
		s.running.Wait()
		st := s.Stats()
		if st.Panics != 0 || st.Open != 0 || len(asked) > 1 {
			t.Fatalf("%+v, asked for %v", st, asked)
		}
		refused := uint64(0)
		for _, n := range st.Refused {
			refused += n
		}
		if st.Connected+st.Served+refused != 1 {
			t.Fatalf("counted %+v for one connection", st)
		}
		checkAnswers(t, app.out.Bytes(), st.Connected == 1)
		if st.Connected == 1 && !bytes.HasSuffix(input, far.out.Bytes()) {
			t.Fatalf("the stream received % x of % x", far.out.Bytes(), input)
		}
		if len(asked) == 1 && (asked[0].Host == "") == (asked[0].IP == netip.Addr{}) {
			t.Fatalf("asked for %+v", asked[0])
		}
	})
}

// checkAnswers reads what an application was sent: whole answers of one protocol, success exactly when it is connected.
func checkAnswers(t *testing.T, out []byte, connected bool) {
	switch {
	case len(out) == 0:
		return
	case out[0] == 'H':
		checkHTTPAnswer(t, out, connected)
		return
	case out[0] == 0:
		want := []byte{0, 91, 0, 0, 0, 0, 0, 0}
		if connected {
			want = []byte("\x00\x5a\x00\x00\x00\x00\x00\x00bye")
		} else if out[1] == 90 { // of a look-up
			want = append([]byte{0, 90, 0, 0}, out[4:8]...)
		}
		if !bytes.Equal(out, want) {
			t.Fatalf("sent % x", out)
		}
		return
	}
	whole := out
	is := func(prefix ...byte) bool {
		ok := bytes.HasPrefix(out, prefix)
		if ok {
			out = out[len(prefix):]
		}
		return ok
	}
	switch {
	case is(5, 0xff):
	case is(5, 2) && !is(1, 0):
		is(1, 1)
	case bytes.HasPrefix(whole, []byte{5, 2}) || is(5, 0):
		if len(out) == 0 && !connected {
			break
		}
		if len(out) >= 10 && !connected && out[1] == 0 { // of a look-up
			n := map[byte]int{1: 10, 3: 7 + int(out[4]), 4: 22}[out[3]]
			if len(out) != n {
				t.Fatalf("answered % x", whole)
			}
			return
		}
		if len(out) < 10 || !bytes.Equal(out[:10], reply(out[1])) || out[1] > 8 || (out[1] == 0) != connected {
			t.Fatalf("replied % x", whole)
		}
		out = out[10:]
		if connected && !is([]byte("bye")...) {
			t.Fatalf("sent % x", whole)
		}
	}
	if len(out) != 0 {
		t.Fatalf("% x is left of % x", out, whole)
	}
}

// checkHTTPAnswer reads one response, whole by its own length.
func checkHTTPAnswer(t *testing.T, out []byte, connected bool) {
	const success = "HTTP/1.1 200 Connection established\r\n\r\n"
	if connected {
		if string(out) != success+"bye" {
			t.Fatalf("sent %q", out)
		}
		return
	}
	in := bufio.NewReader(bytes.NewReader(out))
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("sent %q: %v", out, err)
	}
	head := string(out[:bytes.Index(out, []byte("\r\n\r\n"))+4])
	if len(head) == len(out) { // of HEAD
		return
	}
	if body, err := io.ReadAll(r.Body); err != nil || len(head)+len(body) != len(out) || !strings.Contains(head, "default-src 'none'") {
		t.Fatalf("sent %q: %v", out, err)
	}
}

// A number is an address exactly when inet_aton of this machine's C library would take it; here: what it is written out
// as is the same address, and nothing that netip takes is read differently.
func FuzzNumber(f *testing.F) {
	for _, host := range []string{"127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3.256", "08", "0x", "1..2", "4294967296", "1.2.3.4.", "00"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		a, ok := parseNumber(host)
		if !ok {
			return
		}
		if again, ok := parseNumber(a.String()); !ok || again != a {
			t.Fatalf("%q is %v, and that is %v", host, a, again)
		}
		if plain, err := netip.ParseAddr(host); err == nil && plain != a {
			t.Fatalf("%q is %v and %v", host, a, plain)
		}
	})
}

// Credentials of an HTTP proxy: what is Basic comes out as it was put in, and any other value is a key of its own.
func FuzzProxyCredentials(f *testing.F) {
	for _, v := range []string{"Basic dXNlcjpwYXNz", "basic dTo=", "Basic !", "Bearer x", "", "Basic"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		c, err := proxyCredentials([]string{value})
		if err != nil {
			return
		}
		if c == nil {
			t.Fatalf("%q is no key", value)
		}
		text := base64.StdEncoding.EncodeToString(slices.Concat(c.user, []byte(":"), c.password))
		again, err := proxyCredentials([]string{"BASIC " + text})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(c.user, []byte(":")) && (!bytes.Equal(again.user, c.user) || !bytes.Equal(again.password, c.password)) {
			t.Fatalf("%q is %q, and again %q", value, c, again)
		}
	})
}

// What a head is read as ends where its empty line does.
func FuzzHead(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"))
	f.Add([]byte("GET / HTTP/1.1\nHost: a\n\nrest"))
	f.Fuzz(func(t *testing.T, input []byte) {
		in := bufio.NewReader(bytes.NewReader(input))
		head, err := readHead(in)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(in)
		if !bytes.Equal(slices.Concat(head, rest), input) || len(head) > maxHead || head[len(head)-1] != '\n' {
			t.Fatalf("%q is %q and %q", input, head, rest)
		}
	})
}
