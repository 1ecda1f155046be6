//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// serve is the server that all requests go to.
func serve(address string) {
	chunk := make([]byte, 256<<10)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.PathValue("n"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		for n > 0 {
			k := min(n, int64(len(chunk)))
			if _, err := w.Write(chunk[:k]); err != nil {
				return
			}
			n -= k
		}
	})
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 256<<10)
		var n int64
		for {
			k, err := r.Body.Read(buf)
			n += int64(k)
			if err != nil {
				break
			}
		}
		fmt.Fprintln(w, n)
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	ln, err := net.Listen("tcp", address)
	if err == nil {
		fmt.Println(ln.Addr())
		err = http.Serve(ln, mux)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// stream is a connection to the server through a peer.
type stream struct {
	net.Conn
	r     *bufio.Reader
	moved atomic.Int64 // bytes of a download, or of an upload beside requests
}

// dial opens a stream; each user has circuits of their own.
func (s *session) dial(p *peer, user string) (*stream, error) {
	c, err := net.Dial("tcp", p.socks)
	if err != nil {
		return nil, err
	}
	if err := handshake(c, user, s.target); err != nil {
		c.Close()
		return nil, err
	}
	return &stream{Conn: c, r: bufio.NewReaderSize(c, 64<<10)}, nil
}

func handshake(c net.Conn, user, target string) error {
	buf := make([]byte, 300)
	method := byte(0)
	if user != "" {
		method = 2
	}
	if _, err := c.Write([]byte{5, 1, method}); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf[:2]); err != nil {
		return err
	}
	if buf[1] != method {
		return fmt.Errorf("SOCKS method %d", buf[1])
	}
	if user != "" {
		m := append([]byte{1, byte(len(user))}, user...)
		if _, err := c.Write(append(m, 1, 'x')); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf[:2]); err != nil || buf[1] != 0 {
			return fmt.Errorf("SOCKS authentication %d: %w", buf[1], err)
		}
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	m := append([]byte{5, 1, 0, 1}, net.ParseIP(host).To4()...)
	if _, err := c.Write(append(m, byte(n>>8), byte(n))); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf[:10]); err != nil {
		return err
	}
	if buf[1] != 0 {
		return fmt.Errorf("SOCKS reply %d", buf[1])
	}
	return nil
}

// roundTrip sends a request and reads the head of the answer; it returns the length of its body.
func (c *stream) roundTrip(method, path string, size int64, body io.Reader) (int64, error) {
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", method, path, size); err != nil {
		return 0, err
	}
	if body != nil {
		if _, err := io.CopyBuffer(struct{ io.Writer }{c.Conn}, body, make([]byte, 256<<10)); err != nil {
			return 0, err
		}
	}
	n := int64(-1)
	for i := 0; ; i++ {
		l, err := c.r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		l = strings.TrimSpace(l)
		if i == 0 && !strings.Contains(l, " 200 ") {
			return 0, errors.New(l)
		}
		if l == "" {
			return n, nil
		}
		if k, v, _ := strings.Cut(l, ": "); strings.EqualFold(k, "content-length") {
			n, _ = strconv.ParseInt(v, 10, 64)
		}
	}
}

func (c *stream) drain(n int64) error {
	k, err := c.r.Discard(int(min(n, int64(c.r.Buffered()))))
	n -= int64(k)
	buf := make([]byte, 256<<10)
	for n > 0 && err == nil {
		k, err = c.Read(buf[:min(n, int64(len(buf)))])
		n -= int64(k)
		c.moved.Add(int64(k))
	}
	if n == 0 {
		return nil
	}
	return err
}

func (c *stream) get(n int64) error {
	m, err := c.roundTrip("GET", fmt.Sprintf("/bytes/%d", n), 0, nil)
	if err == nil && m != n {
		err = fmt.Errorf("an answer of %d bytes instead of %d", m, n)
	}
	if err == nil {
		err = c.drain(n)
	}
	return err
}

// counted adds up what is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
