package control

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
)

// Source is the node behind the API. Its methods, and those of the interfaces below, may be called at any time until
// Close.
type Source interface {
	Status(ctx context.Context) (Status, error)
	Counters(ctx context.Context) (map[string]int64, error)
}

// KeyKeeper is a Source that has keys.
type KeyKeeper interface {
	// RefreshKeys looks at the files of keys in the node's folder.
	RefreshKeys(ctx context.Context) error
}

// Node is a Source that tells of its links, its circuits, and the network.
type Node interface {
	// Circuits are those that the node has built itself, the oldest first.
	Circuits(ctx context.Context) ([]Circuit, error)
	// Links are at most MaxLinks, the oldest first.
	Links(ctx context.Context) ([]Link, error)
	// Relays are those of the consensus in use, in its order; none without one.
	Relays(ctx context.Context) ([]Relay, error)
	// Traffic is what all links have received and sent, in bytes. It does not wait.
	Traffic() (received, sent uint64)
	// Hub is what the node publishes to; it is always the same.
	Hub() *Hub
}

// ClientNode is a Node that uses the network for applications.
type ClientNode interface {
	Streams(ctx context.Context) ([]Stream, error)
	Guards(ctx context.Context) ([]Guard, error)
	// NewIdentity has nothing new use a circuit that exists now.
	NewIdentity(ctx context.Context) (NewIdentity, error)
}

// MaxLinks bounds a list of links.
const MaxLinks = 4096

// errNotHere says that this kind of node has no such thing.
var errNotHere = errors.New("this kind of node has none")

// errQuery is what errors of query parameters are to errors.Is.
var errQuery = errors.New("bad query")

// route is one thing that the API does.
type route struct {
	method, path  string
	summary       string
	answer        any // a value of the type of the answer
	query         []parameter
	call          func(ctx context.Context, src Source, q url.Values) (any, error)
	stream        bool // the answer is a stream of events
	clients, keys bool // only clients have it, or only nodes with keys
}

// parameter is one of a query.
type parameter struct {
	name, doc string
	number    bool
}

// routes are all that the API does. control/openapi.json documents them.
func routes() []route {
	return []route{
		{method: "GET", path: "/v1/status", summary: "What the node is and how far it has come", answer: Status{},
			call: func(ctx context.Context, s Source, _ url.Values) (any, error) { return s.Status(ctx) }},
		{method: "GET", path: "/v1/counters", summary: "Counters and gauges by name; names may come and go between versions", answer: map[string]int64{},
			call: func(ctx context.Context, s Source, _ url.Values) (any, error) { return s.Counters(ctx) }},
		{method: "GET", path: "/v1/circuits", summary: "The circuits that this node has built, the oldest first; a relay's are of one hop, to fetch the directory", answer: []Circuit{},
			call: onNode(func(ctx context.Context, n Node) (any, error) { return n.Circuits(ctx) })},
		{method: "GET", path: "/v1/streams", summary: "Requests of applications that are not over", answer: []Stream{}, clients: true,
			call: onClient(func(ctx context.Context, n ClientNode) (any, error) { return n.Streams(ctx) })},
		{method: "GET", path: "/v1/links", summary: "Links with neighbours, at most 4096, the oldest first", answer: []Link{},
			call: onNode(func(ctx context.Context, n Node) (any, error) { return n.Links(ctx) })},
		{method: "GET", path: "/v1/guards", summary: "The guards that can be used, the preferred first", answer: []Guard{}, clients: true,
			call: onClient(func(ctx context.Context, n ClientNode) (any, error) { return n.Guards(ctx) })},
		{method: "GET", path: "/v1/bandwidth", summary: "Traffic: totals, rates, and five minutes by the second", answer: Bandwidth{},
			call: onNode(func(_ context.Context, n Node) (any, error) { return n.Hub().bandwidth(), nil })},
		{method: "GET", path: "/v1/relays", summary: "The relays of the consensus in use", answer: []Relay{},
			call: onNode(func(ctx context.Context, n Node) (any, error) { return n.Relays(ctx) })},
		{method: "GET", path: "/v1/log", summary: "The end of the log: at most 1000 lines are kept", answer: Log{},
			query: []parameter{{"after", "only lines with greater numbers", true}, {"limit", "at most so many lines, the newest; 1000 unless told", true}},
			call: func(_ context.Context, s Source, q url.Values) (any, error) {
				n, ok := s.(Node)
				if !ok {
					return nil, errNotHere
				}
				after, err1 := number(q, "after", 0)
				limit, err2 := number(q, "limit", logLines)
				if err := errors.Join(err1, err2); err != nil {
					return nil, err
				}
				return n.Hub().tail(after, int(min(limit, logLines))), nil
			}},
		{method: "GET", path: "/v1/events", summary: "What happens, as it happens: server-sent events, named by kind, with JSON data (status: Status; bandwidth: Sample, every second; circuit: Circuit; stream: Stream; log: Line; lost: Lost). A reader that is too slow loses events and gets a lost event instead. At most 16 readers",
			query: []parameter{{"kinds", "kinds with commas between: status, bandwidth, circuit, stream, log; all unless told", false}}, stream: true},
		{method: "POST", path: "/v1/new-identity", summary: "No stream opened from now on uses a circuit that exists now; what runs goes on", answer: NewIdentity{}, clients: true,
			call: onClient(func(ctx context.Context, n ClientNode) (any, error) { return n.NewIdentity(ctx) })},
		{method: "POST", path: "/v1/keys", summary: "The files of keys have changed: look at them now", answer: done{}, keys: true,
			call: func(ctx context.Context, s Source, _ url.Values) (any, error) {
				k, ok := s.(KeyKeeper)
				if !ok {
					return nil, errNotHere
				}
				return done{}, k.RefreshKeys(ctx)
			}},
	}
}

func onNode(f func(context.Context, Node) (any, error)) func(context.Context, Source, url.Values) (any, error) {
	return func(ctx context.Context, s Source, _ url.Values) (any, error) {
		if n, ok := s.(Node); ok {
			return f(ctx, n)
		}
		return nil, errNotHere
	}
}

func onClient(f func(context.Context, ClientNode) (any, error)) func(context.Context, Source, url.Values) (any, error) {
	return func(ctx context.Context, s Source, _ url.Values) (any, error) {
		if n, ok := s.(ClientNode); ok {
			return f(ctx, n)
		}
		return nil, errNotHere
	}
}

// number reads a parameter that is one.
func number(q url.Values, name string, otherwise uint64) (uint64, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, badQuery(name + " is not a whole number")
	}
	return n, nil
}

type badQuery string

func (e badQuery) Error() string   { return string(e) }
func (e badQuery) Is(t error) bool { return t == errQuery }

// statusOf is the HTTP status for an error.
func statusOf(err error) int {
	switch {
	case errors.Is(err, errNotHere):
		return http.StatusNotFound
	case errors.Is(err, errQuery):
		return http.StatusBadRequest
	}
	return http.StatusServiceUnavailable
}
