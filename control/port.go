package control

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"cepa/control/dashboard"
)

// The port is reachable by everything on the machine that can open a connection: other users, and web pages in a
// browser. So each request needs the token, which only who may read the state directory knows. A page that gets its
// own name to point at 127.0.0.1 (DNS rebinding) is known by the Host header, one that asks across sites by Origin and
// Sec-Fetch-Site; no answer has CORS headers.

// portName is the file that tells where the port is and what the token is, as JSON: portFile. Mode 0600.
const portName = "control.port"

// portFile is what clients read.
type portFile struct {
	Address string `json:"address"`
	Token   string `json:"token"`
}

// tokenBytes is the length of a token, which is new with each start.
const tokenBytes = 32

func (s *Server) startPort(o Options, api http.Handler) error {
	if !o.Listen.Addr().IsLoopback() {
		return fmt.Errorf("opening the control port: %s is not a loopback address such as 127.0.0.1:9852; to reach it from elsewhere forward the port with ssh", o.Listen)
	}
	ln, err := net.Listen("tcp", o.Listen.String())
	if err != nil {
		return fmt.Errorf("opening the control port: %w", err)
	}
	s.address = ln.Addr().(*net.TCPAddr).AddrPort()
	token := newToken()
	path := filepath.Join(o.Dir, portName)
	data, err := json.Marshal(portFile{s.address.String(), token})
	if err == nil {
		err = writePrivate(path, append(data, '\n'))
	}
	if err != nil {
		ln.Close()
		return fmt.Errorf("opening the control port: writing the token: %w", err)
	}
	s.remove = append(s.remove, path)
	s.serve(ln, guarded(s.address, token, api))
	return nil
}

func newToken() string {
	var secret [tokenBytes]byte
	_, _ = rand.Read(secret[:]) // never fails
	return hex.EncodeToString(secret[:])
}

// writePrivate replaces a file in one step by one that only its owner can read.
func writePrivate(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// guarded lets requests through that know the token and do not come from a web page of somebody else. The files of the
// dashboard, which say nothing, need no token; a browser may come to its page, and to it alone, from anywhere.
func guarded(at netip.AddrPort, token string, api http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	page := dashboard.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		harden(w.Header())
		if !ownHost(q.Host, at) {
			refuse(w, http.StatusMisdirectedRequest, "the Host header names another machine; use "+at.String())
			return
		}
		if !ownOrigin(q.Header, at) && !visit(q) {
			refuse(w, http.StatusForbidden, "requests of other web pages are refused")
			return
		}
		switch {
		case q.URL.Path == "/" || q.URL.Path+"/" == dashboard.Path:
			w.Header().Set("Location", dashboard.Path) // to which a browser takes the fragment along
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		case strings.HasPrefix(q.URL.Path, dashboard.Path):
			page.ServeHTTP(w, q)
			return
		}
		given, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
		sum := sha256.Sum256([]byte(given)) // so that lengths do not show either
		if subtle.ConstantTimeCompare(sum[:], want[:]) != 1 || !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="cepa"`)
			refuse(w, http.StatusUnauthorized, "the token is missing or wrong: send 'Authorization: Bearer TOKEN' with the one in "+portName+" in the node's state folder, which is new with each start; for a person, 'cepa dashboard DIR' prints an address that has it")
			return
		}
		api.ServeHTTP(w, q)
	})
}

// harden has browsers make nothing of an answer but what its own page reads.
func harden(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// visit says whether a browser goes to the dashboard's page as such: not into a frame, and with nothing that it could
// do there. The page is empty without the token, and whoever sent the browser cannot look at it.
func visit(q *http.Request) bool {
	h := q.Header
	return q.Method == http.MethodGet && (q.URL.Path == dashboard.Path || q.URL.Path == "/") && len(h["Origin"]) == 0 &&
		h.Get("Sec-Fetch-Mode") == "navigate" && h.Get("Sec-Fetch-Dest") == "document"
}

// ownHost says whether a Host header names this port.
func ownHost(host string, at netip.AddrPort) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != fmt.Sprint(at.Port()) {
		return false
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip == at.Addr()
}

// ownOrigin says whether a request comes from no web page, or from one of this port.
func ownOrigin(h http.Header, at netip.AddrPort) bool {
	switch site := h.Get("Sec-Fetch-Site"); site {
	case "", "same-origin", "none":
	default:
		return false
	}
	origins, present := h["Origin"]
	if !present {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && u.Scheme == "http" && ownHost(u.Host, at)
}
