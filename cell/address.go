package cell

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
)

// MaxHost is the length in bytes of the longest host name.
const MaxHost = 255

// Types of a typed address on the wire.
const (
	addressNone = 0 // CONNECTED only: not told
	addressIPv4 = 1
	addressHost = 2
	addressIPv6 = 3
)

// Address is where a stream goes: an IP address or a host name, exactly one of them set.
//
// Each destination has one encoding. An IPv4 address is never written as IPv6, an IPv6 address has no zone, and a host
// name is 1 to MaxHost bytes from '!' to '~' that are not an IP address in text.
type Address struct {
	IP   netip.Addr
	Host string
}

// IPAddress returns ip as an Address; an IPv4 address mapped to IPv6 becomes plain IPv4.
func IPAddress(ip netip.Addr) Address { return Address{IP: ip.Unmap()} }

// ParseAddress returns the address that an application means by s: an IP address without brackets, else a host name.
// The error is an *Error.
func ParseAddress(s string) (Address, error) {
	a := Address{Host: s}
	if ip, err := netip.ParseAddr(s); err == nil {
		a = IPAddress(ip)
	}
	if err := a.check(); err != nil {
		return Address{}, &Error{What: "parsing address", Offset: -1, Why: err.Error()}
	}
	return a, nil
}

// IsIP reports whether a is an IP address and not a host name.
func (a Address) IsIP() bool { return a.IP.IsValid() }

// String returns the host name, or the IP address in text. It names a destination: not for logs.
func (a Address) String() string {
	if a.IsIP() {
		return a.IP.String()
	}
	return a.Host
}

// check returns why a has no encoding.
func (a Address) check() error {
	switch {
	case a.IsIP() && a.Host != "":
		return errors.New("address has both an IP address and a host name")
	case a.IsIP():
		return checkIP(a.IP)
	}
	return checkHost(a.Host)
}

func checkIP(ip netip.Addr) error {
	switch {
	case ip.Is4In6():
		return errors.New("IPv4 address mapped to IPv6")
	case ip.Zone() != "":
		return errors.New("IPv6 address with a zone")
	}
	return nil
}

func checkHost(host string) error {
	if len(host) == 0 || len(host) > MaxHost {
		return fmt.Errorf("host name of %d bytes, 1 to %d are possible", len(host), MaxHost)
	}
	for i := range len(host) {
		if c := host[i]; c < '!' || c > '~' {
			return fmt.Errorf("byte %#02x in a host name", c)
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return errors.New("IP address written as a host name")
	}
	return nil
}

// address reads a typed address.
//
//	0  1       type: 1 IPv4, 2 host name, 3 IPv6
//	1  1       length: 4, 1 to 255, 16
//	2  length  value
func (r *reader) address() Address {
	typ := r.uint8("address type")
	start := r.at
	n := int(r.uint8("address length"))
	length := r.at
	value := r.bytes(n, "address")
	var a Address
	switch {
	case r.err != nil:
	case typ == addressIPv4 && n == 4, typ == addressIPv6 && n == 16:
		a.IP, _ = netip.AddrFromSlice(value)
		if err := checkIP(a.IP); err != nil {
			r.failf("%v", err)
		}
	case typ == addressHost && n > 0:
		a.Host = string(value)
		if err := checkHost(a.Host); err != nil {
			r.failf("%v", err)
		}
	case typ == addressIPv4, typ == addressIPv6, typ == addressHost:
		r.at = length
		r.failf("length %d for address type %d", n, typ)
	default:
		r.at = start
		r.failf("unknown address type %d", typ)
	}
	return a
}

// addAddress writes a typed address that check has accepted.
func addAddress(b *cryptobyte.Builder, a Address) {
	switch {
	case a.IP.Is4():
		v := a.IP.As4()
		b.AddUint8(addressIPv4)
		b.AddUint8(4)
		b.AddBytes(v[:])
	case a.IP.Is6():
		v := a.IP.As16()
		b.AddUint8(addressIPv6)
		b.AddUint8(16)
		b.AddBytes(v[:])
	default:
		b.AddUint8(addressHost)
		b.AddUint8(uint8(len(a.Host)))
		b.AddBytes([]byte(a.Host))
	}
}
