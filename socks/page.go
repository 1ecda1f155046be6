package socks

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var (
	pageTemplate  = template.Must(template.New("page").Parse(pageText))
	pageStyleHash = hashOf(pageStyle)
)

// hashOf is what a Content-Security-Policy calls a style by.
func hashOf(style string) string {
	sum := sha256.Sum256([]byte(style))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// servePage answers a request of a browser that was pointed at the port itself: with what it is, how to set a browser to
// it, and the proxy.pac that does. Nothing of the request is in the answer, and only a person's own request gets one: one
// that names this port as its host, so that no other site's name leads here (DNS rebinding), and that no page of another
// site has made.
func (c *session) servePage(r *http.Request) {
	address := pageAddress(c.conn.LocalAddr())
	body := r.Method != http.MethodHead
	answer := func(status int, mime, text string) {
		b := appendHTTP(nil, status, mime, text, body)
		if status != http.StatusOK {
			c.refuse(b, causeHTTP)
		} else if c.write(b) == nil {
			c.served = true
		}
	}
	plain := func(status int, text string) { answer(status, "text/plain; charset=utf-8", text+"\n") }
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case !isOwnHost(r.Host, address):
		plain(http.StatusMisdirectedRequest, "This is the local port of cepa, and not the host that the request is for.")
	case site != "" && site != "none" && site != "same-origin":
		plain(http.StatusForbidden, "Another site's page may not ask this port.")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		plain(http.StatusMethodNotAllowed, "This port takes GET for its page, and CONNECT.")
	case r.RequestURI == "/":
		var b bytes.Buffer
		if err := pageTemplate.Execute(&b, pageData{address, template.CSS(pageStyle)}); err != nil {
			panic(bug("the page does not execute"))
		}
		answer(http.StatusOK, "text/html; charset=utf-8", b.String())
	case r.RequestURI == "/proxy.pac" && address != "":
		answer(http.StatusOK, "application/x-ns-proxy-autoconfig", fmt.Sprintf(proxyPAC, address))
	default:
		plain(http.StatusNotFound, "There are / and /proxy.pac here.")
	}
}

// pageData is what page.html is made with.
type pageData struct {
	Address string // of the port, as the browser reached it; "" of a Unix socket
	Style   template.CSS
}

// proxyPAC sends everything to the port, and nothing around it: a browser that cannot reach it shows an error. SOCKS5 in
// a PAC file leaves names to the proxy.
const proxyPAC = `function FindProxyForURL(url, host) {
  return "SOCKS5 %s";
}
`

// pageAddress is the port as its page calls it, or "" for a Unix socket.
func pageAddress(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		addr := tcp.AddrPort()
		return net.JoinHostPort(addr.Addr().Unmap().WithZone("").String(), fmt.Sprint(addr.Port()))
	}
	return ""
}

// isOwnHost says whether the Host of a request is the address that the port was reached at, or localhost.
func isOwnHost(host, address string) bool {
	host = strings.ToLower(host)
	if address == "" {
		return host == "localhost"
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	for _, own := range []string{address, "localhost:" + port} {
		if host == own || port == "80" && host == strings.TrimSuffix(own, ":80") {
			return true
		}
	}
	return false
}
