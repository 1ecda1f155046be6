package socks

import (
	"net/netip"
	"strconv"
	"strings"
)

// parseNumber reads an IPv4 address in the other ways of writing one that inet_aton takes: one to four numbers with
// dots between them, each decimal, octal behind "0" or hexadecimal behind "0x", of which the last fills all bytes that
// are left ("2130706433", "0x7f.1", "127.1" and "0177.0.0.1" are all 127.0.0.1). It is not ok for anything else.
//
// Programs differ in what they make of such a name: the one here is that of getaddrinfo and of browsers (WHATWG URL,
// "IPv4 parser"), so that no policy is evaded by a spelling that somebody further along reads as an address.
func parseNumber(host string) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (4 - i)
		}
		n, ok := number(part, bits)
		if !ok {
			return netip.Addr{}, false
		}
		value = value<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// number reads one part, of at most so many bits.
func number(text string, bits int) (uint64, bool) {
	base := 10
	if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		text, base = hex, 16
	} else if len(text) > 1 && text[0] == '0' {
		text, base = text[1:], 8
	}
	n, err := strconv.ParseUint(text, base, bits)
	return n, err == nil
}
