package socks

// serveOther serves an application that does not speak SOCKS5. What speaks nothing that is known here is closed without a
// word: an answer would only tell a scanner what listens here.
func (c *session) serveOther(first byte) {
	switch {
	case first == version4:
		c.serveSOCKS4()
	case c.startsHTTP():
		c.serveHTTP()
	case c.broken != nil:
		c.fail(c.broken)
	default:
		c.refuseSilently(causeGarbage)
	}
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
