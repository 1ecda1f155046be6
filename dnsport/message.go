package dnsport

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"cepa/cell"
	"cepa/socks"
)

// toLookup reads a question. rcode is not success when nobody is to be asked, and why says so.
func toLookup(q dns.Question) (r socks.Request, rcode int, why string) {
	if q.Qclass != dns.ClassINET {
		return r, dns.RcodeNotImplemented, "only class IN is answered"
	}
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		name := strings.TrimSuffix(q.Name, ".")
		var err error
		if r, err = socks.NewLookup(name, ""); err != nil || r.IP.IsValid() {
			return r, dns.RcodeNameError, "this is no host name"
		}
		return r, dns.RcodeSuccess, ""
	case dns.TypePTR:
		ip, ok := parseReverse(q.Name)
		if !ok {
			return r, dns.RcodeNameError, "PTR is answered for addresses only"
		}
		r.IP = ip
		return r, dns.RcodeSuccess, ""
	}
	return r, dns.RcodeNotImplemented, "only A, AAAA and PTR are answered"
}

// parseReverse reads the name that stands for an address in a PTR question: four numbers before in-addr.arpa, or 32
// hexadecimal digits before ip6.arpa, the last first (RFC 1035, section 3.5; RFC 3596, section 2.5).
func parseReverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if text, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(text, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return a, err == nil
	}
	text, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(text) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i, label := range strings.Split(text, ".") {
		digit, err := strconv.ParseUint(label, 16, 4)
		if err != nil || len(label) != 1 || i > 31 {
			return netip.Addr{}, false
		}
		at := 31 - i
		b[at/2] |= byte(digit) << (4 * (1 - at%2))
	}
	a := netip.AddrFrom16(b)
	return a, !a.Is4In6()
}

// record is the answer a to a question, or nil when it is of another type.
func record(q dns.Question, ttl uint32, a cell.Address) dns.RR {
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	switch {
	case q.Qtype == dns.TypeA && a.IP.Is4():
		return &dns.A{Hdr: head, A: a.IP.AsSlice()}
	case q.Qtype == dns.TypeAAAA && a.IP.Is6():
		return &dns.AAAA{Hdr: head, AAAA: a.IP.AsSlice()}
	case q.Qtype == dns.TypePTR && !a.IsIP():
		// The name comes from an exit: only what a host name has goes on, so that nothing in it is taken for an escape.
		if r, err := socks.NewLookup(a.Host, ""); err != nil || r.Host == "" {
			return nil
		}
		return &dns.PTR{Hdr: head, Ptr: dns.Fqdn(a.Host)}
	}
	return nil
}

// base is an empty reply to q.
func base(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	m.AuthenticatedData = false
	if q.IsEdns0() != nil {
		m.SetEdns0(maxUDP, false)
	}
	return m
}

// refusal is a reply that says what went wrong, also in words where the asker understands them (RFC 8914).
func refusal(q *dns.Msg, rcode int, code uint16, why string) *dns.Msg {
	m := base(q)
	m.Rcode = rcode
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: why})
	}
	return m
}
