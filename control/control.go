// Package control is the local API of a running node: HTTP with JSON over a Unix socket in the node's state directory,
// for its user alone, and where the settings say so on a loopback port, with a token. What there is to ask is in
// openapi.json, which the node also serves (GET /v1/openapi.json), and in docs/control.md; Client asks it from Go.
// Within version 1 nothing is taken away and no meaning changes; fields and paths may be added.
//
// The package does not know what a node is: the daemon gives it a Source, and publishes what happens to the Source's
// Hub. It is a shell; a Source is called from many goroutines at once.
package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Options are what a Server is made of.
type Options struct {
	Dir    string // the node's state directory
	Source Source
	// Listen is a loopback address and port to serve on too, with a token; the zero value is none.
	Listen netip.AddrPort
}

// Server is the listening side.
type Server struct {
	servers []*http.Server
	remove  []string
	address netip.AddrPort
	quit    chan struct{}
	done    chan struct{}
	running int
	ended   chan struct{}
	once    sync.Once
}

const (
	socketName  = "control.sock"
	pointerName = "control.path"
	// maxSocketPath is the shortest limit of a Unix socket's path among the systems that
	// cepa runs on (104 bytes with the final NUL on macOS and FreeBSD).
	maxSocketPath = 103
	// answerTimeout bounds one request, also when the node's loop is busy.
	answerTimeout = 5 * time.Second
	// maxConns bounds the connections of each listener.
	maxConns = 64
)

// Listen is Start on the Unix socket alone.
func Listen(dir string, src Source) (*Server, error) {
	return Start(Options{Dir: dir, Source: src})
}

// Start opens the socket in the directory (replacing one that nobody answers on), and the port if there is to be one,
// and serves. When the directory is too long a path for a Unix socket, the socket is in the system's folder for
// temporary files and control.path in the directory names it.
func Start(o Options) (*Server, error) {
	s := &Server{quit: make(chan struct{}), done: make(chan struct{}), ended: make(chan struct{}, 2)}
	ln, err := s.openSocket(o.Dir)
	if err != nil {
		return nil, err
	}
	api := handler(o.Source)
	s.serve(ln, api)
	if o.Listen.IsValid() {
		if err := s.startPort(o, api); err != nil {
			close(s.done) // no sampler
			_ = s.Close()
			return nil, err
		}
	}
	if n, ok := o.Source.(Node); ok {
		go s.sample(n)
	} else {
		close(s.done)
	}
	return s, nil
}

func (s *Server) openSocket(dir string) (net.Listener, error) {
	path, pointer := filepath.Join(dir, socketName), ""
	if len(path) > maxSocketPath {
		sum := sha256.Sum256([]byte(dir))
		path = filepath.Join(os.TempDir(), "cepa-"+hex.EncodeToString(sum[:8])+".sock")
		pointer = filepath.Join(dir, pointerName)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("opening the control socket: another node answers on %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil && runtime.GOOS != "windows" {
		ln.Close()
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	s.remove = append(s.remove, path)
	if pointer != "" {
		if err := os.WriteFile(pointer, []byte(path+"\n"), 0o600); err != nil {
			ln.Close()
			return nil, fmt.Errorf("opening the control socket: %w", err)
		}
		s.remove = append(s.remove, pointer)
	}
	return ln, nil
}

// serve answers on a listener until Close.
func (s *Server) serve(ln net.Listener, h http.Handler) {
	server := newHTTPServer(h)
	s.servers = append(s.servers, server)
	s.running++
	go func() {
		_ = server.Serve(limited(ln)) // ends with Close
		s.ended <- struct{}{}
	}()
}

// newHTTPServer makes a server with bounds for everything; handlers that take longer set the times themselves.
func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: answerTimeout, ReadTimeout: 2 * answerTimeout, WriteTimeout: 4 * answerTimeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
}

// limited bounds the connections of a listener.
func limited(ln net.Listener) net.Listener { return netutil.LimitListener(ln, maxConns) }

// sample notes each second what the node has carried.
func (s *Server) sample(n Node) {
	defer close(s.done)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	hub := n.Hub()
	for {
		received, sent := n.Traffic()
		hub.sample(time.Now(), received, sent)
		select {
		case <-tick.C:
		case <-s.quit:
			return
		}
	}
}

// Address is where the port is; the zero AddrPort when there is none.
func (s *Server) Address() netip.AddrPort { return s.address }

// Close stops serving and removes the socket, and the token of the port. A second call waits for the first.
func (s *Server) Close() (err error) {
	s.once.Do(func() { err = s.close() })
	return err
}

func (s *Server) close() error {
	var err error
	for _, server := range s.servers {
		err = errors.Join(err, server.Close())
	}
	close(s.quit)
	<-s.done
	for ; s.running > 0; s.running-- {
		<-s.ended
	}
	for _, path := range s.remove {
		_ = os.Remove(path)
	}
	return err
}
