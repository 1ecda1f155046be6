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
	var secret [tokenBytes]byte
	_, _ = rand.Read(secret[:]) // never fails
	token := hex.EncodeToString(secret[:])
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

// guarded lets requests through that know the token and do not come from a web page of somebody else.
func guarded(at netip.AddrPort, token string, api http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !ownHost(q.Host, at) {
			refuse(w, http.StatusMisdirectedRequest, "the Host header names another machine; use "+at.String())
			return
		}
		if !ownOrigin(q.Header, at) {
			refuse(w, http.StatusForbidden, "requests of other web pages are refused")
			return
		}
		given, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
		sum := sha256.Sum256([]byte(given)) // so that lengths do not show either
		if subtle.ConstantTimeCompare(sum[:], want[:]) != 1 || !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="cepa"`)
			refuse(w, http.StatusUnauthorized, "the token is missing or wrong: send 'Authorization: Bearer TOKEN' with the one in "+portName+" in the node's state folder, which is new with each start")
			return
		}
		api.ServeHTTP(w, q)
	})
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
