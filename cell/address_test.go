package cell

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want Address
	}{
		{"example.org", Address{Host: "example.org"}},
		{"Example.ORG.", Address{Host: "Example.ORG."}},
		{"hello.demo", Address{Host: "hello.demo"}},
		{"_srv._tcp.a", Address{Host: "_srv._tcp.a"}},
		{"192.0.2.1", Address{IP: netip.AddrFrom4([4]byte{192, 0, 2, 1})}},
		{"::ffff:192.0.2.1", Address{IP: netip.AddrFrom4([4]byte{192, 0, 2, 1})}},
		{"2001:DB8::1", Address{IP: netip.MustParseAddr("2001:db8::1")}},
		{"192.0.2.256", Address{Host: "192.0.2.256"}},
		{strings.Repeat("a", MaxHost), Address{Host: strings.Repeat("a", MaxHost)}},
	} {
		got, err := ParseAddress(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseAddress(%q) = %+v, %v", tt.in, got, err)
		}
		if got.IsIP() != tt.want.IP.IsValid() {
			t.Errorf("%q: IsIP %v", tt.in, got.IsIP())
		}
		if again, err := ParseAddress(got.String()); err != nil || again != got {
			t.Errorf("%q became %q and then %+v, %v", tt.in, got, again, err)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"", "parsing address: host name of 0 bytes, 1 to 255 are possible"},
		{strings.Repeat("a", 256), "parsing address: host name of 256 bytes, 1 to 255 are possible"},
		{"a b", "parsing address: byte 0x20 in a host name"},
		{"a\x00b", "parsing address: byte 0x00 in a host name"},
		{"bücher.example", "parsing address: byte 0xc3 in a host name"},
		{"fe80::1%eth0", "parsing address: IPv6 address with a zone"},
	} {
		got, err := ParseAddress(tt.in)
		wantError(t, err, tt.want)
		if got != (Address{}) {
			t.Errorf("%q: %+v beside an error", tt.in, got)
		}
	}
}

func TestLinkSpecifierAddrPort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"192.0.2.1:9850", "192.0.2.1:9850"},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1:1"},
		{"[2001:db8::1]:65535", "[2001:db8::1]:65535"},
		{"[fe80::1%eth0]:443", "[fe80::1]:443"},
	} {
		got, ok := AddrPortSpecifier(netip.MustParseAddrPort(tt.in)).AddrPort()
		if !ok || got.String() != tt.want {
			t.Errorf("%s comes back as %v, %v", tt.in, got, ok)
		}
	}
	for _, s := range []LinkSpecifier{
		{},
		{99, []byte{192, 0, 2, 1, 1, 1}},
		{SpecifierIPv4, nil},
		{SpecifierIPv4, []byte{192, 0, 2, 1, 0, 0}},
		{SpecifierIPv4, make([]byte, 18)},
		{SpecifierIPv6, []byte{192, 0, 2, 1, 1, 1}},
		AddrPortSpecifier(netip.AddrPort{}),
	} {
		if ap, ok := s.AddrPort(); ok {
			t.Errorf("%+v has address %v", s, ap)
		}
	}
}
