package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fakeClient is a node with one of everything.
type fakeClient struct{ hub Hub }

func newFakeClient() *fakeClient { return new(fakeClient) }

func (*fakeClient) Status(context.Context) (Status, error) {
	return Status{
		Name: "client", Role: "client", Percent: 100, Consensus: &Consensus{Relays: 7}, Warnings: []string{"w"}, Problems: []Problem{{"c", "w", "d"}},
	}, nil
}
func (*fakeClient) Counters(context.Context) (map[string]int64, error) {
	return map[string]int64{"links": 1}, nil
}
func (*fakeClient) Circuits(context.Context) ([]Circuit, error) {
	return []Circuit{{ID: 1, State: "open", Purpose: "ready", Hops: []Hop{{"a", "00", "127.1.0.1:9001"}}, Built: 1}}, nil
}
func (*fakeClient) Links(context.Context) ([]Link, error) { return []Link{{Direction: "out"}}, nil }
func (*fakeClient) Relays(context.Context) ([]Relay, error) {
	return []Relay{{Addresses: []string{"x"}, Flags: []string{"Guard"}}}, nil
}
func (*fakeClient) Traffic() (received, sent uint64)          { return 10, 20 }
func (f *fakeClient) Hub() *Hub                               { return &f.hub }
func (*fakeClient) Streams(context.Context) ([]Stream, error) { return []Stream{{ID: 1}}, nil }
func (*fakeClient) Guards(context.Context) ([]Guard, error)   { return []Guard{{State: "up"}}, nil }
func (*fakeClient) NewIdentity(context.Context) (NewIdentity, error) {
	return NewIdentity{Retired: 3, Running: 1}, nil
}

// TestClientAsksForEverything protects the client package: what the node says arrives unchanged.
func TestClientAsksForEverything(t *testing.T) {
	t.Parallel()
	dir, node := t.TempDir(), newFakeClient()
	s, err := Start(Options{Dir: dir, Source: node, Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	overPort, err := NewPortClient(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*Client{"socket": NewClient(dir), "port": overPort} {
		defer c.Close()
		ctx := t.Context()
		same := func(what string, got any, err error, want any, _ error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s: %+v, %v; want %+v", name, what, got, err, want)
			}
		}
		check := func(what string, get, want func() (any, error)) {
			t.Helper()
			g, err := get()
			w, _ := want()
			same(what, g, err, w, nil)
		}
		check("status", func() (any, error) { return c.Status(ctx) }, func() (any, error) { return node.Status(ctx) })
		check("counters", func() (any, error) { return c.Counters(ctx) }, func() (any, error) { return node.Counters(ctx) })
		check("circuits", func() (any, error) { return c.Circuits(ctx) }, func() (any, error) { return node.Circuits(ctx) })
		check("streams", func() (any, error) { return c.Streams(ctx) }, func() (any, error) { return node.Streams(ctx) })
		check("links", func() (any, error) { return c.Links(ctx) }, func() (any, error) { return node.Links(ctx) })
		check("guards", func() (any, error) { return c.Guards(ctx) }, func() (any, error) { return node.Guards(ctx) })
		check("relays", func() (any, error) { return c.Relays(ctx) }, func() (any, error) { return node.Relays(ctx) })
		check("new identity", func() (any, error) { return c.NewIdentity(ctx) }, func() (any, error) { return node.NewIdentity(ctx) })
		if err := c.RefreshKeys(ctx); err == nil || !strings.Contains(err.Error(), "this kind of node has none") {
			t.Errorf("%s: keys of a client: %v", name, err)
		}
		var status *StatusError
		if _, err := get[Log](ctx, c, "/v1/log?after=x"); !errors.As(err, &status) || status.Status != http.StatusBadRequest {
			t.Errorf("%s: a bad query: %v", name, err)
		}
		if _, err := get[Log](ctx, c, "/v1/nothing"); !errors.As(err, &status) || status.Status != http.StatusNotFound {
			t.Errorf("%s: a path that is none: %v", name, err)
		}
	}
}

// TestPortKeepsOthersOut protects the port: from who does not know the token, from names that somebody else makes point
// here, and from pages of other sites, token or not.
func TestPortKeepsOthersOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Start(Options{Dir: dir, Source: newFakeClient(), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	path := filepath.Join(dir, portName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file has mode %v", info.Mode())
	}
	var file portFile
	if err := json.Unmarshal(data, &file); err != nil || len(file.Token) != 2*tokenBytes {
		t.Fatalf("%s: %v", data, err)
	}
	port := s.Address().Port()
	own := fmt.Sprintf("127.0.0.1:%d", port)
	for _, c := range []struct {
		name, token, host string
		header            http.Header
		want              int
	}{
		{"right", file.Token, own, nil, 200},
		{"by the name localhost", file.Token, fmt.Sprintf("localhost:%d", port), nil, 200},
		{"own page", file.Token, own, http.Header{"Origin": {"http://" + own}, "Sec-Fetch-Site": {"same-origin"}}, 200},
		{"no token", "", own, nil, 401},
		{"wrong token", strings.Repeat("0", 2*tokenBytes), own, nil, 401},
		{"shorter token", file.Token[:10], own, nil, 401},
		{"rebound name", file.Token, fmt.Sprintf("evil.example:%d", port), nil, 421},
		{"name without port", file.Token, "localhost", nil, 421},
		{"other port", file.Token, "127.0.0.1:1", nil, 421},
		{"other page", file.Token, own, http.Header{"Origin": {"http://evil.example"}}, 403},
		{"null origin", file.Token, own, http.Header{"Origin": {"null"}}, 403},
		{"other port's page", file.Token, own, http.Header{"Origin": {"http://127.0.0.1:1"}}, 403},
		{"two origins", file.Token, own, http.Header{"Origin": {"http://" + own, "http://evil.example"}}, 403},
		{"cross-site image", file.Token, own, http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
	} {
		q, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+own+"/v1/status", nil)
		q.Host = c.host
		for k, v := range c.header {
			q.Header[k] = v
		}
		if c.token != "" {
			q.Header.Set("Authorization", "Bearer "+c.token)
		}
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != c.want {
			t.Errorf("%s: %s %s, want %d", c.name, r.Status, body, c.want)
		}
		for k := range r.Header {
			if strings.HasPrefix(k, "Access-Control") {
				t.Errorf("%s: the answer has %s", c.name, k)
			}
		}
		if c.want != 200 && strings.Contains(string(body), "percent") {
			t.Errorf("%s: refused, and told: %s", c.name, body)
		}
	}
	if _, err := Start(Options{Dir: t.TempDir(), Source: newFakeClient(), Listen: netip.MustParseAddrPort("0.0.0.0:0")}); err == nil {
		t.Error("the port opened on all addresses")
	}
	s.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the token outlives the node")
	}
	s2, err := Start(Options{Dir: dir, Source: newFakeClient(), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if again, _ := os.ReadFile(path); strings.Contains(string(again), file.Token) {
		t.Error("the token is that of the last run")
	}
	s = s2
}

// TestEventsArrive reads each kind, in order, with the status first.
func TestEventsArrive(t *testing.T) {
	t.Parallel()
	dir, node := t.TempDir(), newFakeClient()
	s, err := Start(Options{Dir: dir, Source: node})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := NewClient(dir)
	defer c.Close()
	stop := errors.New("enough")
	var got []Event
	err = c.Events(t.Context(), func(e Event) error {
		if got = append(got, e); len(got) == 1 {
			go func() { // a reader is there now
				node.hub.Publish(EventCircuit, Circuit{ID: 7})
				node.hub.Publish(EventStream, Stream{ID: 8})
				node.hub.Log(time.Unix(1, 5), "INFO", "msg=hello")
			}()
		}
		if len(got) == 4 {
			return stop
		}
		return nil
	}, EventStatus, EventCircuit, EventStream, EventLog)
	if err != stop {
		t.Fatal(err)
	}
	want := []Event{
		got[0], {EventCircuit, Circuit{ID: 7}}, {EventStream, Stream{ID: 8}},
		{EventLog, Line{Number: 1, Time: time.Unix(1, 0).UTC(), Level: "INFO", Text: "msg=hello"}},
	}
	if got[0].Kind != EventStatus || got[0].Data.(Status).Percent != 100 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if err := c.Events(t.Context(), nil, "nonsense"); err == nil || !strings.Contains(err.Error(), "there are status") {
		t.Errorf("an unknown kind: %v", err)
	}
	// The node goes: the reader is told.
	err = c.Events(t.Context(), func(Event) error { go s.Close(); return nil })
	if err == nil || errors.Is(err, stop) {
		t.Errorf("after Close: %v", err)
	}
}

// TestSlowReaderLosesEvents: nothing waits for a reader, and what he missed he is told.
func TestSlowReaderLosesEvents(t *testing.T) {
	t.Parallel()
	var h Hub
	var kinds [5]bool
	kinds[kindIndex(EventLog)] = true
	r := h.subscribe(kinds)
	const sent = eventQueue + 100
	for range sent {
		h.Log(time.Time{}, "INFO", "x")
	}
	if lost := r.lost.Load(); len(r.queue) != eventQueue || lost != 100 {
		t.Errorf("%d wait and %d are lost, of %d", len(r.queue), lost, sent)
	}
	for range maxReaders - 1 {
		h.subscribe(kinds)
	}
	if h.subscribe(kinds) != nil {
		t.Error("more readers than there may be")
	}
	h.unsubscribe(r)
	if h.subscribe(kinds) == nil {
		t.Error("no room after one has left")
	}
	if h.Wanted(EventCircuit) || !h.Wanted(EventLog) {
		t.Error("who wants what is wrong")
	}
}

// TestSlowReaderIsTold does the same over the socket: a reader that pauses hears how much he has lost.
func TestSlowReaderIsTold(t *testing.T) {
	t.Parallel()
	dir, node := t.TempDir(), newFakeClient()
	s, err := Start(Options{Dir: dir, Source: node})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := NewClient(dir)
	defer c.Close()
	const sent = 5000
	text := strings.Repeat("x", 2000)
	read, lost := 0, uint64(0)
	stop := errors.New("enough")
	err = c.Events(t.Context(), func(e Event) error {
		switch d := e.Data.(type) {
		case Status:
			for range sent { // faster than anybody reads: nobody does meanwhile
				node.hub.Log(time.Time{}, "INFO", text)
			}
		case Line:
			read++
		case Lost:
			lost += d.Events
		}
		if uint64(read)+lost == sent {
			return stop
		}
		return nil
	}, EventStatus, EventLog)
	if err != stop || lost == 0 || read < eventQueue {
		t.Errorf("%v: %d read, %d lost", err, read, lost)
	}
}

// TestLogIsBounded: what is kept of the log has an end, and a reader learns what he missed.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	var h Hub
	for i := range 3 * logLines {
		h.Log(time.Time{}, "INFO", fmt.Sprint(i))
	}
	l := h.tail(0, logLines)
	if len(l.Lines) != logLines || l.Missed != 2*logLines || l.Last != 3*logLines || l.Lines[0].Number != 2*logLines+1 {
		t.Errorf("%d lines, %d missed, last %d, first %+v", len(l.Lines), l.Missed, l.Last, l.Lines[0])
	}
	if l := h.tail(3*logLines-2, logLines); len(l.Lines) != 2 || l.Missed != 0 {
		t.Errorf("the last two: %+v", l)
	}
	if l := h.tail(1<<62, logLines); len(l.Lines) != 0 || l.Last != 3*logLines {
		t.Errorf("from the future: %+v", l)
	}
	for range logLines {
		h.Log(time.Time{}, "INFO", strings.Repeat("y", 10*lineBytes))
	}
	if h.kept > logBytes || len(h.lines) == 0 {
		t.Errorf("%d bytes in %d lines are kept", h.kept, len(h.lines))
	}
}

func TestRatesAreOfTheLastSeconds(t *testing.T) {
	t.Parallel()
	var h Hub
	at := time.Unix(1000, 0)
	for i := range historyLength + 10 {
		h.sample(at.Add(time.Duration(i)*time.Second), uint64(i*100), uint64(i*10))
	}
	b := h.bandwidth()
	if len(b.History) != historyLength || b.ReceivedRate != 100 || b.SentRate != 10 || b.Received != (historyLength+9)*100 {
		t.Errorf("%d samples, %d and %d a second, %d in all", len(b.History), b.ReceivedRate, b.SentRate, b.Received)
	}
}

// TestAdviceForEveryProblem: nobody is told what is wrong without what to do.
func TestAdviceForEveryProblem(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	for _, s := range []Status{
		{Percent: 10, Waiting: "the authorities"}, {Percent: 99, Doing: "cannot open the SOCKS port"}, {Percent: 30, Uptime: 90},
		{Percent: 95, Role: "relay", Waiting: "the authorities to list this relay", Consensus: &Consensus{ValidUntil: now.Add(1)}},
		{Percent: 100, Consensus: &Consensus{ValidUntil: now}}, {Percent: 100, Notices: []Notice{{"update-required", "it is old"}, {"unheard-of", "anything"}}},
		{Notices: []Notice{{"hibernating", "it sleeps"}}, Doing: Hibernating, Waiting: "the next month"},
	} {
		list := Advise(s, now)
		if s.Uptime == 0 && s.Waiting == "" && s.Percent < 100 {
			continue // it has only just begun
		}
		if len(list) == 0 {
			t.Errorf("nothing is said of %+v", s)
		}
		for _, p := range list {
			if p.Code == "" || p.Text == "" || p.Do == "" {
				t.Errorf("%+v: %+v", s, p)
			}
		}
	}
	shut := Status{Percent: 90, Role: "relay", Waiting: "others to reach TCP port 9001", Notices: []Notice{{"unreachable", "others do not reach it"}}}
	if list := Advise(shut, now); len(list) != 1 || !strings.Contains(list[0].Do, "open the port") {
		t.Errorf("of a closed port: %+v", list)
	}
	if list := Advise(Status{Percent: 100, Consensus: &Consensus{ValidUntil: now.Add(1)}}, now); list != nil {
		t.Errorf("all is well, and %+v", list)
	}
}

// FuzzEvents: whatever a server sends, the reader ends, with events of known kinds.
func FuzzEvents(f *testing.F) {
	f.Add("event: status\ndata: {}\n\n")
	f.Add(": comment\r\n\r\nevent: log\r\ndata: {\"number\":1,\r\ndata: \"text\":\"x\"}\r\n\r\n")
	f.Add("data: 1\n\nevent: lost\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		err := readEvents(strings.NewReader(text), func(e Event) error {
			if kindIndex(e.Kind) < 0 && e.Kind != EventLost || e.Data == nil {
				t.Errorf("%+v", e)
			}
			return nil
		})
		if err == nil {
			t.Error("a stream of events without an end")
		}
	})
}
