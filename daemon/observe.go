package daemon

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"cepa/cert"
	"cepa/circuit"
	"cepa/control"
	"cepa/directory"
	"cepa/flow"
)

// What a node shows over its control API: this file makes what control.Node asks for of what the actors know. They are
// asked on their loop, as everything is.

// ControlConfig says how a node can be watched and steered from outside.
type ControlConfig struct {
	// Listen is a loopback address and port for the control API, beside its Unix socket; empty is none.
	Listen string `toml:"listen,omitempty" value:"ADDRESS" help:"A loopback address and port for the control API, such as 127.0.0.1:9852, beside its Unix socket; whoever asks there needs the token in the file control.port of the folder. None if it is empty."`
	// ShowDestinations has the API name the hosts that streams go to, to whoever may ask it.
	ShowDestinations bool `toml:"show_destinations,omitempty" help:"Name the hosts that streams go to, to whoever may ask the control API."`
}

func (c *ControlConfig) check() error {
	if _, err := netip.ParseAddrPort(c.Listen); c.Listen != "" && err != nil {
		return fmt.Errorf("control.listen %q is not an IP address and port such as %s", c.Listen, DefaultControl)
	}
	return nil
}

// DefaultControl is the port that the documents suggest.
const DefaultControl = "127.0.0.1:9852"

// observer is what a shell keeps for the API.
type observer struct {
	config ControlConfig
	hub    control.Hub
	secret [32]byte // with which isolation keys are named

	mu        sync.Mutex
	consensus *directory.Consensus // which nobody changes
}

func newObserver() *observer {
	o := new(observer)
	_, _ = rand.Read(o.secret[:]) // never fails
	return o
}

// startControl opens the control socket, and the port if there is to be one.
func (s *shell) startControl(dir string, config ControlConfig, src control.Source) error {
	s.observer.config = config
	o := control.Options{Dir: dir, Source: src}
	err := config.check()
	if err != nil {
		return err
	}
	if config.Listen != "" {
		o.Listen, _ = netip.ParseAddrPort(config.Listen) // see check
	}
	s.control, err = control.Start(o)
	return err
}

// Hub implements control.Node.
func (s *shell) Hub() *control.Hub { return &s.observer.hub }

// Traffic implements control.Node.
func (s *shell) Traffic() (received, sent uint64) {
	t := s.links.Stats()
	return t.BytesRead, t.BytesWritten
}

// observeConsensus keeps the consensus in use for Relays and the names of relays.
func (o *observer) observeConsensus(c *directory.Consensus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.consensus = c
}

func (o *observer) current() *directory.Consensus {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.consensus
}

// statusChanged tells readers of events.
func (s *shell) statusChanged() {
	if !s.observer.hub.Wanted(control.EventStatus) {
		return
	}
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	status.Uptime = int64(time.Since(s.started).Seconds())
	status.Problems = control.Advise(status, time.Now())
	s.observer.hub.Publish(control.EventStatus, status)
}

// Relays implements control.Node.
func (s *shell) Relays(context.Context) ([]control.Relay, error) {
	c := s.observer.current()
	if c == nil {
		return []control.Relay{}, nil
	}
	list := make([]control.Relay, 0, len(c.Relays))
	for i := range c.Relays {
		r := &c.Relays[i]
		x := control.Relay{Nickname: r.Nickname, Identity: r.Identity.String(), Flags: strings.Fields(r.Flags.String()), Weight: r.Weight}
		for _, a := range r.Addresses {
			x.Addresses = append(x.Addresses, a.String())
		}
		list = append(list, x)
	}
	return list, nil
}

// name looks a relay up in the consensus in use.
func name(c *directory.Consensus, id cert.Identity) (nickname, address string) {
	if c == nil {
		return "", ""
	}
	r := c.Lookup(id)
	if r == nil {
		return "", ""
	}
	return r.Nickname, r.Addresses[0].String()
}

// linksOf are the links of a node for the API. Clients are not told apart.
func (s *shell) linksOf(ctx context.Context, describe func(most int) []flow.LinkInfo) ([]control.Link, error) {
	var infos []flow.LinkInfo
	if err := s.loop.Do(ctx, func() { infos = describe(control.MaxLinks) }); err != nil {
		return nil, err
	}
	c := s.observer.current()
	list := make([]control.Link, 0, len(infos))
	for _, i := range infos {
		l := control.Link{
			Address: scrubbed, Direction: "in", Age: seconds(i.Age), Received: i.BytesIn, Sent: i.BytesOut,
			Queued: i.Queued, Circuits: i.Circuits, Draining: i.Draining,
		}
		if i.Peer.Dialled {
			l.Direction = "out"
		}
		if !i.Peer.Client() {
			l.Identity, l.Address = i.Peer.Identity.String(), i.Peer.Address.String()
			l.Nickname, _ = name(c, i.Peer.Identity)
		}
		list = append(list, l)
	}
	return list, nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// circuit makes one of the API. Directory circuits have no key.
func (o *observer) circuit(c *directory.Consensus, i circuit.Info) control.Circuit {
	x := control.Circuit{
		ID: i.ID, State: "building", Purpose: "streams", Retired: i.Retired, Suspect: i.Suspect, Age: seconds(i.Age),
		Hops: make([]control.Hop, 0, len(i.Path)), Built: i.Hops, Streams: i.Streams,
	}
	if i.Open {
		x.State = "open"
	}
	switch {
	case i.ID == 0:
		x.Purpose = "directory"
	case i.Clean:
		x.Purpose = "ready"
	default:
		x.Isolation = o.isolation(i.Key)
	}
	for _, id := range i.Path {
		h := control.Hop{Identity: id.String()}
		h.Nickname, h.Address = name(c, id)
		x.Hops = append(x.Hops, h)
	}
	return x
}

// isolation names an isolation key so that equal keys can be seen and none can be guessed.
func (o *observer) isolation(key string) string {
	if key == "" {
		return ""
	}
	m := hmac.New(sha256.New, o.secret[:])
	m.Write([]byte(key))
	return hex.EncodeToString(m.Sum(nil)[:4])
}

func (o *observer) stream(i circuit.StreamInfo) control.Stream {
	host := scrubbed
	if o.config.ShowDestinations {
		host = i.Address.String()
	}
	x := control.Stream{
		ID: i.ID, State: i.State.String(), Kind: "connect", Circuit: i.Circuit,
		Isolation: o.isolation(i.Key), Age: seconds(i.Age), Received: i.BytesIn, Sent: i.BytesOut,
	}
	if i.Lookup {
		x.Kind, x.Destination = "resolve", host
	} else if x.Destination = scrubbed + ":" + strconv.Itoa(int(i.Port)); o.config.ShowDestinations {
		x.Destination = net.JoinHostPort(host, strconv.Itoa(int(i.Port)))
	}
	if i.Err != nil {
		var e *circuit.Error
		switch {
		case o.config.ShowDestinations:
			x.Reason = i.Err.Error()
		case errors.As(i.Err, &e): // its text may name the destination
			x.Reason = e.Reason.String()
		default:
			x.Reason = "failed"
		}
	}
	return x
}

// onCircuit hears on the loop of each step of a client's circuits.
func (s *shell) onCircuit(e circuit.Event) {
	hub := &s.observer.hub
	if !hub.Wanted(control.EventCircuit) {
		return
	}
	x := s.observer.circuit(s.observer.current(), circuit.Info{
		ID: e.ID, Path: e.Path, Hops: e.Hops, Open: e.Stage == circuit.StageOpen || e.Stage == circuit.StageUsed, Clean: !e.Keyed, Key: e.Key, Streams: e.Streams,
	})
	if e.Stage == circuit.StageOver {
		x.State, x.Reason = "closed", e.Cause
	}
	hub.Publish(control.EventCircuit, x)
}

// onStream hears on the loop of each step of an application's requests.
func (s *shell) onStream(i circuit.StreamInfo) {
	if hub := &s.observer.hub; hub.Wanted(control.EventStream) {
		hub.Publish(control.EventStream, s.observer.stream(i))
	}
}

// Links implements control.Node.
func (c *Client) Links(ctx context.Context) ([]control.Link, error) {
	return c.linksOf(ctx, c.node.Links)
}

// Links implements control.Node.
func (r *Relay) Links(ctx context.Context) ([]control.Link, error) {
	return r.linksOf(ctx, r.node.Links)
}

// Circuits implements control.Node.
func (c *Client) Circuits(ctx context.Context) ([]control.Circuit, error) {
	return c.circuitsOf(ctx, func() []circuit.Info { return append(c.node.Circuits(), c.node.DirectoryCircuits()...) })
}

// Circuits implements control.Node.
func (r *Relay) Circuits(ctx context.Context) ([]control.Circuit, error) {
	return r.circuitsOf(ctx, r.node.DirectoryCircuits)
}

func (s *shell) circuitsOf(ctx context.Context, describe func() []circuit.Info) ([]control.Circuit, error) {
	var infos []circuit.Info
	if err := s.loop.Do(ctx, func() { infos = describe() }); err != nil {
		return nil, err
	}
	c := s.observer.current()
	list := make([]control.Circuit, 0, len(infos))
	for _, i := range infos {
		list = append(list, s.observer.circuit(c, i))
	}
	return list, nil
}

// Streams implements control.ClientNode.
func (c *Client) Streams(ctx context.Context) ([]control.Stream, error) {
	var infos []circuit.StreamInfo
	if err := c.loop.Do(ctx, func() { infos = c.node.Streams() }); err != nil {
		return nil, err
	}
	list := make([]control.Stream, 0, len(infos))
	for _, i := range infos {
		list = append(list, c.observer.stream(i))
	}
	return list, nil
}

// Guards implements control.ClientNode.
func (c *Client) Guards(ctx context.Context) ([]control.Guard, error) {
	var infos []circuit.GuardInfo
	if err := c.loop.Do(ctx, func() { infos = c.node.Guards() }); err != nil {
		return nil, err
	}
	consensus := c.observer.current()
	list := make([]control.Guard, 0, len(infos))
	for _, i := range infos {
		g := control.Guard{
			Identity: i.Identity.String(), State: i.State, InUse: i.InUse, Primary: i.Primary, Confirmed: i.Confirmed,
			Failures: i.Failures, Circuits: i.Circuits,
		}
		g.Nickname, g.Address = name(consensus, i.Identity)
		if i.Fault != nil {
			g.Fault = i.Fault.Error()
		}
		list = append(list, g)
	}
	return list, nil
}

// NewIdentity implements control.ClientNode.
func (c *Client) NewIdentity(ctx context.Context) (control.NewIdentity, error) {
	var answer control.NewIdentity
	err := c.loop.Do(ctx, func() {
		for _, i := range c.node.Circuits() {
			if !i.Retired {
				answer.Retired++
				if i.Streams > 0 {
					answer.Running++
				}
			}
		}
		c.node.NewIdentity()
	})
	if err == nil {
		c.options.Log.Info("new identity: nothing new uses the circuits until now", "circuits", answer.Retired)
	}
	return answer, err
}

// watchedHandler gives each record to the log, and each line to the API.
type watchedHandler struct {
	slog.Handler
	line slog.Handler // the same, into out
	out  *lineBuffer
}

// lineBuffer makes one line at a time.
type lineBuffer struct {
	hub *control.Hub
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lineBuffer) Write(p []byte) (int, error) { return b.buf.Write(p) }

// watchLog has the API see what the log says, in the words of NewLogHandler.
func watchLog(log *slog.Logger, hub *control.Hub) *slog.Logger {
	out := &lineBuffer{hub: hub}
	return slog.New(&watchedHandler{log.Handler(), NewLogHandler(out, "debug"), out})
}

func (h *watchedHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	h.out.mu.Lock()
	h.out.buf.Reset()
	_ = h.line.Handle(ctx, r) // a buffer takes everything
	text := strings.TrimRight(h.out.buf.String(), "\n")
	h.out.mu.Unlock()
	// What comes before is the time and the level, which a line has by itself.
	if _, rest, ok := strings.Cut(text, "level="+r.Level.String()+" "); ok {
		text = rest
	}
	h.out.hub.Log(r.Time, r.Level.String(), text)
	return err
}

func (h *watchedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &watchedHandler{h.Handler.WithAttrs(attrs), h.line.WithAttrs(attrs), h.out}
}

func (h *watchedHandler) WithGroup(group string) slog.Handler {
	return &watchedHandler{h.Handler.WithGroup(group), h.line.WithGroup(group), h.out}
}
