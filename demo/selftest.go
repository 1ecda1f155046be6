package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

// SelfTest fetches the demo's page through the SOCKS port, as curl would, and returns what
// it found in one line.
func SelfTest(ctx context.Context, socks netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	start := time.Now()
	dialer, err := proxy.SOCKS5("tcp", socks.String(), nil, &net.Dialer{})
	if err != nil {
		return "", err
	}
	conn, err := dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", net.JoinHostPort(Hello, "80"))
	if err != nil {
		return "", fmt.Errorf("connecting to %s through the overlay: %w", Hello, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+Hello+"/", nil)
	if err != nil {
		return "", err
	}
	if err := request.Write(conn); err != nil {
		return "", fmt.Errorf("asking for http://%s/: %w", Hello, err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return "", fmt.Errorf("reading http://%s/: %w", Hello, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("reading http://%s/: %w", Hello, err)
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(body), "three relays") {
		return "", fmt.Errorf("http://%s/ answered %s and %d bytes that are not the demo's page", Hello, response.Status, len(body))
	}
	return fmt.Sprintf("http://%s/ answered %d bytes through three relays in %v", Hello, len(body), time.Since(start).Round(time.Millisecond)), nil
}
