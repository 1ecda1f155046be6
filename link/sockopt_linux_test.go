package link

import (
	"net"
	"testing"
	"time"
)

// TestKernelTellsWhatTCPHas: the figures of a connection whose far end does not read are those of what was written.
func TestKernelTellsWhatTCPHas(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	sample := sampler(c.(*net.TCPConn))
	c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	wrote, err := c.Write(make([]byte, 64<<20))
	if err == nil {
		t.Fatal("the kernel took 64 MiB that nobody reads")
	}
	have, s, ok := sample()
	if !ok || have < 16<<10 || have > wrote || s.Flight > have || s.Least <= 0 || s.Trip < s.Least || s.Trip > time.Second {
		t.Errorf("%d of %d bytes, %+v, %v", have, wrote, s, ok)
	}
	c.Close()
	if _, _, ok := sample(); ok {
		t.Error("figures of a closed connection")
	}
}
