package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"cepa/ipaddr"
)

// Bounds of an exit policy.
const (
	MaxPolicyRules = 256
	MaxPolicyText  = 4096 // bytes of the text form
)

// Target says which addresses a Rule is about.
type Target uint8

// The targets of rules.
const (
	AnyAddress Target = iota // "*"
	AnyIPv4                  // "*4"
	AnyIPv6                  // "*6"
	InPrefix                 // an address or prefix
)

// Rule is one line of an exit policy.
type Rule struct {
	Accept   bool
	Target   Target
	Prefix   netip.Prefix // for InPrefix: masked, not IPv4-mapped, without zone
	From, To uint16       // ports, both included, 1 to 65535
}

// Policy is an exit policy: rules in order, of which the first that matches decides. What no rule matches is
// rejected, so the zero Policy rejects everything.
//
// Its text is a list of rules, separated by commas or ends of lines; text after "#" on a line is ignored:
//
//	accept|reject TARGET:PORTS
//	TARGET  *                        every address
//	        *4, *6                   every IPv4, IPv6 address
//	        192.0.2.7, 10.0.0.0/8    an IPv4 address or prefix
//	        [2001:db8::/32]          an IPv6 address or prefix
//	PORTS   *  443  8000-8999
//
// For example "reject 10.0.0.0/8:*, accept *:80, accept *:443". A text that is one word is the name of a preset:
// see Presets. Exits refuse addresses that are not public before they ask their policy, except in test networks.
//
// A Policy made by ParsePolicy is in canonical form: rules that cannot decide anything are left out, and String
// returns the one text that documents carry. Policies must not be modified.
type Policy struct {
	rules []Rule
}

// preset is a named policy.
type preset struct{ name, text string }

var presets = [...]preset{
	{"none", ""},
	{"web", "accept *:80, accept *:443"},
	{"reduced", reducedPolicy()},
	{"all", "accept *:*"},
}

// reducedPolicy accepts the ports of common services and neither mail between servers (25) nor file sharing, which
// bring an exit most of its complaints.
func reducedPolicy() string {
	ports := "20-21 22 43 53 79-81 88 110 143 194 220 389 443 464-465 531 543-544 554 563 587 636 706 749 853 873 " +
		"902-904 981 989-995 1194 1220 1293 1500 1533 1677 1723 1755 1863 2082-2083 2086-2087 2095-2096 2102-2104 " +
		"3128 3389 3690 4321 4643 5050 5190 5222-5223 5228 5900 6660-6669 6679 6697 8000 8008 8074 8080 8082 " +
		"8087-8088 8232-8233 8332-8333 8443 8888 9418 9999-10000 11371 19294 19638 50002 64738"
	var b strings.Builder
	for p := range strings.FieldsSeq(ports) {
		b.WriteString("accept *:" + p + ", ")
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// Presets returns the names of the presets, from the strictest to the most open: "none" rejects everything, "web"
// accepts ports 80 and 443, "reduced" the ports of common services, "all" everything.
func Presets() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return names
}

// ParsePolicy parses the text form or the name of a preset. Errors name the rule that is wrong.
func ParsePolicy(text string) (Policy, error) {
	for _, p := range presets {
		if strings.TrimSpace(text) == p.name {
			text = p.text
		}
	}
	if len(text) > MaxPolicyText {
		return Policy{}, fmt.Errorf("parsing an exit policy: %w: %d bytes, at most %d", ErrTooLarge, len(text), MaxPolicyText)
	}
	var rules []Rule
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for part := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(part) == "" {
				continue
			}
			rule, err := parseRule(part)
			if err != nil {
				return Policy{}, fmt.Errorf("parsing an exit policy: rule %q: %w", strings.TrimSpace(part), err)
			}
			rules = append(rules, rule)
		}
	}
	policy := Policy{canonicalRules(rules)}
	if n := len(policy.rules); n > MaxPolicyRules {
		return Policy{}, fmt.Errorf("parsing an exit policy: %w: %d rules, at most %d", ErrTooLarge, n, MaxPolicyRules)
	}
	if n := len(policy.String()); n > MaxPolicyText {
		return Policy{}, fmt.Errorf("parsing an exit policy: %w: %d bytes in canonical form, at most %d", ErrTooLarge, n, MaxPolicyText)
	}
	return policy, nil
}

// canonicalRules leaves out what follows a rule that matches everything, what an earlier rule has decided already,
// and rejects at the end, where everything is rejected anyway.
func canonicalRules(rules []Rule) []Rule {
	out := make([]Rule, 0, len(rules))
	for _, r := range rules {
		decided := slices.ContainsFunc(out, func(earlier Rule) bool { return earlier.covers(r) })
		if !decided {
			out = append(out, r)
		}
	}
	for len(out) > 0 && !out[len(out)-1].Accept {
		out = out[:len(out)-1]
	}
	return slices.Clip(out)
}

// covers reports whether everything that other matches is matched by r too.
func (r Rule) covers(other Rule) bool {
	if other.From < r.From || other.To > r.To {
		return false
	}
	switch r.Target {
	case AnyAddress:
		return true
	case AnyIPv4:
		return other.Target == AnyIPv4 || other.Target == InPrefix && other.Prefix.Addr().Is4()
	case AnyIPv6:
		return other.Target == AnyIPv6 || other.Target == InPrefix && other.Prefix.Addr().Is6()
	}
	return other.Target == InPrefix && r.Prefix.Bits() <= other.Prefix.Bits() && r.Prefix.Contains(other.Prefix.Addr())
}

func parseRule(text string) (Rule, error) {
	fields := strings.Fields(text)
	if len(fields) != 2 || fields[0] != "accept" && fields[0] != "reject" {
		return Rule{}, fmt.Errorf("%w: want \"accept TARGET:PORTS\" or \"reject TARGET:PORTS\"", ErrMalformed)
	}
	colon := strings.LastIndexByte(fields[1], ':')
	if colon < 0 {
		return Rule{}, fmt.Errorf("%w: the ports are missing; write \":*\" for all", ErrMalformed)
	}
	rule := Rule{Accept: fields[0] == "accept"}
	if err := rule.parseTarget(fields[1][:colon]); err != nil {
		return Rule{}, err
	}
	if err := rule.parsePorts(fields[1][colon+1:]); err != nil {
		return Rule{}, err
	}
	return rule, nil
}

func (r *Rule) parseTarget(text string) error {
	switch text {
	case "*":
		r.Target = AnyAddress
		return nil
	case "*4":
		r.Target = AnyIPv4
		return nil
	case "*6":
		r.Target = AnyIPv6
		return nil
	}
	inner, bracketed := strings.CutPrefix(text, "[")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return fmt.Errorf("%w address %q: the bracket is not closed", ErrMalformed, text)
		}
	}
	prefix, err := netip.ParsePrefix(inner)
	if err != nil {
		addr, err := netip.ParseAddr(inner)
		if err != nil || addr.Zone() != "" {
			return fmt.Errorf("%w address %q: want *, *4, *6, an IPv4 prefix, or an IPv6 prefix in brackets", ErrMalformed, text)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is6() != bracketed || prefix.Addr().Is4In6() {
		return fmt.Errorf("%w address %q: IPv6 stands in brackets, IPv4 does not", ErrMalformed, text)
	}
	r.Target, r.Prefix = InPrefix, prefix.Masked()
	if prefix.Bits() == 0 { // one meaning, one form
		r.Target, r.Prefix = AnyIPv4, netip.Prefix{}
		if bracketed {
			r.Target = AnyIPv6
		}
	}
	return nil
}

func (r *Rule) parsePorts(text string) error {
	if text == "*" {
		r.From, r.To = 1, 65535
		return nil
	}
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	from, err1 := parsePort(first)
	to, err2 := parsePort(last)
	if err1 != nil || err2 != nil || from > to {
		return fmt.Errorf("%w ports %q: want *, a port from 1 to 65535, or a range of them", ErrMalformed, text)
	}
	r.From, r.To = from, to
	return nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && (n == 0 || text[0] == '0') {
		err = ErrMalformed
	}
	return uint16(n), err
}

// String returns the canonical text, which ParsePolicy reads: rules separated by ", ", or "reject *:*" when there
// are none.
func (p Policy) String() string {
	if len(p.rules) == 0 {
		return "reject *:*"
	}
	texts := make([]string, len(p.rules))
	for i, r := range p.rules {
		texts[i] = r.String()
	}
	return strings.Join(texts, ", ")
}

// String returns the rule in the form that ParsePolicy reads.
func (r Rule) String() string {
	word := "reject "
	if r.Accept {
		word = "accept "
	}
	return word + r.targetText() + ":" + PortRange{r.From, r.To}.String()
}

func (r Rule) targetText() string {
	switch r.Target {
	case AnyAddress:
		return "*"
	case AnyIPv4:
		return "*4"
	case AnyIPv6:
		return "*6"
	}
	text := r.Prefix.String()
	if r.Prefix.IsSingleIP() {
		text = r.Prefix.Addr().String()
	}
	if r.Prefix.Addr().Is6() {
		text = "[" + text + "]"
	}
	return text
}

// Rules returns a copy of the rules, in order.
func (p Policy) Rules() []Rule { return slices.Clone(p.rules) }

// IsEmpty reports whether the policy rejects everything.
func (p Policy) IsEmpty() bool { return len(p.rules) == 0 }

// Equal reports whether both have the same canonical form.
func (p Policy) Equal(other Policy) bool { return slices.Equal(p.rules, other.rules) }

// Allows reports whether the policy accepts connections to an address. An IPv4-mapped address counts as the IPv4
// address inside it; an address with a zone, port 0 and the zero AddrPort are never accepted.
func (p Policy) Allows(to netip.AddrPort) bool {
	addr := to.Addr().Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return false
	}
	for _, r := range p.rules {
		if r.From <= to.Port() && to.Port() <= r.To && r.matches(addr) {
			return r.Accept
		}
	}
	return false
}

func (r Rule) matches(addr netip.Addr) bool {
	switch r.Target {
	case AnyAddress:
		return true
	case AnyIPv4:
		return addr.Is4()
	case AnyIPv6:
		return addr.Is6()
	}
	return r.Prefix.Contains(addr)
}

// maxRejected is how much of a family's address space, in shares of 2^-32, a policy may reject at a port and still
// count as allowing it: a /7 of IPv4, a /10 of IPv6, whose global unicast space is a /3. A client that knows nothing
// but a port finds such an exit useful for nearly every destination.
const maxRejected = 1 << 25

// AllowsPort reports whether the policy accepts a port at all public addresses of a family but at most a 128th of
// them. It is what the summary in the consensus says: a client that has only a name to go by chooses an exit by it.
// Accepting a few addresses only does not count.
func (p Policy) AllowsPort(ipv6 bool, port uint16) bool {
	var rejected uint64
	for _, r := range p.rules {
		if port < r.From || port > r.To {
			continue
		}
		switch r.Target {
		case AnyAddress:
			return r.Accept
		case AnyIPv4, AnyIPv6:
			if (r.Target == AnyIPv6) == ipv6 {
				return r.Accept
			}
		case InPrefix:
			if r.Accept || r.Prefix.Addr().Is6() != ipv6 || ipaddr.NonePublic(r.Prefix) {
				continue
			}
			space := uint64(1 << 32)
			if ipv6 {
				space = 1 << 35
			}
			rejected += space >> r.Prefix.Bits()
			if rejected > maxRejected {
				return false
			}
		}
	}
	return false
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ From, To uint16 }

// String returns "*", "80" or "8000-8999".
func (r PortRange) String() string {
	switch {
	case r.From <= 1 && r.To == 65535:
		return "*"
	case r.From == r.To:
		return strconv.Itoa(int(r.From))
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// PortSummary is the summary of an exit policy in a consensus: the ports that it allows, by family. Ranges ascend
// and have gaps between them. The zero value allows nothing.
type PortSummary struct {
	IPv4, IPv6 []PortRange
}

// Summary returns the ports for which AllowsPort holds, for use in a consensus. A relay without IPv6 has no IPv6 in
// its summary.
func (p Policy) Summary(ipv6 bool) PortSummary {
	s := PortSummary{IPv4: p.ranges(false)}
	if ipv6 {
		s.IPv6 = p.ranges(true)
	}
	return s
}

// ranges asks AllowsPort once for each stretch of ports within which no rule begins or ends.
func (p Policy) ranges(ipv6 bool) []PortRange {
	starts := []int{1, 65536}
	for _, r := range p.rules {
		starts = append(starts, int(r.From), int(r.To)+1)
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	var out []PortRange
	for i, from := range starts[:len(starts)-1] {
		if !p.AllowsPort(ipv6, uint16(from)) {
			continue
		}
		to := uint16(starts[i+1] - 1)
		if n := len(out); n > 0 && int(out[n-1].To)+1 == from {
			out[n-1].To = to
		} else {
			out = append(out, PortRange{uint16(from), to})
		}
	}
	return out
}

// IsEmpty reports whether nothing is allowed: such a relay is no exit.
func (s PortSummary) IsEmpty() bool { return len(s.IPv4) == 0 && len(s.IPv6) == 0 }

// Allows reports whether the summary allows a port.
func (s PortSummary) Allows(ipv6 bool, port uint16) bool {
	ranges := s.IPv4
	if ipv6 {
		ranges = s.IPv6
	}
	i, found := slices.BinarySearchFunc(ranges, port, func(r PortRange, port uint16) int { return int(r.From) - int(port) })
	return found || i > 0 && port <= ranges[i-1].To
}

// Equal reports whether both allow the same ports.
func (s PortSummary) Equal(other PortSummary) bool {
	return slices.Equal(s.IPv4, other.IPv4) && slices.Equal(s.IPv6, other.IPv6)
}

// wireSummary is a PortSummary in a consensus: a map with up to two arrays of first and last ports in turn.
type wireSummary struct {
	IPv4 []uint16 `cbor:"1,keyasint,omitempty"`
	IPv6 []uint16 `cbor:"2,keyasint,omitempty"`
}

func (s PortSummary) wire() wireSummary {
	return wireSummary{flatten(s.IPv4), flatten(s.IPv6)}
}

func flatten(ranges []PortRange) []uint16 {
	var out []uint16
	for _, r := range ranges {
		out = append(out, r.From, r.To)
	}
	return out
}

func (w wireSummary) summary() (s PortSummary, err error) {
	if s.IPv4, err = unflatten(w.IPv4); err == nil {
		s.IPv6, err = unflatten(w.IPv6)
	}
	return s, err
}

func unflatten(ports []uint16) ([]PortRange, error) {
	if len(ports)%2 != 0 {
		return nil, fmt.Errorf("%w policy summary: an odd number of ports", ErrMalformed)
	}
	var out []PortRange
	last := -1 // so that 0 cannot be the first port: a range begins behind a gap
	for ; len(ports) > 0; ports = ports[2:] {
		if int(ports[0]) <= last+1 || ports[1] < ports[0] {
			return nil, fmt.Errorf("%w policy summary: ports out of order", ErrInvalid)
		}
		out = append(out, PortRange{ports[0], ports[1]})
		last = int(ports[1])
	}
	return out, nil
}
