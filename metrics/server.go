package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the server.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 15 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 8 << 10 // bytes
	inFlight      = 8       // requests of /metrics at once
)

// Server is a running endpoint.
type Server struct {
	http    *http.Server
	address netip.AddrPort
	done    chan struct{}
}

// Check reads the address of the settings, such as 127.0.0.1:9100. One that is not of this machine alone is refused
// unless public is set.
func Check(address string, public bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(address)
	switch {
	case err != nil:
		return a, fmt.Errorf("metrics %q is not an IP address and port such as 127.0.0.1:9100", address)
	case !a.Addr().Unmap().IsLoopback() && !public:
		return a, fmt.Errorf("metrics %s is not a loopback address: whoever reaches it learns how busy this node is, and when. Use 127.0.0.1:%d and let the monitoring system come through a tunnel, or set metrics_public = true if only it can reach the address",
			a, a.Port())
	}
	return a, nil
}

// Listen opens the address and serves source; see Check for public.
func Listen(address string, public bool, source Source, log *slog.Logger) (*Server, error) {
	a, err := Check(address, public)
	if err != nil {
		return nil, err
	}
	gatherer, err := newGatherer(source, time.Now)
	if err != nil {
		return nil, fmt.Errorf("preparing metrics: %w", err)
	}
	ln, err := net.Listen("tcp", a.String())
	if err != nil {
		return nil, fmt.Errorf("opening the port for metrics: %w; choose another with metrics = \"127.0.0.1:PORT\"", err)
	}
	if !a.Addr().Unmap().IsLoopback() {
		log.Warn("metrics are open beyond loopback: whoever reaches the port learns how busy this node is, and when; let only the monitoring system reach it")
	}
	s := &Server{address: ln.Addr().(*net.TCPAddr).AddrPort(), done: make(chan struct{})}
	s.http = &http.Server{
		Handler: handler(gatherer, source, a.Addr().Unmap().IsLoopback()), ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(ln) // ends with Close
	}()
	return s, nil
}

// Address is where it listens.
func (s *Server) Address() netip.AddrPort { return s.address }

// Close stops serving and returns when the port is closed.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

func handler(g *cached, source Source, loopback bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{
		MaxRequestsInFlight: inFlight, EnableOpenMetrics: true, ErrorHandling: promhttp.HTTPErrorOnError,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		say(w, health(r.Context(), source), "the event loop answers")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ready, why := source.State().ready(time.Now())
		err := health(r.Context(), source)
		if err == nil && !ready {
			err = errors.New(why)
		}
		say(w, err, why)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "metrics of a cepa node: /metrics for Prometheus, /healthz, /readyz\n")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if loopback && !localHost(r.Host) {
			// A web page can have its own name point to 127.0.0.1 and then read what is here.
			http.Error(w, "this port is asked by an address of this machine or as localhost, not by another name", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// localHost says whether a Host header names this machine.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// health asks the loop.
func health(ctx context.Context, source Source) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := source.Counters(ctx); err != nil {
		return fmt.Errorf("the event loop has not answered in %v: %w", askTimeout, err)
	}
	return nil
}

// say answers 200 with ok, or 503 with the error; the first word is for programs.
func say(w http.ResponseWriter, err error, ok string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "failing: %v\n", err)
		return
	}
	fmt.Fprintf(w, "ok: %s\n", ok)
}
