package socks

import (
	"context"

	socks5 "github.com/armon/go-socks5"

	"cepa/cell"
)

// Tor's commands of SOCKS5 (socks-extensions.txt, section 2). A request has a port, which means nothing. The reply to
// RESOLVE has an address of type 1 or 4, that to RESOLVE_PTR a name, type 3; the port is 0, and the connection ends.
const (
	commandResolve    = 0xf0
	commandResolvePTR = 0xf1
)

// libraryCommand is the command of a request, and what the library is to see in its place: it knows none of Tor's.
func libraryCommand(b byte, resolves bool) (command, seen byte) {
	if resolves && (b == commandResolve || b == commandResolvePTR) {
		return b, socks5.ConnectCommand
	}
	return b, b
}

// looksUp says whether the request is one of Tor's look-ups. SOCKS4 has RESOLVE only: its reply has no room for a name.
func (c *session) looksUp() bool {
	switch c.protocol {
	case protocolSOCKS5:
		return c.command == commandResolve || c.command == commandResolvePTR
	case protocolSOCKS4:
		return c.command == commandResolve
	}
	return false
}

// lookUp finds the answer of a look-up. The address of an address is known without asking.
func (c *session) lookUp() error {
	if c.command == commandResolve && c.request.IP.IsValid() {
		return c.setAnswer(cell.Address{IP: c.request.IP}, true)
	}
	answers, err := perform(c, func(ctx context.Context, r Request) ([]cell.Address, error) {
		answers, _, err := c.server.config.Resolver.Resolve(ctx, r)
		return answers, err
	}, func([]cell.Address) {})
	if err != nil {
		return err
	}
	return c.setAnswer(choose(answers, c.command == commandResolvePTR))
}

// setAnswer makes the reply, if there is one and it has room.
func (c *session) setAnswer(best cell.Address, ok bool) error {
	switch {
	case !ok || c.protocol == protocolSOCKS4 && !best.IP.Is4():
		return &Error{Reason: cell.ReasonNoSuchHost, Scrubbed: "there is no answer of the kind that was asked for"}
	case c.protocol == protocolSOCKS4:
		c.answer = appendReply4(nil, reply4Granted, best)
	default:
		c.answer = appendAnswer(nil, best)
	}
	return nil
}

// choose takes the one answer that a reply has room for: the first name, or the first IPv4 address, or the first one.
// Tor prefers IPv4 too, and programs that use its port expect it.
func choose(answers []cell.Address, name bool) (best cell.Address, ok bool) {
	for _, a := range answers {
		switch {
		case a.IsIP() == name, !name && ok && !a.IP.Is4():
		case name, a.IP.Is4():
			return a, true
		default:
			best, ok = a, true
		}
	}
	return best, ok
}

// appendAnswer appends a reply of success with an address of 4 or 16 bytes, or a name of 1 to 255.
//
//	0  1  version, 5
//	1  1  code, 0
//	2  1  reserved, 0
//	3  1  address type: 1 IPv4, 3 name, 4 IPv6
//	4     address; a name is preceded by its length in one byte
//	   2  port, 0
func appendAnswer(b []byte, a cell.Address) []byte {
	b = append(b, version5, replySucceeded, 0)
	switch {
	case !a.IsIP():
		b = append(append(b, 3, byte(len(a.Host))), a.Host...)
	case a.IP.Is4():
		b = append(append(b, 1), a.IP.AsSlice()...)
	default:
		b = append(append(b, 4), a.IP.AsSlice()...)
	}
	return append(b, 0, 0)
}
