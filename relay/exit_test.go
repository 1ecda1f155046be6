package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/env"
	"cepa/env/envtest"
)

const anyIP = cell.AllowIPv4 | cell.AllowIPv6

// exitWorld is a guard and an exit.
func exitWorld(t *testing.T, change func(*station)) (w *world, exit *station, h *hand) {
	w = newWorld(t, 1)
	guard := w.add("guard", nil)
	exit = w.add("exit", change)
	return w, exit, w.client("client").build(guard, exit)
}

func TestExitCarriesBytesBothWays(t *testing.T) {
	t.Parallel()
	w, exit, h := exitWorld(t, nil)
	x := w.listen("203.0.113.7:80")
	id, c, _ := h.begin("203.0.113.7", 80, cell.AllowIPv4)
	if c == nil || c.IP != addr("203.0.113.7") {
		t.Fatalf("CONNECTED to %v", c)
	}
	h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: []byte("ping")})
	h.until("ping", func() bool { return string(x.received()) == "ping" })
	w.f.Do(func() { x.conn.Write([]byte("pong")) })
	h.until("pong", func() bool { d, _ := h.data(id); return string(d) == "pong" })
	s := exit.relay.Stats()
	if s.ExitStreams != 1 || s.ExitConnects != 1 || s.ExitBytesIn != 4 || s.ExitBytesOut != 4 {
		t.Errorf("%+v", s)
	}
	h.destroy()
	w.quiet()
}

// TestHalfClose: after the client's EOF the answer still comes, and the other way round.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	t.Run("the client first", func(t *testing.T) {
		t.Parallel()
		w, exit, h := exitWorld(t, nil)
		x := w.listen("203.0.113.7:80")
		id, _, _ := h.begin("203.0.113.7", 80, cell.AllowIPv4)
		h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: []byte("question")}, end(id, cell.ReasonEOF))
		h.until("EOF at the server", func() bool { return x.probes[0].State().EOFs == 1 })
		w.f.Do(func() { x.conn.Write(pattern(100_000)); x.conn.CloseWrite() })
		h.until("the answer", func() bool { _, eof := h.data(id); return eof })
		if d, _ := h.data(id); !bytes.Equal(d, pattern(100_000)) || string(x.received()) != "question" {
			t.Errorf("%d bytes came back", len(d))
		}
		h.relay(end(id, cell.ReasonEOF)) // both EOFs have passed: the last message
		w.f.Run(time.Second)
		if s := exit.relay.Stats(); s.ExitStreams != 0 || exit.stats.Streams != 0 {
			t.Errorf("the stream is still there: %+v", s)
		}
		h.destroy()
		w.quiet()
	})
	t.Run("the server first", func(t *testing.T) {
		t.Parallel()
		w, _, h := exitWorld(t, nil)
		x := w.listen("203.0.113.7:80")
		id, _, _ := h.begin("203.0.113.7", 80, cell.AllowIPv4)
		w.f.Do(func() { x.conn.Write([]byte("hello")); x.conn.CloseWrite() })
		h.until("EOF", func() bool { _, eof := h.data(id); return eof })
		h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: []byte("later")}, end(id, cell.ReasonEOF))
		h.until("the client's bytes", func() bool { return string(x.received()) == "later" && x.probes[0].State().EOFs == 1 })
		h.destroy()
		w.quiet()
	})
}

func TestResetIsToldBothWays(t *testing.T) {
	t.Parallel()
	w, exit, h := exitWorld(t, nil)
	x := w.listen("203.0.113.7:80")
	id, _, _ := h.begin("203.0.113.7", 80, cell.AllowIPv4)
	w.f.Do(func() { x.conn.Close(errors.New("crash")) })
	h.until("END", func() bool { return h.message(cell.MessageEnd, id) != nil })
	if r := cell.Reason(h.message(cell.MessageEnd, id).Data[0]); r != cell.ReasonReset {
		t.Errorf("END with %v", r)
	}
	h.relay(end(id, cell.ReasonOther))
	id, _, _ = h.begin("203.0.113.7", 80, cell.AllowIPv4)
	h.relay(end(id, cell.ReasonReset))
	h.until("the reset at the server", func() bool { return x.probes[1].State().Downs == 1 })
	if x.probes[1].State().EOFs != 0 {
		t.Error("a reset looked like an orderly end")
	}
	if s := exit.relay.Stats(); s.ExitStreams != 0 {
		t.Errorf("%+v", s)
	}
	h.destroy()
	w.quiet()
}

// TestNoOneHopProxy: BEGIN and RESOLVE come from relays of the consensus only, BEGIN_DIR from
// everybody.
func TestNoOneHopProxy(t *testing.T) {
	t.Parallel()
	for name, previous := range map[string]func(w *world, exit *station) *hand{
		"a client": func(w *world, exit *station) *hand { return w.client("client").build(exit) },
		"a relay that the consensus does not list": func(w *world, exit *station) *hand {
			h := w.rogue("rogue")
			exit.strangers = []cert.Identity{h.node.Identity}
			return h.build(exit)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			exit := w.add("exit", nil)
			x := w.listen("203.0.113.7:80")
			w.f.Hosts["host.example"] = []netip.Addr{addr("203.0.113.7")}
			h := previous(w, exit)
			for _, host := range []string{"203.0.113.7", "host.example"} {
				if _, _, reason := h.begin(host, 80, anyIP); reason != cell.ReasonPolicy {
					t.Errorf("BEGIN %s: %v", host, reason)
				}
			}
			data, err := cell.Resolve{Flags: anyIP, Address: address(t, "host.example")}.AppendTo(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, reason := h.open(cell.MessageResolve, data); reason != cell.ReasonPolicy {
				t.Errorf("RESOLVE: %v", reason)
			}
			if _, c, reason := h.open(cell.MessageBeginDir, nil); c == nil {
				t.Errorf("BEGIN_DIR: %v", reason)
			}
			if len(x.probes) != 0 {
				t.Error("the exit connected")
			}
			h.destroy()
			w.quiet()
		})
	}
}

// TestExitWaitsForTheConsensus: a stream from a relay that the consensus will list is served as
// soon as it does, and not before; one that ends meanwhile leaves nothing behind.
func TestExitWaitsForTheConsensus(t *testing.T) {
	t.Parallel()
	w, exit, h := exitWorld(t, nil)
	x := w.listen("93.0.0.1:80")
	w.f.Hosts["host.example"] = []netip.Addr{addr("93.0.0.1")}
	exit.strangers = []cert.Identity{w.relays[0].node.Identity}
	begin, err := cell.Begin{Flags: anyIP, Address: address(t, "host.example"), Port: 80}.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := h.next(), h.next(), h.next()
	h.relay(cell.Message{Command: cell.MessageBegin, Stream: a, Data: begin},
		cell.Message{Command: cell.MessageBegin, Stream: b, Data: begin},
		cell.Message{Command: cell.MessageResolve, Stream: c, Data: begin[:len(begin)-2]})
	w.f.Run(500 * time.Millisecond)
	h.relay(end(b, cell.ReasonOther))
	w.f.Run(500 * time.Millisecond)
	if h.message(cell.MessageConnected, a) != nil || h.message(cell.MessageResolved, c) != nil || h.message(cell.MessageEnd, a) != nil || len(x.probes) != 0 {
		t.Errorf("an answer before the consensus, %d connections", len(x.probes))
	}
	exit.strangers = nil
	h.until("CONNECTED", func() bool {
		return h.message(cell.MessageConnected, a) != nil && h.message(cell.MessageResolved, c) != nil
	})
	if len(x.probes) != 1 {
		t.Errorf("%d connections", len(x.probes))
	}
	h.destroy()
	w.quiet()
}

// TestExitPolicy gives what an exit refuses, by policy and, outside a test network, whatever
// the policy says.
func TestExitPolicy(t *testing.T) {
	t.Parallel()
	const public, other = "93.184.216.34", "93.184.216.35"
	strict := func(policy string) func(*station) {
		return func(s *station) { s.test = false; s.allow(policy) }
	}
	for _, c := range []struct {
		name   string
		change func(*station)
		host   string
		port   uint16
		want   cell.Reason
	}{
		{"allowed", strict("all"), public, 80, cell.ReasonNone},
		{"no exit", func(s *station) { s.policy = nil }, public, 80, cell.ReasonPolicy},
		{"another port", strict("accept *:443, reject *:*"), public, 80, cell.ReasonPolicy},
		{"another address", strict("accept " + other + "/32:*, reject *:*"), public, 80, cell.ReasonPolicy},
		{"loopback", strict("all"), "127.0.0.1", 80, cell.ReasonPolicy},
		{"loopback v6", strict("all"), "::1", 80, cell.ReasonPolicy},
		{"private", strict("all"), "10.0.0.1", 80, cell.ReasonPolicy},
		{"metadata service", strict("all"), "169.254.169.254", 80, cell.ReasonPolicy},
		{"NAT64 of loopback", strict("all"), "64:ff9b::7f00:1", 80, cell.ReasonPolicy},
		{"6to4 of private", strict("all"), "2002:a00:1::1", 80, cell.ReasonPolicy},
		{"unspecified", strict("all"), "0.0.0.0", 80, cell.ReasonPolicy},
		{"own address, another port", func(s *station) { strict("all")(s); s.others = []netip.AddrPort{addrPort(public + ":9001")} }, public, 80, cell.ReasonPolicy},
		{"own port in a test network", func(s *station) { s.others = []netip.AddrPort{addrPort(public + ":80")} }, public, 80, cell.ReasonPolicy},
		{"own address, another port, in a test network", func(s *station) { s.others = []netip.AddrPort{addrPort(public + ":9001")} }, public, 80, cell.ReasonNone},
		{"a relay", func(s *station) { strict("all")(s); s.listening = []netip.AddrPort{addrPort(public + ":80")} }, public, 80, cell.ReasonPolicy},
		{"a relay of a test network", func(s *station) { s.listening = []netip.AddrPort{addrPort(public + ":80")} }, public, 80, cell.ReasonPolicy},
		{"loopback in a test network", nil, "127.0.0.1", 80, cell.ReasonNone},
		{"private in a test network", nil, "10.0.0.1", 80, cell.ReasonNone},
	} {
		for _, byName := range []bool{false, true} { // a name that points there is no way around
			t.Run(fmt.Sprintf("%s, name %v", c.name, byName), func(t *testing.T) {
				t.Parallel()
				w, _, h := exitWorld(t, c.change)
				x := w.listen(netip.AddrPortFrom(addr(c.host), c.port).String())
				host := c.host
				if byName {
					host = "rebinding.example"
					w.f.Hosts[host] = []netip.Addr{addr(c.host)}
				}
				_, connected, reason := h.begin(host, c.port, anyIP)
				if reason != c.want || (connected != nil) != (c.want == cell.ReasonNone) || len(x.probes) > 0 != (c.want == cell.ReasonNone) {
					t.Errorf("%v, want %v; connected %v, %d connections", reason, c.want, connected, len(x.probes))
				}
				h.destroy()
				w.quiet()
			})
		}
	}
}

// TestMappedAddress: an IPv4 address in IPv6 clothes is judged as what it is.
func TestMappedAddress(t *testing.T) {
	t.Parallel()
	w, exit, h := exitWorld(t, func(s *station) { s.test = false })
	w.f.Hosts["mapped.example"] = []netip.Addr{addr("::ffff:127.0.0.1"), addr("::ffff:10.0.0.1"), addr("fe80::1%eth0")}
	if _, _, reason := h.begin("mapped.example", 80, anyIP); reason != cell.ReasonPolicy {
		t.Errorf("%v", reason)
	}
	if exit.relay.Stats().ExitConnects != 0 {
		t.Error("the exit connected")
	}
	h.destroy()
	w.quiet()
}

// TestEveryAddressIsTried, in order, and the last failure is the one that is told.
func TestEveryAddressIsTried(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, policy string
		found        []string
		want         string // address that is connected to
		reason       cell.Reason
	}{
		{"the first", "all", []string{"93.0.0.1", "93.0.0.2"}, "93.0.0.1", 0},
		{"after a refusal", "all", []string{"93.0.0.9", "93.0.0.2"}, "93.0.0.2", 0},
		{"after silence", "all", []string{"93.0.0.66", "93.0.0.2"}, "93.0.0.2", 0},
		{"after what policy forbids", "reject 93.0.0.1/32:*, accept *:*", []string{"93.0.0.1", "93.0.0.2"}, "93.0.0.2", 0},
		{"IPv6 after IPv4", "all", []string{"2a00::2", "93.0.0.9"}, "2a00::2", 0},
		{"none answers", "all", []string{"93.0.0.9", "93.0.0.66"}, "", cell.ReasonTimeout},
		{"all refuse", "all", []string{"93.0.0.8", "93.0.0.9"}, "", cell.ReasonRefused},
		{"all forbidden", "reject 93.0.0.0/8:*, accept *:*", []string{"93.0.0.1", "93.0.0.2"}, "", cell.ReasonPolicy},
		{"one forbidden, one refuses", "reject 93.0.0.1/32:*, accept *:*", []string{"93.0.0.1", "93.0.0.9"}, "", cell.ReasonRefused},
		{"the same twice", "all", []string{"93.0.0.9", "93.0.0.9", "93.0.0.2"}, "93.0.0.2", 0},
		{"no address", "all", nil, "", cell.ReasonNoSuchHost},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, exit, h := exitWorld(t, func(s *station) { s.allow(c.policy) })
			w.f.Silence(addrPort("93.0.0.66:80"))
			for _, a := range []string{"93.0.0.1", "93.0.0.2", "2a00::2"} {
				w.listen(netip.AddrPortFrom(addr(a), 80).String())
			}
			found := []netip.Addr{}
			for _, a := range c.found {
				found = append(found, addr(a))
			}
			w.f.Hosts["host.example"] = found
			_, connected, reason := h.begin("host.example", 80, anyIP)
			if c.want != "" && (connected == nil || connected.IP != addr(c.want)) || c.want == "" && reason != c.reason {
				t.Errorf("connected to %v, %v; want %s, %v", connected, reason, c.want, c.reason)
			}
			if s := exit.relay.Stats(); s.ExitConnects > 1 {
				t.Errorf("%+v", s)
			}
			h.destroy()
			w.quiet()
		})
	}
}

// TestStreamTimeout bounds the time for all addresses of a name together.
func TestStreamTimeout(t *testing.T) {
	t.Parallel()
	w, _, h := exitWorld(t, nil)
	var found []netip.Addr
	for i := range 40 {
		a := netip.AddrFrom4([4]byte{93, 0, 0, byte(i)})
		w.f.Silence(netip.AddrPortFrom(a, 80))
		found = append(found, a)
	}
	w.f.Hosts["slow.example"] = found
	from := w.f.Now()
	if _, _, reason := h.begin("slow.example", 80, anyIP); reason != cell.ReasonTimeout {
		t.Error(reason)
	}
	if took := w.f.Now().Sub(from); took > 48*time.Second || took < 20*time.Second {
		t.Errorf("it took %v", took)
	}
	h.destroy()
	w.quiet()
}

// TestFlagsOfBegin: which addresses of a name are used, and in which order. IP literals are
// what they are.
func TestFlagsOfBegin(t *testing.T) {
	t.Parallel()
	const v4, v6 = "93.0.0.1", "2a00::1"
	for _, c := range []struct {
		host  string
		flags cell.Flags
		ipv6  bool
		want  string
	}{
		{"both.example", anyIP, true, v4},
		{"both.example", anyIP | cell.PreferIPv6, true, v6},
		{"both.example", anyIP | cell.PreferIPv6, false, v4},
		{"both.example", cell.AllowIPv6, true, v6},
		{"both.example", cell.AllowIPv6, false, ""},
		{"both.example", cell.AllowIPv4 | cell.PreferIPv6, true, v4},
		{"both.example", 0, true, ""},
		{"six.example", cell.AllowIPv4, true, ""},
		{"six.example", anyIP, false, ""},
		{v4, 0, true, v4},
		{v4, cell.AllowIPv6, true, v4},
		{v6, 0, true, v6},
		{v6, anyIP, false, ""},
	} {
		w, _, h := exitWorld(t, func(s *station) { s.ipv6 = c.ipv6 })
		w.listen(v4 + ":80")
		w.listen("[" + v6 + "]:80")
		w.f.Hosts["both.example"] = []netip.Addr{addr(v6), addr(v4)}
		w.f.Hosts["six.example"] = []netip.Addr{addr(v6)}
		_, connected, reason := h.begin(c.host, 80, c.flags)
		if c.want == "" && reason != cell.ReasonNetUnreachable || c.want != "" && (connected == nil || connected.IP != addr(c.want)) {
			t.Errorf("%s, flags %d, IPv6 at the exit %v: %v, %v, want %q", c.host, c.flags, c.ipv6, connected, reason, c.want)
		}
		h.destroy()
		w.quiet()
	}
}

func TestConnectReasons(t *testing.T) {
	t.Parallel()
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, c := range []struct {
		err  error
		want cell.Reason
	}{
		{dial(syscall.ECONNREFUSED), cell.ReasonRefused},
		{dial(syscall.EHOSTUNREACH), cell.ReasonHostUnreachable},
		{dial(syscall.ENETUNREACH), cell.ReasonNetUnreachable},
		{dial(syscall.ENETDOWN), cell.ReasonNetUnreachable},
		{dial(syscall.ECONNRESET), cell.ReasonReset},
		{dial(syscall.ECONNABORTED), cell.ReasonReset},
		{dial(syscall.ETIMEDOUT), cell.ReasonTimeout},
		{dial(syscall.EMFILE), cell.ReasonResource},
		{dial(syscall.ENFILE), cell.ReasonResource},
		{dial(syscall.ENOBUFS), cell.ReasonResource},
		{dial(syscall.EADDRNOTAVAIL), cell.ReasonResource},
		{&net.OpError{Op: "dial", Err: context.DeadlineExceeded}, cell.ReasonTimeout},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, cell.ReasonTimeout},
		{dial(syscall.EACCES), cell.ReasonHostUnreachable},
		{errors.New("anything"), cell.ReasonHostUnreachable},
	} {
		if got := connectReason(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
	if got := lookupReason(&net.DNSError{IsNotFound: true}); got != cell.ReasonNoSuchHost {
		t.Error(got)
	}
	for _, err := range []error{&net.DNSError{IsTimeout: true}, &net.DNSError{IsTemporary: true}, errors.New("anything"), os.ErrDeadlineExceeded} {
		if got := lookupReason(err); got != cell.ReasonResolveFailed {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// resolve asks and returns the answer.
func (h *hand) resolve(host string, flags cell.Flags) cell.Resolved {
	h.w.t.Helper()
	data, err := cell.Resolve{Flags: flags, Address: address(h.w.t, host)}.AppendTo(nil)
	if err != nil {
		h.w.t.Fatal(err)
	}
	id := h.next()
	h.relay(cell.Message{Command: cell.MessageResolve, Stream: id, Data: data})
	h.until("RESOLVED", func() bool {
		return h.message(cell.MessageResolved, id) != nil || h.message(cell.MessageEnd, id) != nil
	})
	h.relay(end(id, cell.ReasonOther))
	m := h.message(cell.MessageResolved, id)
	if m == nil {
		h.w.t.Fatalf("RESOLVE: END %v", h.message(cell.MessageEnd, id).Data)
	}
	answer, err := cell.DecodeResolved(m.Data)
	if err != nil {
		h.w.t.Fatal(err)
	}
	return answer
}

func TestResolve(t *testing.T) {
	t.Parallel()
	const v4, v6, inner = "93.0.0.1", "2a00::1", "10.0.0.1"
	var many []netip.Addr
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{93, 1, 0, byte(i)}))
	}
	for _, c := range []struct {
		host  string
		flags cell.Flags
		test  bool
		want  []string
	}{
		{"both.example", anyIP, false, []string{v4, v6}},
		{"both.example", anyIP | cell.PreferIPv6, false, []string{v6, v4}},
		{"both.example", cell.AllowIPv6, false, []string{v6}},
		{"both.example", 0, false, nil},
		{"inner.example", anyIP, false, nil},
		{"inner.example", anyIP, true, []string{inner}},
		{"mixed.example", anyIP, false, []string{v4}},
		{"nobody.example", anyIP, false, nil},
		{v4, anyIP, false, []string{"host.example"}},
		{inner, anyIP, false, nil}, // the names of the exit's own network are nobody's business
		{inner, anyIP, true, []string{"printer.example"}},
		{"93.0.0.2", anyIP, false, nil},
	} {
		w, exit, h := exitWorld(t, func(s *station) { s.test = c.test })
		w.f.Hosts["both.example"] = []netip.Addr{addr(v6), addr(v4), addr("::ffff:" + v4)}
		w.f.Hosts["inner.example"] = []netip.Addr{addr(inner)}
		w.f.Hosts["mixed.example"] = []netip.Addr{addr(inner), addr(v4), addr("127.0.0.1")}
		w.f.Hosts["many.example"] = many
		w.f.Names[addr(v4)] = []string{"host.example.", "", ".", "not a name", "93.0.0.7"}
		w.f.Names[addr(inner)] = []string{"printer.example."}
		got := h.resolve(c.host, c.flags)
		var answers []string
		for _, a := range got.Answers {
			answers = append(answers, a.String())
		}
		if !slices.Equal(answers, c.want) || (got.Reason == cell.ReasonNoSuchHost) != (c.want == nil) {
			t.Errorf("%s, flags %d, test %v: %v (%v), want %v", c.host, c.flags, c.test, answers, got.Reason, c.want)
		}
		if n := len(h.resolve("many.example", anyIP).Answers); n != maxAnswers {
			t.Errorf("%d answers for 100 addresses", n)
		}
		if s := exit.relay.Stats(); s.Resolves != 2 {
			t.Errorf("%+v", s)
		}
		h.destroy()
		w.quiet()
	}
}

// TestBadOpenings: what does not parse ends the circuit; a stream id goes up.
func TestBadOpenings(t *testing.T) {
	t.Parallel()
	begin, err := cell.Begin{Flags: anyIP, Address: address(t, "a.example"), Port: 80}.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string][]byte{
		"unknown flags": append([]byte{0x80}, begin[1:]...),
		"cut off":       begin[:len(begin)-1],
		"port 0":        append(append([]byte(nil), begin[:len(begin)-2]...), 0, 0),
		"too long":      append(append([]byte(nil), begin...), 0),
		"empty":         {},
	} {
		w, _, h := exitWorld(t, nil)
		payload := make([]byte, cell.BodySize-cell.TagSize)
		copy(payload, []byte{byte(cell.MessageBegin), 0, 1, 0, byte(len(m))})
		copy(payload[5:], m)
		h.sendRaw(1, cell.CommandRelay, payload)
		if reason := h.dies(); reason != cell.ReasonDestroyed {
			t.Errorf("%s: %v", name, reason)
		}
		w.quiet()
	}
	w, _, h := exitWorld(t, nil)
	h.streams = 4
	h.begin("127.0.0.9", 80, anyIP)
	h.relay(cell.Message{Command: cell.MessageBegin, Stream: 5, Data: begin})
	h.dies()
	w.quiet()
}

// TestDialsAreBounded: an exit opens only so many connections at once, look-ups included.
func TestDialsAreBounded(t *testing.T) {
	t.Parallel()
	w, exit, h := exitWorld(t, func(s *station) { s.limits.Dials = 8 }) // of which one neighbour gets two
	w.f.Silence(addrPort("93.0.0.66:80"))
	data, err := cell.Begin{Address: address(t, "93.0.0.66"), Port: 80}.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.relay(cell.Message{Command: cell.MessageBegin, Stream: h.next(), Data: data})
	}
	w.f.Run(time.Second)
	if _, _, reason := h.begin("93.0.0.1", 80, anyIP); reason != cell.ReasonResource {
		t.Error(reason)
	}
	if _, _, reason := h.open(cell.MessageResolve, data[:len(data)-2]); reason != cell.ReasonResource {
		t.Error(reason)
	}
	if exit.relay.dials != 2 {
		t.Errorf("%d dials", exit.relay.dials)
	}
	w.f.Run(time.Minute)
	w.listen("93.0.0.1:80")
	if _, c, reason := h.begin("93.0.0.1", 80, anyIP); c == nil {
		t.Errorf("after the dials ended: %v", reason)
	}
	h.destroy()
	w.quiet()
}

// TestOneCircuitCannotTakeAllDials: connection attempts outlive their streams, so BEGIN and
// END in turn would use up what the exit has for everybody.
func TestOneCircuitCannotTakeAllDials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	guard, exit := w.add("guard", nil), w.add("exit", nil)
	bad, good := w.client("bad").build(guard, exit), w.client("good").build(guard, exit)
	w.listen("93.0.0.1:80")
	w.f.Silence(addrPort("93.0.0.66:80"))
	data, err := cell.Begin{Flags: cell.AllowIPv4, Address: address(t, "93.0.0.66"), Port: 80}.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 1100 {
		id := bad.next()
		bad.relay(cell.Message{Command: cell.MessageBegin, Stream: id, Data: data},
			cell.Message{Command: cell.MessageEnd, Stream: id, Data: []byte{byte(cell.ReasonOther)}})
	}
	w.f.Run(time.Second)
	if n := exit.relay.dials; n > exit.limits.CircuitDials {
		t.Errorf("%d dials under way for one circuit", n)
	}
	if _, c, reason := good.begin("93.0.0.1", 80, anyIP); c == nil {
		t.Errorf("another circuit's stream: %v", reason)
	}
}

// TestDialsOfOthersMakeRoom: whoever fills the exit's attempts with destinations that do not answer, through however
// many neighbours, loses one when somebody else wants one, through a neighbour of its own or the same.
func TestDialsOfOthersMakeRoom(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		w := newWorld(t, 1)
		exit := w.add("exit", func(s *station) { s.limits.Dials = 8 }) // two for one neighbour, while others want some
		w.listen("93.0.0.1:80")
		w.f.Silence(addrPort("93.0.0.66:80"))
		data, err := cell.Begin{Flags: cell.AllowIPv4, Address: address(t, "93.0.0.66"), Port: 80}.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		var guard *station
		for i := range 4 {
			guard = w.add(fmt.Sprint("guard", i), nil)
			bad := w.client(fmt.Sprint("bad", i)).build(guard, exit)
			for range 2 {
				bad.relay(cell.Message{Command: cell.MessageBegin, Stream: bad.next(), Data: data})
			}
		}
		w.f.Run(time.Second)
		if n := exit.relay.dials; n != 8 {
			t.Fatalf("%d dials under way, want all 8", n)
		}
		if own {
			guard = w.add("guard4", nil)
		}
		good := w.client("good").build(guard, exit)
		if _, c, reason := good.begin("93.0.0.1", 80, anyIP); c == nil {
			t.Errorf("a stream through a neighbour of its own, %v: %v", own, reason)
		}
		if n := exit.relay.stats.DialsGivenUp; n != 1 {
			t.Errorf("%d dials were given up, want 1", n)
		}
		w.f.Run(time.Minute)
		if n := exit.relay.dials; n != 0 || len(exit.relay.attempts) != 0 {
			t.Errorf("%d dials are left over", n)
		}
	}
}

// TestStreamGoesWhileDialling: at every step of opening, both the stream's end and the
// circuit's leave nothing behind, and no connection stays open.
func TestStreamGoesWhileDialling(t *testing.T) {
	t.Parallel()
	for step := range 40 {
		for _, whole := range []bool{false, true} {
			w, _, h := exitWorld(t, nil)
			x := w.listen("93.0.0.2:80")
			w.f.Hosts["host.example"] = []netip.Addr{addr("93.0.0.1"), addr("93.0.0.2")}
			data, err := cell.Begin{Flags: anyIP, Address: address(t, "host.example"), Port: 80}.AppendTo(nil)
			if err != nil {
				t.Fatal(err)
			}
			id := h.next()
			h.relay(cell.Message{Command: cell.MessageBegin, Stream: id, Data: data})
			w.f.Run(time.Duration(step) * 2 * time.Millisecond)
			if whole {
				h.destroy()
			} else {
				h.relay(end(id, cell.ReasonOther))
				w.f.Run(time.Second)
				h.destroy()
			}
			w.quiet()
			for _, p := range x.probes {
				if s := p.State(); s.Downs+s.EOFs == 0 {
					t.Errorf("step %d: a connection was left open", step)
				}
			}
		}
	}
}

// TestBackPressureAtTheExit: a destination that does not read holds up its sender, and nobody
// else on the circuit; the exit holds no more than the window.
func TestBackPressureAtTheExit(t *testing.T) {
	t.Parallel()
	w, exit, h := exitWorld(t, nil)
	var stuck env.Conn
	w.f.Listen(addrPort("93.0.0.1:80"), func(c env.Conn) env.ConnEvents { stuck = c; return &envtest.ConnProbe{} })
	x := w.listen("93.0.0.2:80")
	id, _, _ := h.begin("93.0.0.1", 80, anyIP)
	sent := 0
	for sent+2000 <= 256<<10 { // the window of a stream
		h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: pattern(2000)})
		sent += 2000
	}
	w.f.Run(10 * time.Second)
	if used := exit.budget.Used(); used == 0 || used > 300<<10 {
		t.Errorf("the exit holds %d bytes", used)
	}
	if h.message(cell.MessageWindow, id) != nil && exit.budget.Used() > 193<<10 {
		t.Error("the window was returned although nobody reads")
	}
	other, c, _ := h.begin("93.0.0.2", 80, anyIP)
	if c == nil {
		t.Fatal("the stuck stream holds up the circuit")
	}
	h.relay(cell.Message{Command: cell.MessageData, Stream: other, Data: []byte("through")})
	h.until("the other stream's bytes", func() bool { return string(x.received()) == "through" })
	w.f.Do(func() { stuck.Pause(false) })
	w.f.Run(10 * time.Second)
	if used := exit.budget.Used(); used != 2<<10 { // the two streams themselves
		t.Errorf("the exit still holds %d bytes", used)
	}
	h.destroy()
	w.quiet()
}

// TestDataBeyondTheWindow ends the circuit.
func TestDataBeyondTheWindow(t *testing.T) {
	t.Parallel()
	w, _, h := exitWorld(t, nil)
	w.f.Listen(addrPort("93.0.0.1:80"), func(env.Conn) env.ConnEvents { return &envtest.ConnProbe{} }) // paused: reads nothing
	id, _, _ := h.begin("93.0.0.1", 80, anyIP)
	for range 400 {
		if h.destroyed == nil {
			h.relay(cell.Message{Command: cell.MessageData, Stream: id, Data: pattern(2000)})
			w.f.Run(time.Millisecond)
		}
	}
	h.dies()
	w.quiet()
}
