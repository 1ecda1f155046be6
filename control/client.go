package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotRunning says that no node serves the directory.
var ErrNotRunning = errors.New("no running node")

// ErrForbidden says that this user may not ask the node.
var ErrForbidden = errors.New("this user may not ask it")

// Bounds of what a client reads, in bytes.
const (
	maxAnswer = 64 << 20
	maxEvent  = 1 << 20
)

// StatusError is an answer that is no success.
type StatusError struct {
	Status int // of HTTP
	Text   string
}

func (e *StatusError) Error() string { return e.Text }

// Client asks a running node. It may be used by several goroutines at once.
type Client struct {
	name  string // of whom it asks, for errors
	base  string
	token string
	http  *http.Client
}

// NewClient makes a Client of the node whose state directory is dir, over its Unix socket. The node need not run yet.
func NewClient(dir string) *Client {
	return &Client{name: "the node in " + dir, base: "http://node", http: &http.Client{Transport: &http.Transport{DialContext: socketDialer(dir), MaxIdleConns: 2}}}
}

// socketDialer dials the Unix socket of the node whose state directory is dir, whatever it is asked for.
func socketDialer(dir string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		socket := filepath.Join(dir, socketName)
		if p, err := os.ReadFile(filepath.Join(dir, pointerName)); err == nil {
			socket = strings.TrimSpace(string(p))
		}
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
}

// NewClientAt makes a Client of the node that answers at an address: unix:PATH, or HOST:PORT of a control port, which
// wants its token.
func NewClientAt(at, token string) (*Client, error) {
	if path, ok := strings.CutPrefix(at, "unix:"); ok {
		if path == "" {
			return nil, errors.New("unix: needs the path of a node's control socket behind it")
		}
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
		return &Client{name: "the node at " + path, base: "http://node", http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 2}}}, nil
	}
	if host, port, err := net.SplitHostPort(at); err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("%q is neither unix:PATH nor HOST:PORT", at)
	}
	if token == "" {
		return nil, fmt.Errorf("the control port %s wants its token: the node has written it to control.port in its folder", at)
	}
	return &Client{name: "the node at " + at, base: "http://" + at, token: token, http: &http.Client{Transport: &http.Transport{MaxIdleConns: 2}}}, nil
}

// NewPortClient makes a Client of the node whose state directory is dir, over its control port.
func NewPortClient(dir string) (*Client, error) {
	return NewPortClientOf(filepath.Join(dir, portName))
}

// NewPortClientOf is NewPortClient with the path of the file that a node has written for its control port, or of a copy.
func NewPortClientOf(path string) (*Client, error) {
	p, err := readPort(path)
	if err != nil {
		return nil, err
	}
	return &Client{name: "the node at " + p.Address, base: "http://" + p.Address, token: p.Token, http: &http.Client{Transport: &http.Transport{MaxIdleConns: 2}}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks what the node is and how far it has come.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Counters asks for counters and gauges by name.
func (c *Client) Counters(ctx context.Context) (map[string]int64, error) {
	return get[map[string]int64](ctx, c, "/v1/counters")
}

// Circuits asks for the circuits that the node has built.
func (c *Client) Circuits(ctx context.Context) ([]Circuit, error) {
	return get[[]Circuit](ctx, c, "/v1/circuits")
}

// Streams asks a client for the requests of applications.
func (c *Client) Streams(ctx context.Context) ([]Stream, error) {
	return get[[]Stream](ctx, c, "/v1/streams")
}

// Links asks for links with neighbours.
func (c *Client) Links(ctx context.Context) ([]Link, error) { return get[[]Link](ctx, c, "/v1/links") }

// Guards asks a client for its guards.
func (c *Client) Guards(ctx context.Context) ([]Guard, error) {
	return get[[]Guard](ctx, c, "/v1/guards")
}

// Bandwidth asks for the traffic.
func (c *Client) Bandwidth(ctx context.Context) (Bandwidth, error) {
	return get[Bandwidth](ctx, c, "/v1/bandwidth")
}

// Relays asks for the relays of the consensus.
func (c *Client) Relays(ctx context.Context) ([]Relay, error) {
	return get[[]Relay](ctx, c, "/v1/relays")
}

// Log asks for at most limit of the newest lines with numbers above after.
func (c *Client) Log(ctx context.Context, after uint64, limit int) (Log, error) {
	return get[Log](ctx, c, fmt.Sprintf("/v1/log?after=%d&limit=%d", after, limit))
}

// NewIdentity has nothing new use a circuit that exists now.
func (c *Client) NewIdentity(ctx context.Context) (NewIdentity, error) {
	var v NewIdentity
	err := c.ask(ctx, http.MethodPost, "/v1/new-identity", &v)
	return v, err
}

// RefreshKeys has the node look at its files of keys.
func (c *Client) RefreshKeys(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, "/v1/keys", &done{})
}

// Events reads what happens, of the kinds that are named, or all, and gives it to f, with Data of the type that the kind
// says. It returns when f returns an error, with that; when ctx ends; or when the node goes, with io.EOF or the like.
func (c *Client) Events(ctx context.Context, f func(Event) error, kinds ...string) error {
	response, err := c.open(ctx, http.MethodGet, "/v1/events?kinds="+url.QueryEscape(strings.Join(kinds, ",")))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	err = readEvents(response.Body, f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// readEvents reads server-sent events as serveEvents writes them, and as any server may (HTML, "Server-sent events").
func readEvents(from io.Reader, f func(Event) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var kind string
	var data []byte
	for lines.Scan() {
		line := bytes.TrimSuffix(lines.Bytes(), []byte("\r"))
		if len(line) == 0 {
			if e, ok, err := decodeEvent(kind, data); err != nil {
				return err
			} else if ok {
				if err := f(e); err != nil {
					return err
				}
			}
			kind, data = "", data[:0]
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			kind = string(value)
		case "data":
			if len(data)+len(value) > maxEvent {
				return fmt.Errorf("reading events: one of more than %d bytes", maxEvent)
			}
			data = append(data, value...)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading events: %w", err)
	}
	return io.ErrUnexpectedEOF
}

// decodeEvent makes an event; not ok for one of a kind that this version does not know.
func decodeEvent(kind string, data []byte) (e Event, ok bool, err error) {
	var v any
	switch kind {
	case EventStatus:
		v, err = decoded[Status](data)
	case EventBandwidth:
		v, err = decoded[Sample](data)
	case EventCircuit:
		v, err = decoded[Circuit](data)
	case EventStream:
		v, err = decoded[Stream](data)
	case EventLog:
		v, err = decoded[Line](data)
	case EventLost:
		v, err = decoded[Lost](data)
	default:
		return Event{}, false, nil
	}
	if err != nil {
		return Event{}, false, fmt.Errorf("reading an event: %w", err)
	}
	return Event{kind, v}, true, nil
}

func decoded[T any](data []byte) (v T, err error) {
	err = json.Unmarshal(data, &v)
	return v, err
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	err = c.ask(ctx, http.MethodGet, path, &v)
	return v, err
}

// open makes a request and gives the answer if it is a success.
func (c *Client) open(ctx context.Context, method, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			if errors.Is(err, fs.ErrPermission) {
				return nil, fmt.Errorf("asking %s: %w", c.name, ErrForbidden)
			}
			return nil, fmt.Errorf("asking %s: %w there", c.name, ErrNotRunning)
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which says nothing
		}
		return nil, fmt.Errorf("asking %s: %w", c.name, err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		var failure Failure
		if json.Unmarshal(body, &failure) != nil || failure.Error == "" {
			failure.Error = "status " + strconv.Itoa(response.StatusCode)
		}
		return nil, fmt.Errorf("asking %s: %w", c.name, &StatusError{response.StatusCode, failure.Error})
	}
	return response, nil
}

func (c *Client) ask(ctx context.Context, method, path string, v any) error {
	response, err := c.open(ctx, method, path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("asking %s: %w", c.name, err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("asking %s: reading the answer: %w", c.name, err)
	}
	return nil
}

// GetStatus asks the node whose state directory is dir, once.
func GetStatus(ctx context.Context, dir string) (Status, error) {
	c := NewClient(dir)
	defer c.Close()
	return c.Status(ctx)
}

// GetCounters asks the node whose state directory is dir, once.
func GetCounters(ctx context.Context, dir string) (map[string]int64, error) {
	c := NewClient(dir)
	defer c.Close()
	return c.Counters(ctx)
}

// RefreshKeys has the node whose state directory is dir look at its files of keys.
func RefreshKeys(ctx context.Context, dir string) error {
	c := NewClient(dir)
	defer c.Close()
	return c.RefreshKeys(ctx)
}

// Kinds are all kinds of events that a reader can ask for.
func Kinds() []string { return slices.Clone(eventKinds) }
