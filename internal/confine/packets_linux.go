package confine

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// verdict is what is done with a packet of the program.
type verdict int

const (
	drop   verdict = iota // no answer: it is no packet, or none that one answers
	refuse                // it is answered with ICMP
	accept                // the stack gets it
)

// judge decides about an IP packet: TCP to anywhere goes to the stack, UDP only to the resolver. Fragments and
// IPv6 extension headers are refused: no TCP of this kernel needs them here.
func judge(p []byte) verdict {
	var proto uint8
	var to netip.Addr
	var payload []byte
	switch {
	case len(p) >= header.IPv4MinimumSize && p[0]>>4 == 4:
		ip := header.IPv4(p)
		if !ip.IsValid(len(p)) {
			return drop
		}
		to = netip.AddrFrom4(ip.DestinationAddress().As4())
		if ip.More() || ip.FragmentOffset() != 0 {
			return drop
		}
		proto, payload = ip.Protocol(), p[ip.HeaderLength():ip.TotalLength()]
	case len(p) >= header.IPv6MinimumSize && p[0]>>4 == 6:
		ip := header.IPv6(p)
		if !ip.IsValid(len(p)) {
			return drop
		}
		to = netip.AddrFrom16(ip.DestinationAddress().As16())
		proto, payload = ip.NextHeader(), p[header.IPv6MinimumSize:header.IPv6MinimumSize+int(ip.PayloadLength())]
	default:
		return drop
	}
	if to.IsMulticast() || to.IsUnspecified() || to == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return drop
	}
	switch proto {
	case uint8(header.TCPProtocolNumber):
		if len(payload) < header.TCPMinimumSize {
			return drop
		}
		return accept
	case uint8(header.UDPProtocolNumber):
		if len(payload) < header.UDPMinimumSize {
			return drop
		}
		if to == resolverAddress && binary.BigEndian.Uint16(payload[2:]) == 53 {
			return accept
		}
		return refuse
	case uint8(header.ICMPv4ProtocolNumber):
		if to.Is4() && len(payload) > 0 && header.ICMPv4Type(payload[0]) == header.ICMPv4Echo {
			return refuse
		}
		return drop // errors are not answered (RFC 1122, section 3.2.2)
	case uint8(header.ICMPv6ProtocolNumber):
		if to.Is6() && len(payload) > 0 && header.ICMPv6Type(payload[0]) == header.ICMPv6EchoRequest {
			return refuse
		}
		return drop
	}
	return refuse
}

// Codes of "destination unreachable" (RFC 792, RFC 1812; RFC 4443).
const (
	netUnreachable  = 0
	hostUnreachable = 1
	prohibited      = 13
)

// unreachable makes the ICMP message that tells the sender of p, an IP packet that judge has read, that it cannot be
// delivered. p is copied.
func unreachable(p []byte, code uint8) []byte {
	if p[0]>>4 == 4 {
		ip := header.IPv4(p)
		quote := p[:min(len(p), int(ip.HeaderLength())+64)]
		const at = header.IPv4MinimumSize
		out := make([]byte, at+header.ICMPv4MinimumSize+len(quote))
		copy(out[at+header.ICMPv4MinimumSize:], quote)
		header.IPv4(out).Encode(&header.IPv4Fields{
			TotalLength: uint16(len(out)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
			SrcAddr: ip.DestinationAddress(), DstAddr: ip.SourceAddress(),
		})
		header.IPv4(out).SetChecksum(^header.IPv4(out).CalculateChecksum())
		icmp := header.ICMPv4(out[at:])
		icmp.SetType(header.ICMPv4DstUnreachable)
		icmp.SetCode(header.ICMPv4Code(code))
		icmp.SetChecksum(^checksum.Checksum(icmp, 0))
		return out
	}
	ip := header.IPv6(p)
	quote := p[:min(len(p), 512)]
	const at = header.IPv6MinimumSize
	out := make([]byte, at+header.ICMPv6DstUnreachableMinimumSize+len(quote))
	copy(out[at+header.ICMPv6DstUnreachableMinimumSize:], quote)
	header.IPv6(out).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(out) - at), HopLimit: 64, TransportProtocol: header.ICMPv6ProtocolNumber,
		SrcAddr: ip.DestinationAddress(), DstAddr: ip.SourceAddress(),
	})
	icmp := header.ICMPv6(out[at:])
	icmp.SetType(header.ICMPv6DstUnreachable)
	switch code {
	case prohibited:
		icmp.SetCode(1)
	case hostUnreachable:
		icmp.SetCode(3)
	default:
		icmp.SetCode(0)
	}
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: ip.DestinationAddress(), Dst: ip.SourceAddress()}))
	return out
}
