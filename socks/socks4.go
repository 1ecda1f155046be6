package socks

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"

	"cepa/cell"
)

const (
	version4 = 4

	// maxField4 bounds the user id and the name of a SOCKS4 request, in bytes. SOCKS5 has the same bound.
	maxField4 = 255
)

// Reply codes of SOCKS4. It has two more, for a server that asks the application's machine who its user is.
const (
	reply4Granted = 90
	reply4Failed  = 91
)

var errMalformed4 = errors.New("malformed SOCKS4 request")

// request4 is a SOCKS4 or SOCKS4a request.
type request4 struct {
	command byte
	port    uint16
	ip      net.IP // 4 bytes
	user    []byte // 0 to maxField4 bytes
	host    string // of SOCKS4a: 1 to maxField4 bytes; "" in SOCKS4
}

// readRequest4 reads a request of SOCKS4 ("SOCKS: A protocol for TCP proxy across firewalls", Ying-Da Lee) or SOCKS4a
// (its extension by the same), and not a byte more. An address of 0.0.0.x with x not 0 says that a name follows.
//
//	0  1  version, 4
//	1  1  command: 1 CONNECT, 2 BIND; Tor's: F0 RESOLVE, F1 RESOLVE_PTR
//	2  2  port
//	4  4  address
//	8     user id, and a zero byte
//	      SOCKS4a: name, and a zero byte
func readRequest4(in *bufio.Reader) (*request4, error) {
	var head [8]byte
	for i := range head {
		b, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		head[i] = b
	}
	r := &request4{command: head[1], port: binary.BigEndian.Uint16(head[2:]), ip: net.IP(head[4:8])}
	var err error
	if r.user, err = readField4(in); err != nil {
		return nil, err
	}
	if head[4] == 0 && head[5] == 0 && head[6] == 0 && head[7] != 0 {
		name, err := readField4(in)
		if err != nil {
			return nil, err
		}
		if len(name) == 0 {
			return nil, errMalformed4
		}
		r.host = string(name)
	}
	return r, nil
}

// readField4 reads bytes up to a zero.
func readField4(in *bufio.Reader) ([]byte, error) {
	var field []byte
	for {
		b, err := in.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case b == 0:
			return field, nil
		case len(field) == maxField4:
			return nil, errMalformed4
		}
		field = append(field, b)
	}
}

// serveSOCKS4 reads a request and connects. The user id is an isolation key; an empty one is none.
func (c *session) serveSOCKS4() {
	c.protocol = protocolSOCKS4
	r, err := readRequest4(c.in)
	switch {
	case errors.Is(err, errMalformed4):
		c.logRefusal(causeMalformed)
		c.refuse(appendReply4(nil, reply4Failed, cell.Address{}), causeMalformed)
		return
	case err != nil:
		c.fail(err)
		return
	}
	c.command = r.command
	if len(r.user) > 0 {
		c.credentials = &credentials{user: r.user}
	}
	known := r.command == 1 || c.server.config.Resolver != nil && c.looksUp()
	if !known {
		c.logRefusal(causeCommand)
		c.refuse(appendReply4(nil, reply4Failed, cell.Address{}), causeCommand)
		return
	}
	verdict := c.accept(r.host, r.ip, int(r.port))
	if verdict == nil {
		verdict = c.connect()
	}
	switch {
	case verdict == nil && c.answer != nil:
		if c.write(c.answer) == nil {
			c.served = true
		}
	case verdict == nil:
		c.succeed(appendReply4(nil, reply4Granted, cell.Address{}))
	case verdict.code == 0:
		c.refuseSilently(verdict.cause)
	default:
		c.refuse(appendReply4(nil, reply4Failed, cell.Address{}), verdict.cause)
	}
}

// succeed tells the application that its stream is open.
func (c *session) succeed(reply []byte) {
	if c.write(reply) != nil {
		c.stream.Close()
		c.refuseSilently(causeHungUp)
		return
	}
	c.connected = true
}

// appendReply4 appends a SOCKS4 reply: with the IPv4 address that was looked up, else 0.0.0.0.
//
//	0  1  version of the reply, 0
//	1  1  code
//	2  2  port, 0
//	4  4  address
func appendReply4(b []byte, code byte, a cell.Address) []byte {
	ip := [4]byte{}
	if a.IP.Is4() {
		ip = a.IP.As4()
	}
	return append(append(b, 0, code, 0, 0), ip[:]...)
}
