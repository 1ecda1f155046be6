package ipaddr

import (
	"net/netip"
	"testing"
)

func TestIsPublic(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		addr string
		want bool
	}{
		{"8.8.8.8", true},
		{"1.1.1.1", true},
		{"9.255.255.255", true},
		{"11.0.0.0", true},
		{"100.63.255.255", true},
		{"100.128.0.0", true},
		{"126.255.255.255", true},
		{"128.0.0.0", true},
		{"169.253.255.255", true},
		{"169.255.0.0", true},
		{"172.15.255.255", true},
		{"172.32.0.0", true},
		{"192.0.1.0", true},
		{"192.0.3.0", true},
		{"192.88.98.255", true},
		{"192.167.255.255", true},
		{"192.169.0.0", true},
		{"198.17.255.255", true},
		{"198.20.0.0", true},
		{"203.0.112.255", true},
		{"223.255.255.255", true},
		{"2606:4700::1111", true},
		{"2001:200::1", true},
		{"2001:4860:4860::8888", true},
		{"2001:db7:ffff::1", true},
		{"2001:db9::1", true},
		{"2003::1", true},
		{"3fff:1000::1", true},

		{"0.0.0.0", false},
		{"0.1.2.3", false},
		{"10.0.0.1", false},
		{"100.64.0.1", false},
		{"100.127.255.255", false},
		{"127.0.0.1", false},
		{"127.255.255.255", false},
		{"169.254.169.254", false},
		{"172.16.0.1", false},
		{"172.31.255.255", false},
		{"192.0.0.1", false},
		{"192.0.0.170", false},
		{"192.0.2.1", false},
		{"192.88.99.1", false},
		{"192.168.1.1", false},
		{"198.18.0.1", false},
		{"198.19.255.255", false},
		{"198.51.100.1", false},
		{"203.0.113.1", false},
		{"224.0.0.1", false},
		{"239.255.255.255", false},
		{"240.0.0.1", false},
		{"255.255.255.255", false},
		{"::", false},
		{"::1", false},
		{"::8.8.8.8", false},
		{"::ffff:8.8.8.8", false},
		{"::ffff:127.0.0.1", false},
		{"::ffff:0:8.8.8.8", false},
		{"64:ff9b::8.8.8.8", false},
		{"64:ff9b::127.0.0.1", false},
		{"64:ff9b:1::1", false},
		{"100::1", false},
		{"1fff:ffff::1", false},
		{"2001::1", false},
		{"2001:0:4136:e378:8000:63bf:3fff:fdd2", false},
		{"2001:2::1", false},
		{"2001:10::1", false},
		{"2001:20::1", false},
		{"2001:1ff:ffff::1", false},
		{"2001:db8::1", false},
		{"2002:7f00:1::1", false},
		{"2002:808:808::1", false},
		{"3fff::1", false},
		{"3fff:fff::1", false},
		{"4000::1", false},
		{"5f00::1", false},
		{"fc00::1", false},
		{"fd12:3456::1", false},
		{"fe80::1", false},
		{"fe80::1%eth0", false},
		{"2606:4700::1111%eth0", false},
		{"fec0::1", false},
		{"ff02::1", false},
		{"ff0e::1", false},
	} {
		if got := IsPublic(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("IsPublic(%s) = %v, want %v", tt.addr, got, tt.want)
		}
	}
	if IsPublic(netip.Addr{}) {
		t.Error("the zero address is public")
	}
}

func TestNonePublic(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		prefix string
		want   bool
	}{
		{"10.0.0.0/8", true},
		{"10.1.0.0/16", true},
		{"127.0.0.1/32", true},
		{"fc00::/7", true},
		{"::/8", true},
		{"4000::/3", true},
		{"2001:db8:1::/48", true},
		{"10.0.0.0/7", false},
		{"8.0.0.0/8", false},
		{"0.0.0.0/0", false},
		{"::/0", false},
		{"2000::/3", false},
		{"2001::/16", false},
	} {
		if got := NonePublic(netip.MustParsePrefix(tt.prefix)); got != tt.want {
			t.Errorf("NonePublic(%s) = %v, want %v", tt.prefix, got, tt.want)
		}
	}
	if NonePublic(netip.Prefix{}) {
		t.Error("the zero prefix has a meaning")
	}
}

func TestSite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ addr, want string }{
		{"8.8.8.8", "8.8.8.0/24"},
		{"::ffff:8.8.8.8", "8.8.8.0/24"},
		{"2606:4700:1:2::3", "2606:4700:1::/48"},
		{"fe80::1%eth0", "fe80::/48"},
	} {
		if got := Site(netip.MustParseAddr(tt.addr)); got != netip.MustParsePrefix(tt.want) {
			t.Errorf("Site(%s) = %s, want %s", tt.addr, got, tt.want)
		}
	}
	if Site(netip.Addr{}).IsValid() {
		t.Error("the zero address has a site")
	}
}
