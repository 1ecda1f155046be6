package confine

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// packet4 makes an IPv4 packet with eight or more bytes behind its header, the first four of them ports.
func packet4(proto uint8, to netip.Addr, port uint16, size int, flags uint8, offset uint16) []byte {
	b := make([]byte, 20+size)
	header.IPv4(b).Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)), TTL: 64, Protocol: proto, Flags: flags, FragmentOffset: offset,
		SrcAddr: tcpip.AddrFrom4(insideAddress.As4()), DstAddr: tcpip.AddrFrom4(to.As4()),
	})
	header.IPv4(b).SetChecksum(^header.IPv4(b).CalculateChecksum())
	binary.BigEndian.PutUint16(b[22:], port)
	return b
}

func packet6(proto uint8, to string, port uint16, size int) []byte {
	b := make([]byte, 40+size)
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(size), HopLimit: 64, TransportProtocol: tcpip.TransportProtocolNumber(proto),
		SrcAddr: tcpip.AddrFrom16(inside6Address.As16()), DstAddr: tcpip.AddrFrom16(netip.MustParseAddr(to).As16()),
	})
	binary.BigEndian.PutUint16(b[42:], port)
	return b
}

// Only TCP and questions to the resolver reach the stack.
func TestJudge(t *testing.T) {
	t.Parallel()
	far := netip.MustParseAddr("192.0.2.1")
	for _, test := range []struct {
		name   string
		packet []byte
		want   verdict
	}{
		{"TCP", packet4(6, far, 80, 20, 0, 0), accept},
		{"TCP over IPv6", packet6(6, "2001:db8::1", 80, 20), accept},
		{"short TCP", packet4(6, far, 80, 19, 0, 0), drop},
		{"first fragment", packet4(6, far, 80, 24, header.IPv4FlagMoreFragments, 0), drop},
		{"later fragment", packet4(6, far, 80, 24, 0, 64), drop},
		{"question", packet4(17, resolverAddress, 53, 20, 0, 0), accept},
		{"question elsewhere", packet4(17, far, 53, 20, 0, 0), refuse},
		{"UDP to the resolver", packet4(17, resolverAddress, 54, 20, 0, 0), refuse},
		{"UDP over IPv6", packet6(17, "2001:db8::1", 53, 20), refuse},
		{"SCTP", packet4(132, far, 80, 20, 0, 0), refuse},
		{"broadcast", packet4(6, netip.MustParseAddr("255.255.255.255"), 80, 20, 0, 0), drop},
		{"multicast", packet4(17, netip.MustParseAddr("224.0.0.251"), 5353, 20, 0, 0), drop},
		{"nothing", nil, drop},
		{"neither version", []byte{0x50, 0, 0}, drop},
		{"hop-by-hop", packet6(0, "2001:db8::1", 80, 20), refuse},
	} {
		if got := judge(test.packet); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// Whatever the program writes into its device, judge decides and unreachable answers without a panic, and the answer
// is a well-formed packet to the sender.
func FuzzJudge(f *testing.F) {
	f.Add(packet4(17, netip.MustParseAddr("192.0.2.1"), 53, 20, 0, 0))
	f.Add(packet6(17, "2001:db8::1", 53, 20))
	f.Add(packet4(6, netip.MustParseAddr("192.0.2.1"), 80, 20, 0, 0))
	f.Fuzz(func(t *testing.T, p []byte) {
		if judge(p) == drop {
			return
		}
		out := unreachable(p, hostUnreachable)
		switch out[0] >> 4 {
		case 4:
			ip := header.IPv4(out)
			if !ip.IsValid(len(out)) || !ip.IsChecksumValid() || ip.DestinationAddress() != header.IPv4(p).SourceAddress() || checksum.Checksum(out[20:], 0) != 0xffff {
				t.Errorf("%x is answered by %x", p, out)
			}
		case 6:
			ip := header.IPv6(out)
			if !ip.IsValid(len(out)) || ip.DestinationAddress() != header.IPv6(p).SourceAddress() {
				t.Errorf("%x is answered by %x", p, out)
			}
		}
	})
}

// A name keeps its address while it is used, and the least lately used makes room.
func TestNamesHaveStableAddresses(t *testing.T) {
	t.Parallel()
	n := newNames(2)
	a, b := n.address("a.example"), n.address("b.example")
	if a == b || !namesPrefix.Contains(a) || n.address("A.Example") != a {
		t.Fatalf("%v and %v", a, b)
	}
	c := n.address("c.example") // b's
	if got, ok := n.name(c); c != b || !ok || got != "c.example" {
		t.Errorf("%v stands for %q", c, got)
	}
	if got, _ := n.name(a); got != "a.example" {
		t.Errorf("%v stands for %q", a, got)
	}
	if _, ok := n.name(netip.MustParseAddr("198.18.9.9")); ok {
		t.Error("an address that no name has stands for one")
	}
	all := newNames(maxNames)
	seen := map[netip.Addr]bool{}
	for i := range maxNames {
		x := all.address("n" + string(rune('a'+i%26)) + netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}).String())
		if seen[x] || !namesPrefix.Contains(x) || x == insideAddress || x == resolverAddress {
			t.Fatalf("name %d has %v", i, x)
		}
		seen[x] = true
	}
}

// answer keeps what a handler writes.
type answer struct {
	dns.ResponseWriter
	m *dns.Msg
}

func (a *answer) WriteMsg(m *dns.Msg) error { a.m = m; return nil }

func ask(n *names, name string, kind uint16) *dns.Msg {
	var a answer
	n.ServeDNS(&a, new(dns.Msg).SetQuestion(name, kind))
	return a.m
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	n := newNames(maxNames)
	m := ask(n, "site.example.", dns.TypeA)
	if len(m.Answer) != 1 {
		t.Fatal(m)
	}
	stands := m.Answer[0].(*dns.A).A
	if got, _ := n.name(netip.AddrFrom4([4]byte(stands.To4()))); got != "site.example" {
		t.Errorf("%v stands for %q", stands, got)
	}
	back, _ := dns.ReverseAddr(stands.String())
	if m := ask(n, back, dns.TypePTR); len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != "site.example." {
		t.Errorf("the other way: %v", m)
	}
	for _, test := range []struct {
		name  string
		kind  uint16
		rcode int
	}{
		{"site.example.", dns.TypeAAAA, dns.RcodeSuccess},
		{"site.example.", dns.TypeHTTPS, dns.RcodeSuccess},
		{"site.example.", dns.TypeMX, dns.RcodeNotImplemented},
		{"1.2.0.192.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError},
		{"x.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError},
		{`a\000b.example.`, dns.TypeA, dns.RcodeNameError},
		{".", dns.TypeA, dns.RcodeNameError},
	} {
		if m := ask(n, test.name, test.kind); m.Rcode != test.rcode || len(m.Answer) != 0 {
			t.Errorf("%s %d: %v", test.name, test.kind, m)
		}
	}
}

// The filter, run on what the kernel would show it, but in the byte order of bpf.VM; the filter loads whole words.
func TestFilter(t *testing.T) {
	t.Parallel()
	run := func(unixSockets bool, arch, number uint32, args ...uint32) uint32 {
		t.Helper()
		vm, err := bpf.NewVM(filter(unixSockets))
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 64)
		binary.BigEndian.PutUint32(data[dataNumber:], number)
		binary.BigEndian.PutUint32(data[dataArch:], arch)
		for i, a := range args {
			binary.BigEndian.PutUint32(data[dataArgs+8*i:], a)
		}
		out, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(out)
	}
	family, permission, missing := answerErrno(unix.EAFNOSUPPORT), answerErrno(unix.EPERM), answerErrno(unix.ENOSYS)
	for _, test := range []struct {
		name         string
		plain, local uint32 // without and with Unix sockets
		number       uint32
		args         []uint32
	}{
		{"read", answerAllow, answerAllow, unix.SYS_READ, nil},
		{"TCP", answerAllow, answerAllow, unix.SYS_SOCKET, []uint32{unix.AF_INET, 1, 0}},
		{"TCP6", answerAllow, answerAllow, unix.SYS_SOCKET, []uint32{unix.AF_INET6, 1, 0}},
		{"unix", family, answerAllow, unix.SYS_SOCKET, []uint32{unix.AF_UNIX, 1, 0}},
		{"vsock", family, family, unix.SYS_SOCKET, []uint32{unix.AF_VSOCK, 1, 0}},
		{"packet", family, family, unix.SYS_SOCKET, []uint32{unix.AF_PACKET, 3, 0}},
		{"routes", answerAllow, answerAllow, unix.SYS_SOCKET, []uint32{unix.AF_NETLINK, 3, unix.NETLINK_ROUTE}},
		{"socket list", answerAllow, answerAllow, unix.SYS_SOCKET, []uint32{unix.AF_NETLINK, 3, unix.NETLINK_SOCK_DIAG}},
		{"netfilter", family, family, unix.SYS_SOCKET, []uint32{unix.AF_NETLINK, 3, unix.NETLINK_NETFILTER}},
		{"pair", answerAllow, answerAllow, unix.SYS_SOCKETPAIR, []uint32{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, 0}},
		{"pair of packets", answerAllow, answerAllow, unix.SYS_SOCKETPAIR, []uint32{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}},
		{"pair of datagrams", family, answerAllow, unix.SYS_SOCKETPAIR, []uint32{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK, 0}},
		{"raw pair", family, answerAllow, unix.SYS_SOCKETPAIR, []uint32{unix.AF_UNIX, unix.SOCK_RAW, 0}},
		{"TIPC pair", family, family, unix.SYS_SOCKETPAIR, []uint32{unix.AF_TIPC, unix.SOCK_STREAM, 0}},
		{"io_uring", missing, missing, unix.SYS_IO_URING_SETUP, nil},
		{"setns", permission, permission, unix.SYS_SETNS, nil},
		{"TIOCSTI", permission, permission, unix.SYS_IOCTL, []uint32{0, unix.TIOCSTI}},
		{"TIOCLINUX", permission, permission, unix.SYS_IOCTL, []uint32{0, tioclinux}},
		{"TIOCGWINSZ", answerAllow, answerAllow, unix.SYS_IOCTL, []uint32{0, unix.TIOCGWINSZ}},
	} {
		if got := run(false, architecture, test.number, test.args...); got != test.plain {
			t.Errorf("%s: %#x, want %#x", test.name, got, test.plain)
		}
		if got := run(true, architecture, test.number, test.args...); got != test.local {
			t.Errorf("%s, with Unix sockets: %#x, want %#x", test.name, got, test.local)
		}
	}
	if got := run(true, unix.AUDIT_ARCH_I386, unix.SYS_READ); got != answerKill {
		t.Errorf("another architecture: %#x", got)
	}
	if architecture == unix.AUDIT_ARCH_X86_64 {
		if got := run(true, architecture, x32Bit|unix.SYS_SOCKET, unix.AF_VSOCK); got != missing {
			t.Errorf("x32: %#x", got)
		}
	}
}

func TestEnvironmentHasNoProxies(t *testing.T) {
	t.Parallel()
	got := environment([]string{"PATH=/bin", "http_proxy=x", "ALL_PROXY=y", "No_Proxy=z", "RES_OPTIONS=a", "SSH_AUTH_SOCK=/s", "PROXY=kept"})
	if len(got) != 2 || got[0] != "PATH=/bin" || got[1] != "PROXY=kept" {
		t.Error(got)
	}
}
