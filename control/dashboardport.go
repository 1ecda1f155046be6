package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cepa/control/dashboard"
)

// The dashboard is a page of the control port (or of a Relay, below), and asks the API on that port as any program does,
// with the token in an Authorization header. The token comes to it in the fragment of the address, which browsers send
// to nobody; a cookie would go to every port of 127.0.0.1, and would come along when another site asks.

// DashboardURL is the address of the dashboard on a port, with the token.
func DashboardURL(at netip.AddrPort, token string) string {
	return (&url.URL{Scheme: "http", Host: at.String(), Path: dashboard.Path, Fragment: "token=" + token}).String()
}

// PortDashboard is the address, with the token, of the dashboard on the control port of the node whose state directory
// is dir. It is an error if the node has none, or does not run.
func PortDashboard(ctx context.Context, dir string) (string, error) {
	c, err := NewPortClient(dir)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Status(ctx); err != nil {
		return "", err
	}
	at, err := netip.ParseAddrPort(strings.TrimPrefix(c.base, "http://"))
	if err != nil {
		return "", fmt.Errorf("looking for the control port of the node in %s: %w", dir, err)
	}
	return DashboardURL(at, c.token), nil
}

// Dashboard is a control port outside of the node: it serves the dashboard, and passes requests of the API on to the
// node's Unix socket. It has a token of its own and outlives the node's restarts.
type Dashboard struct {
	address netip.AddrPort
	token   string
	server  *http.Server
	socket  *http.Transport
	ended   chan struct{}
}

// ServeDashboard opens a loopback port for the node whose state directory is dir, which need not run yet.
func ServeDashboard(dir string, listen netip.AddrPort) (*Dashboard, error) {
	if !listen.Addr().IsLoopback() {
		return nil, fmt.Errorf("opening the dashboard's port: %s is not a loopback address such as 127.0.0.1:0; to reach it from elsewhere forward the port with ssh", listen)
	}
	ln, err := net.Listen("tcp", listen.String())
	if err != nil {
		return nil, fmt.Errorf("opening the dashboard's port: %w", err)
	}
	d := &Dashboard{address: ln.Addr().(*net.TCPAddr).AddrPort(), token: newToken(), ended: make(chan struct{})}
	d.socket = &http.Transport{DialContext: socketDialer(dir), MaxIdleConns: 8, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: 2 * answerTimeout}
	d.server = newHTTPServer(guarded(d.address, d.token, passOn(d.socket)))
	go func() {
		_ = d.server.Serve(limited(ln)) // ends with Close
		close(d.ended)
	}()
	return d, nil
}

// Address is where the port is.
func (d *Dashboard) Address() netip.AddrPort { return d.address }

// URL is the address of the page, with the token.
func (d *Dashboard) URL() string { return DashboardURL(d.address, d.token) }

// Close stops serving.
func (d *Dashboard) Close() error {
	err := d.server.Close()
	<-d.ended
	d.socket.CloseIdleConnections()
	return err
}

// passOn gives requests to the node, without what is only for this port, and says so when there is no node.
func passOn(socket http.RoundTripper) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: socket, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "node", "node"
			p.Out.Header = http.Header{"Accept": p.In.Header["Accept"]}
		},
		ErrorHandler: func(w http.ResponseWriter, q *http.Request, err error) {
			var op *net.OpError
			if errors.As(err, &op) && op.Op == "dial" {
				refuse(w, http.StatusBadGateway, ErrNotRunning.Error())
				return
			}
			refuse(w, http.StatusBadGateway, "the node does not answer: "+err.Error())
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		proxy.ServeHTTP(&patientWriter{w, http.NewResponseController(w)}, q)
	})
}

// patientWriter gives each write of an answer, which may be a stream without end, its own time.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patientWriter) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(eventWrite))
	return p.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (p *patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// doorTemplate is a page that leads to the dashboard. Its file is for its owner alone, as the token must be; a command
// line, in which browsers take addresses, is seen by every user of the machine.
var doorTemplate = template.Must(template.New("door").Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>cepa</title>
<meta http-equiv="refresh" content="0; url={{.}}">
<p><a href="{{.}}" rel="noreferrer">The dashboard</a></p></html>
`))

// WriteDoor makes a file in dir, of mode 0600, that leads a browser to a dashboard, and returns its path. Whoever calls
// removes it.
func WriteDoor(dir, address string) (string, error) {
	var b strings.Builder
	if err := doorTemplate.Execute(&b, address); err != nil {
		return "", err
	}
	path, err := filepath.Abs(filepath.Join(dir, "dashboard.html"))
	if err == nil {
		err = writePrivate(path, []byte(b.String()))
	}
	if err != nil {
		return "", fmt.Errorf("writing a page that leads to the dashboard: %w", err)
	}
	return path, nil
}

// readPort reads the file that a node has written for its control port.
func readPort(path string) (p portFile, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return p, fmt.Errorf("looking for the control port: %w; the node has one if its settings say so", err)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("looking for the control port in %s: %w", path, err)
	}
	return p, nil
}
