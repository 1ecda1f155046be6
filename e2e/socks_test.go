//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

// replyError is a refusal of the SOCKS port, with the code of RFC 1928.
type replyError byte

func (e replyError) Error() string { return fmt.Sprintf("SOCKS reply %d", byte(e)) }

// dialSOCKS opens a stream to host:port. user, when not empty, is the isolation key: streams
// of different users never share a circuit. limit bounds the opening.
func dialSOCKS(socks, user, target string, limit time.Duration) (*net.TCPConn, error) {
	nc, err := net.DialTimeout("tcp", socks, limit)
	if err != nil {
		return nil, err
	}
	c := nc.(*net.TCPConn)
	_ = c.SetDeadline(time.Now().Add(limit))
	if err := greet(c, user, target); err != nil {
		c.Close()
		return nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

func greet(c net.Conn, user, target string) error {
	host, portText, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return err
	}
	method := byte(0)
	if user != "" {
		method = 2
	}
	if _, err := c.Write([]byte{5, 1, method}); err != nil {
		return err
	}
	var answer [2]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if answer != [2]byte{5, method} {
		return fmt.Errorf("the SOCKS port answered %x to the greeting", answer)
	}
	if user != "" {
		b := append([]byte{1, byte(len(user))}, user...)
		if _, err := c.Write(append(b, 1, 'x')); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, answer[:]); err != nil {
			return fmt.Errorf("authenticating: %w", err)
		}
	}
	request := []byte{5, 1, 0}
	if ip, err := netip.ParseAddr(host); err != nil {
		request = append(append(request, 3, byte(len(host))), host...)
	} else if ip.Is4() {
		request = append(append(request, 1), ip.AsSlice()...)
	} else {
		request = append(append(request, 4), ip.AsSlice()...)
	}
	if _, err := c.Write(binary.BigEndian.AppendUint16(request, uint16(port))); err != nil {
		return err
	}
	var reply [10]byte // the bound address is always IPv4
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		return fmt.Errorf("waiting for the reply: %w", err)
	}
	if reply[1] != 0 {
		return replyError(reply[1])
	}
	return nil
}

// httpClient makes requests through the SOCKS port, one connection each.
func httpClient(socks, user string, limit time.Duration) *http.Client {
	return &http.Client{
		Timeout: limit,
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			DialContext: func(ctx context.Context, _, target string) (net.Conn, error) {
				return dialSOCKS(socks, user, target, limit)
			},
		},
	}
}

// get fetches a URL and returns its body.
func get(c *http.Client, url string) ([]byte, error) {
	r, err := c.Get(url)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, r.Status)
	}
	return io.ReadAll(r.Body)
}

// hello fetches the demo's page in a new circuit for this user.
func hello(t testing.TB, socks, user string, limit time.Duration) error {
	t.Helper()
	_, err := get(httpClient(socks, user, limit), "http://hello.demo/")
	return err
}
