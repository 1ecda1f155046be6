// Package control is the local API of a running node: HTTP with JSON over a Unix socket in
// the node's state directory, readable by its user alone. Version 1 has
//
//	GET /v1/status     what the node is and how far it has come, for people and programs
//	GET /v1/counters   one flat object of counters and gauges, name to integer
//	POST /v1/keys      the files of keys have changed: look at them now; of nodes that have keys
//
// The package does not know what a node is: the daemon gives it a Source. It is a shell;
// a Source is called from many goroutines at once.
package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Status is what a node tells of itself.
type Status struct {
	Name    string `json:"name"`
	Role    string `json:"role"`     // client, relay or authority
	Version string `json:"version"`  // of the program
	Network string `json:"network"`  // name of the network
	ID      string `json:"identity"` // of a relay, 64 hexadecimal digits
	Address string `json:"address"`  // where it serves: SOCKS port or relay port
	Percent int    `json:"percent"`  // of bootstrapping; 100 is ready
	Doing   string `json:"doing"`    // what it does now
	Waiting string `json:"waiting"`  // what it waits for; empty when it waits for nothing
	Exit    bool   `json:"exit"`     // a relay with an exit policy that lets something through
	Pid     int    `json:"pid"`
	Uptime  int64  `json:"uptime_seconds"`
	// Consensus is the one in use; nil when there is none.
	Consensus *Consensus `json:"consensus,omitempty"`
	// Outside is where relays say that they see this client, the latest first; none of its own requests finds it out.
	Outside []string `json:"outside,omitempty"`
	// Warnings are what a person should know and perhaps do something about.
	Warnings []string `json:"warnings,omitempty"`
}

// Consensus is what a status says of the consensus in use.
type Consensus struct {
	ValidAfter time.Time `json:"valid_after"`
	FreshUntil time.Time `json:"fresh_until"`
	ValidUntil time.Time `json:"valid_until"`
	Digest     string    `json:"digest"`
	Relays     int       `json:"relays"`
	Signatures int       `json:"signatures"` // of authorities
}

// Source is the node behind the API. Both methods may be called at any time until Close.
type Source interface {
	Status(ctx context.Context) (Status, error)
	Counters(ctx context.Context) (map[string]int64, error)
}

// KeyKeeper is a Source that has keys.
type KeyKeeper interface {
	// RefreshKeys looks at the files of keys in the node's folder.
	RefreshKeys(ctx context.Context) error
}

// Server is the listening side.
type Server struct {
	http    *http.Server
	path    string
	pointer string
	done    chan struct{}
}

const (
	socketName  = "control.sock"
	pointerName = "control.path"
	// maxSocketPath is the shortest limit of a Unix socket's path among the systems that
	// cepa runs on (104 bytes with the final NUL on macOS and FreeBSD).
	maxSocketPath = 103
	// answerTimeout bounds one request, also when the node's loop is busy.
	answerTimeout = 5 * time.Second
)

// Listen opens the socket in dir (replacing one that nobody answers on) and serves src.
// When dir is too long a path for a Unix socket, the socket is in the system's folder for
// temporary files and dir/control.path names it.
func Listen(dir string, src Source) (*Server, error) {
	s := &Server{path: filepath.Join(dir, socketName), done: make(chan struct{})}
	if len(s.path) > maxSocketPath {
		sum := sha256.Sum256([]byte(dir))
		s.path = filepath.Join(os.TempDir(), "cepa-"+hex.EncodeToString(sum[:8])+".sock")
		s.pointer = filepath.Join(dir, pointerName)
	}
	if c, err := net.DialTimeout("unix", s.path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("opening the control socket: another node answers on %s", s.path)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	ln, err := net.Listen("unix", s.path)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	if err := os.Chmod(s.path, 0o600); err != nil && runtime.GOOS != "windows" {
		ln.Close()
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	if s.pointer != "" {
		if err := os.WriteFile(s.pointer, []byte(s.path+"\n"), 0o600); err != nil {
			ln.Close()
			return nil, fmt.Errorf("opening the control socket: %w", err)
		}
	}
	s.http = &http.Server{
		Handler:           handler(src),
		ReadHeaderTimeout: answerTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(ln) // ends with Close
	}()
	return s, nil
}

// Close stops serving and removes the socket.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	_ = os.Remove(s.path)
	if s.pointer != "" {
		_ = os.Remove(s.pointer)
	}
	return err
}

func handler(src Source) http.Handler {
	mux := http.NewServeMux()
	answer := func(get func(context.Context) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
			defer cancel()
			v, err := get(ctx)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			_ = enc.Encode(v)
		}
	}
	mux.HandleFunc("GET /v1/status", answer(func(ctx context.Context) (any, error) { return src.Status(ctx) }))
	if k, ok := src.(KeyKeeper); ok {
		mux.HandleFunc("POST /v1/keys", answer(func(ctx context.Context) (any, error) { return struct{}{}, k.RefreshKeys(ctx) }))
	}
	mux.HandleFunc("GET /v1/counters", answer(func(ctx context.Context) (any, error) { return src.Counters(ctx) }))
	return mux
}

// ErrNotRunning says that no node serves the directory.
var ErrNotRunning = errors.New("no running node")

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 16 << 20

// GetStatus asks the node whose state directory is dir.
func GetStatus(ctx context.Context, dir string) (Status, error) {
	var s Status
	err := ask(ctx, dir, http.MethodGet, "/v1/status", &s)
	return s, err
}

// GetCounters asks the node whose state directory is dir.
func GetCounters(ctx context.Context, dir string) (map[string]int64, error) {
	var m map[string]int64
	err := ask(ctx, dir, http.MethodGet, "/v1/counters", &m)
	return m, err
}

// RefreshKeys has the node whose state directory is dir look at its files of keys.
func RefreshKeys(ctx context.Context, dir string) error {
	return ask(ctx, dir, http.MethodPost, "/v1/keys", &struct{}{})
}

func ask(ctx context.Context, dir, method, path string, v any) error {
	socket := filepath.Join(dir, socketName)
	if p, err := os.ReadFile(filepath.Join(dir, pointerName)); err == nil {
		socket = strings.TrimSpace(string(p))
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "http://node"+path, nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("asking the node in %s: %w there", dir, ErrNotRunning)
		}
		return fmt.Errorf("asking the node in %s: %w", dir, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("asking the node in %s: %w", dir, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the node in %s: %s", dir, strings.TrimSpace(string(body)))
	}
	return json.Unmarshal(body, v)
}
