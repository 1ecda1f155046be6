package confine

import (
	"container/list"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Addresses inside. 198.18.0.0/15 is kept for benchmarks (RFC 2544), so that no host on the Internet has one.
var (
	insideAddress   = netip.MustParseAddr("198.19.255.2") // of the program's device
	resolverAddress = netip.MustParseAddr("198.19.255.1")
	inside6Address  = netip.MustParseAddr("fd0c:e9a0::2")
	namesPrefix     = netip.MustParsePrefix("198.18.0.0/16") // stand for names
)

// Bounds of the names: how many have an address at a time, and how long a program may keep an answer, in seconds. An
// address gets another name only when this many others were asked for since.
const (
	maxNames = 1<<16 - 2
	nameTTL  = 60
)

// names gives each name an address that stands for it. It may be used from any goroutine.
type names struct {
	mu     sync.Mutex
	limit  int
	byName map[string]*list.Element // of *standIn
	byAddr map[netip.Addr]*list.Element
	recent list.List // the least lately used last
}

type standIn struct {
	name string
	addr netip.Addr
}

func newNames(limit int) *names {
	return &names{limit: limit, byName: map[string]*list.Element{}, byAddr: map[netip.Addr]*list.Element{}}
}

// address is what stands for a name, which has no dot at its end.
func (n *names) address(name string) netip.Addr {
	name = strings.ToLower(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.byName[name]; e != nil {
		n.recent.MoveToFront(e)
		return e.Value.(*standIn).addr
	}
	if n.recent.Len() >= n.limit {
		e := n.recent.Back()
		old := e.Value.(*standIn)
		delete(n.byName, old.name)
		old.name = name
		n.byName[name] = e
		n.recent.MoveToFront(e)
		return old.addr
	}
	base := namesPrefix.Addr().As4()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(base[:])+1+uint32(n.recent.Len()))
	s := &standIn{name, netip.AddrFrom4(b)}
	e := n.recent.PushFront(s)
	n.byName[name], n.byAddr[s.addr] = e, e
	return s.addr
}

// name is what an address stands for.
func (n *names) name(a netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.byAddr[a]
	if e == nil {
		return "", false
	}
	n.recent.MoveToFront(e)
	return e.Value.(*standIn).name, true
}

// ServeDNS answers questions for addresses. Nothing is asked outside: whether a name exists is found out by connecting.
func (n *names) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		m.SetRcode(q, dns.RcodeNotImplemented)
		_ = w.WriteMsg(m)
		return
	}
	m.SetReply(q)
	m.RecursionAvailable = true
	question := q.Question[0]
	name := strings.TrimSuffix(question.Name, ".")
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: nameTTL}
	switch {
	case question.Qclass != dns.ClassINET:
		m.Rcode = dns.RcodeNotImplemented
	case name == "" || !plainName(name):
		m.Rcode = dns.RcodeNameError
	case question.Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: n.address(name).AsSlice()}}
	case question.Qtype == dns.TypeAAAA || question.Qtype == dns.TypeHTTPS || question.Qtype == dns.TypeSVCB:
		// The name is there and has none of these.
	case question.Qtype == dns.TypePTR:
		a, ok := reverse(name)
		known := ""
		if ok {
			known, ok = n.name(a)
		}
		if !ok {
			m.Rcode = dns.RcodeNameError
			break
		}
		m.Answer = []dns.RR{&dns.PTR{Hdr: header, Ptr: dns.Fqdn(known)}}
	default:
		m.Rcode = dns.RcodeNotImplemented
	}
	_ = w.WriteMsg(m)
}

// plainName says whether a name can travel in a SOCKS request: letters, digits, hyphens, underscores, dots.
func plainName(name string) bool {
	return len(name) <= 253 && strings.IndexFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
	}) < 0
}

// reverse reads d.c.b.a.in-addr.arpa.
func reverse(name string) (netip.Addr, bool) {
	bare, ok := strings.CutSuffix(strings.ToLower(name), ".in-addr.arpa")
	parts := strings.Split(bare, ".")
	if !ok || len(parts) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return a, err == nil
}
