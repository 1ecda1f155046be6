package socks

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"cepa/cell"
)

// maxHead bounds the head of an HTTP request, its first line and fields, in bytes.
const maxHead = 16 << 10

var errHeadTooLong = errors.New("the head of the HTTP request is too long")

// readHead reads the head of an HTTP request to the empty line that ends it, and not a byte more: what follows a CONNECT
// is for the stream.
func readHead(in *bufio.Reader) ([]byte, error) {
	var head []byte
	for line := 0; ; {
		b, err := in.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case len(head) == maxHead:
			return nil, errHeadTooLong
		}
		head = append(head, b)
		switch {
		case b == '\n' && line == 0:
			return head, nil
		case b == '\n':
			line = 0
		case b != '\r':
			line++
		}
	}
}

// serveHTTP serves one request; there is never a second one on a connection. CONNECT becomes a stream, and the port says
// what it is to whoever asks it by its own name. All else is an error that says what to do.
func (c *session) serveHTTP() {
	c.protocol = protocolHTTP
	head, err := readHead(c.in)
	var r *http.Request
	switch {
	case errors.Is(err, errHeadTooLong):
		c.refuseHTTP(http.StatusRequestHeaderFieldsTooLarge, causeMalformed,
			fmt.Sprintf("The head of the request has more than %d bytes.", maxHead))
		return
	case err != nil:
		c.fail(err)
		return
	}
	r, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	switch {
	case err != nil:
		c.refuseHTTP(http.StatusBadRequest, causeMalformed, "This is not a request that HTTP/1.1 allows.")
	case c.over:
		c.refuseHTTP(http.StatusServiceUnavailable, causeLimit, "Too many connections are open; close some, or try again later.")
	case r.Method == http.MethodConnect:
		c.serveConnect(r)
	case strings.HasPrefix(r.RequestURI, "/"):
		c.servePage(r)
	default:
		c.refuseHTTP(http.StatusNotImplemented, causeHTTP, "This port does not fetch pages as an HTTP proxy does. "+
			"Set your program to SOCKS5 with names resolved by the proxy (socks5h://), or to HTTP CONNECT for http:// addresses too "+
			"(curl: --proxytunnel).")
	}
}

// serveConnect opens a stream. User and password of the proxy are an isolation key.
func (c *session) serveConnect(r *http.Request) {
	host, port, err := splitTarget(r.RequestURI)
	if err == nil {
		c.credentials, err = proxyCredentials(r.Header.Values("Proxy-Authorization"))
	}
	if err != nil {
		c.logRefusal(causeMalformed)
		c.refuseHTTP(http.StatusBadRequest, causeMalformed, upper(err.Error())+".")
		return
	}
	verdict := c.accept(host, nil, port)
	if verdict == nil {
		verdict = c.connect()
	}
	switch {
	case verdict == nil:
		c.succeed([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
	case verdict.code == 0:
		c.refuseSilently(verdict.cause)
	case verdict.err != nil:
		c.refuseHTTP(httpStatus(verdict.err), verdict.cause, upper(explain(verdict.err))+".")
	default:
		c.refuseHTTP(http.StatusBadRequest, verdict.cause, upper(refusalText(verdict.cause))+".")
	}
}

// splitTarget reads the target of a CONNECT: host and port, with IPv6 in brackets (RFC 9112, section 3.2.3).
func splitTarget(target string) (host string, port int, err error) {
	const want = "the target of CONNECT must be host:port, with a port from 1 to 65535"
	host, text, err := net.SplitHostPort(target)
	if err != nil || host == "" {
		return "", 0, errors.New(want)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '+' {
		return "", 0, errors.New(want)
	}
	return host, int(n), nil
}

// proxyCredentials reads Proxy-Authorization: "Basic" and user:password in base64 (RFC 7617). Whatever else a program
// sends there keeps its streams apart all the same, as a user of that name. Without the field there are none.
func proxyCredentials(values []string) (*credentials, error) {
	switch len(values) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, errors.New("there is more than one Proxy-Authorization")
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return &credentials{user: []byte(values[0])}, nil
	}
	pair, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
	if err != nil {
		return nil, errors.New("what follows Basic in Proxy-Authorization is not base64")
	}
	user, password, _ := bytes.Cut(pair, []byte(":"))
	return &credentials{user, password}, nil
}

// httpStatus is the status for a stream that could not be opened: one table, as replyCode is for SOCKS5. 503 says that it
// is this client or the network between, 502 and 504 that it is the destination, 403 that somebody does not allow it.
func httpStatus(err error) int {
	var e *Error
	here := errors.As(err, &e) && e != nil && e.Here
	switch reason := reasonOf(err); {
	case reason == cell.ReasonPolicy:
		return http.StatusForbidden
	case here:
		return http.StatusServiceUnavailable
	case reason == cell.ReasonTimeout:
		return http.StatusGatewayTimeout
	case reason == cell.ReasonNoSuchHost, reason == cell.ReasonResolveFailed, reason == cell.ReasonRefused, reason == cell.ReasonReset,
		reason == cell.ReasonHostUnreachable, reason == cell.ReasonNetUnreachable:
		return http.StatusBadGateway
	}
	return http.StatusServiceUnavailable
}

// refuseHTTP answers with a status that is no success and a line that says why. Nothing of the request is in it.
func (c *session) refuseHTTP(status int, why cause, text string) {
	c.refuse(appendHTTP(nil, status, "text/plain; charset=utf-8", text+"\n", true), why)
}

// appendHTTP appends a whole response. Its fields keep browsers from making more of it than what it is: it runs nothing
// and loads nothing, stands in no frame, no other site can read it, and nothing guesses at its type.
func appendHTTP(b []byte, status int, mime, body string, withBody bool) []byte {
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\n"+
		"Content-Type: %s\r\n"+
		"Content-Length: %d\r\n"+
		"Content-Security-Policy: default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"+
		"X-Content-Type-Options: nosniff\r\n"+
		"X-Frame-Options: DENY\r\n"+
		"Cross-Origin-Resource-Policy: same-origin\r\n"+
		"Cross-Origin-Opener-Policy: same-origin\r\n"+
		"Referrer-Policy: no-referrer\r\n"+
		"Cache-Control: no-store\r\n"+
		"Connection: close\r\n", status, http.StatusText(status), mime, len(body), pageStyleHash)
	if status == http.StatusMethodNotAllowed {
		b = append(b, "Allow: GET, HEAD, CONNECT\r\n"...)
	}
	b = append(b, "\r\n"...)
	if withBody {
		b = append(b, body...)
	}
	return b
}

// upper writes a sentence that begins with a small letter with a capital one.
func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
