package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func parsePolicy(t testing.TB, text string) Policy {
	t.Helper()
	p, err := ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPolicyCanonicalText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"", "reject *:*"},
		{"none", "reject *:*"},
		{"all", "accept *:*"},
		{"web", "accept *:80, accept *:443"},
		{"reject *:*", "reject *:*"},
		{"  accept   *:80 ,, accept *:443-443\n", "accept *:80, accept *:443"},
		{"# my policy\naccept *:80 # web\n\nreject *:*", "accept *:80"},
		{"accept 10.1.2.3/8:1-65535", "accept 10.0.0.0/8:*"},
		{"accept 192.0.2.7/32:80", "accept 192.0.2.7:80"},
		{"accept [2001:DB8:0::1]:80", "accept [2001:db8::1]:80"},
		{"accept [2001:db8::1/32]:8000-8999", "accept [2001:db8::/32]:8000-8999"},
		{"accept 0.0.0.0/0:80", "accept *4:80"},
		{"accept [::/0]:80", "accept *6:80"},
		{"accept *:80, reject 10.0.0.0/8:80, accept *:443", "accept *:80, accept *:443"},
		{"accept *:80, reject *:25", "accept *:80"},
		{"reject 10.0.0.0/8:*, reject 10.1.0.0/16:*, accept *:*", "reject 10.0.0.0/8:*, accept *:*"},
		{"accept *4:*, accept 1.2.3.4:5, accept *6:1-2, reject [2a00::/16]:2", "accept *4:*, accept *6:1-2"},
	} {
		p, err := ParsePolicy(tt.text)
		if err != nil || p.String() != tt.want {
			t.Errorf("%q: %q, %v, want %q", tt.text, p, err, tt.want)
			continue
		}
		if again := parsePolicy(t, p.String()); !again.Equal(p) {
			t.Errorf("%q: parsing its text gives %q", tt.text, again)
		}
	}
}

func TestPolicyRefused(t *testing.T) {
	t.Parallel()
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "accept *:%d\n", i*2+1)
		}
		return b.String()
	}
	for _, tt := range []struct {
		text string
		want error
	}{
		{"allow *:80", ErrMalformed},
		{"accept", ErrMalformed},
		{"accept *", ErrMalformed},
		{"accept *:", ErrMalformed},
		{"accept *:0", ErrMalformed},
		{"accept *:80 please", ErrMalformed},
		{"accept *:90-80", ErrMalformed},
		{"accept *:65536", ErrMalformed},
		{"accept *:080", ErrMalformed},
		{"accept *:+80", ErrMalformed},
		{"accept *:-80", ErrMalformed},
		{"accept 10.0.0.0/33:80", ErrMalformed},
		{"accept 10.0.0:80", ErrMalformed},
		{"accept example.com:80", ErrMalformed},
		{"accept 2001:db8::1:80", ErrMalformed},
		{"accept [10.0.0.1]:80", ErrMalformed},
		{"accept [2001:db8::1:80", ErrMalformed},
		{"accept [::ffff:10.0.0.1]:80", ErrMalformed},
		{"accept [fe80::1%eth0]:80", ErrMalformed},
		{"accept *5:80", ErrMalformed},
		{"reduce", ErrMalformed},
		{many(MaxPolicyRules + 1), ErrTooLarge},
		{strings.Repeat(" ", MaxPolicyText+1), ErrTooLarge},
	} {
		if _, err := ParsePolicy(tt.text); !errors.Is(err, tt.want) {
			t.Errorf("%.40q: %v, want %v", tt.text, err, tt.want)
		}
	}
	if _, err := ParsePolicy("accept *:80, allow *:443"); err == nil || !strings.Contains(err.Error(), `"allow *:443"`) {
		t.Errorf("the error does not name the rule: %v", err)
	}
	if p := parsePolicy(t, many(MaxPolicyRules-30)); len(p.Rules()) != MaxPolicyRules-30 {
		t.Errorf("%d rules", len(p.Rules()))
	}
}

func TestPolicyAllows(t *testing.T) {
	t.Parallel()
	policy := "reject 10.0.0.0/8:*, reject [2a00::/16]:443, accept 10.0.0.0/7:22, accept *4:80, accept *:443-444, reject *:*"
	for _, tt := range []struct {
		policy, to string
		want       bool
	}{
		{policy, "8.8.8.8:443", true},
		{policy, "8.8.8.8:444", true},
		{policy, "8.8.8.8:445", false},
		{policy, "8.8.8.8:80", true},
		{policy, "10.0.0.1:80", false},
		{policy, "11.0.0.1:22", true},
		{policy, "10.0.0.1:22", false},
		{policy, "[2600::1]:80", false},
		{policy, "[2600::1]:443", true},
		{policy, "[2a00::1]:443", false},
		{policy, "[2a00::1]:444", true},
		{policy, "[::ffff:10.0.0.1]:443", false},
		{policy, "[::ffff:8.8.8.8]:443", true},
		{policy, "[2600::1%eth0]:443", false},
		{"none", "8.8.8.8:443", false},
		{"all", "8.8.8.8:1", true},
		{"all", "8.8.8.8:0", false},
		{"reduced", "8.8.8.8:25", false},
		{"reduced", "8.8.8.8:22", true},
		{"web", "8.8.8.8:443", true},
		{"web", "8.8.8.8:22", false},
	} {
		if got := parsePolicy(t, tt.policy).Allows(netip.MustParseAddrPort(tt.to)); got != tt.want {
			t.Errorf("%q allows %s: %v, want %v", tt.policy, tt.to, got, tt.want)
		}
	}
	if parsePolicy(t, "all").Allows(netip.AddrPort{}) || (Policy{}).Allows(netip.MustParseAddrPort("8.8.8.8:80")) {
		t.Error("a zero value allows something")
	}
}

func TestPolicySummary(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ policy, ipv4, ipv6 string }{
		{"none", "", ""},
		{"all", "*", "*"},
		{"web", "80 443", "80 443"},
		{"accept *4:80, accept *6:443", "80", "443"},
		{"accept *:1-100, accept *:101-200", "1-200", "1-200"},
		{"reject *:50, accept *:1-100", "1-49 51-100", "1-49 51-100"},
		{"reject 10.0.0.0/8:*, reject [fc00::/7]:*, accept *:80", "80", "80"},
		{"reject 8.0.0.0/8:*, accept *:80", "80", "80"},
		{"reject 8.0.0.0/6:*, accept *:80", "", "80"},
		{"reject 8.0.0.0/8:*, reject 20.0.0.0/8:*, reject 30.0.0.0/8:80, accept *:80-81", "81", "80-81"},
		{"reject [2a00::/10]:*, accept *:80", "80", "80"},
		{"reject [2a00::/9]:*, accept *:80", "80", ""},
		{"accept 8.8.8.0/24:80", "", ""},
		{"accept *:65535", "65535", "65535"},
	} {
		s := parsePolicy(t, tt.policy).Summary(true)
		if fmt.Sprint(s.IPv4) != "["+tt.ipv4+"]" || fmt.Sprint(s.IPv6) != "["+tt.ipv6+"]" {
			t.Errorf("%q: %v and %v, want %s and %s", tt.policy, s.IPv4, s.IPv6, tt.ipv4, tt.ipv6)
		}
		p := parsePolicy(t, tt.policy)
		for port := range 1 << 16 {
			if s.Allows(false, uint16(port)) != p.AllowsPort(false, uint16(port)) || s.Allows(true, uint16(port)) != p.AllowsPort(true, uint16(port)) {
				t.Errorf("%q: the summary and the policy differ at port %d", tt.policy, port)
				break
			}
		}
		back, err := s.wire().summary()
		if err != nil || !back.Equal(s) || back.IsEmpty() != (tt.ipv4+tt.ipv6 == "") {
			t.Errorf("%q: came back as %v, %v", tt.policy, back, err)
		}
	}
	if s := parsePolicy(t, "all").Summary(false); !slices.Equal(s.IPv4, []PortRange{{1, 65535}}) || s.IPv6 != nil {
		t.Errorf("without IPv6: %v", s)
	}
}

func TestSummaryRefused(t *testing.T) {
	t.Parallel()
	for _, ports := range [][]uint16{{80}, {0, 5}, {90, 80}, {80, 90, 85, 95}, {80, 90, 90, 95}, {80, 90, 91, 95}, {80, 90, 1, 2}} {
		if _, err := unflatten(ports); err == nil {
			t.Errorf("%v accepted", ports)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, name := range Presets() {
		f.Add(name)
	}
	f.Add("reject 10.0.0.0/8:*, accept [2001:db8::/32]:80-443\naccept *4:1 # x")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		again, err := ParsePolicy(p.String())
		if err != nil || !again.Equal(p) || again.String() != p.String() {
			t.Errorf("%q has the text %q, which is %q, %v", text, p, again, err)
		}
		s := p.Summary(true)
		if back, err := s.wire().summary(); err != nil || !back.Equal(s) {
			t.Errorf("%q: summary %v, %v", text, s, err)
		}
		for _, r := range p.Rules() {
			if s.Allows(false, r.From) != p.AllowsPort(false, r.From) || s.Allows(true, r.To) != p.AllowsPort(true, r.To) {
				t.Errorf("%q: summary and policy differ", text)
			}
		}
	})
}
