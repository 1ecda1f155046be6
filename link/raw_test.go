package link

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"

	"cepa/cell"
)

// rawClient is a TLS client of the tests' own: what a hostile peer can make of crypto/tls.
func rawClient(t testing.TB, to netip.AddrPort, change func(*tls.Config)) *tls.Conn {
	t.Helper()
	c := rawDial(t, to)
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if change != nil {
		change(cfg)
	}
	return tls.Client(c, cfg)
}

func rawDial(t testing.TB, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

func helloCell(t testing.TB, content []byte) []byte {
	t.Helper()
	b := make([]byte, cell.Size)
	cell.Header{Command: cell.CommandHello}.Put(b)
	if err := cell.PutHello(b[cell.HeaderSize:], content); err != nil {
		t.Fatal(err)
	}
	return b
}
