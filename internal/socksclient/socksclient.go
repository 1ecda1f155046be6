// Package socksclient opens streams through the SOCKS5 port of a running client, and says why one could not be opened.
// It resolves no names and never connects to anything but the port. The commands exec, connect and check use it. Dial
// may be called from any goroutine.
package socksclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Dialer is a way to a SOCKS5 port (RFC 1928).
type Dialer struct {
	Address string // host:port of the SOCKS port
	User    string // isolation key, 1 to 255 bytes (RFC 1929); empty: none is said
}

// Code is a reply code of RFC 1928, section 6, or of what happened before one came.
type Code int

// Replies that callers tell apart.
const (
	CodeNoAnswer           Code = -1 // nobody answers on the port
	CodeProtocol           Code = -2 // what answers is no SOCKS5 port
	CodeGeneral            Code = 1
	CodeNotAllowed         Code = 2
	CodeNetUnreachable     Code = 3
	CodeHostUnreachable    Code = 4
	CodeRefused            Code = 5
	CodeTimeout            Code = 6
	CodeAddressUnsupported Code = 8
)

// Error is why a stream could not be opened.
type Error struct {
	Code Code
	Err  error // the cause, for CodeNoAnswer and CodeProtocol
	port string
}

func (e *Error) Unwrap() error { return e.Err }

func (e *Error) Error() string {
	switch e.Code {
	case CodeNoAnswer:
		return fmt.Sprintf("no client answers on %s (%v): start one ('cepa client', or 'cepa demo' to try), or name its port with --socks", e.port, e.Err)
	case CodeProtocol:
		return fmt.Sprintf("what answers on %s is no SOCKS5 port (%v): name that of a client with --socks", e.port, e.Err)
	case CodeNotAllowed:
		return "it is not allowed: the client refuses the address, or no exit's policy has it"
	case CodeNetUnreachable:
		return "the exit has no way to that network"
	case CodeHostUnreachable:
		return "the name does not resolve, or the host cannot be reached"
	case CodeRefused:
		return "the destination refused the connection"
	case CodeTimeout:
		return "the destination did not answer in time"
	case CodeAddressUnsupported:
		return "the client does not take this form of address"
	}
	return fmt.Sprintf("the client has no circuit for it now (SOCKS reply %d): 'cepa status DIR' says how the client is", int(e.Code))
}

// Longest name that a SOCKS request carries, in bytes.
const maxName = 255

// Conn is an open stream.
type Conn struct{ *net.TCPConn }

// Dial opens a stream to host, a name or an IP address, and port. It returns an *Error, or the error of ctx.
func (d Dialer) Dial(ctx context.Context, host string, port uint16) (*Conn, error) {
	request, err := appendRequest(nil, host, port)
	if err != nil {
		return nil, err
	}
	c, err := d.greet(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = d.ask(c, request)
	if !stop() {
		<-ctx.Done()
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Check finds out whether a SOCKS5 port answers, without asking it for a stream.
func (d Dialer) Check(ctx context.Context) error {
	c, err := d.greet(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// greet connects and agrees on a method.
func (d Dialer) greet(ctx context.Context) (*Conn, error) {
	var plain net.Dialer
	n, err := plain.DialContext(ctx, "tcp", d.Address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, &Error{Code: CodeNoAnswer, Err: err, port: d.Address}
	}
	c := &Conn{n.(*net.TCPConn)}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = d.method(c)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// greetTimeout bounds what needs no network: a port that takes the connection and says nothing is no SOCKS port.
const greetTimeout = 10 * time.Second

func (d Dialer) method(c *Conn) error {
	_ = c.SetDeadline(time.Now().Add(greetTimeout))
	hello := []byte{5, 1, 0}
	if d.User != "" {
		hello[2] = 2
	}
	var answer [2]byte
	if _, err := c.Write(hello); err != nil {
		return d.protocol(err)
	}
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return d.protocol(err)
	}
	if answer != [2]byte{5, hello[2]} {
		return d.protocol(fmt.Errorf("it answered %x", answer))
	}
	if d.User != "" {
		if len(d.User) > 255 {
			return errors.New("the isolation key is longer than 255 bytes")
		}
		b := append([]byte{1, byte(len(d.User))}, d.User...)
		if _, err := c.Write(append(b, 1, 'x')); err != nil {
			return d.protocol(err)
		}
		if _, err := io.ReadFull(c, answer[:]); err != nil || answer != [2]byte{1, 0} {
			return d.protocol(fmt.Errorf("user and password were refused: %x, %v", answer, err))
		}
	}
	return c.SetDeadline(time.Time{})
}

func (d Dialer) protocol(err error) error {
	return &Error{Code: CodeProtocol, Err: err, port: d.Address}
}

// ask sends the request and reads the reply.
func (d Dialer) ask(c *Conn, request []byte) error {
	if _, err := c.Write(request); err != nil {
		return d.protocol(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return d.protocol(err)
	}
	if head[0] != 5 {
		return d.protocol(fmt.Errorf("its reply begins with %x", head))
	}
	if head[1] != 0 {
		return &Error{Code: Code(head[1]), port: d.Address}
	}
	rest := 0
	switch head[3] {
	case 1:
		rest = 4
	case 4:
		rest = 16
	case 3:
		var size [1]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return d.protocol(err)
		}
		rest = int(size[0])
	default:
		return d.protocol(fmt.Errorf("its reply has the address type %d", head[3]))
	}
	if _, err := io.CopyN(io.Discard, c, int64(rest)+2); err != nil {
		return d.protocol(err)
	}
	return nil
}

// appendRequest appends a CONNECT request. Names travel as names.
func appendRequest(b []byte, host string, port uint16) ([]byte, error) {
	b = append(b, 5, 1, 0)
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		a = a.Unmap()
		if a.Is4() {
			b = append(b, 1)
		} else {
			b = append(b, 4)
		}
		b = append(b, a.AsSlice()...)
	} else {
		if len(host) == 0 || len(host) > maxName {
			return nil, fmt.Errorf("a host name has 1 to %d bytes, this has %d", maxName, len(host))
		}
		b = append(append(b, 3, byte(len(host))), host...)
	}
	return binary.BigEndian.AppendUint16(b, port), nil
}
