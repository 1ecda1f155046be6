package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cepa/cell"
)

// Each reason has its code, on the wire and byte for byte; none is success.
func TestEachReasonHasItsReplyCode(t *testing.T) {
	t.Parallel()
	want := map[cell.Reason]byte{
		cell.ReasonPolicy:          2,
		cell.ReasonNetUnreachable:  3,
		cell.ReasonNoSuchHost:      4,
		cell.ReasonResolveFailed:   4,
		cell.ReasonHostUnreachable: 4,
		cell.ReasonRefused:         5,
		cell.ReasonReset:           5,
		cell.ReasonTimeout:         6,
	}
	for r := range 256 {
		reason := cell.Reason(r)
		code, ok := want[reason]
		if !ok {
			code = 1
		}
		if got := replyCode(reason); got != code {
			t.Errorf("%v: code %d, want %d", reason, got, code)
		}
	}
	reasons := make(chan cell.Reason, 1)
	_, address := start(t, Config{Dialer: dialFunc(func(context.Context, Request) (net.Conn, error) {
		return nil, &Error{Reason: <-reasons}
	})})
	for _, r := range []cell.Reason{0, cell.ReasonPolicy, cell.ReasonNetUnreachable, cell.ReasonNoSuchHost, cell.ReasonRefused,
		cell.ReasonTimeout, cell.ReasonDestroyed, cell.ReasonResource, cell.ReasonOther, 200} {
		reasons <- r
		c := dial(t, address)
		c.send(greetNone)
		c.expect([]byte{5, 0})
		c.send(connectName("host.example", 80))
		c.expect(reply(replyCode(r)))
		c.expectEOF()
	}
}

// The library would choose by words in the text. The text must not decide.
func TestWordsInErrorsDoNotDecideTheReply(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		code byte
	}{
		{&Error{Reason: cell.ReasonNoSuchHost, Text: "connection refused, network is unreachable"}, 4},
		{&Error{Reason: cell.ReasonPolicy, Text: "refused"}, 2},
		{fmt.Errorf("dialling: %w", &Error{Reason: cell.ReasonRefused}), 5},
		{errors.New("connection refused"), 1},
		{(*Error)(nil), 1},
		{fmt.Errorf("dialling: %w", context.DeadlineExceeded), 6},
		{fmt.Errorf("dialling: %w", syscall.ETIMEDOUT), 6},
		{context.Canceled, 1},
		{io.EOF, 1},
	} {
		_, address := start(t, Config{Dialer: fails(test.err)})
		c := dial(t, address)
		c.send(slices.Concat(greetNone, connectName("host.example", 80)))
		c.expect(append([]byte{5, 0}, reply(test.code)...))
		c.expectEOF()
	}
}

// What is refused gets an exact answer, which arrives whole, and a clean end; the next connection is served.
func TestRefusals(t *testing.T) {
	t.Parallel()
	ok := []byte{5, 0}
	s, address := start(t, Config{Dialer: dialFunc(func(_ context.Context, r Request) (net.Conn, error) {
		t.Errorf("the Dialer was asked for %+v", r)
		return nil, io.EOF
	})})
	request := func(b ...byte) []byte { return slices.Concat(greetNone, b) }
	named := func(host string) []byte { return slices.Concat(greetNone, connectName(host, 80)) }
	general := append(ok, reply(1)...)
	want := map[string]uint64{}
	for _, test := range []struct {
		name        string
		sent, reply []byte
		cause       string
	}{
		{"no method in common", []byte{5, 2, 1, 3}, []byte{5, 0xff}, "no acceptable method"},
		{"no methods", []byte{5, 0}, []byte{5, 0xff}, "no acceptable method"},
		{"all other methods", append([]byte{5, 253}, bytes.Repeat([]byte{9}, 253)...), []byte{5, 0xff}, "no acceptable method"},
		{"wrong version of RFC 1929", []byte{5, 1, 2, 5, 1, 'u', 1, 'p'}, []byte{5, 2, 1, 1}, "malformed"},
		{"wrong version in the request", request(4, 1, 0, 1, 1, 2, 3, 4, 0, 80), general, "malformed"},
		{"BIND", request(5, 2, 0, 1, 1, 2, 3, 4, 0, 80), append(ok, reply(7)...), "command not supported"},
		{"UDP ASSOCIATE", request(5, 3, 0, 1, 0, 0, 0, 0, 0, 0), append(ok, reply(7)...), "command not supported"},
		{"UDP ASSOCIATE by name", append(greetNone, 5, 3, 0, 3, 1, 'a', 0, 1), append(ok, reply(7)...), "command not supported"},
		{"command 0", request(5, 0, 0, 1, 1, 2, 3, 4, 0, 80), append(ok, reply(7)...), "command not supported"},
		{"RESOLVE", request(5, 0xf0, 0, 3, 1, 'a', 0, 1), append(ok, reply(7)...), "command not supported"},
		{"address type 2", request(5, 1, 0, 2, 1, 2, 3, 4, 0, 80), append(ok, reply(8)...), "address type not supported"},
		{"address type 0", request(5, 1, 0, 0, 1, 2, 3, 4, 0, 80), append(ok, reply(8)...), "address type not supported"},
		{"port 0", request(5, 1, 0, 1, 1, 2, 3, 4, 0, 0), general, "bad destination"},
		{"empty name", request(5, 1, 0, 3, 0, 0, 80), general, "bad destination"},
		{"NUL in the name", named("good.example\x00.evil.example"), general, "bad destination"},
		{"space in the name", named("good example"), general, "bad destination"},
		{"name of 255 bytes", named(strings.Repeat("abcdefg.", 31) + "abcdefg"), general, "bad destination"},
		{"port in the name", named("host.example:25"), general, "bad destination"},
		{"zone in the name", named("fe80::1%eth0"), general, "bad destination"},
	} {
		c := dial(t, address)
		c.send(test.sent)
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, test.reply) {
			t.Errorf("%s: read % x, %v; want % x", test.name, got, err, test.reply)
		}
		want[test.cause]++
	}
	st := s.Stats()
	if fmt.Sprint(st.Refused) != fmt.Sprint(want) || st.Connected != 0 {
		t.Errorf("counted %v, want %v", st.Refused, want)
	}
}

// A refusal arrives although more was sent than was read: closing with unread bytes would reset the connection.
func TestRefusalOutlivesUnreadBytes(t *testing.T) {
	t.Parallel()
	_, address := start(t, Config{Dialer: fails(&Error{Reason: cell.ReasonRefused})})
	for range 20 {
		c := dial(t, address)
		c.send(slices.Concat(greetNone, connectName("host.example", 80), make([]byte, 32<<10)))
		c.expect(append([]byte{5, 0}, reply(5)...))
		c.expectEOF()
	}
}

// Bytes that are no protocol, or break off, are closed without an answer and without reaching the Dialer.
func TestGarbageIsClosedWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	s, address := start(t, Config{Dialer: fails(&Error{Reason: cell.ReasonRefused})})
	for _, sent := range []string{
		"\x00", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\xff\xff\xff\xff", "SSH-2.0-OpenSSH_9.6\r\n", "get / HTTP/1.1\r\n\r\n",
		"A B", strings.Repeat("A", 5000), "\x06\x01\x00", "hello",
	} {
		c := dial(t, address)
		c.send([]byte(sent))
		if got, _ := io.ReadAll(c); len(got) != 0 {
			t.Errorf("%q was answered with % x", sent, got)
		}
	}
	whole := slices.Concat([]byte{5, 1, 2}, password("user", "pass"), connectName("host.example", 80))
	for n := range whole {
		c := dial(t, address)
		c.send(whole[:n])
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.HasPrefix([]byte{5, 2, 1, 0}, got) {
			t.Errorf("a request cut off at byte %d was answered with % x, %v", n, got, err)
		}
	}
	eventually(t, "all ended", func() bool { return s.Stats().Open == 0 })
	if got := s.Stats().Refused; got["unknown protocol"] != 9 || got["hung up"] != uint64(len(whole)) || len(got) != 2 {
		t.Errorf("counted %v", got)
	}
}

// A destination has one form, however it is written.
func TestDestinationsHaveOneForm(t *testing.T) {
	t.Parallel()
	o := newOverlay(t)
	_, address := start(t, Config{Dialer: o})
	long := strings.Repeat("abcdefg.", 31) + "abcde"
	for _, test := range []struct {
		sent []byte
		host string
		ip   string
	}{
		{connectName("host.example", 80), "host.example", ""},
		{connectName("Host_1.Example.", 80), "Host_1.Example.", ""},
		{connectName("localhost", 80), "localhost", ""},
		{connectName("xn--bcher-kva.example", 80), "xn--bcher-kva.example", ""},
		{connectName(long, 80), long, ""},
		{connectIP("192.0.2.1", 80), "", "192.0.2.1"},
		{connectIP("2001:db8::1", 80), "", "2001:db8::1"},
		{connectIP("::ffff:192.0.2.1", 80), "", "192.0.2.1"},
		{connectName("192.0.2.1", 80), "", "192.0.2.1"},
		{connectName("192.0.2.1.", 80), "", "192.0.2.1"},
		{connectName("2001:DB8:0::1", 80), "", "2001:db8::1"},
		{connectName("[2001:db8::1]", 80), "", "2001:db8::1"},
		{connectName("::ffff:192.0.2.1", 80), "", "192.0.2.1"},
		{connectName("[::ffff:c000:201]", 80), "", "192.0.2.1"},
		{connectName("2130706433", 80), "", "127.0.0.1"},
		{connectName("0x7f000001", 80), "", "127.0.0.1"},
		{connectName("0X7F.1", 80), "", "127.0.0.1"},
		{connectName("127.1", 80), "", "127.0.0.1"},
		{connectName("1.2.3", 80), "", "1.2.0.3"},
		{connectName("0177.0.0.01.", 80), "", "127.0.0.1"},
		{connectName("0", 80), "", "0.0.0.0"},
		{connectName("4294967295", 80), "", "255.255.255.255"},
	} {
		c := dial(t, address)
		c.send(slices.Concat(greetNone, test.sent))
		c.expect(append([]byte{5, 0}, reply(0)...))
		_, r := o.next()
		want := Request{Host: test.host, Port: 80, Isolation: r.Isolation}
		if test.ip != "" {
			want.IP = netip.MustParseAddr(test.ip)
		}
		if r != want {
			t.Errorf("% x: dialled %+v, want %+v", test.sent, r, want)
		}
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, host := range []string{
		".", "..", ".example", "a..b", "a b", "a\x00b", "a\tb", "\x7f", "höst.example", "a/b", "a@b", "a:80", "[::1", "::1]", "[192.0.2.1]", "[host]",
		"4294967296", "127.16777216", "08", "0x", "1.2.3.4.5", "192.0.2.256", "192.0.2.1..", "host.1", "host.0x", "host.0x1f.",
		"fe80::1%lo", "[fe80::1%25lo]", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 126) + "ab",
	} {
		var r Request
		if err := r.setDestination(host, nil, 80); err == nil {
			t.Errorf("%q was taken for %+v", host, r)
		} else if strings.Contains(err.Error(), host) && len(host) > 2 {
			t.Errorf("the error names the destination: %v", err)
		}
	}
}

// A client that offers both methods gives its credentials: without them isolation is lost.
func TestPasswordIsPreferred(t *testing.T) {
	t.Parallel()
	o := newOverlay(t)
	_, address := start(t, Config{Dialer: o})
	for _, methods := range [][]byte{{2}, {0, 2}, {2, 0}, {0, 1, 2}, {1, 9, 0, 2, 2, 0}} {
		c := dial(t, address)
		c.send(append([]byte{5, byte(len(methods))}, methods...))
		c.expect([]byte{5, 2})
		c.send(password("user", "pass"))
		c.expect([]byte{1, 0})
		c.send(connectName("host.example", 443))
		c.expect(reply(0))
		o.next()
	}
}

// Two connections share a key exactly when all that is to be isolated is the same.
func TestIsolationKey(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255)
	type who struct {
		from       string
		anonymous  bool
		user, pass string
	}
	all := []who{
		{from: "127.0.0.1", anonymous: true}, {from: "127.0.0.2", anonymous: true},
		{from: "127.0.0.1"}, {from: "127.0.0.1", user: "a"}, {from: "127.0.0.1", pass: "a"}, {from: "127.0.0.2", user: "a"},
		{from: "127.0.0.1", user: "ab", pass: "c"}, {from: "127.0.0.1", user: "a", pass: "bc"}, {from: "127.0.0.1", user: "a\x00\x01", pass: "c"},
		{from: "127.0.0.1", user: long, pass: long}, {from: "127.0.0.1", user: long, pass: long[1:]},
	}
	for _, share := range []struct{ credentials, clients bool }{{}, {credentials: true}, {clients: true}, {true, true}} {
		o := newOverlay(t)
		_, address := start(t, Config{Dialer: o, ShareCredentials: share.credentials, ShareClients: share.clients})
		keys := map[string]who{}
		owners := map[who]string{}
		for _, w := range slices.Concat(all, all) { // twice: the same must stay the same
			c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(w.from)}}).Dial("tcp", address)
			if err != nil {
				t.Skipf("this system has no %s: %v", w.from, err)
			}
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(patience))
			app := client{c.(*net.TCPConn), t}
			if w.anonymous {
				app.connect("host.example", 80)
			} else {
				app.send(slices.Concat([]byte{5, 1, 2}, password(w.user, w.pass), connectName("host.example", 80)))
				app.expect(slices.Concat([]byte{5, 2, 1, 0}, reply(0)))
			}
			_, r := o.next()
			if strings.Contains(r.Isolation, long) {
				t.Error("the key holds the password")
			}
			if share.credentials {
				w = who{from: w.from}
			}
			if share.clients {
				w.from = ""
			}
			if other, ok := keys[r.Isolation]; ok && other != w {
				t.Errorf("%+v: %+v and %+v share a key", share, other, w)
			}
			if key, ok := owners[w]; ok && key != r.Isolation {
				t.Errorf("%+v: %+v has two keys", share, w)
			}
			keys[r.Isolation], owners[w] = w, r.Isolation
		}
		if share.clients && share.credentials && (len(keys) != 1 || keys[""] != who{}) {
			t.Errorf("everything is shared, but the keys are %v", keys)
		}
	}
}

// Two servers do not share keys, so their streams do not share circuits.
func TestServersDoNotShareIsolation(t *testing.T) {
	t.Parallel()
	o := newOverlay(t)
	var keys []string
	for range 2 {
		_, address := start(t, Config{Dialer: o})
		dial(t, address).connect("host.example", 80)
		_, r := o.next()
		keys = append(keys, r.Isolation)
	}
	if keys[0] == keys[1] {
		t.Error("two servers gave the same key")
	}
}

// The negotiation does not depend on how the bytes are cut, and what follows it is not lost.
func TestAnyFragmentationAndEarlyData(t *testing.T) {
	t.Parallel()
	early := bytes.Repeat([]byte("early"), 4000) // more than any buffer of the negotiation
	for _, piece := range []int{1, 2, 7, 1 << 20} {
		o := newOverlay(t)
		_, address := start(t, Config{Dialer: o})
		c := dial(t, address)
		c.SetNoDelay(true)
		all := slices.Concat([]byte{5, 2, 0, 2}, password("user", "pass"), connectName("host.example", 80), early)
		go func() {
			for part := range slices.Chunk(all, piece) {
				if _, err := c.Write(part); err != nil {
					return
				}
			}
			c.CloseWrite()
		}()
		c.expect(slices.Concat([]byte{5, 2, 1, 0}, reply(0)))
		far, _ := o.next()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, early) {
			t.Errorf("pieces of %d: %d bytes of %d arrived, %v", piece, len(got), len(early), err)
		}
		far.Write([]byte("answer"))
		far.Close()
		c.expect([]byte("answer"))
		c.expectEOF()
	}
}

// A client that says nothing, or too little too slowly, is closed when its time is up.
func TestSlowNegotiationTimesOut(t *testing.T) {
	t.Parallel()
	s, address := start(t, Config{Dialer: fails(io.EOF), HandshakeTimeout: 300 * time.Millisecond})
	for _, sent := range [][]byte{nil, {5}, {5, 255}, {5, 1, 2, 1, 255}, {5, 1, 0, 5, 1}, {5, 1, 0, 5, 1, 0, 3, 255}, {4}, []byte("GET")} {
		c := dial(t, address)
		if sent != nil {
			c.send(sent)
		}
		io.Copy(io.Discard, c)
	}
	c := dial(t, address)
	c.send([]byte{5, 255})
	began := time.Now()
	for n := 0; ; n++ { // a byte now and then
		if _, err := c.Write([]byte{9}); err != nil {
			break
		}
		if n == 250 {
			t.Fatal("a dripping client was never closed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("a dripping client held on for %v", took)
	}
	eventually(t, "all ended", func() bool { return s.Stats().Open == 0 })
	if got := s.Stats().Refused; got["handshake timeout"] != 9 {
		t.Errorf("counted %v", got)
	}
}
