package demo

import (
	"fmt"
	"html"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// page is the web site behind the exits.
type page struct {
	address netip.AddrPort
	server  *http.Server
}

func servePage() (*page, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening the demo's page: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", hello)
	mux.HandleFunc("GET "+AddressPath, address)
	p := &page{
		address: ln.Addr().(*net.TCPAddr).AddrPort(),
		server:  &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10},
	}
	go func() { _ = p.server.Serve(ln) }() // ends with Close
	return p, nil
}

func (p *page) close() { _ = p.server.Close() }

// AddressPath is where the page says at what address it sees who asks, as plain text.
const AddressPath = "/address"

func address(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintln(w, host)
}

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintf(w, `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hello from behind three relays</title>
<style>
body { font: 1.1em/1.6 system-ui, sans-serif; max-width: 38em; margin: 4em auto; padding: 0 1em; color: #222; background: #fdfcfa }
h1 { color: #7b2d5b }
code { background: #f1ebe4; padding: .1em .3em; border-radius: .2em }
</style>
<h1>Hello from behind three relays</h1>
<p>Your request went through a guard, a middle and an exit relay, in cells of 2048 bytes with
three layers of encryption. This server sees a connection from <code>%s</code>, the exit's side
of the overlay, and not from your program.</p>
<p>This network is a test network on one machine: it shows how cepa works, and makes nobody anonymous.</p>
</html>
`, html.EscapeString(r.RemoteAddr))
}
