package socks

import (
	"errors"
	"net"
	"net/netip"
	"strings"
)

// Longest host name that the DNS can carry, without the dot that may end it, and its longest label, both in bytes
// (RFC 1035, section 2.3.4). SOCKS could carry 255.
const (
	maxName  = 253
	maxLabel = 63
)

// setDestination fills in Host or IP, and Port, from the address in a request: host when it came as a domain name, else
// ip, 4 or 16 bytes. An IP address written as a domain name, in brackets or not, or as a number, becomes an IP, and IPv4
// mapped to IPv6 becomes IPv4, so that each destination has one form and no policy is evaded by another spelling.
func (r *Request) setDestination(host string, ip net.IP, port int) error {
	if port < 1 || port > 65535 {
		return errors.New("port 0")
	}
	if err := r.setAddress(host, ip); err != nil {
		return err
	}
	r.Port = uint16(port)
	return nil
}

// setAddress is setDestination for a request that has no port: a look-up.
func (r *Request) setAddress(host string, ip net.IP) error {
	r.Host, r.IP, r.Port = "", netip.Addr{}, 0
	if host == "" {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return errors.New("empty host name")
		}
		r.IP = addr.Unmap()
		return nil
	}
	addr, err := parseLiteral(host)
	if err == nil {
		r.IP = addr
		return nil
	}
	if addr, ok := parseNumber(host); ok {
		r.IP = addr
		return nil
	}
	if err := checkName(host); err != nil {
		return err
	}
	r.Host = host
	return nil
}

// parseLiteral reads an IP address that came as a domain name.
func parseLiteral(host string) (netip.Addr, error) {
	bare := strings.TrimSuffix(host, ".")
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			bare = inner
		}
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		return netip.Addr{}, err
	}
	if addr.Zone() != "" {
		return netip.Addr{}, errors.New("IPv6 address with a zone")
	}
	return addr.Unmap(), nil
}

// checkName returns why host is no name that the DNS could have. The character set is the one that names have in
// practice: letters, digits, hyphen and underscore. What it must keep out is what an exit's resolver, or a log, could
// read as something else: NUL, spaces, separators, and what ends in a number but is no address, such as "1.2.3.256".
// Browsers refuse those for the same reason (WHATWG URL, "ends in a number").
func checkName(host string) error {
	name := strings.TrimSuffix(host, ".")
	if len(name) == 0 || len(name) > maxName {
		return errors.New("host name is empty or longer than 253 bytes")
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > maxLabel {
			return errors.New("part of the host name is empty or longer than 63 bytes")
		}
		for i := range len(label) {
			if !isNameByte(label[i]) {
				return errors.New("host name has a character that no name has")
			}
		}
		last = label
	}
	if isNumber(last) {
		return errors.New("host name ends in a number")
	}
	return nil
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// isNumber reports whether label is a number to inet_aton: decimal or octal digits, or hexadecimal ones behind "0x".
func isNumber(label string) bool {
	digits := "0123456789"
	if hex, ok := strings.CutPrefix(strings.ToLower(label), "0x"); ok {
		label, digits = hex, "0123456789abcdef"
	}
	return strings.Trim(label, digits) == ""
}

// NewLookup is a Request without a port, for a [Resolver]: of a name, or of an address however it is written. The error
// does not name the host.
func NewLookup(host, isolation string) (Request, error) {
	r := Request{Isolation: isolation}
	return r, r.setAddress(host, nil)
}
