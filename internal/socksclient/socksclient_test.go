package socksclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// port answers each connection with a script: bytes to expect, bytes to send, in turns.
func port(t *testing.T, script ...[]byte) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for i, b := range script {
					if i%2 == 1 {
						_, _ = c.Write(b)
						continue
					}
					got := make([]byte, len(b))
					if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, b) {
						return
					}
				}
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func TestDialSpeaksSOCKS(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, user, host string
		script           [][]byte
	}{
		{"name", "", "a.b", [][]byte{{5, 1, 0}, {5, 0}, {5, 1, 0, 3, 3, 'a', '.', 'b', 0, 80}, {5, 0, 0, 1, 0, 0, 0, 0, 0, 0}}},
		{"user", "u", "1.2.3.4", [][]byte{{5, 1, 2}, {5, 2}, {1, 1, 'u', 1, 'x'}, {1, 0}, {5, 1, 0, 1, 1, 2, 3, 4, 0, 80}, {5, 0, 0, 3, 1, 'x', 0, 0}}},
		{"IPv6", "", "::1", [][]byte{{5, 1, 0}, {5, 0}, {5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80}, append([]byte{5, 0, 0, 4}, make([]byte, 18)...)}},
	} {
		c, err := Dialer{Address: port(t, test.script...), User: test.user}.Dial(context.Background(), test.host, 80)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		_, _ = c.Write([]byte("echo"))
		_ = c.CloseWrite()
		if got, _ := io.ReadAll(c); string(got) != "echo" {
			t.Errorf("%s: %q came back", test.name, got)
		}
		c.Close()
	}
}

// Each way to fail has a code that callers can tell.
func TestDialSaysWhyNot(t *testing.T) {
	t.Parallel()
	request := []byte{5, 1, 0, 3, 1, 'a', 0, 80}
	for _, test := range []struct {
		name string
		at   string
		want Code
	}{
		{"refused", port(t, []byte{5, 1, 0}, []byte{5, 0}, request, []byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0}), CodeRefused},
		{"no SOCKS", port(t, []byte{5}, []byte("HTTP/1.1 400 Bad Request\r\n")), CodeProtocol},
		{"no method", port(t, []byte{5, 1, 0}, []byte{5, 255}), CodeProtocol},
		{"cut off", port(t, []byte{5, 1, 0}, []byte{5, 0}, []byte{9}), CodeProtocol},
		{"bad type", port(t, []byte{5, 1, 0}, []byte{5, 0}, request, []byte{5, 0, 0, 9}), CodeProtocol},
		{"nobody", "127.0.0.1:1", CodeNoAnswer},
	} {
		_, err := Dialer{Address: test.at}.Dial(context.Background(), "a", 80)
		var e *Error
		if !errors.As(err, &e) || e.Code != test.want {
			t.Errorf("%s: %v, want code %d", test.name, err, test.want)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := (Dialer{Address: port(t, make([]byte, 1000))}).Dial(ctx, "a", 80); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent port: %v", err)
	}
	if _, err := (Dialer{Address: "127.0.0.1:1"}).Dial(context.Background(), string(make([]byte, 256)), 80); err == nil {
		t.Error("a name of 256 bytes was taken")
	}
}
