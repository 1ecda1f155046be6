package socks

import (
	"crypto/sha256"
	"encoding/binary"
	"net"
	"strings"
)

// credentials are the user and password of RFC 1929 or of an HTTP proxy, or the user id of SOCKS4, which has no password.
// They are not checked against anything: they only keep apart streams that must not share a circuit.
type credentials struct {
	user, password []byte
}

// isolationKey derives the opaque key of a connection. Two connections have the same key if and only if all that is
// configured to keep streams apart is the same. The key is a salted digest, so that it may be held for as long as a
// circuit lives, and shown, without holding or showing a password. It differs between servers and from run to run.
func (s *Server) isolationKey(client net.Addr, c *credentials, p protocol, r *Request) string {
	if s.config.sharesAll() {
		return ""
	}
	var b []byte
	// Each part is preceded by its length: ("ab", "c") and ("a", "bc") differ. No credentials differ from empty ones.
	field := func(v []byte) {
		b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
	}
	if !s.config.ShareCredentials && c != nil {
		b = append(b, 1)
		field(c.user)
		field(c.password)
	} else {
		b = append(b, 0)
	}
	if !s.config.ShareClients {
		field([]byte(clientAddress(client)))
	}
	if s.config.IsolateProtocol {
		field([]byte{byte(p)})
	}
	if s.config.IsolateDestination {
		field([]byte(strings.ToLower(strings.TrimSuffix(r.Host, ".")))) // "" of an address, and
		field(r.IP.AsSlice())                                           // nothing of a name
	}
	if s.config.IsolatePort {
		b = binary.BigEndian.AppendUint16(b, r.Port)
	}
	h := sha256.New()
	h.Write(s.salt[:])
	h.Write(b)
	return string(h.Sum(nil))
}

// sharesAll says that nothing keeps the streams of a server apart.
func (c *Config) sharesAll() bool {
	return c.ShareCredentials && c.ShareClients && !c.IsolateDestination && !c.IsolatePort && !c.IsolateProtocol
}

// clientAddress is the address of a client without its port, which is new for each connection.
func clientAddress(client net.Addr) string {
	tcp, ok := client.(*net.TCPAddr)
	if !ok {
		return client.Network()
	}
	return tcp.AddrPort().Addr().Unmap().String()
}
