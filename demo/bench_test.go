package demo

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/proxy"
)

// BenchmarkDownload is a download through three relays, everything in one process over real sockets: origin, SOCKS port,
// links with TLS, onion layers, and back.
func BenchmarkDownload(b *testing.B) {
	const size = 8 << 20
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer origin.Close()
	go func() {
		block := make([]byte, 64<<10)
		for {
			c, err := origin.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for n := 0; n < size; n += len(block) {
					if _, err := c.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
	d, err := Start(context.Background(), Options{
		Relays: 3, Authorities: 1, Socks: netip.MustParseAddrPort("127.0.0.1:0"), Dir: b.TempDir(), ExitPolicy: "all",
		LogLevel: "error", Message: func(string, ...any) {},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Stop()
	dialer, err := proxy.SOCKS5("tcp", d.Socks().String(), nil, &net.Dialer{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		c, err := dialer.Dial("tcp", origin.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		n, err := io.Copy(io.Discard, c)
		if err = errors.Join(err, c.Close()); err != nil || n != size {
			b.Fatalf("%d bytes of %d: %v", n, size, err)
		}
	}
}
