package socks

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
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
		{5, 0}, {4, 1, 0, 80, 0, 0, 0, 1, 0}, []byte("GET / HTTP/1.1\r\n\r\n"), {5, 1, 2, 2},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var asked []Request
		far := &sink{script{in: bytes.NewReader([]byte("bye"))}}
		s, err := New(Config{Dialer: dialFunc(func(_ context.Context, r Request) (net.Conn, error) {
			asked = append(asked, r)
			return far, nil
		})})
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
		if st.Connected+refused != 1 {
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

// checkAnswers reads what an application was sent: [method [status]] [reply [data]], or one of the other refusals.
func checkAnswers(t *testing.T, out []byte, connected bool) {
	whole := out
	is := func(prefix ...byte) bool {
		ok := bytes.HasPrefix(out, prefix)
		if ok {
			out = out[len(prefix):]
		}
		return ok
	}
	switch {
	case is(5, 0xff) || is(0, 91, 0, 0, 0, 0, 0, 0) || is(httpRefusal("127.0.0.1:9850")...):
	case is(5, 2) && !is(1, 0):
		is(1, 1)
	case bytes.HasPrefix(whole, []byte{5, 2}) || is(5, 0):
		if len(out) == 0 && !connected {
			break
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
