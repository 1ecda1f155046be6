package daemon

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

// A trial of a port says that it is taken or free, and is never itself a port that answers.
func TestFreePort(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		ln, err := net.Listen("tcp", host)
		if err != nil {
			t.Logf("%s: %v", host, err) // a machine without IPv6
			continue
		}
		taken := ln.Addr().(*net.TCPAddr).AddrPort()
		if _, err := FreePort(taken); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%v is taken: %v", taken, err)
		}
		ln.Close()
		if _, err := FreePort(taken); err != nil {
			t.Errorf("%v is free: %v", taken, err)
		}
		chosen, err := FreePort(netip.AddrPortFrom(taken.Addr(), 0))
		if err != nil || chosen.Port() == 0 || chosen.Addr() != taken.Addr() {
			t.Errorf("a port of the system's choice: %v, %v", chosen, err)
		}
	}
	if _, err := FreePort(netip.MustParseAddrPort("192.0.2.1:1")); err == nil {
		t.Error("an address that this machine does not have is not free")
	}
}

// While ports are tried, a client that knocks all the time is never let in.
func TestFreePortNeverListens(t *testing.T) {
	t.Parallel()
	a, err := FreePort(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			if _, err := FreePort(a); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		if c, err := net.Dial("tcp", a.String()); err == nil {
			// A connection to oneself is no listener: both ends are this socket.
			if c.LocalAddr().String() != c.RemoteAddr().String() {
				t.Error("the port answered")
			}
			c.Close()
		}
	}
}
