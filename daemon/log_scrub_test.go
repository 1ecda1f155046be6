package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestScrub: no address and no host in any form that messages use, and nothing else is lost.
func TestScrub(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"dial tcp 192.0.2.7:443: connection refused":                           "dial tcp [scrubbed]: connection refused",
		"dial tcp [2001:db8::7]:443: i/o timeout":                              "dial tcp [scrubbed]: i/o timeout",
		"no way to 2001:db8:0:1:2:3:4:5":                                       "no way to [scrubbed]",
		"from ::1: reset":                                                      "from [scrubbed]: reset",
		"from fe80::1%eth0.":                                                   "from [scrubbed]",
		"::ffff:192.0.2.1 spoke":                                               "[scrubbed] spoke",
		"lookup www.example.com: no such host":                                 "lookup [scrubbed]: no such host",
		"connect to www.example.com:80 failed":                                 "connect to [scrubbed] failed",
		"connect to localhost:8080 failed":                                     "connect to [scrubbed] failed",
		"get http://user@example.com/path?q=1 failed":                          "get [scrubbed] failed",
		"bücher.example and xn--bcher-kva.example":                             "[scrubbed] and [scrubbed]",
		"prefix 198.51.100.0/24 is full":                                       "prefix [scrubbed] is full",
		"remove /var/lib/cepa/consensus.fork when done":                        "remove /var/lib/cepa/consensus.fork when done",
		"reading relay.toml: line 3":                                           "reading relay.toml: line 3",
		"took 1.5s of 2m3.25s at 08:15:30 on 2026-11-23T08:15:30Z, 99.5%":      "took 1.5s of 2m3.25s at 08:15:30 on 2026-11-23T08:15:30Z, 99.5%",
		"cepa v1.2.3 of go1.26.0, HELLO at byte 7":                             "cepa v1.2.3 of go1.26.0, HELLO at byte 7",
		"relay 0123456789abcdef is gone. Trying another.":                      "relay 0123456789abcdef is gone. Trying another.",
		"handshake with 127.0.0.1:5: tls: first record does not look like TLS": "handshake with [scrubbed]: tls: first record does not look like TLS",
	} {
		if got := scrub(in); got != want && !(strings.HasSuffix(in, ".") && got == strings.TrimSuffix(want, ".")) {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

// FuzzScrub: whatever stands around it, an address does not survive, and nothing panics.
func FuzzScrub(f *testing.F) {
	f.Add("dial tcp ", ": refused", []byte{192, 0, 2, 1})
	f.Add("[", "]:80", make([]byte, 16))
	f.Fuzz(func(t *testing.T, before, after string, raw []byte) {
		scrub(before + after)
		ip, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		for _, text := range []string{before + " " + ip.String() + " " + after, before + " " + netip.AddrPortFrom(ip, 443).String() + ": " + after} {
			if got := scrub(text); strings.Contains(got, " "+ip.String()+" ") || strings.Contains(got, netip.AddrPortFrom(ip, 443).String()) && !strings.Contains(before+after, ip.String()) {
				t.Fatalf("%q leaves %q", text, got)
			}
		}
	})
}

// TestLogLeavesOutAddresses: in text and in JSON, in messages, values, groups, With and wrapped errors; and not when the
// settings want them.
func TestLogLeavesOutAddresses(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddrPort("203.0.113.9:443")
	hidden := fmt.Errorf("asking: %w", &net.DNSError{Err: "no such host", Name: "intranet", Server: "203.0.113.9:53"})
	for _, format := range []string{"text", "json"} {
		for _, open := range []bool{false, true} {
			var b bytes.Buffer
			log := slog.New(NewLog(&b, LogOptions{Format: format, Addresses: open, Level: "debug"})).With("peer", at).WithGroup("g")
			log.Info("from 203.0.113.9", "err", hidden, "to", at.Addr(), "name", "secret.example", "in", slog.GroupValue(slog.Any("a", at)),
				"list", []netip.AddrPort{at}, "tcp", net.TCPAddrFromAddrPort(at), "none", error(nil), "nil", (*net.DNSError)(nil), "n", 7)
			for _, secret := range []string{"203.0.113.9", "secret.example", "intranet"} {
				if strings.Contains(b.String(), secret) != open {
					t.Errorf("%s, addresses %v: %q in %s", format, open, secret, b.String())
				}
			}
			if !strings.Contains(b.String(), "no such host") {
				t.Errorf("the reason is lost: %s", b.String())
			}
			var object map[string]any
			if err := json.Unmarshal(b.Bytes(), &object); (err == nil) != (format == "json") {
				t.Errorf("%s: %v: %s", format, err, b.String())
			}
			if at := regexp.MustCompile(`time"?[=:]"?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`); !at.MatchString(b.String()) {
				t.Errorf("the time is not in whole seconds: %s", b.String())
			}
		}
	}
}

// TestRepeats: a flood of one message becomes a bounded number of lines and one with the count; others are not held up,
// and the next window begins anew.
func TestRepeats(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	var later []func()
	h := limitRepeats(slog.NewTextHandler(&b, nil), func(d time.Duration, f func()) {
		if d != repeatsWindow {
			t.Errorf("a window of %v", d)
		}
		later = append(later, f)
	})
	log := slog.New(h)
	lines := func(want string) int { return strings.Count(b.String(), want) }
	for i := range 1000 {
		log.Warn("flood", "i", i)
		log.With("node", "b").Warn("flood", "i", i)
	}
	log.Warn("another")
	if lines("msg=flood") != 2*repeatsMost || lines("msg=another") != 1 || lines("left out") != 0 {
		t.Fatalf("%s", b.String())
	}
	for _, f := range later {
		f()
	}
	if lines("msg=\"left out repeats of a message\" message=flood times=970 seconds=60") != 2-1 || lines("node=b message=flood times=970") != 1 {
		t.Errorf("%s", b.String())
	}
	b.Reset()
	log.Warn("flood")
	if lines("msg=flood") != 1 {
		t.Error("the next window is closed")
	}
	for i := range 5000 { // messages made of values do not grow a table without end
		log.Warn(fmt.Sprint("kind ", i))
	}
	if n := len(h.(repeats).state.kinds); n > repeatsKinds+1 {
		t.Errorf("%d kinds are kept", n)
	}
}

func TestLogSettings(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"": "", "text": "", "json": "", "jsn": `did you mean "json"`, "xml": "text or json"} {
		if err := CheckLogFormat(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if scrubError(errors.New("plain")) != "plain" {
		t.Error("an error without a host changed")
	}
}
