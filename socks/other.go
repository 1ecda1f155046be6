package socks

import (
	"fmt"
	"io"
)

// serveOther answers an application that does not speak SOCKS5, in its own language if it is one that people point at
// this port by mistake. Everything else is closed without a word: an answer would only tell a scanner what listens here.
func (c *session) serveOther(first byte) {
	switch {
	case first == 4:
		c.refuseSOCKS4()
	case c.startsHTTP():
		c.refuse(httpRefusal(c.conn.LocalAddr().String()), causeHTTP)
	case c.broken != nil:
		c.fail(c.broken)
	default:
		c.refuseSilently(causeGarbage)
	}
}

// refuseSOCKS4 answers with code 91, request rejected or failed.
//
//	request: version 4, command (1), port (2), address (4), user, NUL
//	answer:  0, code (1), port (2), address (4)
func (c *session) refuseSOCKS4() {
	var request [8]byte
	if _, err := io.ReadFull(c.in, request[:]); err != nil {
		c.fail(err)
		return
	}
	c.refuse([]byte{0, 91, 0, 0, 0, 0, 0, 0}, causeSOCKS4)
}

// Lengths in bytes of an HTTP method: GET, and a bound above those that are registered.
const (
	minMethod = 3
	maxMethod = 20
)

// startsHTTP reports whether the application's first bytes are an HTTP method: capital letters and a space. It reads no
// further than it must to tell.
func (c *session) startsHTTP() bool {
	for n := 1; n <= maxMethod+1; n++ {
		b, err := c.in.Peek(n)
		if err != nil {
			c.broken = err
			return false
		}
		switch last := b[n-1]; {
		case 'A' <= last && last <= 'Z':
		case last == ' ':
			return n > minMethod
		default:
			return false
		}
	}
	return false
}

// httpRefusal is the answer to an HTTP request; address is the one that the application reached.
func httpRefusal(address string) []byte {
	body := fmt.Sprintf("This is a SOCKS5 port, not an HTTP proxy or a web server.\n"+
		"Set your program to socks5h://%s (with the h, so that names are resolved by the exit).\n", address)
	return fmt.Appendf(nil, "HTTP/1.1 501 Not Implemented\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\n"+
		"Content-Length: %d\r\n"+
		"Cache-Control: no-store\r\n"+
		"Connection: close\r\n\r\n%s", len(body), body)
}
