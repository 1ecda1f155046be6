package link

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"cepa/cell"
	"cepa/cert"
)

// handshake makes a link of a TCP connection: TLS, then one HELLO each way. want is the identity that was dialled, or
// zero on an accepted connection. The caller has set a deadline on tcp and closes it after an error.
func (t *Transport) handshake(tcp tcpConn, want cert.Identity) (*link, error) {
	remote, err := addrPort(tcp.RemoteAddr())
	if err != nil {
		return nil, err
	}
	s := t.secrets.Load()
	w := newWire(tcp, &t.largeReads)
	var c *tls.Conn
	keys := &trafficSecrets{log: t.cfg.KeyLog}
	if want.IsZero() {
		c = tls.Server(w, keys.in(s.server))
	} else {
		c = tls.Client(w, keys.in(s.client))
	}
	if err := c.Handshake(); err != nil {
		return nil, explainTLS(err)
	}
	w.given = 0 // from here on the records count that the traffic secrets protect
	now := t.cfg.Now()
	if err := t.sendHello(c, s.credentials, now, remote.Addr()); err != nil {
		return nil, err
	}
	// cell.Size and no more: what else has come stays with TLS until the reader asks for it.
	var first [cell.Size]byte
	if n, err := io.ReadFull(c, first[:]); err != nil {
		if says := protocolOf([5]byte(first[:5])); n >= 5 && says != "" && errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, foreign{fmt.Errorf("%w: the far end answered with %s", ErrHello, says)}
		}
		return nil, explainRead(err)
	}
	h, err := openHelloCell(first[:])
	if err != nil {
		return nil, err
	}
	session := session{
		network: t.cfg.Network, self: s.identity, want: want,
		leaf: leafKey(c.ConnectionState()), now: now,
	}
	peer, err := session.judge(h)
	if err != nil {
		return nil, err
	}
	peer.Address = remote
	if err := tcp.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	tune(tcp)
	// What else came in the record with HELLO.
	w.stream()
	rest := make([]byte, maxPlain)
	n, err := c.Read(rest)
	if err != nil && err != errWouldBlock {
		return nil, explainRead(err)
	}
	// This end has written HELLO: one record.
	in, out, err := keys.takeOver(c.ConnectionState(), !want.IsZero(), 1, w.given)
	if err != nil {
		return nil, err
	}
	return newLink(t, peer, in, out, append([]byte(nil), rest[:n]...), w, tcp), nil
}

func (t *Transport) sendHello(c *tls.Conn, credentials *Credentials, now time.Time, remote netip.Addr) error {
	h := clientHello(t.cfg.Network)
	if credentials != nil {
		h = relayHello(t.cfg.Network, credentials, now, remote)
	}
	content, err := h.AppendTo(nil)
	if err != nil {
		return err
	}
	out := make([]byte, cell.Size)
	cell.Header{Command: cell.CommandHello}.Put(out)
	if err := cell.PutHello(out[cell.HeaderSize:], content); err != nil {
		return err
	}
	if _, err := c.Write(out); err != nil {
		return explainRead(err)
	}
	return nil
}

// openHelloCell decodes the first cell of a peer.
func openHelloCell(first []byte) (*Hello, error) {
	header, err := cell.DecodeHeader(first)
	if err != nil {
		return nil, foreign{fmt.Errorf("%w: %w", ErrHello, err)}
	}
	if header.Command != cell.CommandHello {
		return nil, foreign{fmt.Errorf("%w: the far end began with %v", ErrHello, header.Command)}
	}
	content, err := cell.DecodeHello(first[cell.HeaderSize:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHello, err)
	}
	h, err := DecodeHello(content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHello, err)
	}
	return h, nil
}

// addrPort is the netip form of a TCP address, IPv4 as IPv4.
func addrPort(a net.Addr) (netip.AddrPort, error) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, errors.New("the connection has no TCP address")
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
